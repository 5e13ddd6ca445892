"""The multiple-choice knapsack, exactly: one option for each unit, least loss within budgets, or the reverse."""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiq._program import SLACK, SolverLimitError, Target, program, within
from aiq.frontier import MAX_STATES, Frontier, hull_frontier, pareto_frontier
from roofline.errors import AIQError, InputError

Method = Literal["auto", "dp", "milp"]
Values = NDArray[np.float64]
_FEW_STATES = 10_000
_CUT_SHORT = "not proved optimal: the solver's limits left a gap"


class InfeasibleError(AIQError):
    """No choice is within the limits; the text says what comes nearest."""


class Pair(NamedTuple):
    """What is added where unit ``u`` takes option ``k`` and unit ``v`` takes option ``m``.

    Attributes:
        loss: Added loss; may be negative.
        costs: Added cost by resource; empty for none.
    """

    u: int
    k: int
    v: int
    m: int
    loss: float
    costs: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Knapsack:
    """One option is chosen for each of U units; costs and losses add over units, and over pairs of units where given.

    Attributes:
        costs: Cost of option k in unit u by resource, [C, U, K].
        losses: Loss of option k in unit u, [U, K].
        budgets: Most of each resource, [C]; infinite for no limit.
        allowed: Options that a unit may take, [U, K].
        pairs: What pairs of choices add.
        forbidden: Choices, and the least number of units in which a solution must differ from each.
    """

    costs: Values
    losses: Values
    budgets: Values
    allowed: NDArray[np.bool_]
    pairs: tuple[Pair, ...] = ()
    forbidden: tuple[tuple[tuple[int, ...], int], ...] = ()

    def totals(self, choice: Sequence[int]) -> tuple[Values, float]:
        """Return the cost of a choice by resource, [C], and its loss."""
        rows, columns = np.arange(len(choice)), np.asarray(choice)
        costs, loss = self.costs[:, rows, columns].sum(axis=1), float(self.losses[rows, columns].sum())
        for pair in self.pairs:
            if choice[pair.u] == pair.k and choice[pair.v] == pair.m:
                loss += pair.loss
                costs = costs + np.asarray(pair.costs or 0.0)
        return costs, loss

    @property
    def additive(self) -> bool:
        """Whether one cost and one loss are all there is, so that the dominance frontier holds every optimum."""
        others = self.budgets[1:]
        return not self.pairs and not self.forbidden and not np.isfinite(others).any()


@dataclass(frozen=True, eq=False)
class Solution:
    """A choice and how good it is proved to be.

    Attributes:
        choice: Option of each unit.
        costs: Its cost by resource, [C].
        loss: Its loss.
        value: What was minimised.
        bound: No choice has a lower value.
        status: One sentence.
    """

    choice: tuple[int, ...]
    costs: Values = field(repr=False)
    loss: float
    value: float
    bound: float
    status: str

    @property
    def cost(self) -> float:
        """Cost in the first resource."""
        return float(self.costs[0])

    @property
    def gap(self) -> float:
        """(value − bound) / \\|value\\|; 0 where the choice is proved optimal."""
        excess = self.value - self.bound
        return excess / abs(self.value) if excess > 0 and self.value else 0.0


def solve(
    costs: ArrayLike,
    losses: ArrayLike,
    budgets: ArrayLike | None = None,
    *,
    max_loss: float | None = None,
    allowed: ArrayLike | None = None,
    pairs: Iterable[Sequence[Any]] = (),
    method: Method = "auto",
) -> Solution:
    """Return the choice of least loss within the budgets, or of least cost where ``max_loss`` is given.

    With x(u, k) = 1 where unit u takes option k, and Σ_k x(u, k) = 1::

        minimise  Σ l(u, k) x(u, k) + Σ_pairs l(u, k, v, m) x(u, k) x(v, m)
        subject to  the same sum of costs ≤ budget, for each resource

    One additive resource is solved by dominance (:func:`aiq.frontier.pareto_frontier`); anything else as a
    mixed-integer program by HiGHS, in which each product is a variable y with y ≤ x, y ≤ x' and y ≥ x + x' − 1, which
    is exact.
    Figures that exceed a budget by no more than 1e-9 of it count as equal to it.

    Args:
        costs: Cost of option k in unit u, [U, K], or of several resources, [C, U, K]; at least 0.
        losses: Loss, [U, K], at least 0.
        budgets: Most cost, a number or [C]; ``None`` for no limit.
        max_loss: Most loss: then the cost in the first resource is minimised.
        allowed: Options that a unit may take, [U, K]; all by default.
        pairs: (u, k, v, m, loss) or (u, k, v, m, loss, costs by resource) that are added where both are chosen.
        method: ``dp``, ``milp``, or ``auto``: ``dp`` where it applies and stays small.

    Raises:
        InfeasibleError: No choice is within the limits.
        InputError: Shapes that do not match, figures that are not finite, or ``dp`` where it does not apply.

    Source: Kellerer, Pferschy and Pisinger, Knapsack Problems, 2004, chapters 11 and 12 (multiple choice, quadratic).
    """
    return optimise(make(costs, losses, budgets, allowed=allowed, pairs=pairs), max_loss=max_loss, method=method)


