"""What a calibration measures: steps put down to rows, passes shared out, transitions, and what fits the time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aiq._model import Model
from aiq.calibrate._attribution import attribute
from aiq.calibrate._measure import (
    Changes,
    Job,
    Pass,
    Probing,
    RuntimeTimes,
    _mixed,
    measure_runtime,
    measured_changes,
    measured_rows,
    overhead_s,
    spread_over,
    with_enough,
)
from aiq.calibrate._models import fit_changes, scaled
from aiq.calibrate._probes import probes
from aiq.calibrate._rows import KernelRow
from aiq.runtimes import DeployError, Step
from hardware_specs import KernelForm
from roofline import OpGraph
from roofline.kernels import Work, predict
from roofline.traffic import Row, build_rows
from tests.calibrating import CHANGE, NAME, LawfulRuntime, changes, job, known_times, law, probing, small_probes


class Mixer(nn.Module):
    """A layer, attention, a layer, a pooling and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.first(x).chunk(3, -1)
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        found: torch.Tensor = self.last(F.max_pool1d(self.second(mixed), 2))
        return found


@pytest.fixture(scope="module")
def mixer() -> tuple[OpGraph, tuple[Row, ...]]:
    graph = Model("mixer", Mixer().eval(), torch.empty(1, 4, 8, device="meta")).trace()
    rows = build_rows(graph, traffic="fused", batch=1)
    assert [row.kind for row in rows] == ["linear", "matmul", "softmax", "matmul", "linear", "pool", "linear"]
    return graph, rows


def step(kind: str, seconds: float, *layers: str, name: str = "a step") -> Step:
    return Step(name, kind, layers, kind, seconds)


ENDS = step("Gemm", 1.0, "first"), step("Gemm", 2.0, "second"), step("Gemm", 4.0, "last")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param(ENDS, [1, 0, 0, 0, 2, 0, 4], id="layers"),
        pytest.param(
            (ENDS[0], step("MatMul", 8), step("Softmax", 16), step("FusedMatMul", 32), *ENDS[1:]),
            [1, 8, 16, 32, 2, 0, 4],
            id="each by its kind",
        ),
        pytest.param(
            (ENDS[0], step("Transpose", 3), step("Subgraph", 9), *ENDS[1:]),
            [1, 4, 4, 4, 2, 0, 4],
            id="one kernel for all",
        ),
        pytest.param(
            (ENDS[0], ENDS[1], step("MaxPool", 8), step("Add", 16), ENDS[2]), [1, 0, 0, 0, 2, 24, 4], id="pool"
        ),
        pytest.param((*ENDS, step("Reorder", 8)), [1, 0, 0, 0, 2, 0, 12], id="after the last"),
        pytest.param((step("Reorder", 8), *ENDS), [9, 0, 0, 0, 2, 0, 4], id="before the first"),
        pytest.param(
            (ENDS[0], step("QuantizeLinear", 8, name="quantize:mixed/second"), *ENDS[1:]),
            [1, 0, 0, 0, 10, 0, 4],
            id="conversion for a layer",
        ),
        pytest.param(
            (ENDS[0], step("Reorder", 8, name="x_abcd_acdb_layer:last;/kernel"), *ENDS[1:]),
            [1, 0, 0, 0, 2, 0, 12],
            id="conversion with a label",
        ),
        pytest.param((*ENDS, step("Cast", math.nan, "last")), [1, 0, 0, 0, 2, 0, 4], id="without a time"),
    ],
)
def test_steps_belong_to_rows(
    mixer: tuple[OpGraph, tuple[Row, ...]], steps: tuple[Step, ...], expected: list[float]
) -> None:
    found = attribute(*mixer, steps, np.ones(7))
    assert found.tolist() == expected
    assert found.sum() == sum(s.seconds for s in steps if math.isfinite(s.seconds))


def test_rows_add_up_to_the_pass() -> None:
    rows = np.array([1.0, 0.0, 3.0])
    assert spread_over(rows, 2.0, 0.0).tolist() == [0.5, 0.0, 1.5]
    assert spread_over(rows, 6.0, 1.0).tolist() == [2.0, 0.0, 4.0]
    assert spread_over(np.zeros(2), 6.0, 1.0).tolist() == [0.0, 0.0]
    # Taking the time cost half a second a row, of which the first leaves a quarter of itself.
    assert spread_over(np.array([0.5, 0.0, 3.0]), 2.625, -0.5).tolist() == [0.125, 0.0, 2.5]


