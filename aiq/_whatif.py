"""``aiq whatif``: one model on many machines, at many batches, contexts and schemes, priced all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aiq._whatif_machines import Machine
from roofline import Scheme
from roofline.errors import InputError, MissingCeilingError
from roofline.grid import Grid, Load
from roofline.times import Times

if TYPE_CHECKING:
    from roofline import OpGraph

MOST_COMBINATIONS = 200_000
_KEPT_LOADS = 200
Array = NDArray[np.float64]


class Source(Protocol):
    """A model that has a graph for each context and batch: what a sweep asks for graphs.

    ``graph`` is called once for each context where graphs hold for any batch, and once for each context and batch where
    they are of a fixed batch (``OpGraph.fixed_batch``).
    """

    @property
    def name(self) -> str:
        """Name of the model."""
        ...

    def graph(self, batch: int | None = None, context: int | None = None) -> OpGraph:
        """Return the graph; ``None`` leaves the model's own."""
        ...


@dataclass(frozen=True, slots=True)
class Unit:
    """What is counted: ``samples`` of a batch, or ``tokens``, one a sequence or ``per_context`` all of its context."""

    name: str = "samples"
    per_context: bool = False

    def of(self, batches: Array, context: int | None) -> Array:
        """Return how many a pass makes at each batch."""
        return batches * (context or 1) if self.per_context else batches


class Graphs:
    """The graphs of a source, each built once."""

    def __init__(self, source: Source, traffic: str) -> None:
        self.source, self.traffic = source, traffic
        self._grids: dict[tuple[int | None, int | None], Grid] = {}
        self._loads: dict[tuple[int | None, tuple[int, ...], Scheme], list[Load]] = {}

    def grid(self, context: int | None, batch: int | None = None) -> Grid:
        """Return the grid of a context; ``batch`` matters where graphs are of a fixed batch."""
        first = self._grids.get((context, None))
        if first is None:
            first = Grid(self.source.graph(batch=None, context=context), traffic=self.traffic)
            self._grids[context, None] = first
        if batch is None or not first.graph.fixed_batch or batch == first.graph.batch:
            return first
        key = context, batch
        if key not in self._grids:
            self._grids[key] = Grid(self.source.graph(batch=batch, context=context), traffic=self.traffic)
        return self._grids[key]

    def chunks(self, context: int | None, batches: Sequence[int]) -> Iterator[tuple[Grid, Sequence[int]]]:
        """Yield grids with the batches that each is to be priced at, in order."""
        if self.grid(context).graph.fixed_batch:
            yield from ((self.grid(context, batch), [batch]) for batch in batches)
        else:
            yield self.grid(context), batches

    def latency(self, machine: Machine, scheme: Scheme, context: int | None, batches: Sequence[int]) -> Array:
        """Return seconds of a pass, [B]."""
        return np.concatenate([times.latency_s for _, times in self.times(machine, scheme, context, batches)])

    def times(
        self, machine: Machine, scheme: Scheme, context: int | None, batches: Sequence[int]
    ) -> list[tuple[Load, Times]]:
        """Return loads and times, chunk by chunk.

        Raises:
            MissingCeilingError: The machine states no ceiling that a row could run on.
        """
        key = context, tuple(batches), scheme
        if key not in self._loads:
            if len(self._loads) >= _KEPT_LOADS:
                self._loads.clear()
            self._loads[key] = [grid.at(some).under(scheme) for grid, some in self.chunks(context, batches)]
        return [(load, load.on(machine.spec)) for load in self._loads[key]]


