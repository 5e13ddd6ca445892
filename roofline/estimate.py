"""The estimate: FLOPs, bytes and the time of each resource for every row; the bound is the slowest resource."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hardware_specs import HardwareSpec
from roofline.ceiling import CeilingChoice, choose_ceiling, vector_ceiling
from roofline.graph import MATRIX_KINDS, OpGraph
from roofline.precision import FLOAT_BITS, LayerPrecision, Precision
from roofline.scheme import Scheme
from roofline.traffic import Moved, Row, Traffic, build_rows

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class LayerEstimate:
    """One row: what it computes and moves, and how long each resource needs for it.

    Attributes:
        name: Row name (see ``roofline.traffic.Row``).
        kind: Op kind of the leading op.
        layer: Module that a scheme's pattern names.
        members: Ops folded into the row.
        macs: Multiply-accumulates.
        flops: 2 · macs + element-wise and reduction FLOPs.
        bytes_by_role: Bytes moved as weight, parameter, state, input and output.
        bytes_by_level: Bytes that cross each memory level, outermost first.
        seconds: Seconds of each resource alone: ``compute``, each memory level, ``overhead``.
        precision: Formats of weights and activations.
        ceiling: Compute ceiling the row runs on.
        bandwidths: Bandwidth of each memory level in bytes/s, outermost first.
        reason: Why the ceiling is not that of the stored format; further notes.
    """

    name: str
    kind: str
    layer: str
    members: tuple[str, ...]
    macs: int
    flops: int
    bytes_by_role: dict[str, int]
    bytes_by_level: dict[str, int]
    seconds: dict[str, float]
    precision: str
    ceiling: CeilingChoice
    bandwidths: tuple[float, ...]
    reason: str = ""

    @cached_property
    def bytes(self) -> int:
        """Bytes read and written, wherever they come from."""
        return sum(self.bytes_by_role.values())

    @property
    def arithmetic_intensity(self) -> float:
        """FLOPs per byte read or written."""
        return self.flops / self.bytes if self.bytes else 0.0

    @cached_property
    def latency_s(self) -> float:
        """Time of the slowest resource in seconds."""
        return max(self.seconds.values())

    @cached_property
    def resource(self) -> str:
        """The slowest resource: ``compute``, a memory level, or ``overhead``."""
        return max(self.seconds, key=self.seconds.__getitem__)

    @property
    def bound(self) -> str:
        """``compute``, ``memory`` or ``overhead``."""
        return self.resource if self.resource in {"compute", "overhead"} else "memory"

    @property
    def level(self) -> str | None:
        """The memory level that binds, where memory does."""
        return self.resource if self.bound == "memory" else None

    @property
    def ridge(self) -> float:
        """FLOP/byte at which the row's ceiling meets the memory level that binds (the outermost where none does)."""
        levels = list(self.bytes_by_level)
        return self.ceiling.flops_per_s / self.bandwidths[levels.index(self.resource) if self.level else 0]

    @property
    def headroom(self) -> float | None:
        """How many times faster the row would be if its bound resource were free; ``None`` if nothing else takes time."""
        rest = [s for name, s in self.seconds.items() if name != self.resource]
        return self.latency_s / max(rest) if max(rest, default=0.0) > 0 else None


@dataclass(frozen=True)
class Transition:
    """A tensor whose producer writes another format than its consumer reads.

    In ``unfused`` traffic it is an op of its own, which reads one format and writes the other; in ``fused`` traffic the
    conversion runs inside its neighbours and costs nothing more.
    """

    producer: str
    consumer: str
    elements: int
    source: str
    target: str
    bytes: int
    latency_s: float


