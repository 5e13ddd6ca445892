"""Validations of a runtime that runs nothing, under a stopwatch with known times."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import aiq
import hardware_specs
from aiq._validate import prepare
from aiq._validate_layers import BETWEEN, layer_times
from aiq._validate_plot import plot_validation, save_validation
from aiq._validate_result import ValidateSettings
from aiq._validate_views import job_report, validation_report
from aiq.report import render
from aiq.runtimes import DeployError, Step
from hardware_specs import HardwareSpec
from roofline import Scheme, estimate
from roofline.errors import InputError
from roofline.estimate import resolve
from roofline.floats import float_kind
from tests.calibrated import CALIBRATED
from tests.machines import FLAT, machine
from tests.validating import NAME, ToyRuntime, digits, digits_graph, predicted, stopwatch, validated

KNOWN = {"keep": 3e-3, "w8a8": 2e-3, "bf16": 1e-3}


def known(scheme: Scheme, batch: int) -> float:
    return batch * KNOWN[str(scheme)]


def three(**changes: Any) -> Any:
    return validated(ToyRuntime(known), schemes=[Scheme.parse(text) for text in KNOWN], **changes)


def test_figures_of_known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything takes 5 % longer than predicted, at both batch sizes."""
    stopwatch(monkeypatch)
    found = validated(ToyRuntime(lambda scheme, batch: 1.05 * predicted(scheme, batch)))
    data = found.to_dict()
    assert len(found.rows) == 24
    assert data["median_ape"] == data["p90_ape"] == pytest.approx(1 - 1 / 1.05)
    assert data["bias"] == pytest.approx(1 / 1.05 - 1)
    assert (data["spearman"], data["coverage"], data["regret"]) == (pytest.approx(1.0), 1.0, 0.0)
    assert (data["runtime"], data["machine"], data["cost_model"]) == (NAME, "calibrated", "calibrated")
    assert data["stolen_share"] == {"1": 0.25, "4": 0.25}
    assert set(data["statistics"]) == {"calibrated", "datasheet"}
    assert data["statistics"]["datasheet"]["median_ape"]["value"] > 0.5
    for row in data["rows"]:
        scheme = next(pick.scheme for pick in found.picks if pick.name == row["scheme"])
        seconds = predicted(scheme, row["batch"])
        assert row["predicted_throughput"] == pytest.approx(row["batch"] / seconds)
        assert row["measured_throughput"] == pytest.approx(row["batch"] / seconds / 1.05)
        assert row["interval"][0] < row["predicted_throughput"] < row["interval"][1]
        assert row["interval"][0] < row["measured_throughput"] < row["interval"][1]
        assert (row["samples"], row["spread"]) == (5, 0.0)
        assert set(row["other_predictions"]) == {"datasheet"}
    assert json.loads(render(validation_report(found), "json")) == json.loads(json.dumps(data))


