"""Fit kernel models: robust least squares in log time, terms chosen by cross-validation, conformal intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import exp
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aiq.calibrate._rows import (
    KernelRow,
    Values,
    best_taper,
    describe,
    four_digits,
    half_width,
    log_errors,
    stack,
)
from hardware_specs import FitError, KernelForm, KernelModel
from roofline.errors import InputError
from roofline.graph import MATRIX_KINDS
from roofline.kernels import Work, widening

FEWEST_ROWS = 8
FOLDS = 10
LEAVE_ONE_OUT_ROWS = 40
# A term must lower the cross-validated error by this share to be worth its parameters.
GAIN = 0.03
# A model for each variant must be this much better than one for all.
SPLIT_GAIN = 0.1
# FLOPs and bytes of element-wise work rise together: only rows that differ so much in FLOP/byte tell the rates apart.
_DENSITY_RANGE = 3.0
_SOFT = 0.1
_PRIOR = 0.01
_TOLERANCE = 1e-5
_MOST_CACHE_GAIN = 8.0


class _Parameter(NamedTuple):
    """A parameter of the form: on a logarithmic axis but for the overlap, bounded, with where the search starts."""

    name: str
    start: float
    low: float
    high: float


class _Data(NamedTuple):
    """Rows as arrays, and the capacity of the last cache (0: unknown)."""

    work: Work
    seconds: Values
    cache: float


@dataclass(frozen=True)
class _Fitted:
    form: KernelForm
    terms: tuple[str, ...]
    errors: Values

    @property
    def score(self) -> float:
        """Mean |log error| of rows that were not fitted."""
        return float(np.abs(self.errors).mean())


def fit_kernels(
    rows: Sequence[KernelRow],
    *,
    source: str,
    date: str,
    versions: Mapping[str, str] | None = None,
    traffic: Literal["unfused", "fused"] = "fused",
    largest_cache_bytes: float | None = None,
) -> list[KernelModel]:
    """Fit one kernel model for each runtime, class of ops and formats, or several by variant where those differ.

    Residuals are ``log(measured / predicted)`` under a soft L1 loss, so that a factor of two counts the same on either
    side and at any size. Terms of the form are added one at a time while the error of ``k``-fold cross-validation
    (leave-one-out up to 40 rows) falls by at least 3 %. That error, and the conformal interval from the same
    residuals, go into the model. Deterministic.

    Args:
        rows: Measured times, at least 8 for each runtime, class and formats.
        source: Where they come from, for the file.
        date: When they were taken, YYYY-MM-DD.
        versions: Versions of what ran them.
        traffic: Whether the rows are single ops or what the runtime fuses.
        largest_cache_bytes: Capacity of the machine's last cache: no cache term reaches beyond it, and without it there
            is none.

    Raises:
        InputError: Too few rows of a class.

    Source: Huber, Robust Statistics, 1981 (soft L1 is smooth); Stone, Cross-validatory choice, JRSS B 36, 1974.
    """
    groups: dict[tuple[str, str, tuple[str, ...]], list[KernelRow]] = {}
    for row in rows:
        groups.setdefault((row.runtime, row.op, row.formats), []).append(row)
    models = []
    for (runtime, op, formats), group in groups.items():
        if len(group) < FEWEST_ROWS:
            raise InputError(
                f"{op} {'/'.join(formats)} on {runtime} has {len(group)} rows, at least {FEWEST_ROWS} are needed. "
                "Next: measure more sizes, or leave the class out."
            )
        for part in _parts(group, largest_cache_bytes):
            work, seconds = stack(part.rows)
            form = part.fitted.form
            sizes = work.flops if form.rate_flops_per_s else work.bytes
            models.append(
                KernelModel.model_validate(
                    {
                        "runtime": runtime,
                        "op": op,
                        "formats": formats,
                        "variants": tuple(sorted({row.variant for row in part.rows} - {""})),
                        "traffic": traffic,
                        "form": form,
                        "rows": len(seconds),
                        "span": (float(np.min(sizes)), float(np.max(sizes))),
                        "error": _error(part.fitted, seconds),
                        "source": source,
                        "date": date,
                        "versions": dict(versions or {}),
                    }
                )
            )
    return models


class _Part(NamedTuple):
    rows: Sequence[KernelRow]
    fitted: _Fitted


def _parts(rows: Sequence[KernelRow], cache: float | None) -> list[_Part]:
    """Fit all variants of a class together, or each by itself where that is clearly better."""
    together = _Part(rows, _select(rows, cache))
    variants = sorted({row.variant for row in rows})
    each = [[row for row in rows if row.variant == variant] for variant in variants]
    if len(each) == 1 or min(map(len, each)) < FEWEST_ROWS:
        return [together]
    apart = [_Part(part, _select(part, cache)) for part in each]
    score = np.abs(np.concatenate([part.fitted.errors for part in apart])).mean()
    return apart if score < (1.0 - SPLIT_GAIN) * together.fitted.score else [together]


def plain_form(rows: Sequence[KernelRow]) -> KernelForm:
    """Fit a form with a bandwidth, a start and, of matrix work, a rate: no more terms, and no choice between them."""
    work, seconds = stack(rows)
    data = _Data(work, seconds, 0.0)
    terms = ("rate",) if rows[0].op in MATRIX_KINDS else ()
    parameters = _parameters(terms, data)
    _, best = _solve(parameters, np.array([p.start for p in parameters]), work, seconds)
    return _form(parameters, best, digits=4)


def _error(fitted: _Fitted, seconds: Values) -> FitError:
    """State the cross-validated error, with the conformal interval and the share of rows that it would have covered."""
    errors, count = fitted.errors, len(seconds)
    predicted = seconds / np.exp(errors)
    taper, typical = best_taper(errors, predicted), float(np.median(predicted))
    scaled = errors / widening(predicted, typical, taper)
    width, coverage = half_width(scaled), _coverage(scaled, _folds(count))
    found = FitError(
        method="leave-one-out" if count <= LEAVE_ONE_OUT_ROWS else "k-fold",
        rows=count,
        mean_ape=0.0,
        median_ape=0.0,
        p90_ape=0.0,
        interval=None if width is None else (four_digits(exp(-width)), four_digits(exp(width))),
        typical_s=four_digits(typical),
        taper=taper,
        coverage=None if coverage is None else four_digits(coverage),
    )
    return describe(found, errors)


def _select(rows: Sequence[KernelRow], cache: float | None) -> _Fitted:
    """Add the term that helps most while one helps, or where none does by itself the two that do together."""
    work, seconds = stack(rows)
    matrix = rows[0].op in MATRIX_KINDS
    data = _Data(work, seconds, cache or 0.0)
    base = ("rate",) if matrix else ()
    best = _cross_validated(base, data)
    left = _terms(matrix, data)
    while left:
        for size in (1, 2):
            tried = [_cross_validated((*best.terms, *added), data) for added in combinations(left, size)]
            found = min(tried, key=lambda fitted: fitted.score, default=best)
            if found.score <= (1.0 - size * GAIN) * best.score:
                break
        else:
            return best
        best, left = found, [term for term in left if term not in found.terms]
    return best


def _terms(matrix: bool, data: _Data) -> list[str]:
    """Return the terms that the rows could tell from the rest."""
    work = data.work
    cache = ["cache"] if float(np.min(work.bytes)) < data.cache else []
    if not matrix:
        density = np.asarray(work.flops) / np.asarray(work.bytes)
        told_apart = density.min() > 0 and density.max() > _DENSITY_RANGE * density.min()
        return [*(["rate"] if told_apart else []), *cache, *(["reread"] if np.ptp(work.k) else [])]
    edges = ["edges"] if any(np.ptp(size) for size in (work.m, work.n, work.k)) else []
    return [*edges, "burst", *cache, *(["column"] if np.ptp(work.n) and np.max(work.products) > 1 else [])]


def _cross_validated(terms: tuple[str, ...], data: _Data) -> _Fitted:
    work, seconds, _ = data
    parameters = _parameters(terms, data)
    starts = [np.array([p.start for p in parameters])]
    starts.append(np.array([p.low + 0.1 * (p.high - p.low) if p.name == "overlap" else p.start for p in parameters]))
    solutions = [_solve(parameters, start, work, seconds) for start in starts]
    _, best = min(solutions, key=lambda solution: solution[0])
    errors = np.empty(len(seconds))
    for fold in _folds(len(seconds)):
        keep = np.ones(len(seconds), dtype=bool)
        keep[fold] = False
        _, found = _solve(parameters, best, _take(work, keep), seconds[keep])
        errors[fold] = log_errors(_form(parameters, found), _take(work, ~keep), seconds[~keep])
    return _Fitted(_form(parameters, best, digits=4), terms, errors)


def _folds(count: int) -> list[NDArray[np.intp]]:
    """Return the rows of each fold, shuffled by a fixed seed and in rising order within a fold."""
    parts = count if count <= LEAVE_ONE_OUT_ROWS else FOLDS
    order = np.random.default_rng(0).permutation(count)
    return [np.sort(order[index::parts]) for index in range(parts)]


def _coverage(errors: Values, folds: Iterable[NDArray[np.intp]]) -> float | None:
    """Return the share of rows inside the interval that the rows of the other folds give."""
    inside = 0
    for fold in folds:
        width = half_width(np.delete(errors, fold))
        if width is None:
            return None
        inside += int(np.sum(np.abs(errors[fold]) <= width))
    return inside / len(errors)


def _solve(parameters: Sequence[_Parameter], start: Values, work: Work, seconds: Values) -> tuple[float, Values]:
    """Minimise the robust residuals, with a weak pull to the start for what the rows do not determine."""
    from scipy.optimize import least_squares

    low, high = np.array([p.low for p in parameters]), np.array([p.high for p in parameters])
    anchor = np.array([p.start for p in parameters])

    def residuals(x: Values) -> Values:
        return np.concatenate([log_errors(_form(parameters, x), work, seconds), _PRIOR * (x - anchor)])

    found = least_squares(
        residuals,
        np.clip(start, low + 1e-6, high - 1e-6),
        bounds=(low, high),
        loss="soft_l1",
        f_scale=_SOFT,
        ftol=_TOLERANCE,
        xtol=_TOLERANCE,
        max_nfev=200,
    )
    return float(found.cost), found.x


def _parameters(terms: tuple[str, ...], data: _Data) -> list[_Parameter]:
    """Return what is free: bounds and starts from the rows themselves."""
    work, seconds, cache = data
    typical, least = float(np.median(seconds)), float(seconds.min())

    def log(name: str, start: float, low: float, high: float) -> _Parameter:
        low, high = np.log(low), np.log(max(high, low * 1.01))
        return _Parameter(name, float(np.clip(np.log(start), low, high)), float(low), float(high))

    def rate(name: str, amount: Any) -> _Parameter:
        achieved = np.asarray(amount) / seconds
        top = float(np.quantile(achieved[achieved > 0], 0.95))
        return log(name, top, 1e-2 * top, 1e2 * float(achieved.max()))

    found = [
        rate("bandwidth_bytes_per_s", work.bytes),
        log("start_s", 0.3 * least, 1e-3 * least, typical),
        log("dispatch_s", 0.9 * least, 1e-3 * least, typical),
    ]
    if "rate" in terms and np.any(np.asarray(work.flops) > 0):
        found += [rate("rate_flops_per_s", work.flops), _Parameter("overlap", 0.9, 0.0, 1.0)]
    if "edges" in terms:
        sizes = (("half_m", work.m), ("half_n", work.n), ("half_k", work.k))
        found += [log(name, 10.0, 1e-2, 1e4) for name, size in sizes if np.ptp(size)]
    if "burst" in terms:
        found += [log("burst_gain", 0.5, 1e-2, 10.0), log("burst_s", typical, 1e-2 * least, float(seconds.max()))]
    if "column" in terms:
        per_column = seconds / np.asarray(work.n)
        found.append(log("column_s", 0.1 * float(np.median(per_column)), 1e-6 * least, float(per_column.max())))
    if "reread" in terms:
        lengths = np.asarray(work.k)
        found.append(log("reread_share", 0.5, 1e-2, 2.0))
        found.append(log("reread_length", float(np.median(lengths)), float(lengths.min()), float(lengths.max())))
    if "cache" in terms:
        found.append(log("cache_bytes", 0.5 * cache, min(float(np.min(work.bytes)), 0.5 * cache), cache))
        found.append(log("cache_gain", 2.0, 1.001, _MOST_CACHE_GAIN))
    return found


def _form(parameters: Sequence[_Parameter], x: Values, *, digits: int = 0) -> KernelForm:
    values: dict[str, Any] = {
        p.name: float(v if p.name == "overlap" else np.exp(v)) for p, v in zip(parameters, x, strict=True)
    }
    if "cache_gain" in values:
        values["cache_bandwidth_bytes_per_s"] = values.pop("cache_gain") * values["bandwidth_bytes_per_s"]
    if not digits:
        return KernelForm.model_construct(**values)
    return KernelForm.model_validate({name: float(f"{value:.{digits}g}") for name, value in values.items()})


def _take(work: Work, rows: NDArray[np.bool_]) -> Work:
    return Work(*(np.asarray(column)[rows] for column in work))
