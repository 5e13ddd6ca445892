"""The calibrated model of time: a roofline with measured ceilings, fitted to a runtime's kernels.

A machine file may hold one :class:`hardware_specs.KernelModel` for each class of ops, format and runtime. This file
holds their formula, and which of them speaks of a row.
"""

from __future__ import annotations

import re
from functools import lru_cache
from math import prod, sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware_specs import Correction, HardwareSpec, KernelForm, KernelModel
from roofline.ceiling import operand_formats
from roofline.graph import CONV_KINDS, MATRIX_KINDS
from roofline.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterable

    from roofline.traffic import Row

# Errors of the rows of one model are partly common (its bias, the state of the machine) and partly independent: this
# share where no calibration says another.
COMMON_VARIANCE = 0.2
# The largest share of time on bounds of unknown error with which an interval of the total still means something.
UNCALIBRATED_SHARE = 0.1

_WINDOW = re.compile(r"([\dx]+)(?:/(\d+))?")
# Of the features: a decade of samples changes little, and so does a window that the reduction tells already.
_WEIGHTS = np.array([1.0, 0.5, 1.0, 1.0, 1.0, 0.7, 1.0, 0.7])

# How much wider or narrower than at the typical time an interval gets.
MOST_WIDENING = 3.0

_CLASS = {"batch_norm": "elementwise", "layer_norm": "norm", "group_norm": "norm", "rms_norm": "norm"}

Value = float | NDArray[np.float64]


class Work(NamedTuple):
    """What a kernel does: numbers, or arrays of them for many kernels.

    Attributes:
        flops: FLOPs: ``2 · products · m · n · k`` of matrix work, element-wise ones of other work.
        bytes: Bytes read and written, wherever they come from.
        products: Products ``[m, k] @ [k, n]`` (see :class:`roofline.graph.Extents`); 1 for other work.
        m: Rows.
        n: Columns; 1 for other work.
        k: Reduction; of other work the values in a row.
        samples: Samples that ``m`` counts positions of, as in a convolution; 1 where all rows are alike.
        taps: Positions of a convolution's window.
        stride: Its stride along the first axis.
        tail: Element-wise FLOPs for each result of matrix work that runs inside the kernel or right after it.
    """

    flops: Value
    bytes: Value
    products: Value = 1.0
    m: Value = 1.0
    n: Value = 1.0
    k: Value = 1.0
    samples: Value = 1.0
    taps: Value = 1.0
    stride: Value = 1.0
    tail: Value = 0.0


class Times(NamedTuple):
    """Seconds of a kernel: in total, and of each resource alone."""

    total: Value
    compute: Value
    memory: Value
    overhead: Value


def predict(form: KernelForm, work: Work) -> Times:
    """Return the time of kernels under one model.

    ``t = max(dispatch, start + max(c, b) + (1 − overlap) · min(c, b))`` with

    * compute ``c = flops / rate · (1 + half_m/m)(1 + half_n/n)(1 + half_k/k)``, so that half of the rate is reached at
      the half sizes; short kernels are ``1 + gain / (1 + c/burst_s)`` times faster, before power limits act;
    * memory ``b``: the first ``cache_bytes`` at the cache's rate, the rest at ``bandwidth``, after the bytes of rows
      longer than ``reread_length`` grew by up to ``reread_share``;
    * the device takes no less than ``n · column_s`` for a batch of products.

    More work and less bandwidth are never faster.

    Source: Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009; half-performance lengths as in Hockney,
    (r∞, n½, s½) measurements on the 2-CPU CRAY X-MP, Parallel Computing 2, 1985.
    """
    compute = _compute(form, work)
    memory = _memory(form, work)
    longer, shorter = np.maximum(compute, memory), np.minimum(compute, memory)
    device = longer + (1.0 - form.overlap) * shorter
    if form.column_s:
        device = np.maximum(device, np.where(np.asarray(work.products) > 1, form.column_s * np.asarray(work.n), 0.0))
    total = np.maximum(form.dispatch_s, form.start_s + device)
    overhead = np.zeros_like(total) + max(form.dispatch_s, form.start_s)
    return Times(total, compute, memory, overhead)


