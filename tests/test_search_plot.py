"""The figure of a search: every mark where the numbers say, each kind told apart, names clear of each other."""

from __future__ import annotations

import sys
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hardware_specs
from aiq import SearchResult, search
from aiq._search_plot import plot_search, save_search
from aiq.objective import Objective
from aiq.problem import Constraints
from roofline.errors import InputError
from tests.searching import Listed, digits, settings

HULL, BUDGET = "frontier, on the hull: in reach of a λ sweep", "frontier, off the hull: only a limit finds it"


@cache
def result(target: str = "ai", frontier: bool = True, strategy: str = "exhaustive", **more: Any) -> SearchResult:
    wanted = settings(strategy=strategy, frontier=frontier, objective=Objective(target, 0.5), **more)
    machine = "xeon-emr-2vcpu" if target == "latency" else "t4"  # a T4 spends all its time on launches here
    return search(digits(), hardware_specs.load(machine), wanted)


def marks(axes: Any) -> dict[str, Any]:
    """Return the positions of each kind of mark, [M, 2], by its label."""
    found = {c.get_label(): np.asarray(c.get_offsets()) for c in axes.collections if len(c.get_offsets())}
    return {label: at for label, at in found.items() if not label.startswith(("_", "95"))}


def bars(axes: Any) -> list[Any]:
    (lines,) = (c for c in axes.collections if c.get_label().startswith("95 % interval"))
    return [np.asarray(path.vertices) for path in lines.get_paths()]


def merit(point: Any, target: str) -> float:
    return {"ai": point.arithmetic_intensity, "latency": point.latency_s, "memory": point.weight_bytes}[target]


@pytest.mark.parametrize("target", ["ai", "latency", "memory"])
@pytest.mark.parametrize("frontier", [True, False])
def test_marks_lie_where_the_figures_say(target: str, frontier: bool) -> None:
    found = result(target, frontier)
    axes = plot_search(found)
    at = marks(axes)
    split = "report" if frontier else "search"
    shown = [point for point in found.frontier if not frontier or point.report]

    def places(points: list[Any]) -> list[tuple[float, float]]:
        figures = [p.search if split == "search" else p.report for p in points]
        return [(merit(p, target), 100 * f.value) for p, f in zip(points, figures, strict=True)]

    assert found.best is not None
    assert at["float model"] == pytest.approx(np.array(places([found.baseline])))
    assert at["best"] == pytest.approx(np.array(places([found.best])))
    assert at["one format everywhere"] == pytest.approx(np.array(places(list(found.uniform.values()))))
    for label, supported in ((HULL, True), (BUDGET, False)):
        own = places([p for p in shown if p.supported is supported])
        assert at.get(label, np.empty((0, 2))) == pytest.approx(np.array(own).reshape(-1, 2))
    (line,) = (line for line in axes.lines if line.get_gid() == "frontier")
    assert np.column_stack(line.get_data()) == pytest.approx(np.array(places(shown)))
    others = at["other measured schemes" if split == "search" else "others: loss on the search split"]
    marked = {p.choice for p in (found.baseline, found.best, *found.frontier, *found.uniform.values())}
    assert len(others) == len(found.run.evaluations) - len(marked)


@pytest.mark.parametrize("frontier", [True, False])
def test_bars_are_paired_intervals_around_each_mark(frontier: bool) -> None:
    found = result("ai", frontier)
    drawn = {round(float(path[0][0]), 9): path[:, 1] for path in bars(plot_search(found))}
    for point in (*found.frontier, *found.uniform.values()):
        figures = point.report if frontier else point.search
        if figures is None or figures.drop_interval is None:
            continue
        value = 100 * figures.value
        low, high = (value + figures.drop - end for end in figures.drop_interval[::-1])
        assert sorted(drawn[round(point.arithmetic_intensity, 9)]) == pytest.approx([low, min(high, 100)])
        assert low <= value <= high


