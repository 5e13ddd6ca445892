"""The driver: what counts as an evaluation, what ends a search, and that nothing measured is ever lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiq._driver import INTERRUPTED, Budget, Progress, Run, drive, uniform_choices
from aiq._guard import guarded
from aiq.cache import CachedOracle, CacheWriteError, EvaluationStore, canonical_scheme, open_store
from aiq.objective import Objective
from aiq.oracle import Evaluation, OracleError
from aiq.problem import Constraints
from aiq.registry import load_strategy
from aiq.space import Choice, make_space
from aiq.strategy import Findings
from roofline.errors import AIQError, InputError
from tests.searching import FakeOracle, Listed, digits, digits_space

SPACE = digits_space()
START = SPACE.start
ALL = list(itertools.islice(itertools.product(*(unit.options for unit in SPACE.units)), 12))
STRATEGIES = ("greedy", "coordinate", "random:count=30,seed=1")


def cached(store: EvaluationStore, oracle: Any) -> CachedOracle:
    return CachedOracle(oracle, store, partial(canonical_scheme, digits().trace()))


def raising(at: int, error: BaseException) -> Callable[[int], None]:
    def broken(call: int) -> None:
        if call == at:
            raise error

    return broken


def same(one: Run, other: Run) -> bool:
    """Whether two runs asked for the same choices in the same order and came to the same answer."""
    values = [[e.value for e in run.evaluations.values()] for run in (one, other)]
    return list(one.evaluations) == list(other.evaluations) and values[0] == values[1] and one.best == other.best


def test_each_choice_is_measured_once_and_the_baseline_first() -> None:
    oracle = FakeOracle()
    strategy = Listed([ALL[3], START, ALL[3], ALL[5], ALL[3]])
    run = drive(strategy, SPACE, oracle)
    assert list(run.evaluations) == [START, ALL[3], ALL[5]]
    assert oracle.calls == 3
    assert run.problem.baseline is run.evaluations[START]
    assert (run.stopped, run.error, run.cached) == (None, None, frozenset())
    assert run.findings is strategy.findings


def test_the_strategy_is_sent_what_was_measured_and_its_findings_are_kept() -> None:
    sent: list[Evaluation] = []
    found = Findings(note="enough")

    class Asking:
        name = "asking"

        def steps(self, problem: Any) -> Any:
            sent.append((yield ALL[1]))
            sent.append((yield list(np.array(ALL[2]))))
            return found

        def most_evaluations(self, problem: Any) -> int:
            return 3

    run = drive(Asking(), SPACE, FakeOracle())
    assert sent == [run.evaluations[ALL[1]], run.evaluations[ALL[2]]]
    assert run.findings is found


def test_a_strategy_without_findings_has_finished() -> None:
    class Silent(Listed):
        def steps(self, problem: Any) -> Any:
            yield ALL[1]

    findings = drive(Silent([]), SPACE, FakeOracle()).findings
    assert findings is not None
    assert findings.finished


def test_choices_of_equal_formats_are_one() -> None:
    space = make_space(SPACE.table)
    shortcut = next(u for u, unit in enumerate(space.units) if "shortcut" in unit.name)
    assert [space.options[k].label for k in space.units[shortcut].options] == ["keep", "w4a8"]
    for_kept_weights = {"w8": "keep", "w4": "keep", "w4a8": "w4a8"}
    labels = [option.label for option in space.options]
    for given, meant in for_kept_weights.items():
        asked, choice = (
            tuple(labels.index(label) if u == shortcut else 0 for u in range(len(space.units)))
            for label in (given, meant)
        )
        run = drive(Listed([asked]), space, FakeOracle())
        assert list(run.evaluations) == list(dict.fromkeys([space.start, choice]))


def test_uniform_choices_give_every_unit_one_format() -> None:
    found = uniform_choices(SPACE)
    assert list(found) == [option.label for option in SPACE.options]
    for k, choice in enumerate(found.values()):
        assert SPACE.scheme(choice) == SPACE.table.scheme([k] * len(SPACE.table.layers))


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("budget", [1, 2, 7, 12])
def test_a_budget_cuts_the_same_search_short(name: str, budget: int) -> None:
    whole = drive(load_strategy(name), SPACE, FakeOracle())
    cut = drive(load_strategy(name), SPACE, FakeOracle(), budget=Budget(budget))
    assert list(cut.evaluations) == list(whole.evaluations)[:budget]
    assert cut.findings is None
    assert cut.stopped == f"the budget of {budget} evaluation{'s' if budget > 1 else ''} is spent"
    assert cut.error is None


def test_a_budget_that_suffices_cuts_nothing() -> None:
    whole = drive(Listed(ALL), SPACE, FakeOracle())
    exact = drive(Listed(ALL), SPACE, FakeOracle(), budget=Budget(len(whole.evaluations)))
    assert exact.stopped is None
    assert same(whole, exact)


def test_a_budget_of_seconds_is_looked_at_before_each_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = FakeOracle()
    monkeypatch.setattr("aiq._driver.time.perf_counter", lambda: 10.0 * oracle.calls)
    run = drive(Listed(ALL), SPACE, oracle, budget=Budget(seconds=35))
    assert oracle.calls == 4
    assert run.stopped == "the budget of 35 s is spent"
    assert run.seconds == 40


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0,), "the budget must be at least 1 evaluation, got 0. Next: raise it."),
        ((-3,), "the budget must be at least 1 evaluation, got -3. Next: raise it."),
        ((None, 0.0), "the budget must be a number of seconds above 0, got 0.0. Next: choose one."),
        ((None, float("nan")), "the budget must be a number of seconds above 0, got nan. Next: choose one."),
        ((None, float("inf")), "the budget must be a number of seconds above 0, got inf. Next: choose one."),
    ],
)
def test_a_budget_is_checked(arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(InputError) as caught:
        Budget(*arguments)
    assert str(caught.value) == text


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_replay_answers_from_the_cache_and_ends_the_same(name: str, tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path / 'a.db'}") as store:
        first = drive(load_strategy(name), SPACE, cached(store, FakeOracle()))
        oracle = FakeOracle()
        again = drive(load_strategy(name), SPACE, cached(store, oracle))
    assert oracle.calls == 0
    assert again.cached == set(first.evaluations)
    assert first.cached == frozenset()
    assert same(first, again)
    assert (again.work, again.total_work) == (0.0, first.work)
    assert first.work == pytest.approx(0.5 * len(first.evaluations))


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("at", [2, 3, 9])
@pytest.mark.parametrize("budget", [None, 11])
def test_an_interrupted_search_goes_on_to_the_same_end(name: str, at: int, budget: int | None, tmp_path: Path) -> None:
    limit = Budget(budget)
    whole = drive(load_strategy(name), SPACE, FakeOracle(), budget=limit)
    with open_store(f"sqlite:///{tmp_path / 'a.db'}") as store:
        broken = cached(store, guarded(FakeOracle(broken=raising(at, KeyboardInterrupt()))))
        cut = drive(load_strategy(name), SPACE, broken, budget=limit)
        assert cut.interrupted
        assert cut.stopped == INTERRUPTED
        assert (cut.error, cut.findings) == (None, None)
        assert list(cut.evaluations) == list(whole.evaluations)[: at - 1]
        again = drive(load_strategy(name), SPACE, cached(store, FakeOracle()), budget=limit)
    assert len(again.cached) == at - 1
    assert same(whole, again)


def test_ctrl_c_between_evaluations_is_as_good() -> None:
    class Thinking(Listed):
        def steps(self, problem: Any) -> Any:
            yield ALL[1]
            raise KeyboardInterrupt

    run = drive(Thinking([]), SPACE, FakeOracle())
    assert run.interrupted
    assert list(run.evaluations) == [START, ALL[1]]


def test_ctrl_c_before_the_baseline_is_measured_passes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        drive(Listed(ALL), SPACE, FakeOracle(broken=raising(1, KeyboardInterrupt())))


def test_an_oracle_that_fails_ends_the_search_and_keeps_what_was_measured() -> None:
    run = drive(Listed(ALL), SPACE, FakeOracle(broken=raising(4, OracleError("it broke. Next: mend it."))))
    assert run.stopped == "it broke. Next: mend it."
    assert isinstance(run.error, OracleError)
    assert list(run.evaluations) == ALL[:3]
    assert run.best in ALL[:3]


def test_a_baseline_that_cannot_be_measured_is_an_error() -> None:
    with pytest.raises(OracleError, match="it broke"):
        drive(Listed(ALL), SPACE, FakeOracle(broken=raising(1, OracleError("it broke. Next: mend it."))))


@pytest.mark.parametrize("at", [1, 3])
def test_a_cache_that_cannot_be_written_loses_nothing(at: int) -> None:
    measured = FakeOracle().evaluate(SPACE.scheme(ALL[at - 1]))
    error = CacheWriteError("the disk is full. Next: free some space.", measured)
    run = drive(Listed(ALL), SPACE, FakeOracle(broken=raising(at, error)))
    assert run.stopped == "the disk is full. Next: free some space."
    assert run.error is error
    assert list(run.evaluations) == ALL[:at]
    assert run.evaluations[ALL[at - 1]] is measured


@pytest.mark.parametrize(
    ("asked", "shown"),
    [((0, 0), "(0, 0)"), ((0, 0, 0, 4), "(0, 0, 0, 4)"), ((0, 0, 0, -1), "(0, 0, 0, -1)"), (None, "None")],
)
def test_what_is_no_choice_is_refused(asked: Any, shown: str) -> None:
    run = drive(Listed([ALL[1], asked]), SPACE, FakeOracle())
    assert run.stopped == (
        f"strategy 'listed' asked for {shown}: a choice holds one option from 0 to 3 for each of 4 units. "
        "Next: mend the strategy."
    )
    assert list(run.evaluations) == [START, ALL[1]]


class Failing(Listed):
    def __init__(self, where: str, error: Exception) -> None:
        super().__init__(ALL)
        self.where, self.error = where, error

    def steps(self, problem: Any) -> Any:
        if self.where == "at once":
            raise self.error
        return self._steps()

    def _steps(self) -> Any:
        yield ALL[1]
        raise self.error

    def most_evaluations(self, problem: Any) -> int:
        if self.where == "counting":
            raise self.error
        return 2


@pytest.mark.parametrize("where", ["at once", "later", "counting"])
def test_a_strategy_that_raises_is_one_sentence(where: str) -> None:
    strategy = Failing(where, ValueError("no\nway."))
    run = drive(strategy, SPACE, FakeOracle(), progress=lambda progress: None)
    assert run.stopped == "strategy 'listed' raised ValueError: no. Next: mend it, then run again."
    assert START in run.evaluations
    refused = drive(Failing(where, InputError("not this one. Next: another.")), SPACE, FakeOracle(), progress=print)
    assert refused.stopped == "not this one. Next: another."
    assert isinstance(refused.error, AIQError)


def values_by_hand(run: Run) -> dict[Choice, float]:
    """Recompute L from the definition."""
    problem = run.problem
    low, high = problem.ends
    scores = SPACE.score(list(run.evaluations))
    return {
        choice: -0.5 * (float(merit) - low) / (high - low)
        + 0.5 * max(100 * (problem.baseline.value - found.value), 0.0)
        for (choice, found), merit in zip(run.evaluations.items(), scores.arithmetic_intensity, strict=True)
    }


def test_the_best_minimises_the_objective_over_everything_measured() -> None:
    run = drive(load_strategy("random:count=60"), SPACE, FakeOracle(), objective=Objective("ai", 0.5))
    by_hand = values_by_hand(run)
    assert run.values == pytest.approx(list(by_hand.values()), abs=1e-12)
    assert run.best is not None
    assert by_hand[run.best] == min(by_hand.values())


@pytest.mark.parametrize(("nats", "best"), [((4, 3, 1, 2), ALL[2]), ((4, 3, 2, 2), ALL[2]), ((None,) * 4, ALL[0])])
def test_equal_values_are_told_apart_by_divergence_then_by_order(nats: tuple[float | None, ...], best: Choice) -> None:
    oracle = FakeOracle(broken=lambda call: Evaluation(0.9, divergence=nats[call - 1]))
    run = drive(Listed(ALL[1:4]), SPACE, oracle, objective=Objective("ai", 0.0))
    assert run.best == best


def test_without_a_scheme_within_the_limits_there_is_no_best() -> None:
    run = drive(Listed([]), SPACE, FakeOracle(), constraints=Constraints(max_weight_bytes=50e3))
    assert run.best is None


def test_progress_after_every_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Progress] = []
    oracle = FakeOracle()
    monkeypatch.setattr("aiq._driver.time.perf_counter", lambda: 2.0 * oracle.calls)
    run = drive(Listed(ALL[1:6]), SPACE, oracle, objective=Objective("ai", 0.5), progress=seen.append)
    assert [p.evaluations for p in seen] == [1, 2, 3, 4, 5, 6]
    assert {p.limit for p in seen} == {6}
    assert [p.seconds for p in seen] == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    assert [p.seconds_left for p in seen] == [10.0, 8.0, 6.0, 4.0, 2.0, 0.0]
    assert run.best is not None
    assert seen[-1].best == SPACE.label(run.best)
    assert seen[-1].best_loss == run.losses[run.index[run.best]]
    oracle.calls = 0
    drive(Listed(ALL[1:6]), SPACE, oracle, budget=Budget(4, 7.0), progress=seen.append)
    assert [(p.limit, p.seconds_left) for p in seen[6:]] == [(4, 5.0), (4, 3.0), (4, 1.0), (4, 0.0)]


def test_progress_tells_cache_hits_apart(tmp_path: Path) -> None:
    seen: list[Progress] = []
    with open_store(f"sqlite:///{tmp_path / 'a.db'}") as store:
        drive(Listed(ALL[1:4]), SPACE, cached(store, FakeOracle()))
        drive(Listed(ALL[1:6]), SPACE, cached(store, FakeOracle()), progress=seen.append)
    assert [p.cache_hits for p in seen] == [1, 2, 3, 4, 4, 4]
    assert [p.seconds_left is None for p in seen] == [True] * 4 + [False] * 2
