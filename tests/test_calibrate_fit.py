"""The fit: it finds what made the rows, keeps only terms that help, and its intervals cover what they say."""

from __future__ import annotations

import numpy as np
import pytest

from aiq.calibrate import KernelRow, fit_kernels, held_out_error, kernel_rows
from hardware_specs import KernelForm, KernelModel, UnknownNameError
from roofline import estimate
from roofline.errors import InputError
from roofline.kernels import Work, predict
from tests.calibrated import CALIBRATED, DATE, SOURCE, matrix_work, measured, row_work
from tests.machines import zoo_graph

GEMM = KernelForm(
    rate_flops_per_s=2e11,
    bandwidth_bytes_per_s=1.5e10,
    overlap=0.5,
    start_s=4e-6,
    dispatch_s=9e-6,
    half_m=24.0,
    half_n=12.0,
    half_k=50.0,
)
STREAM = KernelForm(bandwidth_bytes_per_s=1.2e10, start_s=3e-6, dispatch_s=8e-6)


def fit(rows: list[KernelRow], **settings: float) -> list[KernelModel]:
    return fit_kernels(rows, source=SOURCE, date=DATE, **settings)  # type: ignore[arg-type]


def one(rows: list[KernelRow], **settings: float) -> KernelModel:
    (model,) = fit(rows, **settings)
    return model


def test_the_parameters_of_a_product_are_found_again() -> None:
    random = np.random.default_rng(1)
    model = one(measured(GEMM, matrix_work(random, 150), random, noise=0.03))
    for field, tolerance in (
        ("rate_flops_per_s", 0.05),
        ("half_m", 0.3),
        ("half_n", 0.3),
        ("half_k", 0.3),
    ):
        assert getattr(model.form, field) == pytest.approx(getattr(GEMM, field), rel=tolerance), field
    assert model.form.burst_gain == model.form.column_s == model.form.cache_bytes == 0.0
    assert model.error.median_ape < 0.03
    fresh = matrix_work(random, 500)
    assert np.median(np.abs(predict(model.form, fresh).total / predict(GEMM, fresh).total - 1)) < 0.02


def test_the_parameters_of_a_stream_are_found_again() -> None:
    random = np.random.default_rng(2)
    model = one(measured(STREAM, row_work(random, 60), random, noise=0.02, op="elementwise"))
    assert model.form.bandwidth_bytes_per_s == pytest.approx(1.2e10, rel=0.05)
    assert model.form.dispatch_s == pytest.approx(8e-6, rel=0.1)
    assert (model.form.rate_flops_per_s, model.form.reread_share, model.form.cache_bytes) == (None, 0.0, 0.0)
    assert (model.rows, model.error.method, model.error.rows) == (60, "k-fold", 60)


@pytest.mark.parametrize(
    ("op", "added", "products"),
    [
        ("linear", {"burst_gain": 1.5, "burst_s": 1e-4}, False),
        ("matmul", {"column_s": 3e-7}, True),
        ("softmax", {"reread_share": 0.6, "reread_length": 1000.0}, False),
        ("elementwise", {"cache_bytes": 1e6, "cache_bandwidth_bytes_per_s": 9e10}, False),
    ],
)
def test_a_term_that_is_there_is_found(op: str, added: dict[str, float], products: bool) -> None:
    random = np.random.default_rng(3)
    matrix = op in {"linear", "matmul"}
    work = matrix_work(random, 120, products=products) if matrix else row_work(random, 120)
    form = (GEMM if matrix else STREAM).model_copy(update=added)
    model = one(measured(form, work, random, noise=0.02, op=op), largest_cache_bytes=2e6)
    for field, value in added.items():
        assert getattr(model.form, field) == pytest.approx(value, rel=0.5), field
    assert model.error.median_ape < 0.03


def test_no_cache_term_without_a_cache() -> None:
    random = np.random.default_rng(4)
    form = STREAM.model_copy(update={"cache_bytes": 1e6, "cache_bandwidth_bytes_per_s": 9e10})
    rows = measured(form, row_work(random, 120), random, noise=0.02, op="elementwise")
    assert one(rows).form.cache_bytes == 0.0
    assert one(rows, largest_cache_bytes=3e5).form.cache_bytes <= 3e5


def test_wild_rows_do_not_bend_the_fit() -> None:
    random = np.random.default_rng(5)
    rows = measured(STREAM, row_work(random, 80), random, noise=0.02, op="elementwise")
    wild = [
        KernelRow(r.runtime, r.op, r.formats, r.work, r.seconds * (20.0 if i % 16 == 0 else 1.0))
        for i, r in enumerate(rows)
    ]
    assert one(wild).form.bandwidth_bytes_per_s == pytest.approx(1.2e10, rel=0.05)


def test_the_fit_is_deterministic_and_minds_no_order() -> None:
    random = np.random.default_rng(6)
    rows = measured(GEMM, matrix_work(random, 60), random, noise=0.05)
    assert fit(rows) == fit(list(rows))
    assert one(rows[::-1]).form.rate_flops_per_s == pytest.approx(one(rows).form.rate_flops_per_s, rel=0.01)


