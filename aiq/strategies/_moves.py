"""What the searches share: changing one unit of a choice, leaving out what costs too much, and breaking ties."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aiq.oracle import Evaluation
from aiq.problem import Problem
from aiq.space import Choice, Space
from roofline.errors import InputError


def other_options(space: Space) -> list[tuple[int, ...]]:
    """Return, for each unit, the options apart from the baseline, in order."""
    return [tuple(k for k in unit.options if k != space.baseline) for unit in space.units]


def with_option(choice: Choice, unit: int, option: int) -> Choice:
    """Return the choice with one unit's option replaced."""
    return (*choice[:unit], option, *choice[unit + 1 :])


def affordable(problem: Problem, choices: Sequence[Choice] | NDArray[np.integer]) -> NDArray[np.bool_]:
    """Tell which choices respect the limits on cost, [S] (see :meth:`aiq.problem.Problem.affordable`)."""
    return problem.affordable(choices)


def worth(problem: Problem, choice: Choice, loss: float) -> float:
    """Return what is minimised for one choice whose accuracy loss is known."""
    return float(problem.values([choice], [loss])[0])


def smoothness(evaluation: Evaluation) -> float:
    """Return what ranks choices of equal worth: the divergence from the float model; where unknown, the largest."""
    return math.inf if evaluation.divergence is None else evaluation.divergence


def check_start(problem: Problem, name: str) -> None:
    """Refuse a search that walks from the baseline where the baseline itself breaks a limit on cost.

    Raises:
        InputError: It does.
    """
    if not affordable(problem, [problem.space.start])[0]:
        raise InputError(
            f"{name} starts from the unquantized model, which breaks a limit on memory, intensity or latency, so none "
            "of its moves counts as a gain. Next: choose exact, nsga2, random or exhaustive."
        )
