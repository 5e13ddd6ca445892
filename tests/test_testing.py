"""The shipped contract tests: built-in strategies pass, and each rule catches a plug-in that breaks it."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from aiq import strategies
from aiq.objective import Objective
from aiq.oracle import Evaluation, Metric, OracleContext
from aiq.problem import Constraints, Problem
from aiq.registry import load_strategy
from aiq.strategies import Greedy, Random
from aiq.strategy import Findings, Steps
from aiq.testing import ContractError, check_oracle, check_strategy, example_context, made_up_landscape
from roofline import LayerPrecision, Scheme
from roofline.errors import AIQError, InputError
from roofline.estimate import resolve

BUILT_IN = (
    *("exact", "exact:max_evaluations=25,frontier=false", "greedy", "coordinate", "exhaustive"),
    *("random:count=9,seed=4", "nsga2:evaluations=9,population=4"),
)


def test_no_built_in_strategy_is_left_out() -> None:
    assert {load_strategy(text).name for text in BUILT_IN} == {getattr(strategies, n).name for n in strategies.__all__}


@pytest.mark.parametrize("text", BUILT_IN)
def test_built_in_strategies_keep_their_contract(text: str) -> None:
    if text.startswith("nsga2"):
        pytest.importorskip("pymoo")
    check_strategy(partial(load_strategy, text))


class Walk:
    """A strategy that keeps its contract: it asks for each option of each unit, the other units at the baseline."""

    name = "walk"

    def choices(self, problem: Problem) -> Iterator[Any]:
        start = problem.space.start
        for u, unit in enumerate(problem.space.units):
            for k in unit.options:
                yield (*start[:u], k, *start[u + 1 :])

    def steps(self, problem: Problem) -> Steps:
        for choice in self.choices(problem):
            _ = yield choice
        return Findings()

    def most_evaluations(self, problem: Problem) -> int:
        return 1 + sum(len(unit.options) - 1 for unit in problem.space.units)


class Nameless(Walk):
    name = ""


class AsksLists(Walk):
    def choices(self, problem: Problem) -> Iterator[Any]:
        return map(list, super().choices(problem))


class AsksShort(Walk):
    def choices(self, problem: Problem) -> Iterator[Any]:
        return (choice[1:] for choice in super().choices(problem))


class AsksUnknownOption(Walk):
    def choices(self, problem: Problem) -> Iterator[Any]:
        yield from super().choices(problem)
        yield (7,) * len(problem.space.units)


class AsksTooMuch(Walk):
    def most_evaluations(self, problem: Problem) -> int:
        return super().most_evaluations(problem) - 1


class NeverEnds(Walk):
    def choices(self, problem: Problem) -> Iterator[Any]:
        while True:
            yield from super().choices(problem)


class ReturnsNothing(Walk):
    def steps(self, problem: Problem) -> Steps:
        yield from super().steps(problem)
        return None  # type: ignore[return-value]


class PredictsAnotherShape(Walk):
    def steps(self, problem: Problem) -> Steps:
        yield from super().steps(problem)
        return Findings(predicted=np.zeros((1, 1)))


class DrawsGlobally(Walk):
    def choices(self, problem: Problem) -> Iterator[Any]:
        every = list(super().choices(problem))
        random.shuffle(every)
        yield from every


class DrawsGloballyFromNumpy(Walk):
    def choices(self, problem: Problem) -> Iterator[Any]:
        yield from map(tuple, np.random.permutation(list(super().choices(problem))).tolist())


class Remembers(Walk):
    def __init__(self) -> None:
        self.runs = 0

    def choices(self, problem: Problem) -> Iterator[Any]:
        self.runs += 1
        every = list(super().choices(problem))
        yield from every if self.runs == 1 else reversed(every)


class LooksAtTheClock(Walk):
    def steps(self, problem: Problem) -> Steps:
        for choice in self.choices(problem):
            if (yield choice).seconds > 0.5:
                return Findings()
        return Findings()


class LooksAtTheWork(Walk):
    def steps(self, problem: Problem) -> Steps:
        for choice in self.choices(problem):
            if (yield choice).work < 0.9:
                return Findings()
        return Findings()


class WillNotClose(Walk):
    def steps(self, problem: Problem) -> Steps:
        try:
            return (yield from super().steps(problem))
        except GeneratorExit:
            yield problem.space.start
            raise


class FailsOnClosing(Walk):
    def steps(self, problem: Problem) -> Steps:
        try:
            return (yield from super().steps(problem))
        except GeneratorExit:
            raise ValueError("not now") from None


class Refuses(Walk):
    def steps(self, problem: Problem) -> Steps:
        raise InputError("not today. Next: try tomorrow.")


class RefusesLimits(Walk):
    def steps(self, problem: Problem) -> Steps:
        if problem.constraints != Constraints():
            raise InputError("no limits, please. Next: take them away.")
        return super().steps(problem)


@pytest.mark.parametrize("make", [Walk, RefusesLimits])
def test_a_good_strategy_passes(make: Callable[[], Walk]) -> None:
    check_strategy(make)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (Nameless, "a strategy's name must be a text that is not empty, got ''"),
        (AsksLists, "a choice must be a tuple of integers, got [0, 0, 0]"),
        (AsksShort, "a choice needs 3 options, one for each unit, got (0, 0)"),
        (AsksUnknownOption, "(7, 7, 7) gives unit "),
        (AsksTooMuch, "it asked for 7 distinct schemes, more than the 6 of its most_evaluations"),
        (NeverEnds, "it asked 10000 times in a row for known schemes: it does not end"),
        (ReturnsNothing, "steps must return Findings, got NoneType"),
        (PredictsAnotherShape, "predicted must have shape (3, 3), got (1, 1)"),
        (DrawsGlobally, "a new one given the same evaluations must ask for the same schemes: at step "),
        (DrawsGloballyFromNumpy, "a new one given the same evaluations must ask for the same schemes: at step "),
        (Remembers, "the same object run a second time must ask for the same schemes: at step 0 it asked for "),
        (
            LooksAtTheClock,
            "a replay after 0 evaluations must ask for the same schemes: at step 1 it asked for nothing in place of "
            "(1, 0, 0)",
        ),
        (LooksAtTheWork, "a replay after 0 evaluations must ask for the same schemes: at step 1 it asked for nothing"),
        (WillNotClose, "closed after 0 evaluations it raised RuntimeError: generator ignored GeneratorExit"),
        (FailsOnClosing, "closed after 0 evaluations it raised ValueError: not now; it may be closed at any yield"),
        (Refuses, "walk refuses a problem without limits: not today."),
    ],
)
def test_a_strategy_that_breaks_a_rule_is_caught(make: Callable[[], Walk], text: str) -> None:
    with pytest.raises(ContractError) as caught:
        check_strategy(make)
    assert str(caught.value).startswith(text)


def test_a_strategy_that_refuses_every_given_problem_is_caught() -> None:
    limited = made_up_landscape(constraints=Constraints(max_weight_bytes=50_000.0))
    with pytest.raises(ContractError, match="greedy refuses every problem"):
        check_strategy(Greedy, landscapes=[limited])


def test_checking_leaves_the_global_generators_alone() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist()
    check_strategy(lambda: Random(2), landscapes=[made_up_landscape()])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_the_made_up_landscape() -> None:
    """The baseline does not diverge, 4 bits cost more than 8, units interact, and the seed decides."""
    made, again, other = made_up_landscape(), made_up_landscape(), made_up_landscape(seed=1)
    start = made.measure((0, 0, 0))
    assert (start.value, start.divergence, start.n) == (made.problem.baseline.value, 0.0, 1000)
    assert np.array_equal(start.outcomes, made.problem.baseline.outcomes)
    for choice in ((2, 0, 0), (2, 2, 1)):
        found = made.measure(choice)
        assert found.value == found.outcomes.mean()
        assert np.array_equal(found.outcomes, again.measure(choice).outcomes)
        assert not np.array_equal(found.outcomes, other.measure(choice).outcomes)
    assert made.measure((2, 2, 2)).divergence > made.measure((1, 1, 1)).divergence > 0
    alone = made.measure((2, 0, 0)).divergence + made.measure((0, 2, 0)).divergence
    assert made.measure((2, 2, 0)).divergence > alone
    assert made_up_landscape(Objective("memory"), groups=5).problem.space.start == (0,) * 5


@dataclass
class Weights:
    """An oracle that keeps its contract: how far the weights' mean moves, with two outcomes."""

    context: OracleContext
    evaluated: int = 0

    metric = Metric("shift", "points", higher_is_better=False)

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return {"oracle": "weights"}

    def formats(self, scheme: Scheme) -> dict[str, LayerPrecision]:
        return resolve(self.context.graph, scheme)

    def evaluate(self, scheme: Scheme) -> Evaluation:
        self.evaluated += 1
        bits = [found.weights.bits for found in self.formats(scheme).values() if found.weights is not None]
        value = np.float32(sum(1.0 / b for b in bits))
        outcomes = np.array([value, value], dtype=np.float32)
        return Evaluation(float(value), 0.0, 2, outcomes, divergence=float(value), seconds=time.perf_counter())


