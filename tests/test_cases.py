"""The exact optimum of search problems, whose costs may not add over layers, against brute force."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest

from aiq._cases import cases, option_mask, unit_costs
from aiq.knapsack import InfeasibleError
from aiq.objective import Objective
from aiq.oracle import Evaluation
from aiq.problem import Constraints, Problem
from aiq.strategies._candidates import candidates, optimum, whole_space
from tests.simulated import ACCURACY, hypervolume, space_of

FORMATS = ("keep", "w8a8", "w4", "w4a4")
PLAIN, EDGES, LEVELS = ("t4", "paper"), ("t4", "unfused"), ("xeon-icelake-2vcpu", "fused")
PROBLEMS = {
    "bytes add": (PLAIN, Objective("ai", 0.9), Constraints()),
    "raw": (PLAIN, Objective("ai", 0.3, "raw"), Constraints()),
    "lambda 0": (PLAIN, Objective("ai", 0.0), Constraints()),
    "lambda 1": (PLAIN, Objective("ai", 1.0), Constraints()),
    "memory": (PLAIN, Objective("memory", 0.5, "relative"), Constraints()),
    "bounded loss": (PLAIN, Objective("ai"), Constraints(max_loss=2.0)),
    "bounded memory": (PLAIN, Objective("ai", 0.9), Constraints(max_weight_bytes=70_000.0)),
    "bounded intensity": (PLAIN, Objective("memory", 0.5), Constraints(min_intensity=20.0)),
    "all bounds": (
        PLAIN,
        Objective("memory"),
        Constraints(max_loss=3.0, max_weight_bytes=1e5, min_intensity=15.0, max_latency_s=1e-3),
    ),
    "transitions": (EDGES, Objective("ai", 0.9), Constraints()),
    "transitions, latency": (EDGES, Objective("latency", 0.9), Constraints(max_weight_bytes=70_000.0)),
    "transitions, bounded loss": (EDGES, Objective("ai"), Constraints(max_loss=2.0)),
    "levels": (LEVELS, Objective("latency", 0.9), Constraints()),
    "levels, bounded loss": (LEVELS, Objective("latency"), Constraints(max_loss=2.0)),
    "levels, bounded latency": (LEVELS, Objective("ai", 0.9), Constraints(max_latency_s=8e-6)),
}


def problem_of(name: str, *, groups: int = 5) -> Problem:
    (hardware, traffic), objective, constraints = PROBLEMS[name]
    space = space_of("digits_cnn", FORMATS, groups, hardware, traffic)
    return Problem(space, objective, constraints, ACCURACY, Evaluation(0.9, n=1000))


def losses_of(problem: Problem, seed: int) -> np.ndarray:
    losses = np.random.default_rng(seed).uniform(0, 2, (len(problem.space.units), len(problem.space.options)))
    losses[:, 0] = 0
    return losses


def every(problem: Problem) -> np.ndarray:
    return np.array(list(itertools.product(*(unit.options for unit in problem.space.units))))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_optimum_is_that_of_brute_force(name: str, seed: int) -> None:
    problem = problem_of(name)
    losses = losses_of(problem, seed)
    choices = every(problem)
    total = losses[np.arange(choices.shape[1]), choices].sum(axis=1)
    values = problem.values(choices, total)
    assert np.isfinite(values).any()
    found = optimum(problem, losses)
    assert found.value == pytest.approx(values.min(), rel=1e-9, abs=1e-12)
    assert found.bound == pytest.approx(values.min(), rel=1e-9, abs=1e-12)
    assert problem.values([found.choice], [found.loss])[0] == pytest.approx(values.min(), rel=1e-9, abs=1e-12)


def test_the_tables_hold_what_their_names_say() -> None:
    """Otherwise the cases above would not be tried."""
    assert problem_of("transitions").space.table.has_transitions
    assert len(problem_of("levels").space.table.levels) == 2
    assert len(cases(problem_of("levels"), losses_of(problem_of("levels"), 0))) == 2
    assert any(case.pairs for case in cases(problem_of("transitions"), losses_of(problem_of("transitions"), 0)))


@pytest.mark.parametrize("name", ["bytes add", "memory", "transitions", "levels"])
def test_cases_price_schemes_as_the_table_does(name: str) -> None:
    """With several levels, no case prices a scheme below its latency, and one that may hold it does so exactly."""
    problem = problem_of(name)
    rng = np.random.default_rng(0)
    choices = every(problem)[rng.integers(0, len(every(problem)), 20)]
    for choice, cost in zip(choices.tolist(), problem.costs(choices), strict=True):
        priced = []
        for case in cases(problem, losses_of(problem, 0)):
            found, _ = case.totals(choice)
            if (found <= case.budgets).all():
                priced.append(found[0])
        assert min(priced) == pytest.approx(cost, rel=1e-12)


def test_ties_and_kept_layers_are_part_of_the_cost() -> None:
    from aiq.space import make_space

    rng = np.random.default_rng(0)
    table = copy.copy(problem_of("transitions").space.table)
    lopsided = rng.random((len(FORMATS), len(FORMATS))) * (1 - np.eye(len(FORMATS)))
    table._edges = [(a, b, moved * lopsided, seconds) for a, b, moved, seconds in table._edges]
    space = make_space(table, ties=[["layer1.*"]], keep=["linear", "layer2.0.*"])
    problem = replace(problem_of("transitions"), space=space)
    owner = [
        next((u for u, unit in enumerate(space.units) if i in unit.layers), None) for i in range(len(table.layers))
    ]
    ends = {(owner[a] is None, owner[b] is None, owner[a] == owner[b]) for a, b, *_ in table.transitions}
    assert ends == {(True, False, False), (False, True, False), (True, True, True), (False,) * 3, (False, False, True)}
    (case,) = cases(problem, losses_of(problem, 0))
    choices = every(problem)[::7]
    found = [case.totals(choice)[0][0] for choice in choices.tolist()]
    np.testing.assert_allclose(found, problem.costs(choices), rtol=1e-12)


def test_a_latency_that_only_the_inner_memory_allows() -> None:
    problem = problem_of("levels, bounded latency")
    choices = every(problem)
    scores = problem.space.score(choices)
    levels = np.array([problem.space.table.weight_level(weights) for weights in scores.weight_bytes])
    outer, inner = (scores.latency_s[levels == level].min() for level in problem.space.table.levels)
    assert inner < outer
    tight = replace(problem, constraints=Constraints(max_latency_s=(inner + outer) / 2))
    losses = losses_of(problem, 0)
    values = tight.values(choices, losses[np.arange(choices.shape[1]), choices].sum(axis=1))
    assert optimum(tight, losses).value == pytest.approx(values.min(), rel=1e-9)


def test_unit_costs_add_up_where_nothing_is_fixed() -> None:
    problem = problem_of("levels")
    for choice in every(problem)[::100].tolist():
        costs = unit_costs(problem, tuple(choice))
        assert costs[np.arange(len(choice)), choice].sum() == pytest.approx(problem.costs([choice])[0], rel=1e-12)


def test_a_problem_that_nothing_solves_says_what_comes_nearest() -> None:
    problem = replace(problem_of("bytes add"), constraints=Constraints(max_weight_bytes=100.0))
    with pytest.raises(InfeasibleError, match=r"^no choice is within a cost of 100: the nearest has 2\d{4}\. Next: "):
        optimum(problem, losses_of(problem, 0))


def test_options_that_are_none_of_a_unit_are_masked() -> None:
    space = space_of("digits_cnn", ("keep", "w8", "w4"), None)
    mask = option_mask(space)
    assert [tuple(np.flatnonzero(row).tolist()) for row in mask] == [unit.options for unit in space.units]


@pytest.mark.parametrize("name", PROBLEMS)
def test_candidates_are_affordable_options_of_their_units_and_hold_the_optimum(name: str) -> None:
    problem = problem_of(name, groups=9)
    losses = losses_of(problem, 3)
    found = candidates(problem, losses, [problem.space.start])
    assert problem.constraints.affordable(problem.space.score(found)).all()
    assert option_mask(problem.space)[np.arange(found.shape[1]), found].all()
    best = optimum(problem, losses)
    total = losses[np.arange(found.shape[1]), found].sum(axis=1)
    assert problem.values(found, total).min() == pytest.approx(best.value, rel=1e-9)
    assert len(np.unique(found, axis=0)) == len(found)


@pytest.mark.parametrize(
    ("name", "seed", "least"), [("levels, bounded latency", 1, 0.9999), ("transitions, latency", 0, 0.7)]
)
def test_candidates_trace_the_whole_trade_off(name: str, seed: int, least: float) -> None:
    """A second limit needs prices on it; conversions make schemes of one activation format worth a look."""
    problem = problem_of(name, groups=6)
    losses = losses_of(problem, seed)
    shares = []
    for choices in (candidates(problem, losses, []), every(problem)):
        fine = choices[problem.constraints.affordable(problem.space.score(choices))]
        shares.append((problem.merits(fine), losses[np.arange(fine.shape[1]), fine].sum(axis=1)))
    ends = shares[1][0].min(), 1.01 * shares[1][1].max()
    reached, whole = (hypervolume(*share, *ends) for share in shares)
    assert reached >= least * whole
    assert len(shares[0][0]) < 0.05 * len(shares[1][0])


def test_every_change_of_one_unit_is_a_candidate() -> None:
    problem = problem_of("bounded memory", groups=9)
    near = (3, 2, 3, 2, 3, 2, 3, 2, 3)
    flips = [(*near[:u], k, *near[u + 1 :]) for u in range(9) for k in range(4)]
    limit = float(np.median(problem.space.score(flips).weight_bytes))
    problem = replace(problem, constraints=Constraints(max_weight_bytes=limit))
    fine = problem.constraints.affordable(problem.space.score(flips))
    found = set(map(tuple, candidates(problem, losses_of(problem, 0), [near]).tolist()))
    assert 0 < fine.sum() < len(flips)
    assert found.issuperset(flip for flip, mark in zip(flips, fine, strict=True) if mark)
    assert found.isdisjoint(flip for flip, mark in zip(flips, fine, strict=True) if not mark)


def test_small_spaces_are_listed_whole() -> None:
    problem = problem_of("bytes add")
    listed = whole_space(problem)
    assert listed is not None
    assert len(listed) == problem.space.size
    assert whole_space(problem_of("bytes add", groups=9)) is None
    limited = whole_space(problem_of("bounded memory"))
    assert limited is not None
    assert 0 < len(limited) < problem.space.size
