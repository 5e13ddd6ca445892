"""What a search returns: the schemes that matter, what each split says of them, and what else would have done."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aiq._driver import INTERRUPTED, Run, uniform_choices
from aiq._search_points import Figures, Point, count_flips, frontier_choices, nearest_miss
from aiq.oracle import Evaluation, fingerprint_digest
from aiq.problem import Problem
from aiq.space import Choice

if TYPE_CHECKING:
    from aiq._search import SearchSettings
    from aiq.why import Why
    from hardware_specs import HardwareSpec
    from roofline import GraphEstimate

SEARCH_SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class Reported:
    """What the report split says.

    Attributes:
        split: Its name.
        evaluations: By choice, the baseline first.
        fingerprint: Of the oracle that measured them.
        stopped: Why some are missing, where some are.
    """

    split: str
    evaluations: Mapping[Choice, Evaluation] = field(repr=False)
    fingerprint: Mapping[str, str] = field(repr=False)
    stopped: str | None = None


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The outcome of a search.

    Attributes:
        model: The model's name.
        hardware: The machine.
        settings: What was asked for.
        strategy: Name of the strategy.
        run: Everything measured, and how the search ended.
        estimate: The estimate of the float model, with its assumptions.
        fingerprint: Of the oracle that measured the search split.
        reported: What the report split says; ``None`` where it was not asked.
        why: Reasons by unit for the best scheme; empty without a model of accuracy.
        shared: One sentence for each two splits of the user's data that share examples.
        seconds: Wall-clock seconds in all.
    """

    model: str
    hardware: HardwareSpec = field(repr=False)
    settings: SearchSettings = field(repr=False)
    strategy: str
    run: Run = field(repr=False)
    estimate: GraphEstimate = field(repr=False)
    fingerprint: Mapping[str, str] = field(repr=False)
    reported: Reported | None = field(repr=False)
    why: tuple[Why, ...] = field(repr=False)
    shared: tuple[str, ...] = field(repr=False)
    seconds: float

    @property
    def problem(self) -> Problem:
        """What was searched."""
        return self.run.problem

    @property
    def oracle(self) -> str:
        """Name of the oracle."""
        return self.settings.oracle_name

    @property
    def stopped(self) -> str | None:
        """Why the search ended before its own end, or its report did."""
        return self.run.stopped or (self.reported.stopped if self.reported else None)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.stopped == INTERRUPTED

    @property
    def failed(self) -> bool:
        """Whether an error ended it."""
        report_stopped = self.reported is not None and self.reported.stopped is not None
        return self.run.error is not None or (report_stopped and not self.interrupted)

    @cached_property
    def raced(self) -> tuple[Evaluation, ...]:
        """Evaluations that racing cut short."""
        most = self.problem.baseline.n if self.settings.race else 0
        return tuple(found for found in self.run.evaluations.values() if found.n < most)

    @property
    def saved_work(self) -> float:
        """Arithmetic that racing saved: the rest of each evaluation at the cost of its part, in whole evaluations."""
        return sum(found.work * (self.problem.baseline.n / found.n - 1) for found in self.raced)

    @cached_property
    def baseline(self) -> Point:
        """The float model."""
        return self.point(self.problem.space.start)

    @cached_property
    def best(self) -> Point | None:
        """The best measured scheme; ``None`` where none meets the constraints."""
        return None if self.run.best is None else self.point(self.run.best)

    @cached_property
    def frontier(self) -> tuple[Point, ...]:
        """Measured schemes that no other beats in both the target's cost and loss, by increasing cost."""
        return tuple(self.point(choice) for choice in self._supported)

    @cached_property
    def uniform(self) -> dict[str, Point]:
        """Measured schemes of one format for all units, by its label; the float model is not one of them."""
        found = uniform_choices(self.problem.space).items()
        start = self.problem.space.start
        return {label: self.point(c) for label, c in found if c in self.run.index and c != start}

    @cached_property
    def _supported(self) -> dict[Choice, bool]:
        return frontier_choices(self.run)

    @property
    def bound(self) -> float | None:
        """What no scheme of the space is below, under the strategy's model of accuracy."""
        found = self.run.findings.bound if self.run.findings else None
        return found if found is not None and math.isfinite(found) else None

    @property
    def gap(self) -> float | None:
        """Relative excess of the best measured objective over the bound, (objective − bound) / \\|objective\\|."""
        if self.best is None or self.bound is None or not self.best.objective:
            return None
        return max((self.best.objective - self.bound) / abs(self.best.objective), 0.0)

    def point(self, choice: Choice) -> Point:
        """Return a measured choice with everything known of it."""
        run, problem = self.run, self.problem
        index = run.index[choice]
        scores = problem.space.score([choice])
        found, metric = run.evaluations[choice], problem.metric
        value = float(run.values[index])
        return Point(
            choice,
            problem.space.label(choice),
            problem.space.scheme(choice),
            float(scores.arithmetic_intensity[0]),
            float(scores.bytes[0]),
            float(scores.weight_bytes[0]),
            float(scores.latency_s[0]),
            float(run.losses[index]),
            value if value < math.inf else None,
            Figures.of("search", metric, problem.baseline, found),
            self._reported(choice),
            self._supported.get(choice),
            count_flips(run, choice),
        )

    def _reported(self, choice: Choice) -> Figures | None:
        found = self.reported.evaluations if self.reported else {}
        if self.reported is None or choice not in found:
            return None
        return Figures.of(self.reported.split, self.problem.metric, found[self.problem.space.start], found[choice])

    def miss(self) -> str:
        """Say which measured scheme comes nearest to the constraints, and by what it misses them."""
        return nearest_miss(self.run)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data in SI units: the JSON of ``aiq search``."""
        run, problem, metric = self.run, self.problem, self.problem.metric
        goal, (low, high) = problem.objective, problem.ends
        best = None
        if self.best is not None:
            best = {**self.best.to_dict(metric), "bound": self.bound, "gap": self.gap}
            best["why"] = [asdict(reason) for reason in self.why]
        return {
            "schema_version": SEARCH_SCHEMA_VERSION,
            "model": self.model,
            "hardware": self.hardware.name,
            "rates": self.hardware.rates_option,
            "batch": self.estimate.batch,
            "traffic": self.estimate.traffic,
            "metric": asdict(metric),
            "strategy": self.strategy,
            "oracle": self.oracle,
            "objective": {
                "target": goal.target,
                "lambda": None if problem.constraints.bounds_loss else goal.lam,
                "normalise": goal.normalise,
                "constraints": {k: v for k, v in asdict(problem.constraints).items() if v is not None},
                "baseline": low,
                "best": high,
            },
            "space": {"units": len(problem.space.units), "schemes": problem.space.size},
            "evaluations": len(run.evaluations),
            "cache_hits": len(run.cached),
            "raced": len(self.raced),
            "report_evaluations": len(self.reported.evaluations) if self.reported else 0,
            "seconds": self.seconds,
            "work": run.work,
            "total_work": run.total_work,
            "saved_work": self.saved_work,
            "baseline": self.baseline.to_dict(metric),
            "best": best,
            "miss": self.miss() if best is None else None,
            "frontier": [point.to_dict(metric) for point in self.frontier],
            "uniform": {label: point.to_dict(metric) for label, point in self.uniform.items()},
            "stopped": self.stopped,
            "findings": run.findings.note if run.findings else None,
            "assumptions": [*self.shared, *self.estimate.assumptions],
            "provenance": self._provenance(),
        }

    def _provenance(self) -> dict[str, Any]:
        from importlib.metadata import version

        splits = {"search": (self.fingerprint, self.problem.baseline.n)}
        if self.reported:
            n = max((found.n for found in self.reported.evaluations.values()), default=0)
            splits[self.reported.split] = (self.reported.fingerprint, n)
        return {
            "aiq": version("aiq-roofline"),
            "oracle": dict(self.fingerprint),
            "splits": {
                name: {
                    "n": n,
                    "data": found.get("data"),
                    "digest": found.get("data_digest"),
                    "fingerprint": fingerprint_digest(found),
                }
                for name, (found, n) in splits.items()
            },
        }

    def __repr__(self) -> str:
        best = self.best.label if self.best else "none meets the constraints"
        count = len(self.run.evaluations)
        return f"SearchResult({self.model!r} on {self.hardware.name}: best {best}, {count} evaluations)"
