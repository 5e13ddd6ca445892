"""The objective: what a scheme is worth. The only place that compares schemes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from roofline.errors import InputError

Target = Literal["ai", "latency", "memory"]
Normalise = Literal["raw", "relative", "minmax"]
TARGETS: tuple[str, ...] = get_args(Target)
NORMALISATIONS: tuple[str, ...] = get_args(Normalise)
Merit = TypeVar("Merit", float, NDArray[np.float64])


@dataclass(frozen=True)
class Objective:
    """``L = −λ · gain + (1 − λ) · loss``, to be minimised.

    The gain of a scheme comes from its merit: arithmetic intensity in FLOP/byte (``ai``), passes per second
    (``latency``) or inverse weight bytes (``memory``). ``raw`` takes the merit, ``relative`` divides it by the
    baseline's, ``minmax`` is (merit − baseline) / (best − baseline). The loss is in percentage points.

    Source: Singh, Rajan and Jain, Arithmetic-Intensity-Aware Quantization, section I-A; the normalisation is not stated
    there, and the value of L means nothing without it.
    """

    target: str = "ai"
    lam: float = 0.9
    normalise: str = "minmax"

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise InputError(f"unknown target {self.target!r}: known: {', '.join(TARGETS)}. Next: choose one.")
        if self.normalise not in NORMALISATIONS:
            raise InputError(
                f"unknown normalisation {self.normalise!r}: known: {', '.join(NORMALISATIONS)}. Next: choose one."
            )
        if not 0 <= self.lam <= 1:
            raise InputError(
                f"lambda must lie in [0, 1], got {self.lam}. Next: 0 weighs only accuracy, 1 only the gain."
            )

    def merit(self, *, arithmetic_intensity: float, latency_s: float, weight_bytes: float) -> float:
        """Return what the target maximises."""
        if self.target == "ai":
            return arithmetic_intensity
        return 1.0 / (latency_s if self.target == "latency" else weight_bytes)

    def cost(self, *, moved_bytes: float, latency_s: float, weight_bytes: float) -> float:
        """Return what the target minimises; with the FLOPs given, fewest bytes are the highest intensity."""
        return float({"ai": moved_bytes, "latency": latency_s, "memory": weight_bytes}[self.target])

    def gain(self, merit: Merit, *, baseline: float, best: float) -> Merit:
        """Return the normalised gain of a merit, or of an array of them."""
        if self.normalise == "raw":
            return merit
        if self.normalise == "relative":
            return merit / baseline
        return (merit - baseline) / (best - baseline) if best > baseline else 0.0 * merit

    def value(self, merit: float, loss: float, *, baseline: float, best: float) -> float:
        """Return L."""
        return -self.lam * self.gain(merit, baseline=baseline, best=best) + (1 - self.lam) * loss
