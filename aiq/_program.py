"""A multiple-choice knapsack as a mixed-integer program, solved by HiGHS."""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from roofline.errors import AIQError

if TYPE_CHECKING:
    from aiq.knapsack import Knapsack

SLACK = 1e-9
_ROW_SCALE = 1e3
_SCALE = 1e5
_PRUNED = 1e-6
_MOST_NODES = 1_000
_SOLVED, _INFEASIBLE = 0, 2
_STDOUT = 1
_SILENCE = threading.Lock()

Values = NDArray[np.float64]


class SolverLimitError(AIQError):
    """The solver came to its limit of nodes before it found any choice."""


class Target(NamedTuple):
    """What a program minimises: weights of the cost in the first resource, of the loss, and of the excess over limits.

    With a weight on the excess, all limits may be broken by the same fraction.
    """

    cost: float = 0.0
    loss: float = 0.0
    excess: float = 0.0


class Answer(NamedTuple):
    """A choice, its value, and what no choice's value is below, which is the same where the choice is proved optimal.

    Where an excess was minimised, there is neither value nor bound.
    """

    choice: tuple[int, ...]
    value: float = math.nan
    bound: float = -math.inf


def within(values: ArrayLike, limit: ArrayLike) -> Any:
    """Tell which values keep a limit, or exceed it by no more than a billionth of it."""
    return np.asarray(values) <= np.asarray(limit) + SLACK * np.abs(limit)


def program(problem: Knapsack, target: Target, max_loss: float = math.inf) -> Answer | None:
    """Minimise a weighted sum of cost, loss and excess; return ``None`` where no choice is within the limits.

    The solver's tolerances are absolute: to it a row that is broken by 1e-6 is kept, and it prunes what is better than
    its answer by less. So a choice that breaks a limit is cut off; and where the answer is small beside what some
    options weigh, those that weigh more than all of it are left out, which no better choice misses, and the rest is
    solved again on its own scale. Until that settles it, the bound is lowered by what may have been pruned.

    Raises:
        SolverLimitError: The solver found no choice and did not prove that there is none.
    """
    best: Answer | None = None
    worst = math.inf
    while True:
        found = _solve(problem, target, (max_loss, worst))
        if found is None:
            return best
        choice, bound, finished = found
        if target.excess:
            return Answer(choice)
        costs, loss = problem.totals(choice)
        if not (within(costs, problem.budgets).all() and within(loss, max_loss)):
            problem = replace(problem, forbidden=(*problem.forbidden, (choice, 1)))
            continue
        value = target.cost * float(costs[0]) + target.loss * loss
        best = best or Answer(choice, value)
        if value < best.value:
            best = best._replace(choice=choice, value=value)
        best = best._replace(bound=max(best.bound, bound))
        costs, loss = replace(problem, pairs=()).totals(best.choice)
        if best.value - best.bound <= SLACK * max(abs(best.value), target.cost * costs[0], target.loss * loss):
            return best._replace(bound=best.value)
        if worst == best.value or not finished:
            return best
        worst = best.value


def _solve(problem: Knapsack, target: Target, most: tuple[float, float]) -> tuple[tuple[int, ...], float, bool] | None:
    """Solve one program for what has at most a loss and an objective value; return choice, bound, and whether it ended.

    Variables are x(u, k), then one y for each pair, then the excess. Each product y = x x' stands as y ≥ x + x' − 1,
    Σ_m y(u, k, v, m) ≤ x(u, k) and the same from the other side, which is exact, since one option of each unit is
    chosen, and tighter than y ≤ x alone. Of rows and objective, what every choice has in common is taken out and the
    rest is scaled, so that the solver's tolerances mean the same for bytes and for seconds.
    """
    from scipy.optimize import LinearConstraint, milp

    *limits, worst = (limit + SLACK * abs(limit) for limit in (*problem.budgets.tolist(), *most))
    if not target.excess:
        problem = _narrowed(problem, target, (*limits, worst))
    allowed = problem.allowed
    if not allowed.any(axis=1).all():
        return None

    *limited, objective = _weights(problem, target)
    units, options = allowed.shape
    rows = _Rows(width := len(objective))
    for u in range(units):
        rows.add(np.arange(u * options, (u + 1) * options), np.ones(options), 1.0, 1.0)
    for weights, limit in zip(limited, limits, strict=True):
        if math.isfinite(limit):
            rows.add_limit(*_rest(weights, allowed), limit, breakable=target.excess > 0)
    _add_products(rows, problem)
    for choice, distance in problem.forbidden:
        rows.add(np.arange(units) * options + np.asarray(choice), np.ones(units), -np.inf, units - distance)

    rest, common = _rest(objective, allowed)
    rest = np.minimum(rest, worst - _lightest(rest, common, allowed))
    rest[-1] = target.excess
    most_excess = np.inf if target.excess else 0.0
    size = float(np.abs(rest).max())
    with _silenced():
        found = milp(
            rest * (_SCALE / (size or 1.0)),
            integrality=np.arange(width) < units * options,
            bounds=(0.0, np.concatenate([allowed.ravel(), np.ones(len(problem.pairs)), [most_excess]])),
            constraints=LinearConstraint(rows.matrix(), rows.low, rows.high),
            options={"mip_rel_gap": 0.0, "node_limit": _MOST_NODES},
        )
    if found.status == _INFEASIBLE:
        return None
    if found.x is None:
        reason = str(found.message).strip().rstrip(".")
        raise SolverLimitError(
            f"the mixed-integer solver gave up: {reason}. Next: tie layers together, or allow fewer formats."
        )
    chosen = found.x[: units * options].reshape(units, options).argmax(axis=1)
    dual = -math.inf if found.mip_dual_bound is None else float(found.mip_dual_bound)
    bound = common + size * (dual - _PRUNED) / _SCALE if size else common
    return tuple(chosen.tolist()), bound, found.status == _SOLVED