@dataclass(frozen=True, eq=False)
class GraphEstimate:
    """The estimate of a whole model: rows, format transitions, and what was assumed."""

    graph: OpGraph = field(repr=False)
    hardware: HardwareSpec = field(repr=False)
    scheme: Scheme
    batch: int
    traffic: str
    layers: tuple[LayerEstimate, ...] = field(repr=False)
    transitions: tuple[Transition, ...] = field(repr=False)
    latency_s: float
    weight_bytes: int
    assumptions: tuple[str, ...] = field(repr=False)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of all rows."""
        return sum(layer.macs for layer in self.layers)

    @cached_property
    def flops(self) -> int:
        """FLOPs of all rows."""
        return sum(layer.flops for layer in self.layers)

    @cached_property
    def bytes(self) -> int:
        """Bytes moved by all rows and transitions."""
        return sum(layer.bytes for layer in self.layers) + sum(t.bytes for t in self.transitions)

    @property
    def arithmetic_intensity(self) -> float:
        """FLOPs per byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def throughput_per_s(self) -> float:
        """Samples per second: batch over latency."""
        return self.batch / self.latency_s if self.latency_s else 0.0

    @cached_property
    def latency_by_bound(self) -> dict[str, float]:
        """Seconds of the rows bound by each resource, largest first."""
        found: dict[str, float] = {}
        for layer in self.layers:
            found[layer.resource] = found.get(layer.resource, 0.0) + layer.latency_s
        for transition in self.transitions:
            if transition.latency_s:
                found["transition"] = found.get("transition", 0.0) + transition.latency_s
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @cached_property
    def coverage(self) -> dict[str, Any]:
        """How much of the model the estimate prices, and how much of that by bytes alone."""
        unknown = [layer for layer in self.layers if layer.kind == "unknown"]
        priced = sum(len(layer.members) for layer in self.layers)
        return {
            "ops": len(self.graph),
            "priced_ops": priced,
            "left_out_ops": len(self.graph) - priced,
            "free_ops": self.graph.free_ops,
            "unknown_ops": len(unknown),
            "unknown_bytes_share": sum(u.bytes for u in unknown) / self.bytes if self.bytes else 0.0,
            "unknown_latency_share": sum(u.latency_s for u in unknown) / self.latency_s if self.latency_s else 0.0,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain data in SI units: the JSON of ``aiq roofline``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.graph.model,
            "hardware": self.hardware.name,
            "rates": self.hardware.rates,
            "scheme": str(self.scheme),
            "scheme_digest": self.scheme.digest(),
            "batch": self.batch,
            "traffic": self.traffic,
            "flops": self.flops,
            "macs": self.macs,
            "bytes": self.bytes,
            "weight_bytes": self.weight_bytes,
            "arithmetic_intensity": self.arithmetic_intensity,
            "latency_s": self.latency_s,
            "throughput_per_s": self.throughput_per_s,
            "latency_s_by_bound": self.latency_by_bound,
            "coverage": self.coverage,
            "unknown_ops": self.graph.unknown,
            "assumptions": list(self.assumptions),
            "transitions": [
                {
                    "producer": t.producer,
                    "consumer": t.consumer,
                    "elements": t.elements,
                    "source": t.source,
                    "target": t.target,
                    "bytes": t.bytes,
                    "latency_s": t.latency_s,
                }
                for t in self.transitions
            ],
            "layers": [self._row(layer) for layer in self.layers],
        }

    def _row(self, layer: LayerEstimate) -> dict[str, Any]:
        return {
            "name": layer.name,
            "kind": layer.kind,
            "layer": layer.layer,
            "members": list(layer.members),
            "macs": layer.macs,
            "flops": layer.flops,
            "bytes": layer.bytes,
            "bytes_by_role": layer.bytes_by_role,
            "bytes_by_level": layer.bytes_by_level,
            "arithmetic_intensity": layer.arithmetic_intensity,
            "ridge": layer.ridge,
            "bound": layer.bound,
            "level": layer.level,
            "seconds": layer.seconds,
            "latency_s": layer.latency_s,
            "share": layer.latency_s / self.latency_s if self.latency_s else 0.0,
            "headroom": layer.headroom,
            "precision": layer.precision,
            "computes_in": layer.ceiling.format,
            "reason": layer.reason,
        }

    def __repr__(self) -> str:
        return (
            f"GraphEstimate({self.graph.model!r} on {self.hardware.name}, {self.scheme}, batch {self.batch}, {self.traffic}: "
            f"{self.arithmetic_intensity:.2f} FLOP/byte, {self.latency_s:.3g} s)"
        )


