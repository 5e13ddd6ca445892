"""A proxy read from a file: losses that were measured elsewhere, one layer at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aiq._model import Model
from aiq.proxy import LossTable
from hardware_specs.errors import unknown_name
from roofline import LayerPrecision, OpGraph
from roofline.errors import AIQError, InputError


class MeasuredLosses:
    """Losses of one layer quantized at a time, from a JSON or CSV file.

    JSON: ``{"unit": "...", "losses": {LAYER: {FORMAT: loss}}}``. CSV: columns ``layer``, ``format``, ``loss``. A
    format is written as in a scheme (``w8``, ``w4a8``, ``int4:g128/bf16``); ``keep`` costs 0. Negative losses (a layer
    that did better quantized) count as 0, since noise does not buy accuracy.
    """

    name = "table"

    def __init__(self, argument: str = "") -> None:
        if not argument:
            raise InputError("the proxy table needs a file. Next: write table:losses.json or table:losses.csv.")
        self.path = Path(argument)

    def loss_table(self, model: Model, graph: OpGraph, options: Mapping[str, Sequence[LayerPrecision]]) -> LossTable:
        """Return the losses in the file for each layer and option.

        Raises:
            AIQError: The file is unreadable or malformed, or lacks a layer or a format.
            UnknownNameError: The file speaks of a layer that the model has not.
        """
        unit, found = self._read()
        known: dict[tuple[str, LayerPrecision], float] = {}
        for layer, text, loss in found:
            cell = layer, _canonical(text, self.path)
            if cell in known:
                raise AIQError(f"{self.path}: layer {layer!r} as {cell[1]} stands twice. Next: drop one.")
            known[cell] = loss
        for layer, _ in known:
            if layer not in graph.layers:
                raise unknown_name(f"layer in {self.path}", layer, graph.layers, "run 'aiq graph MODEL' for the names")
        losses = np.zeros((len(options), max(map(len, options.values()))))
        for row, (layer, choices) in enumerate(options.items()):
            for column, option in enumerate(choices):
                if option == LayerPrecision():
                    continue
                if (layer, option) not in known:
                    raise AIQError(
                        f"{self.path}: no loss for layer {layer!r} as {option.label}. "
                        "Next: measure it, or leave it out of --formats."
                    )
                losses[row, column] = max(known[layer, option], 0.0)
        caveat = f"losses of one layer at a time from {self.path}, added over layers: interactions are not in them"
        return LossTable(losses, unit, caveat)

    def _read(self) -> tuple[str, list[tuple[str, str, float]]]:
        try:
            text = self.path.read_text("utf-8")
            if self.path.suffix == ".csv":
                rows = csv.DictReader(text.splitlines())
                if not {"layer", "format", "loss"} <= set(rows.fieldnames or ()):
                    raise KeyError("layer, format, loss")
                return "as measured", [_entry(r["layer"], r["format"], r["loss"], self.path) for r in rows]
            data: dict[str, Any] = json.loads(text)
            cells = [(layer, fmt, loss) for layer, row in data["losses"].items() for fmt, loss in row.items()]
            return str(data.get("unit", "as measured")), [_entry(*cell, self.path) for cell in cells]
        except OSError as error:
            raise AIQError(
                f"cannot read loss table {str(self.path)!r}: {error.strerror}. Next: check the path."
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, csv.Error):
            raise AIQError(
                f"{self.path}: not a loss table. Next: write JSON with losses by layer and format, or CSV with the "
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
