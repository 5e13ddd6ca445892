"""The roofline figure: what each row attains, under the roofs and diagonals of the machine."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofline._plot_canvas import frame, image, new_figure
from roofline._plot_data import FAMILIES, View, check, limits, view
from roofline._plot_layout import CROWDED, LINE, TEXT, Page, on_line
from roofline._plot_style import COMPUTE, FAINT, INK, MARKERS, SIDE_INCHES, Style, dark, draw_legends
from roofline.errors import InputError
from roofline.result import GraphEstimate
from roofline.units import si

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

SUFFIXES = (".svg", ".png")

_SIZE = (10.0, 6.2)
_ALONG = (0.5, 0.45, 0.4, 0.35, 0.55, 0.6, 0.3, 0.65, 0.25, 0.7, 0.2, 0.75, 0.15, 0.8, 0.1, 0.9)
_FROM_RIGHT = tuple(1 - i / 20 for i in range(21))


def plot(
    estimate: GraphEstimate,
    ax: Axes | None = None,
    *,
    level: str | None = None,
    label_top: int = 6,
    measured: Mapping[str, float] | None = None,
) -> Axes:
    """Draw every row of an estimate under the roofs of its machine, both axes logarithmic.

    A dot lies at ``x = FLOPs / bytes`` and ``y = FLOPs / predicted seconds``; its area is the row's share of the
    latency, its colour the resource that binds, its marker the kind of op. A roof is a compute ceiling in use (and
    FP32's), a diagonal ``y = bandwidth · x`` a memory level, and their meeting is a ridge point. Rows without FLOPs
    have no place on logarithmic axes: a footnote counts them, with their share of time.

    Args:
        estimate: From :func:`roofline.estimate`.
        ax: Axes to draw on; their scales, limits and title are set, and where no layout engine is at work they are
            narrowed to make room for the legend. By default a new figure, which no window shows: ``plot(e).figure``.
        level: Memory level whose bytes ``x`` counts, drawn with its own diagonal alone. By default, in ``fused``
            traffic, all bytes read or written, with one diagonal per level; in other traffic the outermost level, as
            every byte comes from there.
        label_top: How many of the dots with the largest share of time to label; rows in one place share a label.
        measured: Measured seconds by row name: hollow, and joined to the predicted dot.

    Returns:
        The axes.

    Raises:
        UnknownNameError: ``level`` is no memory level of the machine, or ``measured`` names no row.
        InputError: ``label_top`` is negative, or a measured time is not a positive number.

    Source: Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009; several diagonals over one intensity as in
    Ilic, Pratas and Sousa, Cache-aware Roofline model, IEEE CAL 13(1), 2014.
    """
    shown = view(estimate, level, label_top, measured)
    axes = _new_axes(len(shown.notes)) if ax is None else ax
    style = Style.of(shown)
    _frame(axes, shown)
    draw_legends(axes, shown, style, own=ax is None)
    _limit(axes, shown, style)
    page = _page(axes, shown, style)
    _draw_lines(axes, page, shown, style)
    _draw_dots(axes, shown, style)
    _draw_labels(axes, page, shown, style)
    return axes


def save(
    estimate: GraphEstimate,
    path: str | os.PathLike[str],
    *,
    level: str | None = None,
    label_top: int = 6,
    measured: Mapping[str, float] | None = None,
) -> None:
    """Write the figure of :func:`plot` to a ``.svg`` or ``.png`` file; equal estimates give equal files.

    Args:
        estimate: From :func:`roofline.estimate`.
        path: File to write, in a folder that exists.
        level: As for :func:`plot`.
        label_top: As for :func:`plot`.
        measured: As for :func:`plot`.

    Raises:
        InputError: Another suffix, a path that cannot be written, or as :func:`plot` does; before anything is drawn.
        UnknownNameError: As :func:`plot` does.
    """
    target = Path(path)
    _check_path(target)
    check(estimate, level, label_top, measured)
    figure: Any = plot(estimate, level=level, label_top=label_top, measured=measured).figure
    content = image(figure, target.suffix.lower()[1:])
    try:
        target.write_bytes(content)
    except OSError as error:
        raise _unwritable(target, error.strerror or str(error)) from None


def _check_path(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        got = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise InputError(
            f"cannot tell the format of figure {str(path)!r} from {got}: known: {', '.join(SUFFIXES)}. "
            "Next: end the path in one of them."
        )
    folder = path.parent
    if path.is_dir():
        raise _unwritable(path, "it is a folder")
    if not folder.is_dir():
        raise _unwritable(path, f"there is no folder {str(folder)!r}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise _unwritable(path, "permission denied")


def _unwritable(path: Path, why: str) -> InputError:
    return InputError(f"cannot write figure {str(path)!r}: {why}. Next: choose a file in a folder you may write to.")


def _new_axes(notes: int) -> Axes:
    width, height = _SIZE
    left, bottom, top = 0.82, 0.66 + 0.17 * notes, 0.78
    box = (left / width, bottom / height, (width - left - SIDE_INCHES) / width, (height - bottom - top) / height)
    return new_figure(width, height).add_axes(box)


def _frame(ax: Axes, shown: View) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_xscale("log")
    ax.set_yscale("log")
    frame(ax)
    ticks: tuple[tuple[Any, Callable[[float], str]], ...] = ((ax.xaxis, _tick), (ax.yaxis, lambda v: si(v, digits=1)))
    for axis, text in ticks:
        axis.set_major_locator(LogLocator(numticks=12))
        axis.set_major_formatter(FuncFormatter(lambda v, _, text=text: text(v)))
        axis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(shown.x_label, fontsize=10.5, color=INK)
    ax.set_ylabel("attainable FLOP/s", fontsize=10.5, color=INK)
    ax.set_title(shown.title, loc="left", fontsize=13.5, fontweight="bold", color=INK, pad=25, parse_math=False)
    _aside(ax, shown.subtitle, (0, 1), (0, 9), fontsize=10, va="bottom", gid="subtitle")
    if shown.notes:
        _aside(ax, "\n".join(shown.notes), (0, 0), (0, -38), fontsize=8.5, va="top", gid="footnote")


def _tick(value: float) -> str:
    if 1e-4 < value < 1:
        return f"{value:g}"
    return f"{value:,.0f}".replace(",", "\u2009") if 1 <= value < 1e7 else f"{value:.0e}"


def _aside(
    ax: Axes, text: str, corner: tuple[float, float], offset: tuple[float, float], *, va: str, fontsize: float, gid: str
) -> None:
    note = ax.annotate(
        text,
        corner,
        xycoords="axes fraction",
        xytext=offset,
        textcoords="offset points",
        va=va,
        fontsize=fontsize,
        color=FAINT,
        annotation_clip=False,
        parse_math=False,
        linespacing=1.3,
    )
    note.set_gid(gid)


def _limit(ax: Axes, shown: View, style: Style) -> None:
    box = ax.get_window_extent()
    dpi = ax.figure.dpi
    largest = max((style.radius(d.share) for d in shown.dots), default=0.0) / 72
    room = largest + 0.12
    ys = [d.y for d in shown.dots] + [d.measured_y for d in shown.dots if d.measured_y]
    ridges = [x for x, _ in shown.ridges]
    xs = [*ridges, *(d.x for d in shown.dots)]
    # Labels of the rows under the highest roof stand above it, the roofs' own at their right ends.
    after = room + 0.5 if max(xs) > max(ridges) else 1.4
    ax.set_xlim(*limits([*xs, min(ridges) / 6], box.width / dpi, room, after))
    ax.set_ylim(*limits([*ys, *shown.roofs, min(shown.roofs) / 20], box.height / dpi, room, room + 0.25))


def _page(ax: Axes, shown: View, style: Style) -> Page:
    box = ax.get_window_extent()
    point = ax.figure.dpi / 72
    page = Page(box.x0, box.y0, box.x1, box.y1, point=point)
    circles = [(d.x, d.y, style.radius(d.share)) for d in shown.dots]
    circles += [(d.x, d.measured_y, 4.0) for d in shown.dots if d.measured_y]
    if circles:
        at = ax.transData.transform([(x, y) for x, y, _ in circles])
        page.add_dots((x, y, r * point) for (x, y), (*_, r) in zip(at, circles, strict=True))
    for dot in shown.dots:
        if dot.measured_y:
            ends = ax.transData.transform([(dot.x, dot.y), (dot.x, dot.measured_y)])
            page.add_line(tuple(ends[0]), tuple(ends[1]))
    return page


def _draw_lines(ax: Axes, page: Page, shown: View, style: Style) -> None:
    """Draw roofs and diagonals, then label them in the places that are still free."""
    low_x, high_x = ax.get_xlim()
    low_y, _ = ax.get_ylim()
    top, widest = max(shown.roofs), max(shown.levels.values())
    pixels = ax.transData.transform
    lines: list[tuple[Any, Any, str, Any, tuple[float, ...]]] = []
    for name, bandwidth in shown.levels.items():
        ends = (max(low_x, low_y / bandwidth), top / bandwidth)
        ys = [bandwidth * x for x in ends]
        ax.plot(ends, ys, color=style.colours[name], linewidth=1.6, zorder=2, gid=f"level-{name}")
        start, end = (tuple(pixels((x, bandwidth * x))) for x in ends)
        lines.append((start, end, f"{name}  {si(bandwidth, 'B/s')}", dark(style.colours[name]), _ALONG))
    for roof, formats in shown.roofs.items():
        ends = (max(low_x, roof / widest), high_x)
        ax.plot(ends, [roof, roof], color=COMPUTE, linewidth=1.6, zorder=2, gid=f"roof-{formats[0]}")
        start, end = (tuple(pixels((x, roof))) for x in ends)
        unit = "OP/s" if all(f.startswith("int") for f in formats) else "FLOP/s"
        lines.append((start, end, f"{', '.join(formats)}  {si(roof, unit)}", dark(COMPUTE), _FROM_RIGHT))
    for start, end, *_ in lines:
        page.add_line(start, end)
    _draw_ridges(ax, page, shown)
    for start, end, words, colour, at in lines:
        angle = math.degrees(math.atan2(end[1] - start[1], end[0] - start[0]))
        text, size = _text(ax, words, 9.5, colour)
        gap = 3 * page.point
        sides = [c for f in at for above in (gap, -gap) for c in on_line(start, end, size, above=above, fractions=(f,))]
        place = page.place(sides[::2] + sides[1::2], size, angle=angle)
        _put(ax, text, place.centre)
        text.set_rotation(angle)


def _draw_ridges(ax: Axes, page: Page, shown: View) -> None:
    point = page.point
    xs, ys = zip(*shown.ridges, strict=True)
    ax.plot(xs, ys, "|", markersize=9, markeredgewidth=1.3, color=INK, zorder=2.5, gid="ridges")
    for x, y in ax.transData.transform(shown.ridges):
        page.add_line((x, y - 5 * point), (x, y + 5 * point), weight=4 * LINE)
    for (x, _), (px, py) in zip(shown.ridges, ax.transData.transform(shown.ridges), strict=True):
        text, (width, height) = _text(ax, f"{x:.3g}", 8, INK)
        corners = []
        for gap in (3 * point, 10 * point, 17 * point):
            dx, dy = width / 2 + gap, height / 2 + gap
            corners += [(px + dx, py - dy), (px - dx, py + dy), (px + dx, py + dy), (px, py + dy + 5 * point)]
        place = page.place(corners, (width, height))
        if place.cost < TEXT:
            _put(ax, text, place.centre)
        else:
            text.remove()


def _draw_dots(ax: Axes, shown: View, style: Style) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba

    count = len(shown.dots)
    alpha = 0.8 if count <= 40 else 0.55 if count <= 200 else 0.35
    for family, (marker, filled) in zip(FAMILIES, MARKERS, strict=True):
        dots = [d for d in shown.dots if d.family == family]
        if not dots:
            continue
        ax.scatter(
            [d.x for d in dots],
            [d.y for d in dots],
            s=[style.area(d.share) / filled for d in dots],
            c=[to_rgba(style.colours[d.resource], alpha) for d in dots],
            edgecolors=[(*dark(style.colours[d.resource], 0.35), min(1.0, alpha + 0.15)) for d in dots],
            linewidths=0.7,
            marker=marker,
            zorder=3,
            gid=f"rows-{family}",
        )
        hollow = [(d, d.measured_y) for d in dots if d.measured_y]
        if hollow:
            edges = [style.colours[d.resource] for d, _ in hollow]
            ends = [((d.x, d.y), (d.x, y)) for d, y in hollow]
            joins = LineCollection(ends, colors=edges, linewidths=0.9, zorder=2.8, gid=f"joins-{family}")
            ax.add_collection(joins, autolim=False)
            ax.scatter(
                [d.x for d, _ in hollow],
                [y for _, y in hollow],
                s=[min(max(style.area(d.share), 24.0), 90.0) / filled for d, _ in hollow],
                facecolors="white",
                edgecolors=edges,
                linewidths=1.4,
                marker=marker,
                zorder=3.2,
                gid=f"measured-{family}",
            )


def _draw_labels(ax: Axes, page: Page, shown: View, style: Style) -> None:
    from matplotlib.collections import LineCollection

    radii = {(d.x, d.y): style.radius(d.share) * page.point for d in reversed(shown.dots)}
    texts, items = [], []
    for label in shown.labels:
        text, size = _text(ax, label.text, 9, INK)
        at = ax.transData.transform((label.x, label.y))
        texts.append(text)
        items.append(((float(at[0]), float(at[1])), radii[label.x, label.y], size))
    leaders = []
    for text, place in zip(texts, page.place_labels(items), strict=True):
        if place.cost >= CROWDED:
            text.remove()
            continue
        _put(ax, text, place.centre)
        text.set_gid("row-label")
        if place.leader:
            leaders.append(ax.transData.inverted().transform(place.leader))
    if leaders:
        lines = LineCollection(leaders, colors=FAINT, linewidths=0.7, zorder=3.4, gid="leaders")
        ax.add_collection(lines, autolim=False)


def _text(ax: Axes, words: str, size: float, colour: Any) -> tuple[Text, tuple[float, float]]:
    """Put a text on the axes and return it with its width and height in pixels; its place is still open."""
    from matplotlib.patheffects import withStroke

    corner = ax.get_xlim()[0], ax.get_ylim()[0]
    text = ax.text(*corner, words, fontsize=size, color=colour, ha="center", va="center", zorder=4, parse_math=False)
    box = text.get_window_extent()
    text.set_path_effects([withStroke(linewidth=2.2, foreground="white", alpha=0.85)])
    return text, (box.width, box.height)


def _put(ax: Axes, text: Text, centre: Iterable[float]) -> None:
    x, y = ax.transData.inverted().transform(tuple(centre))
    text.set_position((x, y))
