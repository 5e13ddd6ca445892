"""``aiq calibrate``: a known law is found again, the file serves every command, and a short real run is sound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hardware_specs
from aiq.calibrate import Calibration, Stability, calibrate
from aiq.calibrate._measure import Job, Pass, RuntimeTimes
from aiq.calibrate._stability import Others
from aiq.registry import load_runtime
from aiq.runtimes import DeployError
from hardware_specs import HardwareSpec
from roofline import Scheme
from roofline.errors import InputError
from tests.calibrating import NAME, LawfulRuntime, known_times, probing, small_probes, unseen
from tests.commands import run


@pytest.fixture(scope="module")
def lawful() -> Calibration:
    with pytest.MonkeyPatch.context() as monkeypatch:
        known_times(monkeypatch)
        return calibrate([LawfulRuntime(one_float_format=True)], seconds=60, threads=1)


@pytest.fixture
def file(lawful: Calibration, here: Path) -> str:
    (here / "machine.json").write_text(hardware_specs.to_json(lawful.spec))
    return "machine.json"


def test_whole_passes_are_predicted(lawful: Calibration) -> None:
    assert {(check.formats, check.batch) for check in lawful.checks} == {
        *((fmt, batch) for fmt in ("fp32", "int8") for batch in (1, 8, 32)),
        *(("int8+fp32", batch) for batch in (1, 32)),
    }
    assert max(abs(check.error) for check in lawful.checks) < 0.1


@pytest.mark.parametrize("batch", [2, 16])
@pytest.mark.parametrize("text", ["fp32", "w8a8", "w8a8,1=keep", "w8a8,1=keep,2=keep"])
def test_a_network_that_no_calibration_saw_is_predicted(lawful: Calibration, text: str, batch: int) -> None:
    predicted, true = unseen(lawful.spec, text, batch)
    assert predicted == pytest.approx(true, rel=0.2)


def test_models_state_their_errors_and_where_they_come_from(lawful: Calibration) -> None:
    assert {model.runtime for model in lawful.spec.kernels} == {NAME}
    labels = {model.label for model in lawful.spec.kernels}
    assert {"conv fp32", "transition int8/fp32 conv", "transition int8/fp32 other"} <= labels
    assert {"conv int8", "conv int8 rounded"} & labels
    for model in lawful.spec.kernels:
        assert model.error.method in {"leave-one-out", "k-fold"}
        assert model.versions == {"lawful": "1.0"}
        assert "probe networks at batch 1, 8, 32 by lawful 1.0" in model.source
    convolution = next(model for model in lawful.spec.kernels if model.label == "conv fp32")
    assert convolution.error.median_ape < 0.1


def test_the_file_names_runtimes_of_one_float(lawful: Calibration) -> None:
    """Those of the other tests do not say that they are."""
    assert lawful.spec.one_float_format == (NAME,)


def test_the_machine_is_measured_and_passes_the_linter(lawful: Calibration) -> None:
    spec = lawful.spec
    assert spec.kind == "cpu"
    assert spec.memory[0].name == "dram"
    quantities = [*spec.compute.values(), *(level.bandwidth_bytes_per_s for level in spec.memory)]
    assert {quantity.kind for quantity in quantities} == {"measured"}
    assert set(spec.compute) == {"fp32", "int8"}
    findings = [f for f in hardware_specs.lint(spec) if f.rule != "kernels" or not f.where.endswith("coverage")]
    assert findings == []


def test_the_note_says_how_steady_the_machine_was(lawful: Calibration) -> None:
    assert lawful.stability == Stability(0.02, 0.01, 0.0, 0.01)
    sentence = (
        "the same reads drifted by 2.0 %, passes spread by 1.0 %, 0.0 % of time was stolen, other programs took 1.0 %"
    )
    assert f"with lawful 1.0. Stable: {sentence}." in lawful.spec.note
    assert "lawful has no bf16: no" in lawful.spec.note


@pytest.mark.parametrize(
    ("stability", "stable"),
    [
        (Stability(0.05, 0.05, None), True),
        (Stability(0.2, 0.05, 0.0), False),
        (Stability(0.05, 0.2, 0.0), False),
        (Stability(0.05, 0.05, 0.1), False),
        (Stability(0.05, 0.05, None, 0.04), True),
        (Stability(0.05, 0.05, 0.0, 0.06), False),
    ],
)
def test_a_machine_is_stable_within_limits(stability: Stability, stable: bool) -> None:
    assert stability.stable is stable
    assert stability.sentence.startswith("stable: " if stable else "unstable, ")
    assert ("steal time is not told" in stability.sentence) is (stability.stolen is None)


def test_what_other_programs_take_is_told_from_what_this_one_takes(tmp_path: Path) -> None:
    file = tmp_path / "stat"
    file.write_text("cpu  100 0 100 800 0 0 0 0 0 0\n")
    others = Others(file)
    assert others.share() is None
    file.write_text("cpu  60000 0 40100 900800 0 0 0 0 0 0\n")
    assert others.share() == pytest.approx(0.1, rel=0.01)
    assert Others(tmp_path / "none").share() is None


def test_the_file_is_a_machine_for_every_command(file: str, lawful: Calibration) -> None:
    assert hardware_specs.load(file) == lawful.spec
    code, out, _ = run("roofline", "digits_cnn", "--hardware", file)
    assert code == 0
    assert "(calibrated on 20" in out
    assert "bound from measured peaks" in out
    code, out, _ = run(
        "roofline", "digits_cnn", "--hardware", file, "--rates", f"calibrated:{NAME}", "--scheme", "w8a8"
    )
    assert code == 0
    assert f"kernels calibrated for {NAME}" in out


def test_the_command(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known_times(monkeypatch)
    toy = LawfulRuntime()
    monkeypatch.setattr(
        "aiq.calibrate._calibrate.load_runtime", lambda name: toy if name == NAME else load_runtime(name)
    )
    code, out, err = run("calibrate", "--runtime", NAME, "--out", "here.json", "--threads", "1", "--format", "json")
    assert code == 0, err
    data = json.loads(out)
    assert data["schema_version"] == 1
    assert data["stable"] is True
    spec = hardware_specs.load("here.json")
    assert HardwareSpec.model_validate(data["machine"]) == spec
    assert spec.one_float_format == ()
    assert "written: here.json" in err
    assert f"next: aiq plan MODEL --hardware here.json --rates calibrated:{NAME}" in err


def test_an_unstable_machine_is_told_and_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known_times(monkeypatch, spread=0.3)
    monkeypatch.setattr("aiq.calibrate._calibrate.load_runtime", lambda _: LawfulRuntime())
    monkeypatch.setattr("aiq.calibrate._calibrate._MEASURING", 0.0)
    code, out, err = run("calibrate", "--runtime", NAME, "--threads", "1")
    assert code == 1
    assert "passes spread by 30.0 %" in err.splitlines()[-1]
    assert "Next: stop other work, and calibrate again." in err
    assert "left out for lack of time, raise --seconds" in out
    assert "Unstable" in hardware_specs.load("machine.json").note


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seconds", "1"), "a calibration takes at least 5 s, got 1. Next: raise --seconds."),
        (("--seconds", "nan"), "a calibration takes at least 5 s, got nan. Next: raise --seconds."),
        (("--threads", "0"), "threads must be 1 to "),
        (("--name", "My Box"), "a machine's name has small letters, digits and hyphens, got 'My Box'. Next: "),
        (("--runtime", "openvno"), "unknown runtime 'openvno': did you mean 'openvino'"),
        (("--out", "machine.toml"), "cannot write 'machine.toml': known suffixes: .json. Next: choose one of these."),
        (("--out", "no/such/machine.json"), "cannot write 'no/such/machine.json': No such file or directory. Next: "),
        (("--format", "xml"), "unknown format 'xml'"),
    ],
)
def test_bad_input(here: Path, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = run("calibrate", *arguments)
    assert code == 2
    assert message in err
    assert list(here.iterdir()) == []


def test_a_runtime_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "openvino is not installed. Next: pip install 'aiq-roofline[openvino]'"
    monkeypatch.setattr("aiq.runtimes._openvino.OpenVINO.available", lambda self: missing)
    with pytest.raises(InputError, match=r"pip install 'aiq-roofline\[openvino\]'"):
        calibrate(["openvino"])


def test_a_runtime_that_runs_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    known_times(monkeypatch)
    with pytest.raises(DeployError, match="no kernel for fp32"):
        calibrate([LawfulRuntime(refuses="fp32")], threads=1)


def test_a_short_real_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiq.calibrate._calibrate.largest_size", lambda known: 2**20)
    found = calibrate(["torch"], seconds=5, threads=1)
    assert found.checks
    assert all(check.measured_s > 0 for check in found.checks)
    assert {row.runtime for row in found.rows} == {"torch"}
    assert {model.op for model in found.spec.kernels} >= {"conv"}
    assert HardwareSpec.model_validate_json(hardware_specs.to_json(found.spec)) == found.spec
    assert "torch has no int8" in " ".join(found.notes)


def test_openvino_goes_first_and_has_the_larger_share(monkeypatch: pytest.MonkeyPatch) -> None:
    known_times(monkeypatch)
    shares: list[tuple[str, float]] = []

    def measured(runtime: LawfulRuntime, *_: Any, seconds: float, **__: Any) -> RuntimeTimes:
        shares.append((runtime.name, seconds))
        done = Pass(Job(probing(small_probes()[0]), "fp32", Scheme(), 1), 1.0, 0.0, None)
        return RuntimeTimes(runtime.name, "1.0", (), (done,), {}, 0, None, False)

    monkeypatch.setattr("aiq.calibrate._calibrate.measure_runtime", measured)
    runtimes = [LawfulRuntime("onnxruntime"), LawfulRuntime("openvino")]
    calibrate(runtimes, seconds=60, threads=1)
    (first, some), (second, rest) = shares
    assert (first, second) == ("openvino", "onnxruntime")
    assert some == pytest.approx(0.55 * rest, rel=0.1)
    assert runtimes[1].prepared
    assert not runtimes[0].prepared


def test_each_probe_is_built_before_the_time_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    known_times(monkeypatch)
    toy = LawfulRuntime()
    calibrate([toy], seconds=60, threads=1)
    assert [text.partition(" ")[0] for text in toy.prepared[:2]] == ["small", "wide"]
