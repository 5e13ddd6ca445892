"""Runtimes: execute a really quantized network, say what it ran in, and time it."""

from __future__ import annotations

from aiq.runtimes._deployment import Deployment
from aiq.runtimes._measure import Measurement, Timing, measure, quiet_rounds
from aiq.runtimes._protocol import Arrays, DeployError, Executed, Prepared, Runtime, Step, has_one_float_format
from aiq.runtimes._qdq import Built

__all__ = [
    "Arrays",
    "Built",
    "DeployError",
    "Deployment",
    "Executed",
    "Measurement",
    "Prepared",
    "Runtime",
    "Step",
    "Timing",
    "has_one_float_format",
    "measure",
    "quiet_rounds",
]
