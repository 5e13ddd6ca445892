"""Measured schemes: what a split says of each, which are on the frontier, and which comes nearest to the limits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from aiq._driver import Run
from aiq.frontier import lower_hull, non_dominated
from aiq.oracle import Evaluation, Metric
from aiq.space import Choice, Space
from aiq.stats import paired_difference, wilson_interval
from roofline.units import number, si

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from roofline import Scheme

_Z95 = 1.959963984540054
_SIDES = {1: "most", -1: "least"}


@dataclass(frozen=True, slots=True)
class Figures:
    """What one split says of one scheme; intervals are 95 % ones, ``None`` where the oracle's answers allow none.

    Attributes:
        split: Name of the split.
        value: The metric.
        n: Examples; where racing cut an evaluation short, those that were run.
        interval: Of the metric: Wilson's where outcomes are right or wrong, else from the standard error.
        drop: How much worse than the float model on the same examples, in the metric's unit; negative where better.
        drop_interval: Of the drop, paired example by example.
    """

    split: str
    value: float
    n: int
    interval: tuple[float, float] | None
    drop: float
    drop_interval: tuple[float, float] | None

    @classmethod
    def of(cls, split: str, metric: Metric, baseline: Evaluation, found: Evaluation) -> Figures:
        """Compare an evaluation with the float model's on the same split, over the examples that both have run."""
        shared = baseline.first(found.n)
        drop = metric.drop(shared.value, found.value)
        paired = None if found is baseline else _drop_interval(metric, shared, found)
        return cls(split, found.value, found.n, _interval(found), drop, paired)

    def to_dict(self, metric: Metric, prefix: str = "") -> dict[str, Any]:
        """Return plain data, the value under the metric's name."""
        return {
            f"{prefix}{metric.name}": self.value,
            f"{prefix}n": self.n,
            f"{prefix}interval": self.interval,
            f"{prefix}paired_drop": {"value": self.drop, "interval": self.drop_interval},
        }


def _interval(found: Evaluation) -> tuple[float, float] | None:
    if found.outcomes is not None and found.outcomes.dtype == np.bool_ and found.n:
        return wilson_interval(int(found.outcomes.sum()), found.n)
    if found.stderr is None:
        return None
    return found.value - _Z95 * found.stderr, found.value + _Z95 * found.stderr


def _drop_interval(metric: Metric, baseline: Evaluation, found: Evaluation) -> tuple[float, float] | None:
    first, second = baseline.outcomes, found.outcomes
    if first is None or second is None or len(first) != len(second) or len(first) < 2:
        return None
    if not metric.higher_is_better:
        first, second = second, first
    difference = paired_difference(first, second)
    return metric.scale * difference.low, metric.scale * difference.high


@dataclass(frozen=True, slots=True)
class Flips:
    """Schemes that differ in one unit.

    Attributes:
        total: How many there are.
        measured: How many were measured.
        settled: How many of the others cannot be better whatever their accuracy: their cost alone rules them out.
        better: How many of those measured are better: by the objective than the best scheme, and than any other at
            less cost without more loss.
    """

    total: int
    measured: int
    settled: int
    better: int

    @property
    def open(self) -> int:
        """How many may be better, since they were not measured and cost does not rule them out."""
        return self.total - self.measured - self.settled


@dataclass(frozen=True, eq=False)
class Point:
    """A measured scheme.

    Attributes:
        choice: Options by unit.
        label: How many layers have which format.
        scheme: One rule for each layer.
        arithmetic_intensity: FLOP/byte.
        bytes: Bytes moved.
        weight_bytes: Bytes that the weights take.
        latency_s: Predicted seconds of a pass.
        loss: Accuracy loss on the search split, at least 0, in the metric's unit.
        objective: What was minimised; ``None`` where it breaks a constraint.
        search: What the search split says.
        report: What the report split says, where it was asked.
        supported: Whether it is on the lower-left convex hull of cost and loss, outside of which no sweep over λ finds
            anything; ``None`` off the frontier.
        flips: Its one-unit neighbours.
    """

    choice: Choice
    label: str
    scheme: Scheme = field(repr=False)
    arithmetic_intensity: float
    bytes: float
    weight_bytes: float
    latency_s: float
    loss: float
    objective: float | None
    search: Figures
    report: Figures | None
    supported: bool | None
    flips: Flips

    @property
    def figures(self) -> Figures:
        """Those to quote: of the report split where there are some."""
        return self.report or self.search

    def to_dict(self, metric: Metric) -> dict[str, Any]:
        """Return plain data in SI units."""
        return {
            "label": self.label,
            "scheme": self.scheme.to_dict(),
            "scheme_digest": self.scheme.digest(),
            "split": self.figures.split,
            **self.figures.to_dict(metric),
            **self.search.to_dict(metric, "search_"),
            "arithmetic_intensity": self.arithmetic_intensity,
            "bytes": self.bytes,
            "weight_bytes": self.weight_bytes,
            "latency_s": self.latency_s,
            "loss": self.loss,
            "objective": self.objective,
            "supported": self.supported,
            "one_flip": asdict(self.flips),
        }


