"""The paper's experiments anew: what is written, that it resumes, and that every figure follows from the outcomes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import hardware_specs
from aiq import _paper, load_model, zoo
from aiq._reproduce import EXPERIMENTS, reproduce
from aiq._reproduce_heuristics import order_of_moves, papers_correlation
from aiq._reproduce_lab import INT4, INT8, QUANTIZERS, Lab, ReproduceSettings, find_weights, recipe
from aiq._reproduce_measure import Correlation, Measured, holm, rank_correlation, signed
from aiq._reproduce_page import Reproduction
from aiq._reproduce_search import Comparison, _weights_at_8, compare
from aiq.cache import EvaluationStore, open_store
from aiq.oracle import Evaluation
from aiq.report import render
from aiq.stats import paired_difference, wilson_interval
from roofline import Scheme, estimate
from roofline.errors import AIQError, InputError, UnknownNameError
from tests.real_data import REAL
from tests.reproducing import IMAGES, FakeOracle, failing, fake, run, weights

PAPER_INTENSITIES = {"FP32": ("fp32", 29.85), "INT8": ("w8", 42.30), "INT4": ("w4", 45.46)}


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def lab(folder: Path, store: EvaluationStore, network: str = "resnet20") -> Lab:
    settings = ReproduceSettings(data=folder, weights=weights(folder, network), oracle=fake)
    return Lab(network, settings, store, lambda line: None)


@pytest.mark.parametrize(("config", "expected"), PAPER_INTENSITIES.items())
def test_the_papers_intensities_are_those_of_the_accounting(config: str, expected: tuple[str, float]) -> None:
    scheme, intensity = expected
    found = estimate(load_model("resnet20").trace(), hardware_specs.load("t4"), Scheme.parse(scheme), traffic="paper")
    assert round(found.arithmetic_intensity, 2) == intensity == _paper.FIGURE_4[config].intensity


@pytest.mark.parametrize("row", _paper.FIGURE_4.values(), ids=lambda row: row.config)
def test_the_columns_of_figure_4_agree_with_each_other(row: _paper.PaperScheme) -> None:
    start = _paper.FIGURE_4["FP32"]
    assert row.change == pytest.approx(row.accuracy - start.accuracy, abs=0.006)
    assert row.intensity_change == pytest.approx(100 * (row.intensity / start.intensity - 1), abs=0.06)
    assert row.four + row.eight == (0 if row is start else 20)


def test_table_i_names_layers_of_the_networks() -> None:
    for network, stated in _paper.TABLE_I.items():
        layers = load_model(network).trace().layers
        assert [row.layer for row in stated if row.layer not in layers] == []
        assert len({row.layer for row in stated}) == len(stated)
    assert {row.name: row.layer for row in _paper.TABLE_I["heavy_early_resnet20"]}["3.2e1"] == "layer3.2.conv1"
    assert {row.name: row.layer for row in _paper.TABLE_I["plain_convnet20"]}["f57"] == "features.57"
    assert [row.bits for row in _paper.TABLE_I["plain_convnet20"]].count(4) == 12


def test_a_recipe_changes_the_space_in_nothing_but_its_options(tmp_path: Path, store: EvaluationStore) -> None:
    made = lab(tmp_path, store)
    spaces = [made.space(quantizer) for quantizer in QUANTIZERS]
    assert [len(space.units) for space in spaces] == [20, 20]
    choices = [(k,) * 20 for k in range(3)]
    assert spaces[0].score(choices).bytes.tolist() == spaces[1].score(choices).bytes.tolist()
    assert [round(value, 2) for value in made.intensities(choices)] == [29.85, 42.30, 45.46]
    assert sum(made.layer_weights) == 268_336
    assert (recipe("paper", 4), recipe("aiq", 4)) == ("nearest+max+tensor+nobias", "gptq+mse+channel+bias")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reproduction]:
    folder = tmp_path_factory.mktemp("study")
    return folder, run("case-study", folder, cache=f"sqlite:///{folder}/cache.db")


def test_a_case_study_writes_its_page_tables_and_figure(study: tuple[Path, Reproduction]) -> None:
    folder, found = study
    assert [file.name for file in found.files] == ["case-study.md", "layers.csv", "fig2.svg", "fig2.png"]
    assert (folder / "out/fig2.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "out/fig2.svg").read_text()
    page = (folder / "out/case-study.md").read_text()
    for heading in ("## Layer by layer", "## Beside the paper", "## Where we differ and why", "(fig2.png)"):
        assert heading in page
    assert "the paper does not describe its quantizer" in page.lower()
    assert "29.85 | 29.85" in page
    assert (found.outcome.measured, found.outcome.recalled) == (81, 1)


def test_a_case_study_compares_each_layer_image_by_image(study: tuple[Path, Reproduction]) -> None:
    folder, found = study
    records = rows(folder / "out/layers.csv")
    assert len(records) == 2 * 2 * 20
    row = next(r for r in records if (r["quantizer"], r["format"], r["layer"]) == ("paper", "INT4", "layer2.0.conv2"))
    oracle, pattern = FakeOracle("report"), f"layer2.0.conv2=w4@{QUANTIZERS['paper']}"
    before, after = (oracle.evaluate(Scheme.parse(text)).outcomes for text in ("keep", f"keep,{pattern}"))
    assert before is not None and after is not None
    paired = paired_difference(after, before)
    assert float(row["change"]) == 100 * paired.value
    assert (float(row["change_low"]), float(row["change_high"])) == (100 * paired.low, 100 * paired.high)
    assert (float(row["low"]), float(row["high"])) == tuple(100 * e for e in wilson_interval(int(after.sum()), 200))
    assert row["n"] == str(IMAGES["report"]) and row["weights"] == "9216"
    distinct = sum(r["distinct"] == "True" for r in records if (r["quantizer"], r["format"]) == ("paper", "INT4"))
    assert 0 < distinct < 20
    assert f"{distinct} of 20 changes in accuracy exclude zero with the paper-like quantizer" in found.outcome.headline


def test_a_second_run_evaluates_nothing_and_writes_the_same(study: tuple[Path, Reproduction], tmp_path: Path) -> None:
    folder, first = study
    again = run("case-study", folder, cache=f"sqlite:///{folder}/cache.db", out=tmp_path)
    assert (again.outcome.measured, again.outcome.recalled) == (0, 82)
    for file in first.files:
        assert file.read_bytes() == (tmp_path / file.name).read_bytes(), file.name


def test_a_run_that_breaks_goes_on_where_it_was(study: tuple[Path, Reproduction], tmp_path: Path) -> None:
    _, whole = study
    url = f"sqlite:///{tmp_path}/cache.db"
    with pytest.raises(AIQError, match="the lights went out"):
        run("case-study", tmp_path, cache=url, oracle=failing(30))
    assert list((tmp_path / "out").iterdir()) == []
    again = run("case-study", tmp_path, cache=url)
    assert (again.outcome.measured, again.outcome.recalled) == (51, 31)
    assert (tmp_path / "out/case-study.md").read_bytes() == whole.files[0].read_bytes()


@pytest.mark.parametrize("fmt", ["table", "md", "json", "csv"])
def test_the_report_holds_the_same_in_every_format(study: tuple[Path, Reproduction], fmt: str) -> None:
    folder, found = study
    text = render(found.report(fmt), fmt)
    if fmt == "csv":
        assert text + "\n" == (folder / "out/layers.csv").read_text()
    elif fmt == "json":
        data = json.loads(text)
        assert (data["schema_version"], data["experiment"], len(data["layers"])) == (1, "case-study", 80)
        assert data["splits"] == {"report": {"data": "made-up", "n": "200"}}
        assert data["evaluations"] == {"measured": 81, "cached": 1}
    else:
        assert "layer3.2.conv2" in text and "Δ INT4, AIQ" in text and "quantizers: paper-like: nearest" in text


def test_one_quantizer_and_a_limit_are_said(tmp_path: Path) -> None:
    found = run("case-study", tmp_path, quantizer="paper", limit=50)
    page = found.files[0].read_text()
    assert {row["quantizer"] for row in rows(tmp_path / "out/layers.csv")} == {"paper"}
    assert "* A quick look: only the first 50 images of each split were evaluated." in page
    assert "AIQ:" not in page


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reproduction]:
    folder = tmp_path_factory.mktemp("searched")
    return folder, run("coordinate", folder, cache=f"sqlite:///{folder}/cache.db")


def test_the_searches_fill_the_papers_table(searched: tuple[Path, Reproduction]) -> None:
    folder, found = searched
    names = [file.name for file in found.files]
    assert names[:3] == ["coordinate.md", "schemes.csv", "formats.csv"]
    assert names[3:] == ["fig3a.svg", "fig3a.png", "fig3b.svg", "fig3b.png"]
    records = rows(folder / "out/schemes.csv")
    configs = ["FP32", "INT8", "INT4", "greedy", "coordinate", "exact"]
    assert [(r["quantizer"], r["config"]) for r in records] == [(q, c) for q in QUANTIZERS for c in configs]
    page = found.files[0].read_text()
    assert "the intensities of the uniform schemes are the paper's to two decimals" in page.lower()
    for record in records:
        counts = [int(record[f"{width}_layers"]) for width in ("four_bit", "eight_bit", "kept")]
        assert sum(counts) == 20
        stated = _paper.FIGURE_4.get(record["config"])
        assert record["paper_intensity"] == (str(stated.intensity) if stated else "")
    formats = rows(folder / "out/formats.csv")
    greedy = next(r for r in records if (r["config"], r["quantizer"]) == ("greedy", "paper"))
    assert [row["greedy_paper"] for row in formats].count("4") == int(greedy["four_bit_layers"])


def test_searches_minimise_l_on_the_search_split(searched: tuple[Path, Reproduction]) -> None:
    folder, _ = searched
    records = rows(folder / "out/schemes.csv")
    low, _, high = (float(record["arithmetic_intensity"]) for record in records[:3])
    for record in records:
        assert (record["n"], record["search_n"]) == (str(IMAGES["report"]), str(IMAGES["search"]))
        gain = (float(record["arithmetic_intensity"]) - low) / (high - low)
        value = -0.9 * gain + 0.1 * max(-float(record["search_change"]), 0.0)
        assert float(record["objective"]) == pytest.approx(value)
    for quantizer in QUANTIZERS:
        objectives = {r["config"]: float(r["objective"]) for r in records if r["quantizer"] == quantizer}
        assert max(objectives["greedy"], objectives["coordinate"]) < objectives["FP32"]


def test_a_second_search_evaluates_nothing(searched: tuple[Path, Reproduction], tmp_path: Path) -> None:
    folder, first = searched
    again = run("coordinate", folder, cache=f"sqlite:///{folder}/cache.db", out=tmp_path)
    assert (again.outcome.measured, again.outcome.recalled) == (0, first.outcome.measured + first.outcome.recalled)
    assert (tmp_path / "coordinate.md").read_bytes() == first.files[0].read_bytes()


def test_greedy_search_alone_shows_no_coordinate_descent(searched: tuple[Path, Reproduction], tmp_path: Path) -> None:
    folder, _ = searched
    greedy = run("greedy", folder, cache=f"sqlite:///{folder}/cache.db", out=tmp_path, quantizer="paper")
    assert greedy.outcome.measured == 0
    assert [r["config"] for r in rows(tmp_path / "schemes.csv")] == ["FP32", "INT8", "INT4", "greedy", "exact"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    with open_store("none") as store:
        return compare(lab(tmp_path_factory.mktemp("compared"), store), ["greedy"])


def test_the_order_of_greedy_search_is_read_from_its_evaluations(compared: Comparison) -> None:
    run_ = compared.row("greedy", "paper").run
    assert run_ is not None and run_.best is not None
    decided = order_of_moves(run_)
    space, choice, order = run_.problem.space, run_.problem.space.start, 0
    values = dict(zip(run_.evaluations, run_.values, strict=True))
    while True:  # greedy search by its definition, over what was measured
        moves = [
            (values[move], unit)
            for unit in range(20)
            for k in (INT8, INT4)
            if choice[unit] == 0 and (move := (*choice[:unit], k, *choice[unit + 1 :])) in values
        ]
        if not moves or min(moves)[0] >= values[choice]:
            break
        taken = decided.order.index(order := order + 1)
        after = (*choice[:taken], decided.final[taken], *choice[taken + 1 :])
        assert values[after] == min(moves)[0]
        choice = after
    assert choice == decided.final == run_.best and space.start == (0,) * 20
    assert sorted(place for place in decided.order if place) == list(range(1, order + 1))
    assert [r == 21 for r in decided.ranks] == [place is None for place in decided.order]


def test_the_papers_intensities_say_how_many_weights_have_eight_bits(compared: Comparison) -> None:
    for config, low, high in (("greedy", 16_600, 17_400), ("coordinate", 12_600, 13_400)):
        assert low <= _weights_at_8(compared, _paper.FIGURE_4[config].intensity) <= high


def test_heuristics_rank_layers_by_what_decides(tmp_path: Path) -> None:
    networks = ("heavy_early_resnet20", "plain_convnet20")
    found = run("heuristics", tmp_path, *networks, quantizer="aiq")
    names = [file.name for file in found.files]
    assert names[:3] == ["heuristics.md", "layers.csv", "correlations.csv"]
    assert {f"table1_{network}.png" for network in networks} <= set(names)
    layers = rows(tmp_path / "out/layers.csv")
    assert [sum(r["network"] == network for r in layers) for network in networks] == [20, 21]
    plain = {r["paper_layer"]: r for r in layers if r["network"] == "plain_convnet20"}
    assert (plain["f3"]["layer"], plain["f3"]["paper_int4"], plain["f3"]["paper_bits"]) == ("features.3", "0.2", "32")
    heavy = [r for r in layers if r["network"] == "heavy_early_resnet20"]
    assert sum(bool(r["paper_layer"]) for r in heavy) == 12
    for record in rows(tmp_path / "out/correlations.csv"):
        own = [r for r in layers if r["network"] == record["network"]]
        if (record["decision"], record["trait"]) == ("order", "weights"):
            orders = [float(r["order"] or len(own) + 1) for r in own]
            expected = spearman(orders, [float(r["weights"]) for r in own])
            assert float(record["rho"]) == pytest.approx(expected)
            assert record["paper_rho"] == ""
    page = found.files[0].read_text()
    assert "“wide layers first”" in page and "quantized the larger first" in page
    assert "\n* plain_convnet20, AIQ quantizer" in page


def spearman(x: list[float], y: list[float]) -> float:
    """Pearson's correlation of mean ranks."""
    ranks = [[sum(b < a for b in column) + (column.count(a) - 1) / 2 for a in column] for column in (x, y)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_the_papers_own_table_ranks_widths_by_weights(tmp_path: Path, store: EvaluationStore) -> None:
    made = lab(tmp_path, store, "heavy_early_resnet20")
    found = papers_correlation(made, "weights")
    stated = _paper.TABLE_I["heavy_early_resnet20"]
    sizes = [float(made.layer_weights[made.layers.index(row.layer)]) for row in stated]
    assert found is not None and found.n == 12
    assert found.rho == pytest.approx(spearman([float(row.bits) for row in stated], sizes))
    assert papers_correlation(made, "divergence_4") is None


def test_networks_without_trained_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "weights_path", lambda name: None)
    with pytest.raises(InputError) as caught:
        run("heuristics", tmp_path, "heavy_early_resnet20")
    assert str(caught.value) == (
        "plain_convnet20 has no trained weights: none ship with aiq, and random ones would say nothing. Next: train "
        f"them with 'python -m aiq.zoo.train plain_convnet20 --data {tmp_path} --out plain_convnet20.safetensors', "
        "then give --weights plain_convnet20=FILE."
    )
    with pytest.raises(InputError, match=r"^resnet20 has no trained weights: .* then give --weights FILE\.$"):
        reproduce("greedy", ReproduceSettings(data=tmp_path, out=tmp_path / "out", cache="none"))


