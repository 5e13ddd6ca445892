"""Fit kernel models with a correction by size: a plain form, and a smooth function of what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiq.calibrate._fit import plain_form
from aiq.calibrate._rows import KernelRow, Values, describe, four_digits, half_width, log_errors, stack
from hardware_specs import Correction, FitError, KernelModel
from roofline.graph import CONV_KINDS
from roofline.kernels import features

# Candidates: how far a measured kernel speaks of others, in natural logarithms of size; scatter of one that is
# measured again, and of the factors, both in log time.
_LENGTHS, _SCATTERS, _DEVIATIONS = (0.7, 1.5, 3.0, 6.0), (0.05, 0.15, 0.3), (0.3, 0.7)
# Integer convolutions are fitted apart by whether they round their result where there are so many of each.
_FEWEST_APART = 12


@dataclass(frozen=True)
class _Smooth:
    """One candidate: its settings, and the log errors of each layer from a fit to all others."""

    length: float
    scatter: float
    deviation: float
    errors: Values

    @property
    def score(self) -> float:
        """Mean |log error|."""
        return float(np.abs(self.errors).mean())


def fit_corrected(rows: Sequence[KernelRow], **stated: Any) -> list[KernelModel]:
    """Fit one kernel model for each class of ops and formats: a form, and a correction by size.

    The form has a rate, a bandwidth, their overlap and a start. What it leaves, ``log(measured / form)``, is a Gaussian
    process over :func:`roofline.kernels.features`; its length, scatter and deviation are those of least mean error on
    layers left out, each at all batch sizes at once, which is also the error that the model states. Deterministic.

    Args:
        rows: Measured times of one runtime.
        stated: Source, date and versions, for the file.

    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, sections 2.2 and 5.4.2 (the errors of
    rows left out from one inverse).
    """
    return [model for model, _, _ in fit_left_out(rows, **stated)]


def fit_left_out(rows: Sequence[KernelRow], **stated: Any) -> list[tuple[KernelModel, list[KernelRow], Values]]:
    """Return the models of :func:`fit_corrected`, each with its rows and their log errors where they were left out."""
    groups: dict[tuple[str, tuple[str, ...], bool | None], list[KernelRow]] = {}
    for row in rows:
        groups.setdefault((row.op, row.formats, None), []).append(row)
    for (op, formats, _), group in list(groups.items()):
        parts = {rounded: [row for row in group if row.roundable == rounded] for rounded in (True, False)}
        if op in CONV_KINDS and formats == ("int8",) and min(map(len, parts.values())) >= _FEWEST_APART:
            del groups[op, formats, None]
            groups.update({(op, formats, rounded): part for rounded, part in parts.items()})
    found = []
    for key, group in groups.items():
        model, left_out = _model(key, group, stated)
        found.append((model, group, left_out))
    return found


def _model(
    key: tuple[str, tuple[str, ...], bool | None], rows: Sequence[KernelRow], stated: Any
) -> tuple[KernelModel, Values]:
    op, formats, rounded = key
    work, seconds = stack(rows)
    form = plain_form(rows)
    left = log_errors(form, work, seconds)
    places = features(work)
    apart = ((places[:, None] - places[None]) ** 2).sum(axis=-1)
    layers = [row.layer or str(index) for index, row in enumerate(rows)]
    best = min(
        (_left_out(left, apart, layers, tried) for tried in _candidates()),
        key=lambda found: found.score,
    )
    noise = best.scatter**2 * np.eye(len(left))
    weights = best.deviation**2 * np.linalg.solve(_covariance(apart, best.length, best.deviation) + noise, left)
    sizes = work.flops if form.rate_flops_per_s else work.bytes
    model = KernelModel.model_validate(
        {
            "runtime": rows[0].runtime,
            "op": op,
            "formats": formats,
            "rounded": rounded,
            "form": form,
            "correction": Correction(
                length=best.length,
                points=tuple(tuple(round(float(v), 3) for v in place) for place in places),
                weights=tuple(four_digits(weight) for weight in weights),
            ),
            "rows": len(rows),
            "span": (float(np.min(sizes)), float(np.max(sizes))),
            "error": _error(best.errors, seconds, layers),
            **stated,
        }
    )
    return model, best.errors


def _candidates() -> list[tuple[float, float, float]]:
    return [(length, scatter, deviation) for length in _LENGTHS for scatter in _SCATTERS for deviation in _DEVIATIONS]


def _covariance(apart: Values, length: float, deviation: float) -> Values:
    found: Values = deviation**2 * np.exp(-apart / (2.0 * length**2))
    return found


def _left_out(left: Values, apart: Values, layers: Sequence[str], tried: tuple[float, float, float]) -> _Smooth:
    """Predict each layer from all others, by one inverse: ``e_I = [K⁻¹]_II⁻¹ [K⁻¹ y]_I``."""
    length, scatter, deviation = tried
    inverse = np.linalg.inv(_covariance(apart, length, deviation) + scatter**2 * np.eye(len(left)))
    pull, errors = inverse @ left, np.empty(len(left))
    for own in _folds(layers):
        errors[own] = np.linalg.solve(inverse[np.ix_(own, own)], pull[own])
    return _Smooth(length, scatter, deviation, errors)


def _folds(layers: Sequence[str]) -> list[NDArray[np.intp]]:
    names = np.array(layers)
    return [np.flatnonzero(names == name) for name in dict.fromkeys(layers)]


def _error(errors: Values, seconds: Values, layers: Sequence[str]) -> FitError:
    width = half_width(errors)
    inside = None
    if width is not None:
        widths = [half_width(np.delete(errors, own)) for own in _folds(layers)]
        if all(each is not None for each in widths):
            hits = [np.abs(errors[own]) <= each for own, each in zip(_folds(layers), widths, strict=True)]
            inside = four_digits(float(np.concatenate(hits).mean()))
    blank = FitError(
        method="k-fold",
        rows=len(errors),
        mean_ape=0.0,
        median_ape=0.0,
        p90_ape=0.0,
        interval=None if width is None else (four_digits(exp(-width)), four_digits(exp(width))),
        typical_s=four_digits(float(np.median(seconds))),
        coverage=inside,
    )
    return describe(blank, errors)
