"""Runtimes against PyTorch and the simulation: float networks, quantized ones, and what each layer ran as."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from aiq.data import load
from aiq.registry import load_runtime, runtime_names
from aiq.runtimes import DeployError, has_one_float_format
from aiq.runtimes._torch import Torch
from roofline import Scheme
from roofline.errors import AIQError, InputError, UnknownNameError
from tests.deploying import BATCH, NETWORKS, apart, deployed, deployment, prepare, simulated

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

GRAPHS = ("onnxruntime", "openvino")
EAGER = ("torch", "torch-channels-last")
WEIGHTS = ("w8", "w4", "w4:z", "w8:z", "w4:g32", "w8:g32:z", "w3", "w4:g48")
ACTIVATIONS = ("w8a8", "w4a8", "w4a4", "w8a6", "w4:g32a8", "keep/int8")
_EXACT = 1e-5


def test_all_runtimes_are_registered() -> None:
    assert set(runtime_names()) >= {*EAGER, *GRAPHS, "torch-compile"}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("runtime", [*EAGER, *GRAPHS])
def test_float_outputs_are_those_of_pytorch(runtime: str, network: str) -> None:
    assert apart(runtime, network, "keep").max() < _EXACT


@pytest.mark.skipif(Torch(compiled=True).available() is not None, reason="torch-compile needs a C++ compiler")
def test_the_compiled_network_gives_the_outputs_of_pytorch() -> None:
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    tiny = deployed(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), inputs)
    prepared = load_runtime("torch-compile").prepare(tiny, Scheme(), batch=4, threads=1)
    expected = tiny.simulator.outputs(Scheme(), inputs[:4]).numpy()
    assert np.allclose(prepared.run(tiny.example(4)), expected, atol=1e-6)
    assert prepared.profile(tiny.example(4)) == ()


def test_a_compiled_runtime_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InputError) as caught:
        load_runtime("torch-compile")
    assert str(caught.value) == (
        "runtime 'torch-compile' cannot be used: torch-compile needs a C++ compiler. Next: install g++ or clang."
    )


@pytest.mark.parametrize("name", GRAPHS)
def test_a_runtime_that_is_not_installed_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiq.runtimes._protocol.find_spec", lambda module: None if module == name else module)
    with pytest.raises(InputError) as caught:
        load_runtime(name)
    assert str(caught.value) == (
        f"runtime '{name}' cannot be used: {name} is not installed. Next: pip install 'aiq-roofline[{name}]'."
    )


def test_every_layer_of_an_encoder_is_simulated() -> None:
    """PyTorch's fused inference path would show the simulator one operator."""
    simulator = deployment("encoder").simulator
    assert deployment("encoder").layers == simulator.graph.layers
    assert ("product 0", 2) in simulator.calibration.ranges
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("scheme", WEIGHTS)
@pytest.mark.parametrize("network", ["residual", "two_readers", "tied"])
@pytest.mark.parametrize("runtime", GRAPHS)
def test_quantized_weights_give_what_the_simulation_gives(runtime: str, network: str, scheme: str) -> None:
    assert apart(runtime, network, scheme).max() < _EXACT


@pytest.mark.parametrize("network", ["encoder", "up", "signal", "named"])
@pytest.mark.parametrize("runtime", [*EAGER, *GRAPHS])
def test_narrow_weights_of_any_operator_give_what_the_simulation_gives(runtime: str, network: str) -> None:
    assert apart(runtime, network, "w4").max() < _EXACT


def changed(network: str, scheme: str) -> float:
    """Return the mean change that a scheme makes to the outputs, in standard deviations."""
    quantized = simulated(network, scheme)
    return float(np.abs(simulated(network, "keep") - quantized).mean() / quantized.std())


@pytest.mark.parametrize("scheme", ACTIVATIONS)
@pytest.mark.parametrize("network", ["residual", "attention", "two_readers"])
def test_openvino_rounds_activations_as_the_simulation_does(network: str, scheme: str) -> None:
    """Sums in another order move a value across a rounding boundary now and then: most examples are equal."""
    assert np.median(apart("openvino", network, scheme)) < _EXACT < changed(network, scheme)


