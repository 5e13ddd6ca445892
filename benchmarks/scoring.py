"""Schemes scored a second for ResNet-20, on one core, for each traffic model."""

from __future__ import annotations

import numpy as np
from _timing import interleaved, report

import hardware_specs
import roofline
from aiq import load_model

SCHEMES = 1_000_000
ROUNDS = 9


def main() -> None:
    graph = load_model("resnet20").trace()
    options = [roofline.LayerPrecision.parse(text) for text in ("fp32", "w8", "w4")]
    schemes = np.random.default_rng(0).integers(0, len(options), (SCHEMES, len(graph.layers)), dtype=np.uint8)
    tables = {
        f"{traffic} on {name}": roofline.CostTable(graph, hardware_specs.load(name), options, traffic=traffic)
        for traffic in roofline.TRAFFIC_MODELS
        for name in ("t4", "xeon-spr-2vcpu")
    }
    times = interleaved({name: lambda t=table: t.score(schemes) for name, table in tables.items()}, rounds=ROUNDS)
    print(f"ResNet-20, {len(graph.layers)} layers, {len(options)} formats: seconds for {SCHEMES:,} schemes")
    report(times, reference=next(iter(tables)))
    for name, seconds in times.items():
        print(f"{name:44}{SCHEMES / sorted(seconds)[len(seconds) // 2] / 1e6:9.2f} million schemes/s")


if __name__ == "__main__":
    main()
