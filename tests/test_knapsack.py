"""The exact solvers against brute force and against each other."""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from aiq import knapsack
from aiq.knapsack import InfeasibleError, Knapsack, best_schemes, make, minimise, optimise, solve
from roofline.errors import AIQError, InputError

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Instance:
    """Whole numbers, so that sums are exact and ties are common."""

    costs: Values
    losses: Values
    budgets: Values
    allowed: NDArray[np.bool_]
    pairs: tuple[Any, ...]

    @property
    def problem(self) -> Knapsack:
        return make(self.costs, self.losses, self.budgets, allowed=self.allowed, pairs=self.pairs)

    def totals(self, choice: Sequence[int]) -> tuple[Values, float]:
        costs = sum(self.costs[:, u, k] for u, k in enumerate(choice))
        loss = sum(self.losses[u, k] for u, k in enumerate(choice))
        for u, k, v, m, extra, *more in self.pairs:
            if choice[u] == k and choice[v] == m:
                loss += extra
                costs = costs + np.array(more[0] if more else 0.0)
        return costs, float(loss)

    def feasible(self, max_loss: float = np.inf) -> list[tuple[Values, float, tuple[int, ...]]]:
        """Return costs, loss and choice of everything within the limits."""
        every = itertools.product(*(np.flatnonzero(row).tolist() for row in self.allowed))
        scored = [(*self.totals(choice), choice) for choice in every]
        return [one for one in scored if (one[0] <= self.budgets).all() and one[1] <= max_loss]


def instance(seed: int, *, resources: int = 1, pairs: bool = False) -> Instance:
    rng = np.random.default_rng(seed)
    units, options = int(rng.integers(2, 6)), int(rng.integers(1, 5))
    top = int(rng.choice([3, 20]))
    costs = rng.integers(0, top, (resources, units, options)).astype(float)
    losses = rng.integers(0, top, (units, options)).astype(float)
    allowed = rng.random((units, options)) < 0.8
    allowed[np.arange(units), rng.integers(0, options, units)] = True
    found: list[Any] = []
    for _ in range(int(rng.integers(1, 9)) if pairs else 0):
        u, v = rng.choice(units, 2, replace=False).tolist()
        k, m = rng.integers(0, options, 2).tolist()
        cost = (tuple(rng.integers(0, 4, resources).astype(float).tolist()),) if rng.random() < 0.5 else ()
        found.append((u, k, v, m, float(rng.integers(-4, 8)), *cost))
    budgets = np.round(costs.mean(axis=2).sum(axis=1) * rng.uniform(0.5, 1.3, resources))
    return Instance(costs, losses, budgets, allowed, tuple(found))


