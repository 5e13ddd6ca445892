"""The figures of the reproduced experiments, in the style of the roofline figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aiq import _paper
from aiq._reproduce_lab import BITS, INT4, INT8, KEEP, NAMES
from aiq._reproduce_measure import Measured
from aiq.frontier import non_dominated
from roofline._plot_canvas import frame, new_figure
from roofline._plot_style import COMPUTE, FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from aiq._reproduce_heuristics import Ranking
    from aiq._reproduce_layers import CaseStudy
    from aiq._reproduce_search import Candidate, Comparison

_BESIDE_POINTS = 7.0
_BLUE, _GREEN, _GREY, _SKY = "#0072B2", "#009E73", "#8A8A8A", "#56B4E9"
_FORMAT = {INT8: ("INT8", _BLUE, -0.16), INT4: ("INT4", COMPUTE, 0.16)}
_WHOSE = {"paper": _BLUE, "aiq": _GREEN}
_BIT_COLOURS = {KEEP: "#BDBDBD", INT8: _SKY, INT4: COMPUTE}
_LABEL: dict[str, Any] = {"fontsize": 9.5, "color": INK}
_DASHED: dict[str, Any] = {"color": INK, "linewidth": 0.9, "linestyle": (0, (4, 3))}
_MARKERS = {"FP32": "s", "INT8": "D", "INT4": "v", "greedy": "o", "coordinate": "^", "exact": "*"}


def draw_case_study(study: CaseStudy) -> Figure:
    """Draw Fig. 2: intensity, then accuracy with each quantizer, against the layer that is quantized."""
    quantizers = list(dict.fromkeys(quantizer for quantizer, _ in study.singles))
    figure = new_figure(10.4, 3.3 + 2.3 * len(quantizers), "constrained")
    axes = figure.subplots(1 + len(quantizers), 1, sharex=True)
    places = range(len(study.lab.layers))
    first = axes[0]
    for k, (label, colour, _) in _FORMAT.items():
        first.plot(places, study.intensities[k], "-o", color=colour, markersize=5, linewidth=1.2, label=label)
    first.axhline(study.start, **_DASHED, label="FP32, nothing quantized")
    first.set_ylabel("arithmetic intensity\n(FLOP/byte)", **_LABEL)
    first.legend(loc="upper left", frameon=False, fontsize=8.8, labelcolor=INK)
    for ax, quantizer in zip(axes[1:], quantizers, strict=True):
        ax.axhline(study.baseline.accuracy, **_DASHED)
        for k, (_, colour, shift) in _FORMAT.items():
            _changes(ax, study.singles[quantizer, k], colour, shift, study.baseline.accuracy)
        ax.set_ylabel(f"accuracy (%)\n{NAMES[quantizer]} quantizer", **_LABEL)
    _same_height(axes[1:])
    for ax in axes:
        frame(ax, labelsize=9)
    _name_layers(axes[-1], study.lab.layers)
    n = study.baseline.n
    _title(
        figure,
        "One layer of ResNet-20 quantized at a time",
        f"n = {n} images; bars: paired 95 % interval of the change; filled: it excludes zero; dashed: FP32",
    )
    return figure


def draw_scores(found: Comparison) -> Figure:
    """Draw Fig. 3a: intensity times accuracy of each scheme, the paper's beside ours."""
    figure = new_figure(10.4, 4.9, "constrained")
    ax = figure.subplots()
    configs = found.configs
    groups: list[tuple[str, str, dict[str, tuple[float, float, float]]]] = []
    stated = {
        config: (row.intensity * row.accuracy,) * 3 for config, row in _paper.FIGURE_4.items() if config in configs
    }
    groups.append(("paper, as printed", _GREY, stated))
    for quantizer in found.quantizers:
        own = {
            row.config: (row.intensity * m.accuracy, row.intensity * m.low, row.intensity * m.high)
            for row in found.rows
            if row.quantizer == quantizer
            for m in (row.report,)
        }
        groups.append((f"ours, {NAMES[quantizer]} quantizer", _WHOSE[quantizer], own))
    width = 0.84 / len(groups)
    for place, (label, colour, scores) in enumerate(groups):
        xs = [configs.index(config) + (place - (len(groups) - 1) / 2) * width for config in scores]
        heights = [value for value, _, _ in scores.values()]
        ends = [
            [value - low for value, low, _ in scores.values()],
            [high - value for value, _, high in scores.values()],
        ]
        ax.bar(xs, heights, width=0.92 * width, color=colour, label=label, zorder=2)
        if colour != _GREY:
            ax.errorbar(xs, heights, yerr=ends, fmt="none", ecolor=INK, elinewidth=1.0, capsize=2, zorder=3)
        for x, height in zip(xs, heights, strict=True):
            text = f"{height:,.0f}".replace(",", "\u2009")
            ax.text(x, 60, text, rotation=90, ha="center", va="bottom", fontsize=8.5, color="white", zorder=3)
    ax.set_xticks(range(len(configs)), configs, fontsize=10)
    ax.set_ylabel("arithmetic intensity (FLOP/byte) × accuracy (%)", **_LABEL)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=3, frameon=False, fontsize=9, labelcolor=INK)
    frame(ax, grid="y", labelsize=9)
    _title(
        figure,
        "Intensity × accuracy of ResNet-20 schemes (Fig. 3a)",
        f"ours: n = {found.n} images, bars: 95 % interval of the accuracy; exact: not in the paper",
    )
    return figure