def _compute(form: KernelForm, work: Work) -> Value:
    if form.rate_flops_per_s is None:
        return 0.0 * np.asarray(work.flops)
    seconds = np.asarray(work.flops) / form.rate_flops_per_s
    for half, size in ((form.half_m, work.m), (form.half_n, work.n), (form.half_k, work.k)):
        if half:
            seconds = seconds * (1.0 + half / np.maximum(size, 1.0))
    if form.burst_gain and form.burst_s:
        seconds = seconds / (1.0 + form.burst_gain / (1.0 + seconds / form.burst_s))
    return seconds


def _memory(form: KernelForm, work: Work) -> Value:
    moved = np.asarray(work.bytes, dtype=float)
    if form.reread_share and form.reread_length:
        moved = moved * (1.0 + form.reread_share * np.clip(work.k / form.reread_length - 1.0, 0.0, 1.0))
    if not (form.cache_bytes and form.cache_bandwidth_bytes_per_s):
        return moved / form.bandwidth_bytes_per_s
    inner = np.minimum(moved, form.cache_bytes)
    return inner / form.cache_bandwidth_bytes_per_s + (moved - inner) / form.bandwidth_bytes_per_s


@lru_cache(maxsize=256)
def _arrays(correction: Correction) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array(correction.points), np.array(correction.weights)


class Found(NamedTuple):
    """The model of a row and the format its kernel runs in, with the reason where that is not the row's own."""

    model: KernelModel
    format: str
    reason: str


class Kernels:
    """The kernel models of one runtime on one machine, and which of them speaks of a row."""

    def __init__(self, hardware: HardwareSpec) -> None:
        self.hardware = hardware
        self.models = tuple(m for m in hardware.kernels if m.runtime == hardware.runtime)
        self._by_format: dict[tuple[str, str], list[KernelModel]] = {}
        for model in self.models:
            for fmt in model.formats:
                self._by_format.setdefault((model.op, fmt), []).append(model)

    def find(self, row: Row, weights: Precision, activations: Precision) -> Found | str:
        """Return the model of a row whose operands have these formats; where there is none, the name of what lacks.

        A format that the machine has no ceiling for runs in the next wider one, as in
        :func:`roofline.ceiling.choose_ceiling`. One that the machine does compute in, and the runtime was not measured
        in, has no model.
        """
        op = class_of(row)
        (wanted, *wider), why = operand_formats(weights, activations)
        what = " ".join(filter(None, (op, wanted, row.variant)))
        if row.extents is None or (row.macs > 0) != (row.kind in MATRIX_KINDS):
            return what
        for fmt in (wanted, *wider):
            for model in self._by_format.get((op, fmt), []):
                if self._speaks(model, row):
                    other = f"{wanted} is widened to {fmt}: no {wanted} kernel of {model.runtime}"
                    return Found(model, fmt, "; ".join(filter(None, (why, other if fmt != wanted else ""))))
            if fmt in self.hardware.compute:
                break
        return what

    @staticmethod
    def _speaks(model: KernelModel, row: Row) -> bool:
        """Whether a model was fitted on such windows, and on results that are rounded or not as the row's."""
        windows = not model.variants or row.variant in model.variants
        return windows and (model.rounded is None or model.rounded == row.roundable)

    def transition(self, source: Precision, target: Precision, writer: Row, reader: Row) -> KernelModel | None:
        """Return the model of converting a tensor between two formats and two rows, or ``None``."""
        ends, beside = {_family(source), _family(target)}, beside_of(writer, reader, narrows=target.bits < source.bits)
        models = [m for m in self.models if m.op == "transition" and ends <= set(m.formats)]
        places = dict.fromkeys((beside, "conv" if beside == "pixel" else beside))
        return next((m for place in places for m in models if not m.variants or place in m.variants), None)


def beside_of(writer: Row, reader: Row, *, narrows: bool) -> str:
    """Return what lies beside a change of format, which its time depends on.

    ``conv``: a convolution at either end, which may change the layout too. ``pixel``: the same where samples have one
    pixel and the target is the narrower format: OpenVINO 2026.4 then takes a reference kernel, 100 times slower.
    ``other``: no convolution.
    """
    beside = writer if writer.kind in CONV_KINDS else reader
    if beside.kind not in CONV_KINDS:
        return "other"
    extents = beside.extents
    return "pixel" if narrows and extents and extents.m <= beside.samples else "conv"


def class_of(row: Row) -> str:
    """Return the class of ops of a row; batch norm at inference scales and shifts, element by element."""
    return _CLASS.get(row.kind, row.kind)


