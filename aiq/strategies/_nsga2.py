"""NSGA-II, the usual multi-objective genetic search, as a yardstick."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiq.problem import Problem
from aiq.space import Choice
from aiq.strategies._moves import affordable
from aiq.strategies._random import distinct_choices
from aiq.strategy import Findings, Steps
from roofline.errors import AIQError, InputError

_MOST_IDLE_GENERATIONS = 10


class NSGA2:
    """Breeds schemes toward the whole trade-off between the target's cost and the accuracy loss, both minimised.

    Each unit is an integer variable, its place in the unit's list of options; simulated binary crossover and polynomial
    mutation with rounding, as pymoo recommends for integers. The first generation is the baseline and uniform draws.
    Limits count as constraints; schemes that break one on cost take part in the breeding and are not evaluated.

    Args:
        evaluations: Distinct schemes to evaluate, the baseline included, at least 2.
        population: Schemes in a generation, at least 2.
        seed: Seeds everything that is drawn.

    Source: Deb, Pratap, Agarwal and Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE
    Transactions on Evolutionary Computation 6 (2002); run by pymoo (Blank and Deb, IEEE Access 8, 2020).
    """

    name = "nsga2"

    def __init__(self, evaluations: int = 200, population: int = 20, seed: int = 0) -> None:
        if evaluations < 2 or population < 2 or seed < 0:
            raise InputError(
                "nsga2: evaluations and population must be at least 2 and seed at least 0, got "
                f"{evaluations}, {population} and {seed}. Next: mend them."
            )
        self.evaluations, self.population, self.seed = evaluations, population, seed

    def steps(self, problem: Problem) -> Steps:
        """Return the generator of a search.

        Raises:
            AIQError: pymoo is not installed.
        """
        return self._steps(problem, self._algorithm(problem))

    def _steps(self, problem: Problem, algorithm: Any) -> Steps:
        from pymoo.core.evaluator import Evaluator
        from pymoo.problems.static import StaticProblem

        options = [unit.options for unit in problem.space.units]
        known = {problem.space.start: problem.baseline}
        generations = idle = 0
        while idle < _MOST_IDLE_GENERATIONS and len(known) < problem.space.size:
            asked = algorithm.ask()
            if asked is None:
                break
            choices = [tuple(own[int(i)] for own, i in zip(options, x, strict=True)) for x in asked.get("X")]
            fine, before = affordable(problem, choices), len(known)
            for choice, evaluated in zip(choices, fine, strict=True):
                if evaluated and choice not in known:
                    if len(known) == self.evaluations:
                        return Findings(note=f"nsga2: {len(known)} evaluations in {generations} generations")
                    known[choice] = yield choice
            losses = [problem.loss(known[c]) if ok else 0.0 for c, ok in zip(choices, fine, strict=True)]
            goals = np.column_stack([problem.costs(choices), losses])
            marked = StaticProblem(algorithm.problem, F=goals, G=_violations(problem, choices, losses)[:, None])
            Evaluator().eval(marked, asked)
            algorithm.tell(infills=asked)
            generations += 1
            idle = idle + 1 if len(known) == before else 0
        return Findings(note=f"nsga2: bred no new scheme after {len(known)} evaluations in {generations} generations")

    def _algorithm(self, problem: Problem) -> Any:
        try:
            from pymoo.algorithms.moo import nsga2
            from pymoo.core.problem import Problem as Variables
            from pymoo.core.termination import NoTermination
            from pymoo.operators.crossover.sbx import SBX
            from pymoo.operators.mutation.pm import PM
            from pymoo.operators.repair.rounding import RoundingRepair
        except ImportError:
            raise AIQError(
                "strategy nsga2: pymoo, which runs it, is not installed. Next: pip install aiq-roofline[nsga2]."
            ) from None
        units = problem.space.units
        first = [problem.space.start, *islice(distinct_choices(problem, self.seed), self.population - 1)]
        places = [[unit.options.index(k) for unit, k in zip(units, choice, strict=True)] for choice in first]
        integers = {"vtype": float, "repair": RoundingRepair()}
        algorithm = nsga2.NSGA2(
            pop_size=self.population,
            sampling=np.array(places),
            crossover=SBX(prob=1.0, eta=3.0, **integers),
            mutation=PM(prob=1.0, eta=3.0, **integers),
        )
        top = np.array([len(unit.options) - 1 for unit in units])
        variables = Variables(n_var=len(units), n_obj=2, n_ieq_constr=1, xl=np.zeros_like(top), xu=top, vtype=int)
        return algorithm.setup(variables, termination=NoTermination(), seed=self.seed)

    def most_evaluations(self, problem: Problem) -> int:
        """Return the number asked for, or the size of the space if that is less."""
        return min(self.evaluations, problem.space.size)


def _violations(problem: Problem, choices: list[Choice], losses: list[float]) -> NDArray[np.float64]:
    """Return by how much choices break the limits, [S]: points of loss and shares of the baseline's costs.

    One that would not run as it is written counts as if it took the baseline's cost twice.
    """
    limits, space = problem.constraints, problem.space
    scores, start = space.score(choices), space.score([space.start])
    loss = np.array(losses)
    excess = np.where(problem.allows(loss), 0.0, loss - problem.max_loss)
    excess += np.where(space.runnable(choices), 0.0, 1.0)
    if limits.max_weight_bytes is not None:
        excess += np.maximum(scores.weight_bytes - limits.max_weight_bytes, 0.0) / start.weight_bytes
    if limits.min_intensity is not None:
        excess += np.maximum(limits.min_intensity - scores.arithmetic_intensity, 0.0) / start.arithmetic_intensity
    if limits.max_latency_s is not None:
        excess += np.maximum(scores.latency_s - limits.max_latency_s, 0.0) / start.latency_s
    return excess
