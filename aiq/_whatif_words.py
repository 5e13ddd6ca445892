"""The sentences of a sweep: its answers as people say them, the most important first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from itertools import groupby
from typing import TypeVar

from aiq._whatif import Sweep
from aiq._whatif_answers import Answers, Best, BreakEven, Need, Price, Turn
from aiq._whatif_schemes import Choices, Chosen
from roofline.units import number, percent, si

MOST_LINES = 8
_Answer = TypeVar("_Answer", Need, BreakEven, Price)
_CLOSE = 1.005


def sentences(sweep: Sweep, answers: Answers, choices: Choices | None = None) -> list[str]:
    """Return the answers in words; of each kind at most eight lines, the rest is counted."""
    found: list[str] = []
    for lines in (
        _best(sweep, answers),
        _choices(sweep, choices) if choices else [],
        _turns(sweep, answers),
        _needs(sweep, answers),
        _break_even(sweep, answers),
        _prices(sweep, answers),
    ):
        every = list(lines)
        found += every[:MOST_LINES]
        if len(every) > MOST_LINES:
            found.append(f"and {len(every) - MOST_LINES} more like this: --format json has all")
    return found


def _real_first(sweep: Sweep, answers: Sequence[_Answer]) -> list[_Answer]:
    """Put what speaks of changed machines last."""
    changed = {machine.label for machine in sweep.machines if machine.label != machine.base}
    return sorted(answers, key=lambda each: bool(changed.intersection(astuple(each)[:5])))


def _at(scheme: str, context: int | None) -> str:
    return scheme if context is None else f"{scheme} at {context} tokens of context"


def _best(sweep: Sweep, answers: Answers) -> Iterator[str]:
    found = {key: list(some) for key, some in groupby(answers.best, key=lambda each: (each.scheme, each.context))}
    for scheme in sweep.schemes:
        for context in sweep.contexts:
            those = found.get((str(scheme), context))
            if those is None:
                yield f"{_at(str(scheme), context)}: no machine runs it; the rows say why"
                continue
            parts = [_best_part(sweep, each) for each in those]
            yield f"{_at(str(scheme), context)}: {'; '.join(parts)}"


def _best_part(sweep: Sweep, best: Best) -> str:
    where = f"{best.machine} at batch {best.batch}"
    if best.goal == "throughput":
        return f"most {sweep.unit.name} a second on {where} ({si(best.value, f'{sweep.unit.name}/s')})"
    if best.goal == "latency":
        return f"shortest pass on {where} ({si(best.value, 's')})"
    return f"cheapest on {where} (USD {best.value:.3g} for a million {sweep.unit.name})"


def _choices(sweep: Sweep, choices: Choices) -> Iterator[str]:
    yield f"best scheme that loses at most {number(choices.limit)} {choices.unit}; {choices.evidence}"
    for each in choices.chosen:
        batch = f"{each.machine}, batch {each.batch}"
        where = batch if each.context is None else f"{batch}, {each.context} tokens of context"
        if each.scheme is None:
            yield f"{where}: {each.label}"
        else:
            yield (
                f"{where}: {each.label}, {si(each.latency_s, 's')} a pass, {number(each.speedup)}x the speed of "
                f"{sweep.model} as it is; {_loss(choices, each)}"
            )


def _loss(choices: Choices, each: Chosen) -> str:
    figures, metric = each.figures, choices.metric
    if figures is None or metric is None:
        return f"loss {number(each.loss)} {choices.unit}"
    shown = percent if metric.unit == "points" else number
    value = f"{metric.name} {shown(figures.value)}"
    if figures.interval:
        value += f" (95 %: {shown(figures.interval[0])} to {shown(figures.interval[1])})"
    drop = f"{figures.drop:.2f} {choices.unit} lost"
    if figures.drop_interval:
        drop += f" (95 % paired: {figures.drop_interval[0]:.2f} to {figures.drop_interval[1]:.2f})"
    return f"{value}, {drop}"


def _turns(sweep: Sweep, answers: Answers) -> Iterator[str]:
    found: dict[tuple[str, int | None], list[Turn]] = {}
    for turn in answers.turns:
        found.setdefault((turn.machine, turn.context), []).append(turn)
    never: dict[int | None, list[str]] = {}
    for (machine, context), those in found.items():
        if all(turn.batch is None for turn in those):
            never.setdefault(context, []).append(machine)
            continue
        where = machine if context is None else f"{machine}, {context} tokens of context"
        yield f"{where}: compute-bound from batch: {', '.join(f'{turn.scheme} {_turn(turn)}' for turn in those)}"
    for context, names in never.items():
        which = "any scheme" if context is None else f"any scheme at {context} tokens of context"
        yield f"compute-bound under {which} at no batch up to {answers.turns[0].limit}: {', '.join(names)}"


def _turn(turn: Turn) -> str:
    if turn.batch is None:
        return f"not up to {turn.limit}"
    span = str(turn.batch) if turn.until is None else f"{turn.batch} to {turn.until}"
    return f"{span} (which does not fit)" if turn.fits is False else span


def _needs(sweep: Sweep, answers: Answers) -> Iterator[str]:
    scheme, context = str(sweep.schemes[0]), sweep.contexts[0]
    for need in _real_first(sweep, answers.needs):
        if need.scheme == scheme and need.context == context:
            where = f"{need.machine}, {_at(scheme, context)}, batch {need.batch}"
            yield f"{where}: {need.bound} binds {percent(need.share)} of the time; {'; '.join(_need(need))}"


def _need(need: Need) -> Iterator[str]:
    gains = {name: gain for name, gain in need.doubled.items() if gain >= _CLOSE}
    if gains:
        parts = (f"{name} {number(gain)}x" for name, gain in sorted(gains.items(), key=lambda item: -item[1]))
        yield f"twice as fast alone, it would gain by {', by '.join(parts)}"
    else:
        yield "nothing that is twice as fast alone would gain anything"
    twice = {name: factor for name, factor in need.twice.items() if factor is not None}
    if twice:
        name = min(twice, key=lambda each: twice[each])
        yield f"for half the time {name} must be {number(twice[name])}x as fast"
    else:
        yield "nothing alone halves the time"
    if need.unbound is not None:
        yield f"from {number(need.unbound)}x on {need.bound} no longer binds most"


def _break_even(sweep: Sweep, answers: Answers) -> Iterator[str]:
    for each in _real_first(sweep, answers.break_even):
        what = "faster" if each.measure == "latency" else "cheaper"
        yield f"{_at(each.scheme, each.context)}: {each.after} is {what} than {each.before} from batch {each.batch} on"


def _prices(sweep: Sweep, answers: Answers) -> Iterator[str]:
    for each in _real_first(sweep, answers.prices):
        present = "" if each.present is None else f" (now {number(each.present)})"
        yield (
            f"{_at(each.scheme, each.context)}: {each.machine} costs less than {each.against} below "
            f"USD {number(each.price_per_hour)} an hour{present}"
        )