def estimate(
    graph: OpGraph,
    hardware: HardwareSpec,
    scheme: Scheme | str | None = None,
    *,
    batch: int | None = None,
    traffic: Traffic | str = "fused",
) -> GraphEstimate:
    """Predict bound and latency of every layer: time is the slowest of compute, each memory level, and launch overhead.

    ``t(row) = max(2·MACs / ceiling, vector FLOPs / vector ceiling, bytes_m / bandwidth_m for each level m, overhead)`` and
    the model's latency is the sum over rows. On datasheet rates this is a lower bound on the time of any execution with
    the same traffic; rows do not overlap.

    Args:
        graph: From :func:`roofline.trace`.
        hardware: The machine; ``hardware.sustained()`` uses measured sustained rates where there are some.
        scheme: A scheme or its text; ``None`` keeps the model's own formats.
        batch: Samples at once; by default the traced batch. Tensors derived from the inputs scale with it.
        traffic: ``paper``, ``unfused`` or ``fused`` (see :mod:`roofline.traffic`).

    Raises:
        InputError: Batch below 1 or an unknown traffic model.
        UnknownNameError: The scheme names a layer that the graph has not.
        MissingCeilingError: The machine states no ceiling that a layer could run on.

    Source: Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009; levels as in Ilic, Pratas and Sousa,
    Cache-aware Roofline model, IEEE CAL 13(1), 2014.
    """
    chosen = Scheme.parse(scheme) if isinstance(scheme, str) else scheme or Scheme(name="as traced")
    size = graph.batch if batch is None else batch
    rows = build_rows(graph, traffic=traffic, batch=size)
    pricing = Pricing(graph, hardware, rows, traffic)
    formats = chosen.resolve(graph.layers, keep_weights=graph.keep_weights, known=[op.layer for op in graph] + [op.name for op in graph])
    row_formats = [_row_formats(row, formats, chosen) for row in rows]
    weight_bytes = sum(pricing.stored_bytes(layer, formats[layer]) for layer in graph.layers)
    level = pricing.weight_level(weight_bytes)
    layers = tuple(pricing.price(row, fmt, level) for row, fmt in zip(rows, row_formats, strict=True))
    transitions = tuple(pricing.transitions(row_formats))
    return GraphEstimate(
        graph,
        hardware,
        chosen,
        size,
        traffic,
        layers,
        transitions,
        _total_latency(pricing, layers, transitions),
        weight_bytes,
        _assumptions(graph, hardware, traffic, size, level),
    )


def _row_formats(row: Row, formats: dict[str, LayerPrecision], scheme: Scheme) -> LayerPrecision:
    if row.weighted:
        return formats[row.layer]
    return scheme.explicit(row.name) or scheme.explicit(row.layer) or formats.get(row.anchor, scheme.default)


def _total_latency(pricing: Pricing, layers: Sequence[LayerEstimate], transitions: Sequence[Transition]) -> float:
    """Add rows layer by layer, then transitions: the order in which a table of schemes adds them."""
    total = 0.0
    for indices in pricing.rows_by_anchor.values():
        part = 0.0
        for index in indices:
            part += layers[index].latency_s
        total += part
    for transition in transitions:
        total += transition.latency_s
    return total


