"""Quantized ONNX files: formats of weights and activations as the file has them, and no work for what quantizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from aiq._export import export
from aiq._model import load_model
from roofline import LayerPrecision, OpGraph, Precision, Scheme, estimate, read_onnx
from roofline.graph import TensorSpec
from tests.machines import FLAT
from tests.onnx_graphs import MICROSOFT, model, one, random, read, value, zeros

INT8 = {"kind": np.int8}


def scalar(name: str, number: float, kind: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(number, kind), name)


def weight(graph: OpGraph) -> TensorSpec:
    return next(spec for op in graph for spec in op.role("weight"))


def stored(graph: OpGraph) -> str:
    spec = weight(graph)
    return str(spec.native or Precision(spec.dtype, spec.bits))


def dequantized(*scale: int, zero: int | None = None, block: int = 0, kind: Any = np.int8, axis: int = 0) -> Any:
    """A product with a weight [64, 16] that a node makes float from its codes."""
    names, tensors = ["fc.weight.codes", "fc.scale"], [zeros("fc.scale", *scale)]
    if kind == "int4":
        tensors.append(helper.make_tensor(names[0], TensorProto.INT4, [64, 16], [0] * 1024))
    else:
        tensors.append(zeros(names[0], 64, 16, kind=kind))
    if zero is not None:
        names.append("fc.zero")
        tensors.append(numpy_helper.from_array(np.full(scale, zero, kind), "fc.zero"))
    settings = {"axis": axis, **({"block_size": block} if block else {})}
    nodes = [
        helper.make_node("DequantizeLinear", names, ["w"], "dq", **settings),
        helper.make_node("MatMul", ["x", "w"], ["y"], "/fc/MatMul"),
    ]
    return model(nodes, [value("x", [3, 64])], ["y"], tensors)


@pytest.mark.parametrize(
    ("built", "form"),
    [
        (dequantized(), "int8"),
        (dequantized(16, axis=1), "int8:c:s32"),
        (dequantized(16, axis=1, zero=0), "int8:c:s32"),
        (dequantized(16, axis=1, zero=3), "int8:c:s32:z8"),
        (dequantized(16, axis=1, zero=128, kind=np.uint8), "int8:c:s32:z8"),
        (dequantized(2, 16, block=32), "int8:g32:s32"),
        (dequantized(2, 16, block=32, kind="int4"), "int4:g32:s32"),
    ],
)
def test_scales_say_how_a_weight_is_stored(built: onnx.ModelProto, form: str, tmp_path: Path) -> None:
    graph = read(built, tmp_path)
    (op,) = graph
    assert (op.kind, op.layer, stored(graph)) == ("linear", "fc", form)
    precision = Precision.parse(form)
    expected = -(-precision.stored_bits(1024, 16) // 8) + 4 * (3 * 64 + 3 * 16)
    assert op.native_bytes == estimate(graph, FLAT, traffic="unfused").bytes == expected


def packed(bits: int = 4, block: int = 32, zero: Any = None, columns: int = 80, scale: Any = np.float32) -> Any:
    blocks = -(-columns // block)
    tensors = [
        zeros("fc.weight_Q4", 16, blocks, block * bits // 8, kind=np.uint8),
        zeros("fc.s", 16 * blocks, kind=scale),
    ]
    if zero is not None:
        tensors.append(zeros("fc.z", 16, blocks, kind=zero))
    settings = {"K": columns, "N": 16, "bits": bits, "block_size": block}
    return one("MatMulNBits", {"x": (2, 3, columns)}, tensors, domain=MICROSOFT, **settings)


@pytest.mark.parametrize(
    ("built", "form"),
    [
        (packed(), "int4:g32:s32"),
        (packed(scale=np.float16), "int4:g32"),
        (packed(zero=np.uint8), "int4:g32:s32:z4"),
        (packed(zero=np.float32), "int4:g32:s32:z32"),
        (packed(block=16), "int4:g16:s32"),
        (packed(bits=8, block=128), "int8:g128:s32"),
    ],
)
def test_a_packed_weight_is_the_matrix_that_it_stands_for(built: onnx.ModelProto, form: str, tmp_path: Path) -> None:
    graph = read(built, tmp_path)
    (op,) = graph
    spec = weight(graph)
    assert (op.kind, op.macs, stored(graph)) == ("linear", 2 * 3 * 16 * 80, form)
    assert (spec.shape, spec.elements, spec.channels) == ((16, 80), 16 * 80, 16)
    bits = Precision.parse(form).stored_bits(1280, 16)
    assert spec.native_bytes == bits // 8 and op.native_bytes == bits // 8 + 4 * (480 + 96)


def between(*readers: str) -> onnx.ModelProto:
    """A convolution whose result is quantized, and read as that or as it is."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("Conv", ["xd", "a.weight"], ["a"], "/a/Conv"),
        helper.make_node("QuantizeLinear", ["a", "s", "z"], ["aq"]),
        helper.make_node("DequantizeLinear", ["aq", "s", "z"], ["ad"]),
        helper.make_node("Conv", ["ad", "b.weight"], ["b"], "/b/Conv"),
        *(helper.make_node("Relu", [name], [f"r{i}"]) for i, name in enumerate(readers)),
    ]
    tensors = [random(f"{n}.weight", 3, 3, 1, 1) for n in "ab"] + [scalar("s", 0.1), scalar("z", 0, np.uint8)]
    return model(nodes, [value("x", [1, 3, 4, 4])], ["b", *(f"r{i}" for i in range(len(readers)))], tensors)


