"""Constant folding of small tensors: the chains of operators with which a graph computes its own shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roofline.frontends._onnx_values import TINY

Array = NDArray[Any]
Fold = Callable[[Sequence[Array], dict[str, Any]], Array | list[Array]]


def fold(op: str, inputs: Sequence[Array | None], attributes: dict[str, Any]) -> list[Array] | None:
    """Return an operator's results on known numbers; ``None`` where it has no rule, or they are many or unsound."""
    rule, known = _RULES.get(op), [i for i in inputs if i is not None]
    if rule is None or not known or len(known) < len(inputs):
        return None
    try:
        with np.errstate(all="ignore"):
            found = rule(known, attributes)
    except (ValueError, IndexError, TypeError, ArithmeticError, KeyError):
        return None
    results = [np.asarray(a) for a in (found if isinstance(found, list) else [found])]
    return results if all(a.size <= TINY for a in results) else None


def _axes(inputs: Sequence[Array], attributes: dict[str, Any]) -> list[int] | None:
    if len(inputs) > 1:
        return [int(a) for a in inputs[1].reshape(-1)]
    return attributes.get("axes")


def _unsqueeze(inputs: Sequence[Array], attributes: dict[str, Any]) -> Array:
    return np.expand_dims(inputs[0], tuple(_axes(inputs, attributes) or ()))


def _squeeze(inputs: Sequence[Array], attributes: dict[str, Any]) -> Array:
    axes = _axes(inputs, attributes)
    return np.squeeze(inputs[0], None if axes is None else tuple(axes))


def _slice(inputs: Sequence[Array], attributes: dict[str, Any]) -> Array:
    data, starts, ends, *rest = inputs
    axes = rest[0].tolist() if rest else list(range(len(starts)))
    steps = rest[1].tolist() if len(rest) > 1 else [1] * len(starts)
    parts: list[slice] = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts.tolist(), ends.tolist(), steps, strict=True):
        size = data.shape[axis]
        # An end before the first position, as ONNX writes it for a negative step, means that position too.
        parts[axis] = slice(start, None if step < 0 and end < -size else end, step)
    return data[tuple(parts)]


def _gather(inputs: Sequence[Array], attributes: dict[str, Any]) -> Array:
    data, indices = inputs
    if indices.size * max(data.size, 1) > TINY * TINY:
        raise ValueError
    return np.take(data, indices, axis=attributes.get("axis", 0))


def _reshape(inputs: Sequence[Array], attributes: dict[str, Any]) -> Array:
    data, wanted = inputs
    shape = [int(d) for d in wanted.reshape(-1)]
    if not attributes.get("allowzero"):
        shape = [data.shape[i] if d == 0 else d for i, d in enumerate(shape)]
    return data.reshape(shape)


def _expand(inputs: Sequence[Array], _attributes: dict[str, Any]) -> Array:
    shape = np.broadcast_shapes(inputs[0].shape, tuple(int(d) for d in inputs[1].reshape(-1)))
    _check(shape)
    return np.broadcast_to(inputs[0], shape).copy()


def _tile(inputs: Sequence[Array], _attributes: dict[str, Any]) -> Array:
    repeats = [int(r) for r in inputs[1].reshape(-1)]
    _check((*inputs[0].shape, *repeats))
    return np.tile(inputs[0], repeats)


def _range(inputs: Sequence[Array], _attributes: dict[str, Any]) -> Array:
    start, limit, delta = (float(i.item()) for i in inputs)
    if not delta or not 0 <= (limit - start) / delta <= TINY:
        raise ValueError
    return np.arange(inputs[0].item(), inputs[1].item(), inputs[2].item(), dtype=inputs[0].dtype)


def _fill(inputs: Sequence[Array], attributes: dict[str, Any]) -> Array:
    shape = tuple(int(d) for d in inputs[0].reshape(-1))
    _check(shape)
    value = attributes.get("value")
    return np.full(shape, 0.0 if value is None else value, np.float32 if value is None else value.dtype)


def _check(shape: Sequence[int]) -> None:
    if any(d < 0 for d in shape) or prod(shape) > TINY:
        raise ValueError


