"""What one row costs in given formats on one machine: bytes, ceiling and seconds of each resource."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hardware_specs import HardwareSpec
from roofline.ceiling import CeilingChoice, choose_ceiling, vector_ceiling
from roofline.floats import in_half
from roofline.graph import MATRIX_KINDS, OpGraph
from roofline.kernels import Kernels, Work, corrected, interval, outside, predict, work_of
from roofline.precision import FLOAT_BITS, LayerPrecision, Precision
from roofline.result import LayerEstimate, Transition
from roofline.storage import ACTIVATIONS, KEPT, moved_bytes, weight_bytes
from roofline.traffic import Row, Source


class Pricing:
    """The cost of rows on one machine under any formats: what an estimate and a table of schemes share."""

    def __init__(self, graph: OpGraph, hardware: HardwareSpec, rows: Sequence[Row], traffic: str) -> None:
        self.hardware = hardware
        self.rows = rows
        self.traffic = traffic
        self.scales = traffic != "paper"
        self.level_names = tuple(level.name for level in hardware.memory)
        self.bandwidths = tuple(hardware.bandwidth(i) for i in range(len(hardware.memory)))
        self.capacities = tuple(
            level.capacity_bytes.value if level.capacity_bytes else float("inf") for level in hardware.memory
        )
        self.vector = vector_ceiling(hardware)
        self.kernels = Kernels(hardware) if hardware.rates == "calibrated" else None
        self._weights = graph.weight_elements()
        self._ceilings: dict[tuple[Precision, Precision, str], CeilingChoice] = {}
        self.rows_by_anchor: dict[str, list[int]] = {layer: [] for layer in graph.layers}
        for index, row in enumerate(rows):
            self.rows_by_anchor.setdefault(row.anchor, []).append(index)
        keep = LayerPrecision()
        activations = [sum(moved_bytes(m, keep, scales=False) for m in r.moved if m.role in ACTIVATIONS) for r in rows]
        cached = sum(moved_bytes(m, keep, scales=False) for r in rows for m in r.moved if m.role == "kv")
        self._beside_weights = max(activations, default=0) + graph.constant_bytes + cached

    def stored_bytes(self, layer: str, formats: LayerPrecision) -> int:
        """Bytes that a layer's weights take in memory."""
        return weight_bytes(self._weights[layer].values(), formats, scales=self.scales)

    def weight_level(self, weight_bytes: float) -> int:
        """Memory level that keeps all weights and parameters between passes, beside the largest row's activations."""
        return int(self.weight_levels(np.array([weight_bytes]))[0])

    def weight_levels(self, weight_bytes: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return :meth:`weight_level` of each of many schemes, [S]."""
        found = np.zeros(len(weight_bytes), dtype=np.intp)
        for level in range(1, len(self.capacities) if self.traffic == "fused" else 1):
            found[self.capacities[level] >= weight_bytes + self._beside_weights] = level
        return found

    def most_weight_bytes(self, level: int) -> float:
        """Return the most bytes of weights that a memory level keeps between passes; the outermost keeps any."""
        return self.capacities[level] - self._beside_weights if level else float("inf")

    def _innermost(self, working_set: float) -> int:
        return max((i for i, capacity in enumerate(self.capacities) if i and capacity >= working_set), default=0)

    def price(
        self, row: Row, formats: LayerPrecision, weight_level: int, half: Precision | None = None
    ) -> LayerEstimate:
        """Price one row in the given formats, with weights kept in memory level ``weight_level``.

        With ``half`` the row takes the time that it has where the network computes in that format (see
        :func:`roofline.floats.in_half`); its bytes stay those of its own formats.
        """
        if half is not None and (ran := in_half(formats, half)) != formats:
            own, timed = self.price(row, formats, weight_level), self.price(row, ran, weight_level)
            why = f"runs in {half.name}, as all floating-point layers do"
            return replace(
                timed,
                bytes_by_role=own.bytes_by_role,
                bytes_by_level=own.bytes_by_level,
                precision=own.precision,
                reason="; ".join(filter(None, (why, timed.reason))),
            )
        by_role: dict[str, int] = {}
        sizes = []
        for moved in row.moved:
            size = moved_bytes(moved, formats, scales=self.scales)
            by_role[moved.role] = by_role.get(moved.role, 0) + size
            sizes.append(size)
        crossing = [0] * len(self.level_names)
        inner = self._innermost(sum(sizes)) if self.traffic == "fused" else 0
        for moved, size in zip(row.moved, sizes, strict=True):
            if moved.role in KEPT:
                crossing[weight_level] += size
            else:
                crossing[inner if moved.reusable else 0] += size
        for index in range(1, len(crossing)):
            crossing[index] += crossing[index - 1]
        ceiling = self._ceiling(row, formats)
        flops = 2 * row.macs
        matrix, vector = flops / ceiling.flops_per_s, row.vector_flops / self.vector.flops_per_s
        seconds = {"compute": max(matrix, vector) if self._overlap(ceiling) else matrix + vector}
        for name, crossed, bandwidth in zip(self.level_names, crossing, self.bandwidths, strict=True):
            seconds[name] = crossed / bandwidth
        seconds["overhead"] = self.hardware.overhead_s
        notes = "; ".join(filter(None, (ceiling.reason, row.note)))
        bound = LayerEstimate(
            row.name,
            row.kind,
            row.layer,
            row.members,
            row.macs,
            flops + row.vector_flops,
            by_role,
            dict(zip(self.level_names, crossing, strict=True)),
            seconds,
            self._label(row, formats),
            ceiling,
            self.bandwidths,
            notes,
        )
        return bound if self.kernels is None else self._calibrated(self.kernels, bound, row, formats)

    def _calibrated(self, kernels: Kernels, bound: LayerEstimate, row: Row, formats: LayerPrecision) -> LayerEstimate:
        """Return the row under its kernel model; where there is none, the bound, marked as such."""
        matrix = row.kind in MATRIX_KINDS
        found = kernels.find(row, *self.operands(row, formats))
        if isinstance(found, str):
            return replace(bound, lacking=found)
        work = work_of(row, bound.bytes)
        times = corrected(found.model, work)
        level = max(self.level_names, key=bound.seconds.__getitem__)
        ceiling = bound.ceiling
        if matrix and found.format in self.hardware.compute:
            ceiling = CeilingChoice(found.format, self.hardware.ceiling(found.format), found.reason)
        return replace(
            bound,
            seconds={"compute": float(times.compute), level: float(times.memory), "overhead": float(times.overhead)},
            ceiling=ceiling,
            reason="; ".join(filter(None, (found.reason, row.note))),
            predicted_s=float(times.total),
            interval_s=interval(found.model, float(times.total)),
            model=found.model,
            extrapolated=outside(found.model, work),
        )

    @staticmethod
    def operands(row: Row, formats: LayerPrecision) -> tuple[Precision, Precision]:
        """Return the formats of a row's two operands: weights or the cache, and activations; or activations twice."""
        activations = _operand(row, "input", formats.activations)
        if row.cached:
            return _operand(row, "kv", formats.cache), activations
        weighted = row.kind in MATRIX_KINDS and row.weighted
        return (_operand(row, "weight", formats.weights) if weighted else activations), activations

    @staticmethod
    def _label(row: Row, formats: LayerPrecision) -> str:
        if not row.weighted:
            cache = f"/{formats.kv}" if row.cached and formats.kv else ""
            return f"-/{formats.activations or 'keep'}{cache}"
        floats = any(m.is_float for m in row.moved if m.role == "weight")
        return str(replace(formats, kv=None) if floats else LayerPrecision(None, formats.activations))

    def _overlap(self, ceiling: CeilingChoice) -> bool:
        """Tell whether matrix work in this format leaves the vector units free: on a CPU both share the ports."""
        return self.hardware.kind != "cpu" and ceiling.format != self.vector.format

    def _ceiling(self, row: Row, formats: LayerPrecision) -> CeilingChoice:
        if row.kind not in MATRIX_KINDS or not row.macs:
            return self.vector
        key = *self.operands(row, formats), "keys and values" if row.cached else "weights"
        if key not in self._ceilings:
            self._ceilings[key] = choose_ceiling(*key[:2], self.hardware, first=key[2])
        return self._ceilings[key]

    def transitions(self, formats: Sequence[LayerPrecision]) -> list[Transition]:
        """List the tensors that change format between two rows, ordered by the layers whose formats meet."""
        if self.traffic == "paper":
            return []
        found = (self.transition(source, c, formats[source.row], formats[c]) for source, c in self.edges)
        return [transition for transition in found if transition]

    def transition(
        self, source: Source, consumer: int, producer_formats: LayerPrecision, consumer_formats: LayerPrecision
    ) -> Transition | None:
        """Return what passing a tensor between two rows costs, or ``None`` where their formats agree."""
        native = Precision(source.dtype, source.bits)
        written, read = producer_formats.activations or native, consumer_formats.activations or native
        if written.name == read.name:
            return None
        ends = self.rows[source.row], self.rows[consumer]
        names = ends[0].name, ends[1].name
        model = self.kernels.transition(written, read, *ends) if self.kernels else None
        if self.traffic != "unfused" and model is None:
            return Transition(*names, source.elements, str(written), str(read), 0, 0.0)
        size = -(-source.elements * written.bits // 8) + -(-source.elements * read.bits // 8)
        if model:
            taken = float(predict(model.form, Work(source.elements, size)).total)
            spread = interval(model, taken)
            return Transition(*names, source.elements, str(written), str(read), size, taken, spread, model)
        seconds = max(size / self.bandwidths[0], self.hardware.overhead_s)
        return Transition(*names, source.elements, str(written), str(read), size, seconds)

    @property
    def prices_transitions(self) -> bool:
        """Whether a change of format costs something: always if ``unfused``, else where it was measured."""
        measured = self.kernels is not None and any(m.op == "transition" for m in self.kernels.models)
        return self.traffic == "unfused" or (measured and self.traffic == "fused")

    @cached_property
    def edges(self) -> list[tuple[Source, int]]:
        """Floating-point tensors passed between rows, ordered by the pair of layers whose formats meet."""
        order = {layer: i for i, layer in enumerate(self.rows_by_anchor)}
        found = [(source, c) for c, row in enumerate(self.rows) for source in row.sources if source.is_float]
        return sorted(found, key=lambda edge: self._edge_order(order, *edge))

    def _edge_order(self, order: dict[str, int], source: Source, consumer: int) -> tuple[int, int, int, int, str]:
        ends = order[self.rows[source.row].anchor], order[self.rows[consumer].anchor]
        return (*ends, consumer, source.row, source.dtype)


def _operand(row: Row, role: str, wanted: Precision | None) -> Precision:
    """Return the format an operand has: the scheme's where the tensor is floating point, else its own."""
    floats = any(m.is_float for m in row.moved if m.role == role)
    return wanted if wanted is not None and floats else _native(row, role)


def _native(row: Row, role: str) -> Precision:
    """Return the traced format of the row's first floating-point tensor of a role (of any, where the role has none)."""
    candidates = [m for m in row.moved if m.role == role] or list(row.moved)
    best = next((m for m in candidates if m.is_float), candidates[0])
    if best.native is not None:
        return best.native
    name = {"uint8": "int8"}.get(best.dtype, best.dtype)
    return Precision(name, FLOAT_BITS.get(name, best.bits))
