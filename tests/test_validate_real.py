"""Validations and agreement on the real runtimes, with few schemes; nothing here asks how fast they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiq._deployed import compare
from aiq.data import load
from aiq.registry import load_runtime
from roofline import Scheme
from tests.commands import run
from tests.validating import deployment

N = 40
RUNTIMES = ("openvino", "onnxruntime")
# Of nine layers; ONNX Runtime computes convolutions in floating point before a residual addition.
INTEGER = {"openvino": 8, "onnxruntime": 5}


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_validation(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name)
    monkeypatch.setattr("aiq._validate.Deployment", lambda _: deployment())
    code, out, err = run(
        "validate", "digits_cnn", "--runtime", name, "--hardware", "xeon-2vcpu", "--count", "5", "--batch", "2",
        "--rounds", "3", "--max-spread", "99", "--data", "digits", "--samples", str(N), "--format", "json",
    )  # fmt: skip
    assert code == 0, err
    data = json.loads(out)
    assert data["version"].startswith(f"{name} ")
    assert len(data["rows"]) == 5
    for row in data["rows"]:
        assert row["measured_throughput"] > 0
        assert sum(row["ran"].values()) == 9
        assert row["interval"] is None
    rows = {row["scheme"]: row for row in data["rows"]}
    assert rows["keep"]["ran"] == {"fp32": 9}
    assert rows["w8a8"]["ran"]["int8"] == INTEGER[name]
    profile = next(profile for profile in data["profiles"] if profile["scheme"] == "keep")
    times = [layer["measured_s"] for layer in profile["layers"]]
    assert min(times) >= 0.0  # OpenVINO counts whole microseconds
    assert sum(taken > 0 for taken in times) > len(times) // 2
    assert [found["agreeing"] for found in data["agreements"] if found["scheme"] == "w8a8"] == [N]


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_agrees_with_the_simulation(name: str) -> None:
    pytest.importorskip(name)
    x = load("digits", "report", limit=N).x
    found = compare(deployment(), load_runtime(name), Scheme.parse("w8a8"), x, locate=False)
    assert found.agreeing == N
    assert 0 < found.mean_logit_difference < 0.05 * found.logit_scale
    exact = compare(deployment(), load_runtime(name), Scheme(), x, locate=False)
    assert exact.largest_logit_difference < 1e-4 * exact.logit_scale
