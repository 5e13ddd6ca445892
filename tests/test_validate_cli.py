"""``aiq validate`` from the command line: exit codes, formats, refusals, and real runtimes once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hardware_specs
from aiq.registry import load_runtime
from aiq.runtimes import DeployError
from tests.calibrated import CALIBRATED
from tests.commands import FORMATS, run
from tests.refusals import refusal
from tests.test_validate import KNOWN, known
from tests.validating import NAME, ToyRuntime, stopwatch

SCHEMES = tuple(part for text in KNOWN for part in ("--schemes", text))


@pytest.fixture
def machine(here: Path) -> str:
    (here / "machine.json").write_text(hardware_specs.to_json(CALIBRATED))
    return "./machine.json"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyRuntime:
    found = ToyRuntime(known)
    monkeypatch.setattr("aiq._validate.load_runtime", lambda name: found if name == NAME else load_runtime(name))
    return found


def arguments(machine: str, *more: str, schemes: tuple[str, ...] = SCHEMES) -> tuple[str, ...]:
    return ("validate", "digits_cnn", "--runtime", NAME, "--hardware", machine, *schemes, "--rounds", "3", *more)


def found(machine: str, *more: str) -> Any:
    code, out, err = run(*arguments(machine, "--format", "json", *more))
    assert code == 0, err
    return json.loads(out)


def test_json(machine: str, toy: ToyRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch(monkeypatch)
    data = found(machine)
    assert data["schema_version"] == 1
    assert [(row["scheme"], row["batch"]) for row in data["rows"]] == [(s, b) for b in (1, 32) for s in KNOWN]
    assert [row["measured_throughput"] for row in data["rows"]] == pytest.approx([1 / t for t in KNOWN.values()] * 2)
    keys = {"median_ape", "p90_ape", "bias", "spearman", "coverage", "regret", "runtime", "machine"}
    assert keys <= set(data)
    assert {"scheme", "batch", "predicted_throughput", "interval", "measured_throughput", "spread"} <= set(
        data["rows"][0]
    )
    assert [row["batch"] for row in found(machine, "--batch", "2")["rows"]] == [2] * 3


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format(machine: str, toy: ToyRuntime, monkeypatch: pytest.MonkeyPatch, fmt: str) -> None:
    stopwatch(monkeypatch)
    code, out, err = run(*arguments(machine, "--format", fmt))
    assert (code, err) == (0, "batch 1: building scheme 1 of 3, keep\n")
    assert all(name in out for name in KNOWN)


def test_exit_code_outside_the_tolerance(machine: str, toy: ToyRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch(monkeypatch)
    code, out, err = run(*arguments(machine, "--tolerance", "0.1"))
    assert code == 4
    assert "aiq: the median error is" in err
    assert "above 10.0 %. Next: calibrate this machine anew, with 'aiq calibrate'." in err
    assert out
    assert run(*arguments(machine, "--tolerance", "10")).code == 0


def test_exit_code_of_noise(machine: str, toy: ToyRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch(monkeypatch, noise=0.9)
    code, out, err = run(*arguments(machine, "--tolerance", "0"))
    assert code == 1
    assert "aiq: machine too noisy: the median spread of a measurement is" in err
    assert "Next: stop other work, or raise --rounds or --max-spread." in err
    assert out
    assert run(*arguments(machine, "--max-spread", "9")).code == 0


def test_ctrl_c(machine: str, toy: ToyRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch(monkeypatch, interrupt=1)
    code, out, err = run(*arguments(machine, "--tolerance", "0", "--format", "json"))
    assert code == 130
    assert {row["batch"] for row in json.loads(out)["rows"]} == {1}
    assert "aiq: interrupted by Ctrl-C: what was measured is shown." in err
    stopwatch(monkeypatch, interrupt=0)
    code, out, err = run(*arguments(machine))
    assert (code, out) == (130, "")
    assert err.endswith("interrupted by Ctrl-C before anything was measured. Next: run the same command again.\n")


def test_exit_code_of_an_error_on_the_way(machine: str, toy: ToyRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise DeployError("toyrun broke. Next: mend it.")

    stopwatch(monkeypatch)
    monkeypatch.setattr("tests.validating.ToyPrepared.profile", broken)
    code, out, err = run(*arguments(machine, "--tolerance", "0"))
    assert code == 1
    assert err.endswith("aiq: toyrun broke. Next: mend it.\n")
    assert all(name in out for name in KNOWN)


def test_dry_run(machine: str, toy: ToyRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = stopwatch(monkeypatch)
    code, out, err = run(*arguments(machine, "--dry-run", "--format", "json", schemes=("--count", "9")))
    assert (code, err, watch.blocks) == (0, "", [])
    assert len(json.loads(out)["rows"]) == 18


def test_figure_and_layers(machine: str, here: Path, toy: ToyRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch(monkeypatch)
    code, out, err = run(*arguments(machine, "--figure", "f.svg", "--layers"))
    assert code == 0
    assert "figure: f.svg" in err
    assert (here / "f.svg").read_text().startswith("<?xml")
    assert "between layers" in out
    assert "cannot write 'f.pdf'" in refusal(*arguments(machine, "--figure", "f.pdf"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--rounds", "1"), "rounds must be at least 3, got 1. Next: raise it."),
        (("--batch", "0"), "a batch size must be at least 1, got 0. Next: raise it."),
        (("--samples", "9"), "runtime and simulation are compared only on data, and none are named."),
        (("--schemes", "w8,layer9.conv=keep"), "unknown layer 'layer9.conv'"),
        (("--schemes", "w8@gtpq"), "gtpq"),
        (("--runtime", "openvin"), "unknown runtime 'openvin': did you mean 'openvino'?"),
        (("--hardware", "t4"), "t4 is a gpu, and toyrun runs on another kind of device."),
        (("--data", "digit"), "unknown data 'digit'"),
        (("--format", "xml"), "unknown format 'xml'"),
    ],
)
def test_bad_input(machine: str, toy: ToyRuntime, more: tuple[str, ...], message: str) -> None:
    assert message in refusal(*arguments(machine, *more))


def test_a_machine_must_be_named() -> None:
    assert refusal("validate", "digits_cnn", "--runtime", "openvino") == (
        "predictions need the machine that this is, and none is named. Next: give --hardware FILE, as 'aiq calibrate' "
        "writes it, or a name that 'aiq specs list' shows."
    )


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_a_runtime_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from importlib.util import find_spec

    monkeypatch.setattr("aiq.runtimes._protocol.find_spec", lambda found: find_spec(found) if found != name else None)
    text = refusal("validate", "digits_cnn", "--runtime", name, "--hardware", "xeon-2vcpu")
    assert text == (
        f"runtime {name!r} cannot be used: {name} is not installed. Next: pip install 'aiq-roofline[{name}]'."
    )
