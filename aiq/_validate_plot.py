"""The figure of a validation: measured against predicted throughput, scheme by scheme."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiq._validate_result import Row, Validation
from aiq._validate_schemes import FAMILIES
from roofline._plot_canvas import frame, new_figure, save
from roofline._plot_data import elide
from roofline._plot_style import FAINT, INK
from roofline.units import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (8.6, 6.2)
_COLOURS = dict(zip(FAMILIES, ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#0072B2"), strict=True))
_MARKERS = ("o", "D", "s", "^", "v", "P", "p")
_OTHER = "#B0B0B0"
_WIDE = 1000.0


def plot_validation(result: Validation, ax: Axes | None = None) -> Axes:
    """Draw measured against predicted samples a second, both on logarithmic axes of one range.

    On the diagonal a prediction is right; right of it, too fast. A bar is the 90 % interval of a prediction. Colours
    are families of schemes, markers batch sizes; small grey crosses are the datasheet's roofline where another cost
    model is judged.

    Args:
        result: From :func:`aiq.validate`.
        ax: Axes to draw on; by default a new figure, which no window shows: ``plot_validation(r).figure``.
    """
    axes = new_figure(*_SIZE, layout="constrained").subplots() if ax is None else ax
    axes.set_xscale("log")
    axes.set_yscale("log")
    markers = {batch: _MARKERS[place % len(_MARKERS)] for place, batch in enumerate(result.batches)}
    beside = "datasheet" if result.judged != "datasheet" else None
    for row in sorted(result.rows, key=lambda row: -FAMILIES.index(row.family)):
        at = row.batch / row.predicted.latency_s, row.measurement.throughput
        ends = row.throughput_interval(result.judged)
        colour = _COLOURS[row.family]
        if ends:
            axes.plot(ends, [at[1]] * 2, color=colour, linewidth=0.9, alpha=0.5, zorder=2, gid="interval")
        if beside:
            x = row.batch / row.predictions[beside].latency_s
            axes.scatter([x], [at[1]], marker="x", s=18, c=_OTHER, linewidths=0.9, zorder=1.8, gid="beside")
        looks: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.6, "zorder": 3, "gid": f"row-{row.scheme}"}
        axes.scatter([at[0]], [at[1]], marker=markers[row.batch], s=44, c=colour, **looks)
    low, high = _range(result)
    axes.plot([low, high], [low, high], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1.5, gid="identity")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    _words(axes, result)
    _legend(axes, result, markers, beside)
    return axes


def save_validation(result: Validation, path: Path) -> None:
    """Write the figure of :func:`plot_validation` to a ``.svg`` or ``.png`` file; equal results give equal files.

    Raises:
        InputError: The file cannot be written.
    """
    figure: Any = plot_validation(result).figure
    save(figure, path)


def _range(result: Validation) -> tuple[float, float]:
    values = [value for row in result.rows for value in _values(row)]
    return min(values) / 1.25, max(values) * 1.25


def _values(row: Row) -> list[float]:
    return [row.measurement.throughput, *(row.batch / found.latency_s for found in row.predictions.values())]


def _words(ax: Axes, result: Validation) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    low, high = _range(result)
    for axis in (ax.xaxis, ax.yaxis):
        if high < _WIDE * low:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(EngFormatter())
        axis.set_minor_formatter(NullFormatter())
    frame(ax)
    ax.set_xlabel(f"predicted samples/s ({result.costs[result.judged]})", fontsize=10.5, color=INK)
    ax.set_ylabel(f"measured samples/s ({result.version})", fontsize=10.5, color=INK)
    title = f"{elide(result.model, 40)} on {result.hardware.name}: predicted and measured"
    ax.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=22, parse_math=False)
    own = result.errors[result.judged]
    ranks = f", Spearman {own.spearman.value:.2f}" if own.spearman else ""
    noise = "machine too noisy; " if result.noisy else ""
    ax.annotate(
        f"{noise}n = {len(result.rows)}; median error of time {percent(own.median_ape.value)}, bias "
        f"{100 * own.bias.value:+.1f} %{ranks}",
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 7),
        textcoords="offset points",
        fontsize=9.5,
        color=FAINT,
        parse_math=False,
    )


def _legend(ax: Axes, result: Validation, markers: dict[int, str], beside: str | None) -> None:
    from matplotlib.lines import Line2D

    looks: dict[str, Any] = {"linestyle": "none", "markersize": 7}
    families = [family for family in FAMILIES if any(row.family == family for row in result.rows)]
    handles = [Line2D([], [], marker="o", color=_COLOURS[family], label=family, **looks) for family in families]
    handles += [
        Line2D([], [], marker=marker, color=FAINT, label=f"batch {batch}", **looks) for batch, marker in markers.items()
    ]
    if any(row.predicted.interval_s for row in result.rows):
        handles.append(Line2D([], [], color=FAINT, linewidth=0.9, label="90 % interval"))
    if beside:
        handles.append(Line2D([], [], marker="x", color=_OTHER, label=f"{beside} roofline", **looks))
    handles.append(Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label="as predicted"))
    ax.legend(handles=handles, loc="upper left", frameon=False, fontsize=8.8, labelcolor=INK)
