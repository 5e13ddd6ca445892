"""GPTQ: round weights one input at a time and let the inputs not yet rounded make up for the error."""

from __future__ import annotations

import torch

from aiq.quantize._scales import Grid

_DAMPING = 0.01
_BLOCK = 128


def gptq(weights: torch.Tensor, grid: Grid, group_size: int, second_moment: torch.Tensor) -> torch.Tensor:
    """Round a weight matrix so that ``‖(W − Ŵ) X‖²`` over calibration inputs X is small.

    Columns are taken by falling second moment of their input; after column i is rounded, the error
    ``(w_i − ŵ_i) / U_ii`` times row i of U is taken from the columns that follow, where ``UᵀU = (E[xxᵀ] + λI)⁻¹`` and λ
    is 1 % of the mean diagonal.

    Args:
        weights: [C, K], float64.
        grid: Scales and zero points [C, G, 1], G = ceil(K / group_size).
        group_size: Consecutive inputs that share a scale.
        second_moment: E[xxᵀ] of the inputs, [K, K], float64.

    Returns:
        The rounded weights, [C, K].

    Source: Frantar et al., GPTQ, ICLR 2023, arXiv 2210.17323, algorithm 1 with activation order.
    """
    size = weights.shape[1]
    diagonal = second_moment.diagonal().clone()
    dead = diagonal <= 0
    moment = second_moment.clone()
    damping = _DAMPING * diagonal.mean().clamp(min=torch.finfo(torch.float64).tiny)
    moment.diagonal().add_(damping)
    moment[dead, dead] = damping + diagonal.mean()
    order = torch.argsort(diagonal, descending=True, stable=True)
    left = weights[:, order].clone()
    groups = (order // group_size).tolist()
    upper = _inverse_root(moment[order][:, order])
    rounded = torch.empty_like(left)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        errors = torch.zeros(len(weights), stop - start, dtype=left.dtype)
        for i in range(start, stop):
            column = left[:, i]
            part = Grid(grid.scale[:, groups[i], 0], grid.zero[:, groups[i], 0], grid.low, grid.high)
            rounded[:, i] = part.rounded(column)
            error = (column - rounded[:, i]) / upper[i, i]
            left[:, i:stop] -= error[:, None] * upper[i, i:stop]
            errors[:, i - start] = error
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    result = torch.empty_like(rounded)
    result[:, order] = rounded
    return result


def _inverse_root(matrix: torch.Tensor) -> torch.Tensor:
    """Return the upper-triangular U with UᵀU equal to the inverse of a positive definite matrix."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
    return torch.linalg.cholesky(inverse, upper=True)
