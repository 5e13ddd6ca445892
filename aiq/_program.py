"""A multiple-choice knapsack as a mixed-integer program, solved by HiGHS."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from roofline.errors import AIQError

if TYPE_CHECKING:
    from aiq.knapsack import Knapsack

_SCALE = 1e3
_MOST_NODES = 20_000
_INFEASIBLE = 2


class Target(NamedTuple):
    """What a program minimises: weights of the cost in the first resource, of the loss, and of the excess over limits.

    With a weight on the excess, all limits may be broken by the same fraction.
    """

    cost: float = 0.0
    loss: float = 0.0
    excess: float = 0.0


class Answer(NamedTuple):
    """A choice, and what no choice's objective value is below."""

    choice: tuple[int, ...]
    bound: float


def program(
    problem: Knapsack, target: Target, max_loss: float = math.inf, cost_range: tuple[float, float] | None = None
) -> Answer | None:
    """Minimise a weighted sum of cost, loss and excess; return ``None`` where no choice is within the limits.

    Variables are x(u, k), then one y for each pair, then the excess. Each product y = x x' stands as y ≥ x + x' − 1,
    Σ_m y(u, k, v, m) ≤ x(u, k) and the same from the other side, which is exact, since one option of each unit is
    chosen, and tighter than y ≤ x alone. Rows and objective are scaled, so that the solver's absolute tolerances mean
    the same for bytes and for seconds.
    """
    from scipy.optimize import LinearConstraint, milp

    units, options = problem.losses.shape
    width = units * options + len(problem.pairs) + 1
    rows = _Rows(width)
    for u in range(units):
        rows.add(np.arange(u * options, (u + 1) * options), np.ones(options), 1.0, 1.0)
    costs, loss = _weights(problem)
    for weights, limit in zip((*costs, loss), (*problem.budgets, max_loss), strict=True):
        if math.isfinite(limit):
            size = max(abs(limit), float(np.abs(weights).max())) or 1.0
            row = weights / size
            row[-1] = -max(limit / size, 1e-3)
            rows.add(np.arange(width), row, -np.inf, limit / size)
    if cost_range:
        size = cost_range[1] or 1.0
        rows.add(np.arange(width - 1), costs[0][:-1] / size, cost_range[0] / size, 1.0)
    _add_products(rows, problem)
    for choice, distance in problem.forbidden:
        rows.add(np.arange(units) * options + np.asarray(choice), np.ones(units), -np.inf, units - distance)

    objective = target.cost * costs[0] + target.loss * loss
    objective[-1] = target.excess
    scale = _SCALE / (float(np.abs(objective).max()) or 1.0)
    most = np.concatenate(
        [problem.allowed.ravel(), np.ones(len(problem.pairs)), [np.inf if target.excess else 0.0]]
    ).astype(float)
    whole = np.zeros(width)
    whole[: units * options] = 1
    found = milp(
        objective * scale,
        integrality=whole,
        bounds=(np.zeros(width), most),
        constraints=LinearConstraint(rows.matrix(), rows.low, rows.high),
        options={"mip_rel_gap": 0.0, "node_limit": _MOST_NODES},
    )
    if found.status == _INFEASIBLE:
        return None
    if found.x is None:
        reason = str(found.message).strip().rstrip(".")
        raise AIQError(
            f"the mixed-integer solver gave up: {reason}. Next: tie layers together, or allow fewer formats."
        )
    chosen = found.x[: units * options].reshape(units, options).argmax(axis=1)
    bound = found.mip_dual_bound / scale if found.mip_dual_bound is not None else -math.inf
    return Answer(tuple(chosen.tolist()), float(bound))


class _Rows:
    """Rows of a sparse matrix and their limits."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.entries: list[tuple[NDArray[np.intp], NDArray[np.float64]]] = []
        self.low: list[float] = []
        self.high: list[float] = []

    def add(self, columns: NDArray[np.intp], values: NDArray[np.float64], low: float, high: float) -> None:
        self.entries.append((columns, values))
        self.low.append(low)
        self.high.append(high)

    def matrix(self) -> Any:
        from scipy.sparse import csr_array

        index = np.repeat(np.arange(len(self.entries)), [len(columns) for columns, _ in self.entries])
        columns = np.concatenate([columns for columns, _ in self.entries])
        values = np.concatenate([values for _, values in self.entries])
        return csr_array((values, (index, columns)), shape=(len(self.entries), self.width))


def _weights(problem: Knapsack) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
    """Return what each variable adds to each resource and to the loss."""
    loss: list[ArrayLike] = [problem.losses.ravel(), [pair.loss for pair in problem.pairs], [0.0]]
    costs: list[list[ArrayLike]] = [
        [cost.ravel(), [pair.costs[r] if pair.costs else 0.0 for pair in problem.pairs], [0.0]]
        for r, cost in enumerate(problem.costs)
    ]
    return [np.concatenate(parts) for parts in costs], np.concatenate(loss)


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
