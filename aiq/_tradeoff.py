"""Trade-offs between a scheme's cost and its proxy loss, with a proved bound where cost does not add over layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiq.frontier import Frontier, lower_hull, non_dominated, pareto_frontier
from roofline import CostTable

Losses = NDArray[np.float64]
_POOL_STATES = 5_000
_WEIGHT_PRICES = (0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True, eq=False)
class Tradeoff:
    """The best schemes found between a cost and a loss, and what no scheme can beat.

    Attributes:
        frontier: Points by increasing true cost and decreasing loss.
        bound: Loss → a cost that no scheme of at most that loss can be below.
    """

    frontier: Frontier
    bound: Callable[[float], float]

    def gap(self, cost: float, loss: float) -> float:
        """Return the relative excess of a cost over the bound at its loss; 0 where the scheme is proved optimal."""
        bound = self.bound(loss)
        return max(cost / bound - 1.0, 0.0) if bound > 0 else 0.0


def tradeoffs(table: CostTable, losses: Losses) -> dict[str, Tradeoff]:
    """Return the trade-off of each target: ``ai`` (bytes moved), ``memory`` (weight bytes) and ``latency`` (seconds).

    Bytes and seconds add over layers, and the frontier is exact, unless tensors that change format cost something
    (``unfused`` traffic) or the weights of some schemes fit a memory level that those of others do not. Then the points
    are the best of a pool of schemes, scored in full, and the bound comes from the part that does add: without
    transitions, and with weights in the innermost level that any scheme of that loss can reach.
    """
    memory = _exact(pareto_frontier(table.weight_bytes, losses))
    levels = {level: pareto_frontier(table.latency_s[level], losses) for level in table.levels}
    moved = pareto_frontier(table.bytes, losses)
    if not table.has_transitions and len(table.levels) == 1:
        return {"ai": _exact(moved), "memory": memory, "latency": _exact(levels[table.levels[0]])}

    def latency_bound(loss: float) -> float:
        reachable = table.weight_level(_cheapest(memory.frontier, loss))
        return _cheapest(levels[reachable], loss)

    pool = [moved.choices, memory.frontier.choices, *(frontier.choices for frontier in levels.values())]
    pool += _kept_in_a_level(table, losses)
    if table.has_transitions:
        pool += _without_transitions(table, losses)
    choices = np.unique(np.concatenate(pool), axis=0)
    scores = table.score(choices)
    total = losses[np.arange(losses.shape[0]), choices].sum(axis=1)
    exact_bytes = _exact(moved)
    return {
        "ai": Tradeoff(_best_of(scores.bytes, total, choices), exact_bytes.bound)
        if table.has_transitions
        else exact_bytes,
        "memory": memory,
        "latency": Tradeoff(_best_of(scores.latency_s, total, choices), latency_bound),
    }


def _exact(frontier: Frontier) -> Tradeoff:
    return Tradeoff(frontier, lambda loss: _cheapest(frontier, loss))


def _cheapest(frontier: Frontier, loss: float) -> float:
    return float(frontier.costs[frontier.cheapest_within(loss * (1 + frontier.loss_gap))])


def _best_of(costs: NDArray[np.float64], losses: Losses, choices: NDArray[np.uint16]) -> Frontier:
    keep = non_dominated(costs, losses)
    return Frontier(costs[keep], losses[keep], choices[keep], lower_hull(costs[keep], losses[keep]), 0.0)


def _kept_in_a_level(table: CostTable, losses: Losses) -> Iterator[NDArray[np.uint16]]:
    """Yield schemes that are fast and small: a price on weight bytes brings them under a level's capacity."""
    if len(table.levels) == 1:
        return
    span = np.ptp(table.weight_bytes, axis=1).sum()
    for level in table.levels:
        latency = table.latency_s[level]
        for price in _WEIGHT_PRICES if span else ():
            cost = latency + table.weight_bytes * (price * latency.max(axis=1).sum() / span)
            yield pareto_frontier(cost, losses, max_states=_POOL_STATES).choices


def _without_transitions(table: CostTable, losses: Losses) -> Iterator[NDArray[np.uint16]]:
    """Yield schemes whose layers all share one activation format, so that nothing is converted."""
    for activations in dict.fromkeys(option.activations for option in table.options):
        columns = np.array([k for k, o in enumerate(table.options) if o.activations == activations])
        for cost in (table.bytes, *(table.latency_s[level] for level in table.levels)):
            found = pareto_frontier(cost[:, columns], losses[:, columns], max_states=_POOL_STATES)
            yield columns[found.choices].astype(np.uint16)
