"""Three models of memory traffic: which ops are priced, and what each moves.

``paper``
    Convolution and linear layers only: weights, inputs and outputs, every byte from the outermost memory. No bias, no
    normalisation, no scales: the accounting of *Arithmetic-Intensity-Aware Quantization*.
``unfused``
    Every op reads its inputs and writes its outputs in the outermost memory, as eager execution does at worst.
``fused``
    Element-wise tails and normalisations run inside the op that produced their input; each tensor that leaves such a
    group is written once and read by each consumer, from the innermost memory level that holds the
    consumer's working set. Where producer and consumer have different formats each side is charged in its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from roofline.errors import InputError
from roofline.graph import CONV_KINDS, FOLDABLE_KINDS, MATRIX_KINDS, Extents, Op, OpGraph, Role, TensorSpec
from roofline.precision import Precision

Traffic = Literal["paper", "unfused", "fused"]
TRAFFIC_MODELS: tuple[str, ...] = get_args(Traffic)
MOST_SAMPLES = 10**9
_NOT_A_PRODUCER = frozenset({"unknown", "fill"})
_CLIPPING = (".relu", "relu6", "hardtanh", "clamp", ".Relu", ".Clip")


@dataclass(frozen=True, slots=True)
class Moved:
    """One tensor that a row moves at the batch in question; ``reusable`` ones may stay in an inner memory level."""

    role: Role
    elements: int
    bits: int
    dtype: str
    is_float: bool
    channels: int
    reusable: bool
    native: Precision | None = None


class Source(NamedTuple):
    """What a row reads from another: row index, elements, and the traced format of the tensor between them."""

    row: int
    elements: int
    dtype: str
    bits: int
    is_float: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One row of an estimate: an op, or a fused group named after the op that leads it.

    ``anchor`` is the weighted layer whose formats the row takes: that of its module, or for a row without weights that
    of the first row it reads from. ``sources`` are the rows it reads from. ``extents`` is the shape of the leading op's
    matrix work, or of other work as ``m`` rows of ``k`` values; ``None`` where it has none to speak of.
    """

    name: str
    kind: str
    layer: str
    anchor: str
    macs: int
    vector_flops: int
    moved: tuple[Moved, ...]
    sources: tuple[Source, ...]
    members: tuple[str, ...]
    note: str
    extents: Extents | None = None
    variant: str = ""
    samples: int = 1
    roundable: bool = False

    @property
    def weighted(self) -> bool:
        """Whether the row reads quantizable weights."""
        return any(m.role == "weight" for m in self.moved)

    @property
    def cached(self) -> bool:
        """Whether the row reads or writes a key-value cache."""
        return any(m.role == "kv" for m in self.moved)


def build_rows(graph: OpGraph, *, traffic: str, batch: int) -> tuple[Row, ...]:
    """Turn a graph into the rows that a traffic model prices, at a batch.

    Raises:
        InputError: An unknown traffic model, a batch below 1, or another than that of a graph of fixed batch.
    """
    if traffic not in TRAFFIC_MODELS:
        raise InputError(f"unknown traffic model {traffic!r}: known: {', '.join(TRAFFIC_MODELS)}. Next: choose one.")
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= MOST_SAMPLES:
        raise InputError(f"batch must be a whole number of at least 1, got {batch}. Next: choose one.")
    if graph.fixed_batch and batch != graph.batch:
        raise InputError(
            f"the graph of {graph.model} holds for batch {graph.batch} alone, since what it reads is not proportional "
            f"to the batch, and batch {batch} was asked of it. Next: build the graph at that batch."
        )
    if traffic == "paper":
        groups = [[op] for op in graph if op.weighted and (op.kind in CONV_KINDS or op.kind == "linear")]
    elif traffic == "unfused":
        groups = [[op] for op in graph]
    else:
        groups = _fuse(graph)
    return _rows(graph, groups, traffic, batch)


def _fuse(graph: OpGraph) -> list[list[Op]]:
    """Fold each element-wise op or normalisation into the latest group that it reads from.

    Every op then reads from its own group or earlier ones, so groups can run in order.
    """
    group_of: dict[int, int] = {}
    groups: list[list[Op]] = []
    for op in graph:
        target = _fold_target(op, graph, group_of) if op.kind in FOLDABLE_KINDS else None
        if target is None:
            target = len(groups)
            groups.append([])
        groups[target].append(op)
        group_of[op.index] = target
    return groups


def _fold_target(op: Op, graph: OpGraph, group_of: dict[int, int]) -> int | None:
    """Return the group that an op can run inside: the latest it reads from, if it is element-wise over what that made.

    A reduction over the last axis folds too, as the first half of a normalisation written by hand.
    """
    producers = [p for t in op.tensors for p in t.producers]
    if not producers:
        return None
    group = max(group_of[p] for p in producers)
    made = [graph.ops[p] for p in producers if group_of[p] == group]
    if any(m.kind in _NOT_A_PRODUCER for m in made):
        return None
    outputs, results = op.role("output"), [t for m in made for t in m.role("output")]
    if op.kind == "reduction":
        rows = {shape for t in results if len(t.shape) > 1 for shape in (t.shape[:-1], (*t.shape[:-1], 1))}
        return group if outputs and outputs[0].shape in rows else None
    size = sum(t.elements for t in outputs), any(t.batched for t in outputs)
    return group if size in {(t.elements, t.batched) for t in results} else None