def optimise(problem: Knapsack, *, max_loss: float | None = None, method: Method = "auto") -> Solution:
    """Do what :func:`solve` does for a problem that was made before.

    Raises:
        InfeasibleError: No choice is within the limits.
        InputError: ``dp`` where it does not apply.
    """
    _check_method(problem, method)
    short: Solution | None = None
    if method != "milp" and problem.additive:
        short = _by_dominance(problem, max_loss, MAX_STATES if method == "dp" else _FEW_STATES)
        if short is not None and (short.gap == 0 or method == "dp"):
            return short
    most = math.inf if max_loss is None else max_loss
    try:
        by_program = _by_program(problem, Target(loss=1.0) if max_loss is None else Target(cost=1.0), most)
    except SolverLimitError:
        if short is None:
            raise
        return short
    if by_program is None:
        raise _infeasible(problem, most)
    if short is None or by_program.value <= short.value:
        return by_program
    return replace(short, bound=max(short.bound, by_program.bound))


def best_schemes(
    costs: ArrayLike,
    losses: ArrayLike,
    budgets: ArrayLike | None = None,
    *,
    count: int,
    distance: int = 1,
    allowed: ArrayLike | None = None,
    pairs: Iterable[Sequence[Any]] = (),
) -> tuple[Solution, ...]:
    """Return up to ``count`` choices of least loss within the budgets, best first, that differ in enough units.

    Each is the exact optimum among the choices that differ from every earlier one in at least ``distance`` units: a cut
    Σ_u x(u, earlier(u)) ≤ U − distance for each. With distance 1 these are the N best.

    Args:
        costs: As in :func:`solve`.
        losses: As in :func:`solve`.
        budgets: As in :func:`solve`.
        count: Most choices.
        distance: Least number of units in which any two differ.
        allowed: As in :func:`solve`.
        pairs: As in :func:`solve`.

    Raises:
        InfeasibleError: No choice is within the budgets.
        InputError: As in :func:`solve`; or ``count`` or ``distance`` below 1.
    """
    if count < 1 or distance < 1:
        raise InputError(f"count and distance must be at least 1, got {count} and {distance}. Next: raise them.")
    problem = make(costs, losses, budgets, allowed=allowed, pairs=pairs)
    found: list[Solution] = []
    while len(found) < count and (next_best := _by_program(problem, Target(loss=1.0))):
        found.append(next_best)
        problem = replace(problem, forbidden=(*problem.forbidden, (next_best.choice, distance)))
    if not found:
        raise _infeasible(problem)
    return tuple(found)


def minimise(problem: Knapsack, curve: Callable[[float], float], weight: float = 1.0) -> Solution:
    """Return the choice that minimises ``curve(cost in the first resource) + weight · loss`` within the budgets.

    The curve must not fall with the cost and must be concave, as −λ · F / B is in the bytes B. Then the least value is
    reached at a vertex of the convex hull of (cost, loss), which one additive resource without a budget gives at once.
    Else the range of costs is branched on: over [a, b] the chord of a concave curve lies below it, so the optimum of a
    mixed-integer program with the chord in place of the curve is a bound. Outside of [a, b] the chord lies above the
    curve: an optimum there is better than all within, and one within splits the range at its own cost, where both new
    chords are exact; until no bound is left below the best choice.

    Args:
        problem: Costs, losses and limits.
        curve: Concave and not falling; finite on the range of costs.
        weight: Weight of the loss, at least 0.

    Raises:
        InfeasibleError: No choice is within the budgets.

    Source: for the branching on a concave term, Falk and Soland, "An algorithm for separable nonconvex programming
    problems", Management Science 15 (1969).
    """
    if problem.additive and math.isinf(problem.budgets[0]):
        points = _over(problem, hull_frontier)
        values = np.array([curve(cost) for cost in points.costs.tolist()]) + weight * points.losses
        return _point(problem, points, int(values.argmin()), float(values.min()), float(values.min()))
    return _by_branching(problem, curve, weight)


