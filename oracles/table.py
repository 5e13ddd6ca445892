"""Losses read from a file: measured elsewhere, one layer at a time."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aiq.additive import Cell, LayerLosses, additive
from aiq.digest import code_digest, file_digest
from aiq.oracle import Metric, OracleContext
from hardware_specs.errors import unknown_name
from roofline import LayerPrecision
from roofline.errors import AIQError, InputError


@additive
def table(argument: str, context: OracleContext) -> LayerLosses:
    """Return losses of one layer quantized at a time, from a JSON or CSV file, as an additive oracle.

    JSON: ``{"unit": "...", "losses": {LAYER: {FORMAT: loss}}}``. CSV: columns ``layer``, ``format``, ``loss``. A
    format is written as in a scheme (``w8``, ``w4a8``, ``int4:g128/bf16``); ``keep`` costs 0. Negative losses (a layer
    that did better quantized) count as 0, since noise does not buy accuracy.

    Args:
        argument: The file.
        context: The graph, whose layers the file may speak of.

    Raises:
        InputError: No file is given.
        AIQError: The file is unreadable or malformed; or, on evaluation, lacks a layer or a format.
        UnknownNameError: The file speaks of a layer that the model has not.
    """
    if not argument:
        raise InputError("the oracle table needs a file. Next: write table:losses.json or table:losses.csv.")
    path, layers = Path(argument), context.graph.layers
    unit, found = _read(path)
    known: dict[tuple[str, LayerPrecision], float] = {}
    for layer, text, value in found:
        cell = layer, _canonical(text, path)
        if cell in known:
            raise AIQError(f"{path}: layer {layer!r} as {cell[1]} stands twice. Next: drop one.")
        known[cell] = value
    for layer, _ in known:
        if layer not in layers:
            raise unknown_name(f"layer in {path}", layer, layers, "run 'aiq graph MODEL' for the names")

    def loss(layer: str, option: LayerPrecision) -> float:
        if (layer, option) not in known:
            raise AIQError(
                f"{path}: no loss for layer {layer!r} as {option.label}. "
                "Next: measure it, or leave it out of --formats."
            )
        return max(known[layer, option], 0.0)

    def losses(cells: Sequence[Cell]) -> list[float]:
        return [loss(*cell) for cell in cells]

    digest = file_digest(path)

    def describe() -> Mapping[str, str]:
        code = code_digest(sys.modules[__name__])
        return {"oracle": "table", "file": digest, "code": code}

    caveat = f"losses of one layer at a time from {path}, added over layers: interactions are not in them"
    return LayerLosses(Metric("measured loss", unit, higher_is_better=False), caveat, context.graph, losses, describe)


def _read(path: Path) -> tuple[str, list[tuple[str, str, float]]]:
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".csv":
            rows = csv.DictReader(text.splitlines())
            if not {"layer", "format", "loss"} <= set(rows.fieldnames or ()):
                raise KeyError("layer, format, loss")
            return "as measured", [_entry(r["layer"], r["format"], r["loss"], path) for r in rows]
        data: dict[str, Any] = json.loads(text)
        cells = [(layer, fmt, loss) for layer, row in data["losses"].items() for fmt, loss in row.items()]
        return str(data.get("unit", "as measured")), [_entry(*cell, path) for cell in cells]
    except OSError as error:
        raise AIQError(f"cannot read loss table {str(path)!r}: {error.strerror}. Next: check the path.") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, csv.Error):
        raise AIQError(
            f"{path}: not a loss table. Next: write JSON with losses by layer and format, or CSV with the "
            "columns layer, format, loss."
        ) from None


def _entry(layer: str, text: str, loss: Any, path: Path) -> tuple[str, str, float]:
    value = float(loss)
    if not np.isfinite(value):
        raise AIQError(f"{path}: the loss of {layer!r} as {text} is {value}. Next: mend it.")
    return layer, text, value


def _canonical(text: str, path: Path) -> LayerPrecision:
    try:
        return LayerPrecision.parse(text)
    except AIQError as error:
        raise AIQError(f"{path}: {error}") from None