@pytest.mark.parametrize("scheme", ACTIVATIONS)
@pytest.mark.parametrize("network", ["attention", "two_readers"])
def test_onnxruntime_rounds_activations_as_the_simulation_does(network: str, scheme: str) -> None:
    assert np.median(apart("onnxruntime", network, scheme)) < _EXACT < changed(network, scheme)


@pytest.mark.parametrize("network", ["depthwise", "products", "encoder", "tied", "up", "signal"])
@pytest.mark.parametrize("runtime", GRAPHS)
def test_int8_networks_of_any_operator_give_what_the_simulation_gives(runtime: str, network: str) -> None:
    """ONNX Runtime's fused convolution rounds its bias to an int32, which moves more values across a boundary."""
    found = apart(runtime, network, "w8a8")
    assert found.mean() < 0.75 * changed(network, "w8a8")
    if runtime == "openvino" or network in ("products", "encoder", "tied"):
        assert np.median(found) < _EXACT


def test_zero_points_of_a_transposed_convolution_are_kept_off_openvino() -> None:
    assert apart("openvino", "up", "int8:z/int8").max() < 0.05
    told = prepare("openvino", "up", "int8:z/int8").executed_precisions()["up"]
    assert (told.compute, told.stored) == ("fp32", "fp32")
    assert told.reason == (
        "zero points of a transposed convolution have no sound kernel: stored as float32 of the same values"
    )


@pytest.mark.parametrize(("runtime", "exact"), [("torch", 0.1), ("openvino", 0.1), ("onnxruntime", _EXACT)])
def test_bfloat16(runtime: str, exact: float) -> None:
    """ONNX Runtime rounds and computes in float32, as the simulation does; the others compute in bfloat16."""
    assert apart(runtime, "residual", "bf16").max() < exact
    told = prepare(runtime, "residual", "bf16").executed_precisions().values()
    computed = "fp32" if runtime == "onnxruntime" else "bf16"
    assert {(ran.compute, ran.stored) for ran in told} == {(computed, "bf16")}
    reason = "ONNX Runtime on CPU ran fp32 where bf16 was asked for" if runtime == "onnxruntime" else ""
    assert {ran.reason for ran in told} == {reason}


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w8a8,layer2.*=keep", "w4"])
@pytest.mark.parametrize("runtime", GRAPHS)
def test_digits_are_told_as_the_simulation_tells_them(runtime: str, scheme: str) -> None:
    """At least 99.5 % of the whole report split."""
    images = load("digits", "report").x
    expected = deployment("digits_cnn").simulator.outputs(Scheme.parse(scheme), torch.from_numpy(images)).numpy()
    found = prepare(runtime, "digits_cnn", scheme, len(images)).run([images])
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.995
    assert np.abs(found - expected).max() < 0.1 * expected.std()


def test_openvino_runs_a_static_batch() -> None:
    """With a dynamic batch, OpenVINO gives wrong results for residual INT8 networks."""
    prepared = prepare("openvino", "residual", "w8a8", 4)
    assert [port.partial_shape.is_static for port in prepared._compiled.inputs] == [True]
    assert list(prepared._compiled.inputs[0].shape) == [4, 3, 8, 8]


@pytest.mark.parametrize(
    ("runtime", "kernels", "integer"),
    [
        ("onnxruntime", {"QLinearConv", "MatMulInteger"}, {"stem", "fc"}),
        ("openvino", {"_I8"}, {"stem", "a", "b", "fc"}),
    ],
)
def test_what_ran_in_int8_is_told_from_the_runtime_itself(runtime: str, kernels: set[str], integer: set[str]) -> None:
    told = prepare(runtime, "residual", "w8a8,short=keep").executed_precisions()
    assert tuple(told) == deployment("residual").layers
    assert {layer for layer, ran in told.items() if ran.compute == "int8"} == integer
    assert (told["short"].compute, told["short"].stored, told["short"].reason) == ("fp32", "fp32", "")
    for layer in {"a", "b"} - integer:
        assert told[layer].stored == "int8"
        assert told[layer].reason == "no INT8 kernel took it: ONNX Runtime on CPU ran fp32"
    for layer in integer:
        assert (told[layer].stored, told[layer].reason) == ("int8", "")
        assert any(kernel in told[layer].kernel for kernel in kernels)


