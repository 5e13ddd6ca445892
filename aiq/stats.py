"""Statistics of measured accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hardware_specs.errors import AIQError

_BISECTIONS = 100


def wilson_interval(correct: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of an accuracy, ``correct`` out of ``n``.

    With p = correct / n and z the two-sided normal quantile of the confidence::

        (p + z²/2n ± z·sqrt(p(1 − p)/n + z²/4n²)) / (1 + z²/n)

    Unlike p ± z·sqrt(p(1 − p)/n) it stays within [0, 1] and keeps its coverage near 100 %.

    Args:
        correct: Number of correct answers, 0 to ``n``.
        n: Number of independent trials, at least 1.
        confidence: Coverage, between 0 and 1 exclusive.

    Returns:
        Lower and upper bound, as fractions in [0, 1].

    Raises:
        AIQError: An argument is out of its range.

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).
    """
    if n < 1 or not 0 <= correct <= n:
        raise AIQError(f"wilson_interval: got {correct} correct out of {n}. Next: give 0 <= correct <= n with n >= 1.")
    z = _normal_quantile("wilson_interval", confidence)
    p = correct / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if correct == 0 else (centre - half) / scale
    high = 1.0 if correct == n else (centre + half) / scale
    return low, high


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """A difference of two means over the same examples.

    Attributes:
        value: mean(a) − mean(b).
        low: Lower end of the confidence interval.
        high: Upper end of the confidence interval.
        n: Examples.
        discordant: Examples whose outcomes differ.
        p_value: Two-sided probability of a difference at least as large where there is none.
    """

    value: float
    low: float
    high: float
    n: int
    discordant: int
    p_value: float


def paired_difference(
    a: NDArray[np.bool_] | NDArray[np.floating],
    b: NDArray[np.bool_] | NDArray[np.floating],
    *,
    confidence: float = 0.95,
) -> PairedDifference:
    """Compare two schemes on the same examples, in the same order: mean(a) − mean(b).

    For right and wrong (bool), with n₁₀ examples that only ``a`` gets right and n₀₁ that only ``b`` does, the value is
    (n₁₀ − n₀₁) / n, the interval holds every δ that the score test does not reject, |T(δ)| ≤ z (:func:`tango_score`),
    and the p-value is McNemar's exact one: twice P(X ≤ min(n₁₀, n₀₁)) for X ~ B(n₁₀ + n₀₁, ½), at most 1. The interval
    depends on the discordant examples and n alone, and it keeps a width where no example is discordant.

    For contributions (floating point) it is the mean of the differences d, the interval mean(d) ± t · s(d) / √n and the
    p-value that of Student's paired t-test with n − 1 degrees of freedom; where all differences are equal the interval
    is one point.

    Args:
        a: Outcomes of one scheme, [n].
        b: Outcomes of the other, [n], of the same kind.
        confidence: Coverage, between 0 and 1 exclusive.

    Raises:
        AIQError: Lengths or kinds that do not match, too few examples, values that are not finite.

    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17 (1998) 891–908; Q. McNemar, Psychometrika 12 (1947) 153–157; Fagerland, Lydersen
    and Laake, Statistics in Medicine 33 (2014) 2850–2875, compare these intervals.
    """
    first, second = np.asarray(a), np.asarray(b)
    if first.ndim != 1 or first.shape != second.shape:
        raise AIQError(
            f"paired_difference: got outcomes of shapes {list(first.shape)} and {list(second.shape)}. "
            "Next: give both for the same examples, [n]."
        )
    kinds = {first.dtype.kind, second.dtype.kind}
    if kinds not in ({"b"}, {"f"}):
        raise AIQError(
            f"paired_difference: got outcomes of types {first.dtype} and {second.dtype}. "
            "Next: give both as bool or both as floating point."
        )
    least = 1 if kinds == {"b"} else 2
    if len(first) < least:
        raise AIQError(
            f"paired_difference: got {len(first)} examples, needs at least {least}. Next: evaluate on more of them."
        )
    if kinds == {"b"}:
        return _paired_counts(first, second, confidence)
    return _paired_contributions(first.astype(np.float64), second.astype(np.float64), confidence)


def _paired_counts(a: NDArray[np.bool_], b: NDArray[np.bool_], confidence: float) -> PairedDifference:
    from scipy.special import bdtr

    z = _normal_quantile("paired_difference", confidence)
    n, only_a, only_b = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    value, discordant = (only_a - only_b) / n, only_a + only_b
    statistic = partial(tango_score, only_a, only_b, n)
    return PairedDifference(
        value,
        _crossing(statistic, z, -1.0, value),
        _crossing(statistic, -z, value, 1.0),
        n,
        discordant,
        min(2.0 * float(bdtr(min(only_a, only_b), discordant, 0.5)), 1.0),
    )


def tango_score(only_a: int, only_b: int, n: int, delta: float) -> float:
    """Return Tango's score statistic of the hypothesis that two paired proportions differ by ``delta``.

    T(δ) = (n₁₀ − n₀₁ − nδ) / √(n (2q + δ(1 − δ))), q being the most likely probability of n₀₁'s cell where the
    difference is δ, the greater root of 2n q² + (−n₁₀ − n₀₁ + (2n − n₁₀ + n₀₁) δ) q − n₀₁ δ(1 − δ) = 0. It falls as δ
    grows.

    Args:
        only_a: n₁₀, pairs in which only the first succeeds.
        only_b: n₀₁, pairs in which only the second succeeds.
        n: Pairs.
        delta: δ, in [−1, 1].

    Source: Tango (1998), see :func:`paired_difference`.
    """
    linear = -only_a - only_b + (2 * n - only_a + only_b) * delta
    constant = -only_b * delta * (1 - delta)
    q = (math.sqrt(max(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
    variance = n * (2 * q + delta * (1 - delta))
    distance = only_a - only_b - n * delta
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)


def _crossing(statistic: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Return the δ in [low, high] at which a falling statistic passes ``target``."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if statistic(middle) > target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _paired_contributions(a: NDArray[np.float64], b: NDArray[np.float64], confidence: float) -> PairedDifference:
    from scipy.special import stdtr, stdtrit

    _normal_quantile("paired_difference", confidence)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise AIQError("paired_difference: got outcomes that are not finite. Next: look for NaN in the oracle.")
    difference = a - b
    n, value = len(difference), float(difference.mean())
    error = float(difference.std(ddof=1)) / math.sqrt(n)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * error
    certain = 1.0 if value == 0 else 0.0
    p_value = 2.0 * float(stdtr(n - 1, -abs(value) / error)) if error > 0 else certain
    return PairedDifference(value, value - half, value + half, n, int((difference != 0).sum()), p_value)


def _normal_quantile(caller: str, confidence: float) -> float:
    """Return the two-sided standard normal quantile of a confidence."""
    if not 0.0 < confidence < 1.0:
        raise AIQError(f"{caller}: got confidence {confidence!r}. Next: give a fraction between 0 and 1.")
    return NormalDist().inv_cdf(0.5 + confidence / 2)
