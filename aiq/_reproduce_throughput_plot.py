"""Experiment 3, the figure: images a second by runtime and scheme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aiq import _paper
from aiq._reproduce_throughput_bench import Row
from aiq._reproduce_throughput_result import EAGER, Found
from aiq._reproduce_throughput_schemes import BF16, FIRST, FP32, GREEDY, INT8, PLAN, RANDOM
from roofline._plot_canvas import frame, new_figure
from roofline._plot_style import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {
    FP32: "#8A8A8A",
    BF16: "#CC79A7",
    INT8: "#56B4E9",
    GREEDY: "#E69F00",
    FIRST: "#F0C050",
    PLAN: "#009E73",
    RANDOM: "#BDBDBD",
}
_BAR_INCHES, _HEADER_INCHES, _WIDTH = 0.27, 0.42, 10.4
_ROOM = 1.04
_WHOLE = 1e4
_COLUMNS = {"images/s": 1.10, "over\nits FP32": 1.20, "over\neager FP32": 1.325}
"""Where the figures beside the bars end, as a share of the width of the axes."""


@dataclass(frozen=True)
class _Bar:
    """One bar: its label, its value, and what is drawn beside it."""

    label: str
    family: str
    value: float
    low: float | None = None
    high: float | None = None
    dots: tuple[float, ...] = ()
    predicted: float | None = None
    gains: tuple[float | None, float | None] = (None, None)


def draw_throughput(found: Found) -> Figure:
    """Draw one panel a runtime, one bar a scheme, the paper's figures as printed in the last."""
    panels = [(found.versions[runtime], _bars(found, runtime)) for runtime in found.runtimes]
    panels.append((f"{found.versions[EAGER]}, eager", _bars(found, EAGER)))
    panels.append(("the paper, as printed: PyTorch on 2 virtual CPUs of a Xeon", _papers()))
    heights = [_BAR_INCHES * len(bars) for _, bars in panels]
    figure = new_figure(_WIDTH, sum(heights) + _HEADER_INCHES * len(panels) + 1.5, "constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    most = max(max(bar.value, bar.high or 0, bar.predicted or 0) for _, bars in panels for bar in bars)
    for ax, (title, bars) in zip(axes, panels, strict=True):
        _draw(ax, title, bars)
    for name, end in _COLUMNS.items():
        axes[0].annotate(
            name,
            (end, 1),
            (0, 4),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8.5,
            color=FAINT,
        )
    axes[0].set_xlim(0, _ROOM * most)
    axes[-1].set_xlabel("images a second", fontsize=10, color=INK)
    _legend(figure, found)
    noise = "machine too noisy; " if found.noisy else ""
    title = f"Throughput of {found.lab.network} at batch {found.settings.batch}"
    figure.suptitle(f"{title}\n", x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK, linespacing=1.7)
    subtitle = f"{noise}{found.machine.title}; all timed in turn, {found.eager.measurement.samples} samples of each"
    at = 1 - 0.40 / figure.get_figheight()
    figure.text(0.01, at, subtitle, fontsize=9.2, color=FAINT, va="top", ha="left", parse_math=False)
    return figure


def _bars(found: Found, runtime: str) -> list[_Bar]:
    bars = [_bar(found, row) for row in found.of(runtime) if row.pick.family != RANDOM]
    mean = found.random_throughput(runtime)
    if mean is not None:
        draws = tuple(row.measurement.throughput for row in found.random(runtime))
        gains = (mean / found.base(runtime).measurement.throughput, mean / found.eager.measurement.throughput)
        label = f"{found.chosen.count} random layers, mean of {len(draws)}"
        bars.append(_Bar(label, RANDOM, mean, dots=draws, gains=gains))
    return bars


def _bar(found: Found, row: Row) -> _Bar:
    m = row.measurement
    slow, fast = np.percentile(m.rounds, [75, 25])
    gains = found.over(row, found.base(row.runtime)).value, found.over(row, found.eager).value
    predicted = m.batch / row.predicted.latency_s if row.predicted else None
    label = f"{row.pick.config} (as {row.same_as})" if row.same_as else row.pick.config
    return _Bar(label, row.pick.family, m.throughput, m.batch / slow, m.batch / fast, (), predicted, gains)


def _papers() -> list[_Bar]:
    first = _paper.THROUGHPUT[0].images_per_s
    families = (FP32, FIRST, RANDOM)
    return [
        _Bar(paper.config, family, paper.images_per_s, gains=(paper.images_per_s / first, None))
        for paper, family in zip(_paper.THROUGHPUT, families, strict=True)
    ]


def _draw(ax: Axes, title: str, bars: list[_Bar]) -> None:
    places = range(len(bars))
    ax.barh(places, [bar.value for bar in bars], height=0.72, color=[_COLOURS[bar.family] for bar in bars], zorder=2)
    beside: dict[str, Any] = {"va": "center", "ha": "right", "fontsize": 9, "color": INK}
    for place, bar in zip(places, bars, strict=True):
        if bar.low is not None and bar.high is not None:
            ax.plot([bar.low, bar.high], [place] * 2, color=INK, linewidth=1.2, zorder=4, gid="quartiles")
        if bar.dots:
            ax.plot(bar.dots, [place] * len(bar.dots), "o", color=INK, markersize=3, zorder=4, gid="draws")
        if bar.predicted is not None:
            looks: dict[str, Any] = {"markersize": 6, "markeredgecolor": INK, "markerfacecolor": "white"}
            ax.plot([bar.predicted], [place], "D", zorder=5, gid="predicted", **looks)
        texts = [
            f"{bar.value:.{1 if bar.value < _WHOLE else 0}f}",
            *("–" if gain is None else f"{gain:.2f}x" for gain in bar.gains),
        ]
        for end, text in zip(_COLUMNS.values(), texts, strict=True):
            ax.text(end, place, text, transform=ax.get_yaxis_transform(), **beside)
    frame(ax, labelsize=9)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.set_yticks(list(places), [bar.label for bar in bars], fontsize=9)
    ax.set_ylim(len(bars) - 0.4, -0.6)
    ax.set_title(title, fontsize=10, color=INK, loc="left", fontweight="bold", pad=4, parse_math=False)


def _legend(figure: Figure, found: Found) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=INK, linewidth=1.2, label="quartiles of rounds")]
    if any(row.predicted for row in found.rows):
        looks: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": INK, "linestyle": "none"}
        handles.append(Line2D([], [], marker="D", markersize=6, label="predicted", **looks))
    if any(row.pick.family == RANDOM for row in found.rows):
        handles.append(Line2D([], [], marker="o", markersize=3, color=INK, linestyle="none", label="single draws"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
