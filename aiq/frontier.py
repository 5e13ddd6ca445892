"""The exact trade-off between a cost and a loss that both add over layers."""

from __future__ import annotations

import itertools
import operator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roofline.errors import InputError

MAX_STATES = 100_000
_FEWEST_STATES = 3


@dataclass(frozen=True, eq=False)
class Frontier:
    """Non-dominated points, by increasing cost and decreasing loss.

    Attributes:
        costs: Cost of each point, [P].
        losses: Loss of each point, [P].
        choices: Option index of each layer, [P, L].
        supported: Points that minimise cost + μ · loss for some μ: what a sweep over λ can reach, [P].
        loss_gap: Relative excess of loss over the optimum that cannot be excluded; 0 where the frontier is exact.
    """

    costs: NDArray[np.float64]
    losses: NDArray[np.float64]
    choices: NDArray[np.uint16]
    supported: NDArray[np.bool_]
    loss_gap: float

    def cheapest_within(self, loss: float) -> int:
        """Return the index of the cheapest point whose loss is at most ``loss`` (if there is none, of the last)."""
        within = np.flatnonzero(self.losses <= loss * (1 + 1e-12))
        return int(within[0]) if len(within) else len(self.losses) - 1

    def best_for(self, cost: float) -> int:
        """Return the index of the lowest-loss point whose cost is at most ``cost`` (the cheapest if there is none)."""
        return max(int(np.searchsorted(self.costs, cost * (1 + 1e-12), side="right")) - 1, 0)


def pareto_frontier(
    costs: NDArray[np.float64], losses: NDArray[np.float64], *, max_states: int = MAX_STATES
) -> Frontier:
    """Return every non-dominated (cost, loss) over all choices of one option for each layer.

    The multiple-choice knapsack, solved by dominance: after each layer only partial sums that no other beats in both
    coordinates are kept. All K^L choices are covered, and the result is exact, unless more than ``max_states`` partial
    sums survive: then the cheapest of each narrow band of loss is kept, and ``loss_gap`` bounds what that can have
    cost.

    Args:
        costs: Cost of option k in layer l, [L, K], at least 0.
        losses: Loss of option k in layer l, [L, K], at least 0.
        max_states: Partial sums kept after a layer, at least 3.

    Raises:
        InputError: ``max_states`` below 3.

    Source: Kellerer, Pferschy and Pisinger, Knapsack Problems, 2004, chapters 3.4 (dominance), 6 (trimming) and 11.
    """
    if max_states < _FEWEST_STATES:
        raise InputError(
            f"max_states must be at least {_FEWEST_STATES}, got {max_states}. Next: leave it at {MAX_STATES}."
        )
    total_cost, total_loss = np.zeros(1), np.zeros(1)
    history: list[tuple[NDArray[np.int32], NDArray[np.uint16]]] = []
    growth = 1.0
    for layer_cost, layer_loss in zip(costs, losses, strict=True):
        cost = (layer_cost[:, None] + total_cost).ravel()
        loss = (layer_loss[:, None] + total_loss).ravel()
        keep = non_dominated(cost, loss)
        if len(keep) > max_states:
            keep, factor = _trim(keep, loss, max_states)
            growth *= factor
        history.append(((keep % len(total_cost)).astype(np.int32), (keep // len(total_cost)).astype(np.uint16)))
        total_cost, total_loss = cost[keep], loss[keep]
    choices = np.empty((len(total_cost), len(costs)), dtype=np.uint16)
    index = np.arange(len(total_cost), dtype=np.int32)
    for position in range(len(costs) - 1, -1, -1):
        parents, options = history[position]
        choices[:, position] = options[index]
        index = parents[index]
    return Frontier(total_cost, total_loss, choices, lower_hull(total_cost, total_loss), growth - 1.0)


def hull_frontier(costs: NDArray[np.float64], losses: NDArray[np.float64]) -> Frontier:
    """Return the vertices of the lower-left convex hull of (cost, loss) over all choices: the supported points alone.

    The hull of a sum of sets is the sum of their hulls: from the cheapest option of every layer on, the edges of the
    layers' own hulls are taken one after another, the steepest first. Exact at any size, in O(L K log L K) steps.

    Args:
        costs: Cost of option k in layer l, [L, K].
        losses: Loss of option k in layer l, [L, K].

    Source: Sinha and Zoltners, "The multiple-choice knapsack problem", Operations Research 27 (1979), section 2.
    """
    edges: list[tuple[float, int, int]] = []
    first = np.empty(len(costs), dtype=np.uint16)
    for layer, (cost, loss) in enumerate(zip(costs, losses, strict=True)):
        options = non_dominated(cost, loss)
        options = options[lower_hull(cost[options], loss[options])]
        slopes = np.maximum.accumulate(np.diff(loss[options]) / np.diff(cost[options]))
        first[layer] = options[0]
        edges += zip(slopes.tolist(), itertools.repeat(layer), options[1:].tolist(), strict=False)
    choices = np.repeat(first[None], len(edges) + 1, axis=0)
    for row, (_, layer, option) in enumerate(sorted(edges, key=operator.itemgetter(0)), start=1):
        choices[row:, layer] = option
    layers = np.arange(len(costs))
    cost, loss = costs[layers, choices].sum(axis=1), losses[layers, choices].sum(axis=1)
    kept = non_dominated(cost, loss)
    kept = kept[lower_hull(cost[kept], loss[kept])]
    return Frontier(cost[kept], loss[kept], choices[kept], np.ones(len(kept), dtype=bool), 0.0)


def non_dominated(cost: NDArray[np.float64], loss: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the indices of the points that no other beats in both coordinates, by increasing cost."""
    order = np.lexsort((loss, cost))
    ordered = loss[order]
    best_before = np.minimum.accumulate(np.concatenate(([np.inf], ordered[:-1])))
    return order[ordered < best_before]


def _trim(keep: NDArray[np.intp], loss: NDArray[np.float64], max_states: int) -> tuple[NDArray[np.intp], float]:
    """Keep the cheapest point of each band of loss; return the points and the factor between a band's ends."""
    values = loss[keep]
    positive = values[values > 0]
    span = np.log(positive.max()) - np.log(positive.min())
    width = span / (max_states - 2)
    bands = np.full(len(values), -1)
    bands[values > 0] = np.floor((np.log(positive) - np.log(positive.min())) / width).astype(int)
    first = np.r_[True, bands[1:] != bands[:-1]]
    return keep[first], float(np.exp(width))


def lower_hull(cost: NDArray[np.float64], loss: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark the vertices of the lower-left convex hull of points sorted by cost."""
    hull: list[int] = []
    for i in range(len(cost)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (cost[b] - cost[a]) * (loss[i] - loss[a]) <= (loss[b] - loss[a]) * (cost[i] - cost[a]):
                hull.pop()
            else:
                break
        hull.append(i)
    mask = np.zeros(len(cost), dtype=bool)
    mask[hull] = True
    return mask
