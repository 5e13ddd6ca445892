"""Trade-offs between a scheme's cost and its proxy loss, with a proved bound where cost does not add over layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aiq.frontier import MAX_STATES, Frontier, lower_hull, non_dominated, pareto_frontier
from roofline import CostTable

Losses = NDArray[np.float64]
Families = Sequence[Sequence[int]]
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


def tradeoffs(table: CostTable, losses: Losses, *, families: Families | None = None) -> dict[str, Tradeoff]:
    """Return the trade-off of each target: ``ai`` (bytes moved), ``memory`` (weight bytes) and ``latency`` (seconds).

    Bytes and seconds add over layers, and the frontier is exact, unless tensors that change format cost something
    (``unfused`` traffic) or the weights of some schemes fit a memory level that those of others do not. Then the points
    are the best of a pool of schemes, scored in full, and the bound comes from the part that does add: without
    transitions, and with weights in the innermost level that any scheme of that loss can reach.

    Args:
        table: Costs.
        losses: Loss of each option of each layer, [L, K].
        families: Options that a scheme may hold together; by default those that run together (``table.families``).
    """
    together = table.families if families is None else families
    by_bytes, by_weights = (_frontiers(costs, losses, together) for costs in (table.bytes, table.weight_bytes))
    by_seconds = {level: _frontiers(table.latency_s[level], losses, together) for level in table.levels}
    moved, memory = _exact(_union(by_bytes)), _exact(_union(by_weights))
    levels = {level: _union(found) for level, found in by_seconds.items()}
    if not table.has_transitions and len(table.levels) == 1:
        return {"ai": moved, "memory": memory, "latency": _exact(levels[table.levels[0]])}

    def latency_bound(loss: float) -> float:
        reachable = table.weight_level(_cheapest(memory.frontier, loss))
        return _cheapest(levels[reachable], loss)

    pool = [each.choices for found in (by_bytes, by_weights, *by_seconds.values()) for each in found]
    pool += _kept_in_a_level(table, losses, together)
    if table.has_transitions:
        pool += _without_transitions(table, losses, together)
    choices = np.unique(np.concatenate(pool), axis=0)
    scores = table.score(choices)
    total = losses[np.arange(losses.shape[0]), choices].sum(axis=1)
    return {
        "ai": Tradeoff(_best_of(scores.bytes, total, choices), moved.bound) if table.has_transitions else moved,
        "memory": memory,
        "latency": Tradeoff(_best_of(scores.latency_s, total, choices), latency_bound),
    }


def _frontiers(costs: Losses, losses: Losses, families: Families, *, max_states: int = MAX_STATES) -> list[Frontier]:
    return [_within(costs, losses, family, max_states) for family in families]


def _union(found: Sequence[Frontier]) -> Frontier:
    if len(found) == 1:
        return found[0]
    costs, losses, choices = (
        np.concatenate([getattr(each, name) for each in found]) for name in ("costs", "losses", "choices")
    )
    return replace(_best_of(costs, losses, choices), loss_gap=max(each.loss_gap for each in found))


def _within(costs: Losses, losses: Losses, family: Sequence[int], max_states: int) -> Frontier:
    columns = np.array(family)
    found = pareto_frontier(costs[:, columns], losses[:, columns], max_states=max_states)
    return replace(found, choices=columns[found.choices].astype(np.uint16))


def _exact(frontier: Frontier) -> Tradeoff:
    return Tradeoff(frontier, lambda loss: _cheapest(frontier, loss))


def _cheapest(frontier: Frontier, loss: float) -> float:
    return float(frontier.costs[frontier.cheapest_within(loss * (1 + frontier.loss_gap))])


def _best_of(costs: NDArray[np.float64], losses: Losses, choices: NDArray[np.uint16]) -> Frontier:
    keep = non_dominated(costs, losses)
    return Frontier(costs[keep], losses[keep], choices[keep], lower_hull(costs[keep], losses[keep]), 0.0)


def _kept_in_a_level(table: CostTable, losses: Losses, families: Families) -> Iterator[NDArray[np.uint16]]:
    """Yield schemes that are fast and small: a price on weight bytes brings them under a level's capacity."""
    if len(table.levels) == 1:
        return
    span = np.ptp(table.weight_bytes, axis=1).sum()
    for level in table.levels:
        latency = table.latency_s[level]
        for price in _WEIGHT_PRICES if span else ():
            cost = latency + table.weight_bytes * (price * latency.max(axis=1).sum() / span)
            yield from (each.choices for each in _frontiers(cost, losses, families, max_states=_POOL_STATES))


def _without_transitions(table: CostTable, losses: Losses, families: Families) -> Iterator[NDArray[np.uint16]]:
    """Yield schemes whose layers all share one activation format, so that nothing is converted."""
    allowed = sorted({k for family in families for k in family})
    for activations in dict.fromkeys(table.options[k].activations for k in allowed):
        same = [k for k in allowed if table.options[k].activations == activations]
        for cost in (table.bytes, *(table.latency_s[level] for level in table.levels)):
            yield _within(cost, losses, same, _POOL_STATES).choices