def test_one_model_for_each_runtime_class_and_format() -> None:
    random = np.random.default_rng(7)
    work = row_work(random, 20)
    rows = measured(STREAM, work, random, op="elementwise")
    rows += measured(STREAM, work, random, op="softmax")
    rows += measured(STREAM, work, random, op="transition", formats=("fp32", "int8"))
    rows += [KernelRow("other", r.op, r.formats, r.work, r.seconds) for r in rows[:20]]
    found = [(m.runtime, m.op, m.formats, m.error.method) for m in fit(rows)]
    assert found == [
        ("toyrun", "elementwise", ("fp32",), "leave-one-out"),
        ("toyrun", "softmax", ("fp32",), "leave-one-out"),
        ("toyrun", "transition", ("fp32", "int8"), "leave-one-out"),
        ("other", "elementwise", ("fp32",), "leave-one-out"),
    ]


def test_windows_that_differ_get_models_of_their_own() -> None:
    random = np.random.default_rng(8)
    slow = GEMM.model_copy(update={"rate_flops_per_s": 2e10})

    def rows(second: KernelForm) -> list[KernelRow]:
        found = measured(GEMM, matrix_work(random, 40), random, noise=0.02, op="conv", variant="3x3")
        return found + measured(second, matrix_work(random, 40), random, noise=0.02, op="conv", variant="1x1")

    assert [m.variants for m in fit(rows(GEMM))] == [("1x1", "3x3")]
    apart = {m.variants: m.form.rate_flops_per_s for m in fit(rows(slow))}
    assert apart == {("1x1",): pytest.approx(2e10, rel=0.1), ("3x3",): pytest.approx(2e11, rel=0.1)}


@pytest.mark.parametrize("scatter", [0.05, 0.3])
def test_intervals_cover_nine_tenths_of_fresh_rows(scatter: float) -> None:
    random = np.random.default_rng(9)
    covered = []
    for _ in range(4):
        model = one(measured(STREAM, row_work(random, 100), random, noise=scatter, op="elementwise"))
        fresh = measured(STREAM, row_work(random, 1000), random, noise=scatter, op="elementwise")
        error = held_out_error(model, fresh)
        assert (error.method, error.rows, error.interval) == ("held-out", 1000, model.error.interval)
        covered.append(error.coverage)
        assert model.error.coverage == pytest.approx(0.9, abs=0.05)
    assert 0.87 < np.mean(covered) < 0.94


def test_intervals_are_wider_where_times_scatter_more() -> None:
    random = np.random.default_rng(10)
    work = row_work(random, 150)
    rows = measured(STREAM, work, random, op="elementwise")
    noisy = []
    for row in rows:
        noise = 0.3 * (row.seconds / 1e-4) ** -0.4
        seconds = row.seconds * float(np.exp(noise * random.standard_normal()))
        noisy.append(KernelRow(row.runtime, row.op, row.formats, row.work, seconds))
    model = one(noisy)
    assert 0.2 <= model.error.taper <= 0.7
    assert one(measured(STREAM, work, random, noise=0.1, op="elementwise")).error.taper == 0.0


def test_few_rows_have_no_interval() -> None:
    random = np.random.default_rng(11)
    rows = measured(STREAM, row_work(random, 9), random, noise=0.05, op="elementwise")
    assert one(rows).error.interval is not None
    eight = one(rows[:8]).error
    assert (eight.interval, eight.coverage) == (None, None)
    assert held_out_error(one(rows[:8]), rows).coverage is None
    with pytest.raises(InputError) as caught:
        fit(rows[:7])
    assert str(caught.value) == (
        "elementwise fp32 on toyrun has 7 rows, at least 8 are needed. "
        "Next: measure more sizes, or leave the class out."
    )
    with pytest.raises(InputError, match="a held-out error needs rows"):
        held_out_error(one(rows), [])


def test_rows_of_a_model_are_fitted_by_what_predicts_them() -> None:
    """Times that a profile made, read back as rows, have the features that the profile saw."""
    graph = zoo_graph("resnet20")
    for scheme in ("fp32", "w8a8"):
        made = estimate(graph, CALIBRATED, scheme, batch=4, runtime="toyrun")
        times = {row.name: row.latency_s for row in made.layers if not row.lacking}
        rows = kernel_rows(graph, CALIBRATED, scheme, times, runtime="toyrun", batch=4)
        assert len(rows) == len(times) > 20
        models = {(m.op, f): m for m in CALIBRATED.kernels for f in m.formats}
        for row in rows:
            assert predict(models[row.op, row.formats[0]].form, row.work).total == row.seconds
    assert {(r.op, r.formats[0], r.variant) for r in rows} >= {("conv", "int8", "3x3/2"), ("conv", "fp32", "1x1/2")}
    with pytest.raises(UnknownNameError, match="unknown row 'conv11': did you mean 'conv1'"):
        kernel_rows(graph, CALIBRATED, "fp32", {"conv11": 1.0}, runtime="toyrun")


@pytest.mark.parametrize(
    ("seconds", "work"),
    [
        (0.0, Work(1, 1)),
        (-1.0, Work(1, 1)),
        (float("nan"), Work(1, 1)),
        (float("inf"), Work(1, 1)),
        (1.0, Work(1, 0)),
        (1.0, Work(-1, 1)),
        (1.0, Work(1, float("nan"))),
    ],
)
def test_rows_that_no_stopwatch_gives(seconds: float, work: Work) -> None:
    with pytest.raises(InputError, match=r"a row of elementwise needs finite numbers, .* Next: leave the row out"):
        KernelRow("toyrun", "elementwise", ("fp32",), work, seconds)


def test_a_class_that_is_none() -> None:
    with pytest.raises(UnknownNameError, match="unknown class of ops 'softmx': did you mean 'softmax'"):
        KernelRow("toyrun", "softmx", ("fp32",), Work(1, 1), 1.0)
