"""Mixed-integer programs where tolerances, limits of the solver and its manners matter."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from numpy.typing import NDArray

from aiq import _program, knapsack
from aiq._program import SolverLimitError
from aiq.knapsack import InfeasibleError, Knapsack, make, minimise, optimise, solve

Values = NDArray[np.float64]


def spread(seed: int, *, pairs: bool = False) -> Knapsack:
    """Return a problem whose costs span 12 decades and whose losses span 12, with one limit that may bind."""
    rng = np.random.default_rng(seed)
    units, options = int(rng.integers(3, 7)), int(rng.integers(2, 5))
    costs, losses = 10 ** rng.uniform(-6, 6, (units, options)), 10 ** rng.uniform(-9, 3, (units, options))
    least, most = costs.min(axis=1).sum(), costs.max(axis=1).sum()
    added = []
    for _ in range(4 if pairs else 0):
        u, v = rng.choice(units, 2, replace=False).tolist()
        k, m = rng.integers(0, options, 2).tolist()
        added.append((u, k, v, m, 10 ** rng.uniform(-3, 6), (10 ** rng.uniform(-3, 3),)))
    return make(costs, losses, least + (most - least) * rng.uniform(0.01, 1) ** 3, pairs=added)


def every(problem: Knapsack) -> list[tuple[float, float]]:
    """Return cost and loss of all choices within the budget."""
    choices = itertools.product(*(range(problem.losses.shape[1]),) * len(problem.losses))
    totals = (problem.totals(choice) for choice in choices)
    return [(float(costs[0]), loss) for costs, loss in totals if costs[0] <= problem.budgets[0] * (1 + 1e-9)]


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_figures_of_all_sizes_are_told_apart(seed: int, pairs: bool) -> None:
    """The solver prunes what is better by less than a billionth of the largest figure, which may be all there is."""
    problem = spread(seed, pairs=pairs)
    scored = every(problem)
    limit = float(np.quantile([loss for _, loss in scored], 0.3, method="nearest"))
    asked = (
        (optimise(problem, method="milp"), min(loss for _, loss in scored)),
        (optimise(problem, max_loss=limit, method="milp"), min(cost for cost, loss in scored if loss <= limit)),
    )
    for found, best in asked:
        assert found.value == pytest.approx(best, rel=1e-8)
        assert (found.bound, found.gap) == (found.value, 0.0)


@pytest.mark.parametrize("excess", [0.5e-9, 1.2e-9, 1.5e-9, 1.9e-9])
def test_what_the_solver_cannot_tell_from_the_limit_is_checked(excess: float) -> None:
    """A billionth of a limit counts as rounding; the solver's own tolerance is as large again."""
    half = (1 + excess) / 2
    found = solve([[half, 0.2], [half, 0.2]], [[0.0, 1.0], [0.0, 1.0]], 1.0, method="milp")
    assert found.loss == (0.0 if excess < 1e-9 else 1.0)
    assert found.gap == 0


def test_a_reward_larger_than_the_loss_leaves_an_honest_gap() -> None:
    """With −1e6 in the objective the solver's tolerance is 1e-5, and the least loss of 1e-7 is not proved."""
    pairs = [(0, 1, 1, 1, -1e6), (0, 1, 1, 0, -1e6), (0, 0, 1, 0, 0.0)]
    found = solve([[1.0, 1.0], [1.0, 1.0]], [[1e-7, 1e6 + 1], [0.0, 0.0]], pairs=pairs)
    assert found.bound <= 1e-7
    assert found.loss in {1e-7, 1.0}


def test_pairs_of_options_that_may_not_be_taken_do_not_blur_the_bound() -> None:
    found = solve([[1, 1], [1, 1]], [[1, 2], [1, 2]], allowed=[[1, 0], [1, 1]], pairs=[(0, 1, 1, 1, -1e9)])
    assert (found.loss, found.bound) == (2.0, 2.0)


def test_a_pair_may_bring_heavy_options_within_a_limit() -> None:
    found = solve([[9, 1], [9, 1]], [[0, 5], [0, 5]], max_loss=2, pairs=[(0, 1, 1, 1, -9.0)])
    assert (found.choice, found.loss) == ((1, 1), 1.0)


