"""Machine specifications with a source for every number, and the linter that holds them together."""

from hardware_specs._kernels import OP_CLASSES, Correction, FitError, Format, KernelForm, KernelModel
from hardware_specs._lint import Finding, lint
from hardware_specs._load import load, names, parse, read, to_json
from hardware_specs._spec import Ceiling, CrossCheck, HardwareSpec, MemoryLevel, Quantity, Rated
from hardware_specs.errors import AIQError, MissingCeilingError, SpecError, UnknownNameError

__all__ = [
    "OP_CLASSES",
    "AIQError",
    "Ceiling",
    "Correction",
    "CrossCheck",
    "Finding",
    "FitError",
    "Format",
    "HardwareSpec",
    "KernelForm",
    "KernelModel",
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
    "to_json",
]