def _split(inputs: Sequence[Array], attributes: dict[str, Any]) -> list[Array]:
    axis = attributes.get("axis", 0)
    size = inputs[0].shape[axis]
    sizes = inputs[1].tolist() if len(inputs) > 1 else attributes.get("split")
    if sizes is None:
        count = int(attributes["outputs"])
        each = -(-size // count)
        sizes = [min(each, size - i * each) for i in range(count)]
    return list(np.split(inputs[0], np.cumsum(sizes)[:-1], axis=axis))


def _divide(inputs: Sequence[Array], _attributes: dict[str, Any]) -> Array:
    left, right = inputs
    if not np.issubdtype(left.dtype, np.integer):
        return np.asarray(left / right)
    # ONNX rounds the quotient of integers toward zero.
    return (np.sign(left) * np.sign(right) * (np.abs(left) // np.abs(right))).astype(left.dtype)


def _modulo(inputs: Sequence[Array], attributes: dict[str, Any]) -> Array:
    return np.asarray(np.fmod(*inputs) if attributes.get("fmod") else np.mod(*inputs))


def _cast(inputs: Sequence[Array], attributes: dict[str, Any]) -> Array:
    return inputs[0].astype(attributes["to"])


def _reduce(function: Callable[..., Any]) -> Fold:
    def rule(inputs: Sequence[Array], attributes: dict[str, Any]) -> Array:
        axes = _axes(inputs, attributes)
        if not axes and attributes.get("noop_with_empty_axes"):
            return inputs[0]
        keep = bool(attributes.get("keepdims", 1))
        found = function(inputs[0], axis=tuple(axes) if axes else None, keepdims=keep)
        return np.asarray(found, dtype=inputs[0].dtype)

    return rule


def _of_each(function: Callable[..., Any]) -> Fold:
    def rule(inputs: Sequence[Array], _attributes: dict[str, Any]) -> Array:
        found = np.asarray(inputs[0])
        if len(inputs) == 1:
            return np.asarray(function(found))
        for other in inputs[1:]:
            _check(np.broadcast_shapes(found.shape, other.shape))
            found = np.asarray(function(found, other))
        return found

    return rule


def _where(inputs: Sequence[Array], _attributes: dict[str, Any]) -> Array:
    _check(np.broadcast_shapes(*(i.shape for i in inputs)))
    return np.where(*inputs)


def _concat(inputs: Sequence[Array], attributes: dict[str, Any]) -> Array:
    return np.concatenate(inputs, axis=attributes["axis"])


def _transpose(inputs: Sequence[Array], attributes: dict[str, Any]) -> Array:
    return np.transpose(inputs[0], attributes.get("perm"))


def _cumulated(inputs: Sequence[Array], _attributes: dict[str, Any]) -> Array:
    return np.cumsum(inputs[0], axis=int(inputs[1].item()), dtype=inputs[0].dtype)


def _scattered(inputs: Sequence[Array], _attributes: dict[str, Any]) -> Array:
    data, indices, updates = inputs
    found = data.copy()
    for place in np.ndindex(*indices.shape[:-1]):
        found[tuple(indices[place])] = updates[place]
    return found


_UFUNCS: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Pow": np.power,
    "Min": np.minimum,
    "Max": np.maximum,
    "Neg": np.negative,
    "Abs": np.abs,
    "Sign": np.sign,
    "Sqrt": np.sqrt,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.round,
    "Not": np.logical_not,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Equal": np.equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
}
_RULES: dict[str, Fold] = {
    "Identity": lambda inputs, _: inputs[0],
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Slice": _slice,
    "Gather": _gather,
    "Reshape": _reshape,
    "Expand": _expand,
    "Tile": _tile,
    "Range": _range,
    "ConstantOfShape": _fill,
    "Split": _split,
    "Concat": _concat,
    "Transpose": _transpose,
    "Cast": _cast,
    "Where": _where,
    "CumSum": _cumulated,
    "ScatterND": _scattered,
    "Size": lambda inputs, _: np.asarray(inputs[0].size, np.int64),
    "NonZero": lambda inputs, _: np.asarray(np.nonzero(inputs[0]), np.int64),
    "Div": _divide,
    "Mod": _modulo,
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    **{name: _of_each(function) for name, function in _UFUNCS.items()},
}
