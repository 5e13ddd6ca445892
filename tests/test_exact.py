"""Exact search on simulated networks whose every scheme is known, and the model of accuracy behind it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.optimize

from aiq.knapsack import InfeasibleError
from aiq.objective import Objective
from aiq.oracle import Evaluation
from aiq.problem import Constraints, Problem
from aiq.registry import load_strategy
from aiq.space import Choice
from aiq.strategies import Coordinate, Exact, Random
from aiq.strategies._sensitivity import fit
from aiq.strategy import Findings, Strategy
from roofline.errors import InputError
from tests.simulated import Simulated, follow, hypervolume, space_of

HELD_OUT = (100, 101, 102)  # the settings were chosen on seeds below 16
LAMBDAS = (0.1, 0.5, 0.9)


@cache
def simulated(seed: int) -> Simulated:
    return Simulated(seed)


def judged(strategy: Strategy, seed: int, lam: float) -> tuple[float, float, int]:
    """Return the excess of L over the optimum in examples' worth, the share of the hypervolume, and evaluations."""
    truth = simulated(seed)
    problem = truth.problem(Objective("ai", lam))
    measured, _ = follow(strategy, problem, truth)
    losses = np.array([problem.loss(evaluation) for evaluation in measured.values()])
    merits = problem.merits(truth.every)
    least, most = problem.ends[0], 1.1 * truth.every_loss[merits.argmax()] + 100 / truth.n
    share = hypervolume(problem.merits(list(measured)), losses, least, most)
    share /= hypervolume(merits, truth.every_loss, least, most)
    excess = problem.values(list(measured), losses).min() - problem.values(truth.every, truth.every_loss).min()
    return excess / ((1 - lam) * 100 / truth.n), share, len(measured)


@cache
def held_out() -> np.ndarray:
    return np.array([judged(Exact(), seed, lam) for seed in HELD_OUT for lam in LAMBDAS])


def test_held_out_networks_are_solved() -> None:
    """19 683 schemes, 60 evaluations: over twelve held-out seeds 75 % are exact and 64 % of frontiers within 1 %."""
    excess, share, count = held_out().T
    assert (count <= 60).all()
    assert (excess <= 0.05).all()
    assert (excess <= 1e-9).mean() >= 2 / 3
    assert (share >= 0.99).mean() >= 2 / 3
    assert share.min() >= 0.95


@pytest.mark.parametrize("loses", [False, True])
def test_the_scheme_of_greatest_merit_ends_the_search_only_if_it_loses_nothing(loses: bool) -> None:
    truth = simulated(HELD_OUT[0])
    problem = truth.problem(Objective("ai", 0.9))
    steps = Exact().steps(problem)
    top = next(steps)
    assert problem.merits([top])[0] == problem.merits(truth.every).max()
    answer = replace(problem.baseline, value=problem.baseline.value - (0.01 if loses else 0.0))
    if loses:
        assert steps.send(answer) != top
        return
    with pytest.raises(StopIteration) as end:
        steps.send(answer)
    assert end.value.value.bound == problem.values(truth.every, np.zeros(len(truth.every))).min()


def test_random_search_does_not_come_near() -> None:
    """Else the networks would be too easy to tell anything."""
    found = np.array([judged(Random(count=60, seed=0), seed, lam) for seed in HELD_OUT for lam in LAMBDAS])
    assert found[:, 1].max() < held_out()[:, 1].min()
    assert (found[:, 0] > held_out()[:, 0]).mean() > 0.8


@pytest.mark.parametrize("seed", [200, 201])
def test_better_than_coordinate_descent_on_a_space_too_large_to_list(seed: int) -> None:
    truth = Simulated(seed, n=2000, space=space_of("resnet20", groups=None), strength=0.4)
    problem = truth.problem(Objective("ai", 0.9))
    assert problem.space.size > 1e9
    values = []
    for strategy in (Exact(), Coordinate()):
        measured, _ = follow(strategy, problem, truth)
        values.append(problem.values(list(measured), [problem.loss(e) for e in measured.values()]).min())
        if strategy.name == "exact":
            assert len(measured) == strategy.most_evaluations(problem) == 60
        else:
            assert len(measured) > 60
    assert values[0] <= values[1]


class Additive(Simulated):
    """Losses that add, without data and without noise."""

    def measure(self, choice: Choice) -> Evaluation:
        return Evaluation(0.9 - self.table[np.arange(len(choice)), list(choice)].sum() / 100)

    @property
    def table(self) -> np.ndarray:
        return np.abs(self.noise).mean(axis=2)


