"""Each ONNX operator against its closed form: kind, multiply-accumulates, element-wise FLOPs and bytes."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.layers import ATTENTION, LOOKUPS, RECURRENT
from tests.onnx_graphs import FLOAT, MICROSOFT, model, numbers, one, random, read, value, zeros
from tests.operations import CONVOLUTIONS, MATRICES, Row

X4 = (2, 3, 8, 6)
IDS = TensorProto.INT64


class Case(NamedTuple):
    """One node with its cost by hand: ``values`` are the numbers read and written, four bytes each."""

    name: str
    model: onnx.ModelProto
    kind: str
    macs: int
    vector_flops: int
    values: int


def unary(op: str, kind: str, flops: int, values: int, *stored: onnx.TensorProto, **attributes: Any) -> Case:
    return Case(op, one(op, {"x": X4}, stored, **attributes), kind, 0, flops, values)


SIZE = 2 * 3 * 8 * 6
SEQUENCE = {"x": (5, 3, 8)}
CASES = (
    Case("conv", one("Conv", {"x": (2, 3, 12, 10)}, [zeros("w", 8, 3, 3, 3), zeros("b", 8)]), "conv",
         2 * 8 * 10 * 8 * 27, 0, 720 + 216 + 8 + 1280),
    Case("conv_grouped", one("Conv", {"x": (2, 6, 8, 7)}, [zeros("w", 9, 2, 3, 3)], group=3), "conv",
         2 * 9 * 6 * 5 * 2 * 9, 0, 672 + 162 + 540),
    Case("conv_depthwise", one("Conv", {"x": (2, 6, 8, 7)}, [zeros("w", 6, 1, 5, 5)], group=6, pads=[2] * 4),
         "depthwise_conv", 2 * 6 * 8 * 7 * 25, 0, 672 + 150 + 672),
    Case("conv_3d", one("Conv", {"x": (2, 2, 6, 5, 4)}, [zeros("w", 5, 2, 3, 2, 1)]), "conv",
         2 * 5 * 4 * 4 * 4 * 2 * 6, 0, 480 + 60 + 640),
    Case("conv_transpose", one("ConvTranspose", {"x": (2, 4, 8, 7)}, [zeros("w", 4, 3, 3, 3)], group=2, strides=[2, 2]),
         "conv_transpose", 2 * 8 * 7 * 4 * 3 * 9, 0, 448 + 108 + 2 * 6 * 17 * 15),
    Case("gemm", one("Gemm", {"x": (4, 12)}, [zeros("w", 5, 12), zeros("b", 5)], transB=1), "linear", 4 * 5 * 12, 0,
         48 + 60 + 5 + 20),
    Case("gemm_turned", one("Gemm", {"x": (12, 4), "z": (12, 5)}, transA=1), "matmul", 4 * 5 * 12, 0, 48 + 60 + 20),
    Case("matmul_weight", one("MatMul", {"x": (4, 7, 12)}, [zeros("w", 12, 5)]), "linear", 4 * 7 * 5 * 12, 0,
         336 + 60 + 140),
    Case("matmul_broadcast", one("MatMul", {"x": (2, 1, 3, 4), "z": (6, 4, 5)}), "matmul", 12 * 3 * 5 * 4, 0,
         24 + 120 + 180),
    Case("einsum_scores", one("Einsum", {"q": (2, 3, 4, 5), "k": (2, 6, 4, 5)}, equation="bqhd,bkhd->bhqk"), "matmul",
         2 * 4 * 3 * 6 * 5, 0, 120 + 240 + 144),
    Case("einsum_dots", one("Einsum", {"x": (2, 7, 3, 4), "z": (7, 4, 5)}, equation="...ij,...jk->...ik"), "matmul",
         14 * 3 * 4 * 5, 0, 168 + 140 + 210),
    Case("einsum_three", one("Einsum", {"a": (2, 3), "b": (3, 4), "c": (4, 5)}, equation="ij,jk,kl->il"), "matmul",
         2 * 3 * 4 + 2 * 4 * 5, 0, 6 + 12 + 20 + 10),
    Case("einsum_outer", one("Einsum", {"a": (4,), "b": (5,)}, equation="i,j->ij"), "elementwise", 0, 20, 29),
    Case("einsum_trace", one("Einsum", {"a": (4, 4)}, equation="ii->"), "reduction", 0, 16, 17),
    Case("attention", one("Attention", {"q": (2, 4, 3, 16), "k": (2, 2, 5, 16), "v": (2, 2, 5, 12)}, opset=23),
         "attention", 2 * 4 * 3 * 5 * 28, 6 * 2 * 4 * 3 * 5, 384 + 320 + 240 + 288),
    Case("attention_flat", one("Attention", {"q": (2, 3, 32), "k": (2, 5, 16), "v": (2, 5, 16)}, opset=23,
                               q_num_heads=4, kv_num_heads=2, is_causal=1),
         "attention", 2 * 4 * 3 * 5 * 16, 6 * 2 * 4 * 3 * 5, 192 + 160 + 160 + 192),
    Case("lstm", one("LSTM", SEQUENCE, [zeros("w", 2, 64, 8), zeros("r", 2, 64, 16)], hidden_size=16,
                     direction="bidirectional"),
         "recurrent", 5 * 3 * 2 * 4 * 16 * 24, 17 * 16 * 15 * 2, 120 + 1024 + 2048 + 480),
    Case("gru", one("GRU", SEQUENCE, [zeros("w", 1, 48, 8), zeros("r", 1, 48, 16)], hidden_size=16),
         "recurrent", 5 * 3 * 3 * 16 * 24, 14 * 16 * 15, 120 + 384 + 768 + 240),
    Case("rnn", one("RNN", SEQUENCE, [zeros("w", 1, 16, 8), zeros("r", 1, 16, 16)], hidden_size=16),
         "recurrent", 5 * 3 * 16 * 24, 3 * 16 * 15, 120 + 128 + 256 + 240),
    Case("batch_norm", one("BatchNormalization", {"x": X4}, [zeros(n, 3) for n in "abcd"]), "batch_norm", 0, 2 * SIZE,
         2 * SIZE + 12),
    unary("LayerNormalization", "layer_norm", 7 * SIZE, 2 * SIZE + 12, zeros("w", 6), zeros("b", 6)),
    unary("GroupNormalization", "group_norm", 7 * SIZE, 2 * SIZE + 6, zeros("w", 3), zeros("b", 3), num_groups=3),
    unary("InstanceNormalization", "group_norm", 7 * SIZE, 2 * SIZE + 6, zeros("w", 3), zeros("b", 3)),
    unary("RMSNormalization", "rms_norm", 4 * SIZE, 2 * SIZE + 6, zeros("w", 6), opset=23),
    unary("LRN", "elementwise", (5 + 5) * SIZE, 2 * SIZE, size=5),
    unary("Softmax", "softmax", 5 * SIZE, 2 * SIZE),
    unary("LogSoftmax", "softmax", 5 * SIZE, 2 * SIZE),
    unary("MaxPool", "pool", 2 * 3 * 7 * 4 * 6, SIZE + 2 * 3 * 7 * 4, kernel_shape=[2, 3]),
    unary("AveragePool", "pool", 2 * 3 * 4 * 3 * 4, SIZE + 2 * 3 * 4 * 3, kernel_shape=[2, 2], strides=[2, 2]),
    unary("GlobalAveragePool", "pool", SIZE, SIZE + 6),
    unary("ReduceMean", "pool", SIZE, SIZE + 6, numbers("axes", 2, 3)),
    unary("ReduceSum", "reduction", SIZE, SIZE + 48, numbers("axes", -1), keepdims=0),
    unary("ArgMax", "reduction", SIZE, SIZE + 2 * 48, axis=-1, keepdims=0),
    unary("CumSum", "reduction", SIZE, 2 * SIZE, numbers("axis", 1)),
    unary("TopK", "reduction", SIZE, SIZE + 96 + 2 * 96, numbers("k", 2), outputs=2, axis=-1),
    unary("Resize", "interpolate", 7 * 4 * SIZE, 5 * SIZE, order=["x", "", "s"], mode="linear"),
    unary("Relu", "elementwise", SIZE, 2 * SIZE),
    unary("Gelu", "elementwise", SIZE, 2 * SIZE),
    unary("HardSwish", "elementwise", SIZE, 2 * SIZE),
    unary("Clip", "elementwise", SIZE, 2 * SIZE, numbers("low", 0, kind=np.float32)),
    unary("PRelu", "elementwise", SIZE, 2 * SIZE + 3, zeros("slope", 3, 1, 1)),
    Case("add", one("Add", {"x": X4, "z": (6,)}), "elementwise", 0, SIZE, 2 * SIZE + 6),
    Case("mul_by_itself", one("Mul", {"x": X4}, order=["x", "x"]), "elementwise", 0, SIZE, 2 * SIZE),
    Case("mul_by_a_number", one("Mul", {"x": X4}, [numbers("two", 2, kind=np.float32)]), "elementwise", 0, SIZE,
         2 * SIZE),
    Case("sum_of_three", one("Sum", {"a": (4, 5), "b": (4, 5), "c": (4, 5)}), "elementwise", 0, 40, 80),
    Case("rotary", one("RotaryEmbedding", {"x": (2, 4, 3, 8), "c": (2, 3, 4), "s": (2, 3, 4)}, opset=23), "elementwise",
         0, 192, 192 + 24 + 24 + 192),
    Case("concat", one("Concat", {"x": X4, "z": (2, 1, 8, 6)}, axis=1), "copy", 0, 0, 2 * (SIZE + 96)),
    unary("Pad", "copy", 0, SIZE + 2 * 3 * 10 * 8, numbers("pads", 0, 0, 1, 1, 0, 0, 1, 1)),
    unary("Tile", "copy", 0, 3 * SIZE, numbers("repeats", 1, 1, 2, 1)),
    unary("DepthToSpace", "copy", 0, 2 * SIZE, blocksize=1),
    Case("gather_rows", one("Gather", {"x": (20, 8)}, [numbers("i", 1, 5, 7)]), "copy", 0, 0, 24 + 2 * 3 + 24),
    Case("multi_head", one("MultiHeadAttention", {"q": (2, 3, 32), "k": (2, 5, 32), "v": (2, 5, 16)}, domain=MICROSOFT,
                           num_heads=4), "attention", 2 * 4 * 3 * 5 * 12, 6 * 2 * 4 * 3 * 5, 192 + 320 + 160 + 96),
    Case("group_query", one("GroupQueryAttention", {"x": (2, 3, 64), "pk": (2, 2, 5, 8), "pv": (2, 2, 5, 8)},
                            order=["x", "", "", "pk", "pv"], domain=MICROSOFT, num_heads=4, kv_num_heads=2),
         "attention", 2 * 4 * 3 * 8 * 16, 6 * 2 * 4 * 3 * 8, 384 + 160 + 160 + 192),
    Case("nothing_known", one("Det", {"x": (4, 3, 3)}), "unknown", 0, 0, 36 + 4),
    Case("contributed", one("FastGelu", {"x": X4}, domain=MICROSOFT), "elementwise", 0, SIZE, 2 * SIZE),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_node(case: Case, tmp_path: Path) -> None:
    if case.name == "Resize":
        case.model.graph.initializer.append(numbers("s", 1, 1, 2, 2, kind=np.float32))
    (op,) = read(case.model, tmp_path)
    expected = (case.kind, case.macs, case.vector_flops, 4 * case.values)
    assert (op.kind, op.macs, op.vector_flops, op.native_bytes) == expected
    extents = op.extents
    if extents is not None:
        assert extents.products * extents.m * extents.n * extents.k == op.macs


@pytest.mark.parametrize(
    ("attributes", "variant"),
    [
        ({"strides": [2, 2], "dilations": [1, 1]}, "3x3/2"),
        ({"strides": [2, 1]}, "3x3/2x1"),
        ({"dilations": [2, 2]}, "3x3d2"),
        ({}, "3x3"),
    ],
)
def test_the_window_of_a_convolution(attributes: dict[str, Any], variant: str, tmp_path: Path) -> None:
    (op,) = read(one("Conv", {"x": (1, 3, 9, 9)}, [zeros("w", 4, 3, 3, 3)], **attributes), tmp_path)
    assert op.variant == variant


@pytest.mark.parametrize(
    ("op", "stored", "attributes", "channels"),
    [
        ("Conv", [zeros("w", 6, 2, 3, 3)], {"group": 2}, 6),
        ("ConvTranspose", [zeros("w", 4, 3, 3, 3)], {"group": 2}, 6),
        ("MatMul", [zeros("w", 7, 5)], {}, 5),
        ("LSTM", [zeros("w", 1, 12, 7), zeros("r", 1, 12, 3)], {"hidden_size": 3}, 12),
    ],
)
def test_output_channels_share_out_a_weight(
    op: str, stored: list[onnx.TensorProto], attributes: dict[str, Any], channels: int, tmp_path: Path
) -> None:
    shape = (2, 4, 9, 7) if "Conv" in op else (2, 4, 7)
    (found,) = read(one(op, {"x": shape}, stored, **attributes), tmp_path)
    assert found.role("weight")[0].channels == channels


@pytest.mark.parametrize("turned", [0, 1])
def test_output_channels_of_a_gemm(turned: int, tmp_path: Path) -> None:
    (op,) = read(one("Gemm", {"x": (2, 8)}, [zeros("w", *((5, 8) if turned else (8, 5)))], transB=turned), tmp_path)
    assert op.role("weight")[0].channels == 5


VIEWS = (
    ("Reshape", [numbers("shape", 2, 24, -1)], {}),
    ("Transpose", [], {"perm": [3, 0, 2, 1]}),
    ("Squeeze", [], {}),
    ("Unsqueeze", [numbers("axes", 0, 3)], {}),
    ("Flatten", [], {"axis": 2}),
    ("Expand", [numbers("shape", 5, 2, 3, 8, 6)], {}),
    ("Identity", [], {}),
    ("Dropout", [], {}),
    ("Slice", [numbers("starts", 1, -4), numbers("ends", 2, 9), numbers("axes", 1, 3), numbers("steps", 1, 2)], {}),
    ("Gather", [numbers("index", 2)], {"axis": 2}),
)


@pytest.mark.parametrize(("op", "stored", "attributes"), VIEWS, ids=lambda v: v if isinstance(v, str) else "")
def test_views_are_free(op: str, stored: list[onnx.TensorProto], attributes: dict[str, Any], tmp_path: Path) -> None:
    graph = read(one(op, {"x": X4}, stored, **attributes), tmp_path)
    assert len(graph) == 0 and graph.free_ops == 1


Step = tuple[str, tuple[str, ...], dict[str, Any]]


def chain(*nodes: Step, shape: tuple[int, ...] = X4) -> onnx.ModelProto:
    built = [
        helper.make_node(op, [f"v{i}", *also], [f"v{i + 1}"], **attributes)
        for i, (op, also, attributes) in enumerate(nodes)
    ]
    stored = [
        numbers("flat", 2, -1),
        numbers("rows", 6, 48),
        numbers("back", -1),
        numbers("start", 0),
        numbers("two", 2),
    ]
    stored += [numbers("minus", -1), numbers("low", -99), numbers("shape", 5, 2, 3, 8, 6), numbers("all", 1440)]
    return model(built, [value("v0", shape)], [f"v{len(nodes)}"], stored)


@pytest.mark.parametrize(
    ("nodes", "copies"),
    [
        ([("Reshape", ("flat",), {}), ("Reshape", ("rows",), {})], 0),
        ([("Transpose", (), {"perm": [0, 1, 3, 2]}), ("Reshape", ("rows",), {})], 1),
        ([*[("Transpose", (), {"perm": [1, 0, 2, 3]})] * 2, ("Reshape", ("rows",), {})], 0),
        ([("Expand", ("shape",), {}), ("Reshape", ("all",), {})], 1),
        ([("Slice", ("back", "low", "start", "minus",), {})], 1),
    ],
)  # fmt: skip
def test_a_reshape_copies_where_memory_is_not_in_order(nodes: list[Step], copies: int, tmp_path: Path) -> None:
    graph = read(chain(*nodes), tmp_path)
    assert [op.kind for op in graph] == ["copy"] * copies


def test_parts_and_repeats_of_a_tensor_are_read_as_what_they_hold(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Expand", ["a", "shape"], ["d"]),
        helper.make_node("Relu", ["d"], ["e"]),
    ]
    graph = read(model(nodes, [value("x", [2, 4])], ["c", "e"], [numbers("shape", 7, 2, 2)]), tmp_path)
    assert [(t.elements, t.shape) for op in graph for t in op.tensors] == [
        (4, (2, 2)), (4, (2, 2)), (4, (7, 2, 2)), (28, (7, 2, 2)),
    ]  # fmt: skip


def test_an_embedding_reads_the_rows_looked_up(tmp_path: Path) -> None:
    built = one("Gather", {"ids": (3, 7)}, [random("embed.weight", 20, 8)], order=["embed.weight", "ids"], kind=IDS)
    (op,) = read(built, tmp_path)
    (weight,) = op.role("weight")
    assert (op.kind, op.layer, weight.elements, weight.stored, weight.channels) == ("embedding", "embed", 168, 160, 21)
    assert weight.batched and op.native_bytes == 4 * 160 + 8 * 21 + 4 * 168


@pytest.mark.parametrize("op", ["Loop", "Scan", "If"])
def test_control_flow_is_unknown_and_priced_by_its_bytes(op: str, tmp_path: Path) -> None:
    def body(name: str, *inputs: onnx.ValueInfoProto) -> onnx.GraphProto:
        nodes = [helper.make_node("MatMul", ["outer", "outer"], ["inner"])]
        nodes += [helper.make_node("Identity", ["go"], ["on"])] if op == "Loop" else []
        results = [value("on", [], TensorProto.BOOL)] if op == "Loop" else []
        return helper.make_graph(nodes, name, inputs, [*results, value("inner", [4, 4])])

    given, scalar = {"If": ["go"], "Loop": ["n", "go"], "Scan": ["x"]}[op], TensorProto.BOOL
    inside = {"Loop": [value("i", [], IDS), value("go", [], scalar)], "Scan": [value("row", [4])]}
    bodies = {"then_branch": body("a"), "else_branch": body("b")} if op == "If" else {"body": body("a", *inside[op])}
    settings = {"num_scan_inputs": 1} if op == "Scan" else {}
    node = helper.make_node(op, given, ["y"], "flow", **bodies, **settings)
    inputs = [value("outer", [4, 4]), value("go", [], scalar), value("n", [], IDS), value("x", [3, 4])]
    built = model([node], inputs, [], [])
    built.graph.output.append(value("y", [3, 4, 4]))
    graph = read(built, tmp_path)
    (found,) = graph
    read_bytes = {"If": 1, "Loop": 9, "Scan": 48}[op] + 64
    assert found.kind == "unknown" and found.note == "its body is not counted"
    assert graph.unknown == {f"onnx.{op}": {"count": 1, "bytes": read_bytes + 4 * 48}}


def test_a_branch_that_shapes_decide_is_taken(tmp_path: Path) -> None:
    then = helper.make_graph([helper.make_node("Relu", ["x"], ["r"])], "a", [], [value("r", None)])
    other = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["m"])], "b", [], [value("m", None)])
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "one"], ["d"]),
        helper.make_node("Equal", ["d", "four"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    stored = [numbers("one", 1), numbers("four", 4)]
    assert [op.target for op in read(model(nodes, [value("x", [4, 4])], ["y"], stored), tmp_path)] == ["onnx.Relu"]
    assert [op.kind for op in read(model(nodes, [value("x", [5, 5])], ["y"], stored), tmp_path)] == ["matmul"]


def by_version(opset: int) -> onnx.ModelProto:
    """A network whose operators changed their form between opsets 11 and 25: axes and sizes as attributes or inputs."""
    stored = [random("conv.weight", 4, 3, 3, 3), random("fc.weight", 4, 5), numbers("one", 1), numbers("two", 2, 2)]
    stored += [numbers("last", -1), numbers("pads", 0, 0, 1, 1, 0, 0, 1, 1), numbers("spatial", 2, 3)]
    stored += [numbers("low", 0, kind=np.float32), numbers("scales", 1, 1, 2, 2, kind=np.float32)]
    stored.append(zeros("roi", 0))
    listed = opset >= 13
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["a"]),
        helper.make_node("Conv", ["a", "conv.weight"], ["b"]),
        helper.make_node("Clip", ["b", "low"], ["c"]),
        helper.make_node("Resize", ["c", "roi", "scales"], ["d"], mode="nearest"),
        helper.make_node("Split", ["d", "two"], ["e", "f"], axis=1) if listed
        else helper.make_node("Split", ["d"], ["e", "f"], axis=1, split=[2, 2]),
        helper.make_node("Concat", ["e", "f"], ["g"], axis=1),
        helper.make_node("ReduceMean", ["g", "spatial"], ["h"], keepdims=0) if opset >= 18
        else helper.make_node("ReduceMean", ["g"], ["h"], axes=[2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["h", "one"], ["i"]) if listed
        else helper.make_node("Unsqueeze", ["h"], ["i"], axes=[1]),
        helper.make_node("MatMul", ["i", "fc.weight"], ["j"]),
        helper.make_node("Squeeze", ["j", "one"], ["k"]) if listed
        else helper.make_node("Squeeze", ["j"], ["k"], axes=[1]),
        helper.make_node("ReduceSum", ["k", "last"], ["l"]) if listed
        else helper.make_node("ReduceSum", ["k"], ["l"], axes=[-1]),
        helper.make_node("Softmax", ["k"], ["m"], axis=-1),
        helper.make_node("Mul", ["m", "l"], ["y"]),
    ]  # fmt: skip
    return model(nodes, [value("x", ["n", 3, 6, 6])], ["y"], stored, opset=opset)


@pytest.mark.parametrize("opset", range(11, 26))
def test_every_opset(opset: int, tmp_path: Path) -> None:
    graph = read(by_version(opset), tmp_path, {"x": (2, 3, 6, 6)})
    assert [op.kind for op in graph] == [
        "copy", "conv", "elementwise", "interpolate", "copy", "reduction", "linear", "reduction", "softmax",
        "elementwise",
    ]  # fmt: skip
    assert graph.macs == 2 * 4 * 36 * 27 + 2 * 4 * 5
    assert graph.flops == 2 * graph.macs + 2 * 4 * 36 + 2 * 4 * 144 + 10 + 50 + 10
    assert graph.unknown == {} and graph.notes == ()


NOT_EXPORTED = {
    "bilinear", "addbmm", "addmv", "int_mm", "sdpa_gqa", "sdpa_gqa_decode", "transformer_encoder_layer",
    "transformer_decoder_layer", "llama_tiny", "lstm_two_layers_bidirectional_projected",
}  # fmt: skip
# The product with a hidden state of zeros is folded when such a cell is exported.
FOLDED = {"rnn_cell", "gru_cell", "lstm_cell"}
EXPORTED = [
    row for row in (*CONVOLUTIONS, *MATRICES, *ATTENTION, *RECURRENT, *LOOKUPS) if row.name not in NOT_EXPORTED | FOLDED
]


@pytest.mark.parametrize("row", EXPORTED, ids=lambda row: row.name)
def test_what_torchscript_exports_has_the_products_by_hand(row: Row, tmp_path: Path) -> None:
    module, inputs = row.make("cpu")
    path = tmp_path / "row.onnx"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(module, inputs, path, dynamo=False)
    graph = read(onnx.load(path), tmp_path)
    assert graph.macs == row.macs and graph.unknown == {}


def test_float_types_have_their_widths(tmp_path: Path) -> None:
    for kind, bits in ((TensorProto.FLOAT16, 16), (TensorProto.DOUBLE, 64), (TensorProto.BFLOAT16, 16), (FLOAT, 32)):
        (op,) = read(one("Relu", {"x": X4}, kind=kind), tmp_path)
        assert op.native_bytes == 2 * SIZE * bits // 8
