"""A data-free loss: how much quantization noise each layer's formats add, from its weights alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import torch

import aiq.quantize
from aiq.additive import Cell, LayerLosses, additive
from aiq.digest import code_digest, model_digest
from aiq.oracle import Metric, OracleContext
from aiq.quantize import fake_quantize, noise_to_signal
from roofline import LayerPrecision, Precision
from roofline.errors import AIQError, InputError

METRIC = Metric("weight noise", "% of signal power", higher_is_better=False)
_GAUSSIAN_POINTS, _GAUSSIAN_LIMIT = 20_001, 8.0
_CLIP_SIGMAS = np.linspace(1.0, 6.0, 101).tolist()


@additive
def weight_sqnr(argument: str, context: OracleContext) -> LayerLosses:
    """Return weight signal-to-quantization-noise as an additive oracle.

    The loss of a layer is 100 · (‖w − q(w)‖² / ‖w‖²), plus the same ratio of a Gaussian activation quantized at its
    best clipping where activations are quantized: percent of signal power. Independent noise adds over layers, so the
    sum estimates the noise at the output. It knows neither the data nor what the network makes of noise: a proxy that
    orders schemes, not an accuracy.

    Args:
        argument: Must be empty.
        context: The model with its weights, and its graph.

    Raises:
        InputError: There is an argument.
        AIQError: On evaluation: a weight has no values (on ``meta``) or holds NaN or infinity.
    """
    if argument:
        raise InputError(f"the oracle weight-sqnr takes no argument, got {argument!r}. Next: write weight-sqnr.")
    module = context.model.module
    tensors: dict[str, torch.Tensor] = dict(module.named_parameters(remove_duplicate=False))
    tensors.update(module.named_buffers(remove_duplicate=False))
    owned_by = context.graph.weight_elements()

    def loss(layer: str, option: LayerPrecision) -> float:
        owned = owned_by[layer]
        weights = [_checked(tensors[name], name) for name in owned]
        signals = [w.double().square().sum().item() for w in weights]
        ratio = _activation_noise(option.activations) if option.activations else 0.0
        if option.weights and sum(signals):
            noises = [s * noise_to_signal(w, option.weights) for s, w in zip(signals, weights, strict=True)]
            ratio += sum(noises) / sum(signals)
        if not np.isfinite(ratio):
            names = ", ".join(map(repr, owned))
            raise AIQError(f"{names} of {layer!r} does not fit {option.label}. Next: leave it out of --formats.")
        return 100.0 * ratio

    def losses(cells: Sequence[Cell]) -> list[float]:
        return [loss(*cell) for cell in cells]

    def describe() -> Mapping[str, str]:
        return {
            "oracle": "weight-sqnr",
            "weights": model_digest(context.model),
            "code": code_digest(sys.modules[__name__], aiq.quantize),
            "torch": torch.__version__,
        }

    caveat = (
        "weight signal-to-quantization-noise, added over layers: a proxy that orders schemes, not an accuracy; "
        "weights per output channel or group, rounded to nearest; activations taken as Gaussian"
    )
    return LayerLosses(METRIC, caveat, context.graph, losses, describe)


def _checked(weight: torch.Tensor, name: str) -> torch.Tensor:
    if weight.is_meta:
        raise AIQError(
            f"weight {name!r} is on meta: it has no values to measure. Next: build the model with its weights."
        )
    if weight.is_floating_point() and not torch.isfinite(weight).all():
        raise AIQError(f"weight {name!r} holds NaN or infinity. Next: check the checkpoint.")
    return weight


@cache
def _activation_noise(precision: Precision) -> float:
    """Return the noise-to-signal ratio of a standard Gaussian in a format, at its best clipping."""
    points = torch.linspace(-_GAUSSIAN_LIMIT, _GAUSSIAN_LIMIT, _GAUSSIAN_POINTS, dtype=torch.float64)
    weights = torch.exp(-points.square() / 2)
    signal = (weights * points.square()).sum()
    clips = [_GAUSSIAN_LIMIT] if precision.is_float else _CLIP_SIGMAS
    noises = []
    for clip in clips:
        within = torch.cat([points.clamp(-clip, clip), torch.tensor([clip], dtype=torch.float64)])
        rounded = fake_quantize(within[None], precision)[0, :-1].to(torch.float64)
        noises.append((weights * (points - rounded).square()).sum().item())
    return min(noises) / signal.item()
