"""What a sweep answers: the best machine, where bounds change, what a faster part brings, where machines break even."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aiq._whatif import Sweep

Goal = Literal["throughput", "latency", "cost"]
GOALS: tuple[Goal, ...] = ("throughput", "latency", "cost")
MOST_BATCH = 4096
MOST_PAIRED = 8
"""Up to so many machines are all held against each other; of more, those that are best at some batch against all."""

_FAN = 32
_CLEAR = 1e-9


@dataclass(frozen=True, slots=True)
class Best:
    """The best machine for one goal, scheme and context, at the batch of the sweep that suits it best.

    Attributes:
        goal: ``throughput``, ``latency`` or ``cost``.
        scheme: The scheme.
        context: Tokens of context.
        machine: Label of the machine.
        batch: Samples at once.
        value: Samples or tokens a second, seconds of a pass, or USD for a million samples or tokens.
    """

    goal: Goal
    scheme: str
    context: int | None
    machine: str
    batch: int
    value: float


@dataclass(frozen=True, slots=True)
class Turn:
    """Where a machine turns compute-bound: compute binds more of the time than any other resource.

    Attributes:
        machine: Label of the machine.
        scheme: The scheme.
        context: Tokens of context.
        batch: The least batch found; ``None`` where there is none up to ``limit``.
        limit: The greatest batch that was tried.
        until: The last batch before another resource binds more again, as where activations outgrow a cache; ``None``
            where none does up to ``limit``.
        fits: Whether it has the memory for that batch; ``None`` where there is none, or the size is not known.
    """

    machine: str
    scheme: str
    context: int | None
    batch: int | None
    limit: int
    until: int | None
    fits: bool | None


@dataclass(frozen=True, slots=True)
class Need:
    """What one combination would gain from faster parts.

    Attributes:
        machine: Label of the machine.
        scheme: The scheme.
        context: Tokens of context.
        batch: Samples at once.
        bound: The resource that binds most of the time.
        share: Its share of the time.
        doubled: Speed-up of a pass were a resource twice as fast, by resource.
        twice: How many times faster a resource alone must be for a pass to be twice as fast; ``None`` where none is.
        unbound: How many times faster the resource that binds must be for another to bind as much; ``None`` where that
            never happens.
    """

    machine: str
    scheme: str
    context: int | None
    batch: int
    bound: str
    share: float
    doubled: dict[str, float]
    twice: dict[str, float | None]
    unbound: float | None


@dataclass(frozen=True, slots=True)
class BreakEven:
    """The least batch at which a machine that is behind at small ones is ahead of another that it was not made from.

    Attributes:
        measure: ``latency`` (and so throughput), or ``cost``.
        scheme: The scheme.
        context: Tokens of context.
        before: Label of the machine that is ahead at smaller batches.
        after: Label of the machine that is ahead from ``batch`` on.
        batch: That batch.
    """

    measure: Literal["latency", "cost"]
    scheme: str
    context: int | None
    before: str
    after: str
    batch: int


@dataclass(frozen=True, slots=True)
class Price:
    """The price an hour at which a machine costs as much a sample as the cheapest one, each at its best batch.

    Attributes:
        scheme: The scheme.
        context: Tokens of context.
        machine: Label of the machine.
        against: Label of the cheapest machine that is not this one, nor made from it.
        price_per_hour: USD: below it this machine is the cheaper of the two.
        present: Its price; ``None`` where it has none.
    """

    scheme: str
    context: int | None
    machine: str
    against: str
    price_per_hour: float
    present: float | None


@dataclass(frozen=True, eq=False)
class Answers:
    """All answers of a sweep."""

    best: tuple[Best, ...]
    turns: tuple[Turn, ...]
    needs: tuple[Need, ...]
    break_even: tuple[BreakEven, ...]
    prices: tuple[Price, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data in SI units."""
        return {
            "best": [asdict(each) for each in self.best],
            "compute_bound_from": [asdict(each) for each in self.turns],
            "sensitivity": [asdict(each) for each in self.needs],
            "break_even_batch": [asdict(each) for each in self.break_even],
            "break_even_price": [asdict(each) for each in self.prices],
        }