def test_a_machine_without_kernel_models_is_judged_by_its_datasheet(monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch(monkeypatch)
    found = three(hardware=FLAT)
    assert list(found.costs) == ["datasheet"]
    assert found.to_dict()["coverage"] is None
    assert {row["interval"] for row in found.to_dict()["rows"]} == {None}
    assert found.rows[0].predicted.latency_s == estimate(digits_graph(), FLAT, "keep", batch=1).latency_s


@pytest.mark.parametrize("rates", ["datasheet", "sustained"])
def test_sustained_rates_stand_beside_those_of_the_datasheet(monkeypatch: pytest.MonkeyPatch, rates: str) -> None:
    stopwatch(monkeypatch)
    found = three(hardware=machine(sustained={"fp32": 1e9}).model_copy(update={"rates": rates}))
    assert list(found.costs) == ["datasheet", "sustained"]
    predictions = found.rows[0].predictions
    assert predictions["sustained"].latency_s > 10 * predictions["datasheet"].latency_s


def test_regret_is_measured_time_lost_by_deciding_on_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch(monkeypatch)
    found = three()
    for regret in found.regrets["calibrated"]:
        assert (regret.picked, regret.fastest) == ("w8a8", "bf16")
        assert regret.value == regret.beyond_noise == pytest.approx(1.0)
    assert found.to_dict()["regret"] == pytest.approx(1.0)
    assert "100.0 % slower than the fastest of 3" in validation_report(found).headline


def test_rounds_are_measured_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = stopwatch(monkeypatch)
    found = three(rounds=17, batches=(1,))
    assert watch.blocks == [6, 6, 5]
    assert {row.measurement.samples for row in found.rows} == {17}


def test_disturbed_rounds_are_measured_again_and_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = stopwatch(monkeypatch, slow=(1,))
    found = three(batches=(1,), rounds=15)
    assert watch.blocks == [5, 5, 5, 5]
    assert found.disturbed == {1: 5}
    assert {row.measurement.samples for row in found.rows} == {15}
    assert [row.measurement.seconds for row in found.rows] == pytest.approx(list(KNOWN.values()))
    assert "set aside, since all schemes ran slower in them than in others: rounds, 5 at batch 1" in render(
        validation_report(found), "table"
    )
    assert found.to_dict()["disturbed_rounds"] == {"1": 5}
    always = stopwatch(monkeypatch, slow=(2, 3, 4, 5, 6, 7))
    assert three(batches=(1,), rounds=15).disturbed == {1: 20}
    assert sum(always.blocks) == 30


def test_ctrl_c_keeps_the_blocks_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch(monkeypatch, interrupt=1)
    found = three(rounds=15)
    assert found.interrupted
    assert {(row.batch, row.measurement.samples) for row in found.rows} == {(1, 5)}
    assert found.to_dict()["interrupted"] is True
    stopwatch(monkeypatch, interrupt=0)
    with pytest.raises(KeyboardInterrupt):
        three()


def test_an_error_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fragile(ToyRuntime):
        def prepare(self, deployment: Any, scheme: Scheme, *, batch: int, threads: int | None = None) -> Any:
            found = super().prepare(deployment, scheme, batch=batch, threads=threads)
            if batch == 4:
                found.profile = broken  # type: ignore[method-assign]
            return found

    def broken(inputs: Any, *, passes: int = 20) -> Any:
        raise DeployError("toyrun broke. Next: mend it.")

    stopwatch(monkeypatch)
    runtime = Fragile(known)
    found = validated(runtime, schemes=[Scheme.parse(text) for text in KNOWN])
    assert (found.stopped, len(found.rows), len(found.profiles)) == ("toyrun broke. Next: mend it.", 6, 2)
    assert "stopped: toyrun broke. Next: mend it." in validation_report(found).notes


def test_kernel_models_of_another_runtime_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch(monkeypatch)
    found = validated(ToyRuntime(known, name="another"), schemes=[Scheme.parse(text) for text in KNOWN])
    assert list(found.costs) == ["datasheet"]
    assert (
        "calibrated has kernel models of toyrun and none of another: its bounds are judged"
        in validation_report(found).notes
    )


def test_noise_above_the_limit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch(monkeypatch, noise=0.5)
    found = three(rounds=15, tolerance=10.0)
    assert found.noisy
    assert found.within_tolerance is None
    assert found.to_dict()["noisy"] is True
    assert "machine too noisy: the median spread of a measurement is" in validation_report(found).headline
    assert not three(rounds=15, max_spread=1.0).noisy


def test_schemes_that_the_runtime_refuses_are_left_out_with_their_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch(monkeypatch)
    runtime = ToyRuntime(known, refuses="w8a8")
    found = validated(runtime, schemes=[Scheme.parse(text) for text in KNOWN])
    assert [row.scheme for row in found.rows] == ["keep", "bf16"] * 2
    assert found.refused == {"w8a8": "w8a8 has no kernel. Next: choose another format."}
    assert "not measured: w8a8: w8a8 has no kernel. Next: choose another format." in validation_report(found).notes
    with pytest.raises(DeployError, match="w8a8 has no kernel"):
        validated(runtime, schemes=[Scheme.parse("w8a8")])


def test_formats_that_the_runtime_does_not_run_are_no_part_of_the_spread() -> None:
    settings = ValidateSettings(runtime=ToyRuntime(refuses="bf16"), count=8)
    picks = prepare(digits(), CALIBRATED, settings).picks
    assert [pick.name for pick in picks if pick.family == "uniform"] == ["keep", "w8a8"]
    assert not [pick for pick in picks if "bf16" in json.dumps(pick.scheme.to_dict())]


@pytest.mark.parametrize("hardware", [CALIBRATED, FLAT], ids=["calibrated", "bound"])
def test_a_runtime_of_one_float_is_given_no_others(hardware: HardwareSpec) -> None:
    class OneFloat(ToyRuntime):
        one_float_format = True

    picks = prepare(digits(), hardware, ValidateSettings(runtime=OneFloat(), count=20)).picks
    kinds = [{float_kind(f) for f in resolve(digits_graph(), pick.scheme).values()} for pick in picks]
    assert len(picks) == 20
    assert all(len(kind - {""}) <= 1 for kind in kinds)
    assert sum(kind == {"", "bf16"} for kind in kinds) >= 5
    assert sum(kind == {"", "wide"} for kind in kinds) >= 5


def test_what_really_ran_is_counted_and_explained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch(monkeypatch)
    found = three(batches=(1,))
    rows = {row.scheme: row for row in found.rows}
    assert rows["keep"].ran == {"fp32": 9}
    assert rows["w8a8"].ran == {"int8": 8, "fp32": 1}
    assert [rows[name].not_as_asked for name in KNOWN] == [0, 1, 0]
    assert found.reasons == {"no kernel for linear layers: toyrun ran fp32": 1}
    assert "in 1 of 3 networks: no kernel for linear layers: toyrun ran fp32" in validation_report(found).notes


STEPS = (
    Step("quantize", "QuantizeLinear", ("conv1",), "q", 1e-6),
    Step("a", "Conv", ("conv1", "layer1.0.conv1"), "jit_int8", 2e-6),
    Step("b", "Conv", ("layer1.0.conv1",), "jit_int8", 3e-6),
    Step("b'", "Add", ("layer1.0.conv1",), "jit_add", 4e-6),
    Step("reorder", "Reorder", (), "copy", 5e-6),
    Step("once", "Reorder", (), "copy", float("nan")),
    Step("elsewhere", "Conv", ("no such layer",), "copy", 6e-6),
)


def test_time_by_layer() -> None:
    found = {time.layer: time for time in layer_times(estimate(digits_graph(), CALIBRATED, runtime=NAME), STEPS)}
    assert list(found) == [*digits_graph().layers, BETWEEN]
    assert found["conv1"].measured_s == pytest.approx(2e-6)
    assert found["layer1.0.conv1"].measured_s == pytest.approx(7e-6)
    assert found["layer1.0.conv1"].kernels == ("jit_int8", "jit_add")
    assert found["linear"].measured_s is None
    assert found[BETWEEN].measured_s == pytest.approx(12e-6)


@pytest.mark.parametrize("scheme", ["keep", "w8a8", "keep,layer1.0.conv1=w8a8"])
def test_predicted_times_by_layer_add_up(scheme: str) -> None:
    whole = estimate(digits_graph(), CALIBRATED, scheme, batch=4, runtime=NAME)
    found = layer_times(whole, ())
    assert sum(time.predicted_s for time in found) == pytest.approx(whole.latency_s)
    rows = {row.layer: row.latency_s for row in whole.layers if row.bytes_by_role.get("weight")}
    assert {time.layer: time.predicted_s for time in found[:-1]} == pytest.approx(rows)


def test_the_float_model_and_the_fastest_scheme_are_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch(monkeypatch)
    found = validated(ToyRuntime(known, steps=STEPS), schemes=[Scheme.parse(text) for text in KNOWN])
    assert [(profile.scheme, profile.batch) for profile in found.profiles] == [
        ("keep", 1), ("bf16", 1), ("keep", 4), ("bf16", 4),
    ]  # fmt: skip
    shown = render(validation_report(found, layers=True), "csv").splitlines()
    assert len(shown) == 1 + 4 * (len(digits_graph().layers) + 1)
    assert "the profile of toyrun does not tell layers apart" in validation_report(three(), layers=True).notes


def test_a_dry_run_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, runtime = stopwatch(monkeypatch), ToyRuntime(known)
    schemes = [Scheme.parse(text) for text in KNOWN]
    report = job_report(prepare(digits(), CALIBRATED, ValidateSettings(runtime=runtime, schemes=schemes)))
    assert (watch.blocks, runtime.prepared) == ([], [])
    assert report.headline == (
        "digits_cnn on toyrun 1.0: 3 schemes at batch 1 and 32, 15 samples of each, in turn; nothing was measured"
    )
    assert len(report.rows) == 6


def test_the_figure(monkeypatch: pytest.MonkeyPatch, here: Any) -> None:
    stopwatch(monkeypatch)
    found = three()
    ax = plot_validation(found)
    assert (ax.get_xscale(), ax.get_yscale(), ax.get_xlim()) == ("log", "log", ax.get_ylim())
    by_scheme: dict[str, list[tuple[float, float]]] = {}
    for dots in ax.collections:
        ((x, y),) = np.asarray(dots.get_offsets()).tolist()
        by_scheme.setdefault(str(dots.get_gid()), []).append((x, y))
    for row in found.rows:
        at = row.batch / row.predicted.latency_s, row.measurement.throughput
        assert min(np.hypot(x - at[0], y - at[1]) for x, y in by_scheme[f"row-{row.scheme}"]) < 1e-6 * at[1]
    assert len(by_scheme["beside"]) == len(found.rows)
    intervals = [line.get_xdata() for line in ax.lines if line.get_gid() == "interval"]
    expected = sorted(tuple(row.to_dict()["interval"]) for row in found.rows)
    assert np.asarray(sorted(map(tuple, intervals))) == pytest.approx(np.asarray(expected))
    (identity,) = [line for line in ax.lines if line.get_gid() == "identity"]
    assert list(identity.get_xdata()) == list(identity.get_ydata()) == list(ax.get_xlim())
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["given", "batch 1", "batch 4", "90 % interval", "datasheet roofline", "as predicted"]
    contents = []
    for name in ("a.svg", "b.svg"):
        save_validation(found, here / name)
        contents.append((here / name).read_bytes())
    assert contents[0] == contents[1]
    with pytest.raises(InputError, match="cannot write figure"):
        save_validation(found, here / "none" / "a.svg")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 1}, "rounds must be at least 3, got 1. Next: raise it."),
        ({"batches": (1, 0)}, "a batch size must be at least 1, got 0. Next: raise it."),
        ({"batches": ()}, "no batch size is given. Next: give one, for instance --batch 32."),
        ({"count": 1}, "the number of schemes must be at least 2, got 1. Next: raise it."),
        ({"max_spread": 0.0}, "the largest spread must be a number above 0, got 0.0. Next: give one."),
        ({"tolerance": -1.0}, "the tolerance must be a share of at least 0, got -1.0. Next: give for instance 0.1."),
        (
            {"samples": 5},
            "runtime and simulation are compared only on data, and none are named. Next: give for instance "
            "--data digits.",
        ),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        ValidateSettings(runtime="openvino", **changes)