@pytest.mark.parametrize(
    ("scheme", "stored", "reason"),
    [
        ("w4", {"onnxruntime": "int4", "openvino": "int4"}, "weights alone are narrow: widened to fp32"),
        ("w4a8", {"onnxruntime": "int8", "openvino": "int8"}, "{} has no kernel below 8 bits: widened to int8"),
        ("w4:g32a8", {"onnxruntime": "int8", "openvino": "int8"}, "no INT8 kernel took it: {} ran fp32"),
    ],
)
@pytest.mark.parametrize(
    ("runtime", "where"), [("onnxruntime", "ONNX Runtime on CPU"), ("openvino", "OpenVINO on CPU")]
)
def test_what_was_widened_is_told_with_its_reason(
    runtime: str, where: str, scheme: str, stored: dict[str, str], reason: str
) -> None:
    told = prepare(runtime, "two_readers", scheme).executed_precisions()["c"]
    assert (told.stored, told.reason) == (stored[runtime], reason.format(where))


@pytest.mark.parametrize("runtime", GRAPHS)
def test_groups_inside_a_convolution_have_no_form(runtime: str) -> None:
    told = prepare(runtime, "residual", "w4:g32").executed_precisions()["a"]
    assert (told.compute, told.stored) == ("fp32", "fp32")
    assert (
        told.reason == "groups inside a convolution's kernel have no form in ONNX: stored as float32 of the same values"
    )


@pytest.mark.parametrize("runtime", ["torch", *GRAPHS])
def test_a_profile_names_every_layer(runtime: str) -> None:
    prepared = prepare(runtime, "digits_cnn", "keep")
    steps = prepared.profile(deployment("digits_cnn").example(BATCH), passes=3)
    assert {layer for step in steps for layer in step.layers} == set(deployment("digits_cnn").layers)
    assert all(step.seconds >= 0 for step in steps)
    assert sum(step.seconds for step in steps) > 0


@pytest.mark.parametrize("runtime", [*EAGER, *GRAPHS])
@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ([np.zeros((3, 16), np.float32)] * 2, "input right must be float32 [16, 16], got float32 [3, 16]."),
        ([np.zeros((16, 9), np.float32)] * 2, "input right must be float32 [16, 16], got float32 [16, 9]."),
        ([np.zeros((16, 16))] * 2, "input right must be float32 [16, 16], got float64 [16, 16]."),
        ([np.zeros((16, 16), np.float32)], "the network takes 2 inputs, got 1."),
    ],
)
def test_inputs_that_do_not_fit_are_refused(runtime: str, inputs: list[np.ndarray], text: str) -> None:
    with pytest.raises(DeployError) as caught:
        prepare(runtime, "named", "keep").run(inputs)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("runtime", [*EAGER, *GRAPHS])
def test_a_batch_of_zero_and_unknown_layers_are_refused(runtime: str) -> None:
    with pytest.raises(InputError, match=r"^a pass takes at least 1 sample, got batch 0\. Next: raise the batch\.$"):
        prepare(runtime, "residual", "keep", 0)
    with pytest.raises(UnknownNameError, match=r"^unknown layer 'layer1\.0\.conv1'"):
        prepare(runtime, "residual", "keep,layer1.0.conv1=w8")


