"""Quantize one weight tensor after a recipe."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from aiq.quantize._fake import fake_quantize, grouped
from aiq.quantize._gptq import gptq
from aiq.quantize._recipe import Recipe
from aiq.quantize._scales import Grid, fit_grid
from roofline.precision import Precision


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """What calibration knows of a layer's inputs, for each group of a grouped convolution.

    Attributes:
        mean: E[x] of the unfolded inputs, float64 [groups, K].
        second_moment: E[xxᵀ], float64 [groups, K, K].
    """

    mean: torch.Tensor
    second_moment: torch.Tensor


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A weight on its grid.

    Attributes:
        values: Float32, of the weight's shape.
        grid: Its grid over [C, G, K / G]; ``None`` for floating-point formats.
        bias_shift: What is to be added to the bias, float32 [C]; ``None`` without inputs to know it from.
        axis: Axis of the output channels.
        group_size: Values that share a scale, along the flattened input axes.
    """

    values: torch.Tensor
    grid: Grid | None
    bias_shift: torch.Tensor | None
    axis: int = 0
    group_size: int = 0

    def codes(self) -> torch.Tensor:
        """Return the integers that stand for the values, int8 or uint8 of the weight's shape.

        Raises:
            ValueError: The format is floating point.
        """
        if self.grid is None:
            raise ValueError("a floating-point format has no codes")
        moved = self.values.to(torch.float64).movedim(self.axis, 0)
        flat = moved.reshape(moved.shape[0], -1)
        groups, _ = grouped(flat, self.group_size)
        codes = self.grid.codes(groups).reshape(len(flat), -1)[:, : flat.shape[1]]
        kind = torch.uint8 if self.grid.low >= 0 else torch.int8
        return codes.to(kind).reshape(moved.shape).movedim(0, self.axis)


def quantize_weight(
    weight: torch.Tensor, precision: Precision, recipe: Recipe, inputs: InputStatistics | None, *, axis: int = 0
) -> QuantizedWeight:
    """Quantize a weight tensor.

    Args:
        weight: Float tensor.
        precision: Format of the values.
        recipe: How they are found. GPTQ falls back to nearest where ``inputs`` is ``None``.
        inputs: Statistics of the layer's inputs.
        axis: Axis of the output channels.
    """
    moved = weight.detach().to(torch.float32).movedim(axis, 0)
    flat = moved.reshape(moved.shape[0], -1)
    if precision.is_float:
        values, grid = fake_quantize(flat, precision).to(torch.float64), None
        group_size = flat.shape[1]
    else:
        values, grid, group_size = _integers(flat.to(torch.float64), precision, recipe, inputs)
    shift = None
    if inputs is not None and recipe.bias_correction:
        error = (flat.to(torch.float64) - values).reshape(len(inputs.mean), -1, flat.shape[1])
        shift = torch.einsum("gck,gk->gc", error, inputs.mean).reshape(-1).to(torch.float32)
    shaped = values.to(torch.float32).reshape(moved.shape).movedim(0, axis)
    return QuantizedWeight(shaped, grid, shift, axis, group_size)


def _integers(
    flat: torch.Tensor, precision: Precision, recipe: Recipe, inputs: InputStatistics | None
) -> tuple[torch.Tensor, Grid, int]:
    channels, size = flat.shape
    importance = None
    if inputs is not None:
        diagonal = inputs.second_moment.diagonal(dim1=1, dim2=2)
        importance = diagonal.repeat_interleave(channels // len(diagonal), dim=0)
    if recipe.per_tensor:
        weighted = None if importance is None else importance.reshape(1, 1, -1)
        whole = fit_grid(flat.reshape(1, 1, -1), precision, recipe.clip, weighted)
        grid = Grid(whole.scale.expand(channels, 1, 1), whole.zero.expand(channels, 1, 1), whole.low, whole.high)
        group_size = size
    else:
        group_size = min(precision.group_size or size, size)
        groups, _ = grouped(flat, group_size)
        weighted = None if importance is None else grouped(importance, group_size)[0]
        grid = fit_grid(groups, precision, recipe.clip, weighted)
    if recipe.rounding == "gptq" and inputs is not None:
        per_group = channels // len(inputs.mean)
        parts = []
        for index, moment in enumerate(inputs.second_moment):
            rows = slice(index * per_group, (index + 1) * per_group)
            part = Grid(grid.scale[rows], grid.zero[rows], grid.low, grid.high)
            parts.append(gptq(flat[rows], part, group_size, moment))
        return torch.cat(parts), grid, group_size
    groups, _ = grouped(flat, group_size)
    return grid.rounded(groups).reshape(channels, -1)[:, :size], grid, group_size
