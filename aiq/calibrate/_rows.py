"""What a calibration measures, and how a model's error on such rows is stated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite

import numpy as np
from numpy.typing import NDArray

from hardware_specs import OP_CLASSES, FitError, HardwareSpec, KernelForm, KernelModel
from hardware_specs.errors import unknown_name
from roofline import OpGraph, Scheme
from roofline.ceiling import operand_formats
from roofline.errors import InputError
from roofline.estimate import format_of, resolve
from roofline.kernels import Work, class_of, predict, widening, work_of
from roofline.pricing import Pricing
from roofline.traffic import build_rows

COVERAGE = 0.9
_TAPERS = tuple(round(0.1 * step, 1) for step in range(11))
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class KernelRow:
    """One kernel's measured time.

    Attributes:
        runtime: What ran it: ``eager``, ``onnxruntime``, ``openvino``, ``torch-compile``, …
        op: Class of ops (``hardware_specs.OP_CLASSES``).
        formats: Formats of the operands, one where they agree; of a transition the two that it converts between.
        work: FLOPs, bytes and extents, as :func:`roofline.kernels.work_of` states them for a row of an estimate.
        seconds: Measured time, the median of several runs.
        variant: Window of a convolution, as ``Op.variant``: ``3x3``, ``1x1/2``.
        roundable: As ``Row.roundable``: whether an integer kernel may round its result at once.
        layer: What is left out of a fit together, where rows are of the same layer at several batch sizes.
        run: The pass that it was part of; empty where that is not known.
    """

    runtime: str
    op: str
    formats: tuple[str, ...]
    work: Work
    seconds: float
    variant: str = ""
    roundable: bool = False
    layer: str = ""
    run: str = ""

    def __post_init__(self) -> None:
        if self.op not in OP_CLASSES:
            raise unknown_name("class of ops", self.op, OP_CLASSES, "choose one")
        numbers = (self.seconds, self.work.bytes, self.work.flops, *self.work[2:])
        if not all(isfinite(x) for x in numbers) or self.seconds <= 0 or self.work.bytes <= 0 or min(numbers) < 0:
            raise InputError(
                f"a row of {self.op} needs finite numbers, seconds and bytes above 0, got {self.seconds!r} s and "
                f"{self.work}. Next: leave the row out, or measure it again."
            )


def kernel_rows(
    graph: OpGraph,
    hardware: HardwareSpec,
    scheme: Scheme | str,
    seconds: Mapping[str, float],
    *,
    runtime: str,
    batch: int | None = None,
    traffic: str = "fused",
) -> list[KernelRow]:
    """Return the measured rows of a model in the features by which an estimate of the same rows is predicted.

    Args:
        graph: From :func:`roofline.trace`.
        hardware: The machine; only its memory levels matter.
        scheme: What ran.
        seconds: Measured seconds by row name (``LayerEstimate.name``); other rows are left out.
        runtime: What ran it.
        batch: Samples at once; by default the traced batch.
        traffic: ``fused`` where the runtime fuses as :mod:`roofline.traffic` says, else ``unfused``.

    Raises:
        UnknownNameError: A time of a row that the model has not.
    """
    chosen = Scheme.parse(scheme) if isinstance(scheme, str) else scheme
    rows = build_rows(graph, traffic=traffic, batch=graph.batch if batch is None else batch)
    pricing, formats = Pricing(graph, hardware, rows, traffic), resolve(graph, chosen)
    if unknown := set(seconds) - {row.name for row in rows}:
        raise unknown_name("row", min(unknown), (row.name for row in rows), "give times by the names of the estimate")
    found = []
    for row in rows:
        if row.name in seconds:
            given = format_of(row, formats, chosen)
            (wanted, *_), _ = operand_formats(*pricing.operands(row, given))
            work = work_of(row, pricing.price(row, given, 0).bytes)
            name = f"{graph.model}/{row.name}"
            taken = seconds[row.name]
            found.append(KernelRow(runtime, class_of(row), (wanted,), work, taken, row.variant, row.roundable, name))
    return found


def stack(rows: Sequence[KernelRow]) -> tuple[Work, Values]:
    """Return the work of many rows as arrays, and their measured seconds, [n]."""
    columns = np.array([row.work for row in rows], dtype=float).T
    return Work(*columns), np.array([row.seconds for row in rows])


def log_errors(form: KernelForm, work: Work, seconds: Values) -> Values:
    """Return the logarithm of measured over predicted, [n]."""
    errors: Values = np.log(seconds / predict(form, work).total)
    return errors


def half_width(errors: Values) -> float | None:
    """Return the conformal half-width of a 90 % interval in log time; ``None`` where the rows are too few to tell.

    The ``⌈0.9 (n + 1)⌉``-th smallest |error| of rows that were not fitted.

    Source: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005; Lei et al., JASA 113, 2018.
    """
    rank = ceil(COVERAGE * (len(errors) + 1))
    return float(np.sort(np.abs(errors))[rank - 1]) if rank <= len(errors) else None


def best_taper(errors: Values, predicted: Values) -> float:
    """Return how fast errors shrink with the predicted time: the likeliest under Laplace errors, 0 unless clearly so.

    Errors of scale ``b · s`` with ``s = widening(t)`` have the log-likelihood ``−n ln b − Σ ln s``, with
    ``b = mean(|error| / s)``; two units of it are asked for, as in Akaike's criterion with some reserve.
    """

    def likelihood(taper: float) -> float:
        scale = widening(predicted, float(np.median(predicted)), taper)
        return -len(errors) * float(np.log(np.mean(np.abs(errors) / scale))) - float(np.sum(np.log(scale)))

    best = max(_TAPERS, key=likelihood)
    return best if likelihood(best) > likelihood(0.0) + 2.0 else 0.0


def describe(error: FitError, errors: Values) -> FitError:
    """Return the same with the sizes of these log errors of rows that were not fitted."""
    ape = np.abs(np.exp(-errors) - 1.0)
    sizes = {"mean_ape": ape.mean(), "median_ape": np.median(ape), "p90_ape": np.quantile(ape, 0.9)}
    return error.model_copy(update={"rows": len(errors), **{name: four_digits(v) for name, v in sizes.items()}})


def held_out_error(model: KernelModel, rows: Sequence[KernelRow]) -> FitError:
    """State a model's error on rows that were kept apart, and how many of them lie in its interval.

    Raises:
        InputError: There are no rows.
    """
    if not rows:
        raise InputError("a held-out error needs rows. Next: keep some apart from the fit.")
    work, seconds = stack(rows)
    errors = log_errors(model.form, work, seconds)
    found = describe(model.error, errors).model_copy(update={"method": "held-out", "coverage": None})
    if found.interval is None:
        return found
    predicted = np.asarray(predict(model.form, work).total)
    low, high = np.log(found.interval)
    scale = widening(predicted, found.typical_s or 1.0, found.taper)
    inside = float(np.mean((errors >= low * scale) & (errors <= high * scale)))
    return found.model_copy(update={"coverage": four_digits(inside)})


def four_digits(value: float) -> float:
    """Round for a file."""
    return float(f"{value:.4g}")
