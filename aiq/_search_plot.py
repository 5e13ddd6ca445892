"""The figure of a search: accuracy against what was gained, with intervals, and what a λ sweep can reach set apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aiq._search_points import Point
from aiq._search_result import SearchResult
from aiq.oracle import Metric
from aiq.space import Choice
from roofline._plot_canvas import frame, new_figure, save
from roofline._plot_data import elide
from roofline._plot_layout import CROWDED, Page
from roofline._plot_style import COMPUTE, FAINT, INK, dark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (9.6, 5.8)
_BLUE, _GREY = "#0072B2", "#9A9A9A"
_DEEPEST_POINTS = 20.0
_WIDE = 12.0
_ON_LINE = 25.0
_AXES = {
    "ai": ("arithmetic intensity (FLOP/byte), more is better", ""),
    "latency": ("predicted time of a pass, less is better", "s"),
    "memory": ("weights, less is better", "B"),
}


class _Dot(NamedTuple):
    x: float
    y: float
    low: float
    high: float


def plot_search(result: SearchResult, ax: Axes | None = None) -> Axes:
    """Draw the measured trade-off.

    Everything is of one split: the report split where points of the frontier were measured on it, else the search
    split. Other measured schemes are faint, as far below the float model as the search split says. A bar is the 95 %
    interval of the paired difference to the float model, drawn around the scheme's own value. Only points on the
    convex hull are in reach of a sweep over λ.

    Args:
        result: From :func:`aiq.search`.
        ax: Axes to draw on; by default a new figure, which no window shows: ``plot_search(r).figure``.
    """
    axes = _new_axes() if ax is None else ax
    split = _split(result)
    points = [point for point in result.frontier if _has(point, split)]
    hull = [point for point in points if point.supported]
    budget = [point for point in points if not point.supported]
    uniform = {label: point for label, point in result.uniform.items() if _has(point, split)}
    best = result.best if result.best and _has(result.best, split) else None
    start = _dot(result, result.baseline, split)
    line = [_dot(result, point, split) for point in points]

    axes.axhline(start.y, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1.5, gid="float")
    others = _cloud(result, start.y)
    name = "other measured schemes" if split == "search" else "others: loss on the search split"
    _scatter(axes, others, name, 1.8, marker=".", s=26, c=_GREY, alpha=0.55, linewidths=0)
    if len(line) > 1:
        axes.plot([d.x for d in line], [d.y for d in line], color=_BLUE, linewidth=1.2, zorder=2, gid="frontier")
    drawn = [*points, *uniform.values(), *([best] if best else [])]
    _bars(axes, [_dot(result, point, split) for point in {p.choice: p for p in drawn}.values()])
    looks: dict[str, Any] = {"edgecolors": _BLUE, "linewidths": 1.3}
    found = [_dot(result, point, split) for point in hull]
    _scatter(axes, found, "frontier, on the hull: in reach of a λ sweep", 3, marker="o", s=46, c=_BLUE, **looks)
    found = [_dot(result, point, split) for point in budget]
    _scatter(axes, found, "frontier, off the hull: only a limit finds it", 3, marker="D", s=36, c="white", **looks)
    found = [_dot(result, point, split) for point in uniform.values()]
    _scatter(axes, found, "one format everywhere", 3.1, marker="s", s=34, c="#E69F00", edgecolors=INK, linewidths=0.8)
    _scatter(axes, [start], "float model", 3.2, marker="s", s=44, c=INK)
    if best:
        found = [_dot(result, best, split)]
        _scatter(axes, found, "best", 3.4, marker="*", s=230, c=COMPUTE, edgecolors="white", linewidths=0.9)
    _frame(axes, result, split, [start, *line, *([_dot(result, best, split)] if best else [])], others)
    names = {point.choice: label for label, point in uniform.items()}
    if best:
        names[best.choice] = f"best, {names[best.choice]}" if best.choice in names else "best"
    shown = {point.choice: point for point in (*uniform.values(), *([best] if best else []))}
    labels = {"float": start, **{names[choice]: _dot(result, point, split) for choice, point in shown.items()}}
    _label(axes, labels, [*others, *line], line)
    return axes


def save_search(result: SearchResult, path: Path) -> None:
    """Write the figure of :func:`plot_search` to a ``.svg`` or ``.png`` file; equal results give equal files.

    Raises:
        InputError: The file cannot be written.
    """
    figure: Any = plot_search(result).figure
    save(figure, path)


def _split(result: SearchResult) -> str:
    reported = [point for point in result.frontier if point.report and point.choice != result.baseline.choice]
    return result.reported.split if result.reported and result.settings.frontier and reported else "search"


def _has(point: Point, split: str) -> bool:
    return split == "search" or point.report is not None


def _dot(result: SearchResult, point: Point, split: str) -> _Dot:
    figures, start = point.search, result.baseline.search
    if split != "search" and point.report and result.baseline.report:
        figures, start = point.report, result.baseline.report
    (x,) = _xs(result, [point.choice])
    metric = result.problem.metric
    y = start.value + _per_drop(metric) * figures.drop
    ends = figures.drop_interval or (figures.drop, figures.drop)
    low, high = sorted(start.value + _per_drop(metric) * end for end in ends)
    scale = _scale(metric)
    return _Dot(float(x), scale * y, scale * low, scale * min(high, _top(metric)))


def _per_drop(metric: Metric) -> float:
    """Return how much the metric changes for each unit of drop."""
    return (-1 if metric.higher_is_better else 1) / metric.scale


def _scale(metric: Metric) -> float:
    """Return what turns a value into the axis's unit: fractions are shown as percentages."""
    return metric.scale if metric.unit == "points" else 1.0


