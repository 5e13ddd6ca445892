"""Grids of integer formats: scales and zero points for groups of values, by where they clip."""

from __future__ import annotations

from typing import NamedTuple

import torch

from roofline.precision import Precision

_PERCENTILE = 0.9999
_SHRINKS = torch.linspace(1.0, 0.3, 71).tolist()
_FULL_RANGE_BELOW = 8
_CHUNK_VALUES = 1 << 16


class Grid(NamedTuple):
    """``q = clamp(round(x / scale) + zero, low, high)``, ``x ≈ (q − zero) · scale``; scale and zero broadcast."""

    scale: torch.Tensor
    zero: torch.Tensor
    low: int
    high: int

    def codes(self, values: torch.Tensor) -> torch.Tensor:
        """Return the integers q, as floats."""
        return ((values / self.scale).round() + self.zero).clamp(self.low, self.high)

    def rounded(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values on the grid."""
        return (self.codes(values) - self.zero) * self.scale


def limits(precision: Precision) -> tuple[int, int]:
    """Return the least and greatest integer of a format.

    Unsigned where it stores zero points. Signed INT8 leaves out −128, as integer kernels do; narrower formats use all
    of their codes.
    """
    if precision.zero_point_bits:
        return 0, 2**precision.bits - 1
    top = 2 ** (precision.bits - 1) - 1
    return (-top if precision.bits >= _FULL_RANGE_BELOW else -top - 1), top


def fit_grid(groups: torch.Tensor, precision: Precision, clip: str, importance: torch.Tensor | None = None) -> Grid:
    """Choose one scale (and zero point) for each group.

    Args:
        groups: Values, float64 [..., n]; one group along the last axis.
        precision: An integer format.
        clip: ``max``, ``mse`` or ``percentile``.
        importance: Weight of each value's squared error, [..., n] with the first axis of ``groups``; for ``mse``.

    Returns:
        A grid whose scale and zero have shape [..., 1].

    Source: Nagel et al., A White Paper on Neural Network Quantization, arXiv 2106.08295, section 3.1.
    """
    bottom = groups.amin(-1, keepdim=True).clamp(max=0)
    top = groups.amax(-1, keepdim=True).clamp(min=0)
    if clip == "percentile":
        edge = torch.quantile(groups.abs(), _PERCENTILE, dim=-1, keepdim=True)
        bottom, top = bottom.clamp(min=-edge), top.clamp(max=edge)
    grid = _grid(bottom, top, precision)
    if clip != "mse":
        return grid
    if groups.dim() > 2 and len(groups) > 1 and groups.numel() > _CHUNK_VALUES:
        return _fit_parts(groups, precision, clip, importance)
    best = _error(groups, grid, importance)
    scale, zero = grid.scale.clone(), grid.zero.clone()
    for shrink in _SHRINKS[1:]:
        candidate = _grid(bottom * shrink, top * shrink, precision)
        error = _error(groups, candidate, importance)
        better = error < best
        scale, zero = torch.where(better, candidate.scale, scale), torch.where(better, candidate.zero, zero)
        best = torch.where(better, error, best)
    return Grid(scale, zero, grid.low, grid.high)


def _fit_parts(groups: torch.Tensor, precision: Precision, clip: str, importance: torch.Tensor | None) -> Grid:
    """Fit a few rows after another: the same, and many times faster, because they stay in the processor's cache."""
    parts = groups.split(max(1, _CHUNK_VALUES // groups[0].numel()))
    weights = [None] * len(parts) if importance is None else importance.split(len(parts[0]))
    grids = [fit_grid(part, precision, clip, weight) for part, weight in zip(parts, weights, strict=True)]
    scale, zero = (torch.cat([getattr(grid, name) for grid in grids]) for name in ("scale", "zero"))
    return Grid(scale, zero, grids[0].low, grids[0].high)


def _grid(bottom: torch.Tensor, top: torch.Tensor, precision: Precision) -> Grid:
    low, high = limits(precision)
    if precision.zero_point_bits:
        scale = _stored((top - bottom) / (high - low), precision)
        return Grid(scale, (-bottom / scale).round().clamp(low, high), low, high)
    scale = _stored(torch.maximum(top, -bottom) / high, precision)
    return Grid(scale, torch.zeros_like(scale), low, high)


def _stored(scale: torch.Tensor, precision: Precision) -> torch.Tensor:
    """Round scales to the format that they are stored in: half precision for groups that say so, else single."""
    half = bool(precision.group_size) and precision.scale_bits == 16
    stored = scale.to(torch.float16 if half else torch.float32).to(scale.dtype)
    usable = (stored > 0) & torch.isfinite(stored)
    return torch.where(usable, stored, torch.where(scale > 0, scale, torch.ones_like(scale)))


def _error(groups: torch.Tensor, grid: Grid, importance: torch.Tensor | None) -> torch.Tensor:
    squared = (groups - grid.rounded(groups)).square()
    return (squared if importance is None else squared * importance).sum(-1, keepdim=True)
