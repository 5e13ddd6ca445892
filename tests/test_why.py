"""Reasons for formats: margins by hand and against the objective itself, and the price at which loss and cost trade."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from aiq.objective import Objective
from aiq.oracle import Evaluation
from aiq.problem import Constraints, Problem
from aiq.strategies._candidates import optimum
from aiq.why import explain
from tests.searches import toy
from tests.simulated import ACCURACY, space_of

COSTS = [[60, 30, 20], [40, 20, 10]]
LOSSES = np.array([[0, 0.1, 0.4], [0, 0.1, 0.2]])


def hand_made(objective: Objective | None = None, **limits: float) -> Problem:
    return toy(COSTS, lambda choice: 0.0, objective or Objective(), constraints=Constraints(**limits)).problem


def test_by_hand() -> None:
    """From 50 bytes: L = −½ · 100 / bytes + ½ · loss with relative gain."""
    problem = hand_made(Objective("ai", 0.5, "relative"))
    first, second = explain(problem, LOSSES, (1, 1))
    assert (first.unit, first.option, first.loss, first.cost) == ("0", "w8", 0.1, 30.0)
    # to 20 bytes: 100/50 → 100/40, and 0.3 of loss; to 60 bytes: 100/80 and −0.1
    assert first.next_option == "w4"
    assert first.margin == pytest.approx(-0.5 * (100 / 40 - 100 / 50) + 0.5 * 0.3)
    assert second.next_option == "w4"
    assert second.margin == pytest.approx(-0.5 * (100 / 40 - 100 / 50) + 0.5 * 0.1)
    # dL = 0: ½ · 100 / 50² bytes of gain against ½ of loss
    assert first.shadow_price == second.shadow_price == pytest.approx(100 / 50**2)


def test_a_bound_on_the_loss_by_hand() -> None:
    """The hull of (cost, loss) is (30, 0.6), (40, 0.3), (50, 0.2), (100, 0): at 0.25 it falls by 0.01 a byte."""
    problem = hand_made(max_loss=0.25)
    first, second = explain(problem, LOSSES, (1, 1))
    assert first.shadow_price == pytest.approx(0.01)
    # to w4: 10 bytes less and 0.3 more loss, worth 30 bytes; to keep: 30 more bytes, 0.1 less loss
    assert (first.next_option, first.margin) == ("w4", pytest.approx(20.0))
    assert (second.next_option, second.margin) == ("w4", pytest.approx(0.0, abs=1e-9))


def test_a_bound_that_does_not_bind_has_no_price() -> None:
    found = explain(hand_made(max_loss=9.0), LOSSES, (2, 2))
    assert [why.shadow_price for why in found] == [None, None]
    assert [(why.next_option, why.margin) for why in found] == [("w8", 10.0), ("w8", 10.0)]


@pytest.mark.parametrize("normalise", ["raw", "relative", "minmax"])
@pytest.mark.parametrize("target", ["ai", "memory", "latency"])
def test_margins_are_differences_of_the_objective_and_the_price_its_slope(target: str, normalise: str) -> None:
    space = space_of("digits_cnn", ("keep", "w8a8", "w4a8", "w4a4"))
    problem = Problem(space, Objective(target, 0.7, normalise), Constraints(), ACCURACY, Evaluation(0.9, n=100))
    losses = np.random.default_rng(0).uniform(0, 1, (len(space.units), 4))
    losses[:, 0] = 0
    best = optimum(problem, losses).choice
    (value,) = problem.values([best], [losses[np.arange(len(best)), best].sum()])
    labels = [option.label for option in space.options]
    for u, why in enumerate(explain(problem, losses, best)):
        worse = {}
        for k in space.units[u].options:
            other = (*best[:u], k, *best[u + 1 :])
            (found,) = problem.values([other], [losses[np.arange(len(best)), other].sum()])
            if k != best[u]:
                worse[labels[k]] = found - value
        assert why.margin == pytest.approx(min(worse.values()), rel=1e-6, abs=1e-12)
        assert why.margin >= -1e-9
        assert worse[str(why.next_option)] == pytest.approx(why.margin, rel=1e-6, abs=1e-12)
    (cost,), low, high = problem.costs([best]), *problem.ends
    work = space.table.flops if target == "ai" else 1.0
    gain = [problem.objective.gain(work / c, baseline=low, best=high) for c in (cost, cost * (1 + 1e-6))]
    assert why.shadow_price == pytest.approx(0.7 / 0.3 * (gain[0] - gain[1]) / (cost * 1e-6), rel=1e-4)


def test_options_beyond_a_limit_or_unknown_are_no_alternatives() -> None:
    problem = hand_made(Objective("ai", 0.5, "relative"), max_weight_bytes=50.0)
    unknown = np.where(LOSSES == 0.4, np.nan, LOSSES)
    first, second = explain(problem, unknown, (1, 1))
    assert (first.next_option, first.margin) == (None, None)  # keep is too large, the loss of w4 unknown
    assert second.next_option == "w4"


def test_with_the_loss_bounded_too_options_beyond_a_limit_are_no_alternatives() -> None:
    """At 50 bytes, the limit: of the first unit w4 is unknown and keep, 30 bytes more, too large."""
    unknown = np.where(LOSSES == 0.4, np.nan, LOSSES)
    free, bound = (
        explain(hand_made(max_loss=0.25, **limit), unknown, (1, 1)) for limit in ({}, {"max_weight_bytes": 50})
    )
    assert [why.next_option for why in free] == ["keep", "w4"]
    assert [why.next_option for why in bound] == [None, "w4"]


def test_where_nothing_is_predicted_to_keep_the_bound_there_is_no_price() -> None:
    assert {why.shadow_price for why in explain(hand_made(max_loss=0.1), LOSSES + 0.5, (0, 0))} == {None}


def test_an_unknown_loss_of_the_choice_leaves_no_margin() -> None:
    unknown = np.where(LOSSES == 0.4, np.nan, LOSSES)
    first, second = explain(hand_made(Objective("ai", 0.5)), unknown, (2, 1))
    assert (first.loss, first.next_option, first.margin) == (None, None, None)
    assert second.margin is not None
    assert all(why.shadow_price is None for why in explain(hand_made(max_loss=0.1), unknown * np.nan, (0, 0)))


def test_where_loss_counts_for_nothing_there_is_no_price() -> None:
    assert {why.shadow_price for why in explain(hand_made(Objective("ai", 1.0)), LOSSES, (2, 2))} == {None}
    assert {why.shadow_price for why in explain(hand_made(Objective("ai", 0.0)), LOSSES, (0, 0))} == {0.0}


def test_reasons_are_plain_data() -> None:
    found = explain(hand_made(Objective("ai", 0.5)), LOSSES, (1, 2))
    assert json.loads(json.dumps([asdict(why) for why in found], allow_nan=False))[1]["option"] == "w4"
