"""A runtime that computes all floating-point layers in one format: no search answers with several, by brute force."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from aiq._driver import Run
from aiq._model import load_model
from aiq._plan import plan
from aiq._search import search
from aiq._search_points import count_flips, frontier_choices, nearest_miss, single_flips
from aiq._tradeoff import tradeoffs
from aiq.objective import Objective
from aiq.oracle import Evaluation
from aiq.problem import Constraints, Problem
from aiq.space import Choice, Space, make_space
from aiq.strategies import Coordinate, Exact, Exhaustive, Greedy, Random
from aiq.strategies._candidates import candidates, optimum, whole_space
from aiq.strategies._exact import _pool
from aiq.strategies._nsga2 import _violations
from aiq.strategies._random import distinct_choices
from aiq.strategies._sensitivity import fit
from aiq.strategy import Strategy
from aiq.why import explain
from roofline import CostTable, LayerPrecision, Scheme, estimate
from tests.calibrated import CALIBRATED, ONE_FLOAT, in_one_float, profile, with_kernels
from tests.machines import machine, zoo_graph
from tests.searching import settings
from tests.simulated import ACCURACY, Simulated, follow

FORMATS = ("keep", "w8", "w8a8", "bf16", "int8/bf16")
SHORT = ("keep", "bf16", "w8a8")
RATES = {"fp32": 2e11, "bf16": 4e11, "int8": 8e11}
MACHINES = {
    "transitions": ONE_FLOAT,
    "plain": in_one_float(
        with_kernels(machine(RATES, (("dram", 1e10, None),)), *profile("fp32", "bf16", "int8", transitions=False))
    ),
    # The weights of some schemes fit the inner memory, and rows without a kernel model read them from there.
    "levels": in_one_float(
        with_kernels(
            machine(RATES, (("dram", 1e9, None), ("l2", 8e10, 1.2e5))),
            *(model for model in profile("fp32", "bf16", "int8") if model.op != "conv"),
        )
    ),
    "several floats": CALIBRATED.calibrated(),
}
PROBLEMS = {
    "latency": (Objective("latency", 0.9), Constraints()),
    "latency, bounded loss": (Objective("latency"), Constraints(max_loss=1.5)),
    "bytes": (Objective("ai", 0.5), Constraints()),
    "memory, bounded latency": (Objective("memory", 0.5), Constraints(max_latency_s=3.5e-5)),
}


@cache
def space(
    hardware: str = "transitions", formats: Sequence[str] = FORMATS, *, groups: int = 5, keep: Sequence[str] = ()
) -> Space:
    table = CostTable(zoo_graph("digits_cnn"), MACHINES[hardware], [LayerPrecision.parse(text) for text in formats])
    return make_space(table, groups=groups, keep=keep)


def problem_of(name: str, where: Space) -> Problem:
    objective, constraints = PROBLEMS[name]
    return Problem(where, objective, constraints, ACCURACY, Evaluation(0.9, n=1000))


def losses_of(where: Space, seed: int) -> np.ndarray:
    """Return losses that are small for bf16, so that a mixture would often be the best."""
    scale = {"keep": 0.0, "w8": 0.3, "w8a8": 1.0, "bf16": 0.2, "int8/bf16": 0.5}
    by_option = np.array([scale[option.label] for option in where.options])
    return by_option * np.random.default_rng(seed).uniform(0.2, 1.8, (len(where.units), len(where.options)))


def every(where: Space) -> np.ndarray:
    return np.array(list(itertools.product(*(unit.options for unit in where.units))))


def floats(where: Space, choice: Sequence[int]) -> set[str]:
    return floats_of(where.scheme(tuple(choice)))


def floats_of(scheme: Scheme) -> set[str]:
    """Return the floating-point formats of activations in a scheme; a default is that of all."""
    formats = [rule.precision for rule in scheme.rules] or [scheme.default]
    return {"fp32" if given.activations is None else given.activations.name for given in formats} - {"int8"}


def together(where: Space, choices: np.ndarray) -> np.ndarray:
    return np.array([len(floats(where, choice)) <= 1 for choice in choices.tolist()])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("hardware", ["transitions", "plain", "levels"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_optimum_is_that_of_brute_force_over_schemes_of_one_float(name: str, hardware: str, seed: int) -> None:
    problem = problem_of(name, space(hardware))
    losses, choices = losses_of(problem.space, seed), every(problem.space)
    fine = together(problem.space, choices)
    total = losses[np.arange(choices.shape[1]), choices].sum(axis=1)
    values = problem.values(choices, total)
    assert np.isinf(values[~fine]).all()
    assert np.isfinite(values[fine]).any()
    found = optimum(problem, losses)
    assert found.value == pytest.approx(values[fine].min(), rel=1e-9)
    assert found.bound == pytest.approx(values[fine].min(), rel=1e-9)
    assert len(floats(problem.space, found.choice)) <= 1
    pool = candidates(problem, losses, [problem.space.start, found.choice])
    listed = whole_space(problem)
    assert listed is not None
    for some in (pool, listed):
        assert together(problem.space, some).all()
        assert tuple(found.choice) in set(map(tuple, some.tolist()))


def test_the_price_of_the_optimum_is_that_of_an_estimate() -> None:
    problem = problem_of("latency, bounded loss", space())
    losses = losses_of(problem.space, 0)
    best = np.inf
    for choice in every(problem.space):
        if len(floats(problem.space, choice)) <= 1 and losses[np.arange(5), choice].sum() <= 1.5:
            best = min(
                best, estimate(zoo_graph("digits_cnn"), ONE_FLOAT, problem.space.scheme(tuple(choice))).latency_s
            )
    assert optimum(problem, losses).value == pytest.approx(best, rel=1e-9)


def test_a_mixture_would_be_better_were_it_allowed() -> None:
    """Otherwise the tests above would not bite: one layer in bf16 makes all of them fast, at its own loss alone."""
    problem = problem_of("latency, bounded loss", space())
    losses, choices = losses_of(problem.space, 0), every(problem.space)
    within = problem.allows(losses[np.arange(choices.shape[1]), choices].sum(axis=1))
    costs, fine = problem.costs(choices), together(problem.space, choices)
    assert costs[within & ~fine].min() < costs[within & fine].min()


def test_layers_that_are_kept_leave_fp32_alone() -> None:
    where = space(keep=("linear",))
    assert len(where.families) == 1
    choices = every(where)
    for name in PROBLEMS:
        problem = problem_of(name, where)
        found = optimum(problem, losses_of(where, 0))
        assert floats(where, found.choice) == {"fp32"}
    assert where.runnable(choices).tolist() == together(where, choices).tolist()
    assert len(space("several floats", keep=("linear",)).families) == 1


def test_units_without_an_option_of_a_float_rule_it_out() -> None:
    assert len(space().families) == 2
    assert len(space("levels").table.levels) == 2
    assert len(space(formats=("keep", "bf16")).families) == 2
    assert len(space(formats=("keep", "w8a8")).families) == 1


@cache
def truth() -> Simulated:
    return Simulated(3, space=space(formats=SHORT), strength=2.0)


def searched(strategy: Strategy) -> Run:
    problem = truth().problem(Objective("latency", 0.5))
    measured, findings = follow(strategy, problem, truth())
    return Run(problem, measured, frozenset(), 0.0, findings, None, None)


def test_exact_search_measures_single_changes_and_answers_with_one_float() -> None:
    run = searched(Exact())
    where = run.problem.space
    choices = np.array(list(run.evaluations))
    fine = together(where, choices)
    assert 3 <= (~fine).sum() <= len(where.units)
    # The plain value of some single change is the least of all: it is fast, and loses almost nothing.
    low, high = run.problem.ends
    gains = run.problem.objective.gain(run.problem.merits(choices), baseline=low, best=high)
    assert not fine[(-0.5 * gains + 0.5 * run.losses).argmin()]
    assert run.best is not None
    assert len(floats(where, run.best)) <= 1
    reachable = np.where(together(where, truth().every), run.problem.values(truth().every, truth().every_loss), np.inf)
    assert run.values.min() == pytest.approx(reachable.min(), abs=1e-9)
    assert run.findings is not None and run.findings.bound is not None
    assert run.findings.bound <= run.values.min()
    on_frontier = frontier_choices(run)
    assert on_frontier
    assert all(len(floats(where, choice)) <= 1 for choice in on_frontier)
    for choice in (run.best, *on_frontier):
        assert count_flips(run, choice).better == 0


def test_mixtures_are_no_better_neighbours() -> None:
    """From fp32 each change to bf16 makes all of it fast and some lose nothing: none of them counts."""
    run = searched(Exact())
    where, index = run.problem.space, run.index
    start = where.start
    beside = [choice for choice in single_flips(where, start) if choice in index]
    better = (run.problem.costs(beside) < run.problem.costs([start])) & (run.losses[[index[c] for c in beside]] <= 0)
    fine = together(where, np.array(beside))
    assert run.best != start
    assert (better & ~fine).any()
    assert count_flips(run, start).better == (better & fine).sum()


def test_changes_of_one_unit_of_the_frontier_are_candidates() -> None:
    """Of the frontier of schemes of one float: mixtures, which beat it, have nothing that may be measured beside it."""
    run = searched(Exact())
    problem, where = run.problem, run.problem.space
    pool = set(map(tuple, _pool(problem, fit(problem, run.evaluations), run.evaluations).tolist()))
    on_frontier = frontier_choices(run)
    assert len(on_frontier) > 3
    for choice in on_frontier:
        assert pool.issuperset(flip for flip in single_flips(where, choice) if len(floats(where, flip)) <= 1)


def test_reasons_name_no_mixture() -> None:
    run = searched(Exact())
    assert run.best is not None and run.findings is not None and run.findings.predicted is not None
    bounded = replace(run.problem, objective=Objective("latency"), constraints=Constraints(max_loss=1.0))
    for problem in (run.problem, bounded):
        for choice in (run.best, run.problem.space.start):
            own = floats(problem.space, choice)
            labels = {"fp32": "keep", "bf16": "bf16"}
            for reason in explain(problem, run.findings.predicted, choice):
                assert reason.next_option in {None, "w8a8", *(labels[name] for name in own)}


def test_the_price_of_loss_is_that_among_schemes_of_one_float() -> None:
    where = truth().space
    problem = Problem(where, Objective("latency"), Constraints(max_loss=1.0), ACCURACY, Evaluation(0.9, n=1000))
    losses = losses_of(where, 0)
    alone = losses.copy()
    alone[:, 1] = np.nan
    choice = (0, 2, 0, 2, 0)[: len(where.units)]
    prices = [explain(problem, predicted, choice)[0].shadow_price for predicted in (losses, alone)]
    assert prices[0] is not None
    assert prices[0] == pytest.approx(prices[1], rel=1e-12)


@pytest.mark.parametrize("strategy", [Random(40), Exhaustive(), Greedy(), Coordinate()], ids=lambda s: s.name)
def test_other_strategies_measure_no_mixture(strategy: Strategy) -> None:
    run = searched(strategy)
    choices = np.array(list(run.evaluations))
    assert len(choices) > 3
    assert together(run.problem.space, choices).all()
    if strategy.name in {"random", "exhaustive"}:
        counts = [sum(name in floats(run.problem.space, choice) for choice in choices) for name in ("fp32", "bf16")]
        assert min(counts) >= 0.3 * len(choices)


def test_random_schemes_of_a_deep_network_are_found() -> None:
    """Of 3 formats in 53 layers, one draw in a thousand million would be of one float."""
    table = CostTable(zoo_graph("mobilenet_v2_cifar"), ONE_FLOAT, [LayerPrecision.parse(t) for t in SHORT])
    where = make_space(table)
    drawn = list(itertools.islice(distinct_choices(problem_of("bytes", where), 0), 20))
    assert len(set(drawn)) == 20
    assert [floats(where, choice) for choice in drawn] == [{"fp32"}, {"bf16"}] * 10


def test_mixtures_break_a_limit_of_the_genetic_search() -> None:
    problem = truth().problem(Objective("latency", 0.5))
    start = problem.space.start
    assert _violations(problem, [start, (1, *start[1:])], [0.0, 0.0]).tolist() == [0.0, 1.0]


def test_the_genetic_search_measures_no_mixture() -> None:
    pytest.importorskip("pymoo")
    from aiq.strategies import NSGA2

    run = searched(NSGA2(evaluations=30))
    assert together(run.problem.space, np.array(list(run.evaluations))).all()


def test_a_mixture_is_not_the_nearest_miss() -> None:
    """It would meet the limit, and the text would have nothing to say."""
    made = truth()
    keep, mixture = made.space.start, (1, *made.space.start[1:])
    seconds = made.space.score([keep, mixture]).latency_s
    problem = made.problem(Objective("latency"), Constraints(max_latency_s=float(seconds.mean())))
    measured: dict[Choice, Evaluation] = {choice: made.measure(choice) for choice in (keep, mixture)}
    run = Run(problem, measured, frozenset(), 0.0, None, None, None)
    assert run.best is None
    assert "the nearest, 9xkeep, has " in nearest_miss(run)


@pytest.mark.parametrize("hardware", ["transitions", "plain", "levels"])
def test_trade_offs_hold_schemes_of_one_float_and_a_bound_on_them(hardware: str) -> None:
    where = space(hardware, SHORT, groups=9)
    table = where.table
    losses = losses_of(where, 0)
    found = tradeoffs(table, losses)
    choices = np.array(list(itertools.product(range(3), repeat=len(table.layers))))
    choices = choices[[len({0, 1} & set(choice)) < 2 for choice in choices.tolist()]]
    total = losses[np.arange(len(table.layers)), choices].sum(axis=1)
    scores = table.score(choices)
    for target, costs in (("ai", scores.bytes), ("memory", scores.weight_bytes), ("latency", scores.latency_s)):
        tradeoff = found[target]
        points = tradeoff.frontier
        assert all(len({0, 1} & set(choice)) < 2 for choice in points.choices.tolist())
        for cost, loss in zip(points.costs, points.losses, strict=True):
            least = costs[total <= loss * (1 + 1e-9)].min()
            assert tradeoff.bound(float(loss)) <= least * (1 + 1e-9)
            assert cost <= least * (1 + 1e-9) or (target != "memory" and table.has_transitions)
        assert points.costs[0] == pytest.approx(costs.min())


def test_trade_offs_of_some_options_alone() -> None:
    where = space("transitions", SHORT, groups=9)
    for options in where.table.families:
        for tradeoff in tradeoffs(where.table, losses_of(where, 0), families=[options]).values():
            assert set(tradeoff.frontier.choices.ravel().tolist()) <= set(options)


def test_a_plan_offers_no_mixture() -> None:
    found = plan(
        load_model("digits_cnn"),
        ONE_FLOAT,
        formats=["keep", "w8a8", "bf16"],
        objective=Objective("latency"),
        probe_seconds=0,
    )
    mixed = [c.estimate.scheme for c in found.candidates if c.origin != "uniform"]
    assert all(len(floats_of(scheme)) <= 1 for scheme in mixed)
    assert any(floats_of(scheme) == {"bf16"} for scheme in mixed)
    data = json.loads(json.dumps(found.to_dict()))
    assert data["rates"] == "calibrated:toyrun"
    assert "toyrun computes all floating-point layers of a network in one format" in data["assumptions"]


@pytest.mark.parametrize("strategy", ["exact", "greedy"])
def test_a_search_answers_with_one_float_and_says_which_runtime(strategy: str) -> None:
    given = settings(formats=("keep", "w8a8", "bf16"), strategy=strategy, objective=Objective("latency", 0.9))
    found = search(load_model("digits_cnn"), ONE_FLOAT, given)
    assert found.best is not None
    assert len(floats_of(found.best.scheme)) <= 1
    assert all(len(floats_of(point.scheme)) <= 1 for point in found.frontier)
    data = found.to_dict()
    assert data["rates"] == "calibrated:toyrun"
    assert "toyrun computes all floating-point layers of a network in one format" in data["assumptions"]
