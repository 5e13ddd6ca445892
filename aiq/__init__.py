"""Plan quantization before you pay for it.

``load_model`` finds a model, ``plan`` ranks candidate schemes on a machine before any evaluation; the roofline model
itself is in :mod:`roofline`, machines are in :mod:`hardware_specs`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiq._model import Model, load_model
    from aiq._plan import Candidate, Plan, plan
    from aiq.objective import Objective

_HOME = {
    "Candidate": "aiq._plan",
    "Model": "aiq._model",
    "Objective": "aiq.objective",
    "Plan": "aiq._plan",
    "load_model": "aiq._model",
    "plan": "aiq._plan",
}

__all__ = ["Candidate", "Model", "Objective", "Plan", "load_model", "plan"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'aiq' has no attribute {name!r}")
