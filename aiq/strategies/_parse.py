"""Settings written as text: ``key=value,key=value`` into the arguments of a factory."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from roofline.errors import InputError

_READERS: dict[type, Callable[[str], Any]] = {
    int: int,
    float: float,
    str: str,
    bool: lambda text: {"true": True, "false": False}[text.lower()],
}


def parse_settings(name: str, text: str, factory: Callable[..., Any]) -> dict[str, Any]:
    """Read ``KEY=VALUE,...`` for a factory's parameters, by their annotated types.

    Args:
        name: The strategy's, for errors.
        text: The settings; empty for none.
        factory: Its parameters annotated with int, float, bool or str can be set.

    Raises:
        InputError: A key it does not have, one given twice, or a value of another type.
    """
    parameters = inspect.signature(factory, eval_str=True).parameters
    known = {name: p.annotation for name, p in parameters.items() if p.annotation in _READERS}
    shown = ", ".join(f"{name} ({kind.__name__})" for name, kind in known.items()) or "none"
    found: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in known or key in found:
            reason = "is not KEY=VALUE" if not equals else "stands twice" if key in found else "is no setting of it"
            raise InputError(f"strategy {name}: {key!r} {reason}; known: {shown}. Next: write {_example(name, known)}.")
        try:
            found[key] = _READERS[known[key]](value)
        except (ValueError, KeyError):
            raise InputError(
                f"strategy {name}: {key} must be {_kind(known[key])}, got {value!r}; known: {shown}. Next: mend it."
            ) from None
    return found


def _kind(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false"}[kind]


def _example(name: str, known: dict[str, type]) -> str:
    samples = {int: "50", float: "0.5", bool: "false", str: "text"}
    for key, kind in known.items():
        return f"for instance {name}:{key}={samples[kind]}"
    return f"{name} alone"