def test_an_additive_oracle_is_solved_at_once() -> None:
    truth = Additive(0)
    problem = truth.problem(Objective("ai", 0.9))
    measured, findings = follow(Exact(frontier=False), problem, truth)
    losses = truth.table[np.arange(9), truth.every].sum(axis=1)
    best = problem.values(truth.every, losses).min()
    assert len(measured) <= 19 + 3
    found = problem.values(list(measured), [problem.loss(e) for e in measured.values()]).min()
    assert found == pytest.approx(best, rel=1e-9)
    assert findings.predicted == pytest.approx(truth.table, rel=1e-6, abs=1e-9)
    assert findings.bound == pytest.approx(best, rel=1e-6)
    assert findings.note == "exact: no unmeasured candidate has a chance above 0.1% of being better"


def solved(constraints: Constraints, seed: int = 0) -> tuple[Problem, dict[Choice, Evaluation], Findings, float]:
    """Return what a search with limits finds, and the best value there is."""
    truth = simulated(seed)
    problem = truth.problem(Objective("ai"), constraints)
    measured, findings = follow(Exact(), problem, truth)
    return problem, measured, findings, float(problem.values(truth.every, truth.every_loss).min())


@pytest.mark.parametrize(
    "constraints",
    [
        Constraints(max_loss=1.0),
        Constraints(max_weight_bytes=25_000.0),
        Constraints(max_relative_loss=0.01, max_weight_bytes=60_000.0, min_intensity=20.0),
    ],
)
def test_limits_are_kept_and_met_cheaply(constraints: Constraints) -> None:
    problem, measured, findings, best = solved(constraints)
    values = problem.values(list(measured), [problem.loss(e) for e in measured.values()])
    assert np.isfinite(values.min())
    assert best <= values.min() <= best + 0.01 * abs(best)
    assert findings.bound is not None
    assert findings.bound <= values.min()
    verified = list(measured)[20:]
    assert problem.constraints.affordable(problem.space.score(verified)).all()


def test_limits_that_no_scheme_meets_are_refused_before_anything_is_measured() -> None:
    problem = simulated(0).problem(constraints=Constraints(max_weight_bytes=100.0))
    with pytest.raises(InfeasibleError, match="the nearest has"):
        Exact().steps(problem)


def test_limits_that_no_scheme_is_predicted_to_meet_end_the_search() -> None:
    truth = Additive(0)
    problem = truth.problem(constraints=Constraints(max_loss=1e-3, max_weight_bytes=25_000.0))
    measured, findings = follow(Exact(), problem, truth)
    assert len(measured) < 30
    assert findings.bound is None
    assert findings.note.endswith("; under the model of accuracy no scheme meets the constraints")


