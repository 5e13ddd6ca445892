"""One text names any data: the toolkit's own sets, files, or a Python function."""

from __future__ import annotations

import importlib.util
import os.path
from dataclasses import replace

from aiq._callable import importing_from
from aiq.data._cifar import cifar10_splits, load_cifar10
from aiq.data._core import SPLITS, DataError, Split
from aiq.data._digits import DIGITS, load_digits
from aiq.data._own import load_function, load_npz
from hardware_specs.errors import AIQError, unknown_name
from roofline.errors import InputError

KINDS = ("digits", "cifar10:PATH", "npz:FILE.npz", "npz:DIR", "package.module:function", "path/file.py:function")
"""What :func:`load` takes."""

_NEXT = f"write {', '.join(KINDS[:-1])} or {KINDS[-1]}"


def load(text: str, split: str, *, limit: int | None = None) -> Split:
    """Load one split of the data that a text names.

    Args:
        text: ``digits``; ``cifar10:PATH`` (see :func:`aiq.data.load_cifar10`); ``npz:FILE.npz`` or ``npz:DIR`` (see
            :func:`aiq.data.load_npz`); ``package.module:function`` or ``path/file.py:function`` (see
            :func:`aiq.data.load_function`).
        split: ``calibration`` fits ranges, ``search`` compares schemes, ``report`` is for final figures only; the
            toolkit's own data have ``train`` too.
        limit: Only the first so many examples, at least 1. Splits are shuffled, so they are a fair sample.

    Raises:
        UnknownNameError: No such kind of data, split, or function; the nearest are named.
        DataError: The data are missing, damaged, empty, or not what they should be.
        InputError: The limit is below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"the limit on examples must be at least 1, got {limit}. Next: choose how many.")
    kind, place = _parsed(text)
    if kind == "digits":
        found = load_digits(split)
    elif kind == "cifar10":
        found = load_cifar10(place, split)
    elif kind == "npz":
        found = load_npz(place, split)
    else:
        found = load_function(text, split)
    if not len(found):
        raise DataError(f"split {split!r} of {text} holds no example. Next: give more data.")
    if limit is None or limit >= len(found):
        return found
    labels = None if found.y is None else found.y[:limit]
    return replace(found, x=found.x[:limit], y=labels, indices=found.indices[:limit])


def split_names(text: str) -> tuple[str, ...]:
    """Return the names of the splits of the data that a text names.

    Raises:
        UnknownNameError: No such kind of data.
        DataError: There are none at its path.
    """
    kind, place = _parsed(text)
    if kind == "digits":
        return tuple(DIGITS.splits)
    return cifar10_splits(place) if kind == "cifar10" else SPLITS


def _parsed(text: str) -> tuple[str, str]:
    """Return the kind (``function`` for a Python function) and what follows the colon."""
    kind, colon, place = text.partition(":")
    if text == "digits":
        return kind, ""
    if kind == "digits":
        raise DataError(f"data {text!r}: the digits are embedded and take no path. Next: write digits.")
    if kind in ("cifar10", "npz"):
        if not place:
            step = " (fetch it with 'aiq data download cifar10')" if kind == "cifar10" else ""
            raise DataError(f"data {text!r} name no place. Next: write {kind}:PATH{step}.")
        return kind, place
    if colon and text.rpartition(":")[2] and _may_be_module(text.rpartition(":")[0]):
        return "function", ""
    raise _unknown(text)


def _may_be_module(location: str) -> bool:
    if "/" in location or location.endswith(".py"):
        return True
    with importing_from(location):
        try:
            return importlib.util.find_spec(location.partition(".")[0]) is not None
        except ValueError:
            return False


def _unknown(text: str) -> AIQError:
    kind = text.partition(":")[0]
    suggestion = text + ":function" if text.endswith(".py") else f"npz:{text}" if text.endswith(".npz") else ""
    if suggestion or "/" in kind or os.path.exists(text):
        return DataError(
            f"data {text!r} name a path but not what is there. Next: {f'write {suggestion}' if suggestion else _NEXT}."
        )
    return unknown_name("data", kind, ("digits", "cifar10", "npz"), _NEXT)
