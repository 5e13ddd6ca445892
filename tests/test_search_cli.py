"""``aiq search``: formats, streams, exit codes, files that it writes, and every mistake in one sentence."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiq import _ticker
from aiq._search_views import search_report
from aiq.objective import Objective
from aiq.oracle import OracleContext, OracleError
from aiq.report import render
from roofline import Scheme
from tests.commands import FORMATS, Ran, run, subprocess_run
from tests.refusals import refusal
from tests.searching import FakeOracle
from tests.searching import found as searched
from tests.test_cli_process import _LOADED

SEARCH = ("search", "digits_cnn", "--cache", "none")
FAKE = ("--formats", "w8,w4,w4a8", "--groups", "4", "--strategy", "coordinate", "--lambda", "0.5", "--oracle", "fake")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[int], Any]]:
    """Answer the oracle ``fake``; by split, what is called before each evaluation of it."""
    ways: dict[str, Callable[[int], Any]] = {}

    def load(text: str, context: OracleContext) -> FakeOracle:
        assert text == "fake"
        return FakeOracle(context.split, context.limit or 400, ways.get(context.split))

    monkeypatch.setattr("aiq._search.load_oracle", load)
    return ways


def found(*more: str) -> dict[str, Any]:
    code, out, err = run(*SEARCH, *FAKE, "--format", "json", *more)
    assert (code, err) == (0, "")
    data: dict[str, Any] = json.loads(out)
    return data


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("more", [(), ("--frontier",), ("--dry-run", "--probe", "0")])
def test_every_format(fmt: str, more: tuple[str, ...]) -> None:
    code, out, err = run(*SEARCH, *FAKE, "--format", fmt, *more)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    if fmt in ("table", "md"):
        assert out.startswith("digits_cnn")
    if fmt == "csv":
        assert len(list(csv.DictReader(io.StringIO(out)))) >= 4
    if fmt == "json":
        assert json.loads(out)["schema_version"] == 1


@pytest.mark.usefixtures("broken")
def test_the_headline_says_what_was_found_at_which_loss_for_which_gain() -> None:
    data, table = found(), run(*SEARCH, *FAKE).out
    best, base = data["best"], data["baseline"]
    headline = table.splitlines()[0]
    drop = best["paired_drop"]
    for part in (
        f"digits_cnn on NVIDIA T4 16 GB, fused traffic: {best['label']} ",
        f"{'loses' if drop['value'] >= 0 else 'gains'} {abs(drop['value']):.3g}",
        "points of accuracy (95 % interval of the loss ",
        "report split, n = 400",
        f"{best['arithmetic_intensity'] / base['arithmetic_intensity']:.3g}x the arithmetic intensity",
    ):
        assert part in headline, headline
    for line in (
        "- measured by the oracle fake on 400 examples of search and 400 of report",
        "- minimised: L = -0.5 * ",
    ):
        assert line in table
    assert f"- {data['evaluations']} evaluations of at most 256 schemes, 0 from the cache" in table


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(
    ("target", "words"), [("latency", "x the speed, "), ("memory", "x smaller weights, "), ("ai", "FLOP/byte")]
)
def test_the_gain_is_in_the_words_of_the_target(target: str, words: str) -> None:
    code, out, _ = run(*SEARCH, *FAKE, "--target", target, "--hardware", "xeon-emr-2vcpu", "--lambda", "0.99")
    assert code == 0
    assert words in out.splitlines()[0]


@pytest.mark.usefixtures("broken")
def test_the_layers_of_the_best_and_their_formats() -> None:
    data = found()
    rows = list(csv.DictReader(io.StringIO(run(*SEARCH, *FAKE, "--format", "csv").out)))
    assert len(rows) == 4
    assert sum(float(row["weight_bytes"]) for row in rows) == data["best"]["weight_bytes"]
    formats = {rule["layers"]: rule["precision"] for rule in data["best"]["scheme"]["rules"]}
    for row in rows:
        assert len({formats[layer] for layer in row["unit"].split("+")}) == len(row["option"].split())


@pytest.mark.usefixtures("broken")
def test_the_frontier_has_the_float_model_the_best_and_both_kinds_of_points() -> None:
    options = (*SEARCH, *FAKE, "--strategy", "exhaustive", "--frontier", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(run(*options).out)))
    kinds = [row["kind"] for row in rows]
    assert kinds.count("float model") == 1
    assert sum(kind.endswith("best") for kind in kinds) == 1
    assert {"hull", "budget", "uniform"} <= {kind.removesuffix(", best") for kind in kinds}
    moved = [float(row["bytes"]) for row in rows]
    assert moved == sorted(moved)


@pytest.mark.parametrize("frontier", [True, False])
def test_a_table_fits_a_terminal_of_80_columns_and_keeps_the_target(frontier: bool) -> None:
    result = searched(frontier=frontier, strategy="greedy", objective=Objective("memory", 0.9), groups=None)
    text = render(search_report(result, frontier=frontier), "table", terminal_width=80)
    assert max(map(len, text.splitlines())) <= 80
    points = result.frontier if frontier else ()
    for point in points:
        assert any(f"{point.weight_bytes / 1e3:.3g} kB" in line for line in text.splitlines())
    assert "left out for width: " in text or not frontier


@pytest.mark.usefixtures("broken")
def test_limits_reach_the_search() -> None:
    limits = ("--max-drop", "2", "--max-memory", "120kB", "--min-ai", "9", "--max-latency", "1ms")
    data = found("--strategy", "exhaustive", *limits)
    assert data["objective"]["constraints"] == {
        "max_loss": 2.0,
        "max_weight_bytes": 120e3,
        "min_intensity": 9.0,
        "max_latency_s": 1e-3,
    }
    best = data["best"]
    assert best["loss"] <= 2 + 1e-9
    assert best["weight_bytes"] <= 120e3
    assert best["arithmetic_intensity"] >= 9
    relative = found("--max-drop", "1%")
    assert relative["objective"]["constraints"] == {"max_relative_loss": 0.01}


@pytest.mark.usefixtures("broken")
def test_ties_kept_layers_and_samples_reach_the_search() -> None:
    shape = ("--groups", "99", "--tie", "conv1,linear", "--keep", "layer2.*", "--keep", "layer3.0.conv1")
    data = found(*shape, "--samples", "123")
    formats = {rule["layers"]: rule["precision"] for rule in data["best"]["scheme"]["rules"]}
    assert formats["conv1"] == formats["linear"]
    assert {formats[layer] for layer in formats if layer.startswith("layer2")} == {"keep"}
    assert formats["layer3.0.conv1"] == "keep"
    assert data["space"]["units"] == 4
    assert (data["best"]["search_n"], data["best"]["n"]) == (123, 400)


@pytest.mark.usefixtures("broken")
def test_a_budget_is_a_note_and_no_failure() -> None:
    data = found("--budget", "5")
    assert (data["evaluations"], data["stopped"]) == (5, "the budget of 5 evaluations is spent")
    assert "- stopped: the budget of 5 evaluations is spent\n" in run(*SEARCH, *FAKE, "--budget", "5").out


@pytest.mark.usefixtures("broken")
def test_without_a_report_split_the_figures_are_labelled() -> None:
    out = run(*SEARCH, *FAKE, "--report-split", "none").out
    assert "(95 % interval of the loss " in out.splitlines()[0]
    assert "search split, n = 400" in out.splitlines()[0]
    assert "- figures are of the search split, which the scheme was chosen by: they flatter it\n" in out


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("suffix", [".json", ".toml"])
def test_the_best_scheme_is_written_for_other_commands(here: Path, suffix: str) -> None:
    code, out, err = run(*SEARCH, *FAKE, "--format", "json", "--out", f"best{suffix}")
    assert (code, err) == (0, f"scheme: best{suffix}\n")
    best = json.loads(out)["best"]
    assert Scheme.parse(f"best{suffix}").digest() == best["scheme_digest"]
    again = json.loads(run("roofline", "digits_cnn", "--scheme", f"best{suffix}", "--format", "json").out)
    assert again["bytes"] == best["bytes"]


@pytest.mark.usefixtures("broken")
def test_the_figure_is_written(here: Path) -> None:
    code, _, err = run(*SEARCH, *FAKE, "--plot", "figure.svg")
    assert (code, err) == (0, "figure: figure.svg\n")
    assert (here / "figure.svg").read_text().startswith("<?xml")


@pytest.mark.usefixtures("broken")
def test_no_scheme_within_the_limits_is_exit_code_three(here: Path) -> None:
    impossible = run(*SEARCH, *FAKE, "--max-memory", "1k")
    assert (impossible.code, impossible.out) == (3, "")
    assert impossible.err.startswith("aiq: no scheme of the space has at most 1.00 kB of weights: the least is ")
    limits = ("--max-drop", "0", "--min-ai", "45", "--strategy", "random:count=3", "--out", "best.json")
    code, out, err = run(*SEARCH, *FAKE, *limits, "--format", "json")
    assert code == 3
    assert json.loads(out)["best"] is None
    assert err == f"aiq: {json.loads(out)['miss']}\n"
    assert not (here / "best.json").exists()
    table = run(*SEARCH, *FAKE, *limits)
    assert table.out.startswith(
        "digits_cnn on NVIDIA T4 16 GB, fused traffic: no measured scheme meets the constraints"
    )


def at(call: int, error: BaseException) -> Callable[[int], None]:
    def before(number: int) -> None:
        if number == call:
            raise error

    return before


def test_an_oracle_that_fails_shows_the_best_so_far(broken: dict[str, Any]) -> None:
    broken["search"] = at(6, OracleError("the probe fell off. Next: put it back."))
    code, out, err = run(*SEARCH, *FAKE, "--format", "json")
    assert code == 1
    data = json.loads(out)
    assert (data["evaluations"], data["stopped"]) == (5, "the probe fell off. Next: put it back.")
    assert data["best"]["split"] == "search"
    assert err == "aiq: the probe fell off. Next: put it back.\n"


def test_ctrl_c_shows_the_best_so_far_and_how_to_resume(broken: dict[str, Any], here: Path) -> None:
    whole = json.loads(run(*SEARCH, *FAKE, "--format", "json").out)
    resumable = ("search", "digits_cnn", *FAKE, "--cache", "sqlite:///kept here.db", "--format", "json")
    broken["search"] = at(6, KeyboardInterrupt())
    code, out, err = run(*resumable)
    assert code == 130
    assert json.loads(out)["stopped"] == "interrupted by Ctrl-C"
    first, second = err.splitlines()
    assert first == (
        "aiq: interrupted by Ctrl-C: what was measured is shown. Next: run the same command again to go on."
    )
    assert second == f"resume: aiq {' '.join(resumable)}".replace("sqlite:///kept here.db", "'sqlite:///kept here.db'")
    del broken["search"]
    again = json.loads(run(*resumable).out)
    assert again["cache_hits"] == 5
    assert (again["best"], again["evaluations"]) == (whole["best"], whole["evaluations"])


def test_ctrl_c_before_the_baseline(broken: dict[str, Any]) -> None:
    broken["search"] = at(1, KeyboardInterrupt())
    assert run(*SEARCH, *FAKE) == Ran(
        130, "", "aiq: interrupted by Ctrl-C before anything was measured. Next: run the same command again.\n"
    )


def test_a_baseline_that_fails_is_refused(broken: dict[str, Any]) -> None:
    broken["search"] = at(1, OracleError("the model answers NaN. Next: check its weights."))
    assert refusal(*SEARCH, *FAKE) == "the model answers NaN. Next: check its weights."


@pytest.mark.usefixtures("broken")
def test_progress_is_lines_on_stderr_and_never_on_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = run(*SEARCH, *FAKE, "--format", "csv")
    monkeypatch.setattr(_ticker, "_LINE_EVERY_S", 0.0)
    code, out, err = run(*SEARCH, *FAKE, "--format", "csv")
    assert (code, out, quiet.err) == (0, quiet.out, "")
    lines = err.splitlines()
    assert len(lines) == found()["evaluations"] if not err else len(lines) > 10
    assert lines[0].startswith("1 of at most 241 evaluations, 0 from the cache; best so far 9xkeep, loss 0; ")
    assert all(" left" in line for line in lines)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("broken")
def test_on_a_terminal_progress_is_one_line_that_is_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    import cli

    monkeypatch.setattr(_ticker, "_UPDATE_EVERY_S", 0.0)
    monkeypatch.setattr(sys, "argv", ["aiq", *SEARCH, *FAKE])
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(SystemExit):
        cli.main()
    written = terminal.getvalue()
    assert "\n" not in written
    assert written.count("evaluations, 0 from the cache") > 10
    assert written.rpartition("\r")[0].rpartition("\r")[2].strip() == ""


@pytest.mark.usefixtures("broken")
def test_a_dry_run_states_the_calls_and_their_cost(here: Path) -> None:
    cache = ("--cache", "sqlite:///a.db", "--samples", "200")
    run("search", "digits_cnn", *FAKE, *cache, "--budget", "7")
    data = json.loads(
        run("search", "digits_cnn", *FAKE, *cache, "--dry-run", "--probe", "0.01", "--format", "json").out
    )
    assert (data["strategy"], data["schemes"], data["evaluations"]) == ("coordinate", 256, 241)
    assert (data["cached"], data["samples"]) == (7, 200)
    assert data["seconds"] == pytest.approx((241 - 7) * 200 / data["probe"]["samples_per_s"])
    table = run("search", "digits_cnn", *FAKE, *cache, "--dry-run", "--probe", "0").out
    assert table.startswith(
        "digits_cnn: coordinate takes at most 241 evaluations of 256 schemes, 7 of them in the cache;"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--strategy", "exct"), "unknown strategy 'exct': did you mean 'exact'?"),
        (("--oracle", "acuracy"), "unknown oracle 'acuracy': did you mean 'accuracy'?"),
        (("--budget", "-1"), "the budget must be at least 1 evaluation, got -1. Next: raise it."),
        (("--seconds", "0"), "the budget must be a number of seconds above 0, got 0.0. Next: choose one."),
        (("--timeout", "nan"), "the timeout must be a number of seconds above 0, got nan. Next: choose one."),
        (
            ("--max-drop", "abc"),
            "--max-drop takes a number of points, or a share of the float model's accuracy with %, got 'abc'. "
            "Next: write for instance --max-drop 0.5 or 1%.",
        ),
        (
            ("--max-memory", "12q"),
            "--max-memory takes a number of bytes, with k, M or G for powers of 1000, got '12q'. "
            "Next: write for instance --max-memory 120k.",
        ),
        (
            ("--max-latency", "-2ms"),
            "--max-latency takes a number of seconds, or of ms, us or ns, got '-2ms'. "
            "Next: write for instance --max-latency 2ms.",
        ),
        (("--min-ai", "-1"), "min_intensity must be a number of at least 0, got -1.0. Next: give one."),
        (("--samples", "0"), "samples must be a whole number of at least 1, got 0. Next: choose one."),
        (("--groups", "0"), "groups must be at least 1, got 0. Next: choose a number of units."),
        (("--keep", "conv9"), "unknown layer 'conv9': "),
        (("--keep", "re:("), "layer pattern 're:(' is no regular expression: "),
        (("--tie", "conv1,linear", "--tie", "linear"), "layer 'linear' is in two ties. Next: join them, or "),
        (("--formats", "keep"), "the formats leave nothing to choose between: only 'keep' is given. Next: add one, "),
        (("--formats", "w99"), "unknown precision 'w99': "),
        (("--lambda", "2"), "lambda must lie in [0, 1], got 2.0. Next: 0 weighs only accuracy, 1 only the gain."),
        (("--target", "speed"), "unknown target 'speed': known: ai, latency, memory. Next: choose one."),
        (("--format", "xml"), "unknown format 'xml': known: table, json, csv, md. Next: choose one."),
        (("--hardware", "t5"), "unknown hardware 't5': did you mean 't4'"),
        (("--cache", "redis://x"), "unknown cache 'redis://x': known: sqlite:///relative.db, sqlite:////abs/path.db, "),
        (("--plot", "a.pdf"), "cannot write 'a.pdf': known suffixes: .svg, .png. Next: choose one of these."),
        (
            ("--out", "missing/a.json"),
            "cannot write 'missing/a.json': No such file or directory. Next: choose a folder",
        ),
        (("--data", "digit"), "unknown data 'digit'"),
        (("--report-split", "reprt"), "unknown split of digits 'reprt': did you mean 'report'?"),
    ],
)
def test_mistakes_are_one_sentence(here: Path, arguments: tuple[str, ...], text: str) -> None:
    assert refusal(*SEARCH, *arguments).startswith(text)


OWN_DATA = """
import numpy as np