def test_weights_and_images_that_belong_together_are_found(tmp_path: Path) -> None:
    beside, archive = tmp_path / "resnet20_cifar10.safetensors", tmp_path / "cifar10_jpeg.tar.xz"
    for name in (beside.name, archive.name, "cifar10_test_10.npz", "cifar10_train_10.npz"):
        (tmp_path / name).touch()
    own = Path("own.safetensors")
    assert find_weights("resnet20", ReproduceSettings(data=tmp_path)) == (beside, tmp_path)
    given = ReproduceSettings(data=tmp_path, weights={"resnet20": own, "plain_convnet20": own})
    assert find_weights("resnet20", given) == (own, tmp_path)
    assert find_weights("plain_convnet20", given) == (own, archive)


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^unknown quantizer 'best': known: paper, aiq, both\. Next: choose one\.$"):
        ReproduceSettings(data=tmp_path, quantizer="best")
    with pytest.raises(InputError, match=r"^the limit must be at least 1 image, got 0\. Next: "):
        ReproduceSettings(data=tmp_path, limit=0)
    with pytest.raises(UnknownNameError, match=r"^unknown model 'resnet2'"):
        ReproduceSettings(data=tmp_path, weights={"resnet2": Path("x")})
    with pytest.raises(UnknownNameError, match=r"^unknown experiment 'greed': did you mean 'greedy'\?"):
        reproduce("greed", ReproduceSettings(data=tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^cannot write to folder '.*/file': .*\. Next: choose another with --out\.$"):
        run("case-study", tmp_path, out=tmp_path / "file", oracle=failing(0))
    assert set(EXPERIMENTS) == {"case-study", "greedy", "coordinate", "throughput", "heuristics"}


def test_changes_are_told_from_noise() -> None:
    before, after = np.ones(400, dtype=bool), np.ones(400, dtype=bool)
    after[:8] = False
    worse = Measured.of(Evaluation(1.0, n=400, outcomes=before), Evaluation(0.98, n=400, outcomes=after))
    same = Measured.of(Evaluation(1.0, n=400, outcomes=before), Evaluation(1.0, n=400, outcomes=before))
    assert worse.distinct and worse.covers(-2.0) and not worse.covers(0.0)
    assert worse.change_text.startswith("-2.00 (-3.") and worse.change_text.endswith(" *")
    assert not same.distinct and same.change == 0 and same.change_low < 0 < same.change_high
    with pytest.raises(
        InputError, match=r"^the oracle does not say which images are right\. Next: measure by accuracy"
    ):
        Measured.of(Evaluation(1.0, n=400), Evaluation(1.0, n=400))


def test_small_statistics() -> None:
    assert [signed(value) for value in (0.004, -0.004, 1.0, -0.126)] == ["0.00", "0.00", "+1.00", "-0.13"]
    assert holm([0.001, 0.02, 0.03, 0.9]) == 1  # 0.001 <= 0.05 / 4, 0.02 > 0.05 / 3
    assert (holm([0.01, 0.011]), holm([0.2])) == (2, 0)
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 40]).rho == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [5, 5, 5]) == Correlation(None, None, 3)
    assert rank_correlation([1, 2, 3], [5, 5, 5]).text == "constant"


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no data at {REAL}: set AIQ_DATA_DIR")
def test_a_quick_look_at_the_real_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiq.quantize._simulate.CALIBRATION_EXAMPLES", 8)
    settings = ReproduceSettings(data=REAL, out=tmp_path, limit=16, quantizer="paper", cache="none")
    found = reproduce("case-study", settings)
    first = rows(tmp_path / "layers.csv")[0]
    assert first["n"] == "16" and float(first["accuracy"]) > 50
    assert found.outcome.setup["weights"] == "resnet20_cifar10.safetensors"
    assert found.outcome.setup["splits"] == {"report": {"data": "cifar10-npz", "n": "16"}}