def test_other_schemes_lie_as_far_below_the_float_model_as_the_search_split_says() -> None:
    found = result("ai", True)
    axes = plot_search(found)
    (start,) = marks(axes)["float model"]
    losses = {round(100 * (found.problem.baseline.value - e.value), 6) for e in found.run.evaluations.values()}
    others = marks(axes)["others: loss on the search split"]
    assert {round(float(start[1] - y), 6) for y in others[:, 1]} <= losses


def test_words_say_what_was_measured_and_in_which_unit() -> None:
    axes = plot_search(result("ai", True))
    assert axes.get_title("left") == "digits_cnn on t4: exhaustive search"
    assert axes.get_xlabel() == "arithmetic intensity (FLOP/byte), more is better"
    assert axes.get_ylabel() == "accuracy (%)"
    (aside,) = (text.get_text() for text in axes.texts if "split" in text.get_text())
    assert aside == "report split, n = 400; 256 schemes measured; fused traffic, batch 1"
    plain = plot_search(result("latency", False))
    plain.figure.draw_without_rendering()  # type: ignore[union-attr]
    assert any("search split, n = 400" in text.get_text() for text in plain.texts)
    assert any("µs" in label.get_text() for label in plain.get_xticklabels())
    data_free = search(digits(), hardware_specs.load("t4"), settings(oracle="weight-sqnr", strategy="random:count=9"))
    metric = data_free.problem.metric
    assert not any("split" in text.get_text() for text in plot_search(data_free).texts)
    assert "95 %" not in str([text.get_text() for text in plot_search(data_free).get_legend().get_texts()])  # type: ignore[union-attr]
    assert plot_search(data_free).get_ylabel() == f"{metric.name} ({metric.unit})"


def test_names_of_marks_are_clear_of_each_other() -> None:
    for target in ("ai", "memory"):
        axes = plot_search(result(target, True))
        names = ("float", "best", "w8", "w4", "w4a8")
        texts = [text for text in axes.texts if text.get_text().startswith(names)]
        assert {"float", "best"} <= {text.get_text().partition(",")[0] for text in texts}
        boxes = [text.get_window_extent() for text in texts]
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        frame = axes.get_window_extent()
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_no_text_is_cut_off() -> None:
    axes = plot_search(result("ai", True))
    figure: Any = axes.figure
    figure.draw_without_rendering()
    legend = axes.get_legend()
    assert legend is not None
    for artist in (legend, axes.xaxis.label, axes.yaxis.label, axes.title):
        box = artist.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1


@pytest.mark.parametrize("choices", [[], [(1, 1, 1, 1)]])
def test_a_search_that_measured_almost_nothing_is_drawn(choices: list[tuple[int, ...]]) -> None:
    for limits in (Constraints(), Constraints(max_loss=0.0, min_intensity=40.0)):
        wanted = settings(strategy=Listed(choices), constraints=limits)
        axes = plot_search(search(digits(), hardware_specs.load("t4"), wanted))
        axes.figure.draw_without_rendering()  # type: ignore[union-attr]
        assert len(marks(axes)["float model"]) == 1


def test_axes_of_the_caller_are_drawn_on() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    own = figure.add_subplot()
    assert plot_search(result("ai", False), own) is own
    assert len(figure.axes) == 1


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_equal_results_give_equal_files(tmp_path: Path, suffix: str) -> None:
    files = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for file in files:
        save_search(result("ai", True), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes().startswith(b"<?xml" if suffix == "svg" else b"\x89PNG")


def test_a_disk_that_fails_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        save_search(result("ai", False), tmp_path / "missing" / "a.svg")
    assert str(caught.value) == (
        f"cannot write figure '{tmp_path}/missing/a.svg': No such file or directory. Next: choose another place."
    )


def test_drawing_leaves_pyplot_alone() -> None:
    before = "matplotlib.pyplot" in sys.modules
    plot_search(result("ai", False))
    assert ("matplotlib.pyplot" in sys.modules) == before