def test_a_limit_far_below_what_single_options_weigh_needs_no_trial_and_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The solver's tolerance would be a thousand times the limit on the loss, and all choices would keep it."""
    rng = np.random.default_rng(0)
    costs = np.sort(rng.random((12, 4)), axis=1)[:, ::-1]
    losses = 1e-7 * np.sort(rng.random((12, 4)), axis=1)
    losses[:, 3] = 1e3
    solved: list[Any] = []
    run = _program._solve

    def counted(*given: Any) -> Any:
        solved.append(given)
        assert len(solved) < 5
        return run(*given)

    monkeypatch.setattr(_program, "_solve", counted)
    found = solve(costs, losses, max_loss=3e-7, method="milp")
    assert found.cost == pytest.approx(solve(costs, losses, max_loss=3e-7, method="dp").cost, rel=1e-12)


@pytest.mark.parametrize(("extra", "heavy"), [(100.0, 400.0), (-1.5, 50.0)])
def test_costs_of_pairs_are_part_of_the_range_of_costs(extra: float, heavy: float) -> None:
    """The best choice costs more, or less, than any without the pair, and the chord is taken over all costs."""
    problem = make([[1, 2], [1, 2]], [[0, heavy], [0, heavy]], pairs=[(0, 0, 1, 0, 0.0, (extra,))])
    values = {
        c: -1000 / (problem.totals(c)[0][0] + 1) + problem.totals(c)[1] for c in itertools.product((0, 1), (0, 1))
    }
    found = minimise(problem, lambda cost: -1000 / (cost + 1))
    assert found.choice == min(values, key=lambda choice: values[choice]) == (0, 0)
    assert (found.value, found.gap) == (pytest.approx(values[0, 0]), 0.0)


def test_costs_of_pairs_named_twice_add_up() -> None:
    pairs = [(0, 0, 1, 0, 1.0, (1.0,)), (1, 0, 0, 0, 2.0, (2.0,)), (0, 0, 1, 0, 4.0)]
    costs, losses = [[1, 9], [1, 9]], [[0, 9], [0, 9]]
    for budget, choice in ((5.0, (0, 0)), (4.9, None)):
        problem = make(costs, losses, budget, pairs=pairs)
        if choice:
            found = optimise(problem)
            assert (found.choice, found.cost, found.loss) == (choice, 5.0, 7.0)
        else:
            with pytest.raises(InfeasibleError):
                optimise(problem)


def test_the_nearest_choice_breaks_all_limits_by_the_least_share() -> None:
    """By 10 times and not at all, by 4 and 6 times, by 1000 times and not at all."""
    with pytest.raises(
        InfeasibleError, match=r"^no choice is within a cost of 1 and a cost of 100: .* has 5 and 700\. "
    ):
        solve([[[11, 5, 1001]], [[50, 700, 50]]], [[0, 0, 0]], [1, 100])


def hard() -> tuple[Values, Values, float]:
    """Return a subset-sum problem: what an option saves is what it loses."""
    rng = np.random.default_rng(2)
    costs = rng.integers(1, 10**4, (12, 4)).astype(float)
    return costs, costs.max() - costs, float(costs.mean(axis=1).sum())


def test_a_solver_cut_short_admits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    costs, losses, budget = hard()
    best = solve(costs, losses, budget, method="dp")
    assert best.gap == 0
    monkeypatch.setattr(_program, "_MOST_NODES", 1)
    found = solve(costs, losses, budget, method="milp")
    assert found.bound < best.loss < found.loss
    assert found.gap == pytest.approx((found.loss - found.bound) / found.loss)
    assert found.status == "not proved optimal: the solver's limits left a gap"
    doubled = make(np.stack([costs, costs]), losses, [np.inf, budget])
    least = minimise(doubled, lambda cost: -1e6 / cost, 1.0)
    assert least.bound < least.value
    assert least.status == found.status


def test_the_better_of_two_answers_cut_short_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    costs, losses, budget = hard()
    monkeypatch.setattr(_program, "_MOST_NODES", 1)
    program = solve(costs, losses, budget, method="milp")
    for states in (300, 1_000):
        monkeypatch.setattr(knapsack, "MAX_STATES", states)
        monkeypatch.setattr(knapsack, "_FEW_STATES", states)
        dominance, both = (solve(costs, losses, budget, method=m) for m in ("dp", "auto"))  # type: ignore[arg-type]
        assert dominance.gap > 0
        assert both.loss == min(program.loss, dominance.loss)
        assert both.bound >= max(program.bound, dominance.bound)


