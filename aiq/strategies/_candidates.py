"""Schemes worth thinking about, and the exact optimum under additive losses."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from aiq._cases import cases
from aiq._program import SolverLimitError
from aiq.knapsack import InfeasibleError, Knapsack, Solution, frontier, minimise, optimise
from aiq.problem import Problem
from aiq.space import Choice

Choices = NDArray[np.int64]

WHOLE_SPACE = 20_000
_STATES = 2_000
_PRICES = (0.1, 0.3, 1.0, 3.0, 10.0)


def whole_space(problem: Problem) -> Choices | None:
    """Return every affordable choice, [S, U]; ``None`` where there are too many to list."""
    if problem.space.size > WHOLE_SPACE:
        return None
    return _affordable(problem, itertools.product(*(unit.options for unit in problem.space.units)))


def candidates(problem: Problem, losses: NDArray[np.float64], near: Iterable[Choice]) -> Choices:
    """Return affordable choices that may be better than what is known, [S, U].

    The exact optimum under the predicted losses; the frontier of each case under them; where a second resource is
    limited, frontiers with several prices on it; where tensors that change format cost something, frontiers within one
    activation format; and every change of one unit of the choices in ``near``.
    """
    space = problem.space
    found: list[Choices] = []
    with suppress(InfeasibleError, SolverLimitError):
        found.append(np.array([optimum(problem, losses).choice]))
    for case in cases(problem, losses):
        found.append(_frontier(case))
        span = case.costs.max(axis=2).sum(axis=1) - case.costs.min(axis=2).sum(axis=1)
        for r, price in itertools.product(range(1, len(case.costs)), _PRICES):
            if span[r] > 0:
                priced = case.costs[0] + price * span[0] / span[r] * case.costs[r]
                found.append(_frontier(replace(case, costs=priced[None])))
        for formats in dict.fromkeys(option.activations for option in space.options) if case.pairs else ():
            same = np.array([option.activations == formats for option in space.options])
            within = case.allowed & same
            if within.any(axis=1).all():
                found.append(_frontier(replace(case, allowed=within)))
    flips = [
        (*choice[:u], k, *choice[u + 1 :])
        for choice in near
        for u, unit in enumerate(space.units)
        for k in unit.options
    ]
    found.append(np.array(flips, dtype=np.int64).reshape(-1, len(space.units)))
    return _affordable(problem, np.unique(np.concatenate(found), axis=0))


def optimum(problem: Problem, losses: NDArray[np.float64]) -> Solution:
    """Return the choice that is best if losses add over units, with the bound that proves it.

    Args:
        problem: Objective and constraints.
        losses: Loss of option k in unit u, [U, K], at least 0.

    Raises:
        InfeasibleError: No choice meets the constraints.
    """
    goal, table = problem.objective, problem.space.table
    low, high = problem.ends
    work = table.flops if goal.target == "ai" else 1.0

    def curve(cost: float) -> float:
        return -goal.lam * goal.gain(work / cost, baseline=low, best=high)

    found: list[Solution] = []
    failure: InfeasibleError | None = None
    for case in cases(problem, losses):
        try:
            if problem.constraints.bounds_loss:
                found.append(optimise(case, max_loss=problem.max_loss))
            else:
                found.append(minimise(case, curve, 1 - goal.lam))
        except InfeasibleError as error:
            failure = error
    if not found and failure:
        raise failure
    best = min(found, key=lambda solution: solution.value)
    return replace(best, bound=min(solution.bound for solution in found))


def _frontier(case: Knapsack) -> Choices:
    return frontier(case, max_states=_STATES).choices.astype(np.int64)


def _affordable(problem: Problem, choices: Iterable[Choice] | Choices) -> Choices:
    listed = choices if isinstance(choices, np.ndarray) else np.array(list(choices), dtype=np.int64)
    return listed[problem.affordable(listed)]
