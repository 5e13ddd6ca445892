"""The roofline figure: what stands on the axes is what the estimate says, and files and errors are exact."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from torch import Tensor, nn

import roofline
from aiq import zoo
from hardware_specs import HardwareSpec
from roofline._plot_data import common_name, elide, limits
from roofline._plot_style import MARKERS
from roofline.errors import InputError, UnknownNameError
from roofline.plot import plot, save

FP32, FP16, INT8, DRAM, L2 = 8.141e12, 65.13e12, 130e12, 320e9, 1.27e12
OKABE_ITO = {"compute": "#d55e00", "dram": "#0072b2", "l2": "#56b4e9"}
SOURCE = {"kind": "datasheet", "source": "figures of a T4, for tests"}


Levels = tuple[tuple[str, float, float], ...]


def t4(*, overhead: float | None = None, levels: Levels = (("l2", L2, 4e6),)) -> HardwareSpec:
    memory: list[dict[str, Any]] = [{"name": "dram", "bandwidth_bytes_per_s": {"value": DRAM, **SOURCE}}]
    for name, bandwidth, capacity in levels:
        rate, size = {"value": bandwidth, **SOURCE}, {"value": capacity, **SOURCE}
        memory.append({"name": name, "bandwidth_bytes_per_s": rate, "capacity_bytes": size})
    data: dict[str, Any] = {
        "name": "t4-like",
        "title": "T4-like card",
        "vendor": "NVIDIA",
        "kind": "gpu",
        "architecture": "turing",
        "compute": {f: {"value": v, **SOURCE} for f, v in (("fp32", FP32), ("fp16", FP16), ("int8", INT8))},
        "memory": memory,
    }
    if overhead:
        data["launch_overhead_s"] = {"value": overhead, **SOURCE}
    return HardwareSpec.model_validate(data)


@pytest.fixture(scope="module")
def graph() -> roofline.OpGraph:
    return roofline.trace(
        zoo.build("resnet20"), torch.empty(1, 3, 32, 32), name="resnet20", keep_weights=zoo.get("resnet20").keep
    )


@pytest.fixture(scope="module")
def paper(graph: roofline.OpGraph) -> roofline.GraphEstimate:
    return roofline.estimate(graph, t4(), "fp32", batch=1, traffic="paper")


@pytest.fixture(scope="module")
def fused(graph: roofline.OpGraph) -> roofline.GraphEstimate:
    return roofline.estimate(graph, t4(), "w8a8", batch=1, traffic="fused")


def collections(ax: Axes, prefix: str) -> list[PathCollection]:
    return [c for c in ax.collections if isinstance(c, PathCollection) and str(c.get_gid()).startswith(prefix)]


def dots(ax: Axes, prefix: str = "rows-") -> list[tuple[float, float, str, float]]:
    """Each dot's place, colour and true area."""
    found = []
    for collection in collections(ax, prefix):
        filled = fill_of(collection)
        offsets, sizes = np.asarray(collection.get_offsets()), collection.get_sizes()
        colours: Any = collection.get_facecolor() if prefix == "rows-" else collection.get_edgecolor()
        for (x, y), size, colour in zip(offsets, sizes, colours, strict=True):
            found.append((float(x), float(y), to_hex(tuple(colour)), float(size) * filled))
    return sorted(found)


def fill_of(collection: PathCollection) -> float:
    """The area of a marker at size 1, integrated from its outline."""
    (path,) = collection.get_paths()
    polygon = np.asarray(path.to_polygons()[0])
    x, y = polygon[:, 0], polygon[:, 1]
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


