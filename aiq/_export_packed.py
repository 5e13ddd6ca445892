"""Write quantized linear layers as packages for PyTorch read them: compressed-tensors, and torchao's tensors."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from aiq._export_files import Reader, Written, checked
from aiq.quantize import Recipe, Simulator
from aiq.quantize._simulate import as_tensor
from aiq.quantize._weights import QuantizedWeight
from aiq.runtimes import Arrays, DeployError, Deployment
from roofline import LayerPrecision, Scheme
from roofline.scheme import Rule

_FILE = "model.safetensors"
_MOST_BITS = 8


@dataclass(frozen=True, eq=False)
class PackedLayer:
    """A linear layer on its grid, in signed integers.

    Attributes:
        bits: Bits of an integer.
        codes: The integers, int8 [N, K].
        scale: One for each channel or group, float32 [N, G].
        zero: Zero points, int8 [N, G]; ``None`` for symmetric formats.
        group_size: Values that share a scale.
    """

    bits: int
    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor | None
    group_size: int


def packable(simulator: Simulator, scheme: Scheme, target: str) -> Scheme:
    """Return the scheme for a target that stores linear layers alone; without a bias, none can be corrected.

    Raises:
        DeployError: It quantizes what the target has no form for.
    """
    corrected: list[Rule] = []
    for layer, formats in simulator.apply(scheme).items():
        if formats == LayerPrecision():
            continue
        module = _linear(simulator, layer, formats, target)
        recipe = Recipe.parse(formats.recipe, formats.weights)
        if module.bias is None and recipe.bias_correction:
            corrected.append(Rule(layer, replace(formats, recipe=str(replace(recipe, bias_correction=False)))))
    return replace(scheme, rules=(*corrected, *scheme.rules), name=scheme.name or str(scheme)) if corrected else scheme


def _linear(simulator: Simulator, layer: str, formats: LayerPrecision, target: str) -> nn.Linear:
    """Return the module of a layer that a target has a form for.

    Raises:
        DeployError: It has none.
    """
    weights = formats.weights
    if formats.activations is not None or weights is None:
        raise DeployError(
            f"{target} is written with weights alone, got activations of {formats.activations} in {layer}. "
            "Next: choose a scheme such as w4:g32, or --to onnx."
        )
    module = dict(simulator.model.module.named_modules()).get(layer)
    if not isinstance(module, nn.Linear) or weights.is_float or weights.bits > _MOST_BITS:
        what = "integers of at most 8 bits" if isinstance(module, nn.Linear) else "linear layers"
        raise DeployError(
            f"{target} has a form for {what} alone, got {layer} ({type(module).__name__}) in {weights}. "
            f"Next: keep it, {layer}=keep, or choose --to onnx."
        )
    group = weights.group_size
    if group and module.in_features > group and module.in_features % group:
        raise DeployError(
            f"{target} takes groups that divide a layer's {module.in_features} inputs, got {group} in {layer}. "
            "Next: choose another group size."
        )
    return module


def packed_layers(simulator: Simulator, scheme: Scheme) -> tuple[dict[str, torch.Tensor], dict[str, PackedLayer]]:
    """Return the state of the model with corrected biases, and its quantized layers apart from that.

    Raises:
        DeployError: A batch norm is folded into a quantized layer.
    """
    state = {name: tensor.detach().clone() for name, tensor in simulator.model.module.state_dict().items()}
    layers = {}
    for layer, formats in simulator.apply(scheme).items():
        if formats.weights is None:
            continue
        name = f"{layer}.weight"
        quantized = simulator.weights(layer, formats.weights, formats.recipe)[name]
        if not torch.equal(simulator.original(name), state.pop(name)):
            raise DeployError(
                f"a batch norm is folded into {layer}, which leaves no place for it. Next: keep it, {layer}=keep."
            )
        if quantized.bias_shift is not None and f"{layer}.bias" in state:
            state[f"{layer}.bias"] += quantized.bias_shift
        layers[layer] = _packed(formats.weights.bits, quantized)
    return state, layers


def _packed(bits: int, quantized: QuantizedWeight) -> PackedLayer:
    assert quantized.grid is not None
    codes, zero = quantized.codes(), None
    if codes.dtype == torch.uint8:
        middle = 2 ** (bits - 1)
        codes = (codes.to(torch.int16) - middle).to(torch.int8)
        zero = (quantized.grid.zero.squeeze(-1) - middle).to(torch.int8)
    scale = quantized.grid.scale.squeeze(-1).to(torch.float32).contiguous()
    return PackedLayer(bits, codes.contiguous(), scale, zero, min(quantized.group_size, codes.shape[1]))


def write_compressed_tensors(deployment: Deployment, scheme: Scheme, folder: Path, *, batch: int) -> Written:
    """Write ``model.safetensors`` and ``config.json`` in the format ``pack-quantized``.

    Raises:
        DeployError: The scheme quantizes more than weights of linear layers.
    """
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
    from compressed_tensors.quantization import QuantizationConfig
    from safetensors.torch import save_file

    simulator = deployment.simulator
    state, layers = packed_layers(simulator, scheme)
    groups: dict[tuple[int, int, bool], list[str]] = {}
    for layer, packed in layers.items():
        state[f"{layer}.weight_packed"] = pack_to_int32(packed.codes, packed.bits)
        state[f"{layer}.weight_scale"] = packed.scale
        state[f"{layer}.weight_shape"] = torch.tensor(packed.codes.shape)
        if packed.zero is not None:
            state[f"{layer}.weight_zero_point"] = pack_to_int32(packed.zero, packed.bits, packed_dim=0)
        grouped = packed.group_size if packed.scale.shape[1] > 1 else -1
        groups.setdefault((packed.bits, grouped, packed.zero is None), []).append(layer)
    config = QuantizationConfig(
        config_groups={
            f"group_{number}": {
                "targets": targets,
                "weights": {
                    "num_bits": bits,
                    "type": "int",
                    "symmetric": symmetric,
                    "strategy": "channel" if grouped < 0 else "group",
                    "group_size": None if grouped < 0 else grouped,
                },
                "format": "pack-quantized",
            }
            for number, ((bits, grouped, symmetric), targets) in enumerate(groups.items())
        },
        format="pack-quantized",
        quantization_status="compressed",
    )
    save_file(state, folder / _FILE, {"format": "pt"})
    text = json.dumps({"quantization_config": config.model_dump(mode="json")}, indent=2)
    (folder / "config.json").write_text(f"{text}\n", "utf-8")
    return _written(simulator, layers, "compressed-tensors", lambda: _with_compressed_tensors(simulator, folder))


def _with_compressed_tensors(simulator: Simulator, folder: Path) -> nn.Module:
    from compressed_tensors.compressors.base import decompress_module
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
    from safetensors.torch import load_file

    found = json.loads((folder / "config.json").read_text("utf-8"))["quantization_config"]
    module = _blank(simulator)
    apply_quantization_config(module, QuantizationConfig.model_validate(found), show_progress=False)
    state = load_file(folder / _FILE)
    for name, layer in module.named_modules():
        if hasattr(layer, "quantization_scheme"):
            own = {key.removeprefix(f"{name}."): state[key] for key in state if key.startswith(f"{name}.")}
            for key in ("weight", "weight_scale", "weight_zero_point"):
                layer.register_parameter(key, None)
            for key, value in own.items():
                layer.register_parameter(key, nn.Parameter(value, requires_grad=False))
                del state[f"{name}.{key}"]
            decompress_module(layer)
    _fill(module, state)
    return module


def write_torchao(deployment: Deployment, scheme: Scheme, folder: Path, *, batch: int) -> Written:
    """Write ``model.safetensors`` that holds torchao's ``IntxUnpackedToInt8Tensor``.

    Raises:
        DeployError: The scheme quantizes more than weights of linear layers.
    """
    from safetensors.torch import save_file
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import IntxUnpackedToInt8Tensor

    simulator = deployment.simulator
    state, layers = packed_layers(simulator, scheme)
    for layer, packed in layers.items():
        zero = torch.zeros_like(packed.scale, dtype=torch.int8) if packed.zero is None else packed.zero
        kind = getattr(torch, f"int{packed.bits}")
        state[f"{layer}.weight"] = IntxUnpackedToInt8Tensor(
            packed.codes, packed.scale, zero.contiguous(), kind, (1, packed.group_size), torch.float32, None
        )
    tensors, metadata = flatten_tensor_state_dict(state)
    save_file(tensors, folder / _FILE, metadata)
    return _written(simulator, layers, "torchao", lambda: _with_torchao(simulator, folder / _FILE))


def _with_torchao(simulator: Simulator, path: Path) -> nn.Module:
    from safetensors import safe_open
    from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    state, left = unflatten_tensor_state_dict(tensors, metadata)
    module = _blank(simulator)
    _fill(module, {**state, **left})
    return module


def _blank(simulator: Simulator) -> nn.Module:
    """Return the model's architecture with no weight of its own left."""
    module = copy.deepcopy(simulator.model.module).eval().requires_grad_(False)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.fill_(torch.nan)
    return module


def _fill(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    unknown = module.load_state_dict(dict(state), strict=False, assign=True).unexpected_keys
    if unknown:
        raise DeployError(f"what was written holds {unknown[0]!r}, which the model has not. Next: report this.")


def _written(
    simulator: Simulator, layers: Mapping[str, PackedLayer], package: str, load: Callable[[], nn.Module]
) -> Written:
    stored = {layer: f"int{layers[layer].bits}" if layer in layers else "fp32" for layer in simulator.layers}
    return Written(stored, {}, checked(lambda: _run(simulator, load()), package), f"{package} {version(package)}")


def _run(simulator: Simulator, module: nn.Module) -> Reader:
    def run(inputs: Arrays) -> Any:
        given = [torch.from_numpy(np.asarray(array)) for array in inputs]
        known = simulator.calibration_inputs
        named = dict(zip(known, given, strict=True)) if isinstance(known, Mapping) else None
        with torch.no_grad():
            output = module(*given) if named is None else module(**named)
        return as_tensor(output, simulator.model.name).numpy()

    return run