@dataclass(frozen=True, eq=False)
class Sweep:
    """Every combination of H machines, S schemes, C contexts and B batches.

    Attributes:
        model: Name of the model.
        traffic: Traffic model.
        unit: What throughput counts.
        machines: The machines.
        schemes: The schemes.
        contexts: Tokens of context, or ``(None,)`` where the model has none.
        batches: Samples at once, ascending.
        flops: FLOPs of a pass, [S, C, B].
        bytes: Bytes moved by a pass, [S, C, B].
        weight_bytes: Bytes of the weights, [S, C].
        kv_bytes: Bytes of the key-value cache, [S, C, B].
        activation_bytes: The most that is alive of activations, [S, C, B].
        memory_bytes: Memory needed in all, [S, C, B].
        latency_s: Seconds of a pass, [H, S, C, B]; NaN where a machine cannot run it.
        by_bound: For each machine, seconds of the rows that each of its resources binds, [S, C, B, K].
        resources: For each machine the names of its K resources, ``transition`` last.
        refused: Why a machine cannot run a scheme, by their positions.
        graphs: What more is asked of the model.
    """

    model: str
    traffic: str
    unit: Unit
    machines: tuple[Machine, ...]
    schemes: tuple[Scheme, ...]
    contexts: tuple[int | None, ...]
    batches: tuple[int, ...]
    flops: Array
    bytes: Array
    weight_bytes: Array
    kv_bytes: Array
    activation_bytes: Array
    memory_bytes: Array
    latency_s: Array
    by_bound: tuple[Array, ...]
    resources: tuple[tuple[str, ...], ...]
    refused: dict[tuple[int, int], str]
    graphs: Graphs = field(repr=False)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """H, S, C, B."""
        return len(self.machines), len(self.schemes), len(self.contexts), len(self.batches)

    @property
    def units(self) -> Array:
        """Samples or tokens of a pass, [C, B]."""
        many = np.array(self.batches, dtype=np.float64)
        return np.array([self.unit.of(many, context) for context in self.contexts])

    @property
    def throughput_per_s(self) -> Array:
        """Samples or tokens a second, [H, S, C, B]."""
        found: Array = self.units / self.latency_s
        return found

    @property
    def capacity_bytes(self) -> Array:
        """Size of each machine's outermost memory, [H]; NaN where it is not known."""
        sizes = (machine.spec.memory[0].capacity_bytes for machine in self.machines)
        return np.array([size.value if size else np.nan for size in sizes])

    @property
    def too_large(self) -> NDArray[np.bool_]:
        """Whether the memory needed is more than there is, [H, S, C, B]."""
        found: NDArray[np.bool_] = self.memory_bytes > self.capacity_bytes[:, None, None, None]
        return found

    @property
    def runs(self) -> NDArray[np.bool_]:
        """Whether a machine can run a combination, [H, S, C, B]."""
        found: NDArray[np.bool_] = np.isfinite(self.latency_s) & ~self.too_large
        return found

    @property
    def cost_per_million(self) -> Array:
        """USD for a million samples or tokens, [H, S, C, B]; NaN without a price."""
        prices = np.array([np.nan if m.price_per_hour is None else m.price_per_hour for m in self.machines])
        found: Array = prices[:, None, None, None] / 3600 * self.latency_s / self.units * 1e6
        return found

    def reason(self, h: int, s: int, c: int, b: int) -> str:
        """Return why a machine cannot run a combination; empty where it can."""
        if (h, s) in self.refused:
            return self.refused[h, s]
        if self.too_large[h, s, c, b]:
            from roofline.units import si

            needed, room = float(self.memory_bytes[s, c, b]), float(self.capacity_bytes[h])
            return f"does not fit: needs {si(needed, 'B')} of {si(room, 'B')}"
        return ""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield every combination as plain data in SI units."""
        runs, rate, cost, large = self.runs, self.throughput_per_s, self.cost_per_million, self.too_large
        room = self.capacity_bytes
        for h, s, c, b in np.ndindex(*self.shape):
            seconds = float(self.latency_s[h, s, c, b])
            timed = np.isfinite(seconds)
            shares = self.by_bound[h][s, c, b] / seconds if timed and seconds else None
            names = self.resources[h]
            yield {
                "hardware": self.machines[h].label,
                "scheme": str(self.schemes[s]),
                "context": self.contexts[c],
                "batch": self.batches[b],
                "runs": bool(runs[h, s, c, b]),
                "reason": self.reason(h, s, c, b),
                "latency_s": seconds if timed else None,
                "throughput_per_s": float(rate[h, s, c, b]) if timed else None,
                "bound": names[int(shares.argmax())] if shares is not None else None,
                "bound_shares": None
                if shares is None
                else {n: float(v) for n, v in zip(names, shares, strict=True) if v},
                "arithmetic_intensity": float(self.flops[s, c, b] / self.bytes[s, c, b])
                if self.bytes[s, c, b]
                else 0.0,
                "flops": float(self.flops[s, c, b]),
                "bytes": float(self.bytes[s, c, b]),
                "memory_bytes": float(self.memory_bytes[s, c, b]),
                "weight_bytes": float(self.weight_bytes[s, c]),
                "kv_bytes": float(self.kv_bytes[s, c, b]),
                "activation_bytes": float(self.activation_bytes[s, c, b]),
                "fits": None if np.isnan(room[h]) else not bool(large[h, s, c, b]),
                "cost_per_million": float(cost[h, s, c, b]) if np.isfinite(cost[h, s, c, b]) else None,
            }


def whatif(
    source: Source,
    machines: Sequence[Machine],
    schemes: Sequence[Scheme] = (),
    *,
    batches: Sequence[int] | None = None,
    contexts: Sequence[int] | None = None,
    traffic: str = "fused",
    unit: Unit | None = None,
) -> Sweep:
    """Price a model for every combination of machine, scheme, context and batch.

    It agrees with :func:`roofline.estimate` to rounding. Rows are built once for each context; what they move, once for
    each scheme, at all batches together; and each machine prices these arrays.

    Args:
        source: The model.
        machines: From :func:`aiq._whatif_machines.find_machines`.
        schemes: By default the model's own formats.
        batches: Samples at once; by default the model's own.
        contexts: Tokens of context; by default the model's own.
        traffic: ``paper``, ``unfused`` or ``fused``.
        unit: What throughput counts; by default samples.

    Raises:
        InputError: No machine, more than 200 000 combinations, or a traffic model that prices no op.
        AIQError: A scheme that does not fit the model, or a batch or context that the model has not.
    """
    chosen = tuple(schemes) or (Scheme(name="as traced"),)
    tokens: tuple[int | None, ...] = tuple(sorted(set(contexts))) if contexts else (None,)
    if not machines:
        raise InputError("no machine to price the model on. Next: name at least one.")
    shape = len(machines), len(chosen), len(tokens), len(set(batches)) if batches else 1
    if prod(shape) > MOST_COMBINATIONS:
        counts = " x ".join(
            f"{n} {what}" for n, what in zip(shape, ("machines", "schemes", "contexts", "batches"), strict=True)
        )
        raise InputError(
            f"{counts} are {prod(shape)} combinations, at most {MOST_COMBINATIONS} are priced. "
            "Next: sweep over fewer at once."
        )
    graphs = Graphs(source, traffic)
    many = tuple(sorted(set(batches))) if batches else (graphs.grid(tokens[0]).graph.batch,)
    if not graphs.grid(tokens[0]).rows:
        raise InputError(f"{traffic} traffic prices no op of {source.name}. Next: choose --traffic fused or unfused.")
    resources = [("compute", *(level.name for level in m.spec.memory), "overhead", "transition") for m in machines]
    free = {name: np.zeros(shape[1:]) for name in ("flops", "bytes", "kv", "activations", "memory")}
    weights = np.zeros(shape[1:3])
    latency = np.full(shape, np.nan)
    by_bound = tuple(np.zeros((*shape[1:], len(names))) for names in resources)
    refused = {(h, s): m.refused for h, m in enumerate(machines) for s in range(shape[1]) if m.refused}
    for c, context in enumerate(tokens):
        start = 0
        for grid, some in graphs.chunks(context, many):
            part = slice(start, start + len(some))
            start += len(some)
            loads = grid.at(some)
            for s, scheme in enumerate(chosen):
                load = loads.under(scheme)
                free["flops"][s, c, part], free["bytes"][s, c, part] = load.flops, load.bytes
                free["memory"][s, c, part], free["kv"][s, c, part], free["activations"][s, c, part] = load.memory
                weights[s, c] = load.weight_bytes
                for h, machine in enumerate(machines):
                    if (h, s) in refused:
                        continue
                    try:
                        times = load.on(machine.spec)
                    except MissingCeilingError as error:
                        refused[h, s] = str(error).partition(": it has")[0]
                        continue
                    latency[h, s, c, part] = times.latency_s
                    by_bound[h][s, c, part] = times.by_bound.T
    return Sweep(
        source.name,
        traffic,
        unit or Unit(),
        tuple(machines),
        chosen,
        tokens,
        many,
        free["flops"],
        free["bytes"],
        weights,
        free["kv"],
        free["activations"],
        free["memory"],
        latency,
        by_bound,
        tuple(resources),
        refused,
        graphs,
    )
