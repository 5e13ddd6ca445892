"""What single changes and measured schemes say about the accuracy loss of schemes that nobody has measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aiq.oracle import Evaluation
from aiq.problem import Problem
from aiq.space import Choice

Values = NDArray[np.float64]

_SIZE_NOISE = 0.05
_LEAST_PAIR_VARIANCE = 1e-4
_NUGGET = 1e-4
_LUCK_POWER = 1 / 3
_NOISE_RATIOS = (1e-6, 0.1, 1.0, 10.0)
_TINY = 1e-12
_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """A statistical model of the loss, fitted to every evaluation so far; the losses of single changes must be known.

    A change of unit u to option k adds a noise e(u, k) to the outputs. Its *size* d(u, k) is the measured divergence of
    the scheme with that change alone. To second order a Kullback–Leibler divergence is a squared length, so that sizes
    add up but for the angles between noises::

        D(s) = |Σ_u e(u, s_u)|² = Σ_u d_u + Σ_{u<v} 2 ρ_uv √(d_u d_v),     ρ_uv ~ N(c, τ²)

    The mean correlation c is the least-squares estimate from measured combinations, with one observation of c = 0
    added; each ρ is shrunk towards it in proportion to what the measurements say of that pair (ridge regression in its
    dual form), so that a few combinations suffice for any number of pairs. Measured sizes stand for themselves.

    The counted loss y is proportional to the size, plus the luck of which examples sit near a decision boundary, whose
    outcomes change one way or the other. Two schemes have luck in common as far as they share noise, with correlation
    r = Σ_{u: s_u = t_u} d_u / √(Σ d(s) Σ d(t))::

        y(s) = β D(s) + D(s)^⅓ g(s),     cov(g(s), g(t)) = v exp(−√(2 − 2 r))

    Changed outcomes would be as many as √D where examples lie evenly about the boundary, and as many as D where noise
    grows with the margin; luck is the root of their number. The third root, in between, is the likeliest on 33 complete
    truth tables (every scheme of ``digits_cnn`` evaluated, and simulated ones), where 95 % intervals miss 3 to 9 %.
    √(2 − 2 r) is the distance of two unit vectors whose product is r; the exponential has the kink that counts of
    threshold crossings have. β comes from generalised least squares, v from the residuals, at no less than one example;
    mean and standard deviation are those of universal kriging. A count on a few hundred examples cannot tell single
    changes apart, while sizes can: β carries the sizes' ranking into losses, g adds back what counts do say.

    Where an oracle gives no divergence, the size of a change is its loss, at least one example, and the sizes of
    combinations are sums.

    Source: for the kriging, Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, sections 2.2, 2.7.

    Attributes:
        sizes: d(u, k), [U, K]; 0 for the baseline.
        correlation: c.
        slope: β, loss for each unit of size.
        variance: v.
    """

    sizes: Values = field(repr=False)
    correlation: float
    slope: float
    variance: float
    _baseline: int
    _floor: float
    _schemes: NDArray[np.int64] = field(repr=False)
    _losses: Values = field(repr=False)
    _pair_weights: Values = field(repr=False)
    _measured_sizes: Values = field(repr=False)
    _inverse: Values = field(repr=False)

    def predict(self, choices: NDArray[np.integer] | Sequence[Choice]) -> tuple[Values, Values]:
        """Return mean and standard deviation of the loss, in the metric's unit and below 0 for a gain, [S] each."""
        given = np.atleast_2d(np.asarray(choices))
        parts = [self._predict(given[start : start + _CHUNK]) for start in range(0, len(given), _CHUNK)]
        means, deviations = zip(*parts, strict=True)
        return np.concatenate(means), np.concatenate(deviations)

    def _predict(self, choices: NDArray[np.integer]) -> tuple[Values, Values]:
        size, near = self._compare(choices)
        luck, known = _luck(size), _luck(self._measured_sizes)
        trend = self._measured_sizes / known
        weights = self._inverse @ trend
        residual = self._losses / known - self.slope * trend
        mean = self.slope * size + luck * (near @ (self._inverse @ residual))
        spread = 1 - ((near @ self._inverse) * near).sum(axis=1)
        spread += (size / luck - near @ weights) ** 2 / (trend @ weights)
        return mean, np.sqrt(np.maximum(self.variance * spread * luck**2, self._floor**2))

    def predicted_sizes(self, choices: NDArray[np.integer] | Sequence[Choice]) -> Values:
        """Return D, [S]."""
        return self._compare(choices)[0]

    def _compare(self, choices: NDArray[np.integer] | Sequence[Choice]) -> tuple[Values, Values]:
        """Return the sizes of choices, [S], and the correlation of their luck with that of measured ones, [S, N]."""
        own = _one_hot(choices, self.sizes.shape[1], self._baseline)
        known = _one_hot(self._schemes, self.sizes.shape[1], self._baseline)
        sizes = self.sizes.ravel()
        shared, total = (own * sizes) @ known.T, own @ sizes
        found = total + self.correlation * ((own @ np.sqrt(sizes)) ** 2 - total)
        if self._pair_weights.any():
            found += _pairs(own, known, shared, sizes) @ self._pair_weights
        return np.maximum(found, np.maximum(0.5 * total, _TINY)), _nearness(shared, total, known @ sizes)

    def table(self) -> Values:
        """Return the additive losses that fit best, [U, K], at least 0.

        θ(u, k) has the prior N(β' d(u, k), w d(u, k)), and a measured loss is the sum of its units' θ with an error in
        proportion to (Σ d)^⅓: luck and whatever does not add. β' is the least-squares slope of losses on sums of sizes;
        the ratio of error to prior, η, is the likeliest of a few. Sizes decide where counts cannot, and counts where
        they can.
        """
        columns = _one_hot(self._schemes, self.sizes.shape[1], self._baseline)
        shared, total = (columns * self.sizes.ravel()) @ columns.T, columns @ self.sizes.ravel()
        error = _luck(total) ** 2
        error *= total.max() / error.max()
        best: tuple[float, Values] | None = None
        for ratio in _NOISE_RATIOS:
            inverse = np.linalg.inv(shared + np.diag(ratio * error))
            slope = max(float(total @ inverse @ self._losses / (total @ inverse @ total)), 0.0)
            residual = self._losses - slope * total
            scale = max(float(residual @ inverse @ residual) / len(total), _TINY)
            likelihood = np.linalg.slogdet(inverse)[1] - len(total) * np.log(scale)
            if best is None or likelihood > best[0]:
                learned = (columns.T @ (inverse @ residual)).reshape(self.sizes.shape)
                best = likelihood, np.maximum(self.sizes * (slope + learned), 0.0)
        assert best is not None
        return best[1]