def _top(metric: Metric) -> float:
    """Return the greatest value that there is; an interval or a shifted value may reach beyond it."""
    return 1.0 if metric.unit == "points" else np.inf


def _xs(result: SearchResult, choices: Sequence[Choice]) -> Any:
    scores = result.problem.space.score(choices)
    target = result.problem.objective.target
    return {"ai": scores.arithmetic_intensity, "latency": scores.latency_s, "memory": scores.weight_bytes}[target]


def _cloud(result: SearchResult, start: float) -> list[_Dot]:
    """Return every measured scheme that has no mark of its own, as far from the float model as on the search split."""
    marked = {point.choice for point in (result.baseline, *result.frontier, *result.uniform.values())}
    marked |= {result.best.choice} if result.best else set()
    rest = [choice for choice in result.run.evaluations if choice not in marked]
    if not rest:
        return []
    metric = result.problem.metric
    scale, top = _scale(metric), _scale(metric) * _top(metric)
    drops = [result.problem.drop(result.run.evaluations[choice]) for choice in rest]
    values = [min(start + scale * _per_drop(metric) * drop, top) for drop in drops]
    return [_Dot(float(x), y, y, y) for x, y in zip(_xs(result, rest), values, strict=True)]


def _scatter(ax: Axes, dots: Sequence[_Dot], label: str, zorder: float, **looks: Any) -> None:
    if dots:
        ax.scatter([d.x for d in dots], [d.y for d in dots], label=label, zorder=zorder, **looks)


def _bars(ax: Axes, dots: Sequence[_Dot]) -> None:
    if all(d.low == d.high for d in dots):
        return
    ax.vlines(
        [d.x for d in dots],
        [d.low for d in dots],
        [d.high for d in dots],
        color=FAINT,
        linewidth=0.9,
        alpha=0.75,
        zorder=2.5,
        label="95 % interval of the difference to the float model",
    )


def _new_axes() -> Axes:
    width, height = _SIZE
    return new_figure(width, height).add_axes((0.85 / width, 1.35 / height, 1 - 1.1 / width, 1 - 2.15 / height))


