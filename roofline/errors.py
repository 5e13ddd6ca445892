"""Errors that the roofline room raises; all descend from one root, each text is one sentence with a next step."""

from __future__ import annotations

from hardware_specs.errors import AIQError, MissingCeilingError, SpecError, UnknownNameError, unknown_name


class PrecisionError(AIQError):
    """A precision that cannot be read."""


class SchemeError(AIQError):
    """A scheme that cannot be read, or that does not fit the graph."""


class TraceError(AIQError):
    """A model that could not be traced."""


class ModelFileError(AIQError):
    """A model file that cannot be read."""


class InputError(AIQError):
    """An argument outside its range."""


__all__ = [
    "AIQError",
    "InputError",
    "MissingCeilingError",
    "ModelFileError",
    "PrecisionError",
    "SchemeError",
    "SpecError",
    "TraceError",
    "UnknownNameError",
    "unknown_name",
]