def test_the_overhead_of_a_row_is_what_passes_of_many_short_rows_take_longer() -> None:
    profiles = [np.full(count, seconds) for count, seconds in ((10, 1e-6), (50, 2e-6), (20, 1e-3), (50, 1e-3))]
    walls = [1.05 * float(rows.sum()) + 4e-6 * len(rows) for rows in profiles]
    assert overhead_s(profiles, walls) == pytest.approx(4e-6)
    assert overhead_s(profiles, [0.9 * float(rows.sum()) for rows in profiles]) == pytest.approx(0.0, abs=1e-12)
    assert overhead_s(profiles, [float(rows.sum()) - 5e-7 * len(rows) for rows in profiles]) == pytest.approx(-5e-7)
    assert overhead_s(profiles[:2], walls[:2]) == 0.0


def times(found: Probing, mixed: Any = None) -> RuntimeTimes:
    done = [
        Pass(each, 1.0, 0.0, np.array(law(found, each.scheme, 8)))
        for each in (job(found, "fp32", 8), job(found, "int8", 8))
    ]
    passes = (*done, *([mixed] if mixed else []))
    return RuntimeTimes(NAME, "lawful 1.0", ("fp32", "int8"), passes, {}, 0, None, True)


def test_changes_of_format_take_what_a_mixed_pass_takes_beyond_its_rows() -> None:
    found = probing(small_probes()[0])
    scheme = _mixed(found, ("int8", "fp32"), None)
    price = changes(found, scheme, 8)
    assert len(price) > 5
    mixed = Pass(Job(found, "int8+fp32", scheme, 8), sum(law(found, scheme, 8)) + sum(price), 0.0, None)
    (each,) = measured_changes(times(found, mixed))
    assert (each.formats, sum(each.counts.values()), each.pass_s) == (("int8", "fp32"), len(price), mixed.seconds)
    assert set(each.counts) == set(each.bytes) == {"conv", "other"}
    assert each.seconds == pytest.approx(sum(price))
    mean = sum(each.bytes.values()) / len(price)
    assert sum(predict(CHANGE, Work(1.0, mean)).total for _ in price) == pytest.approx(sum(price))


def test_changes_between_formats_that_were_not_measured_alone_tell_nothing() -> None:
    found = probing(small_probes()[0])
    mixed = Pass(Job(found, "int8+bf16", _mixed(found, ("int8", "bf16"), None), 8), 1.0, 0.0, None)
    assert measured_changes(times(found, mixed)) == []


STATED: dict[str, Any] = {
    "runtime": NAME,
    "source": "made up for a test, on no machine at all, 2026-11-21",
    "date": "2026-11-21",
    "versions": {},
}


def made_changes(*, noise: float = 0.0, pair: tuple[str, str] = ("int8", "fp32")) -> list[Changes]:
    """Return passes whose changes take 3 µs and 5 GB/s each beside convolutions, 1 µs and 40 GB/s elsewhere."""
    random = np.random.default_rng(0)
    found = []
    for count, other in ((4, 9), (9, 1), (20, 30), (40, 3)):
        for size in (1e3, 2e4, 3e5, 4e6):
            seconds = count * (3e-6 + size / 5e9) + other * (1e-6 + 2 * size / 40e9)
            whole = 1e-4 + 2 * seconds
            counts, moved = {"conv": count, "other": other}, {"conv": count * size, "other": other * 2 * size}
            found.append(Changes(pair, counts, moved, seconds + noise * whole * random.standard_normal(), whole))
    return found


@pytest.mark.parametrize(("noise", "rel"), [(0.0, 1e-3), (0.002, 0.15)])
def test_the_price_of_changes_is_found_beside_convolutions_and_elsewhere(noise: float, rel: float) -> None:
    model, other = fit_changes(made_changes(noise=noise), **STATED)
    assert (model.label, other.label) == ("transition int8/fp32 conv", "transition int8/fp32 other")
    assert model.form.start_s == pytest.approx(3e-6, rel=rel)
    assert model.form.bandwidth_bytes_per_s == pytest.approx(5e9, rel=rel)
    assert other.form.bandwidth_bytes_per_s == pytest.approx(40e9, rel=3 * rel)
    assert model.rows == other.rows == 16
    assert (model.error.median_ape < 1e-3) is (noise == 0.0)
    assert model.error.interval