def _by_branching(problem: Knapsack, curve: Callable[[float], float], weight: float) -> Solution:
    best: Solution | None = None
    queue: list[tuple[float, int, float, float, float]] = []
    pending, order = [_cost_range(problem)], 0
    while True:
        for a, b in pending:
            slope = (curve(b) - curve(a)) / (b - a) if b > a else 0.0
            found = _by_program(problem, Target(cost=slope, loss=weight))
            if found is None:
                raise _infeasible(problem)
            value = curve(found.cost) + weight * found.loss
            if best is None or value < best.value:
                best = replace(found, value=value)
            order += 1
            heapq.heappush(queue, (found.bound + curve(a) - slope * a, order, a, b, found.cost))
        floor, _, a, b, cost = heapq.heappop(queue)
        assert best is not None
        if floor >= best.value - SLACK * max(abs(best.value), weight * best.loss):
            return replace(best, bound=best.value, status="optimal, by mixed-integer programs")
        if not a + SLACK * (b - a) < cost < b - SLACK * (b - a):
            return replace(best, bound=floor, status=_CUT_SHORT)
        pending = [(a, cost), (cost, b)]


def frontier(problem: Knapsack, *, max_states: int = MAX_STATES) -> Frontier:
    """Return the non-dominated (cost in the first resource, loss) of all allowed choices, budgets and pairs aside."""
    return _over(problem, functools.partial(pareto_frontier, max_states=max_states))


def _over(problem: Knapsack, found_by: Callable[[Values, Values], Frontier]) -> Frontier:
    costs, losses, first = without_gaps(problem.costs[0], problem.losses, problem.allowed)
    found = found_by(costs, losses)
    rows = np.arange(len(costs))
    chosen = np.where(problem.allowed[rows, found.choices], found.choices, first).astype(np.uint16)
    return replace(found, choices=chosen)


def without_gaps(costs: Values, losses: Values, allowed: NDArray[np.bool_]) -> tuple[Values, Values, NDArray[np.intp]]:
    """Put each unit's first allowed option, whose index is returned too, in the place of those that it may not take."""
    first = allowed.argmax(axis=1)
    rows = np.arange(len(first))
    return (
        np.where(allowed, costs, costs[rows, first][:, None]),
        np.where(allowed, losses, losses[rows, first][:, None]),
        first,
    )


def make(
    costs: ArrayLike,
    losses: ArrayLike,
    budgets: ArrayLike | None = None,
    *,
    allowed: ArrayLike | None = None,
    pairs: Iterable[Sequence[Any]] = (),
) -> Knapsack:
    """Check the arguments of :func:`solve` and return the problem.

    Raises:
        InputError: Shapes that do not match, or figures that are not finite or below 0.
    """
    loss = np.asarray(losses, dtype=np.float64)
    cost = np.asarray(costs, dtype=np.float64)
    cost = cost[None] if cost.ndim == 2 else cost
    if loss.ndim != 2 or cost.ndim != 3 or cost.shape[1:] != loss.shape or not loss.size or not len(cost):
        raise InputError(
            f"costs must be [U, K] or [C, U, K] and losses [U, K], got {list(np.shape(costs))} and {list(loss.shape)}. "
            "Next: give one cost for each unit and option."
        )
    may = np.ones(loss.shape, dtype=bool) if allowed is None else np.asarray(allowed, dtype=bool)
    if may.shape != loss.shape or not may.any(axis=1).all():
        raise InputError(
            f"allowed must be of shape {list(loss.shape)} with an option for each unit, got {list(may.shape)}. "
            "Next: mend it."
        )
    if not (_proper(loss[may]) and _proper(cost[:, may])):
        raise InputError("costs and losses must be finite and at least 0. Next: mask options that are unknown.")
    limits = np.full(len(cost), np.inf) if budgets is None else np.atleast_1d(np.asarray(budgets, dtype=np.float64))
    if limits.shape != (len(cost),) or np.isnan(limits).any():
        raise InputError(
            f"budgets must be one number for each of {len(cost)} resources, got {limits.tolist()}. Next: mend them."
        )
    added = _merged(_pair(given, cost.shape) for given in pairs)
    return Knapsack(np.where(may, cost, 0.0), np.where(may, loss, 0.0), limits, may, added)


def _proper(values: Values) -> bool:
    return bool(np.isfinite(values).all() and (values >= 0).all())


