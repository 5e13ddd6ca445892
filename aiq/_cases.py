"""A search problem as knapsacks: what units and options cost, and the limits on it."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from aiq.knapsack import Knapsack, Pair, make
from aiq.problem import Problem
from aiq.space import Choice, Space

Values = NDArray[np.float64]


def option_mask(space: Space) -> NDArray[np.bool_]:
    """Return which options are distinct ones of a unit, [U, K]."""
    mask = np.zeros((len(space.units), len(space.options)), dtype=bool)
    for row, unit in zip(mask, space.units, strict=True):
        row[list(unit.options)] = True
    return mask


def family_masks(space: Space) -> list[NDArray[np.bool_]]:
    """Return :func:`option_mask` for each family of options that one scheme may hold together, [U, K] each."""
    columns = np.arange(len(space.options))
    return [np.stack([np.isin(columns, options) for options in family]) for family in space.families]


def unit_costs(problem: Problem, choice: Choice) -> Values:
    """Return each unit's share of what the target minimises by option, [U, K].

    Weights are kept where those of ``choice`` are. Transitions between formats belong to no unit and are left out.
    """
    table = problem.space.table
    if problem.objective.target == "latency":
        weights = float(problem.space.score([choice]).weight_bytes[0])
        return _by_unit(problem.space, table.latency_s[table.weight_level(weights)])
    return _by_unit(problem.space, table.bytes if problem.objective.target == "ai" else table.weight_bytes)


def cases(problem: Problem, losses: Values) -> list[Knapsack]:
    """Return knapsacks whose best solution is the problem's: one for each memory level that may keep the weights.

    Where a runtime computes all floating-point layers in one format, there is one for each level and float: a scheme of
    several would have an accuracy that nobody simulated, and is a solution of none.

    The first resource is what the target minimises, the others what the constraints limit. Latency depends on the
    memory level that keeps the weights, which depends on their size: each case takes the latencies of one level and
    limits the weights to what it holds. A scheme that an inner level would hold is a solution of the outer level's
    case too, at a latency no lower than its own, so that the least over the cases is right. The cost of layers that are
    in no unit is part of the first unit's.

    Args:
        problem: Space, objective and constraints.
        losses: Loss of option k in unit u, [U, K], at least 0; those that are not a unit's options do not matter.
    """
    space, limits = problem.space, problem.constraints
    table, timed = space.table, problem.objective.target == "latency" or limits.max_latency_s is not None
    levels = table.levels if timed else table.levels[:1]
    found = []
    for level, mask in itertools.product(levels, family_masks(space)):
        costs = {"ai": table.bytes, "memory": table.weight_bytes, "latency": table.latency_s[level]}
        held = table.most_weight_bytes(level) if timed else np.inf
        budgets = {
            "ai": table.flops / limits.min_intensity if limits.min_intensity else np.inf,
            "memory": min(held, np.inf if limits.max_weight_bytes is None else limits.max_weight_bytes),
            "latency": np.inf if limits.max_latency_s is None else limits.max_latency_s,
        }
        target = problem.objective.target
        names = [target, *(name for name in costs if name != target and np.isfinite(budgets[name]))]
        per_unit = np.stack([_with_fixed(space, costs[name]) for name in names])
        pairs: list[Pair] = []
        if table.has_transitions:
            pairs = _add_transitions(space, names, per_unit, mask)
        found.append(make(per_unit, losses, [budgets[name] for name in names], allowed=mask, pairs=pairs))
    return found


def _by_unit(space: Space, costs: Values) -> Values:
    return np.stack([costs[list(unit.layers)].sum(axis=0) for unit in space.units])


def _with_fixed(space: Space, costs: Values) -> Values:
    chosen = [index for unit in space.units for index in unit.layers]
    found = _by_unit(space, costs)
    found[0] += np.delete(costs[:, space.baseline], chosen).sum()
    return found


def _add_transitions(space: Space, names: list[str], per_unit: Values, mask: NDArray[np.bool_]) -> list[Pair]:
    """Add transitions within a unit to its own costs; return those between allowed options of two units as pairs."""
    owner = {index: u for u, unit in enumerate(space.units) for index in unit.layers}
    pairs = []
    for a, b, moved, seconds in space.table.transitions:
        by_name = {"ai": moved, "memory": np.zeros_like(moved), "latency": seconds}
        costs = np.stack([by_name[name] for name in names])
        first, second = owner.get(a), owner.get(b)
        if first is None and second is None:
            continue  # both ends are at the baseline: nothing changes format
        if first is None or second is None or first == second:
            column = np.arange(costs.shape[1])
            rows = np.full_like(column, space.baseline)
            ends = (column, column) if first == second else (rows, column) if first is None else (column, rows)
            per_unit[:, second if first is None else first] += costs[:, ends[0], ends[1]]
        else:
            pairs += [
                Pair(first, k, second, m, 0.0, tuple(costs[:, k, m].tolist()))
                for k in np.flatnonzero(mask[first]).tolist()
                for m in np.flatnonzero(mask[second]).tolist()
                if costs[:, k, m].any()
            ]
    return pairs
