"""The network that a scheme describes, bit for bit: codes, scales, zero points, and the forms of integer products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from roofline import Precision, Scheme
from tests.deploying import apart, deployed, deployment, prepare

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import ModelProto, TensorProto, checker, numpy_helper

from aiq.runtimes._integer_products import use_integer_products


def written(network: str, scheme: str, dialect: str = "onnx") -> ModelProto:
    return deployment(network).onnx(Scheme.parse(scheme), dialect=dialect).model


def values(model: ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def kinds(model: ModelProto, *, among: set[str]) -> list[str]:
    return [node.op_type for node in model.graph.node if node.op_type in among]


def node_of(model: ModelProto, name: str) -> Any:
    return next(node for node in model.graph.node if node.name == name)


def test_a_linear_layer_by_hand() -> None:
    """Weights [[1, −2], [0.5, 4]] in 8 bits by their largest: scales 2/127 and 4/127, codes 64, −127, 16, 127."""
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0, -2.0], [0.5, 4.0]])
    inputs = torch.tensor([[0.0, 1.0], [-1.0, 3.0]])
    model = deployed(layer, inputs).onnx(Scheme.parse("w8a8@max+nobias")).model
    found = values(model)
    codes = next(array for name, array in found.items() if name.endswith(".codes"))
    scale = next(array for name, array in found.items() if name.endswith("weight.T.scale"))
    assert codes.tolist() == [[64, 16], [-127, 127]]
    assert codes.dtype == np.int8
    assert scale.tolist() == [np.float32(2 / 127), np.float32(4 / 127)]
    quantize = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    assert found[quantize.input[1]] == np.float32(4 / 255)
    assert found[quantize.input[2]] == np.uint8(64)


@pytest.mark.parametrize("scheme", ["w8", "w4", "w4:z", "w8:z", "w3"])
def test_codes_and_scales_are_the_simulators(scheme: str) -> None:
    precision = Precision.parse(scheme.replace("w", "int"))
    simulator = deployment("residual").simulator
    found = values(written("residual", scheme))
    for layer in ("a", "fc"):
        name = f"{layer}.weight"
        quantized = simulator.weights(layer, precision)[name]
        stored = f"{name}.T" if layer == "fc" else name
        assert quantized.grid is not None
        codes = quantized.codes().numpy()
        assert np.array_equal(found[f"{stored}.codes"].astype(np.int16), codes.T if layer == "fc" else codes)
        assert np.array_equal(found[f"{stored}.scale"], quantized.grid.scale[:, 0, 0].float().numpy())
        if precision.zero_point_bits:
            assert np.array_equal(found[f"{stored}.zero"], quantized.grid.zero[:, 0, 0].numpy())


def test_groups_have_one_scale_each_along_the_inputs() -> None:
    simulator = deployment("two_readers").simulator
    model = written("two_readers", "w4:g32")
    quantized = simulator.weights("c", Precision.parse("int4:g32"))["c.weight"]
    assert quantized.grid is not None
    found = values(model)
    assert np.array_equal(found["c.weight.T.scale"], quantized.grid.scale[..., 0].float().numpy().T)
    attributes = {a.name: a.i for a in node_of(model, "dequantize:c.weight.T").attribute}
    assert attributes == {"axis": 0, "block_size": 32}


@pytest.mark.parametrize(
    ("scheme", "kind"),
    [("w4", TensorProto.INT4), ("w4:z", TensorProto.UINT4), ("w8", TensorProto.INT8), ("w8:z", TensorProto.UINT8)],
)
def test_weights_are_stored_in_as_many_bits_as_they_have(scheme: str, kind: int) -> None:
    tensors = {tensor.name: tensor.data_type for tensor in written("residual", scheme).graph.initializer}
    assert tensors["a.weight.codes"] == kind


@pytest.mark.parametrize("scheme", ["w8a8", "w8a6"])
def test_grids_of_activations_are_the_simulators(scheme: str) -> None:
    simulator = deployment("residual").simulator
    formats = simulator.apply(Scheme.parse(scheme))
    model = written("residual", scheme)
    found = values(model)
    for site, value in (("stem", "x"), ("b", "relu_1")):
        rounding = simulator.rounding(site, 0, formats)
        assert rounding is not None
        assert rounding.grid is not None
        quantize = node_of(model, f"quantize:{value}/{site}")
        scale, zero = found[quantize.input[1]], found[quantize.input[2]]
        assert scale == np.float32(rounding.grid.scale.item())
        assert (zero, zero.dtype) == (int(rounding.grid.zero), np.uint8)
        clips = [node for node in model.graph.node if node.name == f"clip:{value}/{site}"]
        assert len(clips) == (scheme == "w8a6")
        for clip in clips:
            bounds = [float(found[name]) for name in clip.input[1:]]
            assert bounds == pytest.approx([(0 - int(zero)) * float(scale), (63 - int(zero)) * float(scale)])


def test_a_tensor_is_rounded_once_for_all_its_readers() -> None:
    model = written("two_readers", "w8a8")
    rounded = node_of(model, "dequantize:relu/b").output[0]
    assert [node.name for node in model.graph.node if rounded in node.input] == ["b", "c"]
    assert kinds(model, among={"QuantizeLinear"}) == ["QuantizeLinear"] * 2


def test_an_addition_reads_what_was_rounded_for_a_layer() -> None:
    model = written("depthwise", "w8a8")
    add = next(node for node in model.graph.node if node.op_type == "Add" and not node.name.startswith("bias"))
    assert node_of(model, "dequantize:relu6/depth").output[0] in add.input


def test_another_grid_for_a_second_reader_rounds_what_was_rounded() -> None:
    """The layer that is called twice has a range of its own; so the simulation has it too."""
    model = written("residual", "w8a8")
    assert node_of(model, "short").input[0] == "relu/a/rounded/short/rounded"


def test_products_of_activations_are_rounded_on_both_sides() -> None:
    model = written("products", "w8a8")
    names = {node.name for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert {name.rpartition("/")[2] for name in names} == {"q", "product 0", "product 1"}
    assert sum(name.endswith("product 0") for name in names) == 2
    assert sum(name.endswith("product 1") for name in names) == 2


def test_tied_weights_are_quantized_wherever_they_are_read() -> None:
    model = written("tied", "w8")
    stored = {tensor.name for tensor in model.graph.initializer if "weight" in tensor.name}
    table = {"table.weight.codes", "table.weight.scale", "table.weight.T.codes", "table.weight.T.scale"}
    assert stored == {*table, "a.weight.T.codes", "a.weight.T.scale"}


@pytest.mark.parametrize("scheme", ["keep", "w8a8", "w4", "w4:g32", "bf16", "w4a4,a=w8,short=keep"])
def test_the_standard_checker_takes_it_and_no_label_is_left(scheme: str) -> None:
    model = written("residual", scheme)
    checker.check_model(model, full_check=True)
    assert b"layer:" not in model.SerializeToString()
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_writing_a_scheme_leaves_the_float_graph_alone() -> None:
    before = deployment("residual").float_graph.model.SerializeToString()
    written("residual", "w4a4")
    assert deployment("residual").float_graph.model.SerializeToString() == before
    assert written("residual", "w8a8").SerializeToString() == written("residual", "w8a8").SerializeToString()


PRODUCTS = {"Conv", "MatMul", "MatMulInteger", "MatMulNBits"}


def rewritten(network: str, scheme: str) -> ModelProto:
    model = written(network, scheme, "onnxruntime")
    use_integer_products(model)
    checker.check_model(model)
    return model


def test_products_that_are_not_rounded_at_once_accumulate_integers_and_convolutions_stay() -> None:
    model = rewritten("residual", "w8a8")
    found = {node.name: node.op_type for node in model.graph.node if node.op_type in PRODUCTS}
    assert found == {
        "layer:stem;": "Conv",
        "layer:a;": "Conv",
        "layer:short;": "Conv",
        "layer:b;": "Conv",
        "layer:a;1": "Conv",
        "layer:fc;": "MatMulInteger",
    }


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w8a4", "int8:z/int8"])
@pytest.mark.parametrize("network", ["attention", "two_readers", "encoder"])
def test_integer_products_are_exact(network: str, scheme: str) -> None:
    found = kinds(rewritten(network, scheme), among=PRODUCTS)
    assert "MatMulInteger" in found
    assert np.median(apart("onnxruntime", network, scheme)) < 1e-5


def test_a_signal_of_one_axis_keeps_its_convolutions_and_its_results() -> None:
    assert kinds(rewritten("signal", "w8a4"), among=PRODUCTS) == ["Conv", "Conv", "MatMulInteger"]
    assert np.median(apart("onnxruntime", "signal", "w8a4")) < 1e-5


def test_clipping_that_the_rounding_does_is_taken_out_and_any_other_stays() -> None:
    """ReLU6 and ReLU before a rounding to [0, 255 · s] are done by it; four bits are clipped before uint8."""
    assert kinds(written("depthwise", "w8a8", "onnxruntime"), among={"Clip"}) == ["Clip"] * 2
    assert kinds(rewritten("depthwise", "w8a8"), among={"Clip"}) == []
    assert kinds(rewritten("depthwise", "keep"), among={"Clip"}) == ["Clip"] * 2
    sites = len(kinds(rewritten("depthwise", "w8a4"), among={"QuantizeLinear"}))
    assert len(kinds(rewritten("depthwise", "w8a4"), among={"Clip"})) == sites + 2
    assert np.median(apart("onnxruntime", "depthwise", "w8a4")) < 1e-5


def test_nothing_is_left_that_no_one_reads() -> None:
    model = rewritten("residual", "w8a8")
    read = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    assert all(read.intersection(node.output) for node in model.graph.node)


def test_onnxruntime_differs_by_its_int32_biases_alone() -> None:
    """With the biases of its fused convolutions rounded to s_x · s_w, the simulation gives what it gives."""
    deployed_digits = deployment("digits_cnn")
    simulator, scheme = deployed_digits.simulator, Scheme.parse("w8a8")
    inputs = simulator.calibration_inputs[:32]
    found = prepare("onnxruntime", "digits_cnn", "w8a8", 32).run([inputs.numpy()])
    model = rewritten("digits_cnn", "w8a8")
    arrays = values(model)
    plain = simulator.outputs(scheme, inputs).numpy()
    formats = simulator.apply(scheme)
    biases = dict(simulator.module.named_parameters())
    before = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[2].endswith(".bias") and f"{node.input[2]}.codes" in arrays:
            codes, scale = (arrays[f"{node.input[2]}.{part}"] for part in ("codes", "scale"))
            assert codes.dtype == np.int32
            name = f"{node.name[len('layer:') : -1]}.bias"
            before[name] = biases[name].data
            exact = codes * scale.astype(np.float64)
            assert np.abs(exact - before[name].numpy()).max() <= 0.51 * scale.max()
            biases[name].data = torch.from_numpy(exact.astype(np.float32))
    rounded = simulator.forward(inputs, formats).numpy()
    for name, bias in before.items():
        biases[name].data = bias
    assert set(before) == {f"{layer}.bias" for layer in ("conv1", "layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1")}
    assert np.abs(found - rounded).mean() < 0.2 * np.abs(found - plain).mean()


def test_float_weights_between_rounded_tensors_stay_float() -> None:
    """ONNX Runtime would round them to int8 of its own accord."""
    assert apart("onnxruntime", "residual", "keep/int8").max() < 1e-5
    told = prepare("onnxruntime", "residual", "keep/int8").executed_precisions().values()
    assert {(ran.compute, ran.stored, ran.reason) for ran in told} == {("fp32", "fp32", "")}
