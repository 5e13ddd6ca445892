"""ONNX models written by hand: one node, or a few, and what tests of the ONNX frontend read them with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from roofline import OpGraph, read_onnx

OPSET = 21
MICROSOFT = "com.microsoft"
FLOAT = TensorProto.FLOAT


def value(name: str, shape: Sequence[int | str | None] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def zeros(name: str, *shape: int, kind: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.zeros(shape, kind), name)


def numbers(name: str, *values: float, kind: Any = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, kind), name)


def random(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.random.default_rng(0).random(shape, np.float32), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[str],
    stored: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = OPSET,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, [value(name, None) for name in outputs], stored)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)


def one(
    op: str,
    inputs: Mapping[str, Sequence[int]],
    stored: Sequence[onnx.TensorProto] = (),
    *,
    order: Sequence[str] | None = None,
    outputs: int = 1,
    opset: int = OPSET,
    domain: str = "",
    kind: int = FLOAT,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node that reads its inputs, then what is stored, unless ``order`` says otherwise."""
    names = list(order) if order is not None else [*inputs, *(tensor.name for tensor in stored)]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, "node", domain=domain, **attributes)
    given = [value(name, shape, kind) for name, shape in inputs.items()]
    return model([node], given, results[:1], stored, opset=opset, domains=[domain] if domain else [])


_count = itertools.count()


def read(built: onnx.ModelProto, folder: Path, shapes: Any = ()) -> OpGraph:
    path = folder / f"m{next(_count)}.onnx"
    path.write_bytes(built.SerializeToString())
    return read_onnx(path, shapes)


def network() -> onnx.ModelProto:
    """A convolution, its activation, pooling, a shape that is computed, and a linear layer."""
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["a"], "/conv/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "/act/Relu"),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], "/pool/GlobalAveragePool"),
        helper.make_node("Shape", ["c"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "axes"], ["rows"]),
        helper.make_node("Concat", ["rows", "rest"], ["flat"], axis=0),
        helper.make_node("Reshape", ["c", "flat"], ["d"], "/Reshape"),
        helper.make_node("Gemm", ["d", "head.weight", "head.bias"], ["y"], "/head/Gemm", transB=1),
    ]
    stored = [
        random("conv.weight", 8, 3, 3, 3),
        random("conv.bias", 8),
        numpy_helper.from_array(np.array(0), "zero"),
        numbers("axes", 0),
        numbers("rest", -1),
        random("head.weight", 5, 8),
        random("head.bias", 5),
    ]
    return model(nodes, [value("x", ["batch", 3, 16, 16])], ["y"], stored)


def encoder() -> onnx.ModelProto:
    """Embedding, attention as exporters take it apart, GELU by its error function, and a control flow node."""
    branch = [helper.make_graph([helper.make_node("Identity", ["h"], [n])], n, [], [value(n, None)]) for n in "tf"]
    nodes = [
        helper.make_node("Gather", ["embed.weight", "ids"], ["e"]),
        helper.make_node("MatMul", ["e", "q.weight"], ["q"], "/q/MatMul"),
        helper.make_node("Transpose", ["e"], ["k"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k"], ["s"], "/attn/MatMul"),
        helper.make_node("Mul", ["s", "scale"], ["t"]),
        helper.make_node("Softmax", ["t"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "e"], ["o"], "/attn/MatMul_1"),
        helper.make_node("Div", ["o", "root"], ["g1"]),
        helper.make_node("Erf", ["g1"], ["g2"]),
        helper.make_node("Add", ["g2", "one"], ["g3"]),
        helper.make_node("Mul", ["o", "g3"], ["g4"]),
        helper.make_node("Mul", ["g4", "scale"], ["h"]),
        helper.make_node("ReduceSum", ["h"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "one"], ["c"]),
        helper.make_node("If", ["c"], ["z"], then_branch=branch[0], else_branch=branch[1]),
        helper.make_node("Custom", ["z"], ["y"], domain="acme"),
    ]
    stored = [random("embed.weight", 20, 8), random("q.weight", 8, 8)]
    stored += [numpy_helper.from_array(np.float32(x), n) for n, x in (("scale", 0.5), ("root", 1.4), ("one", 1.0))]
    return model(nodes, [value("ids", [2, 6], TensorProto.INT64)], ["y"], stored, domains=["acme"])


def quantized() -> onnx.ModelProto:
    """A convolution between quantize and dequantize nodes, a 4-bit product, and a function of the file's own."""
    twice = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", OPSET)]
    )
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["conv.weight.codes", "ws", "wz"], ["w"], axis=0),
        helper.make_node("Conv", ["xd", "w"], ["a"], "conv"),
        helper.make_node("Twice", ["a"], ["t"], domain="own"),
        helper.make_node("ReduceMean", ["t", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMulNBits", ["m", "fc.weight.packed", "fs"], ["y"], domain=MICROSOFT, K=32, N=4, bits=4,
                         block_size=16),
    ]  # fmt: skip
    stored = [
        numpy_helper.from_array(np.float32(0.1), "s"),
        numpy_helper.from_array(np.uint8(128), "z"),
        zeros("conv.weight.codes", 32, 3, 3, 3, kind=np.int8),
        zeros("ws", 32),
        zeros("wz", 32, kind=np.int8),
        numbers("axes", 2, 3),
        zeros("fc.weight.packed", 4, 2, 8, kind=np.uint8),
        zeros("fs", 4, 2),
    ]
    inputs = [value("x", [1, 3, 8, 8])]
    return model(nodes, inputs, ["y"], stored, functions=[twice], domains=["own", MICROSOFT])


SEEDS: tuple[Callable[[], onnx.ModelProto], ...] = (network, encoder, quantized)
