"""Memory that a run needs: what the model stores, the key-value cache, and the most that is alive of activations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from roofline.precision import LayerPrecision, Precision
from roofline.storage import KEPT, carried, moved_bytes, stored_bytes
from roofline.traffic import Moved, Row, build_rows, read_outside

if TYPE_CHECKING:
    from roofline.graph import OpGraph, TensorSpec
    from roofline.result import GraphEstimate

_Key = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Memory:
    """What a pass needs of the outermost memory, in bytes.

    Attributes:
        weight_bytes: Weights in their stored formats, with scales.
        constant_bytes: Biases, normalisation parameters and buffers, in the model's own formats.
        kv_bytes: The key-value cache.
        activation_bytes: The most that is alive of activations at once.
        peak: The row during which that is; empty where no row holds any.
        capacity_bytes: Size of the outermost memory; ``None`` where it is not known.
    """

    weight_bytes: int
    constant_bytes: int
    kv_bytes: int
    activation_bytes: int
    peak: str
    capacity_bytes: float | None

    @property
    def total_bytes(self) -> int:
        """All of it together."""
        return self.weight_bytes + self.constant_bytes + self.kv_bytes + self.activation_bytes

    @property
    def spare_bytes(self) -> float | None:
        """What is left of the memory, negative where it is too small; ``None`` where its size is not known."""
        return None if self.capacity_bytes is None else self.capacity_bytes - self.total_bytes

    @property
    def fits(self) -> bool | None:
        """Whether it is enough; ``None`` where its size is not known."""
        return None if self.spare_bytes is None else self.spare_bytes >= 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data in bytes."""
        return {
            "total_bytes": self.total_bytes,
            "weight_bytes": self.weight_bytes,
            "constant_bytes": self.constant_bytes,
            "kv_bytes": self.kv_bytes,
            "activation_bytes": self.activation_bytes,
            "activation_peak": self.peak,
            "capacity_bytes": self.capacity_bytes,
            "spare_bytes": self.spare_bytes,
            "fits": self.fits,
        }


@dataclass(slots=True)
class _Tensor:
    """A piece of memory: what it holds, the row whose formats it has, and the first and last row it is alive in."""

    holds: Moved
    grows: bool
    owner: int
    first: int
    last: int


