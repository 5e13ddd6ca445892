"""Statistics of measured accuracy."""

from __future__ import annotations

import math
from statistics import NormalDist

from hardware_specs.errors import AIQError


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
    if not 0.0 < confidence < 1.0:
        raise AIQError(f"wilson_interval: got confidence {confidence!r}. Next: give a fraction between 0 and 1.")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = correct / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if correct == 0 else (centre - half) / scale
    high = 1.0 if correct == n else (centre + half) / scale
    return low, high
