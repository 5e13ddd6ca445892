"""Fake against real: the predictions of a runtime beside those of the simulation, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aiq.quantize._simulate import first, tensors
from aiq.runtimes import Arrays, DeployError, Deployment, Prepared, Runtime, has_one_float_format
from aiq.stats import PairedDifference, paired_difference, wilson_interval
from roofline import LayerPrecision, Scheme
from roofline.estimate import resolve
from roofline.floats import common_half
from roofline.scheme import Rule

BATCH = 32
ENOUGH = 0.995
_LOCATED_ON = 64
_SHARE = 0.1
_MOST = 5


@dataclass(frozen=True, slots=True)
class Parting:
    """A layer at which runtime and simulation part.

    Attributes:
        layer: Its name.
        deviation: By how much quantizing it, after all layers before it, raises the mean absolute difference of logits,
            in standard deviations of the float model's logits.
    """

    layer: str
    deviation: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a deployed scheme compares with its simulation.

    Attributes:
        scheme: The scheme's name.
        runtime: The runtime's name.
        n: Predictions compared.
        agreeing: Those in which both choose the same class.
        interval: 95 % interval of the share that agrees (Wilson).
        deployed_accuracy: Of the runtime, where there are labels.
        simulated_accuracy: Of the simulation.
        difference: Deployed less simulated accuracy, paired.
        largest_logit_difference: Of all logits.
        mean_logit_difference: Mean of the absolute differences.
        logit_scale: Standard deviation of the simulation's logits.
        partings: Layers at which they part, worst first; empty where that was not looked for, or where no layer adds a
            tenth of the deviation by itself.
        located: Whether layers were looked for.
    """

    scheme: str
    runtime: str
    n: int
    agreeing: int
    interval: tuple[float, float]
    deployed_accuracy: float | None
    simulated_accuracy: float | None
    difference: PairedDifference | None
    largest_logit_difference: float
    mean_logit_difference: float
    logit_scale: float
    partings: tuple[Parting, ...] = ()
    located: bool = False

    @property
    def share(self) -> float:
        """Share of predictions that agree."""
        return self.agreeing / self.n


def compare(
    deployment: Deployment,
    runtime: Runtime,
    scheme: Scheme,
    inputs: Any,
    labels: NDArray[np.int64] | None = None,
    *,
    batch: int = BATCH,
    locate: bool | None = None,
) -> Agreement:
    """Run a scheme on a runtime and in the simulation, and compare every prediction.

    Args:
        deployment: The network.
        runtime: What runs it.
        scheme: Formats of its layers.
        inputs: An array or tensor, or a tuple or dict of tensors, batch first.
        labels: Classes, int64 [N]; ``None`` where there are none.
        batch: Samples in a pass of the runtime.
        locate: Whether to look for the layers at which they part; by default only if fewer than 99.5 % agree.

    Raises:
        DeployError: The runtime cannot run the scheme, or gives NaN or infinity.
    """
    given = torch.from_numpy(np.ascontiguousarray(inputs)) if isinstance(inputs, np.ndarray) else inputs
    prepared = runtime.prepare(deployment, scheme, batch=batch)
    simulated, deployed = _both(deployment, prepared, scheme, given)
    if not np.isfinite(deployed).all():
        raise DeployError(
            f"{runtime.name} gives NaN or infinity for {deployment.name} with {scheme}. Next: try another scheme."
        )
    width = simulated.shape[-1]
    simulated, deployed = simulated.reshape(-1, width), deployed.reshape(-1, width)
    choices = simulated.argmax(-1), deployed.argmax(-1)
    same = choices[0] == choices[1]
    n, agreeing = len(same), int(same.sum())
    right = None if labels is None else [choice == labels.reshape(-1) for choice in choices]
    apart = np.abs(deployed - simulated)
    wanted = agreeing < ENOUGH * n if locate is None else locate
    return Agreement(
        str(scheme),
        runtime.name,
        n,
        agreeing,
        wilson_interval(agreeing, n),
        float(right[1].mean()) if right else None,
        float(right[0].mean()) if right else None,
        paired_difference(right[1], right[0]) if right else None,
        float(apart.max()),
        float(apart.mean()),
        float(simulated.std()),
        find_partings(deployment, runtime, scheme, given, batch=batch) if wanted else (),
        wanted,
    )


def find_partings(
    deployment: Deployment, runtime: Runtime, scheme: Scheme, inputs: Any, *, batch: int = BATCH
) -> tuple[Parting, ...]:
    """Find the layers at which a runtime and the simulation part, worst first.

    The first k layers take their formats, the others stay in floating point (in the scheme's 16-bit float, where the
    runtime computes all floating-point layers in one format); the mean absolute difference of logits on
    the first 64 examples, as a function of k, is bisected wherever it rises by more than a tenth of the whole. What the
    runtime makes of a layer's neighbours (a fused addition, a rounding moved) so counts where it arises. A runtime that
    cannot run part of the layers quantized has none to name.

    Args:
        deployment: The network.
        runtime: What runs it.
        scheme: Formats of its layers.
        inputs: A tensor, or a tuple or dict of tensors, batch first.
        batch: Samples in a pass of the runtime.
    """
    simulator = deployment.simulator
    some = first(inputs, _LOCATED_ON)
    scale = float(simulator.outputs(Scheme(), some).std()) or 1.0
    formats = simulator.apply(scheme)
    half = common_half(formats.values()) if has_one_float_format(runtime) else None
    base = Scheme(LayerPrecision(half, half))
    plain = resolve(simulator.graph, base)
    layers = [layer for layer in deployment.layers if formats[layer] != plain[layer]]
    known: dict[int, float] = {}

    def deviation(count: int) -> float:
        if count not in known:
            part = Scheme(base.default, tuple(Rule(layer, formats[layer]) for layer in layers[:count]))
            simulated, deployed = _both(deployment, runtime.prepare(deployment, part, batch=batch), part, some)
            known[count] = float(np.abs(deployed - simulated).mean()) / scale
        return known[count]

    def search(low: int, high: int, least: float) -> list[Parting]:
        rise = deviation(high) - deviation(low)
        if rise <= least:
            return []
        if high - low == 1:
            return [Parting(layers[low], rise)]
        middle = (low + high) // 2
        return [*search(low, middle, least), *search(middle, high, least)]

    try:
        found = search(0, len(layers), _SHARE * deviation(len(layers))) if layers else []
    except DeployError:
        return ()
    return tuple(sorted(found, key=lambda parting: -parting.deviation)[:_MOST])


def _both(
    deployment: Deployment, prepared: Prepared, scheme: Scheme, inputs: Any
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the logits of simulation and runtime, [N, ...]."""
    simulated = deployment.simulator.outputs(scheme, inputs).numpy()
    return simulated, run_all(prepared, [tensor.numpy() for tensor in tensors(inputs)])


def run_all(prepared: Prepared, inputs: Arrays) -> NDArray[np.float32]:
    """Run all inputs in passes of the network's batch; the last is filled up by repeating its examples."""
    batch, count = prepared.batch, len(inputs[0])
    found: list[NDArray[np.float32]] = []
    for start in range(0, count, batch):
        parts: Sequence[Any] = [values[start : start + batch] for values in inputs]
        filled = [np.resize(part, (batch, *part.shape[1:])) for part in parts]
        found.append(np.array(prepared.run(filled))[: len(parts[0])])
    return np.concatenate(found)
