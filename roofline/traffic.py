"""Three models of memory traffic: which ops are priced, and what each moves.

``paper``
    Convolution and linear layers only: weights, inputs and outputs, every byte from the outermost memory. No bias, no
    normalisation, no scales: the accounting of *Arithmetic-Intensity-Aware Quantization*.
``unfused``
    Every op reads its inputs and writes its outputs in the outermost memory, as eager execution does at worst.
``fused``
    Element-wise tails and normalisations run inside the op that produced their input; each tensor that leaves such a
    group is written once and read by each consumer, from the innermost memory level that holds the consumer's working
    set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from roofline.errors import InputError
from roofline.graph import CONV_KINDS, FOLDABLE_KINDS, Op, OpGraph, Role, TensorSpec

Traffic = Literal["paper", "unfused", "fused"]
TRAFFIC_MODELS: tuple[str, ...] = get_args(Traffic)
_NOT_A_PRODUCER = frozenset({"unknown", "fill"})


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


@dataclass(frozen=True, slots=True)
class Row:
    """One row of an estimate: an op, or a fused group named after the op that leads it.

    ``anchor`` is the weighted layer whose formats the row takes: its own, or for a row without weights that of the
    nearest producer. ``sources`` are the rows it reads from, with the elements read.
    """

    name: str
    kind: str
    layer: str
    anchor: str
    macs: int
    vector_flops: int
    moved: tuple[Moved, ...]
    sources: tuple[tuple[int, int], ...]
    members: tuple[str, ...]
    note: str

    @property
    def weighted(self) -> bool:
        """Whether the row reads quantizable weights."""
        return any(m.role == "weight" for m in self.moved)


def build_rows(graph: OpGraph, *, traffic: str, batch: int) -> tuple[Row, ...]:
    """Turn a graph into the rows that a traffic model prices, at a batch.

    Raises:
        InputError: An unknown traffic model, or a batch below 1.
    """
    if traffic not in TRAFFIC_MODELS:
        raise InputError(f"unknown traffic model {traffic!r}: known: {', '.join(TRAFFIC_MODELS)}. Next: choose one.")
    if batch < 1:
        raise InputError(f"batch must be a whole number of at least 1, got {batch}. Next: choose one.")
    if traffic == "paper":
        groups = [[op] for op in graph if op.weighted and (op.kind in CONV_KINDS or op.kind == "linear")]
    elif traffic == "unfused":
        groups = [[op] for op in graph]
    else:
        groups = _fuse(graph)
    return _rows(graph, groups, traffic, batch)


def _fuse(graph: OpGraph) -> list[list[Op]]:
    """Fold each element-wise op or normalisation into the group of its latest producer."""
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
    producers = [p for t in op.tensors for p in t.producers]
    if not producers:
        return None
    latest = graph.ops[max(producers)]
    size = sum(t.elements for t in op.role("output"))
    if latest.kind in _NOT_A_PRODUCER or size not in {t.elements for t in latest.role("output")}:
        return None
    group = group_of[latest.index]
    return group if all(group_of[p] <= group for p in producers) else None


def _rows(graph: OpGraph, groups: Sequence[Sequence[Op]], traffic: str, batch: int) -> tuple[Row, ...]:
    row_of = {op.index: r for r, group in enumerate(groups) for op in group}
    read_elsewhere = _read_outside(graph, row_of) if traffic == "fused" else None
    first_layer = graph.layers[0] if graph.layers else ""
    rows: list[Row] = []
    for index, group in enumerate(groups):
        lead = group[0]
        tensors = list(_outside(group, row_of, index, graph, read_elsewhere, paper=traffic == "paper"))
        sources: dict[int, int] = {}
        for tensor in tensors:
            for producer in {row_of[p] for p in tensor.producers if p in row_of} - {index}:
                sources[producer] = sources.get(producer, 0) + _scaled(tensor, graph.batch, batch)
        anchor = lead.layer if lead.weighted else next((rows[s].anchor for s in sources if s < index), first_layer)
        moved = tuple(
            Moved(
                t.role,
                _scaled(t, graph.batch, batch),
                t.bits,
                t.dtype,
                t.is_float,
                _channels(t, graph.batch, batch),
                reusable,
            )
            for t, reusable in ((t, traffic == "fused" and _stays(t, group, graph)) for t in tensors)
        )
        grow = lambda op, n: n * batch // graph.batch if op.batched else n  # noqa: E731
        rows.append(
            Row(
                lead.name,
                lead.kind,
                lead.layer,
                anchor,
                sum(grow(op, op.macs) for op in group),
                0 if traffic == "paper" else sum(grow(op, op.vector_flops) for op in group),
                moved,
                tuple(sources.items()),
                tuple(op.name for op in group),
                "; ".join(op.note for op in group if op.note),
            )
        )
    return tuple(rows)


def _read_outside(graph: OpGraph, row_of: dict[int, int]) -> set[int]:
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
    group: Sequence[Op], row_of: dict[int, int], index: int, graph: OpGraph, leaving: set[int] | None, *, paper: bool
) -> Iterable[TensorSpec]:
    """Yield the tensors that a group moves: what it reads from outside, once each, and what leaves it."""
    seen: set[tuple[object, ...]] = set()
    for op in group:
        for tensor in op.tensors:
            if paper and tensor.role in {"parameter", "state"}:
                continue
            if tensor.role == "output":
                if leaving is None or op.index in leaving:
                    yield tensor
                continue
            if tensor.producers and len(group) > 1 and all(row_of[p] == index for p in tensor.producers):
                continue
            identity = (tensor.producers or tensor.name, tensor.shape)
            if len(group) > 1 and (tensor.producers or tensor.name):
                if identity in seen:
                    continue
                seen.add(identity)
            yield tensor


def _stays(tensor: TensorSpec, group: Sequence[Op], graph: OpGraph) -> bool:
    """Tell whether an activation passes between rows; the model's own inputs and results cross the outermost memory."""
    if tensor.role == "input":
        return bool(tensor.producers)
    if tensor.role == "output":
        return not any(op.index in graph.outputs and tensor in op.tensors for op in group)
    return False


def _scaled(tensor: TensorSpec, traced: int, batch: int) -> int:
    if not tensor.batched:
        return tensor.elements
    grown = tensor.elements * batch // traced
    return min(grown, tensor.stored) if tensor.role == "weight" else grown


def _channels(tensor: TensorSpec, traced: int, batch: int) -> int:
    return tensor.channels * batch // traced if tensor.batched and tensor.role == "weight" else tensor.channels
