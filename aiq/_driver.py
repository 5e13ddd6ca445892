"""The driver of searches: it owns the oracle, the budget, progress and Ctrl-C; a strategy says what to measure next."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiq._callable import reason
from aiq.cache import CacheWriteError
from aiq.objective import Objective
from aiq.oracle import Evaluation, Oracle
from aiq.problem import Constraints, Problem
from aiq.space import Choice, Space
from aiq.strategy import Findings, Strategy
from roofline.errors import AIQError, InputError

INTERRUPTED = "interrupted by Ctrl-C"


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a search may spend; ``None`` sets no limit.

    Attributes:
        evaluations: Most distinct evaluations, at least 1: the baseline and those that the cache answered count, so
            that a resumed search ends exactly where an uninterrupted one ends.
        seconds: Most seconds of this run, above 0; looked at between evaluations.
    """

    evaluations: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.evaluations is not None and self.evaluations < 1:
            raise InputError(f"the budget must be at least 1 evaluation, got {self.evaluations}. Next: raise it.")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise InputError(f"the budget must be a number of seconds above 0, got {self.seconds}. Next: choose one.")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a search stands.

    Attributes:
        evaluations: Distinct evaluations so far, those from the cache included.
        limit: Most that it will take: the budget's or the strategy's own.
        cache_hits: How many the cache answered.
        seconds: Seconds since its start.
        seconds_left: Seconds that it may still take, at the speed so far; ``None`` before anything was measured.
        best: Which formats the best scheme so far has; empty while none meets the constraints.
        best_loss: Its accuracy loss, in the metric's unit.
    """

    evaluations: int
    limit: int
    cache_hits: int
    seconds: float
    seconds_left: float | None
    best: str
    best_loss: float | None


@dataclass(frozen=True, eq=False)
class Run:
    """Everything that a search measured, and how it ended.

    Attributes:
        problem: What was searched, the baseline measured.
        evaluations: Evaluations by choice, in the order they were asked for; the baseline is the first.
        cached: Choices that the cache answered.
        seconds: Wall-clock seconds.
        findings: What the strategy reported; ``None`` where it was cut short.
        stopped: Why it ended before its own end; ``None`` where it did not.
        error: What went wrong, where something did.
    """

    problem: Problem
    evaluations: Mapping[Choice, Evaluation] = field(repr=False)
    cached: frozenset[Choice] = field(repr=False)
    seconds: float
    findings: Findings | None
    stopped: str | None
    error: AIQError | None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.stopped == INTERRUPTED

    @cached_property
    def index(self) -> dict[Choice, int]:
        """Position of each measured choice."""
        return {choice: position for position, choice in enumerate(self.evaluations)}

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """Accuracy loss of each evaluation, in the metric's unit, [E]."""
        return np.array([self.problem.loss(found) for found in self.evaluations.values()])

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """What is minimised, of each evaluation; infinity where a constraint is broken, [E]."""
        return self.problem.values(list(self.evaluations), self.losses)

    @cached_property
    def best(self) -> Choice | None:
        """The best measured choice: by value, then loss, then divergence from the float model, then which was first.

        ``None`` where none meets the constraints.
        """
        nats = np.array([math.inf if e.divergence is None else e.divergence for e in self.evaluations.values()])
        first = int(np.lexsort((nats, self.losses, self.values))[0])
        return list(self.evaluations)[first] if self.values[first] < math.inf else None

    @property
    def work(self) -> float:
        """Arithmetic of this run, in plain evaluations of the whole split."""
        return sum(found.work for choice, found in self.evaluations.items() if choice not in self.cached)

    @property
    def total_work(self) -> float:
        """Arithmetic of all its evaluations, whenever they were run."""
        return sum(found.work for found in self.evaluations.values())