class Pricing:
    """The cost of rows on one machine under any formats: what an estimate and a table of schemes share."""

    def __init__(self, graph: OpGraph, hardware: HardwareSpec, rows: Sequence[Row], traffic: str) -> None:
        self.hardware = hardware
        self.rows = rows
        self.traffic = traffic
        self.scales = traffic != "paper"
        self.level_names = tuple(level.name for level in hardware.memory)
        self.bandwidths = tuple(hardware.bandwidth(i) for i in range(len(hardware.memory)))
        self.capacities = tuple(level.capacity_bytes.value if level.capacity_bytes else float("inf") for level in hardware.memory)
        self.vector = vector_ceiling(hardware)
        self._weights = graph.weight_elements()
        self._ceilings: dict[tuple[Precision, Precision], CeilingChoice] = {}
        self.rows_by_anchor: dict[str, list[int]] = {layer: [] for layer in graph.layers}
        for index, row in enumerate(rows):
            self.rows_by_anchor.setdefault(row.anchor, []).append(index)
        native = [sum(_bytes(m, LayerPrecision(), scales=False) for m in row.moved if m.role != "weight") for row in rows]
        self._peak_activations = max(native, default=0)

    def stored_bytes(self, layer: str, formats: LayerPrecision) -> int:
        """Bytes that a layer's weights take in memory."""
        total = 0
        for spec in self._weights[layer].values():
            precision = formats.weights if formats.weights and spec.is_float else Precision(spec.dtype, spec.bits)
            rows = spec.stored // (spec.elements // spec.channels) if spec.elements else 1
            total += -(-precision.stored_bits(spec.stored, max(rows, 1), scales=self.scales) // 8)
        return total

    def weight_level(self, weight_bytes: float) -> int:
        """Memory level that keeps all weights from one pass to the next, beside the largest row's activations."""
        if self.traffic != "fused":
            return 0
        return self._innermost(weight_bytes + self._peak_activations)

    def _innermost(self, working_set: float) -> int:
        found = 0
        for index in range(1, len(self.capacities)):
            if self.capacities[index] >= working_set:
                found = index
        return found

    def price(self, row: Row, formats: LayerPrecision, weight_level: int) -> LayerEstimate:
        """Price one row in the given formats, with weights kept in memory level ``weight_level``."""
        by_role: dict[str, int] = {}
        sizes = []
        for moved in row.moved:
            size = _bytes(moved, formats, scales=self.scales)
            by_role[moved.role] = by_role.get(moved.role, 0) + size
            sizes.append(size)
        crossing = [0] * len(self.level_names)
        inner = self._innermost(sum(sizes)) if self.traffic == "fused" else 0
        for moved, size in zip(row.moved, sizes, strict=True):
            if moved.role in {"weight", "parameter", "state"}:
                crossing[weight_level] += size
            else:
                crossing[inner if moved.reusable else 0] += size
        for index in range(1, len(crossing)):
            crossing[index] += crossing[index - 1]
        ceiling = self._ceiling(row, formats)
        flops = 2 * row.macs
        seconds = {"compute": max(flops / ceiling.flops_per_s, row.vector_flops / self.vector.flops_per_s)}
        for name, moved_bytes, bandwidth in zip(self.level_names, crossing, self.bandwidths, strict=True):
            seconds[name] = moved_bytes / bandwidth
        seconds["overhead"] = self.hardware.overhead_s
        notes = "; ".join(filter(None, (ceiling.reason, row.note)))
        return LayerEstimate(
            row.name,
            row.kind,
            row.layer,
            row.members,
            row.macs,
            flops + row.vector_flops,
            by_role,
            dict(zip(self.level_names, crossing, strict=True)),
            seconds,
            str(formats) if row.weighted else f"-/{formats.activations or 'keep'}",
            ceiling,
            self.bandwidths,
            notes,
        )

    def _ceiling(self, row: Row, formats: LayerPrecision) -> CeilingChoice:
        if row.kind not in MATRIX_KINDS or not row.macs:
            return self.vector
        activations = formats.activations or _native(row, "input")
        weights = (formats.weights or _native(row, "weight")) if row.weighted else activations
        key = (weights, activations)
        if key not in self._ceilings:
            self._ceilings[key] = choose_ceiling(weights, activations, self.hardware)
        return self._ceilings[key]

    def transitions(self, formats: Sequence[LayerPrecision]) -> list[Transition]:
        """List the tensors that change format between two rows, ordered by the layers whose formats meet."""
        if self.traffic == "paper":
            return []
        found = (self.transition(p, c, elements, formats[p], formats[c]) for p, c, elements in self.edges)
        return [transition for transition in found if transition]

    def transition(
        self, producer: int, consumer: int, elements: int, source: LayerPrecision, target: LayerPrecision
    ) -> Transition | None:
        """Return what passing a tensor between two rows costs, or ``None`` where their formats agree."""
        written, read = self._activations(producer, source), self._activations(consumer, target)
        if written.name == read.name:
            return None
        names = self.rows[producer].name, self.rows[consumer].name
        if self.traffic != "unfused":
            return Transition(*names, elements, str(written), str(read), 0, 0.0)
        size = -(-elements * written.bits // 8) + -(-elements * read.bits // 8)
        return Transition(*names, elements, str(written), str(read), size, max(size / self.bandwidths[0], self.hardware.overhead_s))

    @cached_property
    def edges(self) -> list[tuple[int, int, int]]:
        """Row pairs that pass a floating-point tensor, with its elements, ordered by the pair of layers they follow."""
        order = {layer: i for i, layer in enumerate(self.rows_by_anchor)}
        found = [(p, c, n) for c, row in enumerate(self.rows) for p, n in row.sources if row.moved and self._floats(p)]
        return sorted(found, key=lambda e: (order[self.rows[e[0]].anchor], order[self.rows[e[1]].anchor], e[1], e[0]))

    def _floats(self, row: int) -> bool:
        return any(m.role == "output" and m.is_float for m in self.rows[row].moved)

    def _activations(self, row: int, formats: LayerPrecision) -> Precision:
        return formats.activations or _native(self.rows[row], "output")


def _native(row: Row, role: str) -> Precision:
    """Return the traced format of the row's first floating-point tensor of a role (of any, where the role has none)."""
    candidates = [m for m in row.moved if m.role == role] or list(row.moved)
    best = next((m for m in candidates if m.is_float), candidates[0])
    name = {"uint8": "int8"}.get(best.dtype, best.dtype)
    return Precision(name, FLOAT_BITS.get(name, best.bits))


def _bytes(moved: Moved, formats: LayerPrecision, *, scales: bool) -> int:
    """Bytes of one tensor: weights in the weights' format, activations in theirs, the rest never below 16-bit floats."""
    precision = None
    if moved.is_float:
        if moved.role == "weight":
            precision = formats.weights
        elif moved.role in {"input", "output"}:
            precision = formats.activations
        elif formats.activations and formats.activations.is_float and formats.activations.bits >= 16:
            precision = formats.activations
    if precision is None:
        return -(-moved.elements * moved.bits // 8)
    return -(-precision.stored_bits(moved.elements, max(moved.channels, 1), scales=scales) // 8)


def _assumptions(graph: OpGraph, hardware: HardwareSpec, traffic: str, batch: int, level: int) -> tuple[str, ...]:
    kind = "measured sustained rates where there are some" if hardware.rates == "sustained" else "datasheet peaks"
    found = [
        f"time is a lower bound from {kind} of {hardware.title}, not a measurement",
        {
            "paper": "paper traffic: convolution and linear layers only, without bias, normalisation and scales",
            "unfused": f"unfused traffic: every op reads and writes {hardware.memory[0].name}",
            "fused": "fused traffic: element-wise tails and normalisations run inside their producer",
        }[traffic],
        "1 MAC = 2 FLOP",
    ]
    if traffic == "fused" and len(hardware.memory) > 1:
        name = hardware.memory[level].name
        found.append(f"back-to-back passes: weights are read from {name}, activations from the innermost level they fit")
    if hardware.launch_overhead_s is None:
        found.append(f"no launch overhead is known for {hardware.name}: taken as 0")
    if batch != graph.batch:
        found.append(f"traced at batch {graph.batch}, scaled to {batch}")
    if traffic != "paper" and graph.unknown:
        found.append(f"{len(graph.unknown)} operators without a formula are priced by their bytes alone")
    return (*found, *graph.notes)
