"""How far predictions are from measurements, and what that costs the one who decides by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiq.stats import wilson_interval

RESAMPLES = 1000
_ENDS = (2.5, 97.5)

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A statistic with its 95 % interval.

    Attributes:
        value: The statistic.
        low: Lower end of the interval.
        high: Upper end.
        n: Rows that it is computed from.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Errors:
    """How far predicted times are from measured ones.

    Attributes:
        median_ape: Median of |predicted / measured − 1|.
        p90_ape: 90th percentile of the same.
        bias: Geometric mean of predicted / measured, less 1: negative where predictions are too fast.
        spearman: Rank correlation of predicted and measured times among the schemes of one batch size, the mean over
            batch sizes; ``None`` where either does not vary.
        coverage: Share of measured times inside the predicted interval; ``None`` without intervals.
    """

    median_ape: Figure
    p90_ape: Figure
    bias: Figure
    spearman: Figure | None
    coverage: Figure | None


@dataclass(frozen=True, slots=True)
class Regret:
    """What it costs to take the scheme of least predicted time, at one batch size.

    Attributes:
        batch: Samples in a pass.
        picked: The scheme of least predicted time.
        fastest: The scheme of least measured time.
        value: Measured time of the picked over that of the fastest, less 1.
        low: Lower end of its 95 % interval, from resampled rounds.
        high: Upper end.
        beyond_noise: The same against the fastest of the schemes that are surely faster than the picked; 0 if none is.
        faster: How many are: the 95 % interval of the ratio of times, round by round, lies above 1.
        n: Schemes measured.
    """

    batch: int
    picked: str
    fastest: str
    value: float
    low: float
    high: float
    beyond_noise: float
    faster: int
    n: int


def errors(
    predicted: Values,
    measured: Values,
    *,
    schemes: Sequence[str],
    batches: Sequence[int],
    intervals: Sequence[tuple[float, float] | None],
    seed: int = 0,
) -> Errors:
    """Compare predicted and measured seconds, row by row.

    The intervals of all but the coverage come from resampling schemes with all of their rows; that of the coverage is
    Wilson's.

    Args:
        predicted: Seconds, [N], N at least 1.
        measured: Seconds, [N].
        schemes: Name of the scheme of each row.
        batches: Batch size of each row.
        intervals: Predicted interval of each row, seconds, or ``None``.
        seed: Seeds the resampling.
    """
    ratio, sizes = predicted / measured, np.asarray(batches)
    of_scheme: dict[str, list[int]] = {}
    for row, scheme in enumerate(schemes):
        of_scheme.setdefault(scheme, []).append(row)
    groups = [np.array(rows) for rows in of_scheme.values()]
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(groups), size=(RESAMPLES, len(groups)))
    samples = [np.concatenate([groups[g] for g in sample]) for sample in drawn]

    def figure(statistic: Callable[[NDArray[np.intp]], float]) -> Figure:
        low, high = np.nanpercentile([statistic(rows) for rows in samples], _ENDS)
        return Figure(statistic(np.arange(len(ratio))), float(low), float(high), len(ratio))

    ape, logs = np.abs(ratio - 1.0), np.log(ratio)
    ranked = _rank_correlation(predicted, measured, sizes)
    return Errors(
        figure(lambda rows: float(np.median(ape[rows]))),
        figure(lambda rows: float(np.quantile(ape[rows], 0.9))),
        figure(lambda rows: float(np.expm1(logs[rows].mean()))),
        figure(lambda rows: _rank_correlation(predicted[rows], measured[rows], sizes[rows]))
        if np.isfinite(ranked)
        else None,
        _coverage(measured, intervals),
    )


def _rank_correlation(a: Values, b: Values, groups: NDArray[Any]) -> float:
    """Return Spearman's ρ within each group, averaged; NaN where no group has one."""
    found = [spearman(a[groups == g], b[groups == g]) for g in np.unique(groups)]
    known = [value for value in found if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def spearman(a: Values, b: Values) -> float:
    """Return Spearman's rank correlation, ties at their mean rank; NaN where either does not vary.

    Source: C. Spearman, "The Proof and Measurement of Association between Two Things", 1904.
    """
    first, second = _ranks(a), _ranks(b)
    first, second = first - first.mean(), second - second.mean()
    size = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / size if size > 0 else float("nan")


def _ranks(values: Values) -> Values:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    found: Values = (last - (counts - 1) / 2.0)[place]
    return found


def _coverage(measured: Values, intervals: Sequence[tuple[float, float] | None]) -> Figure | None:
    inside = [ends[0] <= at <= ends[1] for at, ends in zip(measured, intervals, strict=True) if ends]
    if not inside:
        return None
    return Figure(float(np.mean(inside)), *wilson_interval(int(sum(inside)), len(inside)), len(inside))


def regret(names: Sequence[str], predicted: Values, rounds: Values, *, batch: int, seed: int = 0) -> Regret:
    """Return what the scheme of least predicted time costs over the fastest measured.

    Args:
        names: Of the schemes.
        predicted: Seconds, [S], S at least 1.
        rounds: Measured seconds of each scheme in each round, [S, R]; the rounds of all were taken in turn.
        batch: Samples in a pass.
        seed: Seeds the resampling of rounds.
    """
    medians = np.median(rounds, axis=1)
    picked, fastest = int(np.argmin(predicted)), int(np.argmin(medians))
    generator = np.random.default_rng(seed)
    drawn = generator.integers(rounds.shape[1], size=(RESAMPLES, rounds.shape[1]))
    resampled = np.stack([np.median(row[drawn], axis=1) for row in rounds])
    low, high = np.percentile(resampled[picked] / resampled.min(axis=0) - 1.0, _ENDS)
    faster = [
        other
        for other in range(len(names))
        if np.percentile(resampled[picked] / resampled[other], _ENDS[0]) > 1.0 and medians[other] < medians[picked]
    ]
    beyond = max((float(medians[picked] / medians[other]) - 1.0 for other in faster), default=0.0)
    return Regret(
        batch,
        names[picked],
        names[fastest],
        float(medians[picked] / medians[fastest]) - 1.0,
        float(low),
        float(high),
        beyond,
        len(faster),
        len(names),
    )
