"""Quantize activations: one static scale and zero point a tensor, from samples of calibration data."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from aiq.quantize._fake import CASTS, fake_quantize
from aiq.quantize._recipe import Recipe
from aiq.quantize._scales import Grid, fit_grid
from roofline.precision import Precision

_MOST_SAMPLES = 1 << 17


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


@dataclass(frozen=True, eq=False)
class Rounding:
    """Puts a tensor on a format's grid, out of place.

    Attributes:
        precision: The format.
        grid: One scale and zero point for the tensor; ``None`` for floating-point formats.
        top: Greatest magnitude that calibration saw, which FP8 is scaled by.
    """

    precision: Precision
    grid: Grid | None
    top: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the same shape and type on the grid."""
        if self.grid is not None:
            scale, zero = float(self.grid.scale), int(self.grid.zero)
            return torch.fake_quantize_per_tensor_affine(x, scale, zero, self.grid.low, self.grid.high)
        if self.precision.name.startswith("fp8"):
            dtype = CASTS[self.precision.name]
            scale = self.top / torch.finfo(dtype).max
            return (x / scale).clamp(-self.top / scale, self.top / scale).to(dtype).to(x.dtype) * scale
        return fake_quantize(x.reshape(1, -1), self.precision).reshape(x.shape).to(x.dtype)


def activation_rounding(seen: Range, precision: Precision, recipe: Recipe) -> Rounding:
    """Return what puts a tensor of that range on a format's grid."""
    top = max(abs(seen.low), abs(seen.high)) or 1.0
    return Rounding(precision, None if precision.is_float else activation_grid(seen, precision, recipe), top)