def test_a_machine_of_another_kind_is_refused() -> None:
    message = (
        "t4 is a gpu, and toyrun runs on another kind of device. Next: give the machine that this is, for instance "
        "the file that 'aiq calibrate' writes."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        validated(hardware=hardware_specs.load("t4"))


def test_public_names() -> None:
    assert aiq.validate.__module__ == "aiq._validate"
    assert {aiq.Validation.__name__, aiq.ValidateSettings.__name__} == {"Validation", "ValidateSettings"}


def test_repr_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch(monkeypatch)
    line = r"Validation\('digits_cnn' by toyrun on calibrated: 6 rows, median error [\d.]+ %\)"
    assert re.fullmatch(line, repr(three()))


Twist = Callable[[Scheme, int], float]


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 2.0])
def test_one_factor_on_all_times_moves_the_bias_alone(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    stopwatch(monkeypatch)
    twisted: Twist = lambda scheme, batch: factor * predicted(scheme, batch)  # noqa: E731
    found = validated(replace(ToyRuntime(), seconds=twisted), count=6, batches=(4,)).to_dict()
    assert found["bias"] == pytest.approx(1 / factor - 1)
    assert found["median_ape"] == pytest.approx(abs(1 / factor - 1))
    assert (found["spearman"], found["regret"]) == (pytest.approx(1.0), 0.0)
    assert found["coverage"] == (1.0 if 0.85 < factor < 1.15 else 0.0)
