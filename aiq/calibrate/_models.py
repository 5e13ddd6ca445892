"""From measured rows to kernel models whose sum is the time of a whole pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

import numpy as np

from aiq.calibrate._correct import fit_left_out
from aiq.calibrate._fit import FEWEST_ROWS
from aiq.calibrate._measure import (
    Changes,
    Pass,
    RuntimeTimes,
    measured_changes,
    measured_rows,
    with_enough,
)
from aiq.calibrate._rows import KernelRow, Values, describe, four_digits, half_width
from hardware_specs import FitError, HardwareSpec, KernelForm, KernelModel
from roofline import estimate
from roofline.graph import MATRIX_KINDS

# Sums are put right by no more than this factor: beyond it the rows are wrong, and not their scale.
_MOST_SCALE = 4.0
# Formats with fewer rows of a class than this have one model together.
_APART = 12
_FEWEST_PASSES = 4
# Of a conversion that costs nothing by its bytes, and by its number.
_FASTEST, _LEAST_CHANGE_S = 1e13, 1e-8
_BESIDE = ("conv", "pixel", "other")
# Of a pass: what changes take below that is noise.
_LEAST_SHARE = 0.05
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


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was fitted to the times of a runtime.

    Attributes:
        models: The kernel models.
        rows: The rows that they were fitted to.
        short: Classes that had too few rows for a model.
        common_variance: Share of the rows' variance that is common to all of a pass; ``None`` where passes are too few.
    """

    models: tuple[KernelModel, ...]
    rows: tuple[KernelRow, ...]
    short: tuple[str, ...]
    common_variance: float | None


def kernel_models(
    times: RuntimeTimes, bare: HardwareSpec, *, source: str, date: str, versions: Mapping[str, str]
) -> Fitted:
    """Fit the kernel models of a runtime, and scale each format so that its rows add up to whole passes.

    Args:
        times: What was measured.
        bare: The machine without kernel models.
        source: Where the times come from.
        date: When they were taken.
        versions: Of what ran them.
    """
    rows, short = with_enough(measured_rows(times), FEWEST_ROWS, _APART)
    if not rows:
        return Fitted((), (), tuple(short), None)
    stated: dict[str, Any] = {"source": source, "date": date, "versions": versions}
    fitted = fit_left_out(rows, **stated)
    changes = fit_changes(measured_changes(times), runtime=times.runtime, **stated)
    models = _balanced([model for model, _, _ in fitted], times, bare)
    return Fitted((*models, *changes), tuple(rows), tuple(short), common_variance(fitted))


def common_variance(fitted: Sequence[tuple[KernelModel, Sequence[KernelRow], Values]]) -> float | None:
    """Return the share of the variance of rows' errors that is common to all rows of a pass.

    The least with which the interval of :func:`roofline.kernels.combine` holds the conformal 90 % of the passes, each
    predicted as the sum of its rows where their layers were left out. ``None`` below nine passes.

    Args:
        fitted: Models, each with the rows that it was fitted to and their log errors where they were left out.
    """
    passes: dict[str, list[tuple[float, float, float]]] = {}
    for model, rows, left_out in fitted:
        below, above = model.error.interval or (1.0, 1.0)
        for row, error in zip(rows, left_out.tolist(), strict=True):
            predicted = row.seconds * exp(-error)
            apart = row.seconds - predicted, predicted * (1.0 - below), predicted * (above - 1.0)
            passes.setdefault(row.run, []).append(apart)
    shares = []
    for parts in passes.values():
        errors, below, above = np.array(parts).T
        wrong = float(errors.sum())
        widths = above if wrong > 0 else below
        least, most = float(widths @ widths), float(widths.sum()) ** 2
        shares.append(float(np.clip((wrong * wrong - least) / (most - least), 0.0, 1.0)) if most > least else 0.0)
    found = half_width(np.array(shares))
    return None if found is None else four_digits(found)


def fit_changes(changes: Sequence[Changes], *, runtime: str, **stated: Any) -> list[KernelModel]:
    """Fit what a change of format takes, ``start + bytes / bandwidth``: for each pair of formats, and for each place
    that :func:`roofline.kernels.beside_of` tells apart.

    Non-negative least squares over whole passes, each weighted by its own time: what is fitted is a small difference of
    two large times, whose noise grows with them. The error is that of passes left out, one at a time, on what all their
    changes took, where that is more than a twentieth of the pass.
    """
    found = []
    for pair in dict.fromkeys(each.formats for each in changes):
        own = [each for each in changes if each.formats == pair]
        if len(own) < _FEWEST_PASSES:
            continue
        forms = _change_forms(own)
        error = _change_error(own)
        for beside, form in forms.items():
            sizes = [each.bytes[beside] / each.counts[beside] for each in own if each.counts.get(beside)]
            found.append(
                KernelModel.model_validate(
                    {
                        "runtime": runtime,
                        "op": "transition",
                        "formats": pair,
                        "variants": (beside,),
                        "form": form,
                        "rows": len(sizes),
                        "span": (min(sizes), max(sizes)),
                        "error": error,
                        **stated,
                    }
                )
            )
    return found


def _change_error(changes: Sequence[Changes]) -> FitError:
    errors = []
    for place, each in enumerate(changes):
        predicted = _change_s(_change_forms([*changes[:place], *changes[place + 1 :]]), each)
        if min(each.seconds, predicted) > _LEAST_SHARE * each.pass_s:
            errors.append(each.seconds / predicted)
    logs = np.log(errors or [1.0])
    width = half_width(logs)
    blank = FitError(method="leave-one-out", rows=1, mean_ape=0.0, median_ape=0.0, p90_ape=0.0)
    interval = None if width is None else (four_digits(exp(-width)), four_digits(exp(width)))
    return describe(blank, logs).model_copy(update={"interval": interval})


def _change_forms(changes: Sequence[Changes]) -> dict[str, KernelForm]:
    from scipy.optimize import nnls

    kinds = [kind for kind in _BESIDE if any(each.counts.get(kind) for each in changes)]
    terms = np.array([[(each.counts.get(k, 0), each.bytes.get(k, 0)) for k in kinds] for each in changes], dtype=float)
    terms = terms.reshape(len(changes), -1) / np.array([each.pass_s for each in changes])[:, None]
    scales = terms.max(axis=0, initial=1e-300)
    found, _ = nnls(terms / scales, np.array([each.seconds / each.pass_s for each in changes]))
    values = (found / scales).reshape(-1, 2)
    return {
        kind: KernelForm(
            start_s=four_digits(start), bandwidth_bytes_per_s=four_digits(min(1.0 / max(per_byte, 1e-300), _FASTEST))
        )
        for kind, (start, per_byte) in zip(kinds, values.tolist(), strict=True)
    }


def _change_s(forms: Mapping[str, KernelForm], changes: Changes) -> float:
    return sum(
        changes.counts.get(kind, 0) * max(form.start_s, _LEAST_CHANGE_S)
        + changes.bytes.get(kind, 0) / form.bandwidth_bytes_per_s
        for kind, form in forms.items()
    )


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
