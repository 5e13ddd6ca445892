"""Paired differences: published examples, the equations they solve, and coverage by simulation."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from aiq.stats import PairedDifference, paired_difference, tango_score, wilson_interval
from hardware_specs.errors import AIQError

Z = NormalDist().inv_cdf(0.975)


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return a, b


@pytest.mark.parametrize(
    ("cells", "low", "high", "digits"),
    [
        # airway hyper-responsiveness: Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014), Table II
        ((1, 1, 7, 12), -0.517, -0.026, 3),
        # complete response: the same authors, Statistical Analysis of Contingency Tables (2017), chapter 8
        ((59, 6, 16, 80), -0.1240, -0.0054, 4),
        # Agresti and Min, Statistics in Medicine 24 (2005) 729-740
        ((53, 16, 8, 9), -0.020, 0.207, 3),
    ],
)
def test_published_score_intervals(cells: tuple[int, int, int, int], low: float, high: float, digits: int) -> None:
    found = paired_difference(*outcomes(*cells))
    assert (round(found.low, digits), round(found.high, digits)) == (low, high)
    assert found.value == pytest.approx((cells[1] - cells[2]) / sum(cells), abs=1e-15)
    assert (found.n, found.discordant) == (sum(cells), cells[1] + cells[2])


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [
        (6, 16, 0.052479),  # Statistical Analysis of Contingency Tables, chapter 8: McNemar's exact conditional test
        (0, 0, 1.0),
        (1, 1, 1.0),
        (1, 0, 1.0),  # 2 · ½, at most 1
        (0, 5, 2 / 2**5),
        (1, 9, 2 * (1 + 10) / 2**10),
    ],
)
def test_exact_mcnemar(only_a: int, only_b: int, p_value: float) -> None:
    assert paired_difference(*outcomes(40, only_a, only_b, 40)).p_value == pytest.approx(p_value, abs=5e-7)


counts = st.tuples(*[st.integers(0, 300)] * 4).filter(any)


@given(counts, st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_the_interval_solves_its_equation(cells: tuple[int, int, int, int], confidence: float) -> None:
    """Each end is where the score reaches ±z, unless it is the end of the scale."""
    _, only_a, only_b, _ = cells
    found = paired_difference(*outcomes(*cells), confidence=confidence)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    assert -1 <= found.low <= found.value <= found.high <= 1
    for end, target in ((found.low, z), (found.high, -z)):
        if abs(end) < 1 - 1e-12:
            assert tango_score(only_a, only_b, found.n, end) == pytest.approx(target, abs=1e-6)
    assert found.low < found.high
    if min(only_a, only_b):
        test = stats.binomtest(only_a, only_a + only_b)
        assert found.p_value == pytest.approx(test.pvalue, rel=1e-9)


@given(counts)
def test_swapping_mirrors(cells: tuple[int, int, int, int]) -> None:
    a, b = outcomes(*cells)
    first, second = paired_difference(a, b), paired_difference(b, a)
    assert (second.value, second.p_value) == (-first.value, first.p_value)
    assert (second.low, second.high) == pytest.approx((-first.high, -first.low), abs=1e-12)


def test_the_score_falls_with_the_hypothesis_and_is_mcnemars_at_zero() -> None:
    scores = [tango_score(6, 16, 161, delta) for delta in np.linspace(-0.999, 0.999, 201)]
    assert all(b < a for a, b in pairwise(scores))
    assert tango_score(6, 16, 161, 0.0) == pytest.approx((6 - 16) / math.sqrt(6 + 16), rel=1e-12)


def test_the_most_likely_probability_is_the_most_likely() -> None:
    """The score's variance uses q; here q is found by maximising the likelihood on a grid instead."""
    only_a, only_b, n, delta = 6, 16, 161, 0.05
    q = np.linspace(1e-6, (1 - delta) / 2 - 1e-6, 2_000_001)
    rest = n - only_a - only_b
    likelihood = only_a * np.log(q + delta) + only_b * np.log(q) + rest * np.log(1 - 2 * q - delta)
    best = q[likelihood.argmax()]
    expected = (only_a - only_b - n * delta) / math.sqrt(n * (2 * best + delta * (1 - delta)))
    assert tango_score(only_a, only_b, n, delta) == pytest.approx(expected, rel=1e-5)


def test_agreement_on_every_example_leaves_an_interval() -> None:
    """With no discordant pair T(δ) = −√(nδ / (1 − δ)) for δ > 0: the ends are ±z² / (n + z²)."""
    found = paired_difference(*outcomes(900, 0, 0, 100))
    end = Z**2 / (1000 + Z**2)
    assert found == PairedDifference(0.0, pytest.approx(-end, rel=1e-9), pytest.approx(end, rel=1e-9), 1000, 0, 1.0)


