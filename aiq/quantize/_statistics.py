"""One pass over calibration data: ranges of what layers read, and moments of their unfolded inputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F

from aiq.quantize._activations import EMPTY_RANGE, Range
from aiq.quantize._intercept import Interceptor, Sites
from aiq.quantize._weights import InputStatistics

log = logging.getLogger(__name__)

_LARGEST_MOMENT = 8192
_MOST_ROWS = 1 << 15
_aten = torch.ops.aten
_CONVOLUTIONS = {_aten.conv1d.default: 1, _aten.conv2d.default: 2}
_OUTPUT_AXIS = {
    _aten.conv_transpose1d.default: 1,
    _aten.conv_transpose2d.input: 1,
    _aten.conv_transpose3d.input: 1,
    _aten.mm.default: 1,
    _aten.matmul.default: 1,
    _aten.addmm.default: 1,
}


@dataclass
class _Moments:
    count: int = 0
    total: torch.Tensor | float = 0.0
    second: torch.Tensor | float = 0.0

    def add(self, rows: torch.Tensor) -> None:
        """Add unfolded inputs [groups, n, K]."""
        self.count += rows.shape[1]
        self.total = self.total + rows.sum(1).to(torch.float64)
        self.second = self.second + (rows.transpose(1, 2) @ rows).to(torch.float64)

    def statistics(self) -> InputStatistics:
        assert isinstance(self.total, torch.Tensor) and isinstance(self.second, torch.Tensor)
        return InputStatistics(self.total / self.count, self.second / self.count)


@dataclass(frozen=True, eq=False)
class Calibration:
    """What one pass of the float model over calibration data has shown.

    Attributes:
        ranges: Range of each operand, by site and operand.
        inputs: Statistics of each weight's inputs, by parameter name; absent where its operator cannot be unfolded.
        axes: Axis of the output channels of each weight, by parameter name.
        calls: Layers in order of execution, one entry a call.
        examples: Examples in the pass.
    """

    ranges: dict[tuple[str, int], Range] = field(default_factory=dict)
    inputs: dict[str, InputStatistics] = field(default_factory=dict)
    axes: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    examples: int = 0


def calibrate(run: Callable[[Any], Any], sites: Sites, batches: Sequence[Any]) -> Calibration:
    """Run the float model over calibration batches and watch what its layers read.

    Args:
        run: The model, called with one batch.
        sites: Where it reads what a scheme quantizes.
        batches: Inputs.
    """
    ranges: dict[tuple[str, int], Range] = {}
    moments: dict[str, _Moments] = {}
    axes: dict[str, int] = {}
    calls: list[str] = []

    def read(site: str, operand: int, tensor: torch.Tensor) -> None:
        if tensor.numel():
            ranges[site, operand] = ranges.get((site, operand), EMPTY_RANGE).joined(tensor)

    def watch(layer: str, name: str, func: Any, args: Sequence[Any]) -> None:
        if not seen:
            calls.append(layer)
        axes.setdefault(name, _OUTPUT_AXIS.get(func, 0))
        rows = _unfolded(func, args)
        if rows is not None and rows.shape[2] <= _LARGEST_MOMENT:
            moments.setdefault(name, _Moments()).add(rows)

    seen = 0
    with torch.inference_mode():
        for number, batch in enumerate(batches, start=1):
            with Interceptor(sites, read, watch):
                run(batch)
            seen += _length(batch)
            log.info("calibration: batch %d of %d", number, len(batches))
    inputs = {name: found.statistics() for name, found in moments.items()}
    return Calibration(ranges, inputs, axes, calls, seen)


def _length(batch: Any) -> int:
    if isinstance(batch, torch.Tensor):
        return len(batch)
    values: Iterable[Any] = batch.values() if isinstance(batch, dict) else batch
    return len(next(iter(values)))


def _unfolded(func: Any, args: Sequence[Any]) -> torch.Tensor | None:
    """Return the rows that each output is a product of, [groups, n, K]; None for operators that have no such form."""
    if func is _aten.linear.default:
        return _thinned(args[0].reshape(1, -1, args[0].shape[-1]))
    if func is _aten.addmm.default:
        return _thinned(args[1][None])
    if func is _aten.mm.default:
        return _thinned(args[0][None])
    if func is _aten.matmul.default and args[1].dim() == 2:
        return _thinned(args[0].reshape(1, -1, args[0].shape[-1]))
    if func in _CONVOLUTIONS:
        return _patches(_CONVOLUTIONS[func], args)
    return None


def _patches(dimensions: int, args: Sequence[Any]) -> torch.Tensor:
    """Unfold the input of ``conv1d`` or ``conv2d`` called with (x, weight, bias, stride, padding, dilation, groups)."""
    defaults = (None, None, None, (1,), (0,), (1,), 1)
    x, weight, _, stride, padding, dilation, groups = list(args) + list(defaults[len(args) :])

    def pair(values: Sequence[int], fill: int) -> tuple[int, int]:
        full = tuple(values) * (dimensions if len(values) == 1 else 1)
        return (fill, full[0]) if dimensions == 1 else (full[0], full[1])

    few = max(1, _MOST_ROWS // (x[0, 0].numel() or 1))
    image = x[:: -(-len(x) // few)]
    image = image if dimensions == 2 else image[:, :, None]
    kernel = tuple(weight.shape[2:]) if dimensions == 2 else (1, weight.shape[2])
    columns = F.unfold(image, kernel, pair(dilation, 1), pair(padding, 0), pair(stride, 1))
    count, _, places = columns.shape
    return columns.reshape(count, groups, -1, places).permute(1, 0, 3, 2).reshape(groups, count * places, -1)


def _thinned(rows: torch.Tensor) -> torch.Tensor:
    return rows[:, :: -(-rows.shape[1] // _MOST_ROWS)]