def _narrowed(problem: Knapsack, target: Target, limits: Sequence[float]) -> Knapsack:
    """Leave out options that break a limit even with the lightest options of all other units, and their pairs."""
    allowed = problem.allowed
    for weights, limit in zip(_weights(problem, target), limits, strict=True):
        if math.isfinite(limit) and allowed.any(axis=1).all():
            rest, common = _rest(weights, allowed)
            beside = _lightest(rest, common, allowed)
            allowed = allowed & (beside + rest[: allowed.size].reshape(allowed.shape) <= limit)
    kept = tuple(pair for pair in problem.pairs if allowed[pair.u, pair.k] and allowed[pair.v, pair.m])
    return replace(problem, allowed=allowed, pairs=kept)


def _rest(weights: Values, allowed: NDArray[np.bool_]) -> tuple[Values, float]:
    """Take out of the weights of variables what the lightest options of all units weigh; return both."""
    found = weights.copy()
    options = found[: allowed.size].reshape(allowed.shape)
    least = np.where(allowed, options, np.inf).min(axis=1)
    options -= least[:, None]
    options[~allowed] = 0.0
    return found, float(least.sum())


def _lightest(rest: Values, common: float, allowed: NDArray[np.bool_]) -> float:
    """Return what no choice weighs less than."""
    return common + float(np.minimum(rest[allowed.size :], 0.0).sum())


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep what C code prints from standard output: HiGHS prints a stray line, which would end up amid JSON.

    Source: https://github.com/jump-dev/HiGHS.jl/issues/312.
    """
    with _SILENCE:
        try:
            kept = os.dup(_STDOUT)
        except OSError:
            kept = None
        if kept is None:
            yield
            return
        flush = ctypes.CDLL(None).fflush if os.name == "posix" else lambda stream: None
        flush(None)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, _STDOUT)
        try:
            yield
        finally:
            flush(None)
            os.dup2(kept, _STDOUT)
            os.close(kept)
            os.close(nowhere)


class _Rows:
    """Rows of a sparse matrix and their limits."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.entries: list[tuple[NDArray[np.intp], Values]] = []
        self.low: list[float] = []
        self.high: list[float] = []

    def add(self, columns: NDArray[np.intp], values: Values, low: float, high: float) -> None:
        self.entries.append((columns, values))
        self.low.append(low)
        self.high.append(high)

    def add_limit(self, row: Values, common: float, limit: float, *, breakable: bool) -> None:
        """Add row · variables + common ≤ limit, where the last variable says what share of it may be exceeded."""
        size = max(float(np.abs(row).max()), abs(limit) * breakable) or 1.0
        scaled = row * (_ROW_SCALE / size)
        if breakable:
            scaled[-1] = -max(_ROW_SCALE * limit / size, 1.0)
        columns = np.flatnonzero(scaled)
        self.add(columns, scaled[columns], -np.inf, (limit - common) * (_ROW_SCALE / size))

    def matrix(self) -> Any:
        from scipy.sparse import csr_array

        index = np.repeat(np.arange(len(self.entries)), [len(columns) for columns, _ in self.entries])
        columns = np.concatenate([columns for columns, _ in self.entries])
        values = np.concatenate([values for _, values in self.entries])
        return csr_array((values, (index, columns)), shape=(len(self.entries), self.width))


def _weights(problem: Knapsack, target: Target) -> list[Values]:
    """Return what each variable adds to each resource, to the loss and to the objective."""
    loss: list[ArrayLike] = [problem.losses.ravel(), [pair.loss for pair in problem.pairs], [0.0]]
    costs: list[list[ArrayLike]] = [
        [cost.ravel(), [pair.costs[r] if pair.costs else 0.0 for pair in problem.pairs], [0.0]]
        for r, cost in enumerate(problem.costs)
    ]
    found = [np.concatenate(parts) for parts in (*costs, loss)]
    return [*found, target.cost * found[0] + target.loss * found[-1]]


def _add_products(rows: _Rows, problem: Knapsack) -> None:
    options = problem.losses.shape[1]
    start = problem.losses.size
    sides: dict[tuple[int, int], list[int]] = {}
    for index, pair in enumerate(problem.pairs):
        first, second, product = pair.u * options + pair.k, pair.v * options + pair.m, start + index
        rows.add(np.array([first, second, product]), np.array([1.0, 1.0, -1.0]), -np.inf, 1.0)
        sides.setdefault((first, pair.v), []).append(product)
        sides.setdefault((second, pair.u), []).append(product)
    for (factor, _), products in sides.items():
        rows.add(np.array([*products, factor]), np.array([1.0] * len(products) + [-1.0]), -np.inf, 0.0)