def split(name):
    random = np.random.default_rng(sum(map(ord, name)))
    x = random.normal(size=({n}, 1, 8, 8)).astype(np.float32)
    return x, random.integers(0, {classes}, {n})
"""


@pytest.mark.parametrize(
    ("n", "classes", "text"),
    [
        (0, 10, "Next: give at least one example."),
        (40, 99, "the network tells 10 classes apart, 0 to 9."),
    ],
)
def test_data_that_cannot_be_used_are_refused(here: Path, n: int, classes: int, text: str) -> None:
    (here / f"own_{n}_{classes}.py").write_text(OWN_DATA.format(n=n, classes=classes))
    assert text in refusal(*SEARCH, "--data", f"own_{n}_{classes}.py:split", "--formats", "w8")


def test_a_network_without_data_of_its_own_needs_some() -> None:
    text = refusal("search", "resnet20", "--cache", "none")
    assert text == "resnet20 comes with no data to measure accuracy on. Next: give --data cifar10:PATH."


def test_examples_of_the_report_split_that_are_searched_on_are_refused(here: Path) -> None:
    (here / "shared_data.py").write_text(OWN_DATA.format(n=40, classes=10).replace("sum(map(ord, name))", "0"))
    text = refusal(*SEARCH, "--data", "shared_data.py:split", "--formats", "w8")
    assert "40 of 40 examples of split 'report' are in split" in text


def test_a_real_search_in_every_part(here: Path) -> None:
    files = ("--plot", "figure.png", "--out", "best.toml")
    options = ("--strategy", "random:count=4", "--samples", "64", "--formats", "w8,w8a8", "--groups", "3")
    code, out, err = run(*SEARCH, *options, *files, "--frontier", "--format", "json")
    assert code == 0, err
    data = json.loads(out)
    assert (data["oracle"], data["evaluations"], data["metric"]["name"]) == ("accuracy", 5, "accuracy")
    assert data["provenance"]["splits"]["report"]["n"] == data["best"]["n"] > 400
    assert 0 < data["work"] <= 5
    assert data["baseline"]["accuracy"] > 0.95
    assert err.splitlines()[-2:] == ["figure: figure.png", "scheme: best.toml"]


HANGING = """
import time

def measure(scheme):
    time.sleep(0.0 if set(scheme.values()) == {"keep"} else 60.0)
    return {"value": 1.0, "metric": "accuracy", "unit": "points"}
"""


def test_an_oracle_that_hangs_ends_the_search_and_the_process(here: Path) -> None:
    (here / "hanging.py").write_text(HANGING)
    options = ("--oracle", "python:hanging.py:measure", "--timeout", "0.3", "--formats", "w8", "--format", "json")
    done = subprocess_run([*SEARCH, *options])
    assert done.returncode == 1, done.stderr
    assert "took longer than 0.3 s" in done.stderr
    assert json.loads(done.stdout)["evaluations"] == 1


def test_help_is_light() -> None:
    import os
    import subprocess

    from tests.commands import ROOT

    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, "search", "--help"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: aiq search [OPTIONS]")
    assert not set(done.stderr.split()) & {"torch", "matplotlib", "scipy", "numpy", "sklearn"}