def _rows(graph: OpGraph, groups: Sequence[Sequence[Op]], traffic: str, batch: int) -> tuple[Row, ...]:
    row_of = {op.index: r for r, group in enumerate(groups) for op in group}
    leaving = read_outside(graph, row_of) if traffic == "fused" else None
    readers = _readers(graph) if traffic == "fused" else {}
    layers = frozenset(graph.layers)
    first_layer = graph.layers[0] if graph.layers else ""
    rows: list[Row] = []
    for index, group in enumerate(groups):
        lead = group[0]
        moved: list[Moved] = []
        sources: dict[tuple[int, str], Source] = {}
        for op, tensor in _outside(group, row_of, index, leaving, paper=traffic == "paper"):
            elements = _scaled(tensor, graph.batch, batch)
            channels = elements * tensor.channels // tensor.elements if tensor.elements else 1
            reusable = traffic == "fused" and _stays(op, tensor, graph)
            spec = tensor.role, elements, tensor.bits, tensor.dtype, tensor.is_float
            moved.append(Moved(*spec, channels, reusable, tensor.native))
            for producer in sorted({row_of[p] for p in tensor.producers if p in row_of} - {index}):
                key = producer, tensor.dtype
                before = sources[key].elements if key in sources else 0
                sources[key] = Source(producer, before + elements, tensor.dtype, tensor.bits, tensor.is_float)
        anchor = next((rows[s.row].anchor for s in sources.values() if s.row < index), first_layer)
        rows.append(
            Row(
                lead.name,
                lead.kind,
                lead.layer,
                lead.layer if lead.layer in layers else anchor,
                sum(_grown(op, op.macs, graph.batch, batch) for op in group),
                0 if traffic == "paper" else sum(_grown(op, op.vector_flops, graph.batch, batch) for op in group),
                tuple(moved),
                tuple(sources.values()),
                tuple(op.name for op in group),
                "; ".join(op.note for op in group if op.note),
                _extents(lead, graph.batch, batch),
                lead.variant,
                batch if lead.kind in CONV_KINDS and lead.batched else 1,
                traffic == "fused" and _roundable(lead, graph, readers),
            )
        )
    return tuple(rows)


def _readers(graph: OpGraph) -> dict[int, list[Op]]:
    """Return the ops that read each op's result."""
    found: dict[int, list[Op]] = {}
    for op in graph:
        for producer in {p for tensor in op.tensors for p in tensor.producers}:
            found.setdefault(producer, []).append(op)
    return found


def _roundable(op: Op, graph: OpGraph, readers: Mapping[int, Sequence[Op]]) -> bool:
    """Tell whether only matrix work reads the result of an op, through normalisation and clipping at most."""
    while op.kind in MATRIX_KINDS or op.kind == "batch_norm" or _clips(op):
        found = readers.get(op.index, ())
        if not found or op.index in graph.outputs:
            return False
        if all(reader.kind in MATRIX_KINDS for reader in found):
            return True
        if len(found) > 1:
            return False
        op = found[0]
    return False


def _clips(op: Op) -> bool:
    return op.kind == "elementwise" and any(word in op.target for word in _CLIPPING)


def read_outside(graph: OpGraph, row_of: dict[int, int]) -> set[int]:
    """Return the ops whose output leaves their group: read by another row, returned, or read by nobody."""
    readers: dict[int, set[int]] = {}
    for op in graph:
        for tensor in op.tensors:
            for producer in tensor.producers:
                readers.setdefault(producer, set()).add(row_of[op.index])
    return {
        op.index for op in graph if op.index in graph.outputs or readers.get(op.index, {None}) != {row_of[op.index]}
    }


def _outside(
    group: Sequence[Op], row_of: dict[int, int], index: int, leaving: set[int] | None, *, paper: bool
) -> Iterator[tuple[Op, TensorSpec]]:
    """Yield the tensors that a group moves: what it reads from outside, once each, and what leaves it."""
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for op in group:
        for tensor in op.tensors:
            if paper and tensor.role in {"parameter", "state"}:
                continue
            if tensor.role == "output":
                if leaving is None or op.index in leaving:
                    yield op, tensor
                continue
            identity = tensor.identity, tensor.producers
            inside = tensor.producers and len(group) > 1 and all(row_of[p] == index for p in tensor.producers)
            if not inside and identity not in seen:
                seen.add(identity)
                yield op, tensor


def _stays(op: Op, tensor: TensorSpec, graph: OpGraph) -> bool:
    """Tell whether an activation passes between rows; the model's own inputs and results cross the outermost memory."""
    if tensor.role == "input":
        return bool(tensor.producers)
    return tensor.role == "output" and op.index not in graph.outputs


def _extents(op: Op, traced: int, batch: int) -> Extents | None:
    """Return the extents of an op's matrix work at a batch, or of its output as rows along the last axis."""
    found = op.extents
    if found is None and not op.macs:
        output = next((t for t in op.tensors if t.role == "output"), None)
        length = output.shape[-1] if output and output.shape else 1
        found = Extents(1, output.elements // length, 1, length) if output and length else None
    return found.scaled(traced, batch) if found and op.batched else found


def _grown(op: Op, count: int, traced: int, batch: int) -> int:
    return count * batch // traced if op.batched else count


def _scaled(tensor: TensorSpec, traced: int, batch: int) -> int:
    grown = tensor.elements * batch // traced if tensor.batched else tensor.elements
    return min(grown, tensor.stored) if tensor.role == "weight" else grown
