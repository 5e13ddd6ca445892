"""Exact search: a table of single changes, the exact optimum of a model of accuracy, and measurements where it pays."""

from __future__ import annotations

from collections.abc import Container, Mapping
from contextlib import suppress

import numpy as np

from aiq._program import SolverLimitError
from aiq.frontier import non_dominated
from aiq.knapsack import InfeasibleError
from aiq.oracle import Evaluation
from aiq.problem import Problem
from aiq.space import Choice
from aiq.strategies._candidates import Choices, candidates, optimum, whole_space
from aiq.strategies._moves import affordable, other_options, with_option
from aiq.strategies._sensitivity import Sensitivity, Values, fit
from aiq.strategy import Findings, Steps
from roofline.errors import InputError

CHANCE = 0.001
LEAST_VERIFIED = 15
_WORTHWHILE = 5e-3
_WORTHWHILE_AREA = 1e-4
_LEVELS = 30
_TURNS = 2


class Exact:
    """Measure every single change once, then let a model of accuracy say which combinations are worth measuring.

    1. *Top.* The scheme of greatest merit within the limits on cost. Where it loses nothing, none is better: the end.
    2. *Table.* The start with each option of each unit in turn: U (K − 1) evaluations, which serve every objective,
       budget and machine.
    3. *Fit* the model of :class:`aiq.strategies._sensitivity.Sensitivity` to everything measured so far, and list
       candidates: the whole space where it has at most 20 000 schemes, else the exact frontiers under the model's
       additive losses (multiple-choice knapsack), its exact optimum, and all changes of one unit of the best measured.
    4. *Measure* the candidate of greatest expected improvement of the objective, E[max(best − L, 0)] (of greatest
       chance of any, once all are slight), or, every other time, of greatest expected gain of area under the frontier
       of merit and loss; refit, and again. A measured neighbour takes uncertainty away from a candidate, so that those
       measured one after another differ.
    5. *Stop* when no unmeasured candidate has a chance above 0.1 % of being better than the best, which is to say that
       its predicted gain lies inside the interval (as wide as this because thousands are compared), and none adds a
       ten-thousandth to the area; or when ``max_evaluations`` are used. The changes of one unit of the best scheme are
       always among the candidates: then each was measured, or has no more than that chance.

    Where a runtime computes all floating-point layers in one format, single changes are measured all the same, for the
    model's sake; candidates, the best and the bound are schemes that run as they are written.

    The bound that it reports is the exact optimum under the additive losses that fit all measurements best, or the best
    measured where that is lower.

    Source: for the improvement, Jones, Schonlau and Welch, "Efficient global optimization of expensive black-box
    functions", Journal of Global Optimization 13 (1998); for its area form, Emmerich, Deutz and Klinkenberg,
    "Hypervolume-based expected improvement", CEC 2011.

    Args:
        max_evaluations: Most distinct evaluations, the baseline included; the table and 15 more are always allowed.
        frontier: Whether to spend evaluations on the whole frontier and not on the objective alone.
    """

    name = "exact"

    def __init__(self, *, max_evaluations: int = 60, frontier: bool = True) -> None:
        if max_evaluations < 1:
            raise InputError(f"max_evaluations must be at least 1, got {max_evaluations}. Next: raise it.")
        self.max_evaluations = max_evaluations
        self.frontier = frontier

    def steps(self, problem: Problem) -> Steps:
        """Return the generator of a search.

        Raises:
            InfeasibleError: No scheme meets the limits on cost.
        """
        if not affordable(problem, [problem.space.start])[0]:
            with suppress(SolverLimitError):
                optimum(problem, np.zeros((len(problem.space.units), len(problem.space.options))))
        return self._steps(problem)

    def most_evaluations(self, problem: Problem) -> int:
        """Return the larger of ``max_evaluations`` and 1 + Σ (K − 1) + 15, at most the size of the space."""
        table = 1 + sum(map(len, other_options(problem.space)))
        return min(max(self.max_evaluations, table + LEAST_VERIFIED), problem.space.size)

    def _steps(self, problem: Problem) -> Steps:
        start = problem.space.start
        measured = {start: problem.baseline}
        top = _greatest_merit(problem)
        if top is not None:
            if top not in measured:
                measured[top] = yield top
            if problem.loss(measured[top]) == 0:
                bound = float(problem.values([top], [0.0])[0])
                return Findings(note="exact: the scheme of greatest merit loses nothing: none is better", bound=bound)
        for u, options in enumerate(other_options(problem.space)):
            for k in options:
                choice = with_option(start, u, k)
                if choice not in measured:
                    measured[choice] = yield choice
        whole = whole_space(problem)
        if whole is not None:
            whole = _without(whole, measured)
        reason = "all evaluations that it may take are used"
        while len(measured) < self.most_evaluations(problem):
            model = fit(problem, measured)
            pool = _without(_pool(problem, model, measured), measured) if whole is None else whole
            found = self._next(problem, model, pool, measured) if len(pool) else None
            if found is None:
                reason = f"no unmeasured candidate has a chance above {CHANCE:.1%} of being better"
                break
            measured[found] = yield found
            if whole is not None:
                whole = whole[(whole != found).any(axis=1)]
        return _findings(problem, measured, reason)

    def _next(
        self, problem: Problem, model: Sensitivity, pool: Choices, measured: Mapping[Choice, Evaluation]
    ) -> Choice | None:
        """Return the candidate that is most worth measuring; ``None`` if none is."""
        mean, deviation = model.predict(pool)
        merits = problem.merits(pool)
        singles = 1 + sum(map(len, other_options(problem.space)))
        worth = _improvement(problem, pool, mean, deviation, measured)
        if self.frontier and (worth is None or (len(measured) - singles) % _TURNS == 0):
            area = _area(problem, merits, mean, deviation, measured)
            worth = worth if area is None else area
        return None if worth is None else _row(pool, worth)


