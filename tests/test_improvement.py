"""What the exact search thinks a candidate is worth, against the same expectations by numerical integration."""

from __future__ import annotations

from functools import cache
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from aiq.objective import Objective
from aiq.oracle import Evaluation
from aiq.problem import Constraints, Problem
from aiq.space import Choice
from aiq.strategies._exact import CHANCE, _area, _improvement
from tests.simulated import Simulated

Values = NDArray[np.float64]
NORMAL = NormalDist()
DRAWS = np.array([NORMAL.inv_cdf((i + 0.5) / 2000) for i in range(2000)])


@cache
def truth() -> Simulated:
    return Simulated(0)


def case(problem: Problem, *, measured: int = 12) -> tuple[NDArray[np.int64], Values, Values, dict[Choice, Evaluation]]:
    """Return candidates with made-up means and deviations of their losses, and what was measured."""
    rng = np.random.default_rng(2)
    known, pool = np.split(truth().every[rng.permutation(len(truth().every))[: measured + 300]], [measured])
    found = {tuple(choice): truth().measure(tuple(choice)) for choice in known.tolist()}
    return (
        pool,
        rng.uniform(-1.0, 6.0, 300),
        rng.uniform(0.1, 2.0, 300),
        {problem.space.start: problem.baseline, **found},
    )


def losses_of(problem: Problem, measured: dict[Choice, Evaluation]) -> Values:
    return np.array([problem.loss(evaluation) for evaluation in measured.values()])


@pytest.mark.parametrize(
    ("lam", "limits"),
    [(0.1, {}), (0.5, {}), (0.9, {}), (1.0, {}), (0.9, {"max_loss": 2.0}), (0.5, {"min_intensity": 9.0})],
)
def test_the_expected_improvement(lam: float, limits: dict[str, float]) -> None:
    """E[max(best − L, 0)]: a loss below 0 counts as 0, a scheme that costs no less is worth nothing."""
    problem = truth().problem(Objective("ai", lam), Constraints(**limits))
    pool, mean, deviation, measured = case(problem)
    fine = problem.constraints.affordable(problem.space.score(pool))
    pool, mean, deviation = pool[fine], mean[fine], deviation[fine]
    best = problem.values(list(measured), losses_of(problem, measured)).min()
    assert np.isfinite(best)
    expected = np.zeros(len(pool))
    for draw in DRAWS:
        value = problem.values(pool, np.maximum(mean + draw * deviation, 0))
        expected += np.maximum(best - value, 0) / len(DRAWS)
    found = _improvement(problem, pool, mean, deviation, measured)
    assert found is not None
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=1e-3 * expected.max())


def test_while_nothing_keeps_the_limits_everything_that_may_is_an_improvement() -> None:
    problem = truth().problem(Objective("ai"), Constraints(max_loss=2.0, min_intensity=9.0))
    pool, mean, deviation, measured = case(problem, measured=0)
    fine = problem.constraints.affordable(problem.space.score(pool))
    pool, mean, deviation = pool[fine], mean[fine], deviation[fine]
    assert not np.isfinite(problem.values(list(measured), losses_of(problem, measured))).any()
    found = _improvement(problem, pool, mean, deviation, measured)
    assert found is not None
    costs = problem.costs(pool)
    assert (found > 0).sum() > 0.9 * len(pool)
    sure = _improvement(problem, pool, np.zeros(len(pool)), np.full(len(pool), 1e-6), measured)
    assert sure is not None
    assert sure.argmax() == costs.argmin()


@pytest.mark.parametrize("limits", [{}, {"max_loss": 2.0}])
def test_the_search_stops_at_one_chance_in_a_thousand(limits: dict[str, float]) -> None:
    """All candidates lose 5 points too much, give or take a little; one has the chance asked for."""
    problem = truth().problem(Objective("ai", 0.5), Constraints(**limits))
    pool, *_, measured = case(problem)
    best = problem.values(list(measured), losses_of(problem, measured)).min()
    without = problem.values(pool, np.zeros(len(pool)))
    room = np.full(len(pool), 2.0) if limits else (best - without) / 0.5
    pool, room = pool[without < best], room[without < best]
    for chance in (0.5 * CHANCE, 2 * CHANCE):
        deviation = np.full(len(pool), 1e-3)
        mean = room + 5.0
        mean[3] = room[3] - NORMAL.inv_cdf(chance) * deviation[3]
        found = _improvement(problem, pool, mean, deviation, measured)
        assert (found is None) == (chance < CHANCE)
        if found is not None:
            assert found.argmax() == 3
            assert found[3] == pytest.approx(chance, rel=1e-6)
    assert CHANCE == 0.001


@pytest.mark.parametrize("limits", [{}, {"max_loss": 1.0}])
def test_the_expected_gain_of_area(limits: dict[str, float]) -> None:
    """Between the frontier and a candidate's merit, from its loss to that of the greatest merit or to the bound."""
    problem = truth().problem(Objective("ai"), Constraints(**limits))
    pool, mean, deviation, measured = case(problem)
    merits, losses = problem.merits(list(measured)), losses_of(problem, measured)
    candidates = problem.merits(pool)
    end = min(1.1 * losses[merits.argmax()], problem.max_loss) + 100 / truth().n
    assert (end < 1.4) == bool(limits)
    levels = (np.arange(3000) + 0.5) / 3000 * end
    frontier = np.array([merits[losses <= level].max() for level in levels])
    span = max(merits.max(), candidates.max()) - min(merits.min(), candidates.min())
    found = _area(problem, candidates, mean, deviation, measured)
    assert found is not None
    for index in range(0, len(pool), 10):
        reached = np.array([NORMAL.cdf((level - mean[index]) / deviation[index]) for level in levels])
        gain = (reached * np.maximum(candidates[index] - frontier, 0)).mean() / span
        assert found[index] == pytest.approx(gain, rel=0.1, abs=0.01)
    assert _area(problem, candidates, mean + 1e3, deviation, measured) is None
