"""Searches under limits, and what ends or prevents one: nothing is lost, nothing impossible is paid for."""

from __future__ import annotations

from typing import Any

import pytest

import hardware_specs
from aiq._search import SearchSettings, dry_run
from aiq.knapsack import InfeasibleError
from aiq.oracle import Evaluation, OracleContext, OracleError
from aiq.problem import Constraints
from roofline.errors import AIQError, InputError
from tests.searching import Counting, FakeOracle, Listed, digits, digits_space, found, settings


def test_a_bound_on_the_loss_maximises_the_target() -> None:
    result = found(strategy="exhaustive", constraints=Constraints(max_loss=0.5), report_split=None)
    run, best = result.run, result.best
    assert best is not None
    allowed = run.losses <= 0.5 + 1e-9
    assert best.bytes == run.problem.costs(list(run.evaluations))[allowed].min()
    assert result.to_dict()["objective"]["lambda"] is None
    assert result.to_dict()["objective"]["constraints"] == {"max_loss": 0.5}


def test_limits_that_nothing_measured_meets_name_the_nearest_miss() -> None:
    space = digits_space()
    halfway = (1, 1, 0, 0)
    result = found(
        strategy=Listed([halfway]), constraints=Constraints(max_loss=5.0, max_weight_bytes=50e3, min_intensity=20.0)
    )
    assert result.best is None
    point = result.point(halfway)
    assert point.search.drop <= 5
    assert result.miss() == (
        f"no measured scheme meets the constraints: the nearest, {space.label(halfway)}, has "
        f"{point.weight_bytes / 1e3:.1f} kB of weights (at most 50.0 kB) and "
        f"{point.arithmetic_intensity:.1f} FLOP/byte (at least 20.0 FLOP/byte). "
        "Next: loosen a limit, add formats, or evaluate more."
    )
    data = result.to_dict()
    assert (data["best"], data["miss"]) == (None, result.miss())


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"max_weight_bytes": 1e3}, "at most 1.00 kB of weights: the least is "),
        ({"max_latency_s": 1e-9}, "at most 1.00 ns a pass: the least is "),
        ({"min_intensity": 1e4}, "at least 10000 FLOP/byte: the most is 46.1"),
        ({"max_weight_bytes": 0.0}, "at most 0 B of weights: the least is "),
    ],
)
def test_limits_that_nothing_can_meet_cost_no_evaluation(limits: dict[str, float], text: str) -> None:
    oracle = Counting()
    with pytest.raises(InfeasibleError) as caught:
        found(oracle=oracle, constraints=Constraints(**limits))
    assert str(caught.value).startswith(f"no scheme of the space has {text}")
    assert str(caught.value).endswith(". Next: loosen the limit, or add formats.")
    assert oracle.calls == {}


def test_limits_that_exclude_each_other_are_infeasible_too() -> None:
    machine, formats = "xeon-emr-2vcpu", ("w8a8", "w4")  # the fastest is not the smallest: no kernel for w4
    run = found(machine, strategy="exhaustive", formats=formats, report_split=None).run
    scores = run.problem.space.score(list(run.evaluations))
    limits = {"max_weight_bytes": float(scores.weight_bytes.min()), "max_latency_s": float(scores.latency_s.min())}
    both = (scores.weight_bytes <= limits["max_weight_bytes"]) & (scores.latency_s <= limits["max_latency_s"])
    assert not both.any()
    with pytest.raises(InfeasibleError):
        found(machine, strategy="exact", formats=formats, constraints=Constraints(**limits))


@pytest.mark.parametrize("name", ["max_weight_bytes", "min_intensity", "max_latency_s"])
def test_the_tightest_limit_that_can_be_met_is_not_refused(name: str) -> None:
    run = found(strategy="exhaustive").run
    scores = run.problem.space.score(list(run.evaluations))
    extreme = {
        "max_weight_bytes": scores.weight_bytes.min(),
        "min_intensity": scores.arithmetic_intensity.max(),
        "max_latency_s": scores.latency_s.min(),
    }[name]
    result = found(strategy="exhaustive", constraints=Constraints(**{name: float(extreme)}), report_split=None)
    assert result.best is not None


def test_what_a_strategy_refuses_is_refused() -> None:
    with pytest.raises(InputError, match="greedy starts from the unquantized model"):
        found(strategy="greedy", constraints=Constraints(max_weight_bytes=50e3))
    with pytest.raises(InputError, match="greedy starts from the unquantized model"):
        wanted = settings(strategy="greedy", constraints=Constraints(max_weight_bytes=50e3))
        dry_run(digits(), hardware_specs.load("t4"), wanted, probe_seconds=0)


def test_an_oracle_that_fails_keeps_the_best_so_far() -> None:
    class Failing(Counting):
        def __call__(self, argument: str, context: OracleContext) -> FakeOracle:
            oracle = super().__call__(argument, context)
            oracle.broken = lambda call: Evaluation(float("nan")) if call == 7 else None
            return oracle

    oracle = Failing()
    result = found(oracle=oracle)
    assert result.failed
    assert result.stopped is not None and result.stopped.startswith("the oracle answered value = nan.")
    assert len(result.run.evaluations) == 6
    assert oracle.calls["report"] == 0
    assert result.best is not None


def test_an_oracle_that_raises_anything_is_one_sentence() -> None:
    class Raising(Counting):
        def __call__(self, argument: str, context: OracleContext) -> FakeOracle:
            oracle = super().__call__(argument, context)
            oracle.broken = lambda call: {}[call]  # type: ignore[misc]
            return oracle

    with pytest.raises(OracleError) as caught:
        found(oracle=Raising())
    assert str(caught.value) == "the oracle raised KeyError: 1. Next: mend it."


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"samples": 0}, "samples must be a whole number of at least 1, got 0. Next: choose one."),
        ({"timeout_s": -1.0}, "the timeout must be a number of seconds above 0, got -1.0. Next: choose one."),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        SearchSettings(**changes)
    assert str(caught.value) == text


def test_a_report_split_that_is_missing_is_refused_before_the_search() -> None:
    with pytest.raises(AIQError, match="reprt"):
        found(oracle="accuracy", report_split="reprt")
