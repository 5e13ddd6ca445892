"""The problem: losses, limits and values by hand, and the ends that min–max scales by against brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

import hardware_specs
from aiq.objective import NORMALISATIONS, TARGETS, Objective
from aiq.oracle import Evaluation, Metric
from aiq.problem import Constraints, Problem
from aiq.space import make_space
from roofline import CostTable, LayerPrecision
from roofline.errors import InputError
from tests.searches import POINTS, chain, table

COSTS = [[60, 30, 20], [40, 20, 10], [20, 10, 5]]
EVERY = list(itertools.product(range(3), repeat=3))
PERPLEXITY = Metric("perplexity", "perplexity", higher_is_better=False)


def problem(
    objective: Objective | None = None,
    constraints: Constraints | None = None,
    metric: Metric = POINTS,
    base: float = 0.9,
) -> Problem:
    space = make_space(table(COSTS))
    return Problem(space, objective or Objective(), constraints or Constraints(), metric, Evaluation(base))


@pytest.mark.parametrize(
    ("metric", "base", "value", "loss"),
    [
        (POINTS, 0.9, 0.85, 5.0),
        (POINTS, 0.9, 0.9, 0.0),
        (POINTS, 0.9, 0.95, 0.0),  # better than the baseline buys nothing
        (PERPLEXITY, 20.0, 23.0, 3.0),
        (PERPLEXITY, 20.0, 19.0, 0.0),
    ],
)
def test_loss(metric: Metric, base: float, value: float, loss: float) -> None:
    assert problem(metric=metric, base=base).loss(Evaluation(value)) == pytest.approx(loss, abs=1e-12)


@pytest.mark.parametrize(
    ("metric", "base", "limits", "most"),
    [
        (POINTS, 0.9, {}, np.inf),
        (POINTS, 0.9, {"max_loss": 1.5}, 1.5),
        (POINTS, 0.9, {"max_relative_loss": 0.01}, 0.9),  # a hundredth of 90 points
        (POINTS, 0.9, {"max_loss": 1.5, "max_relative_loss": 0.01}, 0.9),
        (POINTS, 0.9, {"max_loss": 0.0, "max_relative_loss": 0.01}, 0.0),
        (PERPLEXITY, 20.0, {"max_relative_loss": 0.05}, 1.0),
    ],
)
def test_largest_loss(metric: Metric, base: float, limits: dict[str, float], most: float) -> None:
    made = problem(None, Constraints(**limits), metric, base)
    assert made.max_loss == pytest.approx(most, rel=1e-12)
    assert made.constraints.bounds_loss is bool(limits)


def test_a_loss_at_the_limit_is_within_it() -> None:
    """1 point of 1000 examples is 100 · (0.92 − 0.91) = 1.0000000000000009; one example more is 1.1."""
    made = problem(None, Constraints(max_loss=1.0), base=0.92)
    losses = [made.loss(Evaluation(value)) for value in (0.911, 0.91, 0.909)]
    assert losses[1] > 1.0
    assert made.allows(np.array(losses)).tolist() == [True, True, False]
    assert np.isfinite(made.values([(1, 0, 0)] * 3, losses)).tolist() == [True, True, False]
    none = problem(None, Constraints(max_loss=0.0), base=0.92)
    assert none.allows(np.array([0.0, 0.001])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("limits", "fine"),
    [
        (Constraints(max_weight_bytes=70), lambda cost: cost <= 70),
        (Constraints(max_latency_s=70), lambda cost: cost <= 70),
        (Constraints(min_intensity=1200 / 70), lambda cost: cost <= 70),
        (Constraints(max_weight_bytes=100, min_intensity=20), lambda cost: cost <= 60),
        (Constraints(), lambda cost: True),
    ],
)
def test_limits_on_cost(limits: Constraints, fine: object) -> None:
    made = problem(None, limits)
    costs = [sum(row[k] for row, k in zip(COSTS, choice, strict=True)) for choice in EVERY]
    expected = [fine(cost) for cost in costs]  # type: ignore[operator]
    assert limits.affordable(made.space.score(EVERY)).tolist() == expected
    assert np.isfinite(made.values(EVERY, np.zeros(27))).tolist() == expected
    assert not np.isfinite(made.values(EVERY, np.full(27, np.nan))).any()


@pytest.mark.parametrize(
    ("objective", "value"),
    [
        # 1200 FLOPs, 120 bytes at the start, 90 for the choice, 35 at best; loss 2
        (Objective("ai", 0.75, "raw"), -0.75 * 1200 / 90 + 0.25 * 2),
        (Objective("ai", 0.75, "relative"), -0.75 * 120 / 90 + 0.25 * 2),
        (Objective("ai", 0.75, "minmax"), -0.75 * (1 / 90 - 1 / 120) / (1 / 35 - 1 / 120) + 0.25 * 2),
        (Objective("memory", 0.5, "relative"), -0.5 * 120 / 90 + 0.5 * 2),
        (Objective("latency", 0.5, "raw"), -0.5 / 90 + 0.5 * 2),
    ],
)
def test_values_by_hand(objective: Objective, value: float) -> None:
    made = problem(objective)
    assert made.values([(1, 0, 0)], [2.0])[0] == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("target", TARGETS)
def test_under_a_bound_on_the_loss_the_cost_is_minimised(target: str) -> None:
    made = problem(Objective(target, 0.3), Constraints(max_loss=1.0))
    assert made.values([(1, 0, 0), (2, 0, 0)], [0.5, 1.5]).tolist() == [90, np.inf]
    assert made.costs([(1, 0, 0)]).tolist() == [90]


@pytest.mark.parametrize("normalise", NORMALISATIONS)
@pytest.mark.parametrize("target", TARGETS)
def test_values_agree_with_the_objective(target: str, normalise: str) -> None:
    made = problem(Objective(target, 0.6, normalise))
    low, high = made.ends
    losses = np.linspace(0, 5, 27)
    found = made.values(EVERY, losses)
    one_by_one = [
        made.objective.value(merit, loss, baseline=low, best=high)
        for merit, loss in zip(made.merits(EVERY), losses, strict=True)
    ]
    assert found == pytest.approx(one_by_one, rel=1e-12)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("arguments", [{}, {"keep": ["0"]}, {"ties": [["0", "2"]]}])
def test_ends_are_the_baselines_merit_and_the_greatest(target: str, arguments: dict[str, object]) -> None:
    space = make_space(table(COSTS), **arguments)  # type: ignore[arg-type]
    made = Problem(space, Objective(target), Constraints(), POINTS, Evaluation(0.9))
    every = list(itertools.product(*(unit.options for unit in space.units)))
    merits = made.merits(every)
    assert made.ends == (pytest.approx(merits[0], rel=1e-12), pytest.approx(merits.max(), rel=1e-12))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("traffic", ["paper", "unfused", "fused"])
@pytest.mark.parametrize("machine", ["t4", "xeon-icelake-2vcpu"])
def test_no_scheme_beats_the_upper_end(target: str, traffic: str, machine: str) -> None:
    """Latency and transitions do not add over layers: the end is a bound there, and still one.

    Launches bound such small layers on a T4: every format takes the same time, and there is nothing to gain.
    """
    options = [LayerPrecision.parse(text) for text in ("keep", "w8", "w8a8")]
    costs = CostTable(chain(3), hardware_specs.load(machine), options, traffic=traffic)
    made = Problem(make_space(costs), Objective(target), Constraints(), POINTS, Evaluation(0.9))
    merits = made.merits(EVERY)
    assert made.ends[0] == merits[0] <= merits.max() <= made.ends[1] * (1 + 1e-12)


def test_nothing_to_gain_is_no_gain() -> None:
    made = problem()
    flat = replace(made, space=make_space(table([[10, 10, 10]] * 3)))
    assert flat.ends == (1200 / 30, 1200 / 30)
    assert flat.values([(1, 1, 1)], [1.0]).tolist() == [pytest.approx(0.1)]
    # 0.1 + (0.2 + 0.3) is one rounding below (0.1 + 0.2) + 0.3: no gain to scale by
    rounded = replace(made, space=make_space(table([[0.1] * 3, [0.2] * 3, [0.3] * 3]), ties=[["1", "2"]]))
    assert rounded.ends[0] == rounded.ends[1]


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", Constraints.__slots__)
def test_refusals(name: str, value: float) -> None:
    with pytest.raises(InputError) as caught:
        Constraints(**{name: value})
    assert str(caught.value) == f"{name} must be a number of at least 0, got {value}. Next: give one."
