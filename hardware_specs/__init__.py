"""Machine specifications with a source for every number, and the linter that holds them together."""

from hardware_specs._lint import Finding, lint
from hardware_specs._load import load, names, parse, read
from hardware_specs._spec import Ceiling, CrossCheck, Format, HardwareSpec, MemoryLevel, Quantity, Rated
from hardware_specs.errors import AIQError, MissingCeilingError, SpecError, UnknownNameError

__all__ = [
    "AIQError",
    "Ceiling",
    "CrossCheck",
    "Finding",
    "Format",
    "HardwareSpec",
    "MemoryLevel",
    "MissingCeilingError",
    "Quantity",
    "Rated",
    "SpecError",
    "UnknownNameError",
    "lint",
    "load",
    "names",
    "parse",
    "read",
]
