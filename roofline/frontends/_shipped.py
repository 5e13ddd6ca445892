"""Configurations that ship with the package: the public architecture of well-known models, each with its source."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from roofline.errors import unknown_name

_FOLDER = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Shipped:
    """One configuration.

    Attributes:
        name: What commands call it.
        title: The model's name at its publisher.
        config: The keys of its ``config.json`` that make the architecture.
        parameters: Stored values in the published weights.
        source: Where the configuration was read.
        checked: What the count of parameters was checked against.
    """

    name: str
    title: str
    config: dict[str, Any]
    parameters: int
    source: str
    checked: str


@cache
def shipped_names() -> tuple[str, ...]:
    """Return the names of all configurations, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def shipped(name: str) -> Shipped:
    """Return a configuration.

    Raises:
        UnknownNameError: There is none of that name; near matches are offered.
    """
    if name not in shipped_names():
        raise unknown_name("model", name, shipped_names(), "run 'aiq zoo' for the names")
    data = json.loads((_FOLDER / f"{name}.json").read_text("utf-8"))
    return Shipped(name, **data)
