"""The roofline figure: what stands on the axes is what the estimate says, in every part of the figure."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from torch import Tensor, nn

import roofline
from roofline._plot_data import common_name
from roofline._plot_style import MARKERS
from roofline.plot import plot
from tests.drawing import (
    DRAM,
    FP32,
    INT8,
    L2,
    by_gid,
    collections,
    dots,
    fill_of,
    footnote,
    lines,
    overlaps,
    t4,
    texts,
)

OKABE_ITO = {"compute": "#d55e00", "dram": "#0072b2", "l2": "#56b4e9"}


@pytest.mark.parametrize("name", ["paper", "fused"])
def test_every_row_with_flops_is_a_dot_at_flops_per_byte_and_flops_per_second(
    name: str, request: pytest.FixtureRequest
) -> None:
    estimate = request.getfixturevalue(name)
    rows = [r for r in estimate.layers if r.flops]
    assert len(rows) >= 22
    found = dots(plot(estimate))
    assert len(found) == len(rows)
    expected = sorted((r.flops / r.bytes, r.flops / r.latency_s) for r in rows)
    assert np.array([(x, y) for x, y, *_ in found]) == pytest.approx(np.array(expected))


def test_colour_is_the_resource_that_binds(fused: roofline.GraphEstimate) -> None:
    expected = sorted((r.flops / r.bytes, OKABE_ITO[r.resource]) for r in fused.layers if r.flops)
    assert len({colour for _, colour in expected}) == 2
    for (x, _, colour, _), (wanted_x, wanted) in zip(dots(plot(fused)), expected, strict=True):
        assert x == pytest.approx(wanted_x)
        assert colour == wanted


def test_overhead_is_grey(graph: roofline.OpGraph) -> None:
    estimate = roofline.estimate(graph, t4(overhead=25e-6), "fp32", traffic="paper")
    assert {colour for *_, colour, _ in dots(plot(estimate))} == {"#808080"}


def test_area_is_the_share_of_time_whatever_the_marker(fused: roofline.GraphEstimate) -> None:
    found = dots(plot(fused))
    shares = sorted((r.flops / r.bytes, r.latency_s / fused.latency_s) for r in fused.layers if r.flops)
    ratios = [area / share for (*_, area), (_, share) in zip(found, shares, strict=True) if area > 7.5]
    assert len(ratios) > 15
    assert max(ratios) / min(ratios) < 1.05


def test_every_marker_states_the_area_that_it_fills() -> None:
    ax = Figure().add_subplot()
    for marker, filled in MARKERS:
        assert fill_of(ax.scatter([1], [1], marker=marker)) == pytest.approx(filled, rel=0.03), marker


def test_roofs_stand_at_the_ceilings_in_use_and_at_fp32(fused: roofline.GraphEstimate) -> None:
    ax = plot(fused)
    roofs = lines(ax, "roof-")
    assert {gid: set(y) for gid, (_, y) in roofs.items()} == {"roof-fp32": {FP32}, "roof-int8": {INT8}}
    assert all(x[1] == ax.get_xlim()[1] for x, _ in roofs.values())
    assert "int8  130 TOP/s" in texts(ax)
    assert "fp32  8.14 TFLOP/s" in texts(ax)


def test_formats_of_one_rate_share_a_roof(graph: roofline.OpGraph) -> None:
    spec = t4()
    spec = spec.model_copy(update={"compute": {**spec.compute, "bf16": spec.compute["fp16"]}})
    ax = plot(roofline.estimate(graph, spec, "fp16,layer1.*=bf16", traffic="paper"))
    assert set(lines(ax, "roof-")) == {"roof-bf16", "roof-fp32"}
    assert "bf16, fp16  65.1 TFLOP/s" in texts(ax)


@pytest.mark.parametrize(
    ("traffic", "level", "drawn", "label"),
    [
        ("paper", None, {"dram": DRAM}, "dram"),
        ("unfused", None, {"dram": DRAM}, "dram"),
        ("fused", None, {"dram": DRAM, "l2": L2}, "all levels together"),
        ("fused", "l2", {"l2": L2}, "l2"),
        ("fused", "dram", {"dram": DRAM}, "dram"),
    ],
)
def test_one_diagonal_per_level_that_the_bytes_speak_of(
    graph: roofline.OpGraph, traffic: str, level: str | None, drawn: dict[str, float], label: str
) -> None:
    ax = plot(roofline.estimate(graph, t4(), "w8a8", traffic=traffic), level=level)
    diagonals = lines(ax, "level-")
    assert set(diagonals) == {f"level-{name}" for name in drawn}
    for name, bandwidth in drawn.items():
        x, y = diagonals[f"level-{name}"]
        assert y == pytest.approx(bandwidth * x)
        assert y[1] == pytest.approx(INT8)
    assert ax.get_xlabel() == f"arithmetic intensity (FLOP per byte, {label})"


def test_one_memory_level_gives_its_name_to_the_axis(graph: roofline.OpGraph) -> None:
    ax = plot(roofline.estimate(graph, t4(levels=()), "w8a8", traffic="fused"))
    assert ax.get_xlabel() == "arithmetic intensity (FLOP per byte, dram)"


def test_a_named_level_counts_its_own_bytes_and_says_who_is_left_out(fused: roofline.GraphEstimate) -> None:
    ax = plot(fused, level="dram")
    through = [r for r in fused.layers if r.flops and r.bytes_by_level["dram"]]
    without = [r for r in fused.layers if r.flops and not r.bytes_by_level["dram"]]
    assert through and without
    assert [x for x, *_ in dots(ax)] == pytest.approx(sorted(r.flops / r.bytes_by_level["dram"] for r in through))
    assert f"{len(without)} rows without bytes from dram: " in footnote(ax)


def test_ridge_points_are_marked_with_their_value(fused: roofline.GraphEstimate) -> None:
    ax = plot(fused)
    ((x, y),) = lines(ax, "ridges").values()
    expected = {(roof / bandwidth, roof) for roof in (FP32, INT8) for bandwidth in (DRAM, L2)}
    assert np.array(sorted(zip(x, y, strict=True))) == pytest.approx(np.array(sorted(expected)))
    assert {"25.4", "406", "6.41", "102"} <= set(texts(ax))


@pytest.mark.parametrize("name", ["paper", "fused"])
def test_all_dots_and_ridges_are_inside_the_axes(name: str, request: pytest.FixtureRequest) -> None:
    ax = plot(request.getfixturevalue(name))
    (x_low, x_high), (y_low, y_high) = ax.get_xlim(), ax.get_ylim()
    points = [(x, y) for x, y, *_ in dots(ax)]
    ((ridge_x, ridge_y),) = lines(ax, "ridges").values()
    for x, y in [*points, *zip(ridge_x, ridge_y, strict=True)]:
        assert x_low < x < x_high
        assert y_low < y < y_high


def test_a_diagonal_is_labelled_along_its_slope_on_screen(fused: roofline.GraphEstimate) -> None:
    ax = plot(fused)
    (label,) = [t for t in ax.texts if t.get_text() == "dram  320 GB/s"]
    (x, y) = lines(ax, "level-dram")["level-dram"]
    (x0, y0), (x1, y1) = ax.transData.transform(np.column_stack([x, y]))
    assert label.get_rotation() == pytest.approx(math.degrees(math.atan2(y1 - y0, x1 - x0)))
    centre = ax.transData.transform(label.get_position())
    along = np.array([x1 - x0, y1 - y0]) / math.hypot(x1 - x0, y1 - y0)
    off = abs((centre[0] - x0) * along[1] - (centre[1] - y0) * along[0])
    assert off * 72 / ax.figure.dpi < 14


def test_the_longest_rows_are_labelled_and_no_text_covers_another(paper: roofline.GraphEstimate) -> None:
    ax = plot(paper, label_top=4)
    labels = by_gid(ax, "row-label")
    assert len(labels) == 4
    longest = max(paper.layers, key=lambda r: r.latency_s)
    assert any(common_name([longest.name]).split(".")[0] in t.get_text() for t in labels)
    inside = [t for t in ax.texts if t.get_gid() not in {"footnote", "subtitle"}]
    assert list(overlaps(ax, inside)) == []
    frame = ax.get_window_extent()
    assert all(frame.x0 <= t.get_window_extent().x0 and t.get_window_extent().x1 <= frame.x1 for t in labels)


def test_the_check_for_covered_texts_finds_them() -> None:
    ax = Figure().add_subplot()
    ax.text(0.5, 0.5, "one")
    ax.text(0.51, 0.5, "two")
    ax.text(0.5, 0.9, "three")
    assert list(overlaps(ax, list(ax.texts))) == [("one", "two")]


def test_rows_in_one_place_share_a_label() -> None:
    blocks = {f"block{i}": nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)) for i in range(3)}
    stack = nn.ModuleDict({"blocks": nn.Sequential(OrderedDict(blocks))})
    graph = roofline.trace(nn.Sequential(OrderedDict(stack.items())), torch.empty(8, 64), name="stack")
    ax = plot(roofline.estimate(graph, t4(), "fp32", traffic="paper"))
    assert len(dots(ax)) == 6
    assert [t.get_text() for t in by_gid(ax, "row-label")] == ["blocks.block*.* ×6"]


def test_no_labels_when_none_are_asked_for(paper: roofline.GraphEstimate) -> None:
    assert by_gid(plot(paper, label_top=0), "row-label") == []


class Picks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 64)
        self.head = nn.Linear(64, 64)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.table(tokens))


def test_rows_without_flops_are_counted_with_their_share_of_time() -> None:
    graph = roofline.trace(Picks(), torch.zeros(4, 8, dtype=torch.int64), name="picks")
    estimate = roofline.estimate(graph, t4(overhead=1e-5), "fp32", traffic="unfused")
    silent = [r for r in estimate.layers if not r.flops]
    assert len(silent) == 1
    ax = plot(estimate)
    assert len(dots(ax)) == len(estimate.layers) - 1
    share = 100 * silent[0].latency_s / estimate.latency_s
    assert footnote(ax) == f"1 row without FLOPs: {share:.0f} % of time, not drawn"


def test_unknown_rows_are_counted_apart(paper: roofline.GraphEstimate) -> None:
    first, second, *rest = paper.layers
    strange = replace(first, kind="unknown", macs=0, flops=0)
    silent = replace(second, kind="copy", macs=0, flops=0)
    ax = plot(replace(paper, layers=(strange, silent, *rest)))
    assert len(dots(ax)) == len(rest)
    assert "1 row without FLOPs: " in footnote(ax)
    assert "1 row of unknown kind: " in footnote(ax)


def test_format_conversions_are_counted(graph: roofline.OpGraph) -> None:
    estimate = roofline.estimate(graph, t4(), "w8a8,layer2.*=fp16", traffic="unfused")
    count = sum(t.latency_s > 0 for t in estimate.transitions)
    assert count > 1
    assert f"{count} format conversions: " in footnote(plot(estimate))


def test_an_estimate_without_rows_shows_the_machine_alone(paper: roofline.GraphEstimate) -> None:
    ax = plot(replace(paper, layers=(), latency_s=0.0))
    assert dots(ax) == []
    assert set(lines(ax, "roof-")) == {"roof-fp32"}
    assert footnote(ax) == "no row to draw"


def test_measured_rows_are_hollow_and_joined_to_their_dots(paper: roofline.GraphEstimate) -> None:
    conv, linear = paper.layers[0], paper.layers[-1]
    assert (conv.kind, linear.kind) == ("conv", "linear")
    ax = plot(paper, measured={conv.name: 3 * conv.latency_s, linear.name: 2 * linear.latency_s})
    slowed = ((conv, 3), (linear, 2))
    expected = sorted((r.flops / r.bytes, r.flops / r.latency_s / slower) for r, slower in slowed)
    hollow = dots(ax, "measured-")
    assert np.array([(x, y) for x, y, *_ in hollow]) == pytest.approx(np.array(expected))
    faces = np.vstack([np.asarray(c.get_facecolor()) for c in collections(ax, "measured-")])
    assert (faces == 1).all()
    joins = [c for c in ax.collections if isinstance(c, LineCollection) and str(c.get_gid()).startswith("joins-")]
    ends = sorted(segment.tolist() for c in joins for segment in c.get_segments())
    wanted = sorted([[r.flops / r.bytes, r.flops / r.latency_s / k] for k in (1, slower)] for r, slower in slowed)
    assert np.array(ends) == pytest.approx(np.array(wanted))
    low = min(y for _, y in expected)
    assert ax.get_ylim()[0] < low


def test_title_states_every_setting(fused: roofline.GraphEstimate) -> None:
    ax = plot(fused)
    assert ax.get_title(loc="left") == "resnet20 on T4-like card"
    (subtitle,) = by_gid(ax, "subtitle")
    for part in ("w8a8", "batch 1", "fused traffic", "104 FLOP/byte", "predicted ", "(bound from datasheet peaks)"):
        assert part in subtitle.get_text()
    sustained = replace(fused, hardware=fused.hardware.sustained())
    assert by_gid(plot(sustained), "subtitle")[0].get_text().endswith("(bound from sustained rates)")


def test_a_long_scheme_is_cut_and_the_rest_of_the_subtitle_kept(graph: roofline.OpGraph) -> None:
    scheme = ",".join(["w8a8", *(f"{layer}=fp16" for layer in graph.layers)])
    (subtitle,) = by_gid(plot(roofline.estimate(graph, t4(), scheme, traffic="paper")), "subtitle")
    assert "…" in subtitle.get_text()
    assert len(subtitle.get_text()) <= 124
    assert subtitle.get_text().endswith("(bound from datasheet peaks)")


def test_legends_stand_outside_the_axes(fused: roofline.GraphEstimate) -> None:
    ax = plot(fused)
    legends = [a for a in ax.get_children() if isinstance(a, Legend)]
    said = {legend.get_title().get_text(): [t.get_text() for t in legend.get_texts()] for legend in legends}
    assert said["bound by"] == ["compute", "l2"]
    assert said["kind of op"] == ["convolution", "linear, matmul", "other"]
    assert said[""] == ["ridge point"]
    frame, page = ax.get_window_extent(), ax.figure.bbox
    boxes = [legend.get_window_extent() for legend in legends]
    assert all(frame.x1 <= box.x0 and box.x1 <= page.x1 and box.y0 >= page.y0 for box in boxes)
    tops = sorted(boxes, key=lambda box: -box.y1)
    assert all(above.y0 >= below.y1 for above, below in itertools.pairwise(tops))


@pytest.mark.parametrize("layout", [None, "constrained"])
def test_given_axes_are_drawn_on_and_returned(paper: roofline.GraphEstimate, layout: Any) -> None:
    figure = Figure(figsize=(16, 6), layout=layout)
    left, right = figure.subplots(1, 2)
    assert plot(paper, left) is left
    assert len(dots(left)) == len(paper.layers)
    assert not right.collections
    legends = [a for a in left.get_children() if isinstance(a, Legend)]
    assert all(legend.get_window_extent().x1 <= right.get_window_extent().x0 for legend in legends)


def test_colours_are_readable_as_text(fused: roofline.GraphEstimate) -> None:
    """Labels on lines have a contrast of at least 3 to 1 on white (WCAG 2.2, large text and graphics)."""
    for text in plot(fused).texts:
        channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(text.get_color())]
        luminance = 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]
        assert 1.05 / (luminance + 0.05) >= 3, text.get_text()