def test_bounds_of_frontiers_cut_short_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    gaps = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        costs, losses = rng.random((8, 4)), rng.random((8, 4))
        for limits in ({"budgets": 3.0}, {"max_loss": 2.5}):
            exact = solve(costs, losses, **limits)  # type: ignore[arg-type]
            with monkeypatch.context() as patch:
                patch.setattr(knapsack, "MAX_STATES", 12)
                short = solve(costs, losses, method="dp", **limits)  # type: ignore[arg-type]
            assert short.bound <= exact.value + 1e-12 <= short.value + 2e-12
            gaps.append(short.value - exact.value)
    assert min(gaps[::2]) < 1e-9 < min(max(gaps[::2]), max(gaps[1::2]))


def test_what_a_frontier_cut_short_has_lost_is_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each band of loss the cheapest point is kept, so that the scheme of least loss may be gone."""
    rng = np.random.default_rng(0)
    costs, losses = rng.random((8, 4)), 1 + rng.random((8, 4))
    least = float(losses.min(axis=1).sum())
    monkeypatch.setattr(knapsack, "MAX_STATES", 4)
    assert knapsack.frontier(make(costs, losses), max_states=4).losses.min() > least * (1 + 1e-6)
    assert solve(costs, losses, max_loss=least, method="dp").loss == pytest.approx(least, rel=1e-12)


def gives_up(*_: Any, **__: Any) -> SimpleNamespace:
    return SimpleNamespace(status=1, x=None, message="Node limit reached.", mip_dual_bound=None)


def test_a_solver_that_finds_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    costs, losses, budget = hard()
    monkeypatch.setattr(scipy.optimize, "milp", gives_up)
    with pytest.raises(SolverLimitError) as caught:
        solve(costs, losses, budget, method="milp")
    assert str(caught.value) == (
        "the mixed-integer solver gave up: Node limit reached. Next: tie layers together, or allow fewer formats."
    )
    monkeypatch.setattr(knapsack, "_FEW_STATES", 1_000)
    assert solve(costs, losses, budget).gap > 0


@pytest.mark.parametrize("seed", range(5))
def test_few_programs_settle_a_concave_objective(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    costs, losses = rng.uniform(1, 2, (2, 20, 4)), rng.random((20, 4))
    solved: list[Any] = []
    program = knapsack.program
    monkeypatch.setattr(knapsack, "program", lambda *a: solved.append(a) or program(*a))
    found = minimise(make(costs, losses, [np.inf, 28.0]), lambda cost: -100 / (cost - 15), 0.5)
    assert found.gap == 0
    assert 1 < len(solved) <= 15


def test_large_additive_problems_are_read_off_the_hull(monkeypatch: pytest.MonkeyPatch) -> None:
    """160 units of 10 options, 10^160 choices: no program, and no choice is better for any weight of the loss."""
    monkeypatch.delattr(knapsack, "program")
    rng = np.random.default_rng(0)
    costs, losses = 10 ** rng.uniform(0, 3, (160, 10)), 10 ** rng.uniform(-3, 1, (160, 10))
    allowed = rng.random((160, 10)) < 0.9
    allowed[:, 0] = True
    masked = np.where(allowed, losses, np.inf)
    for slope in (0.0, 1e-3, 0.1, 10.0):
        found = minimise(make(costs, losses, allowed=allowed), lambda cost, slope=slope: slope * cost, 1.0)
        assert found.gap == 0
        assert found.value == pytest.approx((slope * costs + masked).min(axis=1).sum(), rel=1e-12)
        assert found.value == pytest.approx(slope * found.cost + found.loss, rel=1e-12)
        assert allowed[np.arange(160), found.choice].all()


def test_what_c_code_prints_does_not_reach_the_output() -> None:
    code = (
        "import ctypes; from aiq._program import _silenced\n"
        "say = ctypes.CDLL(None).printf\n"
        "say(b'before '); \n"
        "with _silenced(): say(b'within ')\n"
        "say(b'after')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "before after"
    closed = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, code], check=True, timeout=60)
    assert closed.returncode == 0


def test_forbidden_choices_are_told_from_near_ones() -> None:
    problem = make([[1.0, 2.0], [1.0, 2.0]], [[0.0, 3.0], [0.0, 1.0]])
    without = replace(problem, forbidden=(((0, 0), 1), ((0, 1), 1)))
    assert [optimise(p).choice for p in (problem, without)] == [(0, 0), (1, 0)]
    assert optimise(replace(problem, forbidden=(((0, 0), 2),))).choice == (1, 1)
