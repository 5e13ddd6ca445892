"""The figures of a sweep: a heat map of machines and batches for each scheme, and several machines on one roofline."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aiq._whatif import Sweep
from roofline._plot_canvas import frame, new_figure, save
from roofline._plot_data import elide, limits
from roofline._plot_style import FAINT, INK, dark
from roofline.errors import InputError
from roofline.units import si

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 12
MOST_OVERLAID = 8
_MOST_NUMBERS = 400
_COLUMNS = 3
_CELL, _LINE = 0.56, 0.25
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#444444")
_ROOM = 2.75


def plot_heat(sweep: Sweep) -> Figure:
    """Draw throughput by machine and batch, one panel for each scheme and context; no window shows it.

    Colours are logarithmic and shared by all panels. A hatched cell does not fit the memory, an empty one cannot run.

    Args:
        sweep: From :func:`aiq._whatif.whatif`.

    Raises:
        InputError: More than twelve panels.
    """
    panels = [(s, c) for s in range(len(sweep.schemes)) for c in range(len(sweep.contexts))]
    if len(panels) > MOST_PANELS:
        raise InputError(
            f"a heat map has a panel for each scheme and context, {len(panels)} here, at most {MOST_PANELS}. "
            "Next: sweep over fewer, or leave out --plot."
        )
    contexts = len(sweep.contexts)
    across = contexts if 1 < contexts <= _COLUMNS else min(len(panels), _COLUMNS)
    down = math.ceil(len(panels) / across)
    names = max(len(machine.label) for machine in sweep.machines)
    wide, high = _CELL * len(sweep.batches) + 0.25, _LINE * len(sweep.machines) + 0.75
    figure = new_figure(across * max(wide, 1.6) + 0.075 * names + 1.2, down * high + 1.0, layout="constrained")
    grid: Any = figure.subplots(down, across, squeeze=False, sharey=True)
    shades = _shades(sweep)
    for place, (s, c) in enumerate(panels):
        _panel(grid[place // across][place % across], sweep, s, c, shades)
    for place in range(len(panels), down * across):
        grid[place // across][place % across].set_axis_off()
    _scale(figure, grid, sweep, shades)
    title = f"{elide(sweep.model, 40)}: {sweep.unit.name} a second, {sweep.traffic} traffic"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold", color=INK)
    return figure


def _shades(sweep: Sweep) -> Any:
    from matplotlib.colors import LogNorm

    rates = sweep.throughput_per_s[np.isfinite(sweep.throughput_per_s)]
    low, high = (float(rates.min()), float(rates.max())) if len(rates) else (1.0, 10.0)
    return LogNorm(low, high if high > low else 2 * low)


def _panel(ax: Axes, sweep: Sweep, s: int, c: int, shades: Any) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    rates, large = sweep.throughput_per_s[:, s, c], sweep.too_large[:, s, c]
    colours = colormaps["viridis"]
    ax.imshow(np.ma.masked_invalid(rates), norm=shades, cmap=colours, aspect="auto", interpolation="nearest")
    numbers = rates.size <= _MOST_NUMBERS
    for h, b in np.ndindex(*rates.shape):
        if not np.isfinite(rates[h, b]):
            continue
        light = sum(colours(shades(rates[h, b]))[:3]) > 1.5
        if large[h, b]:
            edge = (0, 0, 0, 0.55) if light else (1, 1, 1, 0.65)
            box = Rectangle((b - 0.5, h - 0.5), 1, 1, fill=False, hatch="////", edgecolor=edge, linewidth=0)
            box.set_gid("does-not-fit")
            ax.add_patch(box)
        elif numbers:
            colour = INK if light else "white"
            ax.text(b, h, _rate(float(rates[h, b])), ha="center", va="center", fontsize=6.8, color=colour)
    ax.set_xticks(range(len(sweep.batches)), [_short(b) for b in sweep.batches], fontsize=8)
    ax.set_yticks(range(len(sweep.machines)), [m.label for m in sweep.machines], fontsize=8)
    ax.set_xlabel("batch", fontsize=9, color=INK)
    ax.tick_params(length=0, labelcolor=INK)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xticks([b + 0.5 for b in range(len(sweep.batches) - 1)], minor=True)
    ax.set_yticks([h + 0.5 for h in range(len(sweep.machines) - 1)], minor=True)
    ax.grid(which="minor", color="white", linewidth=1.2)
    ax.tick_params(which="minor", length=0)
    context = sweep.contexts[c]
    title = str(sweep.schemes[s]) if context is None else f"{sweep.schemes[s]}, context {context}"
    ax.set_title(elide(title, 34), loc="left", fontsize=10, color=INK, parse_math=False)


def _scale(figure: Figure, grid: Any, sweep: Sweep, shades: Any) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter, NullFormatter

    bar = figure.colorbar(ScalarMappable(shades, colormaps["viridis"]), ax=grid, shrink=0.9, aspect=30, pad=0.01)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _rate(value)))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    kinds = []
    if (np.isfinite(sweep.latency_s) & sweep.too_large).any():
        kinds.append(
            Patch(facecolor="#BBBBBB", edgecolor=INK, hatch="////", linewidth=0, label="does not fit the memory")
        )
    if np.isnan(sweep.latency_s).any():
        kinds.append(
            Patch(facecolor="white", edgecolor=FAINT, linewidth=0.6, label="cannot run: no such ceiling or rates")
        )
    if kinds:
        figure.legend(handles=kinds, loc="outside lower left", ncols=2, frameon=False, fontsize=8.5)


def _rate(value: float) -> str:
    return si(value, digits=2) if value >= 1 else f"{value:.2g}"


def _short(count: int) -> str:
    return str(count) if count < 10_000 else si(count)


def plot_overlay(sweep: Sweep, ax: Axes | None = None) -> Axes:
    """Draw the model on several machines in one roofline figure, both axes logarithmic, for the sweep's first scheme.

    A line is a machine: its outermost bandwidth up to the ridge, then the ceiling that most of the model's FLOPs run
    on. A dot is the whole model at a batch, ``x = FLOPs / bytes`` and ``y = FLOPs / seconds``; hollow where it does not
    fit the memory. Of more than eight machines the fastest are drawn.

    Args:
        sweep: From :func:`aiq._whatif.whatif`.
        ax: Axes to draw on; by default a new figure, which no window shows: ``plot_overlay(s).figure``.

    Raises:
        InputError: No machine can run it.

    Source: Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009.
    """
    chosen = _overlaid(sweep)
    axes = new_figure(10.0, 6.0).add_axes((0.08, 0.13, 1 - 0.09 - _ROOM / 10.0, 0.74)) if ax is None else ax
    (load, _), *_ = sweep.graphs.times(sweep.machines[chosen[0]], sweep.schemes[0], sweep.contexts[0], sweep.batches)
    specs = [sweep.machines[h].spec for h in chosen]
    dashes = ["solid" if sweep.machines[h].label == sweep.machines[h].base else (0, (5, 2)) for h in chosen]
    roofs = [load.leading_ceiling(spec) for spec in specs]
    widths = [spec.bandwidth() for spec in specs]
    intensity = sweep.flops[0, 0] / sweep.bytes[0, 0]
    attained = sweep.flops[0, 0] / sweep.latency_s[chosen, 0, 0]
    ridges = [roof.flops_per_s / width for roof, width in zip(roofs, widths, strict=True)]
    axes.set_xscale("log")
    axes.set_yscale("log")
    frame(axes)
    low, high = limits([*intensity, *ridges], 6.4, 0.5, 0.6)
    axes.set_xlim(low, high)
    axes.set_ylim(*limits([*attained.ravel(), *(r.flops_per_s for r in roofs)], 4.4, 0.3, 0.4))
    for place, (roof, width) in enumerate(zip(roofs, widths, strict=True)):
        colour, peak = _PALETTE[place], roof.flops_per_s
        axes.plot(
            [low, peak / width, high],
            [low * width, peak, peak],
            color=colour,
            linewidth=1.5,
            linestyle=dashes[place],
            zorder=2,
            gid=f"roof-{place}",
        )
        fits = ~sweep.too_large[chosen[place], 0, 0]
        axes.plot(intensity, attained[place], color=colour, linewidth=0.8, alpha=0.5, zorder=2.5)
        faces = [colour if fit else "white" for fit in fits]
        axes.scatter(
            intensity, attained[place], s=26, c=faces, edgecolors=colour, linewidths=1.1, zorder=3, gid=f"dots-{place}"
        )
    _batches(axes, sweep, intensity)
    words = [
        f"{elide(spec.name, 34)}\n{roof.format} {si(roof.flops_per_s, 'FLOP/s')}, {si(width, 'B/s')}"
        for spec, roof, width in zip(specs, roofs, widths, strict=True)
    ]
    _ends(axes, [roof.flops_per_s for roof in roofs], words)
    above = bool((attained > 1.02 * intensity * np.array(widths)[:, None]).any())
    _overlay_words(axes, sweep, len(chosen), above=above)
    return axes


def _overlaid(sweep: Sweep) -> list[int]:
    timed = np.nan_to_num(sweep.throughput_per_s[:, 0, 0].max(axis=1), nan=0.0)
    chosen = [int(h) for h in np.argsort(-timed, kind="stable") if timed[h]][:MOST_OVERLAID]
    if not chosen:
        raise InputError(
            "no machine of the sweep runs the first scheme, so that there is nothing to draw. Next: add one."
        )
    return chosen


def _batches(ax: Axes, sweep: Sweep, intensity: Any) -> None:
    """Mark the intensity of each batch at the top, as far as there is room."""
    marks = list(zip(sweep.batches, intensity, strict=True))
    shown: list[tuple[int, float]] = []
    span = math.log10(ax.get_xlim()[1] / ax.get_xlim()[0])
    for batch, x in [marks[0], *reversed(marks[1:])] if len(marks) > 1 else marks:
        near = [other for _, other in shown if abs(math.log10(x / other)) < 0.05 * span]
        if not near:
            shown.append((batch, x))
    for batch, x in shown:
        ax.axvline(x, color="#DDDDDD", linewidth=0.7, zorder=1, linestyle=(0, (3, 3)))
        ax.annotate(
            f"batch\n{_short(batch)}", (x, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
            textcoords="offset points", ha="center", va="bottom", fontsize=7.5, color=FAINT,
        )  # fmt: skip


def _ends(ax: Axes, values: Sequence[float], words: Sequence[str]) -> None:
    """Write names right of the axes beside the ends of their lines, moved apart where they would overlap."""
    low, high = ax.get_ylim()
    box = ax.get_window_extent()
    step = 25 * ax.figure.dpi / 72 / box.height
    at = [math.log(value / low) / math.log(high / low) for value in values]
    order = sorted(range(len(at)), key=at.__getitem__)
    places = [at[i] for i in order]
    for _ in range(200):
        moved = False
        for lower, upper in pairwise(range(len(places))):
            overlap = step - (places[upper] - places[lower])
            if overlap > 1e-6:
                places[lower] -= overlap / 2
                places[upper] += overlap / 2
                moved = True
        places = [min(max(place, 0.0), 1.0 + step / 2) for place in places] if moved else places
        if not moved:
            break
    for index, place in zip(order, places, strict=True):
        colour = _PALETTE[index]
        ax.plot(
            [1.0, 1.02, 1.03],
            [at[index], place, place],
            color=colour,
            linewidth=0.9,
            clip_on=False,
            transform=ax.transAxes,
        )
        ax.text(
            1.038, place, words[index], fontsize=8.3, color=dark(colour), va="center", transform=ax.transAxes,
            parse_math=False, linespacing=1.15, gid="machine",
        )  # fmt: skip


def _overlay_words(ax: Axes, sweep: Sweep, drawn: int, *, above: bool) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: si(value, digits=1)))
        axis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(
        "arithmetic intensity of the whole model (FLOP per byte, all levels together)", fontsize=10, color=INK
    )
    ax.set_ylabel("attainable FLOP/s", fontsize=10, color=INK)
    context = sweep.contexts[0]
    title = f"{elide(sweep.model, 30)}, {elide(str(sweep.schemes[0]), 24)}"
    title += f", {sweep.traffic} traffic" + ("" if context is None else f", context {context}")
    ax.set_title(title, loc="left", fontsize=12.5, fontweight="bold", color=INK, pad=30, parse_math=False)
    notes = [f"the {drawn} fastest of {len(sweep.machines)} machines"] if drawn < len(sweep.machines) else []
    if sweep.too_large.any():
        notes.append("hollow: does not fit the memory")
    if above:
        notes.append("dots above a diagonal take bytes from inner levels")
    if len(sweep.schemes) > 1 or len(sweep.contexts) > 1:
        notes.append("first scheme and context of the sweep")
    ax.annotate(
        textwrap.fill("; ".join(notes), 100),
        (0, 0),
        xycoords="axes fraction",
        xytext=(0, -38),
        textcoords="offset points",
        va="top",
        fontsize=8.5,
        color=FAINT,
        gid="footnote",
    )


def save_heat(sweep: Sweep, path: Path) -> None:
    """Write the figure of :func:`plot_heat` to a ``.svg`` or ``.png`` file; equal sweeps give equal files.

    Raises:
        InputError: Too many panels, or the file cannot be written.
    """
    save(plot_heat(sweep), path)


def save_overlay(sweep: Sweep, path: Path) -> None:
    """Write the figure of :func:`plot_overlay` to a ``.svg`` or ``.png`` file; equal sweeps give equal files.

    Raises:
        InputError: No machine can run it, or the file cannot be written.
    """
    figure: Any = plot_overlay(sweep).figure
    save(figure, path)
