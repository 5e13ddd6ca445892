"""The throughput experiment: which schemes it deploys, that every figure follows from what ran, and what it keeps."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import hardware_specs
from aiq import _paper, zoo
from aiq._driver import drive
from aiq._reproduce import Reproduction, reproduce
from aiq._reproduce_lab import ReproduceSettings, ThroughputSettings
from aiq._reproduce_throughput import _check_data
from aiq._reproduce_throughput_bench import Profile, faster
from aiq._reproduce_throughput_schemes import random_choices
from aiq._reproduce_throughput_words import _verdict
from aiq._validate_stats import Figure
from aiq.calibrate import Calibration
from aiq.problem import Constraints
from aiq.registry import load_strategy
from aiq.report import render
from aiq.runtimes import Measurement
from aiq.space import Space, make_space
from hardware_specs.errors import UnknownNameError
from roofline import CostTable, LayerPrecision, Scheme
from roofline.errors import InputError
from tests import throughputs
from tests.throughputs import EAGER_S, IMAGES, LOSSES, MACHINE, OTHER, PlantedOracle, fake_bench, other, steps, toy
from tests.validating import digits_graph, predicted

BATCH = 4


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def one(records: list[dict[str, str]], runtime: str, family: str) -> dict[str, str]:
    return next(row for row in records if (row["runtime"], row["family"]) == (runtime, family))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reproduction]:
    folder = tmp_path_factory.mktemp("throughput")
    with pytest.MonkeyPatch.context() as patch:
        fake_bench(patch)
        return folder, throughputs.run(folder, cache=f"sqlite:///{folder}/cache.db")


def test_every_scheme_has_its_row_on_every_runtime(made: tuple[Path, Reproduction]) -> None:
    folder, found = made
    assert [file.name for file in found.files] == [
        "throughput.md", "throughput.csv", "executed.csv", "throughput.svg", "throughput.png",
    ]  # fmt: skip
    records = rows(folder / "out/throughput.csv")
    families = ["fp32", "bf16", "int8", "greedy", "first", "plan", *["random"] * 3]
    assert [r["family"] for r in records if r["runtime"] == "toyrun"] == families
    assert [r["family"] for r in records if r["runtime"] == OTHER] == [f for f in families if f != "bf16"]
    assert [r["family"] for r in records if r["runtime"] == "torch"] == ["fp32"]
    paper = [(r["scheme"], float(r["images_per_s"]), r["accuracy"]) for r in records if r["runtime"] == "paper"]
    assert paper == [(p.config, p.images_per_s, str(p.accuracy)) for p in _paper.THROUGHPUT]
    schemes = {(s["runtime"], s["scheme"]): Scheme.from_dict(scheme(s)) for s in found.outcome.setup["schemes"]}
    for record in records[:-4]:
        seconds = predicted(schemes[record["runtime"], record["scheme"]], BATCH)
        seconds /= 2 if record["runtime"] == OTHER else 1
        assert float(record["images_per_s"]) == pytest.approx(BATCH / seconds)
        base = float(one(records, record["runtime"], "fp32")["images_per_s"])
        assert float(record["over_fp32"]) == pytest.approx(float(record["images_per_s"]) / base)
        assert float(record["over_eager"]) == pytest.approx(EAGER_S / seconds)
        if record["runtime"] == "toyrun":
            assert float(record["predicted_images_per_s"]) == pytest.approx(float(record["images_per_s"]))


def scheme(data: dict[str, Any]) -> dict[str, Any]:
    return {key: data[key] for key in ("version", "default", "rules")}


def narrow(record: dict[str, Any]) -> set[str]:
    return {rule["layers"] for rule in record["rules"] if rule["precision"].startswith("int8/")}


def test_schemes_are_what_their_names_say(made: tuple[Path, Reproduction]) -> None:
    _, found = made
    records = {r["scheme"]: r for r in found.outcome.setup["schemes"] if r["runtime"] == "toyrun"}
    greedy, first = narrow(records["AIQ greedy on AI"]), narrow(records["AIQ greedy on AI, first 3 layers"])
    dear = next(layer for layer, images in LOSSES.items() if images == 4)
    kept = {"layer2.0.shortcut.0"}
    assert greedy == set(digits_graph().layers) - kept - {dear}
    assert first < greedy and len(first) == 3
    drawn = [narrow(record) for name, record in records.items() if "random" in name]
    assert len(drawn) == 3 and all(len(layers) == 3 and not layers & kept for layers in drawn)
    assert len({tuple(sorted(layers)) for layers in drawn}) == 3
    plan = records["AIQ latency plan"]
    assert dear not in narrow(plan)
    allowed = [r for r in records.values() if dear not in narrow(r) and r["default"] != "int8/int8"]
    seconds = [predicted(Scheme.from_dict(scheme(r)), BATCH) for r in allowed]
    assert predicted(Scheme.from_dict(scheme(plan)), BATCH) == min(seconds)


def choices() -> Space:
    options = [LayerPrecision(), LayerPrecision.parse("w8a8")]
    return make_space(CostTable(digits_graph(), hardware_specs.load("t4"), options, traffic="paper"))


def test_random_layers_are_seeded_and_need_a_choice() -> None:
    space = choices()
    assert random_choices(space, 3, 0) == random_choices(space, 3, 0) != random_choices(space, 3, 1)
    assert random_choices(space, 0, 0) == random_choices(space, 8, 0) == []
    assert len(random_choices(space, 7, 0)) == 3


def test_greedy_search_tells_its_path() -> None:
    oracle = PlantedOracle("", SimpleNamespace(split="search"))  # type: ignore[arg-type]
    run = drive(load_strategy("greedy"), choices(), oracle, constraints=Constraints(max_loss=1.0))
    assert run.findings is not None
    path, space = run.findings.path, run.problem.space
    assert path[0] == space.start and path[-1] == run.best
    for before, after in pairwise(path):
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
        assert space.score([after]).bytes[0] < space.score([before]).bytes[0]
    assert run.findings.note.endswith(f"moves made: {len(path) - 1}")


def test_a_second_run_evaluates_nothing(
    made: tuple[Path, Reproduction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, first = made
    fake_bench(monkeypatch)
    monkeypatch.setattr("tests.validating.ToyPrepared.run", None)
    monkeypatch.setattr("tests.throughputs.PlantedOracle.evaluate", None)
    again = throughputs.run(tmp_path, cache=f"sqlite:///{folder}/cache.db")
    assert again.outcome.measured == 0
    assert again.outcome.recalled == first.outcome.measured + first.outcome.recalled
    assert (tmp_path / "out/throughput.csv").read_bytes() == (folder / "out/throughput.csv").read_bytes()


@pytest.mark.parametrize("fmt", ["table", "md", "json", "csv"])
def test_the_report_holds_the_same_in_every_format(made: tuple[Path, Reproduction], fmt: str) -> None:
    folder, found = made
    text = render(found.report(fmt), fmt)
    if fmt == "csv":
        assert text + "\n" == (folder / "out/throughput.csv").read_text()
    elif fmt == "json":
        data = json.loads(text)
        assert (data["schema_version"], data["experiment"], len(data["throughput"])) == (1, "throughput", 21)
        assert len(data["executed"]) == 9 * 17
        assert data["splits"]["report"] == {"data": "digits", "n": str(IMAGES)}
        assert (data["machine"], data["calibrated_in_this_run"], data["stolen_share"]) == (MACHINE.name, False, 0.25)
        assert data["refused"] == [
            {"runtime": OTHER, "scheme": "BF16", "reason": "bf16 has no kernel. Next: choose another format."}
        ]
    else:
        assert "3 random layers, mean of 3" in text and "AIQ latency plan (as AIQ greedy on AI)" in text


def test_words_follow_from_the_figures(made: tuple[Path, Reproduction]) -> None:
    folder, found = made
    said = "\n".join([found.outcome.headline, *found.outcome.differences, *found.outcome.notes])
    records = rows(folder / "out/throughput.csv")
    plan = one(records, "toyrun", "plan")
    own, eager = float(plan["over_fp32"]), float(plan["over_eager"])
    assert f"{own:.2f}x ({own:.2f} to {own:.2f}) FP32 on toyrun and {eager:.2f}x" in found.outcome.headline
    assert found.outcome.headline.endswith("the paper's 12 INT8 layers at 1.66x, accuracy -0.94 points")
    uniform = float(plan["images_per_s"]) / float(one(records, "toyrun", "bf16")["images_per_s"])
    assert f"{uniform:.2f}x ({uniform:.2f} to {uniform:.2f}), faster than the fastest uniform scheme within" in said
    assert "within the loss, BF16;" in said and "within the loss, FP32; the same as AIQ greedy on AI" in said
    assert "greedy search on AI takes 7 layers to INT8, weights and activations, losing 0.500 points on 200" in said
    assert "1 of 9 layers of INT8" in said and "no kernel for linear layers: toyrun ran fp32" in said
    layers, conversions = 100 * (8 * 0.5 + 1 - 9) / 9.3, 100 * 8 * 0.1 / 9.3  # of 9 layers and 0.3 for the addition
    assert f"INT8 {layers:+.1f} % in layers, {conversions:+.1f} % in quantizing" in said
    assert "toyrun, layers that ran INT8 against FP32, by its own profile: 8 convolutions 2.00x\n" in said
    assert f"{OTHER} has no BF16: bf16 has no kernel" in said
    assert "the network is digits_cnn, the paper's MobileNetV2" in said
    assert "of FP32 that this machine reaches" not in said
    draws = [float(r["images_per_s"]) for r in records if (r["runtime"], r["family"]) == ("toyrun", "random")]
    ratio = float(one(records, "toyrun", "first")["images_per_s"]) / float(np.mean(draws))
    assert f"{ratio:.2f}x the mean of 3 draws of 3 random layers" in said
    assert "aiq validate" not in said and "points of the search" not in said


def test_what_the_machine_cannot_do_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_bench(monkeypatch)
    slow = MACHINE.compute["fp32"].model_copy(update={"value": 2e9})
    machine = MACHINE.model_copy(update={"compute": {**MACHINE.compute, "fp32": slow}})
    found = throughputs.run(tmp_path, other(), hardware=machine)
    assert "more than the 2.00 GFLOP/s of FP32 that this machine reaches" in "\n".join(found.outcome.differences)


def test_accuracy_is_that_of_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_bench(monkeypatch)
    found = throughputs.run(tmp_path, toy(planted={"conv1": 1e3}), limit=None)
    records = rows(tmp_path / "out/throughput.csv")
    broken, plain = one(records, "toyrun", "int8"), one(records, "toyrun", "fp32")
    assert float(broken["accuracy"]) < 30 and float(broken["simulated_accuracy"]) > 90
    assert float(broken["change"]) == pytest.approx(float(broken["accuracy"]) - float(plain["accuracy"]))
    assert float(broken["agreement"]) < 0.3 and float(plain["agreement"]) == 1.0
    assert float(plain["accuracy"]) < 100
    said = "\n".join(found.outcome.differences)
    assert (
        "toyrun and the simulation agree on" in said and "'aiq validate digits_cnn --runtime toyrun --locate'" in said
    )
    assert "toyrun: INT8 changes the accuracy by -" in said and "beyond the 1.00 points of the search" in said


def test_the_machine_is_calibrated_where_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_bench(monkeypatch)
    asked: list[list[str]] = []

    def calibrate(runtimes: Any, *, seed: int, progress: Any) -> Any:
        asked.append([runtime.name for runtime in runtimes])
        return SimpleNamespace(spec=MACHINE)

    assert "spec" in Calibration.__dataclass_fields__
    monkeypatch.setattr("aiq._reproduce_throughput.calibrate", calibrate)
    found = throughputs.run(tmp_path, other(), hardware=None)
    assert asked == [[OTHER]]
    assert hardware_specs.load(str(tmp_path / "out/machine.json")) == MACHINE
    assert found.outcome.setup["calibrated_in_this_run"] and found.outcome.setup["machine_file"] == "machine.json"
    assert "machine: Toy machine, calibrated in this run" in found.outcome.notes


def test_ctrl_c_before_a_time_passes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_bench(monkeypatch, interrupt=0)
    with pytest.raises(KeyboardInterrupt):
        throughputs.run(tmp_path, other())
    assert list((tmp_path / "out").iterdir()) == []


def test_ctrl_c_keeps_the_rounds_that_were_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_bench(monkeypatch, interrupt=1)
    found = throughputs.run(tmp_path, other())
    assert found.outcome.interrupted and not found.outcome.failure
    record = one(rows(tmp_path / "out/throughput.csv"), OTHER, "int8")
    assert (record["samples"], record["accuracy"], record["profile_layers_s"]) == ("5", "", "")
    assert "interrupted by Ctrl-C: what was measured by then is shown" in found.outcome.notes
    assert "accuracy" not in found.outcome.headline.partition("; the paper")[0]


def test_ctrl_c_keeps_the_runtimes_that_were_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = fake_bench(monkeypatch)
    runs: list[str] = []

    def interrupt(*_: Any) -> None:
        runs.append("torch")
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.eager, "prepare", lambda *_, **__: Interrupting(interrupt))
    found = throughputs.run(tmp_path, other())
    records = rows(tmp_path / "out/throughput.csv")
    assert found.outcome.interrupted and runs == ["torch"]
    assert float(one(records, OTHER, "plan")["accuracy"]) > 90
    assert one(records, "torch", "fp32")["accuracy"] == ""


class Interrupting:
    batch, seconds = BATCH, EAGER_S

    def __init__(self, run: Any) -> None:
        self.run = run

    def executed_precisions(self) -> dict[str, Any]:
        return {}

    def profile(self, inputs: Any) -> tuple[()]:
        return ()


def test_a_noisy_machine_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_bench(monkeypatch, noise=0.9)
    found = throughputs.run(tmp_path, other(), max_spread=0.01)
    assert found.outcome.headline.startswith(
        "digits_cnn at batch 4 on Toy machine: machine too noisy: the median spread"
    )
    assert found.outcome.failure.endswith("above the limit of 1.0 %. Next: stop other work, or raise --rounds or "
                                          "--max-spread.")  # fmt: skip


def test_a_runtime_that_breaks_keeps_the_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = fake_bench(monkeypatch)
    bench.eager.planted = {}

    def nan(*_: Any) -> Any:
        return np.full((BATCH, 10), np.nan, np.float32)

    monkeypatch.setattr(bench.eager, "prepare", lambda *_, **__: Interrupting(nan))
    found = throughputs.run(tmp_path, other())
    assert (
        found.outcome.failure == "torch gives NaN or infinity for digits_cnn with FP32. Next: leave this runtime out."
    )
    assert float(one(rows(tmp_path / "out/throughput.csv"), OTHER, "plan")["accuracy"]) > 90


def test_the_figure_shows_the_figures(made: tuple[Path, Reproduction]) -> None:
    folder, found = made
    records = rows(folder / "out/throughput.csv")
    figure = found.outcome.drawings[0].draw()
    first, second, eager, paper = figure.axes
    widths = [bar.get_width() for bar in first.patches]
    own = [float(r["images_per_s"]) for r in records if r["runtime"] == "toyrun"]
    assert widths == pytest.approx([*own[:-3], np.mean(own[-3:])])
    draws = next(line for line in first.lines if line.get_gid() == "draws")
    assert list(draws.get_xdata()) == pytest.approx(own[-3:])
    marks = [line.get_xdata()[0] for line in second.lines if line.get_gid() == "predicted"]
    theirs = [r for r in records if r["runtime"] == OTHER and r["family"] != "random"]
    assert marks == pytest.approx([float(r["predicted_images_per_s"]) for r in theirs])
    labels = [t.get_text() for t in second.get_yticklabels()]
    assert labels[:2] == ["FP32", "INT8"] and labels[-1] == "3 random layers, mean of 3"
    assert [t.get_text() for t in eager.texts] == ["1000.0", "1.00x", "1.00x"]
    assert [t.get_text() for t in paper.texts][3:6] == ["2320.6", "1.66x", "–"]


def test_a_scheme_is_faster_only_where_the_interval_says_so() -> None:
    ends = {(1.01, 1.2): "faster than", (0.8, 0.99): "slower than", (0.9, 1.1): "not told apart from"}
    assert {pair: _verdict(Figure(1.0, *pair, 10)) for pair in ends} == ends


def test_steps_of_a_profile_are_layers_conversions_and_others() -> None:
    found = Profile.of(steps({"conv1": "int8", "linear": "fp32"}), ["conv1", "linear"])
    assert found.layers == {"conv1": 5e-4, "linear": 1e-3}
    assert (found.conversions_s, found.others_s) == (1e-4, 3e-4)
    assert found.total_s == pytest.approx(1.9e-3)


def test_a_ratio_of_throughputs_pairs_rounds() -> None:
    base = Measurement(2.0, 0.0, 4, 8, (2.0, 2.0, 2.0, 2.0))
    twice = Measurement(1.0, 0.0, 4, 8, (1.0, 1.0, 1.0, 1.0))
    assert (faster(twice, base).value, faster(twice, base).low, faster(twice, base).high) == (2.0, 2.0, 2.0)
    mixed = Measurement(1.5, 0.0, 4, 8, (1.0, 1.0, 2.0, 4.0))
    assert faster(mixed, base).low == 0.5 and faster(mixed, base).high == 2.0
    drifted = Measurement(3.0, 0.0, 4, 8, (2.0, 2.0, 4.0, 8.0))
    assert faster(mixed, drifted).low == faster(mixed, drifted).high == 2.0


def test_bad_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for changes, text in (
        ({"batch": 0}, "a batch size must be at least 1, got 0. Next: raise it."),
        ({"rounds": 2}, "rounds must be at least 3, got 2. Next: raise it."),
        ({"search_images": 0}, "the number of search images must be at least 1, got 0. Next: raise it."),
        ({"max_loss": -1.0}, "the largest loss must be a number of points of at least 0, got -1.0. Next: give one."),
        ({"max_spread": 0.0}, "the largest spread must be a number above 0, got 0.0. Next: give one."),
    ):
        with pytest.raises(InputError) as caught:
            ThroughputSettings(**changes)  # type: ignore[arg-type]
        assert str(caught.value) == text
    with pytest.raises(UnknownNameError, match=r"^unknown model 'mobilenet': did you mean"):
        ThroughputSettings(model="mobilenet")
    fake_bench(monkeypatch)
    with pytest.raises(
        InputError, match=r"^PyTorch eager FP32 is measured beside the others .* leave out --runtime torch"
    ):
        throughputs.run(tmp_path, toy(name="torch"))
    with pytest.raises(
        InputError, match=r"^calibrated has no kernel models of newrun, known: .*otherrun\. Next: leave "
    ):
        throughputs.run(tmp_path, toy(name="newrun"))
    with pytest.raises(InputError) as caught:
        throughputs.run(tmp_path, data=tmp_path)
    assert str(caught.value) == (
        f"digits_cnn is made for digits, and the data are '{tmp_path}'. Next: give --data digits."
    )
    cifar = SimpleNamespace(network="resnet20", settings=SimpleNamespace(data=Path("digits")))
    with pytest.raises(
        InputError, match=r"^resnet20 is made for cifar10, and .* give --data the folder of CIFAR-10\.$"
    ):
        _check_data(cifar)  # type: ignore[arg-type]


def test_networks_without_trained_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "weights_path", lambda name: None)
    given = ReproduceSettings(data=tmp_path, out=tmp_path / "out", cache="none")
    with pytest.raises(
        InputError, match=r"^mobilenet_v2_cifar has no trained weights: .*--weights mobilenet_v2_cifar="
    ):
        reproduce("throughput", given)