def frontier_choices(run: Run) -> dict[Choice, bool]:
    """Return the measured choices that no other beats in cost and loss, and whether each is on the convex hull.

    Those that would not run as they are written are left out.
    """
    choices = list(run.evaluations)
    fine = np.flatnonzero(run.problem.space.runnable(choices))
    costs = run.problem.costs(choices)
    kept = fine[non_dominated(costs[fine], run.losses[fine])]
    hull = lower_hull(costs[kept], run.losses[kept])
    return {choices[index]: bool(mark) for index, mark in zip(kept, hull, strict=True)}


def single_flips(space: Space, choice: Choice) -> list[Choice]:
    """Return every choice that differs in one unit."""
    return [
        (*choice[:u], k, *choice[u + 1 :]) for u, unit in enumerate(space.units) for k in unit.options if k != choice[u]
    ]


def count_flips(run: Run, choice: Choice) -> Flips:
    """Count the schemes that differ in one unit from a measured one, and what is known of them."""
    problem, own = run.problem, run.index[choice]

    def better(others: list[Choice], losses: NDArray[np.float64]) -> NDArray[np.bool_]:
        if choice == run.best:
            return problem.values(others, losses) < run.values[own]
        cheaper = problem.space.runnable(others) & (problem.costs(others) < problem.costs([choice]))
        return cheaper & (losses <= run.losses[own])

    neighbours = single_flips(problem.space, choice)
    measured = [other for other in neighbours if other in run.index]
    others = [other for other in neighbours if other not in run.index]
    found = better(measured, run.losses[[run.index[other] for other in measured]])
    settled = ~better(others, np.zeros(len(others)))
    return Flips(len(neighbours), len(measured), int(settled.sum()), int(found.sum()))


def nearest_miss(run: Run) -> str:
    """Say which measured scheme comes nearest to the constraints, by the sum of its relative excesses."""
    problem, limits = run.problem, run.problem.constraints
    choices = list(run.evaluations)
    runnable = problem.space.runnable(choices)
    scores = problem.space.score(choices)
    losses = np.where(problem.allows(run.losses), 0.0, run.losses)
    most_loss = problem.max_loss if limits.bounds_loss else None
    checks = [
        (losses, most_loss, 1, lambda v: f"{number(v)} {problem.metric.unit}", " of loss"),
        (scores.weight_bytes, limits.max_weight_bytes, 1, lambda v: si(v, "B"), " of weights"),
        (scores.latency_s, limits.max_latency_s, 1, lambda v: si(v, "s"), " a pass"),
        (scores.arithmetic_intensity, limits.min_intensity, -1, lambda v: f"{number(v)} FLOP/byte", ""),
    ]
    excess = [
        (
            np.maximum(sign * (found - limit), 0.0) / (limit or 1.0),
            found,
            f" (at {_SIDES[sign]} {show(limit)})",
            show,
            what,
        )
        for found, limit, sign, show, what in checks
        if limit is not None
    ]
    nearest = int(np.argmin(np.where(runnable, sum(over for over, *_ in excess), np.inf)))
    missed = [
        f"{show(found[nearest])}{what}{allowed}" for over, found, allowed, show, what in excess if over[nearest] > 0
    ]
    return (
        f"no measured scheme meets the constraints: the nearest, {problem.space.label(choices[nearest])}, "
        f"has {' and '.join(missed)}. Next: loosen a limit, add formats, or evaluate more."
    )
