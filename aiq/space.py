"""The search space: units of layers that agree, the options of each, and what every choice costs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from roofline import CostTable, LayerPrecision, Scheme
from roofline.errors import InputError, unknown_name
from roofline.scheme import matches
from roofline.table import SchemeScores

Choice = tuple[int, ...]
"""One option index (into ``Space.options``) for each unit."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Layers that take one option together.

    Attributes:
        name: The layer's name, or those of several joined by ``+``.
        layers: Positions in ``CostTable.layers``.
        options: Distinct options that it may take, as indices into ``Space.options``; the first is the baseline.
    """

    name: str
    layers: tuple[int, ...]
    options: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Space:
    """Every scheme that a search may return.

    Attributes:
        table: Costs by layer and option.
        units: What is chosen for; layers in no unit stay at the baseline.
        baseline: Index of the option that everything starts from (``keep``: the float model).
    """

    table: CostTable
    units: tuple[Unit, ...]
    baseline: int = 0

    @property
    def options(self) -> tuple[LayerPrecision, ...]:
        """The options, shared by all units."""
        return self.table.options

    @property
    def start(self) -> Choice:
        """The choice of the baseline everywhere."""
        return (self.baseline,) * len(self.units)

    @cached_property
    def size(self) -> int:
        """Number of distinct schemes."""
        return int(np.prod([len(unit.options) for unit in self.units], dtype=object))

    @cached_property
    def families(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Options of each unit that one scheme may hold together and run as it is written, [F][U].

        One family of them all, but where a runtime computes all floats in one format: then one for each float that the
        layers in no unit allow.
        """
        fixed = sum(len(unit.layers) for unit in self.units) < len(self.table.layers)
        found = []
        for family in self.table.families:
            own = tuple(tuple(k for k in unit.options if k in family) for unit in self.units)
            if all(own) and (not fixed or self.baseline in family):
                found.append(own)
        return tuple(found)

    def expand(self, choices: NDArray[np.integer] | Sequence[Choice]) -> NDArray[np.int64]:
        """Turn choices [S, U] into option indices of all layers, [S, L].

        Raises:
            InputError: Another shape.
        """
        given = np.asarray(choices, dtype=np.int64)
        given = np.atleast_2d(given) if given.size else given.reshape(0, len(self.units))
        if given.shape[1] != len(self.units):
            raise InputError(
                f"choices must have shape [S, {len(self.units)}], got {list(given.shape)}. "
                "Next: give one option for each unit."
            )
        full = np.full((len(given), len(self.table.layers)), self.baseline, dtype=np.int64)
        for column, unit in enumerate(self.units):
            full[:, unit.layers] = given[:, column : column + 1]
        return full

    def score(self, choices: NDArray[np.integer] | Sequence[Choice]) -> SchemeScores:
        """Return bytes, weight bytes and latency of choices [S, U]."""
        return self.table.score(self.expand(choices))

    def runnable(self, choices: NDArray[np.integer] | Sequence[Choice]) -> NDArray[np.bool_]:
        """Tell which choices [S, U] run as they are written, [S] (see :meth:`roofline.CostTable.runnable`)."""
        return self.table.runnable(self.expand(choices))

    def scheme(self, choice: Choice, *, name: str = "") -> Scheme:
        """Return the scheme of one choice in canonical form: one rule for each layer, in order."""
        return self.table.scheme(self.expand([choice])[0].tolist(), name=name)

    def label(self, choice: Choice) -> str:
        """Return a short text: how many layers take which option, most first."""
        counts: dict[str, int] = {}
        for unit, k in zip(self.units, choice, strict=True):
            label = self.options[k].label
            counts[label] = counts.get(label, 0) + len(unit.layers)
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return " ".join(f"{count}x{label}" for label, count in ordered)


def make_space(
    table: CostTable, *, ties: Iterable[Sequence[str]] = (), keep: Iterable[str] = (), groups: int | None = None
) -> Space:
    """Build the space over every layer of a cost table; its first option is the baseline.

    Args:
        table: Costs; ``table.options[0]`` is what layers start from.
        ties: Groups of patterns; all layers that match one of a group's patterns take one option together.
        keep: Patterns of layers that stay at the baseline.
        groups: Join neighbouring layers into at most this many units of about equal weight bytes.

    Raises:
        UnknownNameError: A pattern matches no layer.
        InputError: A pattern is malformed, a layer is in two ties, or nothing is left to choose.
    """
    kept = {layer for pattern in keep for layer in _matching(pattern, table.layers)}
    tied = _tied(ties, table.layers)
    members: dict[str, list[int]] = {}
    for index, layer in enumerate(table.layers):
        if layer not in kept:
            members.setdefault(tied.get(layer, layer), []).append(index)
    runs = [run for run in members.values() if len(_unit(run, table).options) > 1]
    if groups is not None:
        if groups < 1:
            raise InputError(f"groups must be at least 1, got {groups}. Next: choose a number of units.")
        runs = _joined(runs, table, groups)
    if not runs:
        raise InputError("no layer has more than one format to choose from. Next: add a format or keep fewer layers.")
    return Space(table, tuple(_unit(run, table) for run in runs))


def _matching(pattern: str, layers: Sequence[str]) -> list[str]:
    try:
        found = [layer for layer in layers if matches(pattern, layer)]
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(f"layer pattern {pattern!r} is no regular expression: {error}. Next: mend it.") from None
    if not found:
        raise unknown_name("layer", pattern, layers, "run 'aiq graph MODEL' for the names")
    return found


def _tied(ties: Iterable[Sequence[str]], layers: Sequence[str]) -> dict[str, str]:
    tied: dict[str, str] = {}
    for number, patterns in enumerate(ties):
        for layer in dict.fromkeys(layer for pattern in patterns for layer in _matching(pattern, layers)):
            if layer in tied:
                raise InputError(f"layer {layer!r} is in two ties. Next: join them, or take it out of one.")
            tied[layer] = f"\0{number}"
    return tied


def _joined(runs: list[list[int]], table: CostTable, groups: int) -> list[list[int]]:
    """Join neighbouring runs, the lightest pair first, until few enough are left."""
    joined = [list(run) for run in runs]
    weights = table.weight_bytes[:, 0]
    while len(joined) > groups:
        sizes = [weights[run].sum() for run in joined]
        first = min(range(len(joined) - 1), key=lambda i: sizes[i] + sizes[i + 1])
        joined[first] += joined.pop(first + 1)
    return joined


def _unit(layers: Sequence[int], table: CostTable) -> Unit:
    names = [table.layers[index] for index in layers]
    seen: dict[tuple[LayerPrecision, ...], int] = {}
    for k in range(len(table.options)):
        seen.setdefault(tuple(table.layer_options(name)[k] for name in names), k)
    return Unit("+".join(names), tuple(layers), tuple(seen.values()))
