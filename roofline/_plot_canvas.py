"""What all figures share: the canvas without a window, the frame of their axes, and the bytes of their files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Literal

from roofline._plot_style import FAINT, INK
from roofline.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 160


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> Figure:
    """Return an empty figure, its sides in inches, that no window shows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    return figure


def frame(ax: Axes, *, grid: Literal["both", "y"] = "both", labelsize: float = 9.5) -> None:
    """Give axes a faint grid and no spines but the left and the lower one."""
    ax.set_axisbelow(True)
    ax.grid(visible=True, which="major", axis=grid, color="#E8E8E8", linewidth=0.7)
    ax.tick_params(which="both", labelsize=labelsize, color=FAINT, labelcolor=INK)
    for side, spine in ax.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(FAINT)


def image(figure: Figure, kind: str) -> bytes:
    """Return a figure as an ``svg`` or ``png`` file; equal figures give equal files."""
    from matplotlib import rc_context

    metadata: dict[str, Any] = {"Date": None, "Creator": "aiq"} if kind == "svg" else {"Software": "aiq"}
    with rc_context({"svg.hashsalt": "aiq", "svg.fonttype": "path", "savefig.bbox": None}), io.BytesIO() as buffer:
        figure.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata)
        return buffer.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a ``.svg`` or ``.png`` file.

    Raises:
        InputError: The file cannot be written.
    """
    content = image(figure, path.suffix.lower()[1:])
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"cannot write figure {str(path)!r}: {error.strerror}. Next: choose another place.") from None
