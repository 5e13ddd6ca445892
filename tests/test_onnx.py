"""``read_onnx``: inputs and their shapes, names of layers, what is folded, and what is opened."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import roofline
from roofline import read_onnx
from roofline.errors import AIQError, InputError, ModelFileError, UnknownNameError
from tests.onnx_graphs import encoder, model, network, numbers, one, quantized, random, read, value, zeros

ROOT = Path(__file__).resolve().parents[1]


def test_roles_shapes_and_names(tmp_path: Path) -> None:
    graph = read(network(), tmp_path, {"x": (2, 3, 16, 16)})
    conv, relu, pool, head = graph.ops
    assert [(t.role, t.name, t.shape, t.elements, t.batched) for t in conv.tensors] == [
        ("input", "", (2, 3, 16, 16), 1536, True),
        ("weight", "conv.weight", (8, 3, 3, 3), 216, False),
        ("parameter", "conv.bias", (8,), 8, False),
        ("output", "", (2, 8, 16, 16), 4096, True),
    ]
    assert [(op.name, op.layer, op.kind) for op in graph] == [
        ("conv", "conv", "conv"),
        ("act", "act", "elementwise"),
        ("pool", "pool", "pool"),
        ("head", "head", "linear"),
    ]
    assert [op.target for op in graph] == ["onnx.Conv", "onnx.Relu", "onnx.GlobalAveragePool", "onnx.Gemm"]
    assert [op.role("input")[0].producers for op in graph] == [(), (0,), (1,), (2,)]
    assert (graph.batch, graph.outputs, graph.free_ops, graph.notes) == (2, {3}, 5, ())
    assert graph.parameters == {
        "conv.weight": (216, 32),
        "conv.bias": (8, 32),
        "head.weight": (40, 32),
        "head.bias": (5, 32),
    }
    assert graph.model.startswith("m") and head.role("weight")[0].channels == 5 and relu.flops == pool.flops == 4096


def test_a_batch_grows_what_depends_on_the_input(tmp_path: Path) -> None:
    one_, three = (read(network(), tmp_path, {"x": (n, 3, 16, 16)}) for n in (1, 3))
    assert roofline.estimate(one_, _machine(), batch=3).bytes == roofline.estimate(three, _machine()).bytes


def _machine() -> Any:
    from tests.machines import FLAT

    return FLAT


def several(*shapes: Any) -> onnx.ModelProto:
    names = [f"x{i}" for i in range(len(shapes))]
    nodes = [helper.make_node("Relu", [name], [f"y{i}"]) for i, name in enumerate(names)]
    return model(nodes, list(map(value, names, shapes)), [f"y{i}" for i in range(len(shapes))])


def test_an_open_first_axis_is_one_sample(tmp_path: Path) -> None:
    graph = read(several(["n", 3], [None, 4], ["n", 5], []), tmp_path)
    assert [op.role("input")[0].shape for op in graph] == [(1, 3), (1, 4), (1, 5), ()]


def test_axes_of_the_same_name_have_one_length(tmp_path: Path) -> None:
    built = several(["n", "t"], ["n", "t"], [4, "t"])
    graph = read(built, tmp_path, {"x0": (2, 7)})
    assert [op.role("input")[0].shape for op in graph] == [(2, 7), (2, 7), (4, 7)]
    assert [op.batched for op in graph] == [True, True, False]
    assert [op.role("input")[0].shape for op in read(built, tmp_path, [(3, 5)])] == [(3, 5), (3, 5), (4, 5)]


@pytest.mark.parametrize(
    ("shapes", "error", "text"),
    [
        (
            {},
            InputError,
            "leaves axes of its inputs open: x0=n,3,h,w x1=5,?. Next: set them, for instance --input x0=1,3,128,128.",
        ),
        ({"x0": (1, 3, 8, 8)}, InputError, "Next: set them, for instance --input x1=5,128."),
        (
            {"x": (1, 2)},
            UnknownNameError,
            "unknown input 'x': did you mean 'x1' or 'x0'? Next: choose one of x0=n,3,h,w x1=5,?.",
        ),
        ({"x0": (1, 4, 8, 8)}, InputError, "is n,3,h,w, got 1,4,8,8. Next: give a shape that fits; --batch asks"),
        ({"x0": (1, 3)}, InputError, "is n,3,h,w, got 1,3."),
        ({"x0": (1, 3, 0, 8)}, InputError, "input 'x0' was given the shape 1x3x0x8, and every axis has at least 1."),
        ([(1, 3, 8, 8), (5, 2), (1,)], InputError, "has 2 inputs, got 3 shapes: known: x0=n,3,h,w x1=5,?."),
    ],
)
def test_shapes_that_are_missing_or_do_not_fit(shapes: Any, error: type, text: str, tmp_path: Path) -> None:
    with pytest.raises(error) as caught:
        read(several(["n", 3, "h", "w"], [5, None]), tmp_path, shapes)
    assert text in str(caught.value)


def test_two_lengths_of_one_axis_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"axis 'n' of 'm.*' is 2 in one input and 3 in 'x1'"):
        read(several(["n"], ["n"]), tmp_path, {"x0": (2,), "x1": (3,)})


def names(*nodes: tuple[str, str, str]) -> onnx.ModelProto:
    built = [helper.make_node("MatMul", ["x", weight], [f"y{i}"], name) for i, (name, weight, _) in enumerate(nodes)]
    stored = {weight: random(weight, 4, 4) for _, weight, _ in nodes}
    return model(built, [value("x", [2, 4])], [f"y{i}" for i in range(len(nodes))], list(stored.values()))


NAMES = (
    ("/encoder/layer.0/fc/MatMul", "onnx::MatMul_7", "encoder.layer.0.fc"),
    ("/blocks/blocks.0/mlp/mlp.2/MatMul", "val_9", "blocks.0.mlp.2"),
    ("node_linear", "model.fc.weight", "model.fc"),
    ("node_linear_2", "model.up.weight_quantized", "model.up"),
    ("node_linear_3", "val_11", "node_linear_3"),
    ("blocks.1.proj", "val_12", "blocks.1.proj"),
    ("", "val_13", "MatMul_6"),
)


def test_layers_are_named_by_parameters_or_by_nodes(tmp_path: Path) -> None:
    graph = read(names(*NAMES), tmp_path)
    assert [op.layer for op in graph] == [op.name for op in graph] == [layer for *_, layer in NAMES]


def test_a_weight_that_two_modules_share_is_one_layer(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["embed.weight", "ids"], ["e"], "/embed/Gather"),
        helper.make_node("Transpose", ["embed.weight"], ["t"]),
        helper.make_node("MatMul", ["e", "t"], ["y"], "/head/MatMul"),
    ]
    built = model(nodes, [value("ids", [2, 3], TensorProto.INT64)], ["y"], [random("embed.weight", 9, 4)])
    graph = read(built, tmp_path)
    assert [(op.name, op.layer) for op in graph] == [("embed", "embed"), ("head", "embed")]
    assert graph.aliases == {"embed": ("head",)} and graph.parameters == {"embed.weight": (36, 32)}
    assert {t.storage for op in graph for t in op.role("weight")} == {graph.ops[0].role("weight")[0].storage}


def test_notes_of_torchs_exporter_say_what_belongs_together(tmp_path: Path) -> None:
    built = model(
        [helper.make_node("Sigmoid", ["x"], ["s"], "n1"), helper.make_node("Mul", ["x", "s"], ["y"], "n2")],
        [value("x", [2, 4])],
        ["y"],
    )
    for node in built.graph.node:
        notes = {"name_scopes": "['', 'mlp', 'mlp.act', 'silu']", "class_hierarchy": "['M', 'aten.silu.default']"}
        for key, text in notes.items():
            node.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=text)
    (op,) = read(built, tmp_path)
    assert (op.name, op.kind, op.flops, op.target) == ("mlp.act", "elementwise", 8, "onnx.Sigmoid+Mul")


def test_chains_that_compute_shapes_are_free(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "i"], ["n"], axis=0),
        helper.make_node("Mul", ["n", "four"], ["m"]),
        helper.make_node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["f", "half"], ["g"]),
        helper.make_node("Floor", ["g"], ["h"]),
        helper.make_node("Cast", ["h"], ["k"], to=TensorProto.INT64),
        helper.make_node("Concat", ["minus", "k"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["z"]),
        helper.make_node("Range", ["zero", "length", "step"], ["r"]),
        helper.make_node("ConstantOfShape", ["k"], ["c"]),
        helper.make_node("Relu", ["z"], ["y"]),
    ]
    stored = [numbers("i", 0), numbers("four", 4), numbers("half", 2, kind=np.float32), numbers("minus", -1)]
    stored += [numpy_helper.from_array(np.array(v), n) for n, v in (("zero", 0), ("length", 9), ("step", 1))]
    graph = read(model(nodes, [value("x", ["b", 6])], ["y"], stored), tmp_path, {"x": (8, 6)})
    (relu,) = graph
    assert relu.role("output")[0].shape == (3, 16) and graph.free_ops == 11


def test_large_tensors_made_of_shapes_are_work(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    graph = read(model(nodes, [value("x", [100, 200])], ["y"]), tmp_path)
    assert [(op.kind, op.native_bytes) for op in graph] == [("fill", 80_000), ("elementwise", 240_000)]


def test_what_is_computed_from_weights_alone_is_folded(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["fc.weight", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"], "/fc/MatMul"),
    ]
    (op,) = read(
        model(nodes, [value("x", [2, 80])], ["y"], [random("fc.weight", 80, 80), zeros("scale", 80)]), tmp_path
    )
    assert (op.kind, op.layer, op.role("weight")[0].elements) == ("linear", "fc", 6400)


def test_functions_of_the_file_are_written_out(tmp_path: Path) -> None:
    body = [
        helper.make_node("LeakyRelu", ["a"], ["t"]),
        helper.make_node("MatMul", ["t", "w"], ["b"]),
    ]
    body[0].attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    opsets = [helper.make_opsetid("", 21)]
    inner = helper.make_function("own", "Block", ["a", "w"], ["b"], body, opsets, attributes=["slope"])
    twice = [
        helper.make_node("Block", ["a", "w"], ["m"], domain="own"),
        helper.make_node("Block", ["m", "w"], ["b"], domain="own"),
    ]
    outer = helper.make_function("own", "Twice", ["a", "w"], ["b"], twice, [*opsets, helper.make_opsetid("own", 1)])
    call = helper.make_node("Twice", ["x", "fc.weight"], ["y"], "call", domain="own")
    stored = [random("fc.weight", 4, 4)]
    graph = read(
        model([call], [value("x", [2, 4])], ["y"], stored, functions=[inner, outer], domains=["own"]), tmp_path
    )
    assert [op.kind for op in graph] == ["elementwise", "linear"] * 2 and graph.layers == ("fc",)
    again = helper.make_function("own", "Twice", ["a", "w"], ["b"], [call], [*opsets, helper.make_opsetid("own", 1)])
    with pytest.raises(ModelFileError, match="call each other without end"):
        read(model([call], [value("x", [2, 4])], ["y"], stored, functions=[again], domains=["own"]), tmp_path)


def attention(scale: str, *, mask: bool) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        *([helper.make_node("Mul", ["q", "c"], ["qs"])] if scale == "before" else []),
        helper.make_node("MatMul", ["qs" if scale == "before" else "q", "kt"], ["s0"]),
        *([helper.make_node("Div", ["s0", "c"], ["s1"])] if scale == "after" else []),
        *([helper.make_node("Add", ["s1" if scale == "after" else "s0", "mask"], ["s2"])] if mask else []),
        helper.make_node("Softmax", ["s2" if mask else "s1" if scale == "after" else "s0"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]
    inputs = [value("q", [2, 4, 6, 8]), value("k", [2, 4, 5, 8]), value("v", [2, 4, 5, 3]), value("mask", [2, 1, 6, 5])]
    return model(nodes, inputs, ["y"], [numbers("c", 2, kind=np.float32)])


@pytest.mark.parametrize("scale", ["before", "after", "none"])
@pytest.mark.parametrize("mask", [True, False])
def test_attention_in_parts_is_attention(scale: str, mask: bool, tmp_path: Path) -> None:
    (op,) = read(attention(scale, mask=mask), tmp_path)
    assert (op.kind, op.macs) == ("attention", 2 * 4 * 6 * 5 * (8 + 3))
    assert op.vector_flops == 6 * 2 * 4 * 6 * 5
    assert op.native_bytes == 4 * (2 * 4 * 6 * 8 + 2 * 4 * 5 * 8 + 2 * 4 * 5 * 3 + 2 * 4 * 6 * 3 + mask * 2 * 6 * 5)


def test_scores_that_are_returned_stay_apart(tmp_path: Path) -> None:
    built = attention("after", mask=False)
    built.graph.output.append(value("p", None))
    assert [op.kind for op in read(built, tmp_path)] == ["matmul", "elementwise", "softmax", "matmul"]


def test_layer_norm_in_parts_is_layer_norm(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x", "last"], ["m"]),
        helper.make_node("Sub", ["x", "m"], ["d"]),
        helper.make_node("Pow", ["d", "two"], ["p"]),
        helper.make_node("ReduceMean", ["p", "last"], ["v"]),
        helper.make_node("Add", ["v", "eps"], ["e"]),
        helper.make_node("Sqrt", ["e"], ["r"]),
        helper.make_node("Div", ["d", "r"], ["n"]),
        helper.make_node("Mul", ["n", "ln.weight"], ["s"]),
        helper.make_node("Add", ["s", "ln.bias"], ["y"]),
    ]
    stored = [numbers("last", -1), numbers("two", 2, kind=np.float32), numbers("eps", 1e-5, kind=np.float32)]
    stored += [random("ln.weight", 8), random("ln.bias", 8)]
    (op,) = read(model(nodes, [value("x", [2, 5, 8])], ["y"], stored), tmp_path)
    assert (op.kind, op.flops, op.native_bytes) == ("layer_norm", 7 * 80, 4 * (80 + 80 + 16))


@pytest.mark.parametrize(
    ("built", "kinds"),
    [
        (network(), ["conv", "elementwise", "pool", "linear"]),
        (
            encoder(),
            ["embedding", "linear", "attention", "elementwise", "reduction", "elementwise", "unknown", "unknown"],
        ),
        (quantized(), ["conv", "elementwise", "reduction", "linear"]),
    ],
)
def test_small_models(built: onnx.ModelProto, kinds: list[str], tmp_path: Path) -> None:
    graph = read(built, tmp_path)
    assert [op.kind for op in graph] == kinds
    if "unknown" in kinds:
        assert graph.unknown.keys() == {"onnx.If", "acme.Custom"}
        assert graph.notes == ("the shapes of 2 results are not known, first z of If: they count as empty",)


def test_declared_shapes_stand_in_for_what_cannot_be_inferred(tmp_path: Path) -> None:
    built = one("Custom", {"x": ["n", 4]}, domain="acme")  # type: ignore[dict-item]
    built.graph.node.append(helper.make_node("Relu", ["y0"], ["y"]))
    built.graph.value_info.append(value("y0", ["n", 7]))
    custom, relu = read(built, tmp_path, {"x": (3, 4)})
    assert (custom.native_bytes, relu.flops) == (4 * (12 + 21), 21)


SCRIPT = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import roofline, onnx
heavy = {"torch", "transformers"} & set(sys.modules)
path = sys.argv[1]
graph = roofline.read_onnx(path)
before = len(opened)
graph = roofline.read_onnx(path)
heavy |= {"torch", "transformers"} & set(sys.modules)
print(repr((opened[before:], sorted(heavy), graph.macs)))
"""