def draw_plane(found: Comparison) -> Figure:
    """Draw Fig. 3b: accuracy against intensity, whole and near the quantized schemes, with the Pareto frontiers."""
    figure = new_figure(11.2, 5.6, "constrained")
    axes = figure.subplots(1, 2, sharey=True, width_ratios=(2, 3))
    for ax in axes:
        frame(ax, labelsize=9)
        for config, row in _paper.FIGURE_4.items():
            if config in found.configs:
                _mark(ax, config, row.intensity, row.accuracy, _GREY, filled=False)
        for quantizer in found.quantizers:
            _draw_frontier(ax, found, quantizer)
        _draw_own(figure, ax, found, _BESIDE_POINTS if ax is axes[1] else 0.0)
        ax.set_xlabel("arithmetic intensity (FLOP/byte)", **_LABEL)
    axes[0].set_ylabel("accuracy (%)", **_LABEL)
    quantized = [row.intensity for row in found.rows if row.config != "FP32"]
    axes[0].set_xlim(*_widened(found.rows[0].intensity, max(quantized)))
    axes[1].set_xlim(*_widened(min(quantized), max(quantized)))
    stated = [_paper.FIGURE_4[config].accuracy for config in found.configs if config in _paper.FIGURE_4]
    ends = [*stated, *(end for row in found.rows if row.config != "FP32" for end in _ends(row))]
    axes[0].set_ylim(*_widened(min(ends), max(ends), 0.04))
    axes[1].set_title("the quantized schemes", fontsize=9.5, color=FAINT, loc="left")
    axes[0].set_title("all", fontsize=9.5, color=FAINT, loc="left")
    _legend_plane(figure, found)
    _title(
        figure,
        "Accuracy against intensity of ResNet-20 schemes (Fig. 3b)",
        f"ours: n = {found.n} images, bars: paired 95 % interval of the change against FP32; lines: Pareto frontiers; "
        "right: schemes of one intensity stand side by side",
    )
    return figure


def _draw_frontier(ax: Axes, found: Comparison, quantizer: str) -> None:
    rows = [row for row in found.rows if row.quantizer == quantizer]
    kept = non_dominated(*_negated([row.intensity for row in rows], [row.report.accuracy for row in rows]))
    line = sorted((rows[i].intensity, rows[i].report.accuracy) for i in kept)
    ax.plot(*zip(*line, strict=True), color=_WHOSE[quantizer], linewidth=1.2, zorder=2, gid=f"frontier-{quantizer}")


def _draw_own(figure: Figure, ax: Axes, found: Comparison, apart: float) -> None:
    """Draw our schemes; those of one intensity and overlapping intervals stand so many points apart."""
    from matplotlib.transforms import offset_copy

    first = found.rows[0]
    _mark(ax, first.config, first.intensity, first.report.accuracy, INK, filled=True)
    quantized = [row for row in found.rows if row.config != "FP32"]
    for row in quantized:
        low, high = _ends(row)
        beside = [
            other
            for other in quantized
            if f"{other.intensity:.2f}" == f"{row.intensity:.2f}" and _ends(other)[0] <= high and low <= _ends(other)[1]
        ]
        shift = apart * (beside.index(row) - (len(beside) - 1) / 2)
        at = offset_copy(ax.transData, figure, x=shift, units="points")
        colour = _WHOSE[row.quantizer]
        ax.plot([row.intensity] * 2, [low, high], color=colour, linewidth=1.0, alpha=0.6, transform=at)
        _mark(ax, row.config, row.intensity, row.report.accuracy, colour, filled=True, transform=at)


def _ends(row: Candidate) -> tuple[float, float]:
    """Return the interval of the change against FP32, around the accuracy."""
    base = row.report.accuracy - row.report.change
    return base + row.report.change_low, base + row.report.change_high


def _widened(low: float, high: float, share: float = 0.09) -> tuple[float, float]:
    room = share * (high - low) or 0.5
    return low - room, high + room


