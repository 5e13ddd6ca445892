"""The zoo: shapes, counts, names, weights."""

from __future__ import annotations

import fnmatch
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from aiq import zoo
from aiq.zoo._mobilenet import MobileNetV2
from aiq.zoo._plain import plain_convnet20
from hardware_specs.errors import AIQError, UnknownNameError
from tests.real_data import real

_ROOT = Path(__file__).resolve().parent.parent


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    return {name: part for name, part in model.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)}


def _weights(model: nn.Module) -> dict[str, int]:
    return {name: part.weight.numel() for name, part in _layers(model).items()}  # type: ignore[operator]


def _observe(model: nn.Module, shape: tuple[int, ...]) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Run one input and return, for each layer, its multiply-accumulates and the shape of its output."""
    seen: dict[str, tuple[int, tuple[int, ...]]] = {}
    handles = []
    for name, layer in _layers(model).items():

        def hook(part: nn.Module, _: object, out: torch.Tensor, name: str = name) -> None:
            assert name not in seen
            each = part.weight[0].numel()  # type: ignore[index]
            seen[name] = (out.numel() * each, tuple(out.shape[1:]))

        handles.append(layer.register_forward_hook(hook))
    with torch.inference_mode():
        model(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    return seen


# parameters, weighted layers, MACs
_COUNTS = {
    "digits_cnn": (38_266, 9, 828_736),
    "heavy_early_resnet20": (100_202, 23, 75_088_032),
    "mobilenet_v2": (2_236_682, 53, 6_124_928),
    "mobilenet_v2_cifar": (2_236_682, 53, 87_976_448),
    "plain_convnet20": (705_354, 21, 308_478_592),
    "resnet20": (272_474, 22, 40_813_184),
    "resnet20_padded": (269_722, 20, 40_551_040),
}


def test_every_network_is_counted() -> None:
    assert zoo.names() == tuple(_COUNTS)
    assert all(entry.name == name for name, entry in zoo.ENTRIES.items())


@pytest.mark.parametrize("name", list(_COUNTS))
def test_output_shape_and_mode(name: str) -> None:
    model = zoo.build(name)
    assert not model.training
    with torch.inference_mode():
        logits = model(torch.randn(3, *zoo.get(name).input_shape, generator=torch.Generator().manual_seed(1)))
    assert logits.shape == (3, 10)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("name", "counts"), _COUNTS.items())
def test_parameters_layers_and_macs(name: str, counts: tuple[int, int, int]) -> None:
    model = zoo.build(name, pretrained=False)
    seen = _observe(model, zoo.get(name).input_shape)
    parameters = sum(p.numel() for p in model.parameters())
    assert (parameters, len(seen), sum(macs for macs, _ in seen.values())) == counts


def test_counting_sees_a_change() -> None:
    seen = _observe(plain_convnet20(strided=(7,)).eval(), (3, 32, 32))
    assert sum(macs for macs, _ in seen.values()) != _COUNTS["plain_convnet20"][2]


def test_resnet20_closed_forms() -> None:
    stem = 32 * 32 * 3 * 9 * 16
    first = 6 * 32 * 32 * 9 * 16 * 16
    second = 16 * 16 * (9 * 16 * 32 + 5 * 9 * 32 * 32)
    third = 8 * 8 * (9 * 32 * 64 + 5 * 9 * 64 * 64)
    shortcuts = 16 * 16 * 16 * 32 + 8 * 8 * 32 * 64
    assert stem + first + second + third + shortcuts + 64 * 10 == 40_813_184
    model = zoo.build("resnet20")
    seen = _observe(model, (3, 32, 32))
    assert 2 * sum(macs for macs, _ in seen.values()) == 81_626_368
    kept = {name: count for name, count in _weights(model).items() if ".shortcut." in name}
    assert kept == {"layer2.0.shortcut.0": 16 * 32, "layer3.0.shortcut.0": 32 * 64}
    assert sum(_weights(model).values()) - sum(kept.values()) == 268_336


def test_resnet20_activations_are_those_of_the_accounting() -> None:
    model = zoo.build("resnet20")
    values = 0

    def count(_: nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        nonlocal values
        values += inputs[0].numel() + out.numel()

    for layer in _layers(model).values():
        layer.register_forward_hook(count)
    with torch.inference_mode():
        model(torch.zeros(1, 3, 32, 32))
    assert values == 412_746
    traffic_bytes = 4 * (values + 2_560 + 268_336)
    assert round(81_626_368 / traffic_bytes, 3) == 29.850


def test_layer_names() -> None:
    blocks = [f"layer{s}.{b}.conv{c}" for s in (1, 2, 3) for b in (0, 1, 2) for c in (1, 2)]
    assert set(_layers(zoo.build("resnet20_padded"))) == {"conv1", "linear", *blocks}
    shortcuts = {"layer2.0.shortcut.0", "layer3.0.shortcut.0"}
    assert set(_layers(zoo.build("resnet20"))) == {"conv1", "linear", *blocks, *shortcuts}
    heavy = _layers(zoo.build("heavy_early_resnet20"))
    assert set(heavy) == {"conv1", "linear", *blocks, *shortcuts, "layer1.0.shortcut.0"}
    assert list(_layers(zoo.build("plain_convnet20"))) == [f"features.{i}" for i in range(0, 60, 3)] + ["cls"]


def test_heavy_early_widths() -> None:
    seen = _observe(zoo.build("heavy_early_resnet20"), (3, 32, 32))
    shapes = [seen[name][1] for name in ("conv1", "layer1.2.conv2", "layer2.2.conv2", "layer3.2.conv2")]
    assert shapes == [(64, 32, 32), (32, 32, 32), (16, 16, 16), (16, 8, 8)]


def test_plain_convnet_strides_are_a_parameter() -> None:
    seen = _observe(plain_convnet20().eval(), (3, 32, 32))
    sides = [shape[-1] for name, (_, shape) in seen.items() if name != "cls"]
    assert sides == [32] * 7 + [16] * 7 + [8] * 6
    seen = _observe(plain_convnet20(strided=()).eval(), (3, 32, 32))
    assert seen["features.57"] == (32 * 32 * 64 * 64 * 9, (64, 32, 32))


@pytest.mark.parametrize(("name", "side"), [("mobilenet_v2", 1), ("mobilenet_v2_cifar", 4)])
def test_mobilenet_last_features(name: str, side: int) -> None:
    seen = _observe(zoo.build(name), (3, 32, 32))
    assert seen["features.18.0"][1] == (1280, side, side)


def test_mobilenet_strides_change_no_weight() -> None:
    first, second = (zoo.build(name, pretrained=False) for name in ("mobilenet_v2", "mobilenet_v2_cifar"))
    state = first.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in second.state_dict().items())
    second.load_state_dict(state, strict=True)


def test_mobilenet_at_imagenet_size_has_the_published_cost() -> None:
    model = MobileNetV2((2, 1, 2, 2, 2, 1, 2, 1), classes=1000).eval()
    seen = _observe(model, (3, 224, 224))
    assert sum(macs for macs, _ in seen.values()) == 300_774_272
    assert sum(p.numel() for p in model.parameters()) == 3_504_872
    assert {"features.0.0", "features.1.conv.0.0", "features.17.conv.2", "classifier.1"} <= set(seen)


@pytest.mark.parametrize("name", list(_COUNTS))
def test_keep_patterns_match_exactly_the_projection_shortcuts(name: str) -> None:
    layers = set(_layers(zoo.build(name)))
    patterns = zoo.get(name).keep
    kept = {layer for layer in layers if any(fnmatch.fnmatchcase(layer, pattern) for pattern in patterns)}
    assert kept == {layer for layer in layers if ".shortcut." in layer}
    assert all(any(fnmatch.fnmatchcase(layer, pattern) for layer in layers) for pattern in patterns)


def test_projection_that_embeds_the_identity_equals_the_padded_shortcut() -> None:
    padded, projected = zoo.build("resnet20_padded"), zoo.build("resnet20")
    state = padded.state_dict()
    for name, before, after in (("layer2.0.shortcut", 16, 32), ("layer3.0.shortcut", 32, 64)):
        kernel = torch.zeros(after, before, 1, 1)
        kernel[torch.arange(before) + (after - before) // 2, torch.arange(before)] = 1
        fresh = nn.BatchNorm2d(after).state_dict()
        fresh["running_var"] -= 1e-5
        state |= {f"{name}.0.weight": kernel} | {f"{name}.1.{key}": value for key, value in fresh.items()}
    projected.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(projected(x), padded(x), rtol=1e-4, atol=1e-4)


def test_random_weights_are_fixed_and_leave_the_global_state_alone() -> None:
    before = torch.random.get_rng_state()
    first, second = zoo.build("resnet20"), zoo.build("resnet20")
    assert torch.equal(before, torch.random.get_rng_state())
    state = second.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in first.state_dict().items())


def test_pretrained_false_gives_other_weights() -> None:
    trained, random = zoo.build("digits_cnn"), zoo.build("digits_cnn", pretrained=False)
    assert not torch.equal(trained.get_parameter("linear.weight"), random.get_parameter("linear.weight"))


def test_unknown_model_names_the_nearest_first() -> None:
    with pytest.raises(UnknownNameError) as caught:
        zoo.build("plain_convnet")
    assert str(caught.value) == (
        "unknown model 'plain_convnet': did you mean 'plain_convnet20'? "
        "Next: run 'aiq zoo' for the names, or give path/to/file.py:callable."
    )


def test_weights_path() -> None:
    assert zoo.weights_path("resnet20_padded") is None
    shipped = {name: zoo.weights_path(name) for name in zoo.names()}
    assert all(path.is_file() and path.stem == name for name, path in shipped.items() if path is not None)
    assert {"digits_cnn", "resnet20"} <= {name for name, path in shipped.items() if path is not None}


def test_load_weights_names_what_is_missing(tmp_path: Path) -> None:
    model = zoo.build("resnet20")
    state = model.state_dict()
    del state["linear.bias"]
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    with pytest.raises(AIQError) as caught:
        zoo.load_weights(model, path)
    assert str(caught.value) == (
        f'weights {str(path)!r} do not fit ResNet: Missing key(s) in state_dict: "linear.bias". '
        "Next: give the weights of this very network."
    )


def test_load_weights_refuses_absent_and_broken_files(tmp_path: Path) -> None:
    model = zoo.build("digits_cnn", pretrained=False)
    absent = tmp_path / "absent.safetensors"
    with pytest.raises(AIQError) as caught:
        zoo.load_weights(model, absent)
    assert str(caught.value) == f"weights {str(absent)!r}: no such file. Next: give the path of a .safetensors file."
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no tensors here")
    with pytest.raises(AIQError, match=r"Next: give a readable \.safetensors file\."):
        zoo.load_weights(model, broken)


def test_load_weights_widens_half_precision(tmp_path: Path) -> None:
    model = zoo.build("digits_cnn")
    halves = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(halves, tmp_path / "half.safetensors")
    zoo.load_weights(model, tmp_path / "half.safetensors")
    weight = model.get_parameter("linear.weight")
    assert weight.dtype == torch.float32
    assert torch.equal(weight, halves["linear.weight"].float())


def test_importing_the_zoo_does_not_import_torch() -> None:
    code = "import sys, aiq.zoo; aiq.zoo.names(); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"


def test_shared_resnet20_weights_load_strictly_and_give_915_of_1000() -> None:
    model = zoo.build("resnet20")
    zoo.load_weights(model, real("resnet20_cifar10.safetensors"))
    with np.load(real("cifar10_test_1000.npz")) as images:
        pixels, labels = images["x"], images["y"]
    mean = np.array([0.485, 0.456, 0.406], dtype=np.float32)
    std = np.array([0.229, 0.224, 0.225], dtype=np.float32)
    x = ((pixels.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        answers = torch.cat([model(part).argmax(1) for part in torch.from_numpy(np.ascontiguousarray(x)).split(250)])
    assert int((answers.numpy() == labels).sum()) == 915