def answer(sweep: Sweep, *, most_batch: int | None = None) -> Answers:
    """Answer what a sweep can answer, over batch by solving and not only on its own batches.

    Args:
        sweep: From :func:`aiq._whatif.whatif`.
        most_batch: How far to look for a batch; by default 4096, or the greatest of the sweep where that is more.
    """
    limit = most_batch or max(MOST_BATCH, *sweep.batches)
    return Answers(
        tuple(_best(sweep)),
        tuple(_turns(sweep, limit)),
        tuple(_needs(sweep)),
        tuple(_break_even(sweep)),
        tuple(_prices(sweep)),
    )


def first_batch(
    holds: Callable[[Sequence[int]], NDArray[np.bool_]], low: int, high: int, *, fan: int = _FAN
) -> int | None:
    """Return the least batch from ``low`` to ``high`` found to satisfy something, or ``None``.

    Doublings of ``low`` are tried first, then what lies before the first that satisfies it, ever finer: the batch
    before the one returned does not satisfy it.

    Args:
        holds: Tells for some batches, ascending, which satisfy it.
        low: Least batch.
        high: Greatest batch.
        fan: Batches tried at once.
    """
    ladder = [low]
    while ladder[-1] < high:
        ladder.append(min(2 * ladder[-1], high))
    found = holds(ladder)
    if not found.any():
        return None
    first = int(found.argmax())
    before, batch = (ladder[first - 1] if first else low - 1), ladder[first]
    while first and batch - before > 1:
        between = sorted({int(b) for b in np.linspace(before, batch, fan + 2)[1:-1]} - {before, batch})
        hits = holds(between)
        index = int(hits.argmax()) if hits.any() else len(between)
        before = between[index - 1] if index else before
        batch = between[index] if index < len(between) else batch
    return batch


def _combinations(sweep: Sweep) -> Iterator[tuple[int, int, int]]:
    """Yield positions of machine, scheme and context that can be priced."""
    return ((h, s, c) for h, s, c in np.ndindex(*sweep.shape[:3]) if (h, s) not in sweep.refused)


def _best(sweep: Sweep) -> Iterator[Best]:
    values = {
        "throughput": np.where(sweep.runs, sweep.throughput_per_s, -np.inf),
        "latency": np.where(sweep.runs, -sweep.latency_s, -np.inf),
        "cost": np.where(sweep.runs & np.isfinite(sweep.cost_per_million), -sweep.cost_per_million, -np.inf),
    }
    for s, scheme in enumerate(sweep.schemes):
        for c, context in enumerate(sweep.contexts):
            for goal in GOALS:
                found = values[goal][:, s, c]
                h, b = np.unravel_index(int(found.argmax()), found.shape)
                if np.isfinite(found[h, b]):
                    value = abs(float(found[h, b]))
                    yield Best(goal, str(scheme), context, sweep.machines[h].label, sweep.batches[b], value)


def _fan(sweep: Sweep, c: int) -> int:
    """Return how many batches to try at once: one where each needs a graph of its own."""
    return 1 if sweep.graphs.grid(sweep.contexts[c]).graph.fixed_batch else _FAN


def _turns(sweep: Sweep, limit: int) -> Iterator[Turn]:
    for h, s, c in _combinations(sweep):
        machine, scheme, context = sweep.machines[h], sweep.schemes[s], sweep.contexts[c]

        def computes(batches: Sequence[int], h: int = h, s: int = s, c: int = c) -> NDArray[np.bool_]:
            parts = sweep.graphs.times(sweep.machines[h], sweep.schemes[s], sweep.contexts[c], batches)
            return np.concatenate([times.binding == 0 for _, times in parts])

        batch = first_batch(computes, 1, limit, fan=_fan(sweep, c))
        until, fits = None, None
        if batch is not None:
            again = first_batch(partial(_not, computes), batch, limit, fan=_fan(sweep, c))
            until = None if again is None else again - 1
        if batch is not None and np.isfinite(sweep.capacity_bytes[h]):
            ((load, _),) = sweep.graphs.times(machine, scheme, context, [batch])
            fits = bool(load.memory[0][0] <= sweep.capacity_bytes[h])
        yield Turn(machine.label, str(scheme), context, batch, limit, until, fits)