def fit(problem: Problem, measured: Mapping[Choice, Evaluation]) -> Sensitivity:
    """Fit the model.

    Args:
        problem: What is searched.
        measured: Evaluations by choice: every change of a single unit, and any others.
    """
    space, metric = problem.space, problem.metric
    found = {choice: e for choice, e in measured.items() if choice != space.start}
    schemes = np.array(list(found), dtype=np.int64)
    losses = np.array([problem.drop(e) for e in found.values()])
    n = problem.baseline.n
    resolution = metric.scale / n if n else 0.0
    given = np.array([np.nan if e.divergence is None else e.divergence for e in found.values()], dtype=np.float64)
    changed = schemes != space.baseline
    single = changed.sum(axis=1) == 1
    smooth = bool(np.isfinite(given[single]).all())
    own = given[single] if smooth else np.maximum(losses[single], resolution)
    sizes = np.zeros((len(space.units), len(space.options)))
    units = changed[single].argmax(axis=1)
    sizes[units, schemes[single][np.arange(len(units)), units]] = np.maximum(own, max(own.max() * 1e-9, _TINY))

    total = sizes[np.arange(len(space.units)), schemes].sum(axis=1)
    known = np.where(np.isfinite(given), np.maximum(given, _TINY), total) if smooth else total
    known = np.where(single, total, known)
    columns = _one_hot(schemes, sizes.shape[1], space.baseline)
    shared = (columns * sizes.ravel()) @ columns.T
    correlation, weights = _fit_sizes(sizes.ravel(), columns, shared, known, ~single)
    near = _nearness(shared, total, total)
    inverse = np.asarray(np.linalg.inv((near + near.T) / 2 + _NUGGET * np.eye(len(near))), dtype=np.float64)
    luck = _luck(known)
    trend, scaled = known / luck, losses / luck
    slope = float(trend @ inverse @ scaled / (trend @ inverse @ trend))
    residual = scaled - slope * trend
    variance = (float(residual @ inverse @ residual) + (resolution / float(luck.max())) ** 2) / len(luck)
    floor = max(1e-9 * float(np.abs(losses).max()), _TINY)
    return Sensitivity(
        sizes, correlation, slope, variance, space.baseline, floor, schemes, losses, weights, known, inverse
    )


def _luck(sizes: Values) -> Values:
    """Return what the luck of counts is proportional to."""
    return sizes**_LUCK_POWER


def _fit_sizes(
    sizes: Values, columns: Values, shared: Values, known: Values, combined: NDArray[np.bool_]
) -> tuple[float, Values]:
    """Return the mean correlation, and the weight of each measured scheme in the pair terms of others, [N]."""
    weights = np.zeros(len(columns))
    if not combined.any():
        return 0.0, weights
    total = (columns @ sizes)[combined]
    crossed = (columns @ np.sqrt(sizes))[combined] ** 2 - total
    relative, excess = crossed / total, known[combined] / total - 1
    correlation = float(relative @ excess / (relative @ relative + 1))
    mean = np.maximum(total + correlation * crossed, 0.5 * total)
    residual = known[combined] - mean
    kernel = _pairs(columns, columns, shared, sizes)[np.ix_(combined, combined)]
    variance = max(float((residual**2 / np.maximum(np.diag(kernel), _TINY)).mean()), _LEAST_PAIR_VARIANCE)
    weights[combined] = variance * np.linalg.solve(variance * kernel + np.diag((_SIZE_NOISE * mean) ** 2), residual)
    return correlation, weights


def _one_hot(choices: NDArray[np.integer] | Sequence[Choice], options: int, baseline: int) -> Values:
    """Return 1 where a unit takes an option, 0 for the baseline, [S, U · K]."""
    given = np.atleast_2d(np.asarray(choices))
    found = np.eye(options)
    found[baseline] = 0
    return found[given].reshape(len(given), -1)


def _pairs(own: Values, known: Values, shared: Values, sizes: Values) -> Values:
    """Return 4 Σ d_u d_v over pairs of units that a choice and a measured scheme share, [S, N]."""
    return 2 * (shared**2 - (own * sizes**2) @ known.T)


def _nearness(shared: Values, total: Values, others: Values) -> Values:
    """Return exp(−√(2 − 2 r)) with r the correlation of noises, [S, N]."""
    r = shared / np.sqrt(np.maximum(np.outer(total, others), _TINY**2))
    return np.exp(-np.sqrt(np.maximum(2 - 2 * r, 0)))
