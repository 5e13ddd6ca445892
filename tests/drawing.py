"""The machine behind the figures, and reading what stands on the axes: dots, lines, texts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.text import Text

from hardware_specs import HardwareSpec

FP32, FP16, INT8, DRAM, L2 = 8.141e12, 65.13e12, 130e12, 320e9, 1.27e12
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