def work_of(row: Row, moved_bytes: int) -> Work:
    """Return what a row's kernel does when it moves so many bytes."""
    products, m, n, k = row.extents[:4] if row.extents else (1, 1, 1, 1)
    if not row.macs:
        return Work(row.vector_flops, moved_bytes, products, m, n, k)
    window = _WINDOW.match(row.variant)
    taps, stride = (prod(map(int, window[1].split("x"))), int(window[2] or 1)) if window else (1, 1)
    tail = row.vector_flops / max(products * m * n, 1)
    return Work(2 * row.macs, moved_bytes, products, m, n, k, row.samples, taps, stride, tail)


def features(work: Work) -> NDArray[np.float64]:
    """Return where kernels lie among others, [..., 8]: logarithms of their sizes, by how much they matter to the time.

    Positions of one sample, samples, columns, reduction, products, window, stride, and element-wise work at the end.
    Positions and samples are apart because a larger batch repeats what a runtime does for one image.
    """
    sizes = (
        np.asarray(work.m) / np.maximum(work.samples, 1.0), work.samples, work.n, work.k, work.products, work.taps,
        work.stride, 1.0 + np.asarray(work.tail),
    )  # fmt: skip
    columns = np.broadcast_arrays(*(np.log(np.maximum(size, 1.0)) for size in sizes))
    found: NDArray[np.float64] = np.stack(columns, axis=-1) * _WEIGHTS
    return found


def corrected(model: KernelModel, work: Work) -> Times:
    """Return the time of kernels: of the model's form, times its correction where it has one.

    ``t · exp(Σ aᵢ exp(−|f − fᵢ|² / 2ℓ²))`` over the measured kernels ``i`` with features ``fᵢ``: near those it is
    what was measured, and far from all of them the form alone.

    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapter 2 (the predictive mean).
    """
    times = predict(model.form, work)
    if model.correction is None:
        return times
    points, weights = _arrays(model.correction)
    apart = ((features(work)[..., None, :] - points) ** 2).sum(axis=-1)
    factor = np.exp(np.exp(-apart / (2.0 * model.correction.length**2)) @ weights)
    return Times(*(np.asarray(part) * factor for part in times))


def interval(model: KernelModel, latency_s: float) -> tuple[float, float] | None:
    """Return where 90 % of measured times of such a kernel lie, in seconds; ``None`` where the fit could not tell."""
    factors = model.error.interval
    if factors is None:
        return None
    power = float(widening(latency_s, model.error.typical_s or latency_s, model.error.taper))
    return latency_s * factors[0] ** power, latency_s * factors[1] ** power


def widening(latency_s: Value, typical_s: float, taper: float) -> Value:
    """Return how much wider the interval is at a predicted time than at the typical one, in log time."""
    power: Value = np.clip((np.asarray(latency_s) / typical_s) ** -taper, 1.0 / MOST_WIDENING, MOST_WIDENING)
    return power


def outside(model: KernelModel, work: Work) -> bool:
    """Tell whether a kernel is smaller or larger than any that its model was fitted on."""
    size = work.flops if model.form.rate_flops_per_s else work.bytes
    return bool(not model.span[0] <= size <= model.span[1])


def combine(
    latency_s: float, spreads: Iterable[tuple[float, float]], common: float = COMMON_VARIANCE
) -> tuple[float, float]:
    """Return the interval of a sum of rows, from how far each row may lie below and above its prediction.

    A share ρ of the variance is taken as common to all rows and the rest as independent, on each side apart:
    ``d² = ρ (Σ dᵢ)² + (1 − ρ) Σ dᵢ²``. Independent errors alone would shrink with the number of rows, and the bias of a
    model does not.

    Args:
        latency_s: The sum, seconds.
        spreads: Of each row, seconds.
        common: ρ.
    """
    below = above = squares_below = squares_above = 0.0
    for low, high in spreads:
        below, above = below + low, above + high
        squares_below, squares_above = squares_below + low * low, squares_above + high * high
    down = sqrt(common * below * below + (1.0 - common) * squares_below)
    up = sqrt(common * above * above + (1.0 - common) * squares_above)
    return max(latency_s - down, 0.0), latency_s + up


def _family(precision: Precision) -> str:
    return "fp8" if precision.name.startswith("fp8") else precision.name