def lines(ax: Axes, prefix: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    found = [line for line in ax.lines if str(line.get_gid()).startswith(prefix)]
    return {str(line.get_gid()): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in found}


def texts(ax: Axes) -> list[str]:
    return [t.get_text() for t in ax.texts]


def by_gid(ax: Axes, gid: str) -> list[Text]:
    return [t for t in ax.texts if t.get_gid() == gid]


def footnote(ax: Axes) -> str:
    return " ".join(t.get_text().replace("\n", " ") for t in by_gid(ax, "footnote"))


def overlaps(ax: Axes, shown: list[Text]) -> Iterator[tuple[str, str]]:
    """Pairs of unrotated texts that cover each other."""
    boxes = [(t.get_text(), t.get_window_extent()) for t in shown if not t.get_rotation()]
    for (a, first), (b, second) in itertools.combinations(boxes, 2):
        if first.x0 < second.x1 and second.x0 < first.x1 and first.y0 < second.y1 and second.y0 < first.y1:
            yield a, b


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


def test_svg_is_the_same_twice(fused: roofline.GraphEstimate, tmp_path: Path) -> None:
    first, second = tmp_path / "a.svg", tmp_path / "b.SVG"
    save(fused, first)
    save(fused, str(second))
    assert first.read_bytes() == second.read_bytes()
    text = first.read_text("utf-8")
    assert "<svg" in text and "dc:date" not in text
    assert "rows-convolution" in text


def test_png_is_the_size_of_a_slide_and_the_same_twice(fused: roofline.GraphEstimate, tmp_path: Path) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    save(fused, first)
    save(fused, second)
    content = first.read_bytes()
    assert content == second.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert (int.from_bytes(content[16:20]), int.from_bytes(content[20:24])) == (1600, 992)


def test_save_passes_the_settings_on(fused: roofline.GraphEstimate, tmp_path: Path) -> None:
    save(fused, tmp_path / "a.svg", level="l2", label_top=0, measured={fused.layers[0].name: 1e-6})
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert 'id="measured-convolution"' in text and 'id="level-l2"' in text
    assert 'id="level-dram"' not in text and 'id="row-label"' not in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.pdf", "cannot tell the format of figure '{path}' from the suffix '.pdf': known: .svg, .png. "),
        ("a", "cannot tell the format of figure '{path}' from no suffix: known: .svg, .png. "),
    ],
)
def test_an_unknown_suffix_is_refused(paper: roofline.GraphEstimate, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        save(paper, tmp_path / name)
    assert str(caught.value) == message.format(path=tmp_path / name) + "Next: end the path in one of them."
    assert not (tmp_path / name).exists()


def test_a_path_that_cannot_be_written_is_refused_before_anything_is_drawn(
    paper: roofline.GraphEstimate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roofline.plot.plot", lambda *_, **__: pytest.fail("drawn"))
    next_step = "Next: choose a file in a folder you may write to."
    missing = tmp_path / "none" / "a.svg"
    with pytest.raises(InputError) as caught:
        save(paper, missing)
    assert str(caught.value) == f"cannot write figure '{missing}': there is no folder '{missing.parent}'. {next_step}"
    folder = tmp_path / "folder.svg"
    folder.mkdir()
    with pytest.raises(InputError) as caught:
        save(paper, folder)
    assert str(caught.value) == f"cannot write figure '{folder}': it is a folder. {next_step}"
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="permission denied"):
        save(paper, tmp_path / "a.svg")


def test_a_disk_that_fails_late_is_the_same_error(
    paper: roofline.GraphEstimate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot write figure '.*a\.png': No space left on device\. Next: "):
        save(paper, tmp_path / "a.png")


def test_wrong_arguments_are_refused(paper: roofline.GraphEstimate) -> None:
    with pytest.raises(UnknownNameError) as caught:
        plot(paper, level="l3")
    assert str(caught.value) == (
        "unknown memory level 'l3': did you mean 'l2'? Next: choose a level of t4-like, or none for all together."
    )
    with pytest.raises(UnknownNameError, match=r"^unknown row in measured 'conv_1': did you mean 'conv1'"):
        plot(paper, measured={"conv_1": 1e-6})
    with pytest.raises(InputError) as negative:
        plot(paper, label_top=-1)
    assert str(negative.value) == "label_top must be at least 0, got -1. Next: pass how many rows to label."
    for seconds in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError) as time:
            plot(paper, measured={"conv1": seconds})
        assert str(time.value) == (
            f"measured time of row 'conv1' must be a positive number of seconds, got {seconds}. Next: leave it out."
        )


@pytest.mark.parametrize(
    ("names", "common"),
    [
        (["conv1"], "conv1"),
        (["a.0.q", "a.1.q"], "a.*.q"),
        (["a.conv1", "a.conv2"], "a.conv*"),
        (["a.q", "a.o"], "a.{o,q}"),
        (["a.q", "a.k", "a.v", "a.o"], "a.*"),
        (["head", "a.0"], "head, …"),
    ],
)
def test_several_names_are_written_as_one(names: list[str], common: str) -> None:
    assert common_name(names) == common


def test_long_texts_lose_their_middle() -> None:
    assert elide("abcdefghij", 10) == "abcdefghij"
    assert elide("abcdefghijk", 7) == "abc…ijk"


def test_limits_are_round_and_leave_room() -> None:
    low, high = limits([1.0, 1000.0], 5.0, 1.0, 1.0)
    assert (low, high) == pytest.approx((0.1, 10000.0))
    low, high = limits([3.0], 5.0, 0.5, 0.5)
    assert low < 3 / 5 and high > 3 * 5


def test_importing_the_package_does_not_import_matplotlib() -> None:
    code = "import sys, roofline, roofline.plot; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_drawing_leaves_pyplot_alone(paper: roofline.GraphEstimate) -> None:
    before = "matplotlib.pyplot" in sys.modules
    plot(paper)
    assert ("matplotlib.pyplot" in sys.modules) == before
