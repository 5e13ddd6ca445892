"""One graph priced for many batches, schemes and machines at once: what :func:`roofline.estimate` gives, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from hardware_specs import HardwareSpec
from roofline.ceiling import CeilingChoice, choose_ceiling, vector_ceiling
from roofline.errors import InputError
from roofline.estimate import estimate, format_of, resolve
from roofline.graph import MATRIX_KINDS, OpGraph
from roofline.memory import Liveness
from roofline.precision import LayerPrecision, Precision
from roofline.pricing import Pricing
from roofline.scheme import Scheme
from roofline.storage import KEPT, carried, stored_bytes, weight_bytes
from roofline.times import Array, Rows, Times
from roofline.traffic import MOST_SAMPLES, Row, build_rows

_NUDGE = 0.01
_KEEP = LayerPrecision()
_Operands = tuple[Precision, Precision, str]


@dataclass(frozen=True, slots=True)
class _Traced:
    """Rows at the graph's own batch, at 1 and at the greatest that there is: enough to know them at any."""

    own: tuple[Row, ...]
    one: tuple[Row, ...]
    most: tuple[Row, ...]
    batch: int
    top: int

    @classmethod
    def of(cls, graph: OpGraph, traffic: str) -> _Traced:
        batch = graph.batch
        top = batch if graph.fixed_batch else batch * max(MOST_SAMPLES // batch, 1)
        own = build_rows(graph, traffic=traffic, batch=batch)
        most = build_rows(graph, traffic=traffic, batch=top) if top > batch else own
        one = build_rows(graph, traffic=traffic, batch=1) if top > batch > 1 else own
        return cls(own, one, most, batch, top)


class _Counts:
    """Whole numbers that are linear in the batch; reads of a lookup table grow no further than it is large."""

    def __init__(
        self, rows: _Traced, chosen: Sequence[int], read: Callable[[Row], Sequence[int]], tables: Sequence[bool] = ()
    ) -> None:
        own, one, most = ([n for i in chosen for n in read(some[i])] for some in (rows.own, rows.one, rows.most))
        span = rows.top - rows.batch
        slopes = [(high - low) / span if span else 0.0 for low, high in zip(own, most, strict=True)]
        full = [t and first < last < first * rows.top for first, last, t in zip(one, most, tables, strict=False)]
        self._own, self._one, self._most, self._slope = (
            np.array(numbers, dtype=np.float64).reshape(-1, 1) for numbers in (own, one, most, slopes)
        )
        self._full, self._batch = np.flatnonzero(full), rows.batch

    def at(self, batches: Array) -> Array:
        """Return them at batches, [N, B]."""
        found = np.floor(self._own + self._slope * (batches - self._batch) + _NUDGE)
        found[self._full] = np.minimum(self._one[self._full] * batches, self._most[self._full])
        return found


class _Cells:
    """Distinct (row, format) pairs of a grid: the tensors that they move, and in which formats."""

    def __init__(self, grid: Grid, cells: Sequence[tuple[int, LayerPrecision]]) -> None:
        own = [grid.place_of_moved[kind] for kind, _ in cells]
        self.size = len(cells)
        self.rows = np.array([kind for kind, _ in cells], dtype=np.intp)
        self.places = np.concatenate(own) if own else np.zeros(0, dtype=np.intp)
        self.owners = np.repeat(np.arange(len(cells)), [len(places) for places in own])
        self.parts = grid.part_of_moved[self.places]
        self.cached = np.flatnonzero(grid.is_cache[self.places])
        self.passing = np.flatnonzero(self.parts > 0)
        self.operands = [_operands(grid.samples[kind], formats) for kind, formats in cells]
        kinds: dict[Precision | int, list[int]] = {}
        for index, (place, owner) in enumerate(zip(self.places.tolist(), self.owners.tolist(), strict=True)):
            kinds.setdefault(carried(grid.moved[place], cells[owner][1]), []).append(index)
        self.kinds = {kind: np.array(those, dtype=np.intp) for kind, those in kinds.items()}

    def sizes(self, elements: Array, channels: Array, *, scales: bool) -> Array:
        """Return the bytes of every tensor, [M, B]."""
        found = np.zeros((len(self.places), elements.shape[1]))
        for kind, those in self.kinds.items():
            at = self.places[those]
            found[those] = stored_bytes(kind, elements[at], channels[at], scales=scales)
        return found


@dataclass(frozen=True, slots=True)
class _Formatted:
    """What a scheme gives the rows of a grid, and how often each distinct (row, format) pair stands there."""

    formats: list[LayerPrecision]
    cells: _Cells
    counts: Array
    weight_bytes: int
    changes: list[list[int]]
    widths: Array


class Grid:
    """The rows of one graph, ready to be priced at any batch; rows that are alike are priced once."""

    def __init__(self, graph: OpGraph, *, traffic: str = "fused", scales: bool | None = None) -> None:
        """Build the rows.

        Args:
            graph: The graph; one of a fixed batch is priced at that batch alone.
            traffic: ``paper``, ``unfused`` or ``fused``.
            scales: Whether scales of formats are counted; by default in all but ``paper`` traffic.

        Raises:
            InputError: An unknown traffic model.
        """
        self.graph, self.traffic = graph, traffic
        self.scales = traffic != "paper" if scales is None else scales
        traced = _Traced.of(graph, traffic)
        self.rows, self.at_most = traced.own, traced.most
        kinds: dict[tuple[object, ...], int] = {}
        self._kind_of, chosen = [], []
        for index, (row, top) in enumerate(zip(self.rows, self.at_most, strict=True)):
            key = row.kind, row.macs, row.vector_flops, row.moved, top.macs, top.vector_flops, top.moved
            if key not in kinds:
                kinds[key] = len(kinds)
                chosen.append(index)
            self._kind_of.append(kinds[key])
        self.samples = [self.rows[index] for index in chosen]
        self.moved = [moved for row in self.samples for moved in row.moved]
        sizes = [len(row.moved) for row in self.samples]
        self.place_of_moved = np.split(np.arange(len(self.moved)), np.cumsum(sizes)[:-1]) if sizes else []
        parts = [_part(moved.role, reusable=moved.reusable) for moved in self.moved]
        self.part_of_moved = np.array(parts, dtype=np.intp)
        self.is_cache = np.array([moved.role == "kv" for moved in self.moved], dtype=bool)
        tables = [moved.role == "weight" for moved in self.moved]
        self.macs = _Counts(traced, chosen, lambda row: [row.macs])
        self.vector = _Counts(traced, chosen, lambda row: [row.vector_flops])
        self.elements = _Counts(traced, chosen, lambda row: [m.elements for m in row.moved], tables)
        self.channels = _Counts(traced, chosen, lambda row: [max(m.channels, 1) for m in row.moved], tables)
        self.sources = _Counts(traced, range(len(self.rows)), lambda row: [s.elements for s in row.sources])
        self._schemes: dict[Scheme, _Formatted] = {}

    def at(self, batches: Sequence[int]) -> Loads:
        """Return what the rows compute and move at batches, free of formats.

        Raises:
            InputError: The graph holds for its own batch alone, and another is asked for.
        """
        if self.graph.fixed_batch and set(batches) != {self.graph.batch}:
            raise InputError(
                f"the graph of {self.graph.model} holds for batch {self.graph.batch} alone, got "
                f"{', '.join(map(str, batches))}. Next: build the graph at each batch."
            )
        return Loads(self, tuple(batches))

    def formatted(self, scheme: Scheme) -> _Formatted:
        """Return what a scheme gives the rows."""
        if scheme not in self._schemes:
            resolved = resolve(self.graph, scheme)
            formats = [format_of(row, resolved, scheme) for row in self.rows]
            counts: dict[tuple[int, LayerPrecision], int] = {}
            for cell in zip(self._kind_of, formats, strict=True):
                counts[cell] = counts.get(cell, 0) + 1
            stored = sum(
                weight_bytes(owned.values(), resolved[layer], scales=self.scales)
                for layer, owned in self.graph.weight_elements().items()
            )
            numbers = np.array(list(counts.values()), dtype=np.float64)
            changes = self._changes(formats)
            widths = np.array([bits for _, _, *bits in changes], dtype=np.float64).reshape(-1, 2)
            self._schemes[scheme] = _Formatted(
                formats, _Cells(self, list(counts)), numbers, stored, list(changes.values()), widths
            )
        return self._schemes[scheme]

    def _changes(self, formats: Sequence[LayerPrecision]) -> dict[tuple[int, ...], list[int]]:
        """Return which tensors change format between rows, those that are alike together; only ``unfused`` pays."""
        changes: dict[tuple[int, ...], list[int]] = {}
        if self.traffic == "unfused":
            tops = [source.elements for row in self.at_most for source in row.sources]
            pairs = [(source, index) for index, row in enumerate(self.rows) for source in row.sources]
            for place, ((source, consumer), top) in enumerate(zip(pairs, tops, strict=True)):
                native = Precision(source.dtype, source.bits)
                written, read = (formats[row].activations or native for row in (source.row, consumer))
                if source.is_float and written.name != read.name:
                    changes.setdefault((top, source.elements, written.bits, read.bits), []).append(place)
        return changes

    @cached_property
    def as_traced(self) -> tuple[_Cells, Array]:
        """The rows in their native formats, and how often each stands in the model."""
        cells = _Cells(self, [(kind, _KEEP) for kind in range(len(self.samples))])
        return cells, np.bincount(self._kind_of, minlength=cells.size).astype(np.float64)

    @cached_property
    def whole(self) -> Grid:
        """The grid that memory is counted on: ``paper`` traffic leaves out rows that hold tensors."""
        return Grid(self.graph, scales=self.scales) if self.traffic == "paper" else self

    @cached_property
    def live(self) -> Liveness:
        """When tensors are alive."""
        return Liveness(self.graph, self.rows, fused=self.traffic != "unfused")


class Loads:
    """What the rows of a grid compute and move at B batches, free of formats."""

    def __init__(self, grid: Grid, batches: tuple[int, ...]) -> None:
        many = np.array(batches, dtype=np.float64)
        self.grid, self.batches = grid, batches
        self.macs, self.vector = grid.macs.at(many), grid.vector.at(many)
        self.elements, self.channels = grid.elements.at(many), grid.channels.at(many)
        self._many = many

    def under(self, scheme: Scheme) -> Load:
        """Return the loads under a scheme.

        Raises:
            UnknownNameError: The scheme names a layer that the graph has not.
            SchemeError: It names a module whose layers have names of their own.
        """
        grid, found = self.grid, self.grid.formatted(scheme)
        cells, counts = found.cells, found.counts[:, None]
        sizes = cells.sizes(self.elements, self.channels, scales=grid.scales)
        parts = np.zeros((3, cells.size, len(self.batches)))
        np.add.at(parts, (cells.parts, cells.owners), sizes)
        macs, vector = self.macs[cells.rows], self.vector[cells.rows]
        converted = np.zeros((0, len(self.batches)))
        changes = np.array([len(places) for places in found.changes], dtype=np.float64)
        if found.changes:
            elements = grid.sources.at(self._many)[[places[0] for places in found.changes]]
            converted = np.ceil(elements * found.widths[:, :1] / 8) + np.ceil(elements * found.widths[:, 1:] / 8)
        return Load(
            scheme,
            self,
            found.counts,
            2 * macs,
            vector,
            parts,
            cells.operands,
            ((2 * macs + vector) * counts).sum(axis=0),
            (parts.sum(axis=0) * counts).sum(axis=0) + (converted * changes[:, None]).sum(axis=0),
            (sizes[cells.cached] * counts[cells.owners[cells.cached]]).sum(axis=0),
            converted,
            changes,
        )

    @cached_property
    def beside_weights(self) -> Array:
        """Bytes of the largest row's activations, constants and cache in native formats, [B]."""
        cells, counts = self.grid.as_traced
        sizes = cells.sizes(self.elements, self.channels, scales=False)
        held = np.zeros((max(cells.size, 1), len(self.batches)))
        np.add.at(held, cells.owners[cells.passing], sizes[cells.passing])
        kv = (sizes[cells.cached] * counts[cells.owners[cells.cached]][:, None]).sum(axis=0)
        found: Array = held.max(axis=0) + self.grid.graph.constant_bytes + kv
        return found


@dataclass(frozen=True, eq=False)
class Load:
    """What rows under one scheme compute and move at B batches, before any machine is chosen.

    Attributes:
        scheme: The scheme.
        loads: Its rows, free of formats.
        counts: How often each of R distinct rows stands in the model, [R].
        matrix: FLOPs of matrix work, [R, B].
        vector: Element-wise FLOPs, [R, B].
        parts: Bytes kept between passes, activations that rows pass on, and other activations, [3, R, B].
        operands: Formats that matrix work multiplies, and what the first is; ``None`` where there is none.
        flops: FLOPs of a pass, [B].
        bytes: Bytes moved by a pass, [B].
        kv_bytes: Bytes of the key-value cache that rows move, [B].
        converted: Bytes of each of E conversions of format, [E, B].
        conversions: How often each stands in the model, [E].
    """

    scheme: Scheme
    loads: Loads = field(repr=False)
    counts: Array
    matrix: Array
    vector: Array
    parts: Array
    operands: list[_Operands | None]
    flops: Array
    bytes: Array
    kv_bytes: Array
    converted: Array
    conversions: Array

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weights take in memory."""
        return self.loads.grid.formatted(self.scheme).weight_bytes

    @cached_property
    def memory(self) -> tuple[Array, Array, Array]:
        """Bytes of memory that a pass needs in all, of them the cache, and the peak of activations, [B] each."""
        whole = self.loads.grid.whole
        kv = self.kv_bytes if whole is self.loads.grid else whole.at(self.loads.batches).under(self.scheme).kv_bytes
        formats = whole.formatted(self.scheme).formats
        activations, _ = whole.live.peaks(formats, self.loads.batches, scales=whole.scales)
        total: Array = self.weight_bytes + whole.graph.constant_bytes + kv + activations
        return total, kv, activations

    def leading_ceiling(self, hardware: HardwareSpec) -> CeilingChoice:
        """Return the ceiling that most FLOPs of matrix work run on; without any, that of element-wise work.

        Raises:
            MissingCeilingError: The machine states none that they could run on.
        """
        work = (self.matrix * self.counts[:, None]).sum(axis=1).tolist()
        found = {vector_ceiling(hardware).format: (0.0, vector_ceiling(hardware))}
        for key, flops in zip(self.operands, work, strict=True):
            if key:
                choice = choose_ceiling(*key[:2], hardware, first=key[2])
                found[choice.format] = found.get(choice.format, (0.0, choice))[0] + flops, choice
        return max(found.values(), key=lambda each: each[0])[1]

    def on(self, hardware: HardwareSpec) -> Times:
        """Return the times on a machine; of a calibrated one by its kernel models, batch by batch.

        Raises:
            MissingCeilingError: The machine states no ceiling that a row could run on.
        """
        names = tuple(level.name for level in hardware.memory)
        resources = ("compute", *names, "overhead")
        if hardware.rates == "calibrated":
            return self._calibrated(hardware, resources)
        fused = self.loads.grid.traffic == "fused"
        kept, passed, other = self.parts
        inner = np.zeros(passed.shape, dtype=np.intp)
        weights = np.zeros(len(self.loads.batches), dtype=np.intp)
        held = self.parts.sum(axis=0)
        for index, level in enumerate(hardware.memory) if fused else ():
            if index and level.capacity_bytes is not None:
                inner[held <= level.capacity_bytes.value] = index
                weights[self.weight_bytes + self.loads.beside_weights <= level.capacity_bytes.value] = index
        own = len(self.counts)
        seconds = np.zeros((len(resources), own + len(self.conversions), len(self.loads.batches)))
        seconds[0, :own] = self._compute(hardware)
        for index in range(len(names)):
            crossing = other + kept * (weights <= index) + passed * (inner <= index)
            seconds[1 + index, :own] = crossing / hardware.bandwidth(index)
        seconds[1, own:] = self.converted / hardware.bandwidth(0)
        seconds[-1] = hardware.overhead_s
        return Times.of(resources, Rows(seconds, np.concatenate([self.counts, self.conversions]), own))

    def _compute(self, hardware: HardwareSpec) -> Array:
        vector = vector_ceiling(hardware)
        choices = {
            key: choose_ceiling(*key[:2], hardware, first=key[2]) if key else vector
            for key in dict.fromkeys(self.operands)
        }
        rates = np.array([[choices[key].flops_per_s] for key in self.operands]).reshape(-1, 1)
        beside = hardware.kind != "cpu"
        apart = np.array([[beside and choices[key].format != vector.format] for key in self.operands]).reshape(-1, 1)
        first, second = self.matrix / rates, self.vector / vector.flops_per_s
        return np.where(apart, np.maximum(first, second), first + second)

    def _calibrated(self, hardware: HardwareSpec, resources: tuple[str, ...]) -> Times:
        graph, traffic = self.loads.grid.graph, self.loads.grid.traffic
        found = [estimate(graph, hardware, self.scheme, batch=b, traffic=traffic) for b in self.loads.batches]
        bounds = [each.latency_by_bound for each in found]
        shares = np.array([[b.get(name, 0.0) for b in bounds] for name in (*resources, "transition")])
        return Times(resources, np.array([each.latency_s for each in found]), shares)


def _operands(row: Row, formats: LayerPrecision) -> _Operands | None:
    if row.kind not in MATRIX_KINDS or not row.macs:
        return None
    return *Pricing.operands(row, formats), "keys and values" if row.cached else "weights"


def _part(role: str, *, reusable: bool) -> int:
    """Return 0 for what is kept between passes, 1 for activations that rows pass on, 2 for other activations."""
    return 0 if role in KEPT else 1 if reusable else 2
