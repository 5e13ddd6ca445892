"""The T4's kernel models: the error that the catalogue states is that of rows which were not fitted."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import hardware_specs
from aiq.calibrate import held_out_error
from hardware_specs import KernelModel
from roofline.kernels import predict
from tests.real_data import real

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "t4_profile.py"
MODELS = {model.op: model for model in hardware_specs.load("t4").kernels}
# Mean |predicted / measured − 1| of rows that were not fitted.
TARGETS = {"linear": 0.15, "matmul": 0.18, "conv": 0.25, "elementwise": 0.10, "softmax": 0.10, "norm": 0.10}


@cache
def script() -> ModuleType:
    if not SCRIPT.exists():
        pytest.skip("no benchmarks beside the tests: run them from a checkout")
    spec = importlib.util.spec_from_file_location("t4_profile", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def rows() -> dict[str, list]:
    return script().read_rows(real("t4_kernels_fp32.csv"))


def test_the_catalogue_has_every_class() -> None:
    assert set(MODELS) == set(TARGETS)
    for model in MODELS.values():
        assert (model.runtime, model.traffic, model.rows, model.error.method) == ("eager", "unfused", 200, "held-out")
        assert "NeuSight" in model.source and "MIT" in model.source and "seed 20261121" in model.source


@pytest.mark.parametrize("op", TARGETS)
def test_the_error_on_rows_that_were_not_fitted(op: str) -> None:
    fitted, test = script().split(rows()[op])
    assert (len(fitted), len(fitted) + len(test)) == (200, len(rows()[op]))
    assert not {id(row) for row in fitted} & {id(row) for row in test}
    error = held_out_error(MODELS[op], test)
    assert error.mean_ape <= TARGETS[op]
    assert error.median_ape <= error.mean_ape
    assert error.coverage is not None and 0.85 <= error.coverage <= 0.95
    stated = MODELS[op].error
    assert (error.rows, error.interval, error.taper) == (stated.rows, stated.interval, stated.taper)
    for field in ("mean_ape", "median_ape", "p90_ape", "coverage"):
        assert getattr(error, field) == pytest.approx(getattr(stated, field), abs=2e-3), field


def test_the_bound_of_the_datasheet_is_far_from_the_same_rows() -> None:
    """What the models are for: the roofline of the same machine misses linear layers by more than a third."""
    t4 = hardware_specs.load("t4")
    _, test = script().split(rows()["linear"])
    seconds = np.array([row.seconds for row in test])
    bound = [max(row.work.flops / t4.ceiling("fp32"), row.work.bytes / t4.bandwidth(), t4.overhead_s) for row in test]
    assert np.mean(np.abs(np.array(bound) / seconds - 1)) > 1 / 3


def test_the_fit_that_is_shipped_can_be_made_again() -> None:
    """The cheapest class, fitted anew: parameters to within what another optimiser version may change."""
    fitted, test = script().split(rows()["elementwise"])
    again: KernelModel = script().fit_rows(fitted, test)
    shipped = MODELS["elementwise"]
    for field in ("bandwidth_bytes_per_s", "dispatch_s", "start_s"):
        assert getattr(again.form, field) == pytest.approx(getattr(shipped.form, field), rel=0.05)
    ratio = predict(again.form, test[0].work).total / predict(shipped.form, test[0].work).total
    assert ratio == pytest.approx(1.0, rel=0.05)
    assert (again.rows, again.source, again.traffic) == (shipped.rows, shipped.source, shipped.traffic)
