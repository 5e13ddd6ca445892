"""What people get wrong: one sentence on stderr with a next step, exit code 2, nothing on stdout, no traceback."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import hardware_specs
from tests.commands import ROOT, run, subprocess_run
from tests.refusals import LONG, PLAN, ROOFLINE, refusal


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ("roofline", "resnet20", "--hardware", "h10"),
            "unknown hardware 'h10': did you mean 'h100' or 'a10' or 'v100'? "
            "Next: run 'aiq specs list', or give a path to a .toml or .json file.",
        ),
        (
            (*ROOFLINE, "--scheme", "w8,conv11=keep"),
            "unknown layer 'conv11': did you mean 'conv1' or 'layer3.0.conv1' or 'layer2.0.conv1'? "
            "Next: run 'aiq graph MODEL' for the names.",
        ),
        (
            (*ROOFLINE, "--scheme", "w8,="),
            "scheme 'w8,=': '=' is not LAYER=PRECISION. Next: write for instance w4,conv1=keep.",
        ),
        ((*ROOFLINE, "--batch", "0"), "batch must be a whole number of at least 1, got 0. Next: choose one."),
        ((*ROOFLINE, "--batch", "-3"), "batch must be a whole number of at least 1, got -3. Next: choose one."),
        ((*PLAN, "--batch", "0"), "batch must be a whole number of at least 1, got 0. Next: choose one."),
        (
            (*ROOFLINE, "--traffic", "fusd"),
            "unknown traffic model 'fusd': known: paper, unfused, fused. Next: choose one.",
        ),
        ((*PLAN, "--traffic", "x"), "unknown traffic model 'x': known: paper, unfused, fused. Next: choose one."),
        (
            (*ROOFLINE, "--rates", "peak"),
            "unknown rates 'peak': known: datasheet, sustained, calibrated[:RUNTIME]. Next: choose one.",
        ),
        *(
            ((*command, "--format", "xml"), "unknown format 'xml': known: table, json, csv, md. Next: choose one.")
            for command in (("graph", "digits_cnn"), ROOFLINE, PLAN, ("specs", "list"), ("specs", "show", "t4"))
        ),
        ((*PLAN, "--target", "speed"), "unknown target 'speed': known: ai, latency, memory. Next: choose one."),
        (
            (*PLAN, "--normalise", "max"),
            "unknown normalisation 'max': known: raw, relative, minmax. Next: choose one.",
        ),
        *(
            (
                (*PLAN, "--lambda", lam),
                f"lambda must lie in [0, 1], got {lam}. Next: 0 weighs only accuracy, 1 only the gain.",
            )
            for lam in ("-0.1", "1.1", "nan", "inf", "-inf")
        ),
        ((*PLAN, "--samples", "0"), "samples must be a whole number from 1 to 1e12, got 0. Next: choose one."),
        (
            (*PLAN, "--proxy", "sqnr"),
            "unknown oracle 'sqnr': did you mean 'weight-sqnr'? Next: name one of these, or install its package.",
        ),
        (
            (*PLAN, "--proxy", "table"),
            "the oracle table needs a file. Next: write table:losses.json or table:losses.csv.",
        ),
        (
            (*PLAN, "--formats", "keep"),
            "the formats leave nothing to choose between: only 'keep' is given. Next: add one, for instance w8.",
        ),
        (
            (*PLAN, "--formats", "fp64"),
            "t4 states no fp64 ceiling and none that could stand in (no wider format): it has fp32, fp16, int8, int4. "
            "Next: choose one of these formats, or add [compute.fp64] with its source.",
        ),
        (
            ("graph", "digits_cnn", "--input", "1,1,8"),
            "digits_cnn raised in forward for input 1x1x8: ValueError: expected 4D input (got 3D input). "
            "Next: check the input shape (--input), or run the model by itself.",
        ),
        (
            ("specs", "show", "h10"),
            "unknown hardware 'h10': did you mean 'h100' or 'a10' or 'v100'? "
            "Next: run 'aiq specs list', or give a path to a .toml or .json file.",
        ),
    ],
)
def test_the_whole_sentence(arguments: tuple[str, ...], text: str) -> None:
    assert refusal(*arguments) == text


@pytest.mark.parametrize("command", ["graph", "roofline", "plan"])
def test_unknown_model(command: str) -> None:
    text = refusal(command, "resnt20")
    assert text.startswith("unknown model 'resnt20': did you mean 'resnet20'")
    # a person at the command line cannot call a Python function
    assert "aiq.zoo" not in text
    assert "FILE.py:CALLABLE" in text or ".py:" in text


@pytest.mark.parametrize("precision", ["w99", "int1", "fp7", "wrong", "w8a", "int8:q", "int8:g0", "int4:g2:c"])
def test_unknown_precision(precision: str) -> None:
    for arguments in ((*ROOFLINE, "--scheme", precision), (*PLAN, "--formats", f"w8,{precision}")):
        text = refusal(*arguments)
        assert "precision" in text
    assert repr(precision) in refusal(*ROOFLINE, "--scheme", f"w8,conv1={precision}")


SEARCH = ("search", "digits_cnn", "--cache", "none")


@pytest.mark.parametrize("command", [(*SEARCH, "--formats"), (*PLAN, "--formats"), (*ROOFLINE, "--scheme")])
@pytest.mark.parametrize(
    ("precision", "sentence"),
    [
        (
            "w8@foo",
            "recipe 'foo': unknown word 'foo': known: nearest, gptq, max, mse, percentile, channel, tensor, bias, "
            "nobias. Next: join some of these by '+'.",
        ),
        ("keep/int8@max+mse", "recipe 'max+mse': 'mse' contradicts a word before it. Next: drop one of them."),
    ],
)
def test_a_recipe_that_no_quantizer_can_follow(command: tuple[str, ...], precision: str, sentence: str) -> None:
    origin = f"scheme {precision!r}: " if command[-1] == "--scheme" else ""
    assert refusal(*command, precision) == origin + sentence


def test_recipes_of_rules_are_checked_too() -> None:
    assert refusal(*ROOFLINE, "--scheme", "w8,conv1=w4@gtpq").startswith(
        "scheme 'w8,conv1=w4@gtpq': recipe 'gtpq': unknown word 'gtpq': known: nearest, gptq, "
    )
    assert run(*ROOFLINE, "--scheme", "w8@nearest+max,conv1=w4@gptq+tensor").code == 0


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ("1,3,8,8", "to have 1 channels, but got 3 channels instead"),
        ("1,1,8,8:int64", "input 1x1x8x8: RuntimeError: expected scalar type Long but found Float"),
        ("1", "digits_cnn raised in forward for input 1: "),
        ("1,1,1,1,1", "digits_cnn raised in forward for input 1x1x1x1x1: "),
    ],
)
@pytest.mark.parametrize("command", ["graph", "roofline", "plan"])
def test_wrong_input_shape(command: str, shape: str, part: str) -> None:
    text = refusal(command, "digits_cnn", "--input", shape)
    assert part in text
    assert text.endswith("Next: check the input shape (--input), or run the model by itself.")


@pytest.mark.parametrize("text", ["", "a", "1x3x8x8", "1,1,8,8:f32", "1;3", "1,-1,8,8", "1,1,8,8:"])
def test_malformed_input(text: str) -> None:
    assert refusal("graph", "digits_cnn", "--input", text) == (
        f"input {text!r} is not [NAME=]DIMS[:DTYPE] with DTYPE one of float32, float16, bfloat16, int64, int32, bool. "
        "Next: write for instance --input 1,3,224,224 or --input ids=1,128:int64."
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("graph", "digits_cnn", "--input", "1," + "9" * 30),
        ("graph", "digits_cnn", "--input", "1," + LONG),
        ("graph", "digits_cnn", "--input", "99999,99999,99999,99999"),
        (*ROOFLINE, "--batch", "1" + "0" * 400),
        (*PLAN, "--batch", "1" + "0" * 400),
        (*ROOFLINE, "--scheme", f"w4:g{LONG}"),
        (*ROOFLINE, "--scheme", f"int{LONG}"),
        (*ROOFLINE, "--scheme", f"w{LONG}"),
        (*ROOFLINE, "--scheme", "w8,re:a{99999999999}=keep"),
        (*PLAN, "--samples", "1" + "0" * 400, "--probe", "0.01"),
    ],
)
def test_huge_numbers(arguments: tuple[str, ...]) -> None:
    refusal(*arguments)


def test_a_group_longer_than_any_row_is_no_failure() -> None:
    assert run(*PLAN, "--formats", "w4:g1000000000000").code in (0, 2)


@pytest.mark.parametrize("seconds", ["-1", "nan"])
def test_a_probe_of_no_length(seconds: str) -> None:
    assert "probe" in refusal("plan", "digits_cnn", "--probe", seconds)


@pytest.mark.parametrize("value", ["", " ", ","])
def test_empty_formats(value: str) -> None:
    assert "formats" in refusal(*PLAN, "--formats", value)


@pytest.mark.parametrize(
    "arguments",
    [(*ROOFLINE, "--scheme", ""), (*ROOFLINE, "--plot", ""), (*PLAN, "--weights", ""), (*ROOFLINE, "--hardware", "")],
)
def test_an_empty_value_is_not_taken_for_no_value(arguments: tuple[str, ...]) -> None:
    refusal(*arguments)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ((*ROOFLINE, "--batch", "x"), "--batch"),
        ((*ROOFLINE, "--batch", "1.5"), "--batch"),
        ((*PLAN, "--lambda", "x"), "--lambda"),
        ((*PLAN, "--samples", "many"), "--samples"),
    ],
)
def test_a_word_for_a_number_is_a_usage_error(arguments: tuple[str, ...], option: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert f"Invalid value for '{option}'" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("figure.pdf", "known suffixes: .svg, .png"),
        ("figure", "known suffixes: .svg, .png"),
        ("missing/figure.svg", "No such file or directory"),
        ("folder.svg", "Is a directory"),
        ("x" * 300 + ".svg", "File name too long"),
    ],
)
def test_a_plot_that_cannot_be_written_is_refused_before_any_work(here: Path, name: str, reason: str) -> None:
    (here / "folder.svg").mkdir()
    # the model's name is wrong too: the figure is spoken of first
    text = refusal("roofline", "no_such_model", "--plot", name)
    assert text.startswith(f"cannot write {name!r}: {reason}")


def test_a_refused_run_leaves_no_figure(here: Path) -> None:
    refusal("roofline", "no_such_model", "--plot", "figure.svg")
    assert list(here.iterdir()) == []


def test_an_unknown_layer_lists_no_empty_name() -> None:
    text = refusal(*ROOFLINE, "--scheme", "w8,zzzzzz=keep")
    assert text.startswith("unknown layer 'zzzzzz': known: ")
    assert "known: ," not in text


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["specs", "show", "h10"], "did you mean 'h100'"),
        (["roofline", "resnt20"], "did you mean 'resnet20'"),
        (["roofline", "resnet20", "--plot", "x.pdf"], "known suffixes"),
        (["specs", "check", "missing.toml"], "No such file or directory"),
        (["specs", "list", "--format", "yaml"], "known: table, json, csv, md"),
    ],
)
def test_in_a_process_of_its_own(arguments: list[str], part: str) -> None:
    done = subprocess_run(arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"aiq: [^\n]+\n", done.stderr)
    assert part in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="file names are bytes on POSIX only")
def test_a_name_that_is_not_utf8() -> None:
    command = [sys.executable, "-c", "import cli; cli.main()", "specs", "show", b"\xff\xfe"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"aiq: unknown hardware ")
    assert b"Traceback" not in done.stderr


def test_the_catalogue_has_the_machines_that_these_tests_name() -> None:
    assert {"h100", "t4"} <= set(hardware_specs.names())
