"""Random search: schemes drawn uniformly, the least that any other search must beat."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from aiq.problem import Problem
from aiq.space import Choice
from aiq.strategies._moves import affordable
from aiq.strategy import Findings, Steps
from roofline.errors import InputError

_CHUNK = 1024
_FRUITLESS = 200_000


class Random:
    """Evaluates distinct schemes, each drawn uniformly from those that respect the limits on cost.

    Where a runtime computes all floating-point layers in one format, schemes of each are drawn in turn.

    Args:
        count: Schemes to draw beside the baseline, at least 1.
        seed: Seeds the draws.
    """

    name = "random"

    def __init__(self, count: int = 100, seed: int = 0) -> None:
        if count < 1 or seed < 0:
            raise InputError(
                f"random: count must be at least 1 and seed at least 0, got {count} and {seed}. Next: mend them."
            )
        self.count, self.seed = count, seed

    def steps(self, problem: Problem) -> Steps:
        """Yield the schemes in the order in which they are drawn."""
        drawn = 0
        for choice in distinct_choices(problem, self.seed):
            yield choice
            drawn += 1
            if drawn == self.count:
                return Findings(note=f"random: {drawn} schemes were drawn")
        return Findings(note=f"random: only {drawn} schemes within the limits on cost were found")

    def most_evaluations(self, problem: Problem) -> int:
        """Return the count and the baseline, or the size of the space if that is less."""
        return min(self.count + 1, problem.space.size)


def distinct_choices(problem: Problem, seed: int) -> Iterator[Choice]:
    """Draw distinct choices within the limits on cost, the baseline apart, until 200 000 draws find no new one."""
    rng = np.random.default_rng(seed)
    families = [[np.array(own) for own in family] for family in problem.space.families]
    known = {problem.space.start}
    fruitless = 0
    while fruitless < _FRUITLESS and len(known) < problem.space.size:
        of_each = [np.column_stack([own[rng.integers(len(own), size=_CHUNK)] for own in f]) for f in families]
        drawn = np.stack(of_each, axis=1).reshape(-1, len(problem.space.units))
        before = len(known)
        for choice in map(tuple, drawn[affordable(problem, drawn)].tolist()):
            if choice not in known:
                known.add(choice)
                yield choice
        fruitless = 0 if len(known) > before else fruitless + len(drawn)