def _frame(ax: Axes, result: SearchResult, split: str, dots: Sequence[_Dot], others: Sequence[_Dot]) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    metric, n = result.problem.metric, result.baseline.search.n
    if split != "search" and result.baseline.report:
        n = result.baseline.report.n
    words, unit = _AXES[result.problem.objective.target]
    xs = [d.x for d in (*dots, *others)]
    if max(xs) > _WIDE * min(xs):
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(EngFormatter(unit))
    _limit(ax, metric, dots)
    frame(ax)
    ax.set_xlabel(words, fontsize=10.5, color=INK)
    ax.set_ylabel(f"{metric.name} ({'%' if metric.unit == 'points' else metric.unit})", fontsize=10.5, color=INK)
    title = f"{elide(result.model, 40)} on {result.hardware.name}: {result.strategy} search"
    ax.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=22, parse_math=False)
    examples = f"{split} split, n = {n}; " if n else ""
    ax.annotate(
        f"{examples}{len(result.run.evaluations)} schemes measured; "
        f"{result.estimate.traffic} traffic, batch {result.estimate.batch}",
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 7),
        textcoords="offset points",
        fontsize=9.5,
        color=FAINT,
        parse_math=False,
    )
    ax.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.13),
        ncols=3,
        frameon=False,
        fontsize=8.8,
        labelcolor=INK,
        handletextpad=0.5,
        columnspacing=1.4,
    )


def _limit(ax: Axes, metric: Metric, dots: Sequence[_Dot]) -> None:
    """Fit what is marked; what is far worse than the float model does not flatten the rest."""
    start = dots[0].y
    sign = 1 if metric.higher_is_better else -1
    depth = _DEEPEST_POINTS if metric.unit == "points" else np.inf
    kept = [d for d in dots if sign * (start - d.y) <= depth]
    low, high = min(d.low for d in kept), max(d.high for d in kept)
    room = 0.08 * (high - low) or 0.5
    ax.set_ylim(low - room, high + room)


def _label(ax: Axes, labels: dict[str, _Dot], obstacles: Sequence[_Dot], line: Sequence[_Dot]) -> None:
    """Write names beside their marks, clear of each other and of the dots, with a leader where they are far."""
    box, point = ax.get_window_extent(), ax.figure.dpi / 72
    page = Page(box.x0, box.y0, box.x1, box.y1, point=point)
    (low, high) = ax.get_ylim()
    shown = {name: dot for name, dot in labels.items() if low <= dot.y <= high}
    at = ax.transData.transform([(d.x, d.y) for d in (*obstacles, *shown.values())])
    page.add_dots((x, y, 4 * point) for x, y in at)
    for dot in (*obstacles, *shown.values()):
        ends = ax.transData.transform([(dot.x, dot.low), (dot.x, dot.high)])
        page.add_line(tuple(ends[0]), tuple(ends[1]))
    along = [tuple(end) for end in ax.transData.transform([(d.x, d.y) for d in line])] if line else []
    level = float(ax.transData.transform((0, labels["float"].y))[1])
    for before, after in [*pairwise(along), ((box.x0, level), (box.x1, level))]:
        page.add_line(tuple(before), tuple(after), weight=_ON_LINE)
    texts, items = [], []
    for name, dot in shown.items():
        text = ax.text(dot.x, dot.y, name, fontsize=9, ha="center", va="center", zorder=4, parse_math=False)
        text.set(
            color=dark(COMPUTE) if name.startswith("best") else INK,
            fontweight="bold" if name.startswith("best") else "normal",
        )
        size = text.get_window_extent()
        x, y = ax.transData.transform((dot.x, dot.y))
        texts.append(text)
        items.append(((float(x), float(y)), 5 * point, (size.width, size.height)))
    for text, place in zip(texts, page.place_labels(items), strict=True):
        if place.cost >= CROWDED:
            text.remove()
            continue
        text.set_position(tuple(ax.transData.inverted().transform(place.centre)))
        if place.leader:
            ends = ax.transData.inverted().transform(place.leader)
            ax.plot(ends[:, 0], ends[:, 1], color=FAINT, linewidth=0.7, zorder=3.3)
