"""What an estimate returns: rows, format transitions and totals, frozen; the bound is derived, never stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hardware_specs import HardwareSpec, KernelModel
from roofline.ceiling import CeilingChoice
from roofline.graph import OpGraph
from roofline.kernels import COMMON_VARIANCE, UNCALIBRATED_SHARE, combine
from roofline.scheme import Scheme

if TYPE_CHECKING:
    from roofline.memory import Memory

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
        bytes_by_role: Bytes moved as weight, parameter, state, kv, input and output.
        bytes_by_level: Bytes that cross each memory level, outermost first.
        seconds: Seconds of each resource alone: ``compute``, each memory level, ``overhead``; of a calibrated row only
            the memory level that would bind.
        precision: Formats of weights and activations.
        ceiling: Compute ceiling the row runs on.
        bandwidths: Bandwidth of each memory level in bytes/s, outermost first.
        reason: Why the ceiling is not that of the stored format; further notes.
        predicted_s: Seconds by the kernel model, where one speaks of the row.
        interval_s: Between which 90 % of measured times lie, by that model.
        model: The kernel model; ``None``: the time is a bound.
        lacking: On a calibrated machine the class, format and variant that no model speaks of.
        extrapolated: Whether the row is smaller or larger than any that the model was fitted on.
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
    predicted_s: float | None = None
    interval_s: tuple[float, float] | None = None
    model: KernelModel | None = None
    lacking: str = ""
    extrapolated: bool = False

    @cached_property
    def bytes(self) -> int:
        """Bytes read and written, wherever they come from."""
        return sum(self.bytes_by_role.values())

    @property
    def activation_bytes(self) -> int:
        """Bytes of the row's inputs and outputs, which memory holds at the same time."""
        return self.bytes_by_role.get("input", 0) + self.bytes_by_role.get("output", 0)

    @property
    def kv_bytes(self) -> int:
        """Bytes of the key-value cache that the row reads and writes."""
        return self.bytes_by_role.get("kv", 0)

    @property
    def arithmetic_intensity(self) -> float:
        """FLOPs per byte read or written."""
        return self.flops / self.bytes if self.bytes else 0.0

    @cached_property
    def latency_s(self) -> float:
        """Seconds: of the kernel model where one speaks of the row, else of the slowest resource."""
        return max(self.seconds.values()) if self.predicted_s is None else self.predicted_s

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
        """How many times faster the row would be were its bound resource free; ``None`` if nothing else takes time."""
        rest = [s for name, s in self.seconds.items() if name != self.resource]
        return self.latency_s / max(rest) if max(rest, default=0.0) > 0 else None


