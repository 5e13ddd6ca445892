"""The command of the throughput experiment: what it tells and exits with, and once on the real runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hardware_specs
from tests import commands
from tests.refusals import refusal
from tests.throughputs import MACHINE, OTHER, PlantedOracle, fake_bench
from tests.validating import deployment

PROGRAM = ("reproduce", "throughput", "--data", "digits", "--model", "digits_cnn", "--cache", "none")


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiq._reproduce_lab.load_oracle", lambda text, context: PlantedOracle("", context))


@pytest.fixture
def arguments(tmp_path: Path, planted: None) -> tuple[str, ...]:
    machine = tmp_path / "given.json"
    machine.write_text(hardware_specs.to_json(MACHINE))
    more = ("--hardware", str(machine), "--runtime", OTHER, "--batch", "4", "--rounds", "10", "--limit", "40")
    return (*PROGRAM, *more, "--out", str(tmp_path / "out"))


def test_the_command_writes_and_shows(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    fake_bench(monkeypatch)
    ran = commands.run(*arguments, "--format", "json", "--seed", "3", "--max-loss", "9")
    assert ran.code == 0, ran.err
    data = json.loads(ran.out)
    assert (data["network"], data["batch"], data["rounds"], data["seed"]) == ("digits_cnn", 4, 10, 3)
    assert "written: " in ran.err and "throughput.png" in ran.err
    greedy = next(row for row in data["throughput"] if row["family"] == "greedy")
    assert (data["max_loss"], greedy["asked_int8"]) == (9.0, 8)


def test_the_command_ends_with_1_on_a_noisy_machine(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_bench(monkeypatch, noise=0.9)
    ran = commands.run(*arguments, "--max-spread", "0.01")
    assert ran.code == 1 and "machine too noisy" in ran.out
    assert ran.err.splitlines()[-1].startswith("aiq: machine too noisy: the median spread of a measurement is ")


def test_ctrl_c_shows_what_there_is(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    fake_bench(monkeypatch, interrupt=1)
    ran = commands.run(*arguments)
    assert ran.code == 130 and "5 samples of each" in ran.out
    assert "aiq: interrupted by Ctrl-C: what was measured is shown, and evaluations are in the cache.\n" in ran.err
    assert ran.err.splitlines()[-1].startswith("resume: aiq reproduce throughput --data digits")
    fake_bench(monkeypatch, interrupt=0)
    ran = commands.run(*arguments)
    assert (ran.code, ran.out) == (130, "")
    assert "aiq: interrupted by Ctrl-C: what was measured is in the cache.\n" in ran.err


def test_the_command_refuses_in_one_sentence(tmp_path: Path) -> None:
    program = (*PROGRAM, "--out", str(tmp_path / "out"))
    assert refusal(*program, "--format", "x").startswith("unknown format 'x'")
    assert refusal(*program, "--rounds", "1").startswith("rounds must be at least 3, got 1")
    assert refusal(*program, "--runtime", "openvin").startswith("unknown runtime 'openvin': did you mean 'openvino'?")
    assert refusal(*program, "--hardware", str(tmp_path / "no.json")).startswith("cannot read hardware file")
    missing = refusal(*program, "--weights", str(tmp_path / "no.safetensors"))
    assert missing.endswith("no.safetensors': no such file. Next: give the path of a .safetensors file.")
    pytest.importorskip("openvino")
    text = refusal(*program, "--hardware", "t4", "--runtime", "openvino")
    assert text.startswith("t4 has no kernel models of openvino, known: eager. Next: leave out --hardware, or ")


@pytest.mark.usefixtures("planted")
def test_real_runtimes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images and rounds; what layers ran as comes from the runtimes themselves, and no time is judged."""
    names = {"toyrun": "openvino", OTHER: "onnxruntime"}
    for name in names.values():
        pytest.importorskip(name)
    kernels = [model.model_copy(update={"runtime": names[model.runtime]}) for model in MACHINE.kernels]
    spec = MACHINE.model_copy(update={"kernels": tuple(kernels)})

    def calibrate(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(spec=spec)

    for module in ("aiq.runtimes._torch", "aiq._reproduce_throughput_bench"):  # beside other work threads would wait
        monkeypatch.setattr(f"{module}.processors", lambda: 1)
    monkeypatch.setattr("aiq._reproduce_throughput.Deployment", lambda _: deployment())
    monkeypatch.setattr("aiq._reproduce_throughput.calibrate", calibrate)
    monkeypatch.setattr("aiq._reproduce_throughput_schemes.PAPER_LAYERS", 3)
    monkeypatch.setattr("aiq._reproduce_throughput_schemes.DRAWS", 1)
    given = ("--batch", "4", "--rounds", "3", "--limit", "20", "--max-spread", "99", "--format", "json")
    ran = commands.run(*PROGRAM, *given, "--out", str(tmp_path / "out"))
    assert ran.code == 0, ran.err
    data = json.loads(ran.out)
    assert [text.split()[0] for text in data["versions"].values()] == ["openvino", "onnxruntime", "torch"]
    rows = {(row["runtime"], row["family"]): row for row in data["throughput"] if row["runtime"] != "paper"}
    assert (rows["openvino", "bf16"]["ran_bf16"], rows["openvino", "int8"]["ran_int8"]) == (9, 8)
    assert ("onnxruntime", "bf16") not in rows and data["refused"][0]["runtime"] == "onnxruntime"
    for row in rows.values():
        assert row["images_per_s"] > 0 and row["accuracy"] > 90 and row["agreement"] == 1.0
        assert sum(row[f"ran_{fmt}"] for fmt in ("int8", "bf16", "fp32")) == 9
        assert row["profile_layers_s"] > 0
    assert rows["openvino", "first"]["asked_int8"] == rows["onnxruntime", "random"]["asked_int8"] == 3
    assert hardware_specs.load(str(tmp_path / "out/machine.json")).runtimes == spec.runtimes
