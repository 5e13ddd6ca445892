"""A made-up accuracy of every scheme of a real network: what strategies are tried on without a real evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from aiq.objective import Objective
from aiq.oracle import Evaluation, Metric
from aiq.problem import Constraints, Problem
from aiq.space import Choice, Space, make_space
from roofline import CostTable, LayerPrecision

FORMATS = ("keep", "w8", "w4")
_EXAMPLES = 1000
_NOISE = {"w8": 0.05, "w4": 0.6}


@dataclass(frozen=True, eq=False)
class Landscape:
    """A problem whose every scheme has a known accuracy.

    Attributes:
        problem: What a strategy is given.
        margins: By how much the float model gets each example right (below 0: wrong), [N].
        shifts: Change of the margins by option k of unit u, [U, K, N]; 0 for the baseline.
    """

    problem: Problem
    margins: NDArray[np.float64] = field(repr=False)
    shifts: NDArray[np.float64] = field(repr=False)

    def measure(self, choice: Choice) -> Evaluation:
        """Return the evaluation of a choice: margins shift by each unit's share and, once more, where neighbours do."""
        each = self.shifts[np.arange(len(choice)), list(choice)]
        shift = each.sum(axis=0) + 0.5 * np.abs(each[:-1] * each[1:]).sum(axis=0)
        right = self.margins > shift
        value = float(right.mean())
        stderr = float(np.sqrt(value * (1 - value) / len(right)))
        return Evaluation(value, stderr, len(right), right, divergence=float((shift**2).mean() / 2))


def made_up_landscape(
    objective: Objective | None = None, constraints: Constraints | None = None, *, groups: int = 3, seed: int = 0
) -> Landscape:
    """Return a landscape over ``digits_cnn`` on a T4, its weights as they are, in 8 and in 4 bits.

    Args:
        objective: What is minimised; the default one if ``None``.
        constraints: Limits; none if ``None``.
        groups: Units that the layers are joined into.
        seed: Seeds the made-up accuracy.
    """
    space = make_space(_table(), groups=groups)
    margins, shifts = _margins(space, seed)
    value = float((margins > 0).mean())
    baseline = Evaluation(
        value, float(np.sqrt(value * (1 - value) / _EXAMPLES)), _EXAMPLES, margins > 0, divergence=0.0
    )
    metric = Metric("accuracy", "points", higher_is_better=True, scale=100.0)
    problem = Problem(space, objective or Objective(), constraints or Constraints(), metric, baseline)
    return Landscape(problem, margins, shifts)


@cache
def _table() -> CostTable:
    import hardware_specs
    from aiq._model import load_model

    options = [LayerPrecision.parse(text) for text in FORMATS]
    return CostTable(load_model("digits_cnn").trace(), hardware_specs.load("t4"), options, traffic="paper")


def _margins(space: Space, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    margins = rng.normal(2.5, 1.5, _EXAMPLES)
    sensitivity = rng.uniform(0.3, 1.0, len(space.units))
    noise = np.array([_NOISE.get(option.label, 0.0) for option in space.options])
    directions = rng.normal(size=(len(space.units), len(noise), _EXAMPLES))
    return margins, sensitivity[:, None, None] * noise[:, None] * directions