def varied(**changes: Any) -> type[Weights]:
    """Return the oracle with fields of its evaluations replaced, each by a value or a function of the evaluation."""

    class Varied(Weights):
        def evaluate(self, scheme: Scheme) -> Evaluation:
            found = super().evaluate(scheme)
            made = {key: change(self, found) if callable(change) else change for key, change in changes.items()}
            return replace(found, **made)

    return Varied


class NoMetric(Weights):
    metric = "shift"  # type: ignore[assignment]


class UnnamedMetric(Weights):
    metric = Metric("", "points")


class NoScale(Weights):
    metric = Metric("shift", "points", scale=0.0)


class NoFingerprint(Weights):
    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return {}


class NumbersInFingerprint(Weights):
    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return {"seed": 1}


class UnstableFingerprint(Weights):
    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return {"now": str(time.perf_counter_ns())}


class CountsInFingerprint(Weights):
    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return {"evaluated": str(self.evaluated)}


class AddressInFingerprint(Weights):
    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return {"at": str(id(self))}


class ReturnsFloat(Weights):
    def evaluate(self, scheme: Scheme) -> Evaluation:
        return super().evaluate(scheme).value  # type: ignore[return-value]


class IgnoresUnknownLayers(Weights):
    def formats(self, scheme: Scheme) -> dict[str, LayerPrecision]:
        return {layer: scheme.explicit(layer) or scheme.default for layer in self.context.graph.layers}