KINDS = {
    "one resource": {},
    "two resources": {"resources": 2},
    "three resources": {"resources": 3},
    "pairs": {"pairs": True},
    "two resources and pairs": {"resources": 2, "pairs": True},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def same(
    call: Callable[[], knapsack.Solution],
    given: Instance,
    expected: float | None,
    worth: Callable[[knapsack.Solution], float],
) -> None:
    """Check value, proof and figures of a solution; ``None`` stands for nothing within the limits."""
    if expected is None:
        with pytest.raises(InfeasibleError):
            call()
        return
    found = call()
    for value in (found.value, worth(found)):
        assert value == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert (found.bound, found.gap) == (found.value, 0.0)
    assert found.status.startswith("optimal")
    costs, loss = given.totals(found.choice)
    assert found.costs.tolist() == costs.tolist()
    assert found.loss == loss
    assert given.allowed[np.arange(len(found.choice)), found.choice].all()
    assert (costs <= given.budgets).all()


@kinds
@pytest.mark.parametrize("seed", range(12))
def test_least_loss_is_that_of_brute_force(kind: str, seed: int) -> None:
    given = instance(seed, **KINDS[kind])
    best = min((loss for _, loss, _ in given.feasible()), default=None)
    methods = ("auto", "dp", "milp") if kind == "one resource" else ("auto",)
    for method in methods:
        same(functools.partial(optimise, given.problem, method=method), given, best, lambda s: s.loss)


@kinds
@pytest.mark.parametrize("seed", range(12))
def test_least_cost_is_that_of_brute_force(kind: str, seed: int) -> None:
    given = instance(100 + seed, **KINDS[kind])
    limit = float(np.round(given.losses.mean(axis=1).sum()))
    best = min((float(costs[0]) for costs, _, _ in given.feasible(limit)), default=None)
    methods = ("auto", "dp", "milp") if kind == "one resource" else ("auto",)
    for method in methods:
        solved = functools.partial(optimise, given.problem, max_loss=limit, method=method)
        same(solved, given, best, lambda s: s.cost)


@kinds
@pytest.mark.parametrize("seed", range(8))
def test_a_concave_objective_is_minimised_exactly(kind: str, seed: int) -> None:
    given = instance(200 + seed, **KINDS[kind])

    def curve(cost: float) -> float:
        return -100.0 / (cost + 5.0)

    best = min((curve(float(costs[0])) + 0.3 * loss for costs, loss, _ in given.feasible()), default=None)

    def worth(solution: knapsack.Solution) -> float:
        return curve(solution.cost) + 0.3 * solution.loss

    same(lambda: minimise(given.problem, curve, 0.3), given, best, worth)
    if kind == "one resource":
        branched = replace(given.problem, forbidden=(((0,) * len(given.losses), 0),))  # forbids nothing
        same(lambda: minimise(branched, curve, 0.3), given, best, worth)


@pytest.mark.parametrize(
    ("costs", "losses", "first", "best"),
    [([0, 5, 9, 10], [200, 20, 0, 200], 5, 9), ([0, 1, 2, 10], [200, 13, 0, 200], 2, 1)],
)
def test_the_best_choice_may_lie_on_either_side_of_the_first(
    costs: list[int], losses: list[int], first: int, best: int
) -> None:
    """The chord over [0, 10] is lowest at ``first``, where the range is split; the curve itself at ``best``."""
    curve = [-100 / (cost + 1) for cost in costs]
    chord = [curve[0] + (curve[-1] - curve[0]) / 10 * cost for cost in costs]
    for values, lowest in ((chord, first), (curve, best)):
        assert costs[int(np.argmin(np.add(values, losses)))] == lowest
    free = make([costs], [losses])
    for problem in (free, replace(free, forbidden=(((0,), 0),))):
        found = minimise(problem, lambda cost: -100 / (cost + 1))
        assert (found.cost, found.gap) == (best, 0.0)


@kinds
def test_the_n_best_are_those_of_brute_force(kind: str) -> None:
    given = next(i for i in (instance(300 + s, **KINDS[kind]) for s in range(99)) if len(i.feasible()) > 8)
    found = best_schemes(given.costs, given.losses, given.budgets, count=6, allowed=given.allowed, pairs=given.pairs)
    assert [s.loss for s in found] == sorted(loss for _, loss, _ in given.feasible())[:6]
    assert len({s.choice for s in found}) == 6


def test_diverse_schemes_differ_and_each_is_the_best_that_does() -> None:
    given = instance(1, resources=2)
    given = Instance(given.costs, given.losses, np.full(2, np.inf), np.ones_like(given.allowed), ())
    ask = functools.partial(best_schemes, given.costs, given.losses, count=5, distance=3)
    found = ask()
    taken: list[tuple[int, ...]] = []
    for solution in found:
        far = [
            loss
            for _, loss, choice in given.feasible()
            if all(sum(a != b for a, b in zip(choice, old, strict=True)) >= 3 for old in taken)
        ]
        assert solution.loss == min(far)
        taken.append(solution.choice)
    assert len(found) > 1
    assert [s.choice for s in ask()] == taken


def test_fewer_than_asked_where_there_are_no_more() -> None:
    assert len(best_schemes([[1.0, 2.0]], [[0.0, 1.0]], count=9)) == 2
    assert len(best_schemes([[1.0, 2.0]], [[0.0, 1.0]], 1.5, count=9)) == 1


def test_by_hand() -> None:
    """Units cost (8, 4) and (6, 1); halving the first loses 1, shrinking the second 10, both together 3 less."""
    costs, losses = [[8.0, 4.0], [6.0, 1.0]], [[0.0, 1.0], [0.0, 10.0]]
    assert solve(costs, losses, 14).choice == (0, 0)
    assert solve(costs, losses, 13.9).choice == (1, 0)
    assert solve(costs, losses, 9.5).choice == (0, 1)
    assert solve(costs, losses, max_loss=1).choice == (1, 0)
    assert solve(costs, losses, 9.5, pairs=[(0, 1, 1, 1, -3.0)]).choice == (1, 1)
    assert solve(costs, losses, 9.5, pairs=[(1, 1, 0, 1, -1.5), (0, 1, 1, 1, -1.5)]).loss == 8.0
    assert solve(costs, losses, 9.5, allowed=[[True, False], [True, True]]).choice == (0, 1)


def test_a_sum_a_rounding_error_above_the_budget_counts_as_equal() -> None:
    costs, losses = [[0.1, 0.0], [0.2, 0.0]], [[0.0, 1.0], [0.0, 1.0]]
    assert 0.1 + 0.2 > 0.3
    for method in ("dp", "milp"):
        assert solve(costs, losses, 0.3, method=method).choice == (0, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["dp", "milp"])
@pytest.mark.parametrize("excess", [1e-6, 1e-8])
def test_the_solvers_tolerance_breaks_no_budget(method: str, excess: float) -> None:
    """HiGHS takes rows for kept that are broken by 1e-7; such a choice is cut off."""
    found = solve([[1.0 + excess, 0.5]], [[0.0, 1.0]], 1.0, method=method)  # type: ignore[arg-type]
    assert found.choice == (1,)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_units_do_not_matter(scale: float) -> None:
    given = instance(7, resources=2)
    found = solve(given.costs * scale, given.losses / scale, given.budgets * scale, allowed=given.allowed)
    plain = solve(given.costs, given.losses, given.budgets, allowed=given.allowed)
    assert found.loss * scale == pytest.approx(plain.loss)


def test_a_frontier_cut_short_is_admitted_or_left_to_the_other_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    costs, losses = rng.random((10, 4)), rng.random((10, 4))
    exact = solve(costs, losses, 5.0)
    monkeypatch.setattr(knapsack, "MAX_STATES", 12)
    monkeypatch.setattr(knapsack, "_FEW_STATES", 12)
    short = solve(costs, losses, 5.0, method="dp")
    assert short.bound <= exact.loss <= short.loss
    assert short.gap > 0
    assert short.status == "not proved optimal: the solver's limits left a gap"
    assert solve(costs, losses, 5.0).loss == pytest.approx(exact.loss, rel=1e-12)
    reverse = solve(costs, losses, max_loss=4.0, method="dp")
    assert reverse.bound <= solve(costs, losses, max_loss=4.0, method="milp").cost <= reverse.cost


REFUSALS = {
    "no choice is within a cost of 4: the nearest has 5. Next: loosen a limit, or allow more options.": lambda: solve(
        [[8, 4], [6, 1]], [[0, 1], [0, 10]], 4
    ),
    "no choice is within a cost of 9 and a loss of 2: the nearest has 10 and 1. "
    "Next: loosen a limit, or allow more options.": lambda: solve([[8, 4], [6, 1]], [[0, 1], [0, 10]], 9, max_loss=2),
    "no choice is within a cost of 5 and a cost of 5: the nearest has 6 and 6. "
    "Next: loosen a limit, or allow more options.": lambda: solve([[[9, 6, 2]], [[2, 6, 9]]], [[0, 0, 0]], [5, 5]),
    "costs must be [U, K] or [C, U, K] and losses [U, K], got [1, 2] and [2, 1]. "
    "Next: give one cost for each unit and option.": lambda: solve([[1, 2]], [[1], [2]]),
    "costs and losses must be finite and at least 0. Next: mask options that are unknown.": lambda: solve(
        [[1, 2]], [[0, np.nan]]
    ),
    "allowed must be of shape [1, 2] with an option for each unit, got [1, 2]. Next: mend it.": lambda: solve(
        [[1, 2]], [[0, 1]], allowed=[[False, False]]
    ),
    "budgets must be one number for each of 1 resources, got [1.0, 2.0]. Next: mend them.": lambda: solve(
        [[1, 2]], [[0, 1]], [1, 2]
    ),
    "pair (0, 0, 0, 1, 1.0) must name two of 2 units, one of 2 options of each, a loss, and a cost for none or all of "
    "1 resources, all finite. Next: mend it.": lambda: solve(
        [[1, 2], [1, 2]], [[0, 1], [0, 1]], pairs=[(0, 0, 0, 1, 1.0)]
    ),
    "unknown method 'lp': known: auto, dp, milp. Next: choose one.": lambda: solve(
        [[1, 2]],
        [[0, 1]],
        method="lp",  # type: ignore[arg-type]
    ),
    "dp solves one additive resource without pairs. Next: choose auto or milp.": lambda: solve(
        [[[1, 2]], [[1, 2]]], [[0, 1]], [2, 2], method="dp"
    ),
    "count and distance must be at least 1, got 0 and 1. Next: raise them.": lambda: best_schemes(
        [[1, 2]], [[0, 1]], count=0
    ),
}


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals(text: str) -> None:
    with pytest.raises(AIQError) as caught:
        REFUSALS[text]()
    assert str(caught.value) == text
    assert isinstance(caught.value, InfeasibleError if text.startswith("no choice") else InputError)


def test_the_solver_is_loaded_only_where_it_is_needed() -> None:
    code = (
        "import sys; from aiq.knapsack import solve; solve([[2, 1]], [[0, 1]], 1); "
        "assert 'scipy.optimize' not in sys.modules; solve([[2, 1]], [[0, 1]], 1, method='milp'); "
        "assert 'scipy.optimize' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
