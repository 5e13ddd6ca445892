"""Calibrate this machine; fit kernel models to measured times, with errors that come from rows that were not fitted."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from aiq.calibrate._correct import fit_corrected
from aiq.calibrate._fit import fit_kernels
from aiq.calibrate._rows import KernelRow, held_out_error, kernel_rows

if TYPE_CHECKING:
    from aiq.calibrate._calibrate import Calibration, calibrate
    from aiq.calibrate._models import PassCheck
    from aiq.calibrate._stability import Stability

_HOME = {
    "Calibration": "aiq.calibrate._calibrate",
    "PassCheck": "aiq.calibrate._models",
    "Stability": "aiq.calibrate._stability",
    "calibrate": "aiq.calibrate._calibrate",
}

__all__ = [
    "Calibration",
    "KernelRow",
    "PassCheck",
    "Stability",
    "calibrate",
    "fit_corrected",
    "fit_kernels",
    "held_out_error",
    "kernel_rows",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'aiq.calibrate' has no attribute {name!r}")
