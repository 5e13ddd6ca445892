"""Coordinate descent: the best option of one unit at a time, pass after pass."""

from __future__ import annotations

from aiq.problem import Problem
from aiq.strategies._moves import affordable, check_start, other_options, smoothness, with_option, worth
from aiq.strategy import Findings, Steps
from roofline.errors import InputError


class Coordinate:
    """The coordinate descent of the paper.

    Start with every unit at the baseline. For each unit in turn take the option with the least L while the others are
    held; repeat whole passes until one changes nothing. Under a bound on the accuracy loss the target's cost takes the
    place of L, over the options that stay within every limit: the first units spend the allowance.

    A unit keeps its option unless another is strictly better; others of equal worth are told apart by the lower
    divergence from the float model where the oracle gives one, then by order. Options that break a limit on cost are
    not evaluated.

    Args:
        passes: Most passes, at least 1. The paper sets no limit; one is needed to state the most evaluations.

    Source: Singh, Rajan and Jain, Arithmetic-Intensity-Aware Quantization, section I-B.
    """

    name = "coordinate"

    def __init__(self, passes: int = 20) -> None:
        if passes < 1:
            raise InputError(f"coordinate: passes must be at least 1, got {passes}. Next: give more, or leave it out.")
        self.passes = passes

    def steps(self, problem: Problem) -> Steps:
        """Return the generator of a search.

        Raises:
            InputError: The baseline breaks a limit on cost.
        """
        check_start(problem, self.name)
        return self._steps(problem)

    def _steps(self, problem: Problem) -> Steps:
        choice = problem.space.start
        value = worth(problem, choice, problem.loss(problem.baseline))
        for number in range(1, self.passes + 1):
            before = choice
            for u, unit in enumerate(problem.space.units):
                moves = [with_option(choice, u, k) for k in unit.options if k != choice[u]]
                ranked = []
                for order, fine in enumerate(affordable(problem, moves)):
                    if fine:
                        evaluation = yield moves[order]
                        found = worth(problem, moves[order], problem.loss(evaluation))
                        ranked.append((found, smoothness(evaluation), order))
                if ranked and min(ranked)[0] < value:
                    value, _, best = min(ranked)
                    choice = moves[best]
            if choice == before:
                return Findings(note=f"coordinate descent: pass {number} changed nothing")
        return Findings(note=f"coordinate descent: the last of {self.passes} passes still changed something")

    def most_evaluations(self, problem: Problem) -> int:
        """Return 1 + passes · the number of other options of all units, or the size of the space if that is less."""
        each = sum(len(options) for options in other_options(problem.space))
        return min(1 + self.passes * each, problem.space.size)
