"""From measured rows to kernel models whose sum is the time of a whole pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from typing import Any

import numpy as np

from aiq.calibrate._fit import FEWEST_ROWS, fit_kernels
from aiq.calibrate._measure import (
    Changes,
    Pass,
    RuntimeTimes,
    measured_changes,
    measured_rows,
    non_negative,
    with_enough,
)
from aiq.calibrate._rows import KernelRow, describe, four_digits, half_width
from hardware_specs import FitError, HardwareSpec, KernelForm, KernelModel
from roofline import estimate
from roofline.graph import MATRIX_KINDS

# Sums are put right by no more than this factor: beyond it the rows are wrong, and not their scale.
_MOST_SCALE = 4.0
# Formats with fewer rows of a class than this have one model together.
_APART = 20
_FEWEST_PASSES = 4
# Of a conversion that costs nothing by its bytes, and by its number.
_FASTEST, _LEAST_CHANGE_S = 1e13, 1e-8
_TIMES = ("start_s", "dispatch_s", "burst_s", "column_s")
_RATES = ("rate_flops_per_s", "bandwidth_bytes_per_s", "cache_bandwidth_bytes_per_s")


@dataclass(frozen=True, slots=True)
class PassCheck:
    """A whole pass of a probe network: what it took, and what its rows and transitions add up to.

    Attributes:
        runtime: What ran it.
        network: The probe.
        formats: ``fp32``, …; of a mixed scheme ``int8+fp32``.
        batch: Samples.
        measured_s: Wall-clock seconds.
        predicted_s: Seconds predicted.
    """

    runtime: str
    network: str
    formats: str
    batch: int
    measured_s: float
    predicted_s: float

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted_s / self.measured_s - 1.0


def kernel_models(
    times: RuntimeTimes, bare: HardwareSpec, *, source: str, date: str, versions: Mapping[str, str]
) -> tuple[list[KernelModel], list[KernelRow], list[str]]:
    """Fit the kernel models of a runtime, and scale each format so that its rows add up to whole passes.

    Args:
        times: What was measured.
        bare: The machine without kernel models.
        source: Where the times come from.
        date: When they were taken.
        versions: Of what ran them.

    Returns:
        The models, the rows that they were fitted to, and the classes that had too few rows for one.
    """
    rows, short = with_enough(measured_rows(times), FEWEST_ROWS, _APART)
    if not rows:
        return [], [], short
    caches = [level.capacity_bytes.value for level in bare.memory if level.capacity_bytes]
    # Any window: what was measured is no reason to price others by a bound.
    stated: dict[str, Any] = {"source": source, "date": date, "versions": versions}
    fitted = fit_kernels(
        [replace(row, variant="") for row in rows], largest_cache_bytes=max(caches, default=None), **stated
    )
    changes = fit_changes(measured_changes(times), runtime=times.runtime, **stated)
    return [*_balanced(fitted, times, bare), *changes], rows, short


def fit_changes(changes: Sequence[Changes], *, runtime: str, **stated: Any) -> list[KernelModel]:
    """Fit what a change of format takes: ``start + bytes / bandwidth``, one model for each pair of formats.

    Least squares over whole passes, neither term below 0, each pass weighted by its own time: what is fitted is a small
    difference of two large times, whose noise grows with them. The error is that of passes left out, one at a time, on
    what their changes took, where that is more than nothing.

    """
    found = []
    for pair in dict.fromkeys(each.formats for each in changes):
        own = [each for each in changes if each.formats == pair]
        if len(own) < _FEWEST_PASSES:
            continue
        form = _change_form(own)
        errors = [
            each.seconds / _change_s(_change_form(own[:place] + own[place + 1 :]), each)
            for place, each in enumerate(own)
        ]
        logs = np.log([error for error in errors if error > 0] or [1.0])
        width = half_width(logs)
        blank = FitError(method="leave-one-out", rows=1, mean_ape=0.0, median_ape=0.0, p90_ape=0.0)
        interval = None if width is None else (four_digits(exp(-width)), four_digits(exp(width)))
        sizes = [each.bytes / each.count for each in own]
        found.append(
            KernelModel.model_validate(
                {
                    "runtime": runtime,
                    "op": "transition",
                    "formats": pair,
                    "form": form,
                    "rows": len(own),
                    "span": (min(sizes), max(sizes)),
                    "error": describe(blank, logs).model_copy(update={"interval": interval}),
                    **stated,
                }
            )
        )
    return found


def _change_form(changes: Sequence[Changes]) -> KernelForm:
    terms = np.array([(each.count, each.bytes) for each in changes])
    start, per_byte = non_negative(terms, [each.seconds for each in changes], [each.pass_s for each in changes])
    return KernelForm(
        start_s=four_digits(start), bandwidth_bytes_per_s=four_digits(min(1.0 / max(per_byte, 1e-300), _FASTEST))
    )


def _change_s(form: KernelForm, changes: Changes) -> float:
    return changes.count * max(form.start_s, _LEAST_CHANGE_S) + changes.bytes / form.bandwidth_bytes_per_s


def _balanced(models: Sequence[KernelModel], times: RuntimeTimes, bare: HardwareSpec) -> list[KernelModel]:
    """Scale the matrix work of each format by the median of what whole passes leave for it.

    Rows are fitted by the logarithm of their time, which is right for the middle one and short for a sum.
    """
    machine = bare.model_copy(update={"kernels": tuple(models)})
    found = []
    factors = {fmt: _factor(times, machine, fmt) for fmt in times.formats}
    for model in models:
        factor = factors.get(model.formats[0], 1.0) if len(model.formats) == 1 and model.op in MATRIX_KINDS else 1.0
        found.append(model if factor == 1.0 else model.model_copy(update={"form": scaled(model.form, factor)}))
    return found


def _factor(times: RuntimeTimes, machine: HardwareSpec, fmt: str) -> float:
    found = []
    for done in times.passes:
        if done.job.label != fmt:
            continue
        priced = estimate(
            done.job.probing.deployment.simulator.graph,
            machine,
            done.job.scheme,
            batch=done.job.batch,
            runtime=times.runtime,
        )
        own = sum(row.latency_s for row in priced.layers if row.model and len(row.model.formats) == 1)
        if own > 0:
            found.append((done.seconds - (priced.latency_s - own)) / own)
    return float(np.clip(np.median(found), 1.0 / _MOST_SCALE, _MOST_SCALE)) if found else 1.0


def scaled(form: KernelForm, factor: float) -> KernelForm:
    """Return the form under which every kernel takes ``factor`` times as long."""
    given: dict[str, Any] = form.model_dump()
    for name in _TIMES:
        given[name] = None if given[name] is None else four_digits(given[name] * factor)
    for name in _RATES:
        given[name] = None if given[name] is None else four_digits(given[name] / factor)
    return KernelForm.model_validate(given)


def check_passes(times: RuntimeTimes, machine: HardwareSpec) -> list[PassCheck]:
    """Hold the models against the passes they come from: rows and transitions added up, beside the time measured."""
    if times.runtime not in machine.runtimes:
        return []
    return [_check(done, times.runtime, machine) for done in times.passes]


def _check(done: Pass, runtime: str, machine: HardwareSpec) -> PassCheck:
    job, deployment = done.job, done.job.probing.deployment
    predicted = estimate(deployment.simulator.graph, machine, job.scheme, batch=job.batch, runtime=runtime).latency_s
    return PassCheck(runtime, deployment.name, job.label, job.batch, done.seconds, predicted)
