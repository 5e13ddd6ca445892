"""The throughput experiment on runtimes whose times are known, and an oracle whose losses are planted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiq._reproduce import Reproduction, reproduce
from aiq._reproduce_lab import ReproduceSettings, ThroughputSettings
from aiq.oracle import Evaluation, Metric, OracleContext
from aiq.runtimes import Deployment, Step, Timing
from hardware_specs import HardwareSpec
from roofline import Scheme
from roofline.estimate import resolve
from tests.calibrated import CALIBRATED, profile, with_kernels
from tests.validating import Stopwatch, ToyPrepared, ToyRuntime, deployment, digits_graph, predicted

LOSSES = {"layer2.0.conv2": 4, "linear": 1}
"""Images of 200 that INT8 in a layer costs: a loss of 1 point allows the second alone."""
N = 200
IMAGES = 40
OTHER = "otherrun"
EAGER_S = 0.004
MACHINE = with_kernels(
    CALIBRATED,
    *CALIBRATED.kernels,
    *(model.model_copy(update={"runtime": OTHER}) for model in profile("fp32", "int8")),
)


class PlantedOracle:
    metric = Metric("accuracy", "points", scale=100.0)

    def __init__(self, argument: str, context: OracleContext) -> None:
        self.split = context.split

    @property
    def fingerprint(self) -> Mapping[str, str]:
        return {"oracle": "planted", "split": self.split, "data": "made-up", "n": str(N)}

    def evaluate(self, scheme: Scheme) -> Evaluation:
        right, wrong = np.ones(N, dtype=bool), 0
        for layer, formats in resolve(digits_graph(), scheme).items():
            if formats.weights is not None and not formats.weights.is_float:
                wrong += LOSSES.get(layer, 0)
        right[:wrong] = False
        return Evaluation(float(right.mean()), 0.0, N, right, divergence=float(wrong))


@dataclass
class Profiled(ToyRuntime):
    """Its profile says where the time of a scheme goes: half as long in INT8 layers, and a conversion for each."""

    def prepare(self, deployment: Deployment, scheme: Scheme, *, batch: int, threads: int | None = None) -> ToyPrepared:
        found = super().prepare(deployment, scheme, batch=batch, threads=threads)
        ran = {layer: executed.compute for layer, executed in found.executed_precisions().items()}
        return replace(found, steps=list(steps(ran)))


def steps(ran: Mapping[str, str]) -> Sequence[Step]:
    layers = [Step(layer, "Convolution", (layer,), "k", 1e-3 if fmt == "fp32" else 5e-4) for layer, fmt in ran.items()]
    conversions = [Step(f"q{layer}", "Reorder", (layer,), "r", 1e-4) for layer, fmt in ran.items() if fmt == "int8"]
    never = Step("once", "Convolution", ("conv1",), "k", float("nan"))
    return [*layers, *conversions, never, Step("add", "Add", (), "a", 3e-4)]


def toy(**changes: Any) -> Profiled:
    return Profiled(**changes)


def other(**changes: Any) -> Profiled:
    return Profiled(**{"name": OTHER, "refuses": "bf16", "seconds": lambda s, b: predicted(s, b) / 2, **changes})


@dataclass
class Bench:
    """What stands in for real work: the stopwatch, and PyTorch eager."""

    watch: Stopwatch
    eager: ToyRuntime


def fake_bench(monkeypatch: pytest.MonkeyPatch, **watch: Any) -> Bench:
    made = Bench(Stopwatch(**watch), ToyRuntime(name="torch", seconds=lambda scheme, batch: EAGER_S))

    def load(name: str) -> ToyRuntime:
        return {"torch": made.eager, "toyrun": toy(), OTHER: other()}[name]

    def measure(networks: Any, *, rounds: int, progress: Any) -> Timing:
        return made.watch(networks, rounds=rounds, progress=progress)

    monkeypatch.setattr("aiq._reproduce_throughput_bench.measure", measure)
    monkeypatch.setattr("aiq._reproduce_throughput.load_runtime", load)
    monkeypatch.setattr("aiq._reproduce_throughput.Deployment", lambda _: deployment())
    monkeypatch.setattr("aiq._reproduce_throughput_schemes.PAPER_LAYERS", 3)
    return made


def settings(folder: Path, *runtimes: Any, hardware: HardwareSpec | None = MACHINE, **changes: Any) -> Any:
    throughput = {"model": "digits_cnn", "hardware": hardware, "runtimes": runtimes, "batch": 4, "rounds": 10}
    own = {key: changes.pop(key) for key in [*changes] if key in ThroughputSettings.__dataclass_fields__}
    given = {
        "data": Path("digits"),
        "out": folder / "out",
        "cache": "none",
        "oracle": PlantedOracle,
        "limit": IMAGES,
        "throughput": ThroughputSettings(**{**throughput, **own}),
    }
    return ReproduceSettings(**{**given, **changes})


def run(folder: Path, *runtimes: Any, **changes: Any) -> Reproduction:
    return reproduce("throughput", settings(folder, *(runtimes or (toy(), other())), **changes))
