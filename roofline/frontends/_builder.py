"""Build an operator graph op by op, as a trace would record it: shapes in, ops with their formulas out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import prod
from typing import NamedTuple

from roofline import ops as formulas
from roofline.frontends._stored import Stored
from roofline.graph import Extents, Op, OpGraph, Role, TensorSpec

BITS = {"fp64": 64, "fp32": 32, "bf16": 16, "fp16": 16, "fp8_e4m3": 8, "fp8_e5m2": 8, "int64": 64, "bool": 8}


class Value(NamedTuple):
    """A tensor between ops.

    ``elements`` is fewer than the shape tells where a dimension is broadcast.
    """

    shape: tuple[int, ...]
    producers: tuple[int, ...]
    identity: int
    dtype: str
    batched: bool = True

    @property
    def elements(self) -> int:
        """Values in the tensor."""
        return prod(self.shape)


class Weight(NamedTuple):
    """A parameter by the name of the module that owns it."""

    layer: str
    name: str
    shape: tuple[int, ...]
    channels: int


class Builder:
    """Collects ops in execution order, and the parameters they read.

    Args:
        model: Name of the model.
        batch: Sequences or images at once.
        dtype: Format of activations, and of weights that are not stored quantized.
        stored: How the checkpoint stores weights.
    """

    def __init__(self, model: str, batch: int, dtype: str, stored: Stored) -> None:
        self.model = model
        self.batch = batch
        self.dtype = dtype
        self.stored = stored
        self.notes: list[str] = []
        self.fixed_batch = False
        self._ops: list[Op] = []
        self._parameters: dict[str, tuple[int, int]] = {}
        self._used: dict[str, int] = {}
        self._identities = 0
        self._weights: dict[str, int] = {}
        self._kept: dict[str, None] = {}

    def graph(self, outputs: Iterable[Value]) -> OpGraph:
        """Return the finished graph."""
        return OpGraph(
            self.model,
            tuple(self._ops),
            self.batch,
            frozenset(p for value in outputs for p in value.producers),
            self._parameters,
            tuple(self._kept),
            notes=tuple(dict.fromkeys((*self.stored.notes, *self.notes))),
            fixed_batch=self.fixed_batch,
        )

    def fresh(self) -> int:
        """Return a new identity."""
        self._identities += 1
        return self._identities

    def input(self, shape: Sequence[int], dtype: str = "int64", *, batched: bool = True) -> Value:
        """Return an input of the model, or a constant such as positions, which does not grow with the batch."""
        return Value(tuple(shape), (), self.fresh(), dtype, batched)

    def part(self, value: Value, *shape: int) -> Value:
        """Return a part of a tensor: a view, free."""
        return value._replace(shape=shape, identity=self.fresh())

    def op(
        self,
        name: str,
        kind: str,
        inputs: Sequence[Value | TensorSpec],
        shape: Sequence[int],
        *,
        layer: str | None = None,
        target: str = "",
        macs: int = 0,
        vector_flops: int = 0,
        note: str = "",
        extents: Extents | None = None,
        variant: str = "",
        dtype: str | None = None,
    ) -> Value:
        """Record an op and return its output, of the given shape."""
        index = len(self._ops)
        tensors = [t if isinstance(t, TensorSpec) else self._read(t) for t in inputs]
        batched = any(t.batched for t in tensors)
        written = Value(tuple(shape), (index,), self.fresh(), dtype or self.dtype, batched)
        tensors.append(self._spec("output", written))
        self._used[name] = count = self._used.get(name, 0) + 1
        unique = name if count == 1 else f"{name}#{count}"
        owner = name if layer is None else layer
        call = f"aten.{target or kind}.default"
        self._ops.append(
            Op(
                index, unique, kind, owner, call, macs, vector_flops, tuple(tensors), batched, note, extents, variant
            )
        )  # fmt: skip
        return written

    def _read(self, value: Value) -> TensorSpec:
        return self._spec("input", value)

    def _spec(self, role: Role, value: Value) -> TensorSpec:
        producers = () if role == "output" else value.producers
        floating = value.dtype in BITS and not value.dtype.startswith(("int", "bool"))
        return TensorSpec(
            role, value.shape, value.elements, value.dtype, BITS[value.dtype], floating, value.batched,
            producers=producers, identity=value.identity,
        )  # fmt: skip

    def weight(
        self, weight: Weight, *, elements: int | None = None, channels: int | None = None, plain: bool = False
    ) -> list[TensorSpec]:
        """Return what reading a matrix moves: the weight as stored, and scales that are parameters of their own.

        Args:
            weight: The matrix, with its full shape.
            elements: Values read, where that is not all of them.
            channels: Output channels read.
            plain: Whether no checkpoint stores it quantized, as a router.
        """
        full = prod(weight.shape)
        form = None if plain else self.stored.form(weight.layer, weight.shape)
        dtype, bits = (form.precision.name, form.precision.bits) if form else (self.dtype, BITS[self.dtype])
        native = form.precision if form and not form.precision.is_float else None
        found = [
            TensorSpec(
                "weight", weight.shape, full if elements is None else elements, dtype, bits, native is None,
                channels=weight.channels if channels is None else channels, name=weight.name, stored=full,
                identity=self._identity(weight.name), native=native,
            )
        ]  # fmt: skip
        self._parameters[weight.name] = (full, bits)
        if form and form.scales:
            scales = self._parameter(f"{weight.name}_scale_inv", (form.scales,), "fp32", changes=False)
            read = -(-form.scales * found[0].elements // full)
            found.append(replace(scales, elements=read))
        return found

    def parameter(self, name: str, *shape: int) -> TensorSpec:
        """Return what reading a bias or the like moves."""
        return self._parameter(name, shape, self.dtype, changes=True)

    def _parameter(self, name: str, shape: tuple[int, ...], dtype: str, *, changes: bool) -> TensorSpec:
        size = prod(shape)
        self._parameters[name] = (size, BITS[dtype])
        return TensorSpec(
            "parameter", shape, size, dtype, BITS[dtype], changes, name=name, stored=size, identity=self._identity(name)
        )

    def _identity(self, name: str) -> int:
        if name not in self._weights:
            self._weights[name] = self.fresh()
        return self._weights[name]

    def linear(
        self,
        x: Value,
        name: str,
        features: int,
        *,
        bias: bool = False,
        tied: Weight | None = None,
        conv1d: bool = False,
        plain: bool = False,
    ) -> Value:
        """``[..., K] @ w[N, K]ᵀ``: a linear layer.

        ``conv1d`` stores ``w[K, N]``, ``tied`` takes another's matrix, ``plain`` is never stored quantized, and a
        scheme's default leaves it alone.
        """
        if plain:
            self._kept[name] = None
        inner = x.shape[-1]
        shape = (inner, features) if conv1d else (features, inner)
        weight = tied or Weight(name, f"{name}.weight", shape, features)
        out = (*x.shape[:-1], features)
        inputs: list[Value | TensorSpec] = [x, *self.weight(weight, plain=plain or tied is not None)]
        if bias:
            inputs.append(self.parameter(f"{name}.bias", features))
        return self.op(
            name,
            "linear",
            inputs,
            out,
            layer=weight.layer,
            target="addmm" if conv1d else "linear",
            macs=formulas.linear_macs(out, inner),
            extents=Extents(1, prod(out[:-1]), features, inner),
        )

    def embedding(self, ids: Value, weight: Weight, name: str = "") -> Value:
        """Look up one row of a table for each index."""
        rows, width = ids.elements, weight.shape[-1]
        table = TensorSpec(
            "weight", weight.shape, rows * width, self.dtype, BITS[self.dtype], True, ids.batched, rows,
            weight.name, stored=prod(weight.shape), identity=self._identity(weight.name),
        )  # fmt: skip
        self._parameters[weight.name] = (table.stored, table.bits)
        out = (*ids.shape, width)
        return self.op(
            name or weight.layer, "embedding", [ids, table], out, layer=weight.layer, note="reads the rows looked up"
        )  # fmt: skip

    def norm(self, x: Value, name: str, kind: str, *, affine: bool = True) -> Value:
        """Normalise over the last axis, with a scale (and shift in ``layer_norm``) for each position of it."""
        width = x.shape[-1]
        inputs: list[Value | TensorSpec] = [x]
        if affine:
            inputs.append(self.parameter(f"{name}.weight", width))
            if kind == "layer_norm":
                inputs.append(self.parameter(f"{name}.bias", width))
        return self.op(name, kind, inputs, x.shape, vector_flops=formulas.norm_flops(kind, x.shape))

    def elementwise(
        self, name: str, inputs: Sequence[Value | TensorSpec], target: str, *, flops: int = 1, layer: str | None = None
    ) -> Value:
        """Apply a function of ``flops`` operations for each value, over the first input's shape."""
        first = inputs[0]
        work = flops * formulas.elementwise_flops(first.shape)
        return self.op(name, "elementwise", inputs, first.shape, layer=layer, target=target, vector_flops=work)

    def add(self, module: str, left: Value, right: Value | TensorSpec) -> Value:
        """Add two tensors in a module's own code."""
        return self.elementwise(f"{module}.add" if module else "add", [left, right], "add", layer=module)

    def attention(
        self,
        module: str,
        query: Value,
        key: Value,
        value: Value,
        *,
        keys: int,
        cache: Sequence[TensorSpec] = (),
        extra: Sequence[Value] = (),
        causal: bool = False,
        softcap: bool = False,
        shared: bool = False,
        note: str = "",
    ) -> Value:
        """``softmax(q kᵀ) v`` of ``q[B, Hq, M, D]`` with ``keys`` keys for each query, heads of k and v shared.

        ``cache`` is read or written on the way; where it is all that is read, ``key`` and ``value`` have no elements.
        With ``shared`` the values are a part of the keys, and read with them.

        Returns:
            ``[B, M, Hq · Dv]``.
        """
        batch, heads, length, _ = query.shape
        kv_heads, width = key.shape[1], value.shape[-1]
        of_keys, of_values = (batch, kv_heads, keys, key.shape[-1]), (batch, kv_heads, keys, width)
        notes = ["scores stay on chip"]
        if causal and length > 1:
            notes.append("causal, counted in full")
        if heads != kv_heads:
            notes.append(f"grouped queries {heads}:{kv_heads}")
        flops = formulas.attention_softmax_flops(query.shape, of_keys)
        return self.op(
            f"{module}.scaled_dot_product_attention",
            "attention",
            [query, *(t for t in ((key,) if shared else (key, value)) if t.elements), *extra, *cache],
            (batch, length, heads * width),
            layer=module,
            target="scaled_dot_product_attention",
            macs=formulas.attention_macs(query.shape, of_keys, of_values),
            vector_flops=flops * 3 // 2 if softcap else flops,
            note=", ".join(filter(None, (*notes, note))),
            extents=Extents(batch * heads, length, keys, query.shape[-1] + width, "products"),
        )

    def cached(self, name: str, heads: int, tokens: int, width: int) -> list[TensorSpec]:
        """Return what reading or writing entries of a key-value cache moves: ``[B, heads, tokens, width]``."""
        if not tokens:
            return []
        vectors = self.batch * heads * tokens
        shape = (self.batch, heads, tokens, width)
        size = vectors * width
        return [
            TensorSpec(
                "kv", shape, size, self.dtype, BITS[self.dtype], True, True, vectors, name, stored=size,
                identity=self.fresh(),
            )
        ]  # fmt: skip
