"""A whole search: figures by hand, splits, frontier, resuming, re-planning, and the JSON."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import hardware_specs
from aiq import SearchResult, search
from aiq._driver import Budget
from aiq._search import REPORTED_POINTS, dry_run
from aiq._search_points import Figures, Flips, count_flips, frontier_choices, single_flips
from aiq.objective import Objective
from aiq.oracle import Evaluation, Metric, OracleContext, OracleError
from aiq.problem import Constraints
from aiq.stats import paired_difference, wilson_interval
from aiq.strategy import Findings
from roofline import Scheme, estimate
from tests.searching import ACCURACY, FORMATS, Counting, FakeOracle, Listed, digits, digits_space, found, settings


@cache
def everything() -> SearchResult:
    return found(strategy="exhaustive", frontier=True)


def test_the_best_is_the_best_of_all_schemes() -> None:
    result = everything()
    space, low, high = result.problem.space, *result.problem.ends
    every = list(itertools.product(*(unit.options for unit in space.units)))
    assert len(result.run.evaluations) == len(every) == space.size
    oracle = FakeOracle("search")
    start = oracle.evaluate(space.scheme(space.start)).value
    worth = []
    for choice, merit in zip(every, space.score(every).arithmetic_intensity, strict=True):
        loss = max(100 * (start - oracle.evaluate(space.scheme(choice)).value), 0)
        worth.append(-0.5 * (merit - low) / (high - low) + 0.5 * loss)
    assert result.best is not None
    assert result.best.objective == pytest.approx(min(worth), abs=1e-9)


def test_costs_are_those_of_an_estimate() -> None:
    result = everything()
    for point in (result.baseline, *result.frontier, *result.uniform.values()):
        again = estimate(digits().trace(), result.hardware, point.scheme)
        assert (point.bytes, point.weight_bytes) == (again.bytes, again.weight_bytes)
        assert point.latency_s == again.latency_s
        assert point.arithmetic_intensity == again.arithmetic_intensity


@pytest.mark.parametrize("split", ["search", "report"])
def test_figures_of_each_split_by_hand(split: str) -> None:
    result = everything()
    oracle = FakeOracle(split)
    base = oracle.evaluate(result.baseline.scheme)
    for point in (result.baseline, *(p for p in result.frontier if p.report)):
        figures = point.search if split == "search" else point.report
        assert figures is not None
        own = oracle.evaluate(point.scheme)
        assert own.outcomes is not None and base.outcomes is not None
        assert (figures.split, figures.n, figures.value) == (split, 400, own.value)
        assert figures.interval == wilson_interval(round(400 * own.value), 400)
        assert figures.drop == pytest.approx(100 * (base.value - own.value))
        if point.choice == result.baseline.choice:
            assert figures.drop_interval is None
        else:
            difference = paired_difference(base.outcomes, own.outcomes)
            assert figures.drop_interval == pytest.approx((100 * difference.low, 100 * difference.high))
            assert figures.drop_interval[0] <= figures.drop <= figures.drop_interval[1]


def test_of_a_metric_where_less_is_better_a_rise_is_a_loss() -> None:
    metric = Metric("perplexity", "perplexity", higher_is_better=False)
    random = np.random.default_rng(0)
    before = random.normal(5, 1, 50).astype(np.float32)
    after = (before + random.normal(0.5, 0.1, 50)).astype(np.float32)
    base, own = (Evaluation(float(x.mean()), 0.1, 50, x) for x in (before, after))
    figures = Figures.of("search", metric, base, own)
    assert figures.drop == pytest.approx(own.value - base.value)
    assert figures.drop_interval is not None
    assert figures.drop_interval[0] < figures.drop < figures.drop_interval[1]
    assert figures.interval == pytest.approx((own.value - 1.95996 * 0.1, own.value + 1.95996 * 0.1), abs=1e-5)
    assert set(figures.to_dict(metric)) == {"perplexity", "n", "interval", "paired_drop"}


def test_an_oracle_that_knows_no_examples_has_no_intervals() -> None:
    figures = Figures.of("search", ACCURACY, Evaluation(0.9), Evaluation(0.8))
    assert (figures.interval, figures.drop_interval, figures.drop) == (None, None, pytest.approx(10.0))


def test_the_frontier_is_what_nothing_measured_beats() -> None:
    result = everything()
    run = result.run
    costs = run.problem.costs(list(run.evaluations))
    on = {point.choice for point in result.frontier}
    for (choice, cost), loss in zip(zip(run.evaluations, costs, strict=True), run.losses, strict=True):
        better = (costs <= cost) & (run.losses <= loss) & ((costs < cost) | (run.losses < loss))
        assert not (choice in on and better.any())
        assert choice in on or ((costs <= cost) & (run.losses <= loss)).sum() > 1
    assert [p.bytes for p in result.frontier] == sorted(p.bytes for p in result.frontier)


def test_what_is_off_the_hull_is_best_for_no_lambda() -> None:
    result = everything()
    supported = {p.choice for p in result.frontier if p.supported}
    assert 0 < len(supported) < len(result.frontier)
    for target, lam in itertools.product(("ai", "memory"), np.linspace(0.01, 0.99, 50)):
        run = replace(result.run, problem=replace(result.problem, objective=Objective(target, float(lam))))
        assert run.best is not None
        assert frontier_choices(run)[run.best]


def test_one_flip_optimality_counts_what_was_measured() -> None:
    """Of the best by the objective, of any other by less cost without more loss, so that no frontier point has any."""
    result = everything()
    run = result.run
    assert result.best is not None
    assert (result.best.flips.total, result.best.flips.measured, result.best.flips.better) == (12, 12, 0)
    assert {point.flips.better for point in result.frontier} == {0}
    costs = dict(zip(run.evaluations, run.problem.costs(list(run.evaluations)), strict=True))
    losses = dict(zip(run.evaluations, run.losses, strict=True))
    counts = set()
    for choice in list(run.evaluations)[::5]:
        flips = single_flips(run.problem.space, choice)
        better = sum(costs[c] < costs[choice] and losses[c] <= losses[choice] for c in flips)
        assert count_flips(run, choice) == Flips(12, 12, 0, better)
        counts.add(better)
    assert len(counts) > 2


@pytest.mark.parametrize("limit", [100.0, 0.0])
def test_flips_that_cost_more_are_settled_unmeasured(limit: float) -> None:
    """With a limit of 0 points on the loss the measured schemes break it, and only the float model is left as best."""
    problem = everything().problem
    space = problem.space
    choices = [(1, 1, 1, 1), (1, 2, 1, 1)]
    result = found(strategy=Listed(choices), report_split=None, constraints=Constraints(max_loss=limit))
    assert result.best is not None
    assert result.best.choice == (choices[1] if limit else space.start)
    flips = single_flips(space, choices[0])
    dearer = int((problem.costs(flips) >= problem.costs(choices[:1])).sum())
    told = result.point(choices[0]).flips
    assert 0 < dearer < 11
    assert (told.total, told.measured, told.settled, told.open) == (12, 1, dearer, 11 - dearer)
    assert result.baseline.flips.settled == 0


def test_flips_of_the_best_are_settled_by_the_objective() -> None:
    """At λ = 1 only cost counts; at λ = 0 a scheme without loss cannot be beaten."""
    space = everything().problem.space
    cheapest = min(everything().run.evaluations, key=lambda c: float(everything().problem.costs([c])[0]))
    for choice, lam in ((cheapest, 1.0), (space.start, 0.0)):
        best = found(strategy=Listed([choice]), report_split=None, objective=Objective(lam=lam)).best
        assert best is not None
        assert best.choice == choice
        assert (best.flips.measured, best.flips.settled, best.flips.open) == (0, 12, 0)


def test_the_report_split_is_asked_for_little() -> None:
    oracle = Counting()
    result = found(oracle=oracle)
    assert oracle.calls["report"] == 2
    assert result.reported is not None
    assert list(result.reported.evaluations) == [result.baseline.choice, result.run.best]
    assert result.best is not None
    assert result.best.figures is result.best.report
    with_frontier = Counting()
    wide = found(oracle=with_frontier, strategy="exhaustive", frontier=True)
    on_frontier = [point for point in wide.frontier if point.report]
    assert len(wide.frontier) > REPORTED_POINTS
    assert REPORTED_POINTS <= len(on_frontier) <= REPORTED_POINTS + len(FORMATS) + 1
    assert {wide.frontier[0], wide.frontier[-1]} <= set(on_frontier)
    assert all(point.report for point in wide.uniform.values())
    assert with_frontier.calls["report"] <= REPORTED_POINTS + len(FORMATS) + 1


def test_without_a_report_split_the_figures_are_the_searchs() -> None:
    oracle = Counting()
    result = found(oracle=oracle, report_split=None)
    assert set(oracle.calls) == {"search"}
    assert result.best is not None
    assert result.best.figures is result.best.search
    best = result.to_dict()["best"]
    assert best["split"] == "search"
    assert best["accuracy"] == best["search_accuracy"]


def test_a_data_free_oracle_has_nothing_to_report() -> None:
    result = found(oracle="weight-sqnr")
    assert result.reported is None
    assert result.best is not None
    assert (result.best.figures.n, result.best.figures.interval) == (0, None)


class BrokenReport(Counting):
    def __init__(self, at: int, error: BaseException) -> None:
        super().__init__()
        self.at, self.error = at, error

    def __call__(self, argument: str, context: OracleContext) -> FakeOracle:
        oracle = super().__call__(argument, context)
        if context.split == "report":
            oracle.broken = self._broken
        return oracle

    def _broken(self, call: int) -> None:
        if call == self.at:
            raise self.error


@pytest.mark.parametrize(
    ("error", "failed"), [(OracleError("it broke. Next: mend it."), True), (KeyboardInterrupt(), False)]
)
@pytest.mark.parametrize("at", [1, 2])
def test_a_report_that_breaks_off_leaves_the_searchs_figures(error: BaseException, failed: bool, at: int) -> None:
    result = found(oracle=BrokenReport(at, error))
    assert (result.failed, result.interrupted) == (failed, not failed)
    assert result.stopped is not None
    assert result.best is not None
    assert result.best.figures is result.best.search
    assert (result.baseline.report is None) == (at == 1)
    json.dumps(result.to_dict(), allow_nan=False)


def test_an_interrupted_search_reports_nothing_and_is_resumed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"

    class Interrupted(Counting):
        def __call__(self, argument: str, context: OracleContext) -> FakeOracle:
            oracle = super().__call__(argument, context)
            oracle.broken = self._broken
            return oracle

        def _broken(self, call: int) -> None:
            if call == 6:
                raise KeyboardInterrupt

    oracle = Interrupted()
    cut = found(oracle=oracle, cache=url)
    assert cut.interrupted
    assert oracle.calls == {"search": 6, "report": 0}
    assert len(cut.run.evaluations) == 5
    again, whole = found(cache=url), found()
    assert len(again.run.cached) == 5
    for result in (again, whole):
        assert result.stopped is None
    keys = ("best", "baseline", "frontier", "uniform", "evaluations", "findings", "total_work")
    assert {k: again.to_dict()[k] for k in keys} == {k: whole.to_dict()[k] for k in keys}


def test_another_machine_or_objective_reads_the_cache(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    found(cache=url, strategy="exhaustive")
    for changes in (
        {"hardware": "xeon-emr-2vcpu"},
        {"objective": Objective("latency", 0.9)},
        {"objective": Objective("memory", 0.1), "hardware": "h100"},
        {"constraints": Constraints(max_loss=1.0)},
        {"batch": 64, "traffic": "unfused"},
    ):
        oracle = Counting()
        result = found(cache=url, strategy="exhaustive", report_split=None, oracle=oracle, **changes)
        assert oracle.calls == {"search": 0}
        assert len(result.run.cached) == result.problem.space.size


def test_exact_on_another_machine_measures_no_single_change_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    first = found(cache=url, strategy="exact", groups=None, budget=Budget(40))
    flips = set(single_flips(first.problem.space, first.problem.space.start))
    assert flips < set(first.run.evaluations)
    for hardware in ("xeon-emr-2vcpu", "h100"):
        again = found(hardware, cache=url, strategy="exact", groups=None, budget=Budget(40))
        assert flips < again.run.cached


def test_other_data_is_never_a_hit(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    found(cache=url)
    oracle = Counting()
    assert not found(cache=url, oracle=oracle, samples=100).run.cached
    assert oracle.calls["search"] > 1
    assert oracle.made["search"].n == 100
    assert oracle.made["report"].n == 400


def test_reasons_come_from_the_strategy_or_from_measured_units() -> None:
    space = digits_space()
    predicted = np.zeros((len(space.units), len(space.options)))
    goal = Objective("ai", 0.99)
    told = found(strategy=Listed([(1, 1, 1, 1)], Findings(predicted=predicted, bound=-0.4)), objective=goal)
    assert len(told.why) == len(space.units)
    assert told.best is not None and told.best.objective is not None
    assert told.gap == pytest.approx((told.best.objective + 0.4) / abs(told.best.objective))
    flips = single_flips(space, space.start)
    measured = found(strategy=Listed(flips), objective=goal)
    single = dict(zip(measured.run.evaluations, measured.run.losses, strict=True))
    assert measured.best is not None
    assert [reason.unit for reason in measured.why] == [unit.name for unit in space.units]
    assert [reason.loss for reason in measured.why] == [
        single[tuple(k if u == v else 0 for v in range(4))] for u, k in enumerate(measured.best.choice)
    ]
    assert found(strategy=Listed(flips[1:])).why == ()


def test_the_json_is_complete() -> None:
    result = found(frontier=True)
    data = result.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False))["schema_version"] == 1
    assert set(data) == {
        *("schema_version", "model", "hardware", "rates", "batch", "traffic", "metric", "strategy", "oracle"),
        *(
            "objective",
            "space",
            "evaluations",
            "cache_hits",
            "raced",
            "report_evaluations",
            "seconds",
            "work",
            "total_work",
            "saved_work",
            "baseline",
        ),
        *("best", "miss", "frontier", "uniform", "stopped", "findings", "assumptions", "provenance"),
    }
    assert set(data["objective"]) == {"target", "lambda", "normalise", "constraints", "baseline", "best"}
    point = {
        *("label", "scheme", "scheme_digest", "split", "accuracy", "n", "interval", "paired_drop", "search_accuracy"),
        *("search_n", "search_interval", "search_paired_drop", "arithmetic_intensity", "bytes", "weight_bytes"),
        *("latency_s", "loss", "objective", "supported", "one_flip"),
    }
    assert set(data["baseline"]) == point
    assert set(data["best"]) == {*point, "bound", "gap", "why"}
    assert all(set(row) == point for row in data["frontier"])
    assert Scheme.from_dict(data["best"]["scheme"]).digest() == data["best"]["scheme_digest"]
    assert data["evaluations"] == len(result.run.evaluations)
    assert data["work"] == pytest.approx(0.5 * data["evaluations"])
    assert data["provenance"]["splits"]["report"]["digest"] == "digest of report"
    assert data["provenance"]["splits"]["search"]["n"] == 400
    assert str(result) == repr(result)
    assert "\n" not in repr(result)


def test_a_dry_run_evaluates_nothing_and_counts_what_is_cached(tmp_path: Path) -> None:
    url, machine = f"sqlite:///{tmp_path / 'a.db'}", hardware_specs.load("t4")
    oracle = Counting()
    wanted = settings(oracle=oracle, cache=url, samples=250, strategy="random:count=20")
    plan = dry_run(digits(), machine, wanted, probe_seconds=0.01)
    assert (plan.evaluations, plan.cached, plan.schemes, plan.samples) == (21, 0, 256, 250)
    assert sum(oracle.calls.values()) == 0
    assert plan.seconds is not None and plan.seconds > 0
    cut = settings(cache=url, samples=250, strategy="random:count=20", budget=Budget(6))
    search(digits(), machine, cut)
    again = dry_run(digits(), machine, wanted, probe_seconds=0)
    assert (again.evaluations, again.cached, again.seconds) == (21, 6, None)
    limited = dry_run(digits(), machine, cut, probe_seconds=0)
    assert (limited.evaluations, limited.cached) == (6, 6)
