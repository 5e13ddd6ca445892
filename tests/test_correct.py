"""Kernel models with a correction by size: what they learn, what they say of layers left out, and how they are read."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from aiq.calibrate._correct import fit_corrected
from aiq.calibrate._models import common_variance
from aiq.calibrate._rows import KernelRow, Values
from hardware_specs import Correction, KernelModel
from roofline.kernels import Work, corrected, features, predict, work_of
from roofline.traffic import Row, build_rows
from tests.machines import zoo_graph

STATED: dict[str, Any] = {"source": "made up for a test, 2026-11-21", "date": "2026-11-21", "versions": {}}
POINTS = ((0.0,) * 8, (1.0,) * 8)


def seconds(work: Work) -> float:
    """Return what a made-up machine takes: 100 GFLOP/s, but four times slower on one pixel a sample."""
    pixels = float(np.asarray(work.m)) / float(np.asarray(work.samples))
    return 2e-6 + float(np.asarray(work.flops)) / 1e11 * (1.0 + 3.0 / pixels)


def rows(*, noise: float = 0.0) -> list[KernelRow]:
    random, found = np.random.default_rng(0), []
    for pixels in (1, 4, 16, 64, 256, 1024):
        for channels in (16, 48, 128, 384):
            for samples in (1, 32):
                m = pixels * samples
                work = Work(2.0 * m * channels * channels, 4.0 * m * channels, 1, m, channels, channels, samples)
                taken = seconds(work) * float(np.exp(noise * random.standard_normal()))
                found.append(KernelRow("toyrun", "conv", ("fp32",), work, taken, layer=f"{pixels} {channels}"))
    return found


def apart(model: KernelModel, found: list[KernelRow]) -> float:
    return float(np.median([abs(float(corrected(model, row.work).total) / row.seconds - 1.0) for row in found]))


def test_a_correction_learns_what_the_form_cannot_say() -> None:
    (model,) = fit_corrected(rows(), **STATED)
    plain = model.model_copy(update={"correction": None})
    assert apart(model, rows()) < 0.03
    assert apart(plain, rows()) > 3 * apart(model, rows())
    between = Work(2.0 * 32 * 8 * 90 * 90, 4.0 * 32 * 8 * 90, 1, 32 * 8, 90, 90, 32)
    assert float(corrected(model, between).total) == pytest.approx(seconds(between), rel=0.12)


def test_the_error_is_that_of_layers_left_out_at_all_batch_sizes() -> None:
    (model,) = fit_corrected(rows(noise=0.1), **STATED)
    assert model.error.method == "k-fold"
    assert model.error.rows == 48
    assert 0.04 < model.error.median_ape < 0.3
    assert apart(model, rows(noise=0.1)) < model.error.median_ape
    assert model.error.interval is not None
    assert model.error.interval[0] < 1.0 < model.error.interval[1]
    assert 0.8 <= (model.error.coverage or 0.0) <= 1.0


def test_far_from_all_that_was_measured_the_form_speaks_alone() -> None:
    (model,) = fit_corrected(rows(), **STATED)
    far = Work(1e15, 1e12, 1e4, 1e6, 1e6, 1e6, 1, 49, 4, 100)
    assert float(corrected(model, far).total) == pytest.approx(float(predict(model.form, far).total), rel=0.02)


def test_integer_convolutions_are_apart_by_what_becomes_of_their_results() -> None:
    found = [replace(row, formats=("int8",), roundable=place % 4 > 1) for place, row in enumerate(rows())]
    slow = [replace(row, seconds=row.seconds * (1 if row.roundable else 3)) for row in found]
    models = {model.rounded: model for model in fit_corrected(slow, **STATED)}
    assert set(models) == {True, False}
    assert {model.label for model in models.values()} == {"conv int8 rounded", "conv int8 not rounded"}
    work = found[20].work
    ratio = float(corrected(models[False], work).total) / float(corrected(models[True], work).total)
    assert ratio == pytest.approx(3.0, rel=0.3)
    (alike,) = fit_corrected(rows(), **STATED)
    assert alike.rounded is None


def test_all_parts_of_a_time_are_corrected() -> None:
    (model,) = fit_corrected(rows(), **STATED)
    work = rows()[7].work
    plain, found = predict(model.form, work), corrected(model, work)
    factors = [float(np.asarray(a) / np.asarray(b)) for a, b in zip(found, plain, strict=True)]
    assert factors == pytest.approx([factors[0]] * 4)
    assert factors[0] != pytest.approx(1.0, abs=0.01)


def test_features_tell_samples_from_positions() -> None:
    one, many = features(Work(1.0, 1.0, 1, 64, 8, 8, 1)), features(Work(1.0, 1.0, 1, 64 * 32, 8, 8, 32))
    assert one[0] == many[0] == pytest.approx(np.log(64))
    assert (one[1], many[1]) == (0.0, pytest.approx(0.5 * np.log(32)))
    stacked = features(Work(*(np.array([v, v], dtype=float) for v in Work(1.0, 1.0, 1, 64, 8, 8, 1))))
    assert stacked.shape == (2, 8)
    assert stacked[0].tolist() == one.tolist()


def fused(network: str) -> dict[str, Row]:
    return {row.name: row for row in build_rows(zoo_graph(network), traffic="fused", batch=4)}


def test_the_work_of_a_row_has_its_window_and_its_batch() -> None:
    found = fused("resnet20")
    work = work_of(found["layer2.0.conv1"], 1000)
    assert (work.taps, work.stride, work.samples, work.m) == (9, 2, 4, 4 * 256)
    assert work_of(found["linear"], 1000)[6:9] == (1, 1, 1)


def test_a_result_is_roundable_where_matrix_work_alone_reads_it() -> None:
    residual = {name: row.roundable for name, row in fused("resnet20").items()}
    assert residual["layer1.0.conv1"]  # ReLU lies between
    assert not residual["layer1.0.conv2"]  # an addition reads it
    assert not residual["layer2.0.shortcut.0"]  # so it does this one
    assert not residual["linear"]  # what leaves the network
    mobile = {name: row.roundable for name, row in fused("mobilenet_v2").items()}
    assert mobile["features.0.0"]  # ReLU6 lies between
    assert mobile["features.2.conv.0.0"]
    assert not mobile["features.3.conv.2"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"length": 0.0, "points": POINTS, "weights": (1.0, 1.0)}, "greater than 0"),
        ({"length": 1.0, "points": POINTS, "weights": (1.0,)}, "one weight for each point"),
        ({"length": 1.0, "points": ((0.0,) * 7,), "weights": (1.0,)}, "points of 8 features"),
        ({"length": 1.0, "points": (), "weights": ()}, "at least 1 item"),
        ({"length": 1.0, "points": POINTS, "weights": (1.0, float("nan"))}, "finite"),
    ],
)
def test_nonsense_is_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Correction(**given)


def passes(common: float) -> list[tuple[KernelModel, list[KernelRow], Values]]:
    """Return a model with rows of 40 passes, whose errors are common to all of a pass by this share of the variance."""
    random = np.random.default_rng(0)
    model = fit_corrected(rows(), **STATED)[0]
    width = math.log(1.2)
    model = model.model_copy(update={"error": model.error.model_copy(update={"interval": (1 / 1.2, 1.2)})})
    own, errors = [], []
    for number in range(40):
        shared = math.sqrt(common) * random.standard_normal()
        for row in rows()[:30]:
            error = width / 1.645 * (shared + math.sqrt(1 - common) * random.standard_normal())
            errors.append(error)
            own.append(replace(row, seconds=1e-3 * math.exp(error), run=str(number)))
    return [(model, own, np.array(errors))]


@pytest.mark.parametrize("common", [0.0, 0.3, 1.0])
def test_how_much_of_the_variance_is_common_is_found_from_whole_passes(common: float) -> None:
    assert common_variance(passes(common)) == pytest.approx(common, abs=0.2)
    ((model, own, errors),) = passes(common)
    assert common_variance([(model, own[:240], errors[:240])]) is None