def drive(
    strategy: Strategy,
    space: Space,
    oracle: Oracle,
    *,
    objective: Objective | None = None,
    constraints: Constraints | None = None,
    budget: Budget | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Measure the baseline, then what a strategy asks for, each choice once, until it ends or the budget does.

    Whatever stops it, everything measured is kept and returned: Ctrl-C, an oracle that fails, a cache that cannot be
    written to, a strategy that raises. To resume is to run the same search again over the same cache.

    Args:
        strategy: What decides.
        space: What may be chosen.
        oracle: What measures; it raises nothing but :class:`OracleError` (see :func:`aiq._guard.guarded`). Where it
            counts ``hits``, as :class:`aiq.cache.CachedOracle` does, they are told apart.
        objective: What is minimised; by default AI at λ = 0.9, min–max.
        constraints: What must hold; by default nothing.
        budget: By default without limit.
        progress: Called after every evaluation.

    Raises:
        OracleError: The baseline itself cannot be measured: there is nothing to keep.
    """
    meter = _Meter(space, oracle, budget or Budget())
    findings: Findings | None = None
    stopped: str | None = None
    error: AIQError | None = None
    try:
        meter.measure(space.start)
    except CacheWriteError as failure:
        error = failure
    baseline = meter.evaluations[space.start]
    problem = Problem(space, objective or Objective(), constraints or Constraints(), oracle.metric, baseline)
    if error is None:
        try:
            findings, stopped = _follow(strategy, problem, meter, _reporter(strategy, problem, meter, progress))
        except KeyboardInterrupt:
            stopped = INTERRUPTED
        except AIQError as failure:
            error = failure
    if error is not None:
        stopped = str(error)
    return Run(problem, meter.evaluations, frozenset(meter.cached), meter.seconds, findings, stopped, error)


def most_evaluations(strategy: Strategy, problem: Problem, budget: Budget) -> int:
    """Return how many distinct evaluations a search takes at most: the strategy's, the space's or the budget's."""
    most = min(_guarded(strategy, strategy.most_evaluations, problem), problem.space.size)
    return most if budget.evaluations is None else min(most, budget.evaluations)


def uniform_choices(space: Space) -> dict[str, Choice]:
    """Return the choice that gives every unit one option, by the option's label."""
    first = _first_equal(space)
    return {option.label: tuple(known[k] for known in first) for k, option in enumerate(space.options)}


class _Meter:
    """Measures each choice once, tells what the cache answered from what was run, and watches the budget."""

    def __init__(self, space: Space, oracle: Oracle, budget: Budget) -> None:
        self.space, self.oracle, self.budget = space, oracle, budget
        self.evaluations: dict[Choice, Evaluation] = {}
        self.cached: set[Choice] = set()
        self.started = time.perf_counter()
        self.run_seconds = 0.0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def spent(self) -> str | None:
        """Say which budget leaves no room for another evaluation."""
        count, seconds = self.budget.evaluations, self.budget.seconds
        if count is not None and len(self.evaluations) >= count:
            return f"the budget of {count} evaluation{'s' if count > 1 else ''} is spent"
        if seconds is not None and self.seconds >= seconds:
            return f"the budget of {seconds:g} s is spent"
        return None

    def measure(self, choice: Choice) -> None:
        """Measure a choice and keep its evaluation, also where only writing it to the cache fails.

        Raises:
            OracleError: It cannot be measured.
            CacheWriteError: It was measured and could not be written.
        """
        hits, before = getattr(self.oracle, "hits", 0), self.seconds
        try:
            self.evaluations[choice] = self.oracle.evaluate(self.space.scheme(choice))
        except CacheWriteError as failure:
            self.evaluations[choice] = failure.evaluation
            raise
        if getattr(self.oracle, "hits", 0) > hits:
            self.cached.add(choice)
        else:
            self.run_seconds += self.seconds - before


def _follow(
    strategy: Strategy, problem: Problem, meter: _Meter, report: Callable[[Choice], None]
) -> tuple[Findings | None, str | None]:
    """Feed a strategy until it ends or the budget does; return its findings, or why it was cut."""
    first = _first_equal(problem.space)
    report(problem.space.start)
    steps = _guarded(strategy, strategy.steps, problem)
    answer: Evaluation | None = None
    try:
        while True:
            try:
                asked = _guarded(strategy, steps.send, answer)
            except StopIteration as end:
                return end.value if isinstance(end.value, Findings) else Findings(), None
            choice = _checked(asked, first, strategy)
            if choice not in meter.evaluations:
                if cut := meter.spent():
                    return None, cut
                meter.measure(choice)
                report(choice)
            answer = meter.evaluations[choice]
    finally:
        steps.close()


def _reporter(
    strategy: Strategy, problem: Problem, meter: _Meter, progress: Callable[[Progress], None] | None
) -> Callable[[Choice], None]:
    if progress is None:
        return lambda choice: None
    most = most_evaluations(strategy, problem, meter.budget)
    best: list[tuple[float, float, str]] = []

    def report(choice: Choice) -> None:
        loss = problem.loss(meter.evaluations[choice])
        value = float(problem.values([choice], [loss])[0])
        if value < math.inf and (not best or (value, loss) < best[0][:2]):
            best[:] = [(value, loss, problem.space.label(choice))]
        count, hits, seconds = len(meter.evaluations), len(meter.cached), meter.seconds
        left = meter.run_seconds / (count - hits) * max(most - count, 0) if count > hits else None
        if left is not None and meter.budget.seconds is not None:
            left = min(left, max(meter.budget.seconds - seconds, 0.0))
        _, best_loss, label = best[0] if best else (None, None, "")
        progress(Progress(count, most, hits, seconds, left, label, best_loss))

    return report


def _first_equal(space: Space) -> list[list[int]]:
    """Return for each unit and option the first option of the same formats, [U][K]."""
    layers, found = space.table.layers, []
    for unit in space.units:
        of_layers = zip(*(space.table.layer_options(layers[index]) for index in unit.layers), strict=True)
        formats = list(of_layers)
        found.append([formats.index(option) for option in formats])
    return found


def _checked(asked: Any, first: list[list[int]], strategy: Strategy) -> Choice:
    """Map choices of equal formats to one; refuse what is no choice of the space."""
    try:
        if min(asked) >= 0:
            return tuple(known[k] for known, k in zip(first, asked, strict=True))
    except (TypeError, ValueError, IndexError):
        pass
    raise AIQError(
        f"strategy {strategy.name!r} asked for {asked!r}: a choice holds one option from 0 to {len(first[0]) - 1} for "
        f"each of {len(first)} units. Next: mend the strategy."
    )


def _guarded(strategy: Strategy, call: Callable[..., Any], argument: Any) -> Any:
    try:
        return call(argument)
    except (StopIteration, AIQError):
        raise
    except Exception as failure:
        raise AIQError(
            f"strategy {strategy.name!r} raised {reason(failure)} Next: mend it, then run again."
        ) from failure