def test_pairing_narrows_the_interval() -> None:
    """3 % disagreement at 90 %: variances of 2 · 0.9 · 0.1 and 0.03, six times fewer examples than unpaired."""
    found = paired_difference(*outcomes(8850, 150, 150, 850))
    half = (found.high - found.low) / 2
    low, high = wilson_interval(9000, 10_000)
    assert (math.sqrt(2) * (high - low) / 2 / half) ** 2 == pytest.approx(6, rel=0.02)


def test_coverage_of_the_score_interval() -> None:
    """p₁₀ = 0.03, p₀₁ = 0.01, n = 300, 2000 samples: 95 % within three standard errors of 0.5 %."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(300, [0.03, 0.01, 0.96], size=2000)
    inside = [abs(tango_score(int(a), int(b), 300, 0.02)) <= Z for a, b, _ in drawn]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)
    covered = [r.low <= 0.02 <= r.high for r in (paired_difference(*outcomes(0, a, b, c)) for a, b, c in drawn[:200])]
    assert covered == inside[:200]


def test_contributions_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, standard error 1/√3, t(0.975; 2) = 4.302653, t = 3.4641, p = 0.0742."""
    a, b = np.array([2, 4, 6], dtype=np.float32), np.array([1, 2, 3], dtype=np.float32)
    found = paired_difference(a, b)
    half = 4.302653 / math.sqrt(3)
    assert found == PairedDifference(
        2.0, pytest.approx(2 - half, abs=1e-6), pytest.approx(2 + half, abs=1e-6), 3, 3, pytest.approx(0.0742, abs=5e-5)
    )


def test_students_sleep_data() -> None:
    """Student, "The Probable Error of a Mean", Biometrika 6 (1908): t = −4.0621, p = 0.002833, −2.4599 to −0.7001."""
    first = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    second = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    found = paired_difference(first, second)
    assert found.value == pytest.approx(-1.58)
    assert (found.low, found.high) == pytest.approx((-2.4598858, -0.7001142), abs=1e-7)
    assert found.p_value == pytest.approx(0.00283289, abs=1e-8)
    assert found.discordant == 9


@given(st.integers(2, 200), st.integers(0, 2**32 - 1), st.sampled_from([0.8, 0.95]))
def test_contributions_against_scipy(n: int, seed: int, confidence: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n)).astype(np.float32)
    found, test = paired_difference(a, b, confidence=confidence), stats.ttest_rel(a.astype(float), b.astype(float))
    interval = test.confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-12)
    assert found.p_value == pytest.approx(test.pvalue, rel=1e-6)


@pytest.mark.parametrize(("shift", "p_value"), [(0.0, 1.0), (0.5, 0.0)])
def test_equal_differences_are_one_point(shift: float, p_value: float) -> None:
    a = np.arange(5, dtype=np.float32)
    found = paired_difference(a + np.float32(shift), a)
    assert found == PairedDifference(shift, shift, shift, 5, 5 if shift else 0, p_value)


BOOL, FLOAT = np.ones(3, dtype=bool), np.ones(3, dtype=np.float32)


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (BOOL, BOOL[:2], "got outcomes of shapes [3] and [2]. Next: give both for the same examples, [n]."),
        (
            BOOL[None],
            BOOL[None],
            "got outcomes of shapes [1, 3] and [1, 3]. Next: give both for the same examples, [n].",
        ),
        (BOOL, FLOAT, "got outcomes of types bool and float32. Next: give both as bool or both as floating point."),
        (
            np.ones(3, dtype=np.int64),
            np.ones(3, dtype=np.int64),
            "got outcomes of types int64 and int64. Next: give both as bool or both as floating point.",
        ),
        (BOOL[:0], BOOL[:0], "got 0 examples, needs at least 1. Next: evaluate on more of them."),
        (FLOAT[:1], FLOAT[:1], "got 1 examples, needs at least 2. Next: evaluate on more of them."),
        (FLOAT * np.nan, FLOAT, "got outcomes that are not finite. Next: look for NaN in the oracle."),
    ],
)
def test_refusals(a: NDArray[np.bool_], b: NDArray[np.bool_], text: str) -> None:
    with pytest.raises(AIQError) as caught:
        paired_difference(a, b)
    assert str(caught.value) == f"paired_difference: {text}"


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, float("nan")])
@pytest.mark.parametrize("kind", [BOOL, FLOAT])
def test_confidence_is_a_fraction(kind: NDArray[np.bool_], confidence: float) -> None:
    with pytest.raises(AIQError) as caught:
        paired_difference(kind, kind, confidence=confidence)
    assert str(caught.value) == (
        f"paired_difference: got confidence {confidence!r}. Next: give a fraction between 0 and 1."
    )