class Liveness:
    """When each tensor that rows pass on is written and last read; free of formats and of the batch.

    A tensor is alive from the row that writes it to the last row that reads it, inputs of the model from the start,
    results to the end. Views take nothing, and results written in place take what they overwrite, where the frontend
    tells (``TensorSpec.storage``). What never leaves a fused group takes nothing: it runs in place. A tensor has the
    format that its writer has in the scheme, an input of the model that of its first reader. What an op needs for
    itself (workspace, im2col) is not in the graph and not counted, nor is fragmentation.

    Source: register allocation's live ranges, as in Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net
    Inference, 2020, whose "operator breadth" bounds any placement from below.
    """

    def __init__(self, graph: OpGraph, rows: Sequence[Row], *, fused: bool) -> None:
        """Find the tensors.

        Args:
            graph: The graph that the rows are made of, all of its ops.
            rows: Rows of ``unfused`` or ``fused`` traffic.
            fused: Whether ops inside a row pass their results on without memory.
        """
        self.rows, self.traced = rows, graph.batch
        place = {name: index for index, row in enumerate(rows) for name in row.members}
        row_of = {op.index: place[op.name] for op in graph}
        leaving = read_outside(graph, row_of) if fused else set(row_of)
        kept = {t.storage for op in graph for t in op.tensors if t.role in KEPT and t.storage >= 0}
        found: dict[_Key, _Tensor] = {}
        written: dict[int, list[_Key]] = {}
        for op in graph:
            row = row_of[op.index]
            for position, tensor in enumerate(op.tensors):
                if tensor.role == "input":
                    for key in _read(tensor, found, written):
                        _extend(found, key, tensor, row, first=0)
                elif tensor.role == "output" and op.index in leaving and tensor.storage not in kept:
                    key = _storage(tensor) or ("result", op.index, position)
                    _extend(found, key, tensor, row, first=row)
                    written.setdefault(op.index, []).append(key)
        for key in (key for index in graph.outputs for key in written.get(index, ())):
            found[key].last = len(rows) - 1
        self._tensors = tuple(found.values())
        self._first = np.array([t.first for t in self._tensors], dtype=np.intp)
        self._last = np.array([t.last for t in self._tensors], dtype=np.intp)
        self._elements = np.array([[t.holds.elements] for t in self._tensors], dtype=np.float64).reshape(-1, 1)
        self._grows = np.array([[t.grows] for t in self._tensors], dtype=bool).reshape(-1, 1)

    def peaks(
        self, formats: Sequence[LayerPrecision], batches: Sequence[int], *, scales: bool = True
    ) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Return the most bytes of activations that are alive at once, and the row during which they are.

        Args:
            formats: Formats of each row.
            batches: Samples at once, [B].
            scales: Whether scales of the formats are counted.

        Returns:
            Bytes and positions of rows, [B] each.
        """
        many = np.asarray(batches, dtype=np.float64)
        if not self._tensors:
            return np.zeros(len(many)), np.zeros(len(many), dtype=np.intp)
        elements = np.where(self._grows, np.floor(self._elements * many / self.traced), self._elements)
        channels = np.maximum(np.floor(elements / np.maximum(self._elements, 1.0)), 1.0)
        kinds: dict[Precision | int, list[int]] = {}
        for index, tensor in enumerate(self._tensors):
            kinds.setdefault(carried(tensor.holds, formats[tensor.owner]), []).append(index)
        change = np.zeros((len(self.rows) + 1, len(many)))
        for kind, those in kinds.items():
            taken = stored_bytes(kind, elements[those], channels[those], scales=scales)
            np.add.at(change, self._first[those], taken)
            np.subtract.at(change, self._last[those] + 1, taken)
        alive = change.cumsum(axis=0)
        return alive.max(axis=0), alive.argmax(axis=0)


def _storage(tensor: TensorSpec) -> _Key | None:
    return None if tensor.storage < 0 else ("storage", tensor.storage, 0)


def _read(tensor: TensorSpec, found: dict[_Key, _Tensor], written: dict[int, list[_Key]]) -> Iterable[_Key]:
    """Return the pieces of memory that an input is read from; none where it never left its group."""
    key = _storage(tensor)
    if key in found:
        return [key]
    if tensor.producers:
        return [own for producer in tensor.producers for own in written.get(producer, ())]
    return [key or ("input", tensor.identity, 0)]


def _extend(found: dict[_Key, _Tensor], key: _Key, tensor: TensorSpec, row: int, *, first: int) -> None:
    """Note that a row reads or writes a piece of memory, which appears at ``first`` where it is new."""
    known = found.get(key)
    if known is None:
        size = max(tensor.elements, tensor.stored)
        holds = Moved(tensor.role, size, tensor.bits, tensor.dtype, tensor.is_float, 1, False, tensor.native)
        found[key] = _Tensor(holds, tensor.batched, row, first, row)
    else:
        known.last = max(known.last, row)


def cache_bytes(rows: Sequence[Row], formats: Sequence[LayerPrecision], *, scales: bool = True) -> int:
    """Return the size of the key-value cache: each of its entries is read or written by one row, once."""
    return sum(
        moved_bytes(moved, own, scales=scales)
        for row, own in zip(rows, formats, strict=True)
        for moved in row.moved
        if moved.role == "kv"
    )


def whole_rows(graph: OpGraph, traffic: str, batch: int) -> tuple[Row, ...]:
    """Return rows that hold every op: ``paper`` traffic leaves most out, and memory is then that of fused groups."""
    return build_rows(graph, traffic="fused" if traffic == "paper" else traffic, batch=batch)


def memory_of(estimate: GraphEstimate) -> Memory:
    """Return the memory that a pass of an estimate needs."""
    from roofline.estimate import format_of, resolve

    graph, scheme, scales = estimate.graph, estimate.scheme, estimate.traffic != "paper"
    rows = whole_rows(graph, estimate.traffic, estimate.batch)
    resolved = resolve(graph, scheme)
    formats = [format_of(row, resolved, scheme) for row in rows]
    live = Liveness(graph, rows, fused=estimate.traffic != "unfused")
    (most,), (where,) = live.peaks(formats, [estimate.batch], scales=scales)
    capacity = estimate.hardware.memory[0].capacity_bytes
    return Memory(
        estimate.weight_bytes,
        graph.constant_bytes,
        cache_bytes(rows, formats, scales=scales),
        int(most),
        rows[where].name if most else "",
        capacity.value if capacity else None,
    )
