"""Results of shape-preserving operators on ``meta``, without PyTorch's own shape inference.

PyTorch infers some of these in Python (batch normalisation takes 1.5 ms a call), which would be most of a trace. Each
function returns ``None`` where its conditions do not plainly hold; PyTorch then infers, or refuses, the call itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

ShapeRule = Callable[[Sequence[Any], dict[str, Any]], Any]


def _unary(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    return None if kwargs or not args[0].is_floating_point() else torch.empty_like(args[0])


def _unary_in_place(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    return None if kwargs or not args[0].is_floating_point() else args[0]


def _same(args: Sequence[Any]) -> bool:
    if len(args) != 2 or not isinstance(args[1], torch.Tensor):
        return False
    left, right = args
    return left.dtype == right.dtype and left.shape == right.shape and left.stride() == right.stride()


def _binary(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    return torch.empty_like(args[0]) if not kwargs and _same(args) and args[0].is_floating_point() else None


def _binary_in_place(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    return args[0] if not kwargs and _same(args) and args[0].is_floating_point() else None


def _batch_norm(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    x, training = args[0], args[5]
    if kwargs or training or x.dim() < 2 or not x.is_floating_point():
        return None
    channels = (x.shape[1],)
    return torch.empty_like(x) if all(p is None or tuple(p.shape) == channels for p in args[1:5]) else None


def _layer_norm(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    x, normalised = args[0], tuple(args[1])
    if kwargs or not x.is_floating_point() or tuple(x.shape[-len(normalised) :]) != normalised:
        return None
    fits = all(p is None or tuple(p.shape) == normalised for p in args[2:4] if not isinstance(p, float))
    return x.new_empty(x.shape) if fits else None


def _grouped_mm(args: Sequence[Any], _kwargs: dict[str, Any]) -> Any:
    """Rows of the left operand, each with its group's matrix; PyTorch's own rule refuses formats without a kernel."""
    left, right = args[:2]
    plain = left.is_meta and left.dim() == 2 and right.dim() == 3
    return left.new_empty((left.shape[0], right.shape[2])) if plain else None


_UNARY = ("relu", "gelu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "hardtanh", "relu6")

SHAPE_RULES: dict[str, ShapeRule] = {
    **dict.fromkeys(_UNARY, _unary),
    **{f"{name}_": _unary_in_place for name in _UNARY},
    **dict.fromkeys(("add", "mul", "sub"), _binary),
    **dict.fromkeys(("add_", "mul_", "sub_"), _binary_in_place),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "_grouped_mm": _grouped_mm,
}
