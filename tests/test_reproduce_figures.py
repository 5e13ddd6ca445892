"""What the figures of the reproduced experiments show, and the commands that draw them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex

from aiq import _paper
from aiq._reproduce_figures import draw_case_study, draw_plane, draw_ranking, draw_scores
from aiq._reproduce_heuristics import _rank
from aiq._reproduce_lab import INT4, Lab, ReproduceSettings
from aiq._reproduce_layers import CaseStudy, measure_singles
from aiq._reproduce_search import compare
from aiq.cache import open_store
from tests import commands
from tests.refusals import refusal
from tests.reproducing import fake, weights


def lab(folder: Path, store: Any, network: str = "resnet20", quantizer: str = "both") -> Lab:
    settings = ReproduceSettings(data=folder, weights=weights(folder, network), oracle=fake, quantizer=quantizer)
    return Lab(network, settings, store, lambda line: None)


def points(collection: PathCollection) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in np.asarray(collection.get_offsets())]


def test_a_case_study_marks_what_is_more_than_noise(tmp_path: Path) -> None:
    with open_store("none") as store:
        made = lab(tmp_path, store, quantizer="paper")
        baseline, found = measure_singles(made, "report", "paper")
    intensities = {k: made.intensities([(k,) * 20] * 20) for k in found}
    study = CaseStudy(made, 29.85, intensities, baseline, {("paper", k): own for k, own in found.items()})
    figure = draw_case_study(study)
    intensity, accuracy = figure.axes
    assert [t.get_text() for t in accuracy.get_xticklabels()] == list(made.layers)
    assert intensity.lines[0].get_ydata().tolist() == intensities[1]
    scatters = [c for c in accuracy.collections if isinstance(c, PathCollection)]
    for scatter, own in zip(scatters, found.values(), strict=True):
        assert [y for _, y in points(scatter)] == [pytest.approx(m.accuracy) for m in own]
        filled = [to_hex(tuple(c)) != "#ffffff" for c in scatter.get_facecolor()]
        assert filled == [m.distinct for m in own]
    assert any(m.distinct for m in found[INT4]) and not all(m.distinct for m in found[INT4])


def test_scores_and_plane_show_the_papers_schemes_beside_ours(tmp_path: Path) -> None:
    with open_store("none") as store:
        found = compare(lab(tmp_path, store), ["coordinate"])
    (ax,) = draw_scores(found).axes
    heights = [[bar.get_height() for bar in group] for group in ax.containers if hasattr(group, "patches")]
    stated = [_paper.FIGURE_4[config] for config in found.configs]
    assert heights[0] == [row.intensity * row.accuracy for row in stated]
    assert heights[2] == [row.intensity * row.report.accuracy for row in found.rows if row.quantizer == "aiq"]
    whole, near = draw_plane(found).axes
    shown = {point for c in near.collections if isinstance(c, PathCollection) for point in points(c)}
    assert {(row.intensity, row.accuracy) for row in stated} <= shown
    assert {(row.intensity, row.report.accuracy) for row in found.rows} <= shown
    low, high = near.get_xlim()
    assert all(low < row.intensity < high for row in found.rows if row.config != "FP32")
    for quantizer in found.quantizers:
        (line,) = (line for line in whole.lines if line.get_gid() == f"frontier-{quantizer}")
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        assert (np.diff(x) > 0).all() and (np.diff(y) < 0).all()


def test_a_ranking_writes_the_order_over_the_bars(tmp_path: Path) -> None:
    with open_store("none") as store:
        found = _rank(lab(tmp_path, store, "heavy_early_resnet20", "aiq"))
    top, bottom = draw_ranking(found).axes
    assert [bar.get_height() for bar in top.patches] == found.lab.layer_weights
    orders = [t.get_text() for t in top.texts]
    assert orders == ["–" if order is None else str(order) for order in found.greedy["aiq"].order]
    labels = [t.get_text() for t in bottom.get_xticklabels()]
    assert labels[:2] == ["c1", "1.0e1"] and "layer3.2.conv2" in labels


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiq._reproduce_lab.load_oracle", lambda text, context: fake("", context))


@pytest.mark.usefixtures("faked")
def test_the_command_writes_and_shows(tmp_path: Path) -> None:
    file = weights(tmp_path, "resnet20")["resnet20"]
    arguments = ("--data", str(tmp_path), "--out", str(tmp_path / "out"), "--cache", "none", "--quantizer", "aiq")
    for given in (str(file), f"resnet20={file}"):
        ran = commands.run("reproduce", "case-study", *arguments, "--weights", given, "--format", "json")
        assert ran.code == 0, ran.err
        data = json.loads(ran.out)
        assert data["weights"] == "resnet20.safetensors" and len(data["layers"]) == 40
        assert "written: " in ran.err and "fig2.png" in ran.err


@pytest.mark.usefixtures("faked")
def test_ctrl_c_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    file = weights(tmp_path, "resnet20")["resnet20"]
    monkeypatch.setattr("tests.reproducing.FakeOracle.evaluate", interrupt)
    out = ("--out", str(tmp_path / "out"), "--cache", "none")
    for experiment in ("case-study", "greedy"):
        ran = commands.run("reproduce", experiment, "--data", str(tmp_path), "--weights", str(file), *out)
        assert (ran.code, ran.out) == (130, "")
        assert "aiq: interrupted by Ctrl-C: what was measured is in the cache.\nresume: aiq reproduce" in ran.err


def test_the_command_refuses_in_one_sentence(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert refusal("reproduce", "greedy", *data, "--quantizer", "x").startswith("unknown quantizer 'x'")
    assert refusal("reproduce", "greedy", *data, "--format", "x").startswith("unknown format 'x'")
    missing = refusal("reproduce", "greedy", *data, "--weights", str(tmp_path / "none.safetensors"))
    assert missing.endswith("none.safetensors': no such file. Next: give the path of a .safetensors file.")
    code, _, err = commands.run("reproduce", "greedy")
    assert code == 2 and "--data" in err
