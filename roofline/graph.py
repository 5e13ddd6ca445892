"""The operator graph: what a model computes, in shapes and element counts, independent of any number format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from roofline.precision import Precision

if TYPE_CHECKING:
    import networkx as nx

Role = Literal["weight", "parameter", "input", "output", "state", "kv"]

CONV_KINDS = frozenset({"conv", "depthwise_conv", "conv_transpose"})
MATRIX_KINDS = CONV_KINDS | {"linear", "matmul", "attention", "recurrent"}
NORM_KINDS = frozenset({"batch_norm", "layer_norm", "group_norm", "rms_norm"})
FOLDABLE_KINDS = NORM_KINDS | {"elementwise", "reduction"}


class Extents(NamedTuple):
    """Matrix work as ``products`` of ``[m, k] @ [k, n]``, so that ``macs = products · m · n · k``.

    A convolution has one product per group: ``m`` output positions of all samples, ``n`` output channels and ``k`` taps
    of the group (Chellapilla, Puri and Simard 2006). ``grows`` is the axis that the batch multiplies.
    """

    products: int
    m: int
    n: int
    k: int
    grows: Literal["products", "m"] = "m"

    def scaled(self, traced: int, batch: int) -> Extents:
        """Return the extents at another batch."""
        if self.grows == "products":
            return self._replace(products=self.products * batch // traced)
        return self._replace(m=self.m * batch // traced)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor that an op reads or writes.

    Attributes:
        role: ``weight`` (what a scheme quantizes), ``parameter`` (bias, norm scale and the like), ``state`` (buffers),
            ``kv`` (entries of the key-value cache that attention reads or writes, each once), ``input`` or ``output``
            (activations).
        shape: Shape at the traced batch.
        elements: Distinct values moved: broadcast dimensions count once; of an embedding the values looked up, which
            may be more than it stores.
        dtype: Name of the native format (``fp32``, ``int64``, …).
        bits: Bits of one value in that format.
        is_float: Whether a scheme may change its format.
        batched: Whether ``elements`` grows with the batch.
        channels: Output channels of a weight (its scale groups lie along the other axes), vectors of a key-value cache;
            1 for the rest.
        name: Name of the parameter or buffer; empty for activations.
        producers: Indices of the ops that wrote an input; empty for graph inputs and constants.
        stored: Elements of the whole stored tensor (an embedding's full table, all of an activation that a view reads);
            0 where it is not known to be more.
        identity: Equal for two reads of the same part of the same tensor.
        native: The format that the model stores a weight in already, with its scales, where ``dtype`` and ``bits`` do
            not say it all: ``int4:g128`` of a quantized checkpoint. Such integers have ``is_float`` false.
        storage: Equal for all views of one piece of memory, in-place results included; -1 where the frontend cannot
            tell.
    """

    role: Role
    shape: tuple[int, ...]
    elements: int
    dtype: str
    bits: int
    is_float: bool
    batched: bool = False
    channels: int = 1
    name: str = ""
    producers: tuple[int, ...] = ()
    stored: int = 0
    identity: int = -1
    native: Precision | None = None
    storage: int = -1

    @property
    def native_bytes(self) -> int:
        """Bytes moved in the native format, with its scales."""
        if self.native is not None and self.elements:
            channels = max(self.distinct * self.channels // self.elements, 1)
            return -(-self.native.stored_bits(self.distinct, channels) // 8)
        return -(-self.distinct * self.bits // 8)

    @property
    def distinct(self) -> int:
        """Values moved: no more of a weight than is stored."""
        return min(self.elements, self.stored) if self.role == "weight" else self.elements


@dataclass(frozen=True, slots=True)
class Op:
    """One operator call.

    Attributes:
        index: Position in execution order.
        name: Unique name; for an op with weights, the module that owns them.
        kind: Op kind, one formula each (see ``roofline.ops``); ``unknown`` where there is none.
        layer: Module that owns the weights, else the module whose code ran the op: what a scheme's patterns see.
        target: The PyTorch operator, for instance ``aten.conv2d.default``.
        macs: Multiply-accumulates of convolution and matrix work at the traced batch, bias not counted.
        vector_flops: Element-wise and reduction FLOPs at the traced batch.
        tensors: Everything read and written.
        batched: Whether the work grows with the batch.
        note: What a reader must know, for instance ``causal, counted in full``.
        extents: The shape of matrix work, where the op is one.
        variant: Window of a convolution, with stride and dilation that are not 1: ``3x3``, ``1x1/2``, ``3x3d2``.
    """

    index: int
    name: str
    kind: str
    layer: str
    target: str
    macs: int
    vector_flops: int
    tensors: tuple[TensorSpec, ...]
    batched: bool = True
    note: str = ""
    extents: Extents | None = None
    variant: str = ""

    @property
    def flops(self) -> int:
        """``2 · macs + vector_flops``: one multiply-accumulate is two FLOPs."""
        return 2 * self.macs + self.vector_flops

    @property
    def weighted(self) -> bool:
        """Whether the op reads weights that a scheme may quantize."""
        return any(t.role == "weight" for t in self.tensors)

    def role(self, role: Role) -> tuple[TensorSpec, ...]:
        """Return the tensors of one role."""
        return tuple(t for t in self.tensors if t.role == role)

    @property
    def native_bytes(self) -> int:
        """Bytes moved in the traced formats."""
        return sum(t.native_bytes for t in self.tensors)


@dataclass(frozen=True, eq=False)
class OpGraph:
    """A traced model: ops in execution order and the edges between them.

    Attributes:
        model: Name of the model.
        ops: Ops in execution order; views are free and not among them.
        batch: Batch of the example that was traced.
        outputs: Indices of the ops that wrote what the model returns.
        parameters: Stored elements and native bits of each parameter or buffer read, by name; shared ones once.
        keep_weights: Patterns of layers whose weights a scheme's default leaves alone.
        free_ops: Calls that move nothing (views, aliases).
        notes: What a reader must know of the trace.
        fixed_batch: Whether the graph holds for its own batch alone, as with mixtures of experts, whose reads of
            weights are not proportional to the batch.
    """

    model: str
    ops: tuple[Op, ...]
    batch: int
    outputs: frozenset[int] = frozenset()
    parameters: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    keep_weights: tuple[str, ...] = ()
    free_ops: int = 0
    notes: tuple[str, ...] = ()
    fixed_batch: bool = False

    @cached_property
    def nx(self) -> nx.DiGraph[int]:
        """The graph as a networkx DiGraph: nodes are op indices (attribute ``op``), edges carry ``elements``."""
        import networkx as nx

        graph: nx.DiGraph[int] = nx.DiGraph(model=self.model)
        graph.add_nodes_from((op.index, {"op": op}) for op in self.ops)
        for op in self.ops:
            for tensor in op.tensors:
                for producer in tensor.producers:
                    graph.add_edge(producer, op.index, elements=tensor.elements)
        return graph

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that hold quantizable weights, in order of first use."""
        return tuple(dict.fromkeys(op.layer for op in self.ops if op.weighted))

    @cached_property
    def aliases(self) -> dict[str, tuple[str, ...]]:
        """Further names of each layer: the modules that share its weights, which have one format together."""
        found: dict[str, dict[str, None]] = {layer: {} for layer in self.layers}
        for op in self.ops:
            name = op.name.partition("#")[0]
            if op.weighted and name != op.layer:
                found[op.layer][name] = None
        return {layer: tuple(names) for layer, names in found.items() if names}

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates at the traced batch."""
        return sum(op.macs for op in self.ops)

    @cached_property
    def flops(self) -> int:
        """FLOPs at the traced batch: 2 · macs + element-wise and reduction work."""
        return sum(op.flops for op in self.ops)

    @cached_property
    def unknown(self) -> dict[str, dict[str, int]]:
        """Ops without a formula: operator → ``count`` and native ``bytes``; priced by their bytes, never dropped."""
        found: dict[str, dict[str, int]] = {}
        for op in self.ops:
            if op.kind == "unknown":
                entry = found.setdefault(op.target, {"count": 0, "bytes": 0})
                entry["count"] += 1
                entry["bytes"] += op.native_bytes
        return found

    def weight_elements(self) -> dict[str, dict[str, TensorSpec]]:
        """Return each layer's stored weight tensors by name; a weight shared by layers belongs to the first."""
        owned: dict[str, dict[str, TensorSpec]] = {layer: {} for layer in self.layers}
        seen: set[str] = set()
        for op in self.ops:
            for tensor in op.role("weight"):
                if tensor.name not in seen:
                    seen.add(tensor.name)
                    owned[op.layer][tensor.name] = tensor
        return owned

    @cached_property
    def constant_bytes(self) -> int:
        """Bytes of the parameters and buffers that are no weights, in the model's own formats."""
        weights = {name for owned in self.weight_elements().values() for name in owned}
        return -(-sum(size * bits for name, (size, bits) in self.parameters.items() if name not in weights) // 8)

    def __len__(self) -> int:
        return len(self.ops)

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)

    def __repr__(self) -> str:
        size = f"{len(self.ops)} ops, {len(self.layers)} layers, {self.macs:,} MACs"
        return f"OpGraph({self.model!r}, {size}, batch {self.batch})"

    def to_dict(self) -> dict[str, Any]:
        """Return the graph as plain data (raw numbers at the traced batch)."""
        return {
            "model": self.model,
            "batch": self.batch,
            "macs": self.macs,
            "flops": self.flops,
            "free_ops": self.free_ops,
            "unknown_ops": self.unknown,
            "notes": list(self.notes),
            "ops": [
                {
                    "name": op.name,
                    "kind": op.kind,
                    "layer": op.layer,
                    "target": op.target,
                    "macs": op.macs,
                    "flops": op.flops,
                    "bytes": op.native_bytes,
                    "note": op.note,
                    "inputs": sorted({p for t in op.tensors for p in t.producers}),
                    "tensors": [
                        {
                            "role": t.role,
                            "shape": list(t.shape),
                            "elements": t.elements,
                            "dtype": t.dtype,
                            "name": t.name,
                        }
                        for t in op.tensors
                    ],
                }
                for op in self.ops
            ],
        }