@pytest.mark.parametrize(
    ("runtime", "scheme", "text"),
    [
        ("onnxruntime", "fp8_e4m3", "stem: activations of fp8_e4m3 have no kernel on any CPU runtime."),
        ("openvino", "fp8_e4m3", "stem: activations of fp8_e4m3 have no kernel on any CPU runtime."),
        ("openvino", "w8a12", "stem: activations of int12 have no kernel on any CPU runtime."),
        ("torch", "w8a8", "PyTorch has no kernels for activations of int8 in a part of the layers"),
        ("torch", "bf16,fc=keep", "PyTorch has no kernels for activations of bf16 in a part of the layers"),
    ],
)
def test_formats_without_a_kernel_are_refused(runtime: str, scheme: str, text: str) -> None:
    with pytest.raises(DeployError) as caught:
        prepare(runtime, "residual", scheme)
    assert str(caught.value).startswith(text)
    assert " Next: " in str(caught.value)


@pytest.mark.parametrize(
    ("network", "scheme", "half", "other"),
    [
        ("residual", "bf16,fc=keep", "stem", "fp32 for fc"),
        ("residual", "w8a8,a=bf16,b=w8", "a", "fp32 for b"),
        ("residual", "w8a8,a=bf16,b=fp16", "a", "fp16 for b"),
        ("residual", "keep/bf16,b=bf16/fp32", "stem", "fp32 for b"),
        ("digits_cnn", "w8,conv1=bf16", "conv1", "fp32 for layer1.0.conv1"),
    ],
)
def test_openvino_refuses_several_floats(network: str, scheme: str, half: str, other: str) -> None:
    with pytest.raises(DeployError) as caught:
        prepare("openvino", network, scheme)
    assert str(caught.value) == (
        f"OpenVINO computes all floating-point layers of a network in one format, got bf16 for {half} and {other}: "
        "what runs would not be what was simulated. Next: give both bf16, or neither."
    )


@pytest.mark.parametrize("scheme", ["bf16", "bf16,*conv1=w8a8", "w8a8,*conv1=bf16", "w8a8,*conv1=keep", "int8/bf16"])
def test_openvino_runs_one_float_beside_integers(scheme: str) -> None:
    """Layers whose weights are declared as kept take the activations alone: they stand in the way of nothing."""
    told = prepare("openvino", "digits_cnn", scheme).executed_precisions()
    assert {ran.compute for ran in told.values()} - {"int8"} == {"fp32" if "keep" in scheme else "bf16"}


def test_openvino_alone_says_that_it_computes_in_one_float() -> None:
    found = {name for name in (*EAGER, *GRAPHS) if has_one_float_format(load_runtime(name))}
    assert found == {"openvino"}


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) if x.sum() > 0 else self.a(-x)


def test_a_network_that_cannot_be_exported_is_refused_in_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    branching = deployed(Branching(), torch.ones(4, 4))
    with pytest.raises(DeployError) as caught:
        load_runtime("onnxruntime").prepare(branching, Scheme(), batch=2, threads=1)
    text = str(caught.value)
    assert text.startswith("made_up cannot be exported to ONNX: GuardOnDataDependentSymNode: Could not guard on ")
    assert text.endswith(". Next: rewrite the operator that it names, or use the torch runtime.")
    assert "\n" not in text
    assert capfd.readouterr() == ("", "")


def test_a_weight_that_an_operator_without_a_quantized_form_reads_is_refused() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTM(4, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.cell(x)[0]

    recurrent = deployed(Recurrent(), torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(AIQError, match=r"has no quantized form|cannot be exported"):
        load_runtime("onnxruntime").prepare(recurrent, Scheme.parse("w8"), batch=2, threads=1)


def test_one_calibration_example_is_enough_to_export() -> None:
    one = deployed(nn.Linear(4, 3), torch.ones(1, 4))
    found = load_runtime("onnxruntime").prepare(one, Scheme.parse("w8"), batch=3, threads=1).run(one.example(3))
    assert np.allclose(found, one.simulator.outputs(Scheme.parse("w8"), torch.ones(3, 4)).numpy(), atol=1e-6)
