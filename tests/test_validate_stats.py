"""Statistics of a validation: worked by hand, against SciPy, and relations that hold for any data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiq._validate_stats import Errors, errors, regret, spearman


def judged(predicted: list[float], measured: list[float], **changes: Any) -> Errors:
    n = len(predicted)
    given_: dict[str, Any] = {"schemes": [str(i) for i in range(n)], "batches": [1] * n, "intervals": [None] * n}
    return errors(np.array(predicted), np.array(measured), **{**given_, **changes})


def test_errors_by_hand() -> None:
    found = judged([1.1, 0.8, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0])
    assert found.median_ape.value == pytest.approx(0.15)
    assert found.p90_ape.value == pytest.approx(0.2 + 0.7 * 0.8)
    assert found.bias.value == pytest.approx((1.1 * 0.8 * 1.0 * 2.0) ** 0.25 - 1)
    assert (found.spearman, found.coverage) == (None, None)
    assert {f.n for f in (found.median_ape, found.p90_ape, found.bias)} == {4}


def test_a_prediction_half_as_long_and_one_twice_as_long_have_no_bias() -> None:
    assert judged([1.0, 4.0], [2.0, 2.0]).bias.value == pytest.approx(0.0)
    assert judged([1.0, 1.0], [2.0, 2.0]).bias.value == pytest.approx(-0.5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=3, max_size=20))
def test_spearman_is_scipys(pairs: list[tuple[int, int]]) -> None:
    from scipy.stats import spearmanr

    a, b = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert np.isnan(spearman(a, b))
    else:
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)


def test_ranks_are_compared_within_a_batch_size() -> None:
    """Over all rows the order is nearly right only because larger batches take longer."""
    predicted, measured = [1.0, 2.0, 3.0, 101.0, 102.0, 103.0], [3.0, 2.0, 1.0, 103.0, 102.0, 101.0]
    found = judged(predicted, measured, batches=[1, 1, 1, 32, 32, 32])
    assert spearman(np.array(predicted), np.array(measured)) > 0.5
    assert found.spearman is not None
    assert found.spearman.value == pytest.approx(-1.0)


def test_coverage_counts_rows_with_an_interval_their_ends_included() -> None:
    intervals = [(0.9, 1.0), (1.1, 1.2), None, (0.5, 2.0)]
    found = judged([1.0] * 4, [1.0] * 4, intervals=intervals).coverage
    assert found is not None
    assert (found.value, found.n) == (pytest.approx(2 / 3), 3)
    assert found.low < 2 / 3 < found.high


def test_intervals_hold_the_statistic_and_are_seeded() -> None:
    random = np.random.default_rng(1)
    measured = random.uniform(1, 2, 40)
    predicted = measured * np.exp(random.normal(0.1, 0.2, 40))
    first, again = (judged(predicted.tolist(), measured.tolist()) for _ in range(2))
    assert first == again
    for found in (first.median_ape, first.p90_ape, first.bias, first.spearman):
        assert found is not None
        assert found.low < found.value < found.high


def test_rows_of_one_scheme_are_resampled_together() -> None:
    """Ten copies of each row tell nothing new, and must not make the interval narrower."""
    random = np.random.default_rng(2)
    predicted = np.exp(random.normal(0, 0.3, 8)).tolist()
    names = [str(i) for i in range(8)]
    once = judged(predicted, [1.0] * 8).bias
    copied = judged(predicted * 10, [1.0] * 80, schemes=names * 10).bias
    apart = judged(predicted * 10, [1.0] * 80).bias
    assert (copied.low, copied.high) == (pytest.approx(once.low), pytest.approx(once.high))
    assert apart.high - apart.low < 0.5 * (once.high - once.low)


ROUNDS = np.array([[1.0, 1.0, 1.0, 1.0], [1.2, 1.2, 1.2, 1.2], [1.1, 1.1, 1.1, 1.1]])


def test_regret_by_hand() -> None:
    found = regret(["a", "b", "c"], np.array([3.0, 1.0, 2.0]), ROUNDS, batch=4)
    assert (found.picked, found.fastest, found.batch, found.n) == ("b", "a", 4, 3)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == (pytest.approx(0.2), pytest.approx(0.2))
    assert (found.beyond_noise, found.faster) == (pytest.approx(0.2), 2)


def test_who_picks_the_fastest_has_no_regret() -> None:
    found = regret(["a", "b", "c"], np.array([1.0, 3.0, 2.0]), ROUNDS, batch=1)
    assert (found.value, found.beyond_noise, found.faster) == (0.0, 0.0, 0)


def test_a_difference_within_the_noise_is_none() -> None:
    """b is slower than a by 2 % in the median, and faster in half of the rounds; c is faster than b in all."""
    rounds = np.array(
        [
            [1.0, 1.0, 0.8, 1.2, 1.0, 0.9, 1.1, 1.0],
            [0.9, 1.1, 1.02, 1.02, 0.8, 1.2, 1.0, 1.2],
            [0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7],
        ]
    )
    apart = regret(["a", "b"], np.array([2.0, 1.0]), rounds[:2], batch=1)
    assert apart.value == pytest.approx(0.02)
    assert (apart.beyond_noise, apart.faster) == (0.0, 0)
    assert apart.low < apart.value < apart.high
    with_c = regret(["a", "b", "c"], np.array([2.0, 1.0, 3.0]), rounds, batch=1)
    assert (with_c.faster, with_c.fastest) == (1, "c")
    assert with_c.beyond_noise == pytest.approx(1.02 / 0.7 - 1)
