"""Time by layer: what was predicted beside what the runtime's own profile says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from aiq.runtimes import Step
from roofline import GraphEstimate

BETWEEN = "between layers"
_CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear", "Reorder"})


@dataclass(frozen=True, slots=True)
class LayerTime:
    """The time of one layer in one pass.

    Attributes:
        layer: Its name; ``between layers`` for all that belongs to none.
        predicted_s: Seconds predicted: of ``between layers``, those of rows without weights and of changes of format.
        measured_s: Seconds in the runtime's profile; ``None`` where it does not tell layers apart, or ran the layer
            inside another.
        kernels: The runtime's names of the kernels that ran, each once.
    """

    layer: str
    predicted_s: float
    measured_s: float | None
    kernels: tuple[str, ...]


def layer_times(estimate: GraphEstimate, steps: Sequence[Step]) -> tuple[LayerTime, ...]:
    """Put a prediction and a profile side by side, in the order of layers, ``between layers`` last.

    A step counts for the first layer that it names, the one that leads a fused operator. Quantize, dequantize and
    reorder steps of their own, and those that name no layer, stand between layers; steps without a time are those that
    ran in the first passes alone. A profile is slower than a plain
    pass, so its parts add up to more than the measured time.
    """
    layers = estimate.graph.layers
    predicted = dict.fromkeys((*layers, BETWEEN), 0.0)
    for row in estimate.layers:
        own = row.layer in predicted and row.bytes_by_role.get("weight")
        predicted[row.layer if own else BETWEEN] += row.latency_s
    predicted[BETWEEN] += sum(change.latency_s for change in estimate.transitions)
    measured: dict[str, float] = {}
    kernels: dict[str, dict[str, None]] = {}
    for step in steps:
        if not math.isfinite(step.seconds):
            continue
        named = step.layers[:1] if step.kind not in _CONVERSIONS else ()
        place = next((layer for layer in named if layer in predicted), BETWEEN)
        measured[place] = measured.get(place, 0.0) + step.seconds
        kernels.setdefault(place, {})[step.kernel] = None
    return tuple(
        LayerTime(layer, seconds, measured.get(layer), tuple(kernels.get(layer, ())))
        for layer, seconds in predicted.items()
    )