@pytest.mark.parametrize(
    ("readers", "written"), [((), "int8"), (("ad",), "int8"), (("a",), "fp32"), (("a", "ad"), "fp32")]
)
def test_a_result_is_written_as_all_its_readers_read_it(readers: tuple[str, ...], written: str, tmp_path: Path) -> None:
    first, second, *others = read(between(*readers), tmp_path)
    assert [spec.dtype for spec in (*first.role("input"), *first.role("output"))] == ["int8", written]
    assert [spec.dtype for spec in (*second.role("input"), *second.role("output"))] == ["int8", "fp32"]
    assert [op.role("input")[0].dtype for op in others] == ["int8" if r == "ad" else "fp32" for r in readers]
    assert first.flops + second.flops == 2 * 2 * 16 * 9


def test_integer_operators(tmp_path: Path) -> None:
    scales = [scalar("s", 0.1), scalar("z", 0, np.uint8), zeros("ws", 6), zeros("wz", 6, **INT8)]
    order = ["x", "s", "z", "conv.weight_quantized", "ws", "wz", "s", "z"]
    given = {"x": (1, 3, 5, 5)}
    codes = zeros("conv.weight_quantized", 6, 3, 3, 3, **INT8)
    built = one("QLinearConv", given, [codes, *scales], order=order, kind=TensorProto.UINT8)
    graph = read(built, tmp_path)
    (op,) = graph
    assert (op.kind, op.layer, op.macs, stored(graph)) == ("conv", "conv", 6 * 9 * 27, "int8:c:s32")
    assert op.native_bytes == 75 + 54 + 162 + 6 * 4
    built = one("ConvInteger", given, [codes], kind=TensorProto.UINT8)
    (op,) = read(built, tmp_path)
    assert (op.kind, op.macs, op.native_bytes) == ("conv", 6 * 9 * 27, 75 + 162 + 4 * 54)
    built = one("MatMulInteger", {"x": (4, 8)}, [zeros("w", 8, 5, **INT8)], kind=TensorProto.UINT8)
    (op,) = read(built, tmp_path)
    assert (op.kind, op.macs, op.native_bytes) == ("linear", 160, 32 + 40 + 4 * 20)
    order = ["x", "s", "z", "w", "ws", "wz", "s", "z"]
    tensors = [zeros("w", 8, 6, **INT8), *scales]
    built = one("QLinearMatMul", {"x": (4, 8)}, tensors, order=order, kind=TensorProto.UINT8)
    (op,) = read(built, tmp_path)
    assert (op.kind, op.macs, op.native_bytes) == ("linear", 192, 32 + 24 + 48 + 6 * 4)


