"""Greedy search: quantize the unit that gains most, one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aiq.problem import Problem
from aiq.space import Choice
from aiq.strategies._moves import affordable, check_start, other_options, smoothness, with_option, worth
from aiq.strategy import Findings, Steps


class Greedy:
    """The greedy search of the paper, to the letter, and its natural reading under a bound on the loss.

    *Minimising L*: start with every unit at the baseline. Each iteration tries every other option of every unit that is
    not yet quantized and takes the move with the most negative ΔL; it ends when none is negative, and after as many
    iterations as there are units.

    *Under a bound on the accuracy loss* there is no λ: each iteration takes, of the moves that save cost and stay
    within every limit, the one that saves the most cost for each unit of loss it adds (moves that add none come first,
    the largest saving before the others). A unit may be moved again, to each of its options once, since small first
    steps are the best rated ones and would otherwise use up every unit.

    Moves of equal rank are told apart by the lower divergence from the float model where the oracle gives one, then by
    the order of the units and of their options. Moves that break a limit on cost are not evaluated.

    Source: Singh, Rajan and Jain, Arithmetic-Intensity-Aware Quantization, section I-B; for the bound: Kellerer,
    Pferschy and Pisinger, Knapsack Problems, 2004, chapter 11 (greedy by incremental efficiency).
    """

    name = "greedy"

    def steps(self, problem: Problem) -> Steps:
        """Return the generator of a search.

        Raises:
            InputError: The baseline breaks a limit on cost.
        """
        check_start(problem, self.name)
        return self._steps(problem)

    def _steps(self, problem: Problem) -> Steps:
        bounded = problem.constraints.bounds_loss
        choice, loss = problem.space.start, problem.loss(problem.baseline)
        value = worth(problem, choice, loss)
        free = [(u, k) for u, options in enumerate(other_options(problem.space)) for k in options]
        path = [choice]
        while free:
            moves = [with_option(choice, u, k) for u, k in free]
            fine = problem.values(moves, [0.0] * len(moves)) < value if bounded else affordable(problem, moves)
            ranked = []
            for order, move in enumerate(moves):
                if fine[order]:
                    evaluation = yield move
                    new_loss = problem.loss(evaluation)
                    new_value = worth(problem, move, new_loss)
                    change, added = new_value - value, new_loss - loss
                    if change < 0:
                        rank = (change / added if added > 0 else -math.inf, change) if bounded else (change,)
                        ranked.append((*rank, smoothness(evaluation), order, new_value, new_loss))
            if not ranked:
                what = "saves cost within the limits" if bounded else "lowers L"
                return _ended(f"no further move {what}", path)
            *_, order, value, loss = min(ranked)
            choice = moves[order]
            path.append(choice)
            unit = free[order][0]
            free = [other for place, other in enumerate(free) if place != order and (bounded or other[0] != unit)]
        return _ended("no move is left", path)

    def most_evaluations(self, problem: Problem) -> int:
        """Return 1 + the sum over iterations of the moves left, which is greatest when units with few options go first.

        With U units of n other options each that is U(U + 1)n / 2 + 1; under a bound on the loss, N(N + 1) / 2 + 1 with
        N the number of other options of all units.
        """
        counts = sorted(len(options) for options in other_options(problem.space))
        if problem.constraints.bounds_loss:
            counts = [1] * sum(counts)
        most = 1 + sum(place * count for place, count in enumerate(counts, 1))
        return min(most, problem.space.size)


def _ended(reason: str, path: Sequence[Choice]) -> Findings:
    return Findings(note=f"greedy: {reason}; moves made: {len(path) - 1}", path=tuple(path))
