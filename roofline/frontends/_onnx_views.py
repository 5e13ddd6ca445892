"""Operators that only look at memory in another way; each is free where the layout allows it, and else a copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from roofline.frontends._onnx_values import Value, expanded, reshaped, selected, sliced, transposed

Declared = Sequence[tuple[tuple[int, ...] | None, int]]
View = Callable[[Value, Sequence[Value | None], dict[str, Any], Declared], list[Value] | None]


def view(op: str, settings: dict[str, Any], inputs: Sequence[Value | None], declared: Declared) -> list[Value] | None:
    """Return what a node looks at as views of its input, or ``None`` where it has to copy or its shapes are unknown."""
    source = inputs[0] if inputs else None
    if source is None or source.shape is None or any(shape is None for shape, _ in declared):
        return None
    try:
        return VIEWS[op](source, inputs, settings, declared)
    except (IndexError, ValueError, TypeError, ArithmeticError):
        return None


def _reshape(source: Value, _inputs: Any, _settings: Any, declared: Declared) -> list[Value] | None:
    found = reshaped(source, declared[0][0] or ())
    return None if found is None else [found]


def _transpose(source: Value, _inputs: Any, settings: dict[str, Any], _declared: Declared) -> list[Value] | None:
    axes = list(range(len(source.shape or ())))
    order = settings.get("perm") or axes[::-1]
    return [transposed(source, order)] if sorted(order) == axes else None


def _expand(source: Value, _inputs: Any, _settings: Any, declared: Declared) -> list[Value] | None:
    shape = declared[0][0] or ()
    old = source.shape or ()
    fits = len(shape) >= len(old) and all(a in {1, b} for a, b in zip(old[::-1], shape[::-1], strict=False))
    return [expanded(source, shape)] if fits else None


def _split(source: Value, _inputs: Any, settings: dict[str, Any], declared: Declared) -> list[Value] | None:
    axis = settings.get("axis", 0) % max(len(source.shape or ()), 1)
    start, found = 0, []
    for shape, _ in declared:
        if shape is None or len(shape) != len(source.shape or ()):
            return None
        found.append(sliced(source, axis, start, 1, shape[axis]))
        start += shape[axis]
    return found


def _slice(source: Value, inputs: Sequence[Value | None], settings: dict[str, Any], declared: Declared) -> Any:
    shape, out = source.shape or (), declared[0][0] or ()
    given = [None if v is None or v.data is None else [int(i) for i in v.data.reshape(-1)] for v in inputs[1:]]
    given += [None] * (4 - len(given))
    starts, _ends, axes, steps = given[:4]
    if starts is None or len(out) != len(shape) or any(v is not None and v.data is None for v in inputs[1:]):
        return None
    found = source
    for start, axis, step in zip(starts, axes or range(len(starts)), steps or [1] * len(starts), strict=True):
        if step < 1:
            return None
        size = shape[axis]
        first = min(max(start + size if start < 0 else start, 0), size)
        found = sliced(found, axis % len(shape), first, step, out[axis])
    return [found]


def _same(source: Value, _inputs: Any, _settings: Any, declared: Declared) -> list[Value]:
    return [source] * len(declared)


def _gather(source: Value, inputs: Sequence[Value | None], settings: dict[str, Any], declared: Declared) -> Any:
    """Look at one position of an axis; a gather of several is a copy."""
    shape, index = source.shape or (), inputs[1] if len(inputs) > 1 else None
    if index is None or index.data is None or index.data.size != 1 or not shape:
        return None
    axis = settings.get("axis", 0) % len(shape)
    position = int(index.data.reshape(-1)[0])
    one = selected(source, axis, position % max(shape[axis], 1))
    out = declared[0][0] or ()
    return [one] if one.shape == out else _reshape(one, inputs, settings, declared)


VIEWS: dict[str, View] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Transpose": _transpose,
    "Expand": _expand,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    **dict.fromkeys(("Identity", "Dropout"), _same),
}


def recast(source: Value, kind: int, stored_as: Any) -> Value:
    """Return the same numbers as another type sees them."""
    return replace(source, kind=kind, stored_as=stored_as, data=None)
