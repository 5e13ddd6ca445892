"""Schemes scored a second on one core, for each traffic model, with and without format transitions."""

from __future__ import annotations

from statistics import median

import numpy as np
from _timing import interleaved, report

import hardware_specs
import roofline
from aiq import load_model

SCHEMES = 1_000_000
ROUNDS = 5


def main() -> None:
    formats = {"weights": ("fp32", "w8", "w4"), "activations too": ("fp32", "w8a8", "w4a8")}
    tables: dict[str, roofline.CostTable] = {}
    for what, texts in formats.items():
        options = [roofline.LayerPrecision.parse(text) for text in texts]
        for network, machine in (
            ("resnet20", "t4"),
            ("resnet20", "xeon-spr-2vcpu"),
            ("mobilenet_v2", "xeon-spr-2vcpu"),
        ):
            graph = load_model(network).trace()
            for traffic in roofline.TRAFFIC_MODELS:
                name = f"{network}, {traffic}, {machine.split('-')[0]}, {what}"
                tables[name] = roofline.CostTable(graph, hardware_specs.load(machine), options, traffic=traffic)
    schemes = {
        name: np.random.default_rng(0).integers(0, 3, (SCHEMES, len(table.layers)), dtype=np.uint8)
        for name, table in tables.items()
    }
    work = {name: lambda t=table, s=schemes[name]: t.score(s) for name, table in tables.items()}
    times = interleaved(work, rounds=ROUNDS, warm_up=1)
    print(f"seconds for {SCHEMES:,} schemes of three formats; ResNet-20 has 22 layers, MobileNetV2 53")
    report(times, reference=next(iter(tables)))
    for name, seconds in times.items():
        print(f"{name:52}{SCHEMES / median(seconds) / 1e6:9.2f} million schemes/s")


if __name__ == "__main__":
    main()