def _greatest_merit(problem: Problem) -> Choice | None:
    """Return the affordable scheme of greatest merit; ``None`` where merit does not matter or it is not proved."""
    if not problem.constraints.bounds_loss and not problem.objective.lam:
        return None
    try:
        found = optimum(problem, np.zeros((len(problem.space.units), len(problem.space.options))))
    except (InfeasibleError, SolverLimitError):
        return None
    return found.choice if found.gap == 0 and affordable(problem, [found.choice])[0] else None


def _improvement(
    problem: Problem, pool: Choices, mean: Values, deviation: Values, measured: Mapping[Choice, Evaluation]
) -> Values | None:
    """Return the expected improvement of the objective, [S]; where all are slight, the chance of any; else ``None``."""
    from scipy.special import ndtr

    without_loss = problem.values(pool, np.zeros(len(pool)))
    span = float(np.ptp(without_loss))
    weight = 0.0 if problem.constraints.bounds_loss else 1 - problem.objective.lam
    losses = np.array([problem.loss(evaluation) for evaluation in measured.values()])
    best = float(problem.values(list(measured), losses).min())
    if not np.isfinite(best):
        best = float((without_loss + weight * np.maximum(mean, 0)).max()) + _WORTHWHILE * span
    room = best - without_loss
    if weight:
        limit = room / weight
        chance = ndtr((limit - mean) / deviation)
        expected = weight * (_mean_shortfall(limit, mean, deviation) - _mean_shortfall(0.0, mean, deviation))
    else:
        chance = ndtr((problem.max_loss - mean) / deviation)
        expected = room * chance
    open_to = room > 1e-9 * span
    expected, chance = np.where(open_to, expected, 0.0), np.where(open_to, chance, 0.0)
    if expected.max() > _WORTHWHILE * span:
        return expected
    return chance if chance.max() > CHANCE else None


def _mean_shortfall(limit: Values | float, mean: Values, deviation: Values) -> Values:
    """Return E[max(limit − y, 0)] for y ~ N(mean, deviation²)."""
    from scipy.special import ndtr

    z = (limit - mean) / deviation
    return (limit - mean) * ndtr(z) + deviation * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)


def _area(
    problem: Problem, merits: Values, mean: Values, deviation: Values, measured: Mapping[Choice, Evaluation]
) -> Values | None:
    """Return the expected gain of area under the frontier of merit over loss, as a share of all; ``None`` if slight.

    E[area] = ∫ P(loss ≤ l) max(merit − M(l), 0) dl with M(l) the greatest measured merit at a loss of at most l, up to
    the loss at the greatest merit, or to the bound on the loss.
    """
    from scipy.special import ndtr

    choices = list(measured)
    fine = affordable(problem, choices)
    reached = problem.merits(choices)[fine]
    losses = np.array([problem.loss(evaluation) for evaluation in measured.values()])[fine]
    least = min(float(reached.min()), float(merits.min()))
    span = max(float(reached.max()), float(merits.max())) - least
    example = problem.metric.scale / problem.baseline.n if problem.baseline.n else 0.0
    end = min(1.1 * float(losses[reached.argmax()]), problem.max_loss) + example
    if not end or not span:
        return None
    levels = (np.arange(_LEVELS) + 0.5) / _LEVELS * end
    frontier = np.array([reached[losses <= level].max(initial=least) for level in levels])
    gained = np.zeros(len(merits))
    above = np.flatnonzero(merits > frontier[0])
    chance = ndtr((levels - mean[above, None]) / deviation[above, None])
    gained[above] = (chance * np.maximum(merits[above, None] - frontier, 0)).mean(axis=1) / span
    return gained if gained.max(initial=0.0) > _WORTHWHILE_AREA else None


def _pool(problem: Problem, model: Sensitivity, measured: Mapping[Choice, Evaluation]) -> Choices:
    losses = np.array([problem.loss(evaluation) for evaluation in measured.values()])
    choices = list(measured)
    fine = np.flatnonzero(problem.space.runnable(choices))
    near = {choices[index] for index in fine[non_dominated(problem.costs(choices)[fine], losses[fine])]}
    near.add(choices[int(problem.values(choices, losses).argmin())])
    return candidates(problem, model.table(), sorted(near))


def _without(pool: Choices, measured: Container[Choice]) -> Choices:
    return pool[[tuple(choice) not in measured for choice in pool.tolist()]]


def _row(pool: Choices, worth: Values) -> Choice:
    return tuple(pool[int(worth.argmax())].tolist())


def _findings(problem: Problem, measured: Mapping[Choice, Evaluation], reason: str) -> Findings:
    table = fit(problem, measured).table()
    losses = [problem.loss(evaluation) for evaluation in measured.values()]
    best = float(problem.values(list(measured), losses).min())
    try:
        bound = min(optimum(problem, table).bound, best)
    except InfeasibleError:
        bound = None
        reason += "; under the model of accuracy no scheme meets the constraints"
    except SolverLimitError as error:
        bound = None
        reason += f"; without a bound, since {error}"
    return Findings(note=f"exact: {reason}", predicted=table, bound=bound)
