"""The format that a tensor is moved and kept in, and the bytes that it takes there, for one batch or for many."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from roofline.graph import TensorSpec
from roofline.precision import LayerPrecision, Precision
from roofline.traffic import Moved

ACTIVATIONS = frozenset({"input", "output"})
KEPT = frozenset({"weight", "parameter", "state", "kv"})
_PARAMETER_BITS = 16


def carried(moved: Moved, formats: LayerPrecision) -> Precision | int:
    """Return the format of a tensor, by its role, or the bits of one value where no format says more.

    Parameters are as wide as activations, from 16 bits up.
    """
    precision, width = moved.native, moved.bits
    if moved.is_float and moved.role == "weight":
        precision = formats.weights or moved.native
    elif moved.is_float and moved.role == "kv":
        precision = formats.cache
    elif moved.is_float and moved.role in ACTIVATIONS:
        precision = formats.activations
    elif moved.is_float and formats.activations:
        width = max(formats.activations.bits, _PARAMETER_BITS)
    return width if precision is None else precision


def moved_bytes(moved: Moved, formats: LayerPrecision, *, scales: bool) -> int:
    """Return the bytes of one tensor under a layer's formats."""
    kind = carried(moved, formats)
    if isinstance(kind, int):
        return -(-moved.elements * kind // 8)
    return -(-kind.stored_bits(moved.elements, max(moved.channels, 1), scales=scales) // 8)


def weight_bytes(weights: Iterable[TensorSpec], formats: LayerPrecision, *, scales: bool) -> int:
    """Return the bytes that a layer's weights take in memory."""
    total = 0
    for spec in weights:
        own = spec.native or Precision(spec.dtype, spec.bits)
        precision = formats.weights if formats.weights and spec.is_float else own
        rows = spec.stored // (spec.elements // spec.channels) if spec.elements else 1
        total += -(-precision.stored_bits(spec.stored, max(rows, 1), scales=scales) // 8)
    return total


def stored_bytes(
    kind: Precision | int, elements: NDArray[np.float64], channels: NDArray[np.float64], *, scales: bool
) -> NDArray[np.float64]:
    """Return the bytes of many tensors in one format: :meth:`roofline.Precision.stored_bits` for arrays, in bytes.

    Args:
        kind: The format, or the bits of one value.
        elements: Values of each tensor; whole numbers below 2^53.
        channels: Output channels of each, at least 1.
        scales: Whether scales and zero points are counted.
    """
    if isinstance(kind, int):
        return np.ceil(elements * kind / 8)
    bits = elements * kind.bits
    if scales and (kind.group_size or kind.per_channel):
        groups = channels * (np.ceil(np.ceil(elements / channels) / kind.group_size) if kind.group_size else 1.0)
        bits = bits + np.where(elements > 0, groups, 0.0) * (kind.scale_bits + kind.zero_point_bits)
    found: NDArray[np.float64] = np.ceil(bits / 8)
    return found
