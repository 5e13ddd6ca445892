"""Plan quantization before you pay for it.

``load_model`` finds a network and ``load_source`` a model in any form, ``plan`` ranks candidate schemes on a machine
before any evaluation, ``search`` finds the best one with few, ``validate`` holds predictions against the stopwatch,
``export`` writes a network for a runtime; the roofline model itself is in :mod:`roofline`, machines are in
:mod:`hardware_specs`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiq._driver import Budget
    from aiq._export import Export, export
    from aiq._model import Model, Source, Workload, load_model, load_source
    from aiq._plan import Candidate, Plan, plan
    from aiq._search import SearchSettings, search
    from aiq._search_result import SearchResult
    from aiq._validate import validate
    from aiq._validate_result import ValidateSettings, Validation
    from aiq.objective import Objective
    from aiq.problem import Constraints

_HOME = {
    "Budget": "aiq._driver",
    "Candidate": "aiq._plan",
    "Constraints": "aiq.problem",
    "Export": "aiq._export",
    "Model": "aiq._model",
    "Objective": "aiq.objective",
    "Plan": "aiq._plan",
    "SearchResult": "aiq._search_result",
    "SearchSettings": "aiq._search",
    "Source": "aiq._model",
    "ValidateSettings": "aiq._validate_result",
    "Validation": "aiq._validate_result",
    "Workload": "aiq._model",
    "export": "aiq._export",
    "load_model": "aiq._model",
    "load_source": "aiq._model",
    "plan": "aiq._plan",
    "search": "aiq._search",
    "validate": "aiq._validate",
}

__all__ = [
    "Budget",
    "Candidate",
    "Constraints",
    "Export",
    "Model",
    "Objective",
    "Plan",
    "SearchResult",
    "SearchSettings",
    "Source",
    "ValidateSettings",
    "Validation",
    "Workload",
    "export",
    "load_model",
    "load_source",
    "plan",
    "search",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'aiq' has no attribute {name!r}")
