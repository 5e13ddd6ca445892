"""A runtime that runs nothing and a stopwatch with known times, so that no test of the validator measures anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest

import roofline
from aiq._model import Model, load_model
from aiq._validate import validate
from aiq._validate_result import ValidateSettings, Validation
from aiq.data import load
from aiq.quantize import Simulator
from aiq.runtimes import DeployError, Deployment, Executed, Measurement, Step, Timing
from hardware_specs import HardwareSpec
from roofline import LayerPrecision, OpGraph, Scheme
from roofline.estimate import resolve
from tests.calibrated import CALIBRATED

NAME = "toyrun"
W8A8 = LayerPrecision.parse("w8a8")


@cache
def digits() -> Model:
    return load_model("digits_cnn")


@cache
def digits_graph() -> OpGraph:
    return digits().trace()


@cache
def deployment() -> Deployment:
    """Return one that is calibrated and exported once for all tests, on few examples."""
    import torch

    calibration = load("digits", "calibration", limit=64).x
    return Deployment(Simulator(digits(), digits_graph(), torch.from_numpy(calibration)))


def predicted(scheme: Scheme, batch: int, machine: HardwareSpec = CALIBRATED) -> float:
    return roofline.estimate(digits_graph(), machine, scheme, batch=batch, runtime=NAME).latency_s


@dataclass
class ToyPrepared:
    """A network whose time is known; it runs as the simulation does, and adds what is planted at integer layers."""

    deployment: Deployment
    scheme: Scheme
    batch: int
    seconds: float
    planted: Mapping[str, float]
    steps: Sequence[Step]

    def run(self, inputs: Any) -> Any:
        import torch

        assert len(inputs[0]) == self.batch
        outputs = self.deployment.simulator.outputs(self.scheme, torch.from_numpy(inputs[0])).numpy()
        formats = resolve(self.deployment.simulator.graph, self.scheme)
        outputs[:, 0] += sum(by for layer, by in self.planted.items() if formats[layer] == W8A8)
        return outputs

    def executed_precisions(self) -> dict[str, Executed]:
        found = {}
        for layer, formats in resolve(digits_graph(), self.scheme).items():
            fmt = formats.activations.name if formats.activations else "fp32"
            refused = layer == "linear" and fmt == "int8"
            found[layer] = Executed(
                "fp32" if refused else fmt, fmt, "", "no kernel for linear layers: toyrun ran fp32" if refused else ""
            )
        return found

    def profile(self, inputs: Any, *, passes: int = 20) -> Sequence[Step]:
        return self.steps


@dataclass
class ToyRuntime:
    """Runs every scheme but those whose text holds ``refuses``; ``seconds`` gives a pass its time."""

    seconds: Callable[[Scheme, int], float] = predicted
    refuses: str = "nothing"
    planted: Mapping[str, float] = field(default_factory=dict)
    steps: Sequence[Step] = ()
    name: str = NAME
    prepared: list[tuple[str, int]] = field(default_factory=list)

    def available(self) -> None:
        return None

    def version(self) -> str:
        return "toyrun 1.0"

    def prepare(self, deployment: Deployment, scheme: Scheme, *, batch: int, threads: int | None = None) -> ToyPrepared:
        if self.refuses in str(scheme):
            raise DeployError(f"{self.refuses} has no kernel. Next: choose another format.")
        self.prepared.append((str(scheme), batch))
        return ToyPrepared(deployment, scheme, batch, self.seconds(scheme, batch), self.planted, self.steps)


class Stopwatch:
    """Stands in for ``aiq.runtimes.measure``: every round takes the known time, or that and some noise."""

    def __init__(self, *, noise: float = 0.0, interrupt: int | None = None, slow: Sequence[int] = ()) -> None:
        self.noise, self.interrupt, self.slow, self.blocks = noise, interrupt, slow, list[int]()
        self.random = np.random.default_rng(0)

    def __call__(self, networks: Any, *, rounds: int, progress: Callable[[int, int], None]) -> Timing:
        if len(self.blocks) == self.interrupt:
            raise KeyboardInterrupt
        self.blocks.append(rounds)
        found = []
        for network, inputs in networks:
            assert len(inputs[0]) == network.batch
            values = network.seconds * (1 + self.noise * self.random.uniform(-1, 1, rounds))
            values *= 1.5 if len(self.blocks) - 1 in self.slow else 1.0
            found.append(Measurement(float(np.median(values)), 0.0, rounds, network.batch, tuple(values.tolist())))
        progress(rounds, rounds)
        return Timing(tuple(found), 0.25)


def stopwatch(monkeypatch: pytest.MonkeyPatch, **given: Any) -> Stopwatch:
    found = Stopwatch(**given)
    monkeypatch.setattr("aiq._validate.measure", found)
    return found


def validated(runtime: ToyRuntime | None = None, hardware: HardwareSpec = CALIBRATED, **changes: Any) -> Validation:
    given: dict[str, Any] = {"runtime": runtime or ToyRuntime(), "count": 12, "batches": (1, 4), "rounds": 5}
    return validate(digits(), hardware, ValidateSettings(**{**given, **changes}))