@dataclass(frozen=True)
class Transition:
    """A tensor whose producer writes another format than its consumer reads.

    In ``unfused`` traffic, and wherever the machine has a kernel model of it, it is an op of its own, which reads one
    format and writes the other; in ``fused`` traffic else the conversion runs inside its neighbours and costs nothing.
    """

    producer: str
    consumer: str
    elements: int
    source: str
    target: str
    bytes: int
    latency_s: float
    interval_s: tuple[float, float] | None = None
    model: KernelModel | None = None


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
    def memory(self) -> Memory:
        """Memory that a pass needs, part by part, and whether the outermost memory has it."""
        from roofline.memory import memory_of

        return memory_of(self)

    @property
    def fits(self) -> bool | None:
        """Whether a pass fits the outermost memory; ``None`` where its size is not known."""
        return self.memory.fits

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

    @cached_property
    def kv_bytes(self) -> int:
        """Bytes of the key-value cache that rows move: each entry once, so that it is the size of the cache too."""
        return sum(layer.kv_bytes for layer in self.layers)

    @property
    def arithmetic_intensity(self) -> float:
        """FLOPs per byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def rows(self) -> tuple[LayerEstimate | Transition, ...]:
        """Everything that takes time: layers, then transitions."""
        return (*self.layers, *self.transitions)

    @cached_property
    def uncalibrated(self) -> dict[str, float]:
        """On a calibrated machine, the share of time of what no kernel model speaks of, largest first."""
        found: dict[str, float] = {}
        if self.hardware.rates == "calibrated":
            for layer in self.layers:
                if layer.lacking:
                    found[layer.lacking] = found.get(layer.lacking, 0.0) + layer.latency_s / self.latency_s
            for change in self.transitions:
                if change.latency_s and change.model is None:
                    what = f"transition {change.source} -> {change.target}"
                    found[what] = found.get(what, 0.0) + change.latency_s / self.latency_s
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @property
    def extrapolated_share(self) -> float:
        """Share of time of rows smaller or larger than any that their kernel model was fitted on."""
        return sum(layer.latency_s for layer in self.layers if layer.extrapolated) / (self.latency_s or 1.0)

    @cached_property
    def latency_interval_s(self) -> tuple[float, float] | None:
        """The 90 % interval of ``latency_s`` (see :func:`roofline.kernels.combine`).

        Rows without a kernel model enter with their bound and no error. ``None`` where they take more than a tenth of
        the time, and without calibration.
        """
        rows = [r for r in self.rows if r.interval_s]
        certain = sum(row.latency_s for row in rows) >= (1.0 - UNCALIBRATED_SHARE) * self.latency_s
        if not rows or not certain:
            return None
        ends = ((row.latency_s, row.interval_s) for row in rows if row.interval_s)
        spreads = ((at - low, high - at) for at, (low, high) in ends)
        return combine(self.latency_s, spreads, self.common_variance)

    @property
    def common_variance(self) -> float:
        """Share of the rows' variance that is common to all of a pass: what calibration found, or a fifth."""
        return self.hardware.common_variance.get(self.hardware.runtime, COMMON_VARIANCE)

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

    def summary(self) -> dict[str, Any]:
        """Return the totals as plain data in SI units."""
        return {
            "bytes": self.bytes,
            "weight_bytes": self.weight_bytes,
            "kv_bytes": self.kv_bytes,
            "memory": self.memory.to_dict(),
            "arithmetic_intensity": self.arithmetic_intensity,
            "latency_s": self.latency_s,
            "latency_interval_s": self.latency_interval_s,
            "throughput_per_s": self.throughput_per_s,
            "latency_s_by_bound": self.latency_by_bound,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain data in SI units: the JSON of ``aiq roofline``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.graph.model,
            "hardware": self.hardware.name,
            "rates": self.hardware.rates,
            "calibration": self._calibration(),
            "scheme": str(self.scheme),
            "scheme_digest": self.scheme.digest(),
            "batch": self.batch,
            "traffic": self.traffic,
            "flops": self.flops,
            "macs": self.macs,
            **self.summary(),
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
                    "latency_interval_s": t.interval_s,
                    "model": t.model.label if t.model else None,
                }
                for t in self.transitions
            ],
            "layers": [self._row(layer) for layer in self.layers],
        }

    def _calibration(self) -> dict[str, Any] | None:
        if self.hardware.rates != "calibrated":
            return None
        used = dict.fromkeys(row.model.label for row in self.rows if row.model)
        models = {m.label: m for m in self.hardware.kernels if m.runtime == self.hardware.runtime}
        return {
            "runtime": self.hardware.runtime,
            "models": [models[label].model_dump(mode="json", exclude={"form"}) for label in used],
            "uncalibrated_share": self.uncalibrated,
            "extrapolated_share": self.extrapolated_share,
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
            "latency_interval_s": layer.interval_s,
            "model": layer.model.label if layer.model else None,
            "share": layer.latency_s / self.latency_s if self.latency_s else 0.0,
            "headroom": layer.headroom,
            "precision": layer.precision,
            "computes_in": layer.ceiling.format,
            "reason": layer.reason,
        }

    def __repr__(self) -> str:
        what = f"{self.graph.model!r} on {self.hardware.name}, {self.scheme}, batch {self.batch}, {self.traffic}"
        return f"GraphEstimate({what}: {self.arithmetic_intensity:.2f} FLOP/byte, {self.latency_s:.3g} s)"
