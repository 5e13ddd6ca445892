"""A Python function as an oracle: ``python:package.module:function`` or ``python:path/file.py:function``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from aiq._callable import find_callable, importing_from, reason
from aiq.digest import file_digest
from aiq.oracle import Metric, OracleContext, OracleError
from oracles._answers import Answering, context_fingerprint, layer_formats, read_answer
from oracles._outputs import scheme_label
from roofline import Scheme
from roofline.errors import InputError


def python(argument: str, context: OracleContext) -> Answering:
    """Return the oracle of a function that takes a scheme and returns a number, or a mapping with a ``value``.

    The function is called with a dict, layer → format as text (``keep``, ``int8/keep``, ``int4:g128/bf16``); with a
    :class:`roofline.Scheme` if its first parameter is annotated so. What a mapping may hold is said in
    :class:`oracles._answers.Answering`; the metric may also be stated once, as attributes ``metric``, ``unit`` and
    ``higher_is_better`` of the function.

    The fingerprint covers the file that defines the function and the model's weights. It cannot see what else the
    function depends on (files that it imports or reads, data, versions, the clock): give a new ``version`` attribute to
    the function when any of these changes, or its cached values go on being used.

    Args:
        argument: ``package.module:function`` or ``path/file.py:function``.
        context: The model whose layers the schemes speak of.

    Raises:
        InputError: No function is named.
        OracleError: The file or module cannot be imported, or states a metric that is none.
        UnknownNameError: It has no such function.
    """
    location, _, name = argument.rpartition(":")
    if not location or not name:
        raise InputError(
            f"the oracle python needs a function, got {argument!r}. "
            "Next: write python:package.module:function or python:path/file.py:function."
        )
    step = "name a function of one argument, the scheme"
    function = find_callable(argument, "oracle", error=OracleError, step=step)
    source = f"function {argument!r}"

    def ask(scheme: Scheme) -> Mapping[str, Any]:
        given = scheme if _wants_scheme(function) else layer_formats(scheme, context)
        try:
            with importing_from(location):
                answer = function(given)
        except (Exception, SystemExit) as error:
            raise OracleError(
                f"{source} raised {reason(error).rstrip('.')} on {scheme_label(scheme)}. Next: call it by itself."
            ) from error
        return answer if isinstance(answer, Mapping) else {"value": answer}

    def describe() -> Mapping[str, str]:
        return {
            "oracle": "python",
            "function": argument,
            "source": _source_digest(function),
            "version": str(getattr(function, "version", "")),
            **context_fingerprint(context),
        }

    return Answering(source, ask, describe, context.graph, _declared(function, source))


def _source_digest(function: Callable[..., Any]) -> str:
    for thing in (inspect.unwrap(function), type(function)):
        try:
            return file_digest(inspect.getfile(thing))
        except (TypeError, OSError, InputError):
            continue
    return "none"


def _declared(function: Callable[..., Any], source: str) -> Metric | None:
    said = {key: getattr(function, key) for key in ("metric", "unit", "higher_is_better") if hasattr(function, key)}
    return read_answer({"value": 0.0, **said}, source)[1] if said else None


def _wants_scheme(function: Callable[..., Any]) -> bool:
    try:
        first = next(iter(inspect.signature(function).parameters.values()))
    except (StopIteration, TypeError, ValueError):
        return False
    return first.annotation is Scheme or str(first.annotation).rpartition(".")[2] == "Scheme"
