"""Whether the machine held still: one small product timed at the start, in between and at the end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from roofline.units import percent

MOST_DRIFT, MOST_SPREAD, MOST_STOLEN = 0.1, 0.1, 0.05
_SIDE = 512
_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Stability:
    """How steady the machine was while it was calibrated.

    Attributes:
        drift: Slowest over fastest median of the reference product, less 1.
        spread: Median over all networks of the interquartile range of a pass over its median.
        stolen: Share of processor time that the hypervisor gave to others; ``None`` where it is not told.
    """

    drift: float
    spread: float
    stolen: float | None

    @property
    def stable(self) -> bool:
        """Whether all three are within their limits: 10 %, 10 % and 5 %."""
        return self.drift <= MOST_DRIFT and self.spread <= MOST_SPREAD and (self.stolen or 0.0) <= MOST_STOLEN

    @property
    def sentence(self) -> str:
        """One sentence for people."""
        found = (
            f"the same product drifted by {percent(self.drift)}, passes spread by {percent(self.spread)}, "
            f"{'steal time is not told' if self.stolen is None else f'{percent(self.stolen)} of time was stolen'}"
        )
        if self.stable:
            return f"stable: {found}"
        return f"unstable, do not trust these figures to better than that: {found}"


@dataclass
class Reference:
    """A float32 product of 512 x 512 matrices, timed now and then."""

    medians: list[float] = field(default_factory=list)

    def sample(self) -> None:
        """Run it for a tenth of a second."""
        left = np.ones((_SIDE, _SIDE), np.float32)
        seconds: list[float] = []
        end = time.perf_counter() + _SECONDS
        while len(seconds) < 5 or time.perf_counter() < end:
            started = time.perf_counter()
            left @ left
            seconds.append(time.perf_counter() - started)
        self.medians.append(float(np.median(seconds[2:])))

    @property
    def drift(self) -> float:
        """Slowest over fastest median, less 1."""
        return max(self.medians) / min(self.medians) - 1.0

    @property
    def flops_per_s(self) -> float:
        """Rate of the fastest median."""
        return 2.0 * _SIDE**3 / min(self.medians)
