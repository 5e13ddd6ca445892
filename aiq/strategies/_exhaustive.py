"""Exhaustive search: every scheme, for ground truth on small spaces."""

from __future__ import annotations

from itertools import compress, islice, product

from aiq.problem import Problem
from aiq.strategies._moves import affordable
from aiq.strategy import Findings, Steps
from roofline.errors import InputError

_CHUNK = 4096


class Exhaustive:
    """Evaluates every scheme that respects the limits on cost.

    The last unit changes fastest, so that consecutive schemes share the longest beginning of the network, which an
    oracle that reuses activations need not run again.

    Args:
        limit: Largest number of schemes that is accepted.
    """

    name = "exhaustive"

    def __init__(self, limit: int = 1_000_000) -> None:
        self.limit = limit

    def steps(self, problem: Problem) -> Steps:
        """Return the generator of a search.

        Raises:
            InputError: The space holds more schemes than the limit.
        """
        self._check(problem)
        return self._steps(problem)

    def _steps(self, problem: Problem) -> Steps:
        every = product(*(unit.options for unit in problem.space.units))
        count = 0
        while chunk := list(islice(every, _CHUNK)):
            for choice in compress(chunk, affordable(problem, chunk)):
                yield choice
                count += 1
        return Findings(note=f"exhaustive: all {count} schemes within the limits on cost were evaluated")

    def most_evaluations(self, problem: Problem) -> int:
        """Return the size of the space.

        Raises:
            InputError: It is more than the limit.
        """
        self._check(problem)
        return problem.space.size

    def _check(self, problem: Problem) -> None:
        if problem.space.size > self.limit:
            raise InputError(
                f"exhaustive: {len(problem.space.units)} units make {problem.space.size:,} schemes, the limit is "
                f"{self.limit:,}. Next: join layers into fewer units, drop formats, or choose exact."
            )