def _not(holds: Callable[[Sequence[int]], NDArray[np.bool_]], batches: Sequence[int]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = ~holds(batches)
    return found


def _needs(sweep: Sweep) -> Iterator[Need]:
    ends = sorted({sweep.batches[0], sweep.batches[-1]})
    for h, s, c in _combinations(sweep):
        machine, scheme, context = sweep.machines[h], sweep.schemes[s], sweep.contexts[c]
        if machine.spec.rates == "calibrated":
            continue
        for batch in ends:
            ((_, times),) = sweep.graphs.times(machine, scheme, context, [batch])
            seconds = float(times.latency_s[0])
            bound = int(times.by_bound[:-1, 0].argmax())
            doubled, twice = {}, {}
            for name in times.resources:
                faster, factor = times.faster(name, 2.0), times.factor_for(name, 2.0)
                if faster is not None and factor is not None:
                    doubled[name] = seconds / float(faster[0]) if seconds else 1.0
                    twice[name] = float(factor[0]) if np.isfinite(factor[0]) else None
            share = float(times.by_bound[bound, 0]) / seconds if seconds else 0.0
            unbound = times.factor_to_unbind(0)
            name = times.resources[bound]
            yield Need(machine.label, str(scheme), context, batch, name, share, doubled, twice, unbound)


def _break_even(sweep: Sweep) -> Iterator[BreakEven]:
    low, high = sweep.batches[0], sweep.batches[-1]
    measures: tuple[tuple[Literal["latency", "cost"], NDArray[np.float64]], ...] = (
        ("latency", sweep.latency_s),
        ("cost", sweep.cost_per_million),
    )
    bases = np.array([machine.base for machine in sweep.machines])
    apart = bases[:, None] != bases[None, :]
    for measure, values in measures:
        ends = values[..., [0, -1]]
        prices = [m.price_per_hour or np.nan if measure == "cost" else 1.0 for m in sweep.machines]
        for s, c in np.ndindex(*sweep.shape[1:3]):
            at, to = ends[:, s, c, 0], ends[:, s, c, 1]
            with np.errstate(invalid="ignore"):
                ahead = at[:, None] < at[None, :] * (1 - _CLEAR)
                swapped = ahead & (to[:, None] > to[None, :] * (1 + _CLEAR)) & apart
            if len(at) > MOST_PAIRED:
                leads = np.zeros(len(at), dtype=bool)
                leads[np.where(np.isnan(values[:, s, c]), np.inf, values[:, s, c]).argmin(axis=0)] = True
                swapped &= leads[:, None] | leads[None, :]
            for pair in np.argwhere(swapped).tolist():
                behind = partial(_is_behind, sweep, (s, c), [(h, prices[h]) for h in pair])
                batch = first_batch(behind, low, high, fan=_fan(sweep, c))
                if batch is not None:
                    before, after = (sweep.machines[h].label for h in pair)
                    yield BreakEven(measure, str(sweep.schemes[s]), sweep.contexts[c], before, after, batch)


def _is_behind(
    sweep: Sweep, place: tuple[int, int], priced: Sequence[tuple[int, float]], batches: Sequence[int]
) -> NDArray[np.bool_]:
    """Tell at which batches the first of two machines, each at its price, is behind the second."""
    scheme, context = sweep.schemes[place[0]], sweep.contexts[place[1]]
    first, second = (price * sweep.graphs.latency(sweep.machines[h], scheme, context, batches) for h, price in priced)
    found: NDArray[np.bool_] = first > second * (1 + _CLEAR)
    return found


def _prices(sweep: Sweep) -> Iterator[Price]:
    rates = np.where(sweep.runs, sweep.throughput_per_s, 0.0).max(axis=3)
    costs = np.where(sweep.runs & np.isfinite(sweep.cost_per_million), sweep.cost_per_million, np.inf).min(axis=3)
    for s, c in np.ndindex(*sweep.shape[1:3]):
        order = [int(h) for h in np.argsort(costs[:, s, c], kind="stable") if np.isfinite(costs[h, s, c])]
        for h, machine in enumerate(sweep.machines):
            others = [other for other in order if sweep.machines[other].base != machine.base]
            if not others or not rates[h, s, c]:
                continue
            against = others[0]
            price = float(costs[against, s, c]) * 1e-6 * 3600 * float(rates[h, s, c])
            yield Price(
                str(sweep.schemes[s]),
                sweep.contexts[c],
                machine.label,
                sweep.machines[against].label,
                price,
                machine.price_per_hour,
            )
