"""Rows that repeat: the equal layers of a deep network, shown once with their number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_LEAST_ROWS = 100
_LEAST_TIMES = 8
_NUMBER = re.compile(r"(?<![A-Za-z_0-9])\d+(?![A-Za-z_0-9])")
# What a name tells apart, and what is added up.
_OWN = frozenset({"name", "layer", "members", "note", "reason"})


def collapsed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with those that differ in the numbers of their names alone as one, which has their number.

    ``model.layers.0.mlp.up_proj`` to ``model.layers.31.mlp.up_proj`` become ``model.layers.*.mlp.up_proj`` with
    ``times`` 32 and the ``share`` of all of them; the rest is that of each. Only in reports of more than 100 rows, and
    only where eight or more agree.

    Args:
        rows: Raw values by column key, with ``name`` and ``share``.
    """
    if len(rows) <= _LEAST_ROWS:
        return [dict(row) for row in rows]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        figures = {key: value for key, value in row.items() if key not in _OWN}
        groups.setdefault((_NUMBER.sub("*", row["name"]), repr(sorted(figures.items()))), []).append(row)
    found = []
    for (name, _), group in groups.items():
        if len(group) < _LEAST_TIMES:
            found += [dict(row) for row in group]
        else:
            share = sum(row["share"] for row in group)
            found.append({**group[0], "name": name, "times": len(group), "share": share})
    return found
