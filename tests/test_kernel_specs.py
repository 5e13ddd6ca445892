"""Kernel models in machine files: what is refused, in which words, and that what is written reads back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hardware_specs import SpecError, load, parse, read, to_json
from tests.calibrated import CALIBRATED, ONE_FLOAT
from tests.commands import run
from tests.refusals import ROOFLINE, refusal

MACHINE = """
name = "box"
title = "A box"
vendor = "Nobody"
kind = "cpu"
architecture = "unheard-of"

[compute.fp32]
value = 1.0e12
kind = "datasheet"
source = "vendor sheet, accessed 2026-11-21"

[[memory]]
name = "dram"

[memory.bandwidth_bytes_per_s]
value = 1.0e11
kind = "datasheet"
source = "vendor sheet, accessed 2026-11-21"
"""
KERNEL = """
[[kernels]]
runtime = "onnxruntime"
op = "conv"
formats = ["fp32"]
rows = 40
span = [1e6, 1e9]
source = "measured on a box, 2026-11-21"
date = "2026-11-21"

[kernels.form]
rate_flops_per_s = 5e11
bandwidth_bytes_per_s = 5e10

[kernels.error]
method = "k-fold"
rows = 40
mean_ape = 0.1
median_ape = 0.08
p90_ape = 0.2
interval = [0.8, 1.25]
coverage = 0.9
"""


def test_a_machine_with_a_kernel_model() -> None:
    spec = parse(MACHINE + KERNEL, "box.toml")
    (model,) = spec.kernels
    assert (model.label, model.kind, model.form.overlap) == ("conv fp32", "measured", 1.0)
    assert spec.runtimes == ("onnxruntime",)
    assert spec.time_label == "bound from datasheet peaks"
    assert spec.calibrated().time_label == "predicted by kernels calibrated for onnxruntime"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "rate_flops_per_s = 5e11",
            "rate_flops_per_s = -5e11",
            "form.rate_flops_per_s: Input should be greater than 0",
        ),
        ("rate_flops_per_s = 5e11", "rate_flops_per_s = nan", "form.rate_flops_per_s: Input should be"),
        ("bandwidth_bytes_per_s = 5e10", "bandwidth_bytes_per_s = inf", "form.bandwidth_bytes_per_s: Input should be"),
        ("bandwidth_bytes_per_s = 5e10", "", "form.bandwidth_bytes_per_s: Field required"),
        (
            "bandwidth_bytes_per_s = 5e10",
            "bandwidth_bytes_per_s = 5e10\noverlap = 1.5",
            "form.overlap: Input should be",
        ),
        (
            "bandwidth_bytes_per_s = 5e10",
            "bandwidth_bytes_per_s = 5e10\nburst_gain = 0.5",
            "form: burst_gain needs burst_s",
        ),
        (
            "bandwidth_bytes_per_s = 5e10",
            "bandwidth_bytes_per_s = 5e10\ncache_bytes = 10\ncache_bandwidth_bytes_per_s = 1e9",
            "form: cache_bandwidth_bytes_per_s must be at least bandwidth_bytes_per_s",
        ),
        ("bandwidth_bytes_per_s", "bandwith_bytes_per_s", "unknown key, did you mean 'bandwidth_bytes_per_s'?"),
        ('op = "conv"', 'op = "convolution"', "op: Input should be 'conv', 'depthwise_conv'"),
        ('formats = ["fp32"]', 'formats = ["fp33"]', "formats.0: Input should be 'fp64'"),
        ('formats = ["fp32"]', "formats = []", "formats: Tuple should have at least 1 item"),
        ("[0.8, 1.25]", "[1.25, 0.8]", "error: interval must hold 1 between its ends, got [1.25, 0.8]"),
        ("[0.8, 1.25]", "[0.0, 1.25]", "error.interval.0: Input should be greater than 0"),
        ("coverage = 0.9", "coverage = 90", "error.coverage: Input should be less than or equal to 1"),
        ("coverage = 0.9", "coverage = 0.9\ntaper = 0.5", "error: taper needs typical_s"),
        ("span = [1e6, 1e9]", "span = [1e9, 1e6]", "span must run from the least to the greatest"),
        ("rows = 40\nspan", "rows = 0\nspan", "rows: Input should be greater than or equal to 1"),
        ('date = "2026-11-21"', 'date = "yesterday"', "date: String should match pattern"),
        ('runtime = "onnxruntime"', 'runtime = "ONNX Runtime"', "runtime: String should match pattern"),
    ],
)
def test_nonsense_by_hand_is_one_sentence(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in KERNEL
    file = tmp_path / "box.toml"
    file.write_text(MACHINE + KERNEL.replace(old, new))
    for arguments in ((*ROOFLINE, "--hardware", str(file)), ("specs", "check", str(file))):
        message = refusal(*arguments)
        assert message.startswith(f"{file}: kernels.0")
        assert fault in message
        assert message.endswith("Next: mend these keys.")


def test_two_models_of_the_same_kernels_are_refused() -> None:
    with pytest.raises(SpecError, match="two kernel models of onnxruntime speak of conv fp32"):
        parse(MACHINE + KERNEL + KERNEL, "box.toml")
    windows = [KERNEL.replace("rows = 40\nspan", f'variants = ["{v}"]\nrows = 40\nspan') for v in ("3x3", "1x1")]
    assert len(parse(MACHINE + "".join(windows), "box.toml").kernels) == 2
    with pytest.raises(SpecError, match="two kernel models of onnxruntime speak of conv fp32 3x3"):
        parse(MACHINE + windows[0] + windows[0], "box.toml")


def test_calibrated_rates_need_their_kernels() -> None:
    with pytest.raises(SpecError, match="rates 'calibrated' need kernels of the runtime, got ''"):
        parse('rates = "calibrated"\n' + MACHINE + KERNEL, "box.toml")


def test_a_runtime_of_one_float_needs_kernels_too(tmp_path: Path) -> None:
    spec = parse('one_float_format = ["onnxruntime"]\n' + MACHINE + KERNEL, "box.toml")
    assert spec.one_float_format == ("onnxruntime",)
    assert spec.calibrated().computes_in_one_float
    assert not spec.computes_in_one_float
    assert (spec.rates_option, spec.calibrated().rates_option) == ("datasheet", "calibrated:onnxruntime")
    file = tmp_path / "box.toml"
    file.write_text('one_float_format = ["onnxruntime"]\n' + MACHINE + KERNEL)
    said = "onnxruntime computes all floating-point layers of a network in one format"
    assert said in run("specs", "show", str(file)).out
    for kernels, known in ((KERNEL, "onnxruntime"), ("", "none")):
        file.write_text('one_float_format = ["openvino"]\n' + MACHINE + kernels)
        assert refusal("specs", "check", str(file)) == (
            f"{file}: file: one_float_format needs kernels of the runtime, got 'openvino', known: {known}. "
            "Next: mend these keys."
        )


@pytest.mark.parametrize("name", ["calibrated", "one float", "t4"])
def test_what_is_written_as_json_reads_back(tmp_path: Path, name: str) -> None:
    one_float = ONE_FLOAT.model_copy(update={"rates": "datasheet", "runtime": ""})
    spec = {"calibrated": CALIBRATED, "one float": one_float}.get(name) or load(name)
    file = tmp_path / "machine.json"
    file.write_text(to_json(spec.calibrated()))
    assert read(file) == spec
    assert read(file).one_float_format == spec.one_float_format
    assert load(str(file)).kernels == spec.kernels
    assert "rates" not in json.loads(file.read_text())


@pytest.mark.parametrize(("text", "fault"), [("{", "malformed JSON"), ("[]", "Input should be"), ("nul", "malformed")])
def test_a_json_file_that_is_none(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "machine.json"
    file.write_text(text)
    assert fault in refusal(*ROOFLINE, "--hardware", str(file))


@pytest.mark.parametrize("rates", ["calibrated:", "datasheet:eager", "calibrate", ":"])
def test_rates_that_are_none(rates: str) -> None:
    assert refusal(*ROOFLINE, "--rates", rates) == (
        f"unknown rates {rates!r}: known: datasheet, sustained, calibrated[:RUNTIME]. Next: choose one."
    )


def test_calibrated_rates_on_the_command_line() -> None:
    command = ("roofline", "digits_cnn", "--traffic", "unfused", "--batch", "512", "--format")
    code, out, _ = run(*command, "json", "--rates", "calibrated:eager")
    found = json.loads(out)
    assert (code, found["rates"], found["calibration"]["runtime"]) == (0, "calibrated", "eager")
    low, high = found["latency_interval_s"]
    assert low < found["latency_s"] < high
    assert {m["op"] for m in found["calibration"]["models"]} == {"conv", "elementwise", "linear"}
    assert all(m["error"]["method"] == "held-out" and m["source"] for m in found["calibration"]["models"])
    by_model = {row["model"] for row in found["layers"]}
    assert {"conv fp32 3x3", "elementwise fp32", "linear fp32", None} == by_model
    code, out, _ = run(*command, "table", "--rates", "calibrated")
    assert "(predicted by kernels calibrated for eager, 90 % between " in out.splitlines()[0]
    assert "90 % interval" in out and "bound from" not in out.splitlines()[0]
    assert refusal(*ROOFLINE, "--rates", "calibrated", "--hardware", "l4") == (
        "l4 has no calibrated kernel models. Next: choose --rates datasheet or sustained."
    )
    assert "did you mean 'eager'?" in refusal(*ROOFLINE, "--rates", "calibrated:eagre")


def test_a_plan_tells_bounds_from_predictions() -> None:
    command = ("plan", "digits_cnn", "--probe", "0", "--batch", "512", "--rates")
    said = "times that are in good part bounds, for want of kernel models, and look too fast beside the others: "
    code, out, _ = run(*command, "calibrated", "--formats", "keep,w8,w8a8")
    assert code == 0
    (line,) = [line for line in out.splitlines() if said in line]
    assert "w8a8" in line
    for rates, formats in (("calibrated", "keep,w8"), ("sustained", "keep,w8,w8a8")):
        assert said not in run(*command, rates, "--formats", formats)[1]


def test_a_machine_shows_its_kernels() -> None:
    code, out, _ = run("specs", "show", "t4", "--format", "csv")
    assert code == 0
    assert "kernels.eager.conv fp32 3x3," in out