class RaisesKeyError(Weights):
    def formats(self, scheme: Scheme) -> dict[str, LayerPrecision]:
        try:
            return super().formats(scheme)
        except AIQError:
            raise KeyError("no_such_layer") from None


class ChangesWeights(Weights):
    def evaluate(self, scheme: Scheme) -> Evaluation:
        with torch.no_grad():
            next(self.context.model.module.parameters()).add_(0.25)
        return super().evaluate(scheme)


class LeavesTrainingMode(Weights):
    def evaluate(self, scheme: Scheme) -> Evaluation:
        self.context.model.module.train()
        return super().evaluate(scheme)


built = iter(range(1000))


class DependsOnItsBirth(Weights):
    def __init__(self, context: OracleContext) -> None:
        super().__init__(context)
        self.born = next(built)

    def evaluate(self, scheme: Scheme) -> Evaluation:
        return replace(super().evaluate(scheme), stderr=float(self.born))


def check(kind: type[Weights]) -> None:
    check_oracle(lambda argument, context: kind(context), context=example_context())


@pytest.mark.parametrize("kind", [Weights, varied(divergence=None), varied(outcomes=None, stderr=None, n=0)])
def test_a_good_oracle_passes(kind: type[Weights]) -> None:
    check(kind)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (NoMetric, "metric must be a Metric, got str"),
        (UnnamedMetric, "the metric needs a name"),
        (NoScale, "the metric's scale must be a number above 0, got 0.0"),
        (NoFingerprint, "fingerprint must be a mapping that is not empty, got {}"),
        (NumbersInFingerprint, "fingerprint must map text to text, got 'seed': 1"),
        (UnstableFingerprint, "fingerprint must be stable"),
        (CountsInFingerprint, "evaluating must not change the fingerprint"),
        (AddressInFingerprint, "two oracles built alike must have equal fingerprints"),
        (ReturnsFloat, "evaluate must return an Evaluation, got float"),
        (varied(value=float("nan")), "keep: the value must be finite, got nan"),
        (varied(n=-1), "keep: n must be at least 0, got -1"),
        (varied(stderr=-0.5), "keep: stderr must be None or a number of at least 0, got -0.5"),
        (varied(divergence=-0.5), "keep: divergence must be None or a number of at least 0, got -0.5"),
        (varied(divergence=0.5), "the float model must have divergence 0 from itself or None, got 0.5"),
        (varied(n=3), "keep: outcomes must be bool or float32 of shape [3], got float32 [2]"),
        (varied(outcomes=np.zeros(2)), "keep: outcomes must be bool or float32 of shape [2], got float64 [2]"),
        (
            varied(outcomes=np.array([True, False])),
            "keep: the mean of the outcomes must be the value, got 0.5 and 0.0",
        ),
        (
            varied(value=lambda oracle, found: found.value + 0.01),
            "keep: the mean of the outcomes must be the value, got 0.0 and 0.01",
        ),
        (varied(stderr=lambda oracle, found: float(oracle.evaluated)), "w4,conv1=keep evaluated again must give"),
        (DependsOnItsBirth, "another oracle built alike must answer keep equally"),
        (
            IgnoresUnknownLayers,
            "a scheme that names an unknown layer must raise an AIQError, got Evaluation(",
        ),
        (
            RaisesKeyError,
            "a scheme that names an unknown layer must raise an AIQError, got KeyError: 'no_such_layer' for",
        ),
        (ChangesWeights, "evaluating must leave the model's weights, structure and mode as they are"),
        (LeavesTrainingMode, "evaluating must leave the model's weights, structure and mode as they are"),
    ],
)
def test_an_oracle_that_breaks_a_rule_is_caught(kind: type[Weights], text: str) -> None:
    with pytest.raises(ContractError) as caught:
        check(kind)
    assert str(caught.value).startswith(text)


def test_outcomes_that_change_are_caught() -> None:
    """The value stays the mean, and the examples change places."""

    def moving(oracle: Weights, found: Evaluation) -> np.ndarray[Any, Any]:
        spread = 0.5 if oracle.evaluated % 2 else -0.5
        return (found.outcomes + np.array([spread, -spread])).astype(np.float32)

    with pytest.raises(ContractError, match="evaluated again must give an equal evaluation"):
        check(varied(outcomes=moving))


def test_own_schemes_and_argument_reach_the_oracle() -> None:
    seen: list[tuple[str, str]] = []

    def make(argument: str, context: OracleContext) -> Weights:
        class Seen(Weights):
            def evaluate(self, scheme: Scheme) -> Evaluation:
                seen.append((argument, str(scheme)))
                return super().evaluate(scheme)

        return Seen(context)

    check_oracle(make, "file.json", schemes=[Scheme.parse("w3")])
    assert set(seen) == {("file.json", text) for text in ("keep", "w3", "keep,no_such_layer=w8")}


def test_importing_the_contract_tests_loads_no_test_framework() -> None:
    code = "import sys, aiq.testing; print(*[m for m in ('pytest', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