def test_a_solver_that_gives_up_leaves_the_search_without_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The float model is too large here, so that nobody knows at the start whether anything fits."""

    def gives_up(*_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(status=1, x=None, message="Node limit reached.", mip_dual_bound=None)

    monkeypatch.setattr(scipy.optimize, "milp", gives_up)
    truth = simulated(0)
    problem = truth.problem(constraints=Constraints(max_weight_bytes=60_000.0, min_intensity=20.0))
    assert not problem.constraints.affordable(problem.space.score([problem.space.start]))[0]
    measured, findings = follow(Exact(max_evaluations=30, frontier=False), problem, truth)
    assert np.isfinite(problem.values(list(measured), [problem.loss(e) for e in measured.values()])).any()
    assert findings.bound is None
    assert "; without a bound, since the mixed-integer solver gave up: Node limit reached. Next: " in findings.note


def test_the_objective_alone_takes_fewer_evaluations() -> None:
    truth = simulated(102)
    problem = truth.problem(Objective("ai", 0.9))
    alone, _ = follow(Exact(frontier=False), problem, truth)
    assert len(alone) < len(follow(Exact(), problem, truth)[0])


def test_evaluations_used_up_are_said() -> None:
    measured, findings = follow(Exact(max_evaluations=1), simulated(0).problem(), simulated(0))
    assert len(measured) == 34
    assert findings.note == "exact: all evaluations that it may take are used"


def test_most_evaluations() -> None:
    """19 for the table and the baseline; 15 more are always allowed; never more than there are schemes."""
    problem = simulated(0).problem()
    assert [Exact(max_evaluations=m).most_evaluations(problem) for m in (1, 34, 60)] == [34, 34, 60]
    small = replace(problem, space=space_of(groups=2))
    assert Exact().most_evaluations(small) == small.space.size == 9
    measured, _ = follow(Exact(), small, Simulated(0, space=small.space))
    assert len(measured) <= 9


def test_settings_come_from_text_and_are_checked() -> None:
    made = load_strategy("exact:max_evaluations=33,frontier=false")
    assert isinstance(made, Exact)
    assert (made.max_evaluations, made.frontier) == (33, False)
    with pytest.raises(InputError, match=r"^max_evaluations must be at least 1, got 0\. Next: raise it\.$"):
        Exact(max_evaluations=0)


@pytest.mark.parametrize("divergence", [None, float("nan")])
def test_without_a_divergence_the_losses_alone_decide(divergence: float | None) -> None:
    class Plain(Simulated):
        def measure(self, choice: Choice) -> Evaluation:
            return replace(super().measure(choice), divergence=divergence, outcomes=None)

    truth = Plain(0)
    problem = truth.problem(Objective("ai", 0.9))
    measured, _ = follow(Exact(), problem, truth)
    best = problem.values(list(measured), [problem.loss(e) for e in measured.values()]).min()
    assert best <= problem.values(truth.every, truth.every_loss).min() + 0.1 * 100 / truth.n


def sample(seed: int, count: int) -> tuple[Simulated, Problem, dict[Choice, Evaluation]]:
    """Return a network with every single change and some random combinations measured."""
    truth = simulated(seed)
    problem = truth.problem()
    rng = np.random.default_rng(seed)
    flips = [choice for choice in truth.every.tolist() if np.count_nonzero(choice) <= 1]
    mixed = truth.every[rng.integers(0, len(truth.every), count)].tolist()
    return truth, problem, {tuple(choice): truth.measure(tuple(choice)) for choice in [*flips, *mixed]}


def drops(truth: Simulated, problem: Problem, choices: np.ndarray) -> np.ndarray:
    right = (truth.margins > truth.shift(choices)).mean(axis=1)
    return 100 * (problem.baseline.value - right)


def test_intervals_cover_what_they_promise() -> None:
    misses = []
    for seed in range(300, 306):
        truth, problem, measured = sample(seed, 20)
        others = truth.every[::37]
        mean, deviation = fit(problem, measured).predict(others)
        misses += (np.abs(drops(truth, problem, others) - mean) > 1.96 * deviation).tolist()
    assert 0.01 < np.mean(misses) < 0.1


def test_measured_schemes_are_predicted_as_measured() -> None:
    truth, problem, measured = sample(0, 20)
    choices = np.array([choice for choice in measured if choice != problem.space.start])
    mean, deviation = fit(problem, measured).predict(choices)
    others = truth.every[::37]
    assert np.abs(mean - drops(truth, problem, choices)).max() < 0.5 * 100 / truth.n
    assert np.median(deviation) < 0.1 * np.median(fit(problem, measured).predict(others)[1])


def test_combinations_correct_the_sum_of_sizes() -> None:
    """Noises that point the same way make a combination diverge by more than the sum of its parts."""
    truth, problem, measured = sample(0, 20)
    single = {choice: e for choice, e in measured.items() if np.count_nonzero(choice) <= 1}
    before, after = fit(problem, single), fit(problem, measured)
    assert before.correlation == 0.0
    assert after.correlation > 0.02
    others = truth.every[5::37]
    true = truth.divergences(truth.shift(others))
    wrong = [np.abs(np.log(model.predicted_sizes(others) / true)).mean() for model in (before, after)]
    assert wrong[1] < 0.6 * wrong[0]


def test_sizes_rank_what_counts_cannot() -> None:
    """Equal counts everywhere but for the largest scheme: the table is proportional to the divergences."""
    truth, problem, measured = sample(0, 0)
    flat = {choice: replace(e, value=problem.baseline.value) for choice, e in measured.items()}
    top = (2,) * 9
    flat[top] = replace(truth.measure(top), value=problem.baseline.value - 0.05)
    table = fit(problem, flat).table()
    sizes = fit(problem, flat).sizes
    assert (table >= 0).all()
    assert (table[:, 0] == 0).all()
    assert np.argsort(table[:, 2]).tolist() == np.argsort(sizes[:, 2]).tolist()
    assert 1.0 < table[:, 2].sum() <= 5.0
