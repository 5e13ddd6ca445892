"""Quantize activations: one static scale and zero point a tensor, from samples of calibration data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from aiq.quantize._fake import CASTS, fake_quantize
from aiq.quantize._recipe import Recipe
from aiq.quantize._scales import Grid, fit_grid
from roofline.precision import Precision

_MOST_SAMPLES = 1 << 17

Rounding = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Range:
    """What calibration saw of one tensor.

    Attributes:
        low: Least value.
        high: Greatest value.
        samples: An even sample of its values, float32 [n].
    """

    low: float
    high: float
    samples: torch.Tensor

    def joined(self, values: torch.Tensor) -> Range:
        """Return the range with another batch of values, float [...]."""
        flat = values.detach().reshape(-1)
        fresh = flat[:: -(-flat.numel() // _MOST_SAMPLES)]
        samples = torch.cat([self.samples, fresh.to(torch.float32)])
        samples = samples[:: -(-samples.numel() // (2 * _MOST_SAMPLES))]
        return Range(min(self.low, flat.min().item()), max(self.high, flat.max().item()), samples)


EMPTY_RANGE = Range(torch.inf, -torch.inf, torch.empty(0))


def activation_grid(seen: Range, precision: Precision, recipe: Recipe) -> Grid:
    """Return the grid of a tensor: unsigned codes with a zero point, over the calibrated range that the recipe clips.

    ``x ≈ (clamp(round(x / s) + z, 0, 2^b − 1) − z) · s``, the form of ONNX QuantizeLinear with uint8 at 8 bits.
    """
    ends = torch.tensor([seen.low, seen.high])
    values = torch.cat([seen.samples, ends]).to(torch.float64)
    affine = replace(precision, zero_point_bits=precision.bits, group_size=0)
    return fit_grid(values, affine, recipe.clip)


def activation_rounding(seen: Range, precision: Precision, recipe: Recipe) -> Rounding:
    """Return the function that puts a tensor on a format's grid, out of place."""
    if precision.is_float:
        if precision.name.startswith("fp8"):
            top = max(abs(seen.low), abs(seen.high)) or 1.0
            scale = top / torch.finfo(CASTS[precision.name]).max
            dtype = CASTS[precision.name]
            return lambda x: (x / scale).clamp(-top / scale, top / scale).to(dtype).to(x.dtype) * scale
        return lambda x: fake_quantize(x.reshape(1, -1), precision).reshape(x.shape).to(x.dtype)
    grid = activation_grid(seen, precision, recipe)
    scale, zero = float(grid.scale), int(grid.zero)
    return lambda x: torch.fake_quantize_per_tensor_affine(x, scale, zero, grid.low, grid.high)