def test_changes_that_cost_nothing_have_a_model_that_says_so() -> None:
    free = [Changes(("int8", "fp32"), {"conv": 5}, {"conv": 1e6}, -1e-5, 1e-3)] * 4
    (model,) = fit_changes(free, **STATED)
    assert predict(model.form, Work(1.0, 1e6)).total < 1e-6


def test_each_pair_of_formats_has_its_own_model_and_three_passes_have_none() -> None:
    rows = [*made_changes(), *made_changes(pair=("int8", "bf16"))[:3], *made_changes(pair=("fp32", "bf16"))[:4]]
    found = [model.formats for model in fit_changes(rows, **STATED)]
    assert found == [("int8", "fp32")] * 2 + [("fp32", "bf16")] * 2


def test_rows_of_uniform_schemes_have_their_formats() -> None:
    found = measured_rows(times(probing(small_probes()[0])))
    assert {(row.op, row.formats) for row in found} == {
        (op, (fmt,)) for op in ("conv", "linear", "pool", "reduction") for fmt in ("fp32", "int8")
    }
    assert sum(row.op == "conv" for row in found) == 20


def kernel_row(op: str, fmt: str) -> KernelRow:
    return KernelRow(NAME, op, (fmt,), Work(1.0, 1.0), 1.0)


def test_small_formats_are_joined_and_small_classes_left_out() -> None:
    rows = [kernel_row("conv", "fp32")] * 5 + [kernel_row("conv", "int8")] * 5
    rows += [kernel_row("pool", "fp32")] * 3 + [kernel_row("pool", "int8")] * 2 + [kernel_row("softmax", "fp32")] * 3
    kept, short = with_enough(rows, 4, 5)
    assert {(row.op, row.formats) for row in kept} == {
        ("conv", ("fp32",)),
        ("conv", ("int8",)),
        ("pool", ("fp32", "int8")),
    }
    assert short == ["softmax"]


def test_a_scaled_form_takes_so_many_times_as_long() -> None:
    form = KernelForm(
        rate_flops_per_s=1e11, bandwidth_bytes_per_s=1e10, start_s=1e-6, dispatch_s=2e-6, overlap=0.5, burst_gain=1.0,
        burst_s=1e-5, column_s=1e-7, cache_bytes=1e4, cache_bandwidth_bytes_per_s=4e10,
    )  # fmt: skip
    for work in (Work(1e3, 1e3), Work(1e7, 1e5, 4, 10, 10, 10), Work(1e9, 1e8)):
        assert predict(scaled(form, 1.7), work).total == pytest.approx(1.7 * float(predict(form, work).total), rel=1e-3)


def test_jobs_that_find_no_time_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    known_times(monkeypatch)
    found = measure_runtime(LawfulRuntime(), [probing(small_probes()[0])], seconds=0.0)
    assert [(done.job.label, done.job.batch) for done in found.passes] == [("fp32", 32)]
    assert found.left_out == 9
    assert found.refused == {"bf16": "no"}
    assert found.stolen == 0.0


def test_a_runtime_that_runs_no_float_network_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    known_times(monkeypatch)
    refuse = LawfulRuntime(refuses="fp32")
    with pytest.raises(DeployError, match="no kernel for fp32"):
        measure_runtime(refuse, [probing(small_probes()[0])], seconds=1.0)


def test_a_format_that_is_refused_is_left_out_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    known_times(monkeypatch)
    found = measure_runtime(LawfulRuntime(refuses="int8"), [probing(small_probes()[0])], seconds=0.0)
    assert found.formats == ("fp32",)
    assert found.refused["int8"] == "no kernel for int8. Next: choose another format."


def test_probes_are_seeded_and_hold_what_they_promise() -> None:
    first, again, other = probes(3), probes(3), probes(4)
    weights = [next(iter(found[0].model.module.parameters())) for found in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    rows = [row for probe in first for row in build_rows(probe.model.trace(), traffic="fused", batch=1)]
    kinds = {"conv", "depthwise_conv", "linear", "matmul", "attention", "softmax", "pool", "reduction", "copy"}
    assert {row.kind for row in rows} == kinds
    windows = {"1x1", "1x1/2", "3x3", "3x3/2", "3x3/4", "5x5", "5x5/2", "7x7/2", "4x4/4"}
    assert {row.variant for row in rows} - {""} == windows
