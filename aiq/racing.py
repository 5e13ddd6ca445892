"""Racing: when a part of the examples already settles that a scheme loses more accuracy than is allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aiq.oracle import Metric

ALPHA = 0.001
"""Greatest probability that a scheme whose loss over all examples is within the limit is taken for hopeless."""

_BETS = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class LossLimit:
    """Largest accuracy loss that is allowed; ``None`` sets no limit.

    Attributes:
        points: In the metric's unit (percentage points for accuracy), at least 0.
        share: As a fraction of the baseline's value, at least 0.
    """

    points: float | None = None
    share: float | None = None

    def __str__(self) -> str:
        given = {"points": self.points, "share": self.share}
        return ", ".join(f"{float(value)!r} {name}" for name, value in given.items() if value is not None)

    def of(self, metric: Metric, baseline: float) -> float:
        """Return it in the metric's unit, for a baseline's value; infinity where there is none."""
        relative = math.inf if self.share is None else self.share * metric.scale * abs(baseline)
        return min(math.inf if self.points is None else self.points, relative)


def allowance(limit: float) -> float:
    """Return up to where a loss counts as within a limit: 100 · (0.92 − 0.91), a hair above 1, is a loss of 1."""
    return limit * (1 + _ROUNDING) + _ROUNDING


def hopeless(baseline: NDArray[np.bool_], right: NDArray[np.bool_], allowed: float, *, alpha: float = ALPHA) -> bool:
    """Tell whether the first n of N examples reject that a scheme's drop over all N is within what is allowed.

    With x_i = 1 where only the baseline is right, −1 where only the scheme is, 0 elsewhere (discordant examples alone
    count), S_i = x_1 + … + x_i and M the most that S_N may be, ⌊N · allowed⌋, the hypothesis is S_N ≤ M. It is rejected
    where S_n is above n · allowed, so that no scheme within the limit on what was run is ever given up, and moreover

    * nothing can save it: S_n − M exceeds the examples to come that the baseline gets wrong, as if all were gained; or
    * bets against it have multiplied their stake by 1/α, the mean over constant bets λ of the capital
      Π_i (1 + λ_i (x_i − μ_i)),  μ_i = (M − S_{i−1}) / (N − i + 1),  λ_i = λ / (1 + max(μ_i, 0)) < 1.

    Where the order of the examples is random, μ_i is at least the mean of x_i given those before it if the hypothesis
    is true: the capital is a nonnegative supermartingale and exceeds 1/α at any time whatever with probability at most
    α (Ville's inequality). Looks may be as many as one likes and at any n. Examples are drawn without replacement, so
    that bets grow bolder towards the end.

    Args:
        baseline: Whether the baseline is right, on all examples, [N].
        right: Whether the scheme is right on the first n of them, [n].
        allowed: Largest drop over all examples, as a fraction; see :func:`allowance`.
        alpha: α, between 0 and 1.

    Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", Journal of the Royal
    Statistical Society B 86 (2024) 1–27, where it speaks of sampling without replacement; arXiv 2010.09686.
    """
    total, n = len(baseline), len(right)
    x = baseline[:n].astype(np.int64) - right
    net = int(x.sum())
    if net <= n * allowed:
        return False
    most = math.floor(total * allowed)
    if net - most > int((~baseline[n:]).sum()):
        return True
    mean = (most - (np.cumsum(x) - x)) / (total - np.arange(n))
    stakes = _BETS[:, None] / (1 + np.maximum(mean, 0))
    capital = np.log1p(stakes * (x - mean)).sum(axis=1)
    return bool(np.logaddexp.reduce(capital) - math.log(len(_BETS)) >= -math.log(alpha))
