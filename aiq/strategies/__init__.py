"""Searches. Each is a :class:`aiq.strategy.Strategy`, found by its name through the entry points ``aiq.strategies``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiq.strategies._coordinate import Coordinate
    from aiq.strategies._exact import Exact
    from aiq.strategies._exhaustive import Exhaustive
    from aiq.strategies._greedy import Greedy
    from aiq.strategies._nsga2 import NSGA2
    from aiq.strategies._random import Random

__all__ = ["NSGA2", "Coordinate", "Exact", "Exhaustive", "Greedy", "Random"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"aiq.strategies._{name.lower()}"), name)
    raise AttributeError(f"module 'aiq.strategies' has no attribute {name!r}")