def _pair(given: Sequence[Any], shape: tuple[int, ...]) -> Pair:
    pair = Pair(*given)
    resources, units, options = shape
    inside = 0 <= pair.u < units and 0 <= pair.v < units and 0 <= pair.k < options and 0 <= pair.m < options
    figures = [pair.loss, *pair.costs]
    if not inside or pair.u == pair.v or len(pair.costs) not in {0, resources} or not np.isfinite(figures).all():
        raise InputError(
            f"pair {tuple(given)!r} must name two of {units} units, one of {options} options of each, a loss, and a "
            f"cost for none or all of {resources} resources, all finite. Next: mend it."
        )
    return pair if pair.u < pair.v else Pair(pair.v, pair.m, pair.u, pair.k, pair.loss, pair.costs)


def _merged(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """Add up pairs that name the same choices."""
    found: dict[tuple[int, ...], Pair] = {}
    for pair in pairs:
        old = found.get(pair[:4])
        if old is not None:
            costs = pair.costs or old.costs
            if pair.costs and old.costs:
                costs = tuple(a + b for a, b in zip(old.costs, pair.costs, strict=True))
            found[pair[:4]] = pair._replace(loss=old.loss + pair.loss, costs=costs)
        else:
            found[pair[:4]] = pair
    return tuple(found.values())


def _check_method(problem: Knapsack, method: str) -> None:
    if method not in get_args(Method):
        raise InputError(f"unknown method {method!r}: known: {', '.join(get_args(Method))}. Next: choose one.")
    if method == "dp" and not problem.additive:
        raise InputError("dp solves one additive resource without pairs. Next: choose auto or milp.")


def _by_dominance(problem: Knapsack, max_loss: float | None, max_states: int) -> Solution | None:
    """Read the answer off the frontier; ``None`` where the frontier was cut short and may have lost it."""
    points = frontier(problem, max_states=max_states)
    most = math.inf if max_loss is None else max_loss
    fine = np.flatnonzero(within(points.costs, problem.budgets[0]) & within(points.losses, most))
    if not len(fine):
        if points.loss_gap:
            return None
        raise _infeasible(problem, most)
    if max_loss is None:
        loss = float(points.losses[fine[-1]])
        return _point(problem, points, int(fine[-1]), loss, loss / (1 + points.loss_gap))
    reachable = np.flatnonzero(within(points.losses, max_loss * (1 + points.loss_gap)))
    return _point(problem, points, int(fine[0]), float(points.costs[fine[0]]), float(points.costs[reachable[0]]))


def _point(problem: Knapsack, points: Frontier, index: int, value: float, bound: float) -> Solution:
    choice = tuple(points.choices[index].tolist())
    costs, loss = problem.totals(choice)
    return Solution(choice, costs, loss, value, bound, "optimal, by dominance" if bound == value else _CUT_SHORT)


def _by_program(problem: Knapsack, target: Target, max_loss: float = math.inf) -> Solution | None:
    answer = program(problem, target, max_loss)
    if answer is None:
        return None
    costs, loss = problem.totals(answer.choice)
    status = "optimal, by a mixed-integer program" if answer.bound == answer.value else _CUT_SHORT
    return Solution(answer.choice, costs, loss, answer.value, answer.bound, status)


def _cost_range(problem: Knapsack) -> tuple[float, float]:
    """Return costs in the first resource that no choice is outside of."""
    costs, _, _ = without_gaps(problem.costs[0], problem.losses, problem.allowed)
    extra = [pair.costs[0] for pair in problem.pairs if pair.costs]
    return (
        float(costs.min(axis=1).sum() + sum(min(cost, 0.0) for cost in extra)),
        float(costs.max(axis=1).sum() + sum(max(cost, 0.0) for cost in extra)),
    )


def _infeasible(problem: Knapsack, max_loss: float = math.inf) -> InfeasibleError:
    limits = [f"a cost of {limit:.6g}" for limit in problem.budgets if math.isfinite(limit)]
    limits += [f"a loss of {max_loss:.6g}"] if math.isfinite(max_loss) else []
    nearest = program(problem, Target(excess=1.0), max_loss)
    if nearest is None:
        return InfeasibleError("no choice is left. Next: ask for fewer, or let them differ in fewer units.")
    costs, loss = problem.totals(nearest.choice)
    reached = [f"{cost:.6g}" for cost, limit in zip(costs, problem.budgets, strict=True) if math.isfinite(limit)]
    reached += [f"{loss:.6g}"] if math.isfinite(max_loss) else []
    return InfeasibleError(
        f"no choice is within {' and '.join(limits)}: the nearest has {' and '.join(reached)}. "
        "Next: loosen a limit, or allow more options."
    )
