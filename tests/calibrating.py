"""A runtime whose kernels follow a known law, and small probe networks, so that a calibration can be held to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aiq._model import Model
from aiq.calibrate._measure import FORMATS, Job, Probing
from aiq.calibrate._probes import Probe
from aiq.quantize import Simulator
from aiq.runtimes import DeployError, Deployment, Executed, Measurement, Step, Timing
from hardware_specs import KernelForm
from roofline import LayerPrecision, Precision, Scheme, estimate
from roofline.estimate import resolve
from roofline.kernels import Work, predict, work_of
from tests.calibrated import CALIBRATED

NAME = "lawful"
# Per pass beyond its operators: what calling the network costs.
PASS_S = 20e-6
LAW: Mapping[str, KernelForm] = {
    "fp32": KernelForm(rate_flops_per_s=1e11, bandwidth_bytes_per_s=1e10, start_s=4e-6, half_n=8.0),
    "int8": KernelForm(rate_flops_per_s=5e11, bandwidth_bytes_per_s=1e10, start_s=5e-6, half_n=16.0),
}
CHANGE = KernelForm(bandwidth_bytes_per_s=5e9, start_s=3e-6)


class _Net(nn.Module):
    def __init__(self, first: int, side: int) -> None:
        super().__init__()
        widths = [first, 16, 24, 64, 32, 48, 128, 40, 8, 96]
        pairs = zip([3, *widths], widths, strict=False)
        self.convs = nn.ModuleList(
            [nn.Conv2d(a, b, 3 if i % 2 else 1, padding=i % 2) for i, (a, b) in enumerate(pairs)]
        )
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, conv in enumerate(self.convs):
            x = conv(x).relu()
            if number in {2, 5}:
                x = self.pool(x)
        found: torch.Tensor = self.head(x.mean((2, 3)))
        return found


def small_probes(_: int = 0) -> tuple[Probe, ...]:
    torch.manual_seed(0)
    found = []
    for name, first, side in (("small", 12, 12), ("wide", 80, 16)):
        module = _Net(first, side).eval().requires_grad_(False)
        shape = (3, side, side)
        found.append(Probe(Model(name, module, torch.empty((1, *shape), device="meta")), torch.randn(4, *shape)))
    return tuple(found)


def probing(probe: Probe) -> Probing:
    return Probing(Deployment(Simulator(probe.model, probe.model.trace(), probe.inputs)), CALIBRATED)


def law(found: Probing, scheme: Scheme, batch: int) -> list[float]:
    """Return what each row takes by the law."""
    priced = found.estimate(scheme, batch)
    formats = resolve(found.deployment.simulator.graph, scheme)
    seconds = []
    for row, layer in zip(found.rows(batch), priced.layers, strict=True):
        activations = formats[row.anchor].activations
        form = LAW[activations.name if activations else "fp32"]
        seconds.append(float(predict(form, work_of(row, layer.bytes)).total))
    return seconds


def changes(found: Probing, scheme: Scheme, batch: int) -> list[float]:
    """Return what each transition takes by the law."""
    return [
        float(predict(CHANGE, Work(c.elements, c.elements * _bits(c.source, c.target) / 8)).total)
        for c in found.estimate(scheme, batch).transitions
    ]


def _bits(*ends: str) -> int:
    return sum(Precision.parse(end).bits for end in ends)


@dataclass
class LawfulPrepared:
    """A network whose rows and transitions take what the law says."""

    found: Probing
    scheme: Scheme
    batch: int

    @property
    def seconds(self) -> float:
        return (
            PASS_S + sum(law(self.found, self.scheme, self.batch)) + sum(changes(self.found, self.scheme, self.batch))
        )

    def run(self, inputs: Any) -> Any:
        assert len(inputs[0]) == self.batch
        return np.zeros((self.batch, 10), np.float32)

    def executed_precisions(self) -> dict[str, Executed]:
        formats = resolve(self.found.deployment.simulator.graph, self.scheme)
        names = {layer: f.activations.name if f.activations else "fp32" for layer, f in formats.items()}
        return {layer: Executed("fp32" if name == "bf16" else name, name, "", "no") for layer, name in names.items()}

    def profile(self, inputs: Any, *, passes: int = 20) -> Sequence[Step]:
        rows = self.found.rows(self.batch)
        return [
            Step(row.name, row.kind, (row.layer,) if row.weighted else (), row.kind, seconds)
            for row, seconds in zip(rows, law(self.found, self.scheme, self.batch), strict=True)
        ]


@dataclass
class LawfulRuntime:
    """Runs fp32 and int8 by the law, and bf16 as fp32."""

    name: str = NAME
    refuses: str = ""
    one_float_format: bool = False
    prepared: list[str] = field(default_factory=list)

    def available(self) -> None:
        return None

    def version(self) -> str:
        return "lawful 1.0"

    def prepare(self, deployment: Deployment, scheme: Scheme, *, batch: int, threads: int | None = None) -> Any:
        if self.refuses and self.refuses in str(scheme):
            raise DeployError(f"no kernel for {self.refuses}. Next: choose another format.")
        self.prepared.append(f"{deployment.name} {scheme.name} {batch}")
        return LawfulPrepared(Probing(deployment, CALIBRATED), scheme, batch)


def known_times(monkeypatch: pytest.MonkeyPatch, *, spread: float = 0.01, stolen: float | None = 0.0) -> None:
    """Let networks take what they say, and probes and memory be small."""

    def measured(networks: Any, *, rounds: int, sample_s: float) -> Timing:
        found = [Measurement(n.seconds, spread, rounds, n.batch, (n.seconds,) * rounds) for n, _ in networks]
        return Timing(tuple(found), stolen)

    monkeypatch.setattr("aiq.calibrate._measure.measure", measured)
    monkeypatch.setattr("aiq.calibrate._calibrate.probes", small_probes)
    monkeypatch.setattr("aiq.calibrate._calibrate.largest_size", lambda known: 2**18)
    monkeypatch.setattr("aiq.calibrate._stability.Reference.drift", property(lambda self: 0.02))
    monkeypatch.setattr("aiq.calibrate._stability.Others.share", lambda self: 0.01)


def job(found: Probing, name: str, batch: int) -> Job:
    return Job(found, name, Scheme(LayerPrecision.parse(FORMATS[name]), name=name), batch)


def unseen(machine: Any, text: str, batch: int) -> tuple[float, float]:
    """Return predicted and lawful seconds of a network that no calibration saw, without the call of a pass."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 20, 3), nn.Conv2d(20, 56, 1), nn.Conv2d(56, 30, 3), nn.Conv2d(30, 30, 1)).eval()
    model = Model("unseen", module, torch.empty((1, 3, 14, 14), device="meta"))
    found = probing(Probe(model, torch.randn(2, 3, 14, 14)))
    scheme = Scheme.parse(text)
    predicted = estimate(found.deployment.simulator.graph, machine, scheme, batch=batch, runtime=NAME)
    return predicted.latency_s, sum(law(found, scheme, batch)) + sum(changes(found, scheme, batch))
