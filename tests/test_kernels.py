"""The calibrated model of time: the formula by hand, its relations, and the rows that it prices."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import hardware_specs
from hardware_specs import KernelForm, SpecError, UnknownNameError
from roofline import CostTable, LayerPrecision, Precision, estimate, trace
from roofline.graph import Extents
from roofline.kernels import Kernels, Work, beside_of, combine, interval, predict
from roofline.traffic import Row, build_rows
from tests.calibrated import CALIBRATED, fit_error, kernel, profile, with_kernels
from tests.machines import FLAT, Fn, machine, zoo_graph

OPTIONS = tuple(LayerPrecision.parse(t) for t in ("keep", "w8", "w8a8", "w4a8", "w4a4", "bf16"))
BYTES = KernelForm(bandwidth_bytes_per_s=100.0)


def seconds(form: KernelForm, *work: float) -> float:
    return float(predict(form, Work(*work)).total)


def changed(**changes: float) -> KernelForm:
    return KernelForm.model_validate(BYTES.model_dump() | changes)


@pytest.mark.parametrize(
    ("form", "work", "expected"),
    [
        (BYTES, (7, 300), 3.0),
        (changed(start_s=1.0, dispatch_s=2.0), (0, 300), 4.0),
        (changed(start_s=1.0, dispatch_s=9.0), (0, 300), 9.0),
        (changed(rate_flops_per_s=10.0), (50, 300), 5.0),
        (changed(rate_flops_per_s=10.0, overlap=0.0), (50, 300), 8.0),
        (changed(rate_flops_per_s=10.0, overlap=0.75), (50, 300), 5.75),
        # Half of the rate at m = 4, and of that half at n = 2, and of that half at k = 1.
        (changed(rate_flops_per_s=10.0, half_m=4.0), (160, 0, 1, 4, 2, 10), 32.0),
        (changed(rate_flops_per_s=10.0, half_m=4.0, half_n=2.0), (160, 0, 1, 4, 2, 10), 64.0),
        (changed(rate_flops_per_s=10.0, half_m=4.0, half_n=2.0, half_k=10.0), (160, 0, 1, 4, 2, 10), 128.0),
        # 2 s at the rate, a gain of 3 of which half is left after 2 s: 2 / (1 + 1.5).
        (changed(rate_flops_per_s=10.0, burst_gain=3.0, burst_s=2.0), (20, 0), 0.8),
        (changed(column_s=0.1), (0, 300, 2, 5, 50, 5), 5.0),
        (changed(column_s=0.1), (0, 300, 1, 5, 50, 5), 3.0),
        # Rows of 15 values where rereading begins at 10: half of the extra share.
        (changed(reread_share=1.0, reread_length=10.0), (0, 300, 1, 1, 1, 15), 4.5),
        (changed(reread_share=1.0, reread_length=10.0), (0, 300, 1, 1, 1, 40), 6.0),
        (changed(cache_bytes=100.0, cache_bandwidth_bytes_per_s=1000.0), (0, 300), 2.1),
        (changed(cache_bytes=100.0, cache_bandwidth_bytes_per_s=1000.0), (0, 50), 0.05),
    ],
)
def test_the_formula_by_hand(form: KernelForm, work: tuple[float, ...], expected: float) -> None:
    assert seconds(form, *work) == pytest.approx(expected)


_amounts = st.floats(0.0, 100.0)
_rates = st.floats(1.0, 1e6)


@st.composite
def forms(draw: st.DrawFn) -> KernelForm:
    bandwidth = draw(_rates)
    return KernelForm(
        rate_flops_per_s=draw(st.none() | _rates),
        bandwidth_bytes_per_s=bandwidth,
        overlap=draw(st.floats(0, 1)),
        start_s=draw(_amounts),
        dispatch_s=draw(_amounts),
        half_m=draw(_amounts),
        half_n=draw(_amounts),
        half_k=draw(_amounts),
        burst_gain=draw(_amounts),
        burst_s=draw(st.floats(1e-3, 100.0)),
        column_s=draw(_amounts),
        reread_share=draw(_amounts),
        reread_length=draw(st.floats(1.0, 1e3)),
        cache_bytes=draw(_amounts),
        cache_bandwidth_bytes_per_s=bandwidth * draw(st.floats(1.0, 100.0)),
    )


def gemm(products: int, m: int, n: int, k: int) -> Work:
    return Work(2 * prod((products, m, n, k)), 4 * products * (m * k + k * n + m * n), products, m, n, k)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(forms(), st.tuples(*[st.integers(1, 2000)] * 4), st.integers(0, 3), st.integers(1, 500))
def test_more_work_is_never_faster(form: KernelForm, extents: tuple[int, ...], axis: int, more: int) -> None:
    larger = tuple(size + more * (index == axis) for index, size in enumerate(extents))
    small, large = (float(predict(form, gemm(*sizes)).total) for sizes in (extents, larger))  # type: ignore[arg-type]
    assert large >= small * (1 - 1e-12)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(forms(), st.tuples(*[st.integers(1, 2000)] * 4), st.floats(1.0, 100.0))
def test_a_faster_machine_is_never_slower(form: KernelForm, extents: tuple[int, ...], times: float) -> None:
    work = gemm(*extents)  # type: ignore[arg-type]
    for field in ("rate_flops_per_s", "bandwidth_bytes_per_s", "cache_bandwidth_bytes_per_s"):
        if value := getattr(form, field):
            faster = form.model_copy(update={field: value * times})
            assert predict(faster, work).total <= predict(form, work).total * (1 + 1e-12)


def test_many_rows_are_predicted_as_one_is() -> None:
    form = CALIBRATED.kernels[0].form
    rows = [gemm(1, m, 30, 50) for m in (1, 17, 400)]
    together = predict(form, Work(*np.array(rows, dtype=float).T)).total
    assert np.asarray(together).tolist() == [float(predict(form, row).total) for row in rows]


def test_extents_hold_the_macs_at_any_batch() -> None:
    def products(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.conv(x).flatten(2)  # type: ignore[operator]
        return (y @ y.transpose(1, 2)) @ m.weight

    layers = {
        "conv": nn.Conv2d(6, 8, 3, stride=(2, 1), groups=2, dilation=2),
        "weight": nn.Parameter(torch.zeros(8, 5)),
    }
    graphs = [
        zoo_graph("mobilenet_v2"),
        trace(Fn(products, **layers), torch.zeros(2, 6, 12, 12)),
        trace(nn.ConvTranspose2d(6, 4, 3, 2, groups=2), torch.zeros(2, 6, 9, 9)),
        trace(nn.MultiheadAttention(8, 2, batch_first=True), (torch.zeros(2, 5, 8),) * 3),
    ]
    seen = set()
    for graph in graphs:
        for batch in (graph.batch, 6):
            for row in build_rows(graph, traffic="unfused", batch=batch):
                if row.macs:
                    assert row.extents is not None, row.name
                    assert prod(row.extents[:4]) == row.macs, row.name
                    seen.add(f"{row.kind} {row.variant}".strip())
    assert {"conv 1x1", "depthwise_conv 3x3/2", "conv 3x3/2x1d2", "conv_transpose 3x3/2", "matmul", "linear"} <= seen


def test_the_extents_of_a_convolution() -> None:
    graph = trace(nn.Conv2d(6, 8, (3, 1), groups=2, bias=False), torch.zeros(4, 6, 10, 12))
    (row,) = build_rows(graph, traffic="paper", batch=4)
    assert row.extents is not None
    assert row.extents[:4] == (2, 4 * 8 * 12, 4, 9)
    assert row.variant == "3x1"


@pytest.mark.parametrize("traffic", ["paper", "unfused", "fused"])
@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "digits_cnn"])
def test_the_table_agrees_to_the_last_bit(name: str, traffic: str) -> None:
    graph = zoo_graph(name)
    table = CostTable(graph, CALIBRATED, OPTIONS, traffic=traffic, runtime="toyrun")
    assert table.has_transitions == (traffic != "paper")
    for choice in np.random.default_rng(0).integers(0, len(OPTIONS), (6, len(table.layers))):
        priced = estimate(graph, CALIBRATED, table.scheme(choice.tolist()), traffic=traffic, runtime="toyrun")
        scores = table.score(choice[None])
        assert scores.latency_s[0] == priced.latency_s
        assert scores.bytes[0] == priced.bytes
        assert priced.latency_interval_s is not None
        assert priced.latency_interval_s[0] < priced.latency_s < priced.latency_interval_s[1]


def test_a_row_takes_the_time_of_its_model() -> None:
    graph = trace(nn.Linear(64, 32, bias=False), torch.zeros(16, 64), name="net")
    (row,) = estimate(graph, CALIBRATED, "fp32", runtime="toyrun").layers
    moved = 4 * (16 * 64 + 64 * 32 + 16 * 32)
    compute = 2 * 16 * 32 * 64 / 1e11 * (1 + 4 / 16) * (1 + 8 / 64)
    assert row.latency_s == pytest.approx(2e-6 + max(compute, moved / 1e10) + 0.5 * min(compute, moved / 1e10))
    assert row.interval_s == (pytest.approx(0.8 * row.latency_s), pytest.approx(1.25 * row.latency_s))
    assert row.model is not None and row.model.label == "linear fp32"
    assert set(row.seconds) == {"compute", "dram", "overhead"}
    assert (row.bound, row.lacking, row.extrapolated) == ("overhead", "", False)


def test_without_a_runtime_nothing_is_calibrated() -> None:
    graph = zoo_graph("digits_cnn")
    bound = estimate(graph, CALIBRATED)
    assert bound.to_dict()["calibration"] is None
    assert bound.latency_interval_s is None
    assert all(row.model is None and row.interval_s is None for row in bound.layers)
    assert bound.latency_s == estimate(graph, CALIBRATED.model_copy(update={"kernels": ()})).latency_s
    assert bound.assumptions[0].startswith("time is a lower bound")


def test_an_integer_without_a_ceiling_runs_in_a_wider_format() -> None:
    graph = trace(nn.Linear(64, 32), torch.zeros(16, 64), name="net")
    row = estimate(graph, CALIBRATED, "w4a4", runtime="toyrun").layers[0]
    assert row.model is not None and row.model.formats == ("int8",)
    assert row.ceiling.format == "int8"
    assert row.reason == "int4 is widened to int8: no int4 kernel of toyrun"


def test_a_slower_narrow_kernel_is_believed() -> None:
    """A datasheet bound would widen INT8 to the faster FP32; a stopwatch says what the runtime does."""
    slow = with_kernels(FLAT, kernel("linear", "fp32"), kernel("linear", "int8", start_s=1.0))
    graph = trace(nn.Linear(64, 32), torch.zeros(16, 64))
    fast, quantized = (estimate(graph, slow, scheme, runtime="toyrun") for scheme in ("fp32", "w8a8"))
    assert quantized.latency_s > 1.0 > fast.latency_s


def test_a_format_that_was_not_measured_is_a_bound_and_said_so() -> None:
    some = with_kernels(FLAT, *profile("fp32"))
    graph = zoo_graph("resnet20")
    result = estimate(graph, some, "w8a8", runtime="toyrun")
    widened = {row.name for row in result.layers if row.model}
    assert widened == {"layer2.0.shortcut.0", "layer3.0.shortcut.0"}  # their weights are kept, and meet INT8 in FP32
    assert set(result.uncalibrated) == {"conv int8 3x3", "conv int8 3x3/2", "pool int8", "linear int8"}
    bounds = {row.name: row.latency_s for row in estimate(graph, FLAT, "w8a8").layers}
    assert {r.name: r.latency_s for r in result.layers if not r.model} == {
        name: seconds for name, seconds in bounds.items() if name not in widened
    }
    assert result.latency_interval_s is None


def test_a_window_that_was_not_measured_is_a_bound_and_said_so() -> None:
    three = [m for m in profile("fp32") if m.op != "conv"]
    some = with_kernels(FLAT, *three, kernel("conv", "fp32", variants=("3x3",), span=(1e6, 1e7)))
    result = estimate(zoo_graph("resnet20"), some, runtime="toyrun")
    shares = {"conv fp32 3x3/2": 0.0, "conv fp32 1x1/2": 0.0}
    for row in result.layers:
        if row.lacking:
            shares[row.lacking] += row.latency_s / result.latency_s
    assert result.uncalibrated == pytest.approx(shares)
    far = [row for row in result.layers if row.extrapolated]
    assert [row.name for row in far][:1] == ["conv1"]  # below the span of the fit: 0.93 MFLOP
    assert len(far) == 17
    assert result.extrapolated_share == pytest.approx(sum(row.latency_s for row in far) / result.latency_s)
    assert result.assumptions[:4] == (
        "time is predicted, not measured, by kernel models calibrated for toyrun on Toy machine (2026-11-21); median "
        "error on rows not fitted: conv fp32 3x3 8.0 %, pool fp32 8.0 %, linear fp32 8.0 %",
        "no kernel model, priced by the bound from sustained or datasheet rates, of the total time: "
        "conv fp32 3x3/2 1.7 %, conv fp32 1x1/2 0.8 %",
        "extrapolated beyond the sizes that were fitted: 17 rows, 96.1 % of time",
        "90 % interval of the total: 20.0 % of each row's variance is common to all rows, the rest independent",
    )


def test_a_change_of_format_costs_what_was_measured_in_fused_traffic() -> None:
    graph = trace(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8)), torch.zeros(16, 64))
    result = estimate(graph, CALIBRATED, "fp32,1=w8a8", runtime="toyrun")
    (change,) = result.transitions
    assert change.bytes == 16 * 64 * 5
    assert change.latency_s == pytest.approx(16 * 64 * 5 / 5e9)
    assert change.model is not None and change.model.op == "transition"
    assert result.latency_s == pytest.approx(sum(row.latency_s for row in result.rows))
    without = with_kernels(CALIBRATED.model_copy(update={"kernels": ()}), *profile("fp32", "int8", transitions=False))
    assert estimate(graph, without, "fp32,1=w8a8", runtime="toyrun").transitions[0].latency_s == 0.0


def test_scattered_integers_lose_what_their_transitions_cost() -> None:
    graph = zoo_graph("resnet20")
    scheme = ",".join(["fp32", *(f"{layer}=w8a8" for layer in graph.layers[::2])])
    alternating, uniform = (estimate(graph, CALIBRATED, s, runtime="toyrun") for s in (scheme, "w8a8"))
    assert sum(t.latency_s for t in alternating.transitions) > 0.1 * uniform.latency_s
    assert not uniform.transitions


def test_the_interval_of_a_sum() -> None:
    assert combine(10.0, []) == (10.0, 10.0)
    assert combine(10.0, [(1.0, 2.0)]) == (pytest.approx(9.0), pytest.approx(12.0))
    # Four equal rows: d² = 0.2 · 16 + 0.8 · 4.
    low, high = combine(10.0, [(1.0, 2.0)] * 4)
    assert (10 - low, high - 10) == (pytest.approx(6.4**0.5), pytest.approx(2 * 6.4**0.5))
    assert combine(1.0, [(1.0, 0.0)] * 4)[0] == 0.0
    assert combine(10.0, [(1.0, 1.0)] * 4, 0.0) == (8.0, 12.0)
    assert combine(10.0, [(1.0, 1.0)] * 4, 1.0) == (6.0, 14.0)


def test_the_interval_has_the_common_variance_that_calibration_found() -> None:
    graph = zoo_graph("digits_cnn")
    own, told = (
        estimate(graph, machine, runtime="toyrun")
        for machine in (CALIBRATED, CALIBRATED.model_copy(update={"common_variance": {"toyrun": 1.0}}))
    )
    assert (own.common_variance, told.common_variance) == (0.2, 1.0)
    assert own.latency_interval_s
    assert told.latency_interval_s
    assert told.latency_interval_s[1] > own.latency_interval_s[1]
    assert "100.0 % of each row's variance is common" in " ".join(told.assumptions)


@pytest.mark.parametrize(
    ("writer", "reader", "narrows", "place"),
    [
        (("linear", 4), ("linear", 4), True, "other"),
        (("conv", 4), ("linear", 4), True, "pixel"),
        (("linear", 4), ("depthwise_conv", 4), True, "pixel"),
        (("conv", 4), ("conv", 4), False, "conv"),
        (("conv", 64), ("conv", 4), True, "conv"),
    ],
)
def test_what_lies_beside_a_change_of_format(
    writer: tuple[str, int], reader: tuple[str, int], narrows: bool, place: str
) -> None:
    def row(kind: str, positions: int) -> Row:
        extents = Extents(1, positions, 8, 8)
        return Row("a", kind, "a", "a", 1, 0, (), (), (), "", extents, "", 4 if kind != "linear" else 1)

    assert beside_of(row(*writer), row(*reader), narrows=narrows) == place


def test_a_pixel_without_a_model_of_its_own_takes_that_of_convolutions() -> None:
    model = next(m for m in CALIBRATED.kernels if m.op == "transition")
    conv, pixel = (model.model_copy(update={"variants": (name,)}) for name in ("conv", "pixel"))
    ends = [Row("a", "conv", "a", "a", 1, 0, (), (), (), "", Extents(1, 4, 8, 8), "", 4)] * 2
    for models, wide, narrow in (((conv, pixel), conv, pixel), ((conv,), conv, conv)):
        kernels = Kernels(with_kernels(CALIBRATED, *models).calibrated("toyrun"))
        assert kernels.transition(Precision.parse("int8"), Precision.parse("fp32"), *ends) == wide
        assert kernels.transition(Precision.parse("fp32"), Precision.parse("int8"), *ends) == narrow


def test_the_interval_narrows_with_size_within_limits() -> None:
    model = kernel("linear", error=fit_error(interval=(0.5, 2.0), typical_s=1.0, taper=1.0))
    assert interval(model, 1.0) == (0.5, 2.0)
    assert interval(model, 2.0) == (pytest.approx(2 * 0.5**0.5), pytest.approx(2 * 2**0.5))
    assert interval(model, 1e-9) == (pytest.approx(1e-9 / 8), pytest.approx(8e-9))
    assert interval(model, 1e9) == (pytest.approx(1e9 * 0.5 ** (1 / 3)), pytest.approx(1e9 * 2 ** (1 / 3)))
    assert interval(kernel("linear", error=fit_error(interval=None)), 1.0) is None


def test_no_interval_where_a_tenth_of_the_time_has_none() -> None:
    graph = trace(nn.Sequential(nn.Linear(64, 64), nn.Conv1d(16, 8, 1)), torch.zeros(16, 64))
    known = with_kernels(FLAT, kernel("linear", dispatch_s=1.0))
    assert estimate(graph, known, runtime="toyrun").latency_interval_s is not None
    known = with_kernels(machine(overhead=0.2), kernel("linear", dispatch_s=1.0))
    result = estimate(graph, known, runtime="toyrun")
    assert result.latency_interval_s is None
    assert "no interval of the total: more than 10.0 % of time has none" in result.assumptions


def test_which_runtime() -> None:
    graph = zoo_graph("digits_cnn")
    with pytest.raises(SpecError) as caught:
        estimate(graph, FLAT, runtime="eager")
    assert str(caught.value) == ("toy has no calibrated kernel models. Next: choose --rates datasheet or sustained.")
    both = with_kernels(FLAT, kernel("conv"), kernel("conv", runtime="other"))
    with pytest.raises(SpecError) as caught:
        both.calibrated()
    assert str(caught.value) == (
        "toy has kernel models of several runtimes: toyrun, other. "
        "Next: choose one, for instance --rates calibrated:toyrun."
    )
    with pytest.raises(UnknownNameError, match=r"unknown runtime of toy 'othr': did you mean 'other'\?"):
        CostTable(graph, both, OPTIONS, runtime="othr")
    assert CALIBRATED.calibrated().runtime == "toyrun"
    assert hardware_specs.load("t4").calibrated().time_label == "predicted by kernels calibrated for eager"


def test_a_runtime_is_measured_with_its_own_fusion() -> None:
    eager = with_kernels(FLAT, *(m.model_copy(update={"traffic": "unfused"}) for m in profile("fp32")))
    said = "the kernels of toyrun were measured as unfused traffic describes them"
    for traffic, there in (("fused", True), ("unfused", False)):
        found = estimate(zoo_graph("digits_cnn"), eager, traffic=traffic, runtime="toyrun")
        assert (said in found.assumptions) == there


@pytest.mark.parametrize(("scheme", "intensity"), [("fp32", 29.850), ("w8", 42.303), ("w4", 45.464)])
def test_the_figures_of_the_paper_stay(scheme: str, intensity: float) -> None:
    found = estimate(zoo_graph("resnet20"), CALIBRATED, scheme, traffic="paper", runtime="toyrun")
    assert round(found.arithmetic_intensity, 3) == intensity
