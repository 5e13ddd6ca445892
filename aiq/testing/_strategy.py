"""The contract of a search strategy."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from aiq.objective import Objective
from aiq.oracle import Evaluation
from aiq.problem import Constraints
from aiq.space import Choice
from aiq.strategy import Findings, Strategy
from aiq.testing._contract import ContractError, demand
from aiq.testing._landscape import Landscape, made_up_landscape
from roofline.errors import AIQError

_MOST_REPEATS = 10_000
_INTERRUPTIONS = 8

Memo = dict[Choice, Evaluation]


def check_strategy(make: Callable[[], Strategy], *, landscapes: Sequence[Landscape] | None = None) -> None:
    """Check that a strategy keeps the contract of :class:`aiq.strategy.Strategy`.

    It has a name; asks only for legal choices; asks for no more distinct schemes than ``most_evaluations`` says, the
    baseline included; ends, and returns :class:`aiq.strategy.Findings`; may be closed at any ``yield``; and asks for
    the same schemes when it is run again, by the same object or a new one, and when a run that was cut short is
    replayed from stored evaluations (whose ``seconds`` and ``work`` are then others).

    Args:
        make: Returns a new strategy with its settings, for instance ``lambda: Random(count=10)`` or the class itself.
        landscapes: What to try it on; by default made-up ones with and without limits. A strategy may refuse a problem
            with limits by an :class:`AIQError` before its first evaluation.

    Raises:
        ContractError: It breaks a rule; the text says which.
    """
    name = getattr(make(), "name", None)
    demand(isinstance(name, str) and bool(name), f"a strategy's name must be a text that is not empty, got {name!r}")
    tried = 0
    for landscape in _default_landscapes() if landscapes is None else landscapes:
        try:
            most = make().most_evaluations(landscape.problem)
            _run(make(), landscape, {}, stop=0)
        except AIQError as error:
            demand(landscape.problem.constraints != Constraints(), f"{name} refuses a problem without limits: {error}")
            continue
        _check_on(make, landscape, most)
        tried += 1
    demand(tried > 0, f"{name} refuses every problem")


def _default_landscapes() -> list[Landscape]:
    return [
        made_up_landscape(),
        made_up_landscape(Objective(lam=0.3, normalise="relative"), groups=4, seed=1),
        made_up_landscape(constraints=Constraints(max_loss=1.0), seed=2),
        made_up_landscape(Objective("memory"), Constraints(max_weight_bytes=50_000.0), seed=3),
    ]


def _check_on(make: Callable[[], Strategy], landscape: Landscape, most: int) -> None:
    with _other_global_seed(1):
        asked, memo = _run(make(), landscape, {})
    demand(
        len(memo) <= most, f"it asked for {len(memo)} distinct schemes, more than the {most} of its most_evaluations"
    )
    with _other_global_seed(2):
        again, _ = _run(make(), landscape, {})
    demand(again == asked, _differs("a new one given the same evaluations", asked, again))
    same = make()
    _run(same, landscape, {})
    twice, _ = _run(same, landscape, {})
    demand(twice == asked, _differs("the same object run a second time", asked, twice))
    for stop in sorted({round(place) for place in np.linspace(0, len(asked) - 1, _INTERRUPTIONS)} if asked else ()):
        _, kept = _run(make(), landscape, {}, stop=stop)
        stored = {choice: _as_stored(evaluation) for choice, evaluation in kept.items()}
        replayed, _ = _run(make(), landscape, stored)
        demand(replayed == asked, _differs(f"a replay after {stop} evaluations", asked, replayed))


def _run(
    strategy: Strategy, landscape: Landscape, known: Memo, *, stop: int | None = None
) -> tuple[list[Choice], Memo]:
    """Drive a strategy to its end, or close it at a ``yield``; return what it asked for and every evaluation."""
    problem = landscape.problem
    memo = {problem.space.start: problem.baseline, **known}
    asked: list[Choice] = []
    repeats = 0
    steps = strategy.steps(problem)
    try:
        choice = next(steps)
        while stop is None or len(asked) < stop:
            _check_legal(choice, landscape)
            asked.append(choice)
            repeats = repeats + 1 if choice in memo else 0
            demand(repeats < _MOST_REPEATS, f"it asked {repeats} times in a row for known schemes: it does not end")
            if choice not in memo:
                memo[choice] = landscape.measure(choice)
            choice = steps.send(memo[choice])
    except StopIteration as end:
        _check_findings(end.value, landscape)
        return asked, memo
    try:
        steps.close()
    except Exception as error:
        raise ContractError(
            f"closed after {len(asked)} evaluations it raised {type(error).__name__}: {error}; "
            "it may be closed at any yield"
        ) from error
    return asked, memo


def _check_legal(choice: Any, landscape: Landscape) -> None:
    units = landscape.problem.space.units
    whole = isinstance(choice, tuple) and all(isinstance(k, int | np.integer) for k in choice)
    demand(whole, f"a choice must be a tuple of integers, got {choice!r}")
    demand(len(choice) == len(units), f"a choice needs {len(units)} options, one for each unit, got {choice!r}")
    for unit, k in zip(units, choice, strict=True):
        demand(k in unit.options, f"{choice!r} gives unit {unit.name!r} option {k}, which is not among {unit.options}")


def _check_findings(findings: Any, landscape: Landscape) -> None:
    demand(isinstance(findings, Findings), f"steps must return Findings, got {type(findings).__name__}")
    space = landscape.problem.space
    shape = (len(space.units), len(space.options))
    if findings.predicted is not None:
        demand(findings.predicted.shape == shape, f"predicted must have shape {shape}, got {findings.predicted.shape}")


def _as_stored(evaluation: Evaluation) -> Evaluation:
    outcomes = None if evaluation.outcomes is None else evaluation.outcomes.copy()
    return replace(evaluation, outcomes=outcomes, seconds=evaluation.seconds + 1.0, work=0.5)


def _differs(how: str, first: list[Choice], second: list[Choice]) -> str:
    place = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    shown = [str(asked[place]) if place < len(asked) else "nothing" for asked in (first, second)]
    return f"{how} must ask for the same schemes: at step {place} it asked for {shown[1]} in place of {shown[0]}"


@contextmanager
def _other_global_seed(seed: int) -> Iterator[None]:
    """Seed the global generators, which a strategy must not draw from, and put them back."""
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
