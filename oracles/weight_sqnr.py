"""A data-free proxy: how much quantization noise each layer's formats add, from its weights alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import torch

from aiq._model import Model
from aiq.proxy import LossTable
from aiq.quantize import fake_quantize, noise_to_signal
from roofline import LayerPrecision, OpGraph, Precision
from roofline.errors import AIQError, InputError

_GAUSSIAN_POINTS, _GAUSSIAN_LIMIT = 20_001, 8.0
_CLIP_SIGMAS = np.linspace(1.0, 6.0, 101).tolist()


class WeightSqnr:
    """Weight signal-to-quantization-noise.

    The loss of a layer is 100 · (‖w − q(w)‖² / ‖w‖²), plus the same ratio of a Gaussian activation quantized at its
    best clipping where activations are quantized: percent of signal power. Independent noise adds over layers, so the
    sum estimates the noise at the output. It knows neither the data nor what the network makes of noise: a proxy that
    orders schemes, not an accuracy.
    """

    name = "weight-sqnr"

    def __init__(self, argument: str = "") -> None:
        if argument:
            raise InputError(f"the proxy weight-sqnr takes no argument, got {argument!r}. Next: write weight-sqnr.")

    def loss_table(self, model: Model, graph: OpGraph, options: Mapping[str, Sequence[LayerPrecision]]) -> LossTable:
        """Return the noise-to-signal ratio in percent of each layer under each option.

        Raises:
            AIQError: A weight has no values (on ``meta``) or holds NaN or infinity.
        """
        tensors: dict[str, torch.Tensor] = dict(model.module.named_parameters(remove_duplicate=False))
        tensors.update(model.module.named_buffers(remove_duplicate=False))
        owned_by = graph.weight_elements()
        losses = np.zeros((len(options), max(map(len, options.values()))))
        for row, (layer, choices) in enumerate(options.items()):
            owned = owned_by[layer]
            weights = [_checked(tensors[name], name) for name in owned]
            signal = sum(w.double().square().sum().item() for w in weights)
            for column, option in enumerate(choices):
                ratio = _activation_noise(option.activations) if option.activations else 0.0
                if option.weights and signal:
                    noise = sum(w.double().square().sum().item() * noise_to_signal(w, option.weights) for w in weights)
                    ratio += noise / signal
                if not np.isfinite(ratio):
                    names = ", ".join(map(repr, owned))
                    raise AIQError(
                        f"{names} of {layer!r} does not fit {option.label}. Next: leave it out of --formats."
                    )
                losses[row, column] = 100.0 * ratio
        return LossTable(
            losses,
            "% of signal power",
            "weight signal-to-quantization-noise, added over layers: a proxy that orders schemes, not an accuracy; "
            "weights per output channel or group, rounded to nearest; activations taken as Gaussian",
        )


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