def test_dynamic_quantization_is_a_format(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "fc.weight_quantized", "z"], ["i"], "/fc/MatMul"),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "ws"], ["m"]),
        helper.make_node("Mul", ["f", "m"], ["y"]),
    ]
    tensors = [zeros("fc.weight_quantized", 8, 5, **INT8), scalar("ws", 0.5)]
    product, cast, *_ = read(model(nodes, [value("x", [4, 8])], ["y"], tensors), tmp_path)
    assert (product.kind, product.layer, product.role("input")[0].dtype) == ("linear", "fc", "int8")
    assert (cast.kind, cast.flops) == ("elementwise", 0)


def test_a_weight_that_is_cast_keeps_its_width(tmp_path: Path) -> None:
    narrow = helper.make_tensor("fc.weight.bf16", TensorProto.BFLOAT16, [4, 5], [0.0] * 20)
    nodes = [
        helper.make_node("Cast", ["fc.weight.bf16"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["h"], ["r"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["r", "w"], ["y"], "/fc/MatMul"),
    ]
    graph = read(model(nodes, [value("x", [3, 4])], ["y"], [narrow]), tmp_path)
    (op,) = graph
    assert [(spec.dtype, spec.is_float) for spec in op.tensors] == [("fp16", True), ("bf16", True), ("fp32", True)]
    # Floats may be requantized, what is on a grid already may not.
    assert estimate(graph, FLAT, "w8").layers[0].bytes_by_role["weight"] == 20
    assert op.native_bytes == 2 * 12 + 2 * 20 + 4 * 15


def test_a_scheme_leaves_what_is_quantized_as_it_is(tmp_path: Path) -> None:
    graph = read(dequantized(16, axis=1), tmp_path)
    kept, asked = (estimate(graph, FLAT, scheme, traffic="unfused") for scheme in ("keep", "w4:g32"))
    assert kept.bytes == asked.bytes and graph.layers == ("fc",)


@pytest.mark.parametrize("text", ["w8a8", "w4:g8", "w4:c:za8", "fp16"])
def test_what_we_export_is_read_back_as_the_scheme(text: str, tmp_path: Path) -> None:
    net, scheme = load_model("digits_cnn"), Scheme.parse(text)
    export(net, scheme, "onnx", tmp_path / "out")
    traced, graph = net.trace(), read_onnx(tmp_path / "out" / "model.onnx")
    assert graph.layers == traced.layers and graph.macs == traced.macs and graph.unknown == {}
    formats = scheme.resolve(traced.layers, keep_weights=traced.keep_weights)
    for op in (op for op in graph if op.weighted):
        (spec,) = op.role("weight")
        wanted = formats[op.layer].weights
        found = spec.native or Precision(spec.dtype, spec.bits)
        if wanted is None or (text == "w4:g8" and op.kind == "conv"):
            # Groups inside a kernel have no form in ONNX, so the exporter says that it stores float32.
            assert found == Precision("fp32", 32)
        elif wanted.is_float:
            assert found == wanted
        else:
            # A file has a scale for each channel where nothing else is said, in 32 bits.
            channelled = replace(wanted, per_channel=not wanted.group_size, scale_bits=32)
            assert found == channelled
        _check_activations(op.role("input"), formats[op.layer])
    if text == "w8a8":
        priced = estimate(graph, FLAT, traffic="fused")
        assert priced.bytes < estimate(traced, FLAT, "keep", traffic="fused").bytes / 2


def _check_activations(read: tuple[TensorSpec, ...], formats: LayerPrecision) -> None:
    wanted = formats.activations or Precision("fp32", 32)
    assert {spec.dtype for spec in read} == {wanted.name}
