"""Colours, markers and dot areas of the roofline figure, and the legends that explain them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from roofline._plot_data import FAMILIES, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

SIDE_INCHES = 1.95
_AREA_MIN = 7.0
# Okabe and Ito, Color Universal Design, 2008.
COMPUTE, _OVERHEAD = "#D55E00", "#808080"
_MEMORY = ("#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#F0E442")
INK, FAINT = "#222222", "#666666"
# Each marker with the area it fills at size 1, so that dots of one share have one area whatever their shape.
MARKERS = (("o", math.pi / 4), ("D", 1.0), ("s", 1.0), ("^", 0.5), ("v", 0.5), ("P", 0.556), ("p", 0.594))


@dataclass(frozen=True, slots=True)
class Style:
    """Colour of each resource, and the dot area in square points of a row that takes all the time."""

    colours: dict[str, str]
    of_all: float

    @classmethod
    def of(cls, shown: View) -> Style:
        """Choose both for a figure: the largest dot is neither huge nor lost."""
        levels = {name: _MEMORY[i % len(_MEMORY)] for i, name in enumerate(shown.all_levels)}
        largest = max((d.share for d in shown.dots), default=0.0)
        of_all = min(max(1600 * largest, 90.0), 620.0) / largest if largest else 0.0
        return cls({"compute": COMPUTE, **levels, "overhead": _OVERHEAD}, of_all)

    def area(self, share: float) -> float:
        """Area of a dot in square points."""
        return max(share * self.of_all, _AREA_MIN)

    def radius(self, share: float) -> float:
        """Radius of a round dot in points, its edge included."""
        return 0.5 + math.sqrt(self.area(share) / math.pi)


def dark(colour: str, share: float = 0.3) -> tuple[float, float, float]:
    """Mix a colour with black: light ones are no good for text."""
    from matplotlib.colors import to_rgb

    r, g, b = to_rgb(colour)
    keep = 1 - share
    return r * keep, g * keep, b * keep


def draw_legends(ax: Axes, shown: View, style: Style, *, own: bool) -> None:
    """Stack the legends right of the axes, where nothing is plotted."""
    from matplotlib.lines import Line2D

    figure: Any = getattr(ax.figure, "figure", ax.figure)  # of a SubFigure, the figure that it is part of
    engine = None if own else figure.get_layout_engine()
    if not own and engine is None:
        box = ax.get_position()
        room = min(SIDE_INCHES / figure.get_figwidth(), 0.4 * box.width)
        ax.set_position((box.x0, box.y0, box.width - room, box.height))

    def handle(label: str, **looks: Any) -> Line2D:
        return Line2D([], [], label=label, **{"linestyle": "none", "color": INK, **looks})

    resources = [r for r in style.colours if any(d.resource == r for d in shown.dots)]
    markers = dict(zip(FAMILIES, MARKERS, strict=True))
    families = [f for f in FAMILIES if any(d.family == f for d in shown.dots)]
    bound = [handle(r, marker="o", markersize=8, color=style.colours[r]) for r in resources]
    kinds = [handle(f, marker=markers[f][0], markersize=7, color=FAINT) for f in families]
    sizes = [
        handle(_share_text(s), marker="o", markersize=2 * math.sqrt(style.area(s) / math.pi), color="#BBBBBB")
        for s in _samples(shown)
    ]
    marks = [handle("ridge point", marker="|", markersize=9, markeredgewidth=1.3)]
    if any(d.measured_y for d in shown.dots):
        marks.append(handle("measured", marker="o", markersize=7, markerfacecolor="white"))
    largest = max((h.get_markersize() for h in sizes), default=0.0)
    top = 1.0
    for title, handles, spacing in (
        ("bound by", bound, 0.35),
        ("kind of op", kinds, 0.35),
        ("share of time", sizes, max(0.45, largest / 9 - 0.75)),
        ("", marks, 0.35),
    ):
        if handles:
            legend = _legend(ax, title, handles, top=top, spacing=spacing, length=max(1.6, (largest + 3) / 9))
            if engine is not None:
                figure.draw_without_rendering()
            bottom = legend.get_window_extent().y0
            top = ax.transAxes.inverted().transform((0, bottom))[1] - 0.012
    if engine is not None:
        figure.draw_without_rendering()


def _legend(ax: Axes, title: str, handles: Sequence[Line2D], *, top: float, spacing: float, length: float) -> Legend:
    legend = ax.legend(
        handles=list(handles),
        title=title or None,
        loc="upper left",
        bbox_to_anchor=(1.015, top),
        borderaxespad=0,
        frameon=False,
        fontsize=9,
        title_fontproperties={"size": 9, "weight": "bold"},
        alignment="left",
        labelspacing=spacing,
        handlelength=length,
        labelcolor=INK,
    )
    # Each call of ax.legend replaces the one before unless that is an artist of its own.
    ax.legend_ = None
    ax.add_artist(legend)
    legend.set_clip_on(False)  # a layout engine makes no room for what the axes clip
    return legend


def _samples(shown: View) -> list[float]:
    """Return one to three round shares to size the dots of a legend, the largest at most the largest drawn."""
    largest, least = max((d.share for d in shown.dots), default=0.0), min((d.share for d in shown.dots), default=0.0)
    if not largest:
        return []
    ladder = [m * 10.0**p for p in range(-8, 1) for m in (1, 2, 5)]
    first = max((v for v in ladder if v <= largest * 1.001), default=largest)
    lower = [v for v in (first / 5, first / 25) if v > max(least / 2, largest / 60)]
    return [first, *lower[:2]]


def _share_text(share: float) -> str:
    return f"{100 * share:.3g} %"
