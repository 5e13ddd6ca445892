"""Whose time it is: the steps of a runtime's profile put down to the rows of an estimate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from aiq.runtimes import Step
from aiq.runtimes._float_graph import layers_in
from roofline import OpGraph
from roofline.traffic import Row

_NORMS = ("layer_norm", "group_norm", "rms_norm")
# What runtimes call an operator, in lower case, and the kinds of rows that it may be.
_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("softmax", ("softmax", "attention")),
    ("attention", ("attention",)),
    ("matmul", ("matmul", "attention")),
    ("norm", _NORMS),
    ("mvn", _NORMS),
    ("pool", ("pool", "reduction")),
    ("reduce", ("reduction", "pool")),
    ("concat", ("copy",)),
)
# Attention is three steps where a runtime has no kernel for it: product, softmax, product.
_MOST_STEPS = {"attention": 3}


def attribute(
    graph: OpGraph, rows: Sequence[Row], steps: Sequence[Step], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the seconds of each row, [rows]: they add up to those of all steps.

    A step that names layers belongs to the row of the first. Between two such steps the others belong to the rows
    without weights that lie between theirs: first by kind (softmax, product, normalisation, pooling, concatenation);
    what is left to the row of the step before it, or, ahead of the first of a kind, to those rows that got none, in
    proportion to ``shares`` (a whole attention in one kernel, transposes). A conversion whose name tells the layer that
    reads or writes it belongs to that one. Steps without a time do not count.

    Args:
        graph: The network.
        rows: Its rows in ``fused`` traffic.
        steps: A runtime's profile of one pass, in the order of execution.
        shares: Above 0, [rows]: how time is shared by rows that ran together.
    """
    row_of = _rows_by_layer(graph, rows)
    seconds = np.zeros(len(rows))
    gap: list[Step] = []
    before: int | None = None
    for step in steps:
        if not math.isfinite(step.seconds):
            continue
        own = next((row_of[layer] for layer in step.layers if layer in row_of), None)
        if own is None:
            gap.append(step)
            continue
        for index, taken in _put_down(gap, rows, (before, own), row_of, shares):
            seconds[index] += taken
        seconds[own] += step.seconds
        before, gap = own, []
    for index, taken in _put_down(gap, rows, (before, None), row_of, shares):
        seconds[index] += taken
    return seconds


def _rows_by_layer(graph: OpGraph, rows: Sequence[Row]) -> dict[str, int]:
    """Return the row of each layer, and of each module whose work runs inside one."""
    layer_of = {op.name: op.layer for op in graph}
    found: dict[str, int] = {}
    for weighted in (True, False):
        for index, row in enumerate(rows):
            if row.weighted == weighted:
                for layer in (row.layer, *(layer_of[member] for member in row.members)):
                    found.setdefault(layer, index)
    return found


def _put_down(
    gap: Sequence[Step],
    rows: Sequence[Row],
    ends: tuple[int | None, int | None],
    row_of: dict[str, int],
    shares: NDArray[np.float64],
) -> Iterator[tuple[int, float]]:
    """Yield rows and seconds of the steps between two that name layers."""
    before, after = ends
    between = range(0 if before is None else before + 1, len(rows) if after is None else after)
    free = {index: _MOST_STEPS.get(rows[index].kind, 1) for index in between if not rows[index].weighted}
    empty = dict.fromkeys(free)
    start = last = before if before is not None else after or 0
    left = 0.0
    for step in gap:
        index = _named(step, row_of)
        if index is None:
            index = _of_kind(step.kind.lower(), rows, free, last)
            if index is None and last == start:
                left += step.seconds
                continue
            if index is not None:
                free[index] -= 1
                last = index
        found = last if index is None else index
        empty.pop(found, None)
        yield found, step.seconds
    parts = shares[list(empty)]
    for index, share in zip(empty, parts, strict=True) if empty else [(start, 1.0)]:
        yield index, left * float(share / (parts.sum() if empty else 1.0))


def _named(step: Step, row_of: dict[str, int]) -> int | None:
    """Return the row that a conversion names: by a label, or as ``quantize:VALUE/LAYER``."""
    site = step.name.removesuffix("/duplicated").rpartition("/")[2]
    return next((row_of[layer] for layer in (*layers_in(step.name), site) if layer in row_of), None)


def _of_kind(kind: str, rows: Sequence[Row], free: dict[int, int], last: int) -> int | None:
    """Return the next row of the kind of a step that has steps left, an attention that has begun first."""
    kinds = next((kinds for word, kinds in _KINDS if word in kind), ())
    if rows[last].kind in kinds and free.get(last):
        return last
    return next((index for index, count in free.items() if count and rows[index].kind in kinds), None)
