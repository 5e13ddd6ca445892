"""What a search solves: a space, an objective, constraints, and the metric that losses are measured in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from aiq.objective import Objective
from aiq.oracle import Evaluation, Metric
from aiq.racing import LossLimit, allowance
from aiq.space import Choice, Space
from roofline.errors import InputError
from roofline.table import SchemeScores

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Constraints:
    """Limits that a scheme must respect, in any mix; ``None`` sets none.

    With ``max_loss`` the search maximises the objective's target under the constraints and λ has no part in it; without
    it the search minimises L under the others.

    Attributes:
        max_loss: Largest accuracy loss, in the metric's unit (percentage points for accuracy).
        max_relative_loss: Largest accuracy loss as a fraction of the baseline's value.
        max_weight_bytes: Most bytes of weights.
        min_intensity: Least arithmetic intensity, FLOP/byte.
        max_latency_s: Longest predicted time of a pass, seconds.
    """

    max_loss: float | None = None
    max_relative_loss: float | None = None
    max_weight_bytes: float | None = None
    min_intensity: float | None = None
    max_latency_s: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not 0 <= value < np.inf:
                raise InputError(f"{name} must be a number of at least 0, got {value}. Next: give one.")

    @property
    def bounds_loss(self) -> bool:
        """Whether the accuracy loss is bounded."""
        return self.max_loss is not None or self.max_relative_loss is not None

    @property
    def loss_limit(self) -> LossLimit:
        """Both limits on the accuracy loss."""
        return LossLimit(self.max_loss, self.max_relative_loss)

    def affordable(self, scores: SchemeScores) -> NDArray[np.bool_]:
        """Tell which schemes respect the limits on cost, [S]."""
        fine = np.ones(len(scores.bytes), dtype=bool)
        if self.max_weight_bytes is not None:
            fine &= scores.weight_bytes <= self.max_weight_bytes
        if self.min_intensity is not None:
            fine &= scores.arithmetic_intensity >= self.min_intensity
        if self.max_latency_s is not None:
            fine &= scores.latency_s <= self.max_latency_s
        return fine


@dataclass(frozen=True, eq=False)
class Problem:
    """A space, an objective and constraints, with the measured baseline.

    Attributes:
        space: What may be chosen.
        objective: What is minimised.
        constraints: What must hold.
        metric: What losses are measured in.
        baseline: The baseline's evaluation.
    """

    space: Space
    objective: Objective
    constraints: Constraints
    metric: Metric
    baseline: Evaluation

    def drop(self, evaluation: Evaluation) -> float:
        """Return how much worse than the baseline it is on the same examples, in the metric's unit; below 0 a gain."""
        return self.metric.drop(self.baseline.first(evaluation.n).value, evaluation.value)

    def loss(self, evaluation: Evaluation) -> float:
        """Return the accuracy loss, at least 0: doing better than the baseline is noise and buys nothing."""
        return max(self.drop(evaluation), 0.0)

    @cached_property
    def max_loss(self) -> float:
        """Largest accuracy loss that the constraints allow; infinity where they set none."""
        return self.constraints.loss_limit.of(self.metric, self.baseline.value)

    def allows(self, losses: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which accuracy losses the constraints allow, [S]; 100 · (0.92 − 0.91), a hair above 1, counts as 1."""
        return losses <= allowance(self.max_loss)

    def affordable(self, choices: Sequence[Choice] | NDArray[np.integer]) -> NDArray[np.bool_]:
        """Tell which choices respect the limits on cost and run as they are written, [S]: no evaluation is needed."""
        return self.constraints.affordable(self.space.score(choices)) & self.space.runnable(choices)

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The merit of the baseline and the greatest of any scheme in the space (an upper bound on it for latency)."""
        space, goal = self.space, self.objective
        start = float(self.merits([space.start])[0])
        costs = self._layer_costs()
        floor = sum(
            min(float(costs[list(unit.layers), k].sum()) for k in unit.options) for unit in space.units
        ) + self._fixed(costs)
        best = {"ai": space.table.flops / floor, "latency": 1.0 / floor, "memory": 1.0 / floor}[goal.target]
        return start, best if best > start * (1 + _ROUNDING) else start

    def _layer_costs(self) -> NDArray[np.float64]:
        """Cost of option k in layer l for the objective's target, [L, K]; a lower one where latency is not additive."""
        table = self.space.table
        target = self.objective.target
        if target == "latency":
            return table.latency_s[table.levels].min(axis=0)
        return table.bytes if target == "ai" else table.weight_bytes

    def _fixed(self, costs: NDArray[np.float64]) -> float:
        chosen = {index for unit in self.space.units for index in unit.layers}
        return float(sum(costs[i, self.space.baseline] for i in range(len(costs)) if i not in chosen))

    def merits(self, choices: Sequence[Choice] | NDArray[np.integer]) -> NDArray[np.float64]:
        """Return what the objective's target maximises, [S]."""
        scores = self.space.score(choices)
        return {
            "ai": scores.arithmetic_intensity,
            "latency": 1.0 / scores.latency_s,
            "memory": 1.0 / scores.weight_bytes,
        }[self.objective.target]

    def costs(self, choices: Sequence[Choice] | NDArray[np.integer]) -> NDArray[np.float64]:
        """Return what the objective's target minimises (bytes moved, seconds, weight bytes), [S]."""
        scores = self.space.score(choices)
        return {"ai": scores.bytes, "latency": scores.latency_s, "memory": scores.weight_bytes}[self.objective.target]

    def values(
        self, choices: Sequence[Choice] | NDArray[np.integer], losses: NDArray[np.float64] | Sequence[float]
    ) -> NDArray[np.float64]:
        """Return what is minimised, [S]: L, or the target's cost where the loss is bounded; infinity if infeasible.

        A scheme that would not run as it is written is infeasible, since its loss is not that of what runs.
        """
        loss = np.asarray(losses, dtype=np.float64)
        fine = self.affordable(choices) & self.allows(loss)
        if self.constraints.bounds_loss:
            found = self.costs(choices)
        else:
            low, high = self.ends
            gains = self.objective.gain(self.merits(choices), baseline=low, best=high)
            found = -self.objective.lam * gains + (1 - self.objective.lam) * loss
        return np.where(fine, found, np.inf)
