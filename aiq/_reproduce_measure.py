"""How a reproduced figure is compared: with the float model image by image, with the paper, and with other layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aiq.oracle import Evaluation
from aiq.stats import paired_difference, wilson_interval
from roofline.errors import InputError


@dataclass(frozen=True, slots=True)
class Measured:
    """Accuracy of a scheme and its change against the float model on the same images; intervals are 95 % ones.

    Attributes:
        accuracy: Percent.
        low: Lower end of its interval (Wilson).
        high: Upper end.
        n: Images.
        change: Of the accuracy against the float model, percentage points; negative is a loss.
        change_low: Lower end of its interval, paired image by image (Tango).
        change_high: Upper end.
        p_value: Of no change (McNemar, exact).
        divergence: Mean Kullback–Leibler divergence of the outputs from the float model's, nats.
    """

    accuracy: float
    low: float
    high: float
    n: int
    change: float
    change_low: float
    change_high: float
    p_value: float
    divergence: float | None

    @classmethod
    def of(cls, baseline: Evaluation, found: Evaluation) -> Measured:
        """Compare an evaluation with the float model's on the same images.

        Raises:
            InputError: The oracle does not say which images are right.
        """
        before, after = baseline.outcomes, found.outcomes
        if before is None or after is None or after.dtype != np.bool_:
            raise InputError("the oracle does not say which images are right. Next: measure by accuracy.")
        low, high = wilson_interval(int(after.sum()), found.n)
        paired = paired_difference(after, before)
        return cls(
            100 * found.value,
            100 * low,
            100 * high,
            found.n,
            100 * paired.value,
            100 * paired.low,
            100 * paired.high,
            paired.p_value,
            found.divergence,
        )

    @property
    def distinct(self) -> bool:
        """Whether the interval of the change excludes zero."""
        return self.change_low > 0 or self.change_high < 0

    def covers(self, change: float) -> bool:
        """Tell whether the interval of the change holds a value."""
        return self.change_low <= change <= self.change_high

    @property
    def accuracy_text(self) -> str:
        """The accuracy with its interval."""
        return f"{self.accuracy:.2f} ({self.low:.2f} to {self.high:.2f})"

    @property
    def change_text(self) -> str:
        """The change with its interval, and a star where that excludes zero."""
        star = " *" if self.distinct else ""
        return f"{signed(self.change)} ({signed(self.change_low)} to {signed(self.change_high)}){star}"

    def to_dict(self, prefix: str = "") -> dict[str, Any]:
        """Return plain data, flat."""
        return {f"{prefix}{name}": getattr(self, name) for name in self.__slots__}


def signed(value: float, digits: int = 2) -> str:
    """Format a change with its sign; one that rounds to zero has none."""
    text = f"{value:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text


def holm(p_values: Sequence[float], *, level: float = 0.05) -> int:
    """Return how many of several hypotheses are rejected at a family-wise error rate.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
    (1979) 65–70.
    """
    count = len(p_values)
    for rejected, p_value in enumerate(sorted(p_values)):
        if p_value > level / (count - rejected):
            return rejected
    return count


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation.

    Attributes:
        rho: In [−1, 1]; ``None`` where one side is constant.
        p_value: Of no monotone association, two-sided, by Student's t.
        n: Pairs.
    """

    rho: float | None
    p_value: float | None
    n: int

    @property
    def text(self) -> str:
        """ρ and p, or why there is none."""
        if self.rho is None or self.p_value is None:
            return "constant"
        p = f"p = {self.p_value:.3f}" if self.p_value >= 0.001 else "p < 0.001"
        return f"{signed(self.rho)} ({p})"


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Correlation:
    """Return Spearman's rank correlation of two columns, ties at their mean rank.

    Source: C. Spearman, "The proof and measurement of association between two things", American Journal of Psychology
    15 (1904) 72–101.
    """
    from scipy.stats import spearmanr

    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return Correlation(None, None, len(x))
    found = spearmanr(x, y)
    rho, p_value = float(found.statistic), float(found.pvalue)
    return Correlation(rho, p_value if math.isfinite(p_value) else None, len(x))
