"""Searches that race: the same answer for less arithmetic, paired figures, resume, caches apart, and the command."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest

import hardware_specs
from aiq import SearchResult, search
from aiq._search import SearchSettings, dry_run
from aiq._search_plot import plot_search
from aiq._search_points import Figures
from aiq._search_views import search_report
from aiq.oracle import OracleContext
from aiq.problem import Constraints, Problem
from aiq.racing import LossLimit
from aiq.stats import paired_difference
from oracles.accuracy import Accuracy
from roofline.errors import InputError
from tests.commands import run
from tests.refusals import refusal
from tests.searching import Counting, Listed, digits, settings

BAD = "@nearest+max+tensor+nobias"
FORMATS = tuple(f"w{bits}{BAD}" for bits in (8, 4, 3, 2))
COMMAND = ("search", "digits_cnn", "--cache", "none", "--formats", ",".join(FORMATS), "--groups", "3")
WITH_LIMIT = ("--max-drop", "1", "--strategy", "exhaustive", "--format", "json")
SEARCHED, REPORTED = 323, 450
FREE_OF_HISTORY = ("cache_hits", "seconds", "work", "total_work", "saved_work")


def raced(progress: Any = None, **changes: Any) -> SearchResult:
    wanted = {"formats": FORMATS, "oracle": "accuracy", "strategy": "exhaustive", "groups": 3, "race": True}
    limit = {"constraints": Constraints(max_loss=1.0)}
    made = settings(**{**wanted, **limit, **changes})
    return search(digits(), hardware_specs.load("t4"), made, progress=progress)


@cache
def both() -> tuple[SearchResult, SearchResult]:
    return raced(race=False), raced()


def test_the_same_answer_for_less_arithmetic() -> None:
    plain, quick = both()
    assert quick.run.best == plain.run.best
    assert list(quick.run.evaluations) == list(plain.run.evaluations)
    assert (len(plain.raced), plain.saved_work) == (0, 0.0)
    assert len(quick.raced) > 20
    saved = plain.run.total_work - quick.run.total_work
    assert saved > 0.2 * plain.run.total_work
    assert quick.saved_work == pytest.approx(saved, rel=0.2)
    assert (quick.to_dict()["raced"], quick.to_dict()["saved_work"]) == (len(quick.raced), quick.saved_work)


def test_only_what_breaks_the_limit_is_cut_short_and_the_rest_is_as_it_was() -> None:
    plain, quick = both()
    base = plain.problem.baseline.outcomes
    assert base is not None
    for choice, found in quick.run.evaluations.items():
        whole = plain.run.evaluations[choice]
        assert found.outcomes is not None and whole.outcomes is not None
        assert found.outcomes.tolist() == whole.outcomes[: found.n].tolist()
        index = quick.run.index[choice]
        if found.n == SEARCHED:
            assert (found.value, found.divergence) == (whole.value, whole.divergence)
            continue
        loss = 100 * (base[: found.n].mean() - found.value)
        assert quick.run.losses[index] == pytest.approx(loss)
        assert quick.run.losses[index] > 1
        assert quick.run.values[index] == np.inf
        assert plain.run.values[plain.run.index[choice]] == np.inf


def test_figures_pair_the_examples_that_both_have_run() -> None:
    _, quick = both()
    base = quick.problem.baseline
    (choice, own) = next((c, e) for c, e in quick.run.evaluations.items() if e.n < SEARCHED)
    point = quick.point(choice)
    assert base.outcomes is not None and own.outcomes is not None
    difference = paired_difference(base.outcomes[: own.n], own.outcomes)
    assert point.search.n == own.n
    assert point.search.drop == pytest.approx(100 * difference.value)
    assert point.search.drop_interval == pytest.approx((100 * difference.low, 100 * difference.high))
    assert (point.objective, point.loss) == (None, pytest.approx(point.search.drop))
    assert Figures.of("search", quick.problem.metric, base, base).drop_interval is None


def test_a_drop_is_of_the_shared_examples_however_the_others_went() -> None:
    """The first examples are harder than the rest: against all of them the scheme would lose 30 points, not 10."""
    quick = both()[1].problem
    baseline = np.array([True, False] * 5 + [True] * 10)
    part = baseline[:10] & (np.arange(10) > 0)
    of = type(quick.baseline)
    problem = Problem(quick.space, quick.objective, quick.constraints, quick.metric, of(0.75, n=20, outcomes=baseline))
    assert problem.drop(of(float(part.mean()), n=10, outcomes=part)) == pytest.approx(10.0)


def test_the_report_split_is_never_raced() -> None:
    seen: dict[str, LossLimit | None] = {}

    def make(argument: str, context: OracleContext) -> Accuracy:
        seen[context.split] = context.race
        return Accuracy(argument, context)

    limits = Constraints(max_loss=1.0, max_relative_loss=0.02)
    worst = (4, 4, 4)
    found = raced(oracle=make, constraints=limits, strategy=Listed([worst]), frontier=True)
    assert seen == {"search": LossLimit(1.0, 0.02), "report": None}
    assert found.point(worst).search.n < SEARCHED
    assert found.reported is not None
    assert {e.n for e in found.reported.evaluations.values()} == {REPORTED}
    assert worst in found.reported.evaluations
    dry_run(digits(), hardware_specs.load("t4"), settings(oracle=make, race=True, constraints=limits), probe_seconds=0)
    assert seen["search"] == LossLimit(1.0, 0.02)


@pytest.mark.parametrize("strategy", ["exact", "greedy"])
def test_strategies_learn_from_parts_too(strategy: str) -> None:
    found = raced(strategy=strategy, groups=None, report_split=None)
    assert found.raced
    assert found.best is not None
    assert found.best.search.n == SEARCHED
    assert found.best.loss <= 1 + 1e-9
    assert found.stopped is None
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_race_goes_on_after_ctrl_c(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"

    def stop(progress: Any) -> None:
        if progress.evaluations == 30:
            raise KeyboardInterrupt

    cut = raced(stop, cache=url)
    assert cut.interrupted
    assert cut.raced
    again, whole = raced(cache=url), both()[1]
    assert len(again.run.cached) == 30
    left, right = again.to_dict(), whole.to_dict()
    assert {k: v for k, v in left.items() if k not in FREE_OF_HISTORY} == {
        k: v for k, v in right.items() if k not in FREE_OF_HISTORY
    }


def test_caches_of_races_are_apart(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    changes: dict[str, Any] = {"cache": url, "strategy": "random:count=5", "report_split": None}
    assert not raced(**changes, race=False).run.cached
    assert not raced(**changes).run.cached
    assert len(raced(**changes).run.cached) == 6
    assert len(raced(**changes, race=False).run.cached) == 6
    assert not raced(**{**changes, "constraints": Constraints(max_loss=2.0)}).run.cached
    assert len(raced(**{**changes, "constraints": Constraints(1.0, max_weight_bytes=1e6)}).run.cached) == 6


def test_marks_lie_as_far_below_the_float_model_as_the_shared_examples_say() -> None:
    _, quick = both()
    marks = {c.get_label(): np.asarray(c.get_offsets()) for c in plot_search(quick).collections}
    drawn = {
        (round(x, 6), round(y, 6)) for label, at in marks.items() if not str(label).startswith("95") for x, y in at
    }
    start = 100 * quick.problem.baseline.value
    intensities = quick.problem.space.score(list(quick.run.evaluations)).arithmetic_intensity
    for x, loss, found in zip(intensities, quick.run.losses, quick.run.evaluations.values(), strict=True):
        if found.n < SEARCHED:
            assert (round(float(x), 6), round(start - loss, 6)) in drawn


def test_the_summary_says_what_was_cut_short_and_saved() -> None:
    plain, quick = both()
    (note,) = (note for note in search_report(quick).notes if note.startswith("racing"))
    share = quick.saved_work / (quick.saved_work + quick.run.total_work)
    assert note == (
        f"racing cut {len(quick.raced)} of them short and saved about {100 * share:.1f} % of the arithmetic: these "
        "lost more than 1.00 points on the examples run; one that loses no more on all of them is cut short with a "
        "probability of at most 0.001"
    )
    assert not any("racing" in note for note in search_report(plain).notes)


def found(*more: str) -> dict[str, Any]:
    code, out, _ = run(*COMMAND, *WITH_LIMIT, *more)
    assert code == 0
    data: dict[str, Any] = json.loads(out)
    return data


def test_the_command_runs_fewer_examples_and_finds_the_same() -> None:
    plain, quick = found(), found("--race")
    assert (plain["raced"], plain["evaluations"]) == (0, quick["evaluations"])
    assert 0 < quick["raced"] < quick["evaluations"]
    assert quick["work"] < 0.8 * plain["work"]
    bad = [data["uniform"][f"w2{BAD}"] for data in (plain, quick)]
    assert bad[0]["search_n"] == SEARCHED > bad[1]["search_n"] == 125
    for key in ("label", "accuracy", "n", "search_n", "search_accuracy", "paired_drop", "loss", "objective"):
        assert quick["best"][key] == plain["best"][key]
    assert quick["best"]["n"] == REPORTED
    relative = found("--race", "--max-drop", "1%")
    assert relative["objective"]["constraints"] == {"max_relative_loss": 0.01}
    assert relative["raced"] > 0
    assert "racing cut " in run(*COMMAND, "--max-drop", "1", "--race", "--strategy", "random:count=3").out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ("--race",),
            "a race stops schemes that lose more accuracy than is allowed, and no limit is set. "
            "Next: give --max-drop, or leave out --race.",
        ),
        (
            ("--race", "--max-drop", "1", "--oracle", "agreement"),
            "the oracle agreement evaluates schemes on all examples and cannot race. "
            "Next: choose --oracle accuracy, or leave out --race.",
        ),
        (
            ("--race", "--max-drop", "1", "--oracle", "weight-sqnr", "--dry-run"),
            "the oracle weight-sqnr evaluates schemes on all examples and cannot race. "
            "Next: choose --oracle accuracy, or leave out --race.",
        ),
    ],
)
def test_what_cannot_race_is_refused(arguments: tuple[str, ...], text: str) -> None:
    assert refusal(*COMMAND, *arguments) == text


def test_an_oracle_of_somebodys_own_must_say_that_it_races() -> None:
    oracle = Counting()
    with pytest.raises(InputError, match="the oracle Counting evaluates schemes on all examples and cannot race"):
        raced(oracle=oracle)
    assert oracle.calls == {"search": 0}
    with pytest.raises(InputError, match="no limit is set"):
        SearchSettings(race=True, constraints=Constraints(max_weight_bytes=1e6))