def _negated(*columns: Sequence[float]) -> Any:
    import numpy as np

    return tuple(-np.array(column) for column in columns)


def _mark(ax: Axes, config: str, x: float, y: float, colour: str, *, filled: bool, **place: Any) -> None:
    size = 150 if config == "exact" else 52
    ax.scatter(
        [x],
        [y],
        marker=_MARKERS[config],
        s=size,
        facecolors=colour if filled else "white",
        edgecolors="white" if filled else colour,
        linewidths=0.8 if filled else 1.4,
        zorder=4 if filled else 3,
        **place,
    )


def _legend_plane(figure: Figure, found: Comparison) -> None:
    from matplotlib.lines import Line2D

    looks: dict[str, Any] = {"linestyle": "none", "markersize": 7}
    handles = [
        Line2D([], [], marker="o", color=_GREY, markerfacecolor="white", label="paper, as printed", **looks),
        *(
            Line2D([], [], marker="o", color=_WHOSE[q], label=f"ours, {NAMES[q]} quantizer", **looks)
            for q in found.quantizers
        ),
        *(Line2D([], [], marker=_MARKERS[config], color=FAINT, label=config, **looks) for config in found.configs),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8.6)


def draw_ranking(found: Ranking) -> Figure:
    """Draw what decides a layer's format: its weights, coloured by the final format, and its sensitivity at 4 bits."""
    from matplotlib.patches import Patch

    quantizers = list(found.greedy)
    figure = new_figure(7.4 * len(quantizers) if len(quantizers) > 1 else 9.4, 6.6, "constrained")
    axes = figure.subplots(2, len(quantizers), sharex=True, sharey="row", squeeze=False)
    places = list(range(len(found.lab.layers)))
    for column, quantizer in enumerate(quantizers):
        top, bottom = axes[0][column], axes[1][column]
        greedy = found.greedy[quantizer]
        top.bar(places, found.lab.layer_weights, color=[_BIT_COLOURS[k] for k in greedy.final], zorder=2)
        for x, weights, order in zip(places, found.lab.layer_weights, greedy.order, strict=True):
            text = "–" if order is None else str(order)
            top.annotate(text, (x, weights), (0, 2), textcoords="offset points", ha="center", fontsize=8, color=INK)
        top.set_title(f"{NAMES[quantizer]} quantizer", fontsize=10, color=INK, loc="left")
        bottom.axhline(0, **_DASHED)
        _changes(bottom, found.singles[quantizer, INT4], COMPUTE, 0.0, 0.0)
        for ax in (top, bottom):
            frame(ax, labelsize=9)
        _name_layers(bottom, [found.short(layer) for layer in found.lab.layers])
    top.margins(y=0.12)
    axes[0][0].set_ylabel("weights of the layer", **_LABEL)
    axes[1][0].set_ylabel("change of accuracy when only\nthis layer is INT4 (points)", **_LABEL)
    handles = [
        Patch(color=colour, label=f"greedy: {'FP32' if BITS[k] == 32 else f'INT{BITS[k]}'}")
        for k, colour in _BIT_COLOURS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    _title(
        figure,
        f"What greedy quantizes first in {found.lab.network}",
        f"numbers: order in which greedy quantized; below: n = {found.n} images, paired 95 % intervals, "
        "filled: it excludes zero",
    )
    return figure


def _changes(ax: Axes, found: Sequence[Measured], colour: str, shift: float, base: float) -> None:
    """Draw changes with their intervals around a base; filled where the interval excludes zero."""
    xs = [place + shift for place in range(len(found))]
    ax.vlines(xs, [base + m.change_low for m in found], [base + m.change_high for m in found], color=colour, lw=1.1)
    ax.scatter(
        xs,
        [base + m.change for m in found],
        s=30,
        facecolors=[colour if m.distinct else "white" for m in found],
        edgecolors=colour,
        linewidths=1.3,
        zorder=3,
    )


def _title(figure: Figure, title: str, subtitle: str) -> None:
    figure.suptitle(f"{title}\n", x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK, linespacing=1.7)
    figure.text(0.01, 1 - 0.40 / figure.get_figheight(), subtitle, fontsize=9.2, color=FAINT, va="top", ha="left")


def _name_layers(ax: Axes, layers: Sequence[str]) -> None:
    ax.set_xticks(range(len(layers)), layers, rotation=55, ha="right", rotation_mode="anchor", fontsize=8.5)
    ax.set_xlim(-0.7, len(layers) - 0.3)


def _same_height(axes: Sequence[Axes]) -> None:
    """Give axes one range, so that they can be compared by eye."""
    low, high = (pick(ax.get_ylim()[end] for ax in axes) for end, pick in ((0, min), (1, max)))
    for ax in axes:
        ax.set_ylim(low, high)
