"""Shapes: what the user gives for the inputs, what the file declares, and what follows node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from roofline.errors import InputError, ModelFileError, unknown_name
from roofline.frontends._onnx_einsum import einsum
from roofline.frontends._onnx_file import STANDARD, OnnxFile, attributes
from roofline.frontends._onnx_ops import ELEMENTWISE, MICROSOFT
from roofline.frontends._onnx_values import MOST_ELEMENTS, Shape, Value

if TYPE_CHECKING:
    import onnx

Shapes = Mapping[str, Sequence[int]] | Sequence[Sequence[int]]
Declared = tuple[Shape | None, int]

_MOST_AXES = 64
_AS_FIRST = frozenset(
    {
        "BiasGelu", "FastGelu", "QuickGelu", "QLinearSigmoid", "QLinearLeakyRelu", "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization", "BatchNormalization", "LayerNormalization",
        "GroupNormalization", "InstanceNormalization", "RMSNormalization", "Softmax", "LogSoftmax",
    }
)  # fmt: skip


class Types:
    """Knows the shape and type of what the file declares, and infers those of a node's results."""

    def __init__(self, file: OnnxFile, shapes: Shapes) -> None:
        self.file = file
        self.symbols: dict[str, int] = {}
        graph = file.model.graph
        stored = {tensor.name for tensor in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
        given = [value for value in graph.input if value.name not in stored]
        self.inputs = self._bound(given, self._named(shapes, given))
        said = [v for v in (*graph.output, *graph.value_info) if v.type.tensor_type.HasField("shape")]
        self._declared: dict[str, onnx.ValueInfoProto] = {v.name: v for v in said}

    def _named(self, shapes: Shapes, inputs: Sequence[onnx.ValueInfoProto]) -> dict[str, tuple[int, ...]]:
        names = [value.name for value in inputs]
        if not isinstance(shapes, Mapping):
            if len(shapes) > len(names):
                raise InputError(
                    f"{self.file.name!r} has {len(names)} inputs, got {len(shapes)} shapes: known: "
                    f"{self._listed(inputs)}. Next: give one shape for each."
                )
            shapes = dict(zip(names, shapes, strict=False))
        found = {}
        for name, shape in shapes.items():
            if name not in names:
                raise unknown_name("input", name, names, f"choose one of {self._listed(inputs)}")
            dims = tuple(int(d) for d in shape)
            if any(d < 1 for d in dims):
                raise InputError(
                    f"input {name!r} was given the shape {'x'.join(map(str, dims))}, and every axis has at least 1. "
                    "Next: mend it."
                )
            found[name] = dims
        return found

    def _bound(
        self, inputs: Sequence[onnx.ValueInfoProto], given: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Declared]:
        """Settle the shape of every input: given, fixed in the file, or 1 for a first axis that nobody set."""
        for value in inputs:
            if value.name in given:
                self._bind(value, given[value.name])
        found: dict[str, Declared] = {}
        unset = []
        for value in inputs:
            kind = value.type.tensor_type.elem_type
            if not value.type.HasField("tensor_type"):
                found[value.name] = None, 0
            elif value.name in given:
                found[value.name] = given[value.name], kind
            elif not value.type.tensor_type.HasField("shape"):
                unset.append(value)
            else:
                dims = value.type.tensor_type.shape.dim
                sizes = [_fixed(d) or self.symbols.get(d.dim_param, 0) for d in dims]
                if sizes and not sizes[0]:
                    sizes[0] = 1
                    if dims[0].dim_param:
                        self.symbols[dims[0].dim_param] = 1
                if not all(sizes):
                    unset.append(value)
                found[value.name] = tuple(sizes), kind
        if unset:
            example = unset[0]
            raise InputError(
                f"{self.file.name!r} leaves axes of its inputs open: {self._listed(inputs)}. "
                f"Next: set them, for instance --input {example.name}={_example(example)}."
            )
        return found

    def _bind(self, value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> None:
        tensor = value.type.tensor_type
        dims = tensor.shape.dim
        fits = not tensor.HasField("shape") or len(dims) == len(shape)
        for dim, size in zip(dims, shape, strict=False):
            fixed = _fixed(dim)
            fits = fits and fixed in {0, size}
            if fits and dim.dim_param and self.symbols.setdefault(dim.dim_param, size) != size:
                raise InputError(
                    f"axis {dim.dim_param!r} of {self.file.name!r} is {self.symbols[dim.dim_param]} in one input and "
                    f"{size} in {value.name!r}. Next: give it one length."
                )
        if not fits:
            raise InputError(
                f"input {value.name!r} of {self.file.name!r} is {_dims(value)}, got {','.join(map(str, shape))}. "
                "Next: give a shape that fits; --batch asks for another batch."
            )

    @staticmethod
    def _listed(inputs: Sequence[onnx.ValueInfoProto]) -> str:
        return " ".join(f"{value.name}={_dims(value)}" for value in inputs[:12]) or "none"

    def declared(self, name: str) -> Declared:
        """Return what the file says of a value, its open axes set as the inputs' are."""
        info = self._declared.get(name)
        if info is None or not info.type.HasField("tensor_type"):
            return None, 0
        return self._of_type(info.type)

    def _of_type(self, given: onnx.TypeProto) -> Declared:
        tensor = given.tensor_type
        if not tensor.HasField("shape"):
            return None, tensor.elem_type
        sizes = []
        for dim in tensor.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value >= 0:
                sizes.append(dim.dim_value)
            elif dim.dim_param in self.symbols:
                sizes.append(self.symbols[dim.dim_param])
            else:
                return None, tensor.elem_type
        return tuple(sizes), tensor.elem_type

    def of_results(self, node: onnx.NodeProto, inputs: Sequence[Value | None]) -> list[Declared]:
        """Return shape and type of each result of a node: inferred, else as declared, else unknown."""
        inferred = self._inferred(node, inputs)
        found = []
        for position, name in enumerate(node.output):
            shape, kind = inferred[position] if position < len(inferred) else (None, 0)
            if shape is None or not kind:
                said, type_said = self.declared(name)
                shape, kind = said if shape is None else shape, kind or type_said
            if shape is None and not position:
                shape = _propagated(node, inputs)
                kind = kind or (inputs[0].kind if inputs and inputs[0] is not None else 0)
            if shape is not None:
                check_size(self.file.name, name, shape)
            found.append((shape, kind))
        return found

    def _inferred(self, node: onnx.NodeProto, inputs: Sequence[Value | None]) -> list[Declared]:
        from onnx import checker, shape_inference

        domain = "" if node.domain in STANDARD else node.domain
        schema = _schema(node.op_type, self.file.opsets.get(domain, 1), domain)
        if schema is None or any(a.type in _GRAPHS for a in node.attribute):
            try:
                return _contributed(node, inputs)
            except (KeyError, IndexError, ValueError, TypeError, ArithmeticError):
                return []
        if any(a.name == "num_outputs" and a.i > len(node.output) for a in node.attribute):
            # Shape inference would make room for all of them.
            return []
        types, data = {}, {}
        for name, value in zip(node.input, inputs, strict=True):
            if value is not None:
                types[name] = _type(value.kind, value.shape)
                if value.data is not None:
                    data[name] = _tensor(value.data)
        opsets = list(self.file.model.opset_import)
        try:
            found = shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=opsets)
        except (checker.ValidationError, shape_inference.InferenceError, RuntimeError, ValueError, TypeError, KeyError):
            return []
        return [self._of_type(found[name]) if name in found else (None, 0) for name in node.output]


_GRAPHS = (5, 10)


def check_size(file: str, name: str, shape: Sequence[int]) -> None:
    """Refuse a tensor that no memory holds.

    Raises:
        ModelFileError: It has a negative axis, too many axes or too many elements.
    """
    if len(shape) > _MOST_AXES or any(d < 0 or d > MOST_ELEMENTS for d in shape) or prod(shape) > MOST_ELEMENTS:
        raise ModelFileError(
            f"{file!r} has a tensor {name!r} of {len(shape)} axes that no memory holds. Next: check its shape, and "
            "those that were given."
        )


def _propagated(node: onnx.NodeProto, inputs: Sequence[Value | None]) -> Shape | None:
    """Return the first result's shape where it follows from the inputs' alone."""
    shapes = [value.shape for value in inputs if value is not None and value.shape is not None]
    if shapes and node.op_type in _AS_FIRST:
        return shapes[0]
    if not shapes or len(shapes) < sum(value is not None for value in inputs):
        return None
    try:
        if node.op_type == "Einsum":
            return einsum(str(attributes(node)["equation"]), shapes)[2]
        return np.broadcast_shapes(*shapes) if node.op_type in ELEMENTWISE else None
    except (ValueError, KeyError):
        return None


def _fixed(dim: onnx.TensorShapeProto.Dimension) -> int:
    return max(dim.dim_value, 0)


def _dims(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return "any"
    return ",".join(str(_fixed(d) or d.dim_param or "?") for d in tensor.shape.dim) or "scalar"


def _example(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    sizes = [_fixed(dim) or (1 if i == 0 else 128) for i, dim in enumerate(dims)]
    return ",".join(map(str, sizes or (1, 3, 224, 224)))


@lru_cache(maxsize=512)
def _schema(op: str, version: int, domain: str) -> onnx.defs.OpSchema | None:
    from onnx import defs

    try:
        return defs.get_schema(op, version, domain)
    except (defs.SchemaError, TypeError):
        return None


@lru_cache(maxsize=4096)
def _type(kind: int, shape: Shape | None) -> onnx.TypeProto:
    from onnx import helper

    return helper.make_tensor_type_proto(kind, shape)


def _tensor(data: Any) -> onnx.TensorProto:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.ascontiguousarray(data).reshape(data.shape))


def _contributed(node: onnx.NodeProto, inputs: Sequence[Value | None]) -> list[Declared]:
    """Infer operators of ONNX Runtime's own domain that have a formula."""
    shapes = [None if value is None else value.shape for value in inputs]
    first = shapes[0] if shapes else None
    if first is None or inputs[0] is None or node.domain not in {MICROSOFT, *STANDARD}:
        return []
    kind = inputs[0].kind
    if node.op_type == "MatMulNBits":
        return [((*first[:-1], int(attributes(node)["N"])), kind)]
    if node.op_type in {"QLinearAdd", "QLinearMul"} and len(shapes) > 3 and shapes[3] is not None:
        return [(np.broadcast_shapes(first, shapes[3]), kind)]
    if node.op_type == "QLinearGlobalAveragePool":
        return [((*first[:2], *(1,) * len(first[2:])), kind)]
    if node.op_type == "MultiHeadAttention" and len(shapes) > 2 and shapes[2] is not None and len(shapes[2]) == 3:
        return [((*first[:2], shapes[2][2]), kind)]
    if node.op_type == "GroupQueryAttention":
        settings = attributes(node)
        heads, packed = int(settings["num_heads"]), len(shapes) < 3 or shapes[2] is None
        parts = heads + 2 * int(settings["kv_num_heads"]) if packed else heads
        return [((*first[:2], first[2] // parts * heads), kind)]
    contributed = node.domain == MICROSOFT and node.op_type == "RotaryEmbedding"
    return [(first, kind)] if contributed or node.op_type in _AS_FIRST else []