def test_no_other_file_is_opened_and_torch_is_not_loaded(tmp_path: Path) -> None:
    built = network()
    for tensor, where in zip(built.graph.initializer, ("../../secret", "/etc/passwd", "model.data"), strict=False):
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=where)
    (tmp_path / "model.data").write_bytes(b"not to be read")
    path = tmp_path / "model.onnx"
    path.write_bytes(built.SerializeToString())
    run = [sys.executable, "-c", SCRIPT, str(path)]
    found = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    # The zero that a shape is computed with lies in another file too here, so its chain stays unknown.
    opened, heavy, macs = ast.literal_eval(found)
    assert (opened, heavy, macs >= 8 * 256 * 27) == ([str(path)], [], True)


def test_without_onnx_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError) as caught:
        read_onnx(tmp_path / "m.onnx")
    assert "is read with onnx, which is not installed. Next: pip install 'aiq-roofline[onnx]'." in str(caught.value)


def test_importing_roofline_loads_neither_onnx_nor_torch() -> None:
    script = "import sys, roofline; print(sorted({'torch', 'onnx'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize("opset", [1, 10, 99])
def test_opsets_that_are_not_known(opset: int, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=rf"uses operators of opset {opset}.*Next: "):
        read(one("Relu", {"x": (2,)}, opset=opset), tmp_path)


def test_a_name_and_layers_to_keep(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(network().SerializeToString())
    assert read_onnx(path).model == "net"
    graph = read_onnx(str(path), name="mine", keep_weights=["head"])
    assert (graph.model, graph.keep_weights) == ("mine", ("head",))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AIQError, match=r"cannot read '.*none.onnx': No such file or directory. Next: check the path."):
        read_onnx(tmp_path / "none.onnx")
