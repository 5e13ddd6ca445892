"""What the roofline figure shows, free of matplotlib: dots, roofs, diagonals, texts and limits."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from roofline.errors import InputError, unknown_name
from roofline.graph import NORM_KINDS
from roofline.result import GraphEstimate, LayerEstimate
from roofline.units import number, percent, si

_FAMILIES = {
    "conv": "convolution",
    "conv_transpose": "convolution",
    "depthwise_conv": "depthwise conv",
    "linear": "linear, matmul",
    "matmul": "linear, matmul",
    "attention": "attention",
    "recurrent": "recurrent",
    "elementwise": "norm, element-wise",
    **dict.fromkeys(NORM_KINDS, "norm, element-wise"),
}
FAMILIES = (*dict.fromkeys(_FAMILIES.values()), "other")
_NAME_LIMIT, _TITLE_LIMIT, _SUBTITLE_LIMIT, _NOTE_WIDTH = 34, 76, 124, 132
_VISIBLE = 1.02  # a dot is said to lie above a line where a reader could see it


@dataclass(frozen=True, slots=True)
class Dot:
    """One row as drawn: FLOP per byte and FLOP/s, its share of the latency, and FLOP/s as measured where it was."""

    name: str
    family: str
    resource: str
    share: float
    x: float
    y: float
    roof: float
    measured_y: float | None


@dataclass(frozen=True, slots=True)
class Label:
    """A text for one dot, or for several that lie in one place."""

    text: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class View:
    """Everything the figure shows, in data units."""

    dots: tuple[Dot, ...]
    labels: tuple[Label, ...]
    roofs: dict[float, tuple[str, ...]]
    levels: dict[str, float]
    all_levels: tuple[str, ...]
    x_label: str
    title: str
    subtitle: str
    notes: tuple[str, ...]

    @property
    def ridges(self) -> list[tuple[float, float]]:
        """Where diagonals meet roofs: FLOP per byte and FLOP/s."""
        return [(roof / bandwidth, roof) for bandwidth in self.levels.values() for roof in self.roofs]


def view(estimate: GraphEstimate, level: str | None, label_top: int, measured: Mapping[str, float] | None) -> View:
    """Check the arguments and lay out what an estimate shows.

    Raises:
        UnknownNameError: ``level`` is no memory level of the machine, or ``measured`` names no row.
        InputError: ``label_top`` is negative, or a measured time is not a positive number.
    """
    names = [m.name for m in estimate.hardware.memory]
    check(estimate, level, label_top, measured)
    times = dict(measured or {})
    # Only fused traffic is served from inner levels; elsewhere every byte crosses the outermost one.
    shown = level or (names[0] if estimate.traffic != "fused" or len(names) == 1 else None)
    dots = tuple(_dots(estimate, shown, times))
    levels = {n: estimate.hardware.bandwidth(i) for i, n in enumerate(names) if shown is None or n == shown}
    return View(
        dots,
        tuple(_labels(dots, label_top)),
        _roofs(estimate),
        levels,
        tuple(names),
        f"arithmetic intensity (FLOP per byte, {shown or 'all levels together'})",
        _title(estimate),
        _subtitle(estimate),
        tuple(_notes(estimate, shown, dots, levels, times)),
    )


def check(estimate: GraphEstimate, level: str | None, label_top: int, measured: Mapping[str, float] | None) -> None:
    """Raise what is wrong with the arguments of a figure, before any work."""
    names = [m.name for m in estimate.hardware.memory]
    if level is not None and level not in names:
        next_step = f"choose a level of {estimate.hardware.name}, or none for all together"
        raise unknown_name("memory level", level, names, next_step)
    if label_top < 0:
        raise InputError(f"label_top must be at least 0, got {label_top}. Next: pass how many rows to label.")
    rows = {layer.name for layer in estimate.layers}
    for name, seconds in (measured or {}).items():
        if name not in rows:
            raise unknown_name("row in measured", name, rows, "take the names from estimate.layers")
        if not (math.isfinite(seconds) and seconds > 0):
            raise InputError(
                f"measured time of row {name!r} must be a positive number of seconds, got {seconds}. "
                "Next: leave it out."
            )


def limits(values: Iterable[float], inches: float, before: float, after: float) -> tuple[float, float]:
    """Return round (1, 2, 5) axis limits that show every value with room before and after, 1.5 decades at least.

    Args:
        values: What must be visible, above 0.
        inches: Length of the axis.
        before: Inches left free below the smallest value.
        after: Inches left free above the largest value.
    """
    logs = [math.log10(v) for v in values]
    low, high = min(logs), max(logs)
    if high - low < 1.5:
        low, high = (low + high) / 2 - 0.75, (low + high) / 2 + 0.75
    decades_per_inch = (high - low) / max(inches - before - after, inches / 3)
    return _round_down(low - before * decades_per_inch), 1 / _round_down(-high - after * decades_per_inch)


def _round_down(log: float) -> float:
    decade = math.floor(log + 1e-9)
    mantissa = max(m for m in (1, 2, 5) if math.log10(m) <= log - decade + 1e-9)
    return float(mantissa * 10.0**decade)


def _dots(estimate: GraphEstimate, level: str | None, measured: Mapping[str, float]) -> Iterable[Dot]:
    for layer in sorted(estimate.layers, key=lambda row: -row.latency_s):
        moved = _moved(layer, level)
        if not layer.flops or not moved:
            continue
        seconds = measured.get(layer.name)
        yield Dot(
            layer.name,
            _FAMILIES.get(layer.kind, "other"),
            layer.resource,
            _share(layer.latency_s, estimate),
            layer.flops / moved,
            layer.flops / layer.latency_s,
            layer.ceiling.flops_per_s,
            layer.flops / seconds if seconds else None,
        )


def _moved(layer: LayerEstimate, level: str | None) -> int:
    return layer.bytes if level is None else layer.bytes_by_level[level]


def _share(seconds: float, estimate: GraphEstimate) -> float:
    return seconds / estimate.latency_s if estimate.latency_s else 0.0


def _roofs(estimate: GraphEstimate) -> dict[float, tuple[str, ...]]:
    found: dict[float, list[str]] = {}
    used = {layer.ceiling.format: layer.ceiling.flops_per_s for layer in estimate.layers if layer.flops}
    if "fp32" in estimate.hardware.compute or not used:
        first = "fp32" if "fp32" in estimate.hardware.compute else next(iter(estimate.hardware.compute))
        used.setdefault(first, estimate.hardware.ceiling(first))
    for fmt, value in used.items():
        found.setdefault(value, []).append(fmt)
    return {value: tuple(sorted(found[value])) for value in sorted(found)}


def _labels(dots: Sequence[Dot], top: int) -> Iterable[Label]:
    groups: dict[tuple[int, int, str, str], list[Dot]] = {}
    for dot in dots:
        place = (round(100 * math.log10(dot.x)), round(100 * math.log10(dot.y)))
        groups.setdefault((*place, dot.family, dot.resource), []).append(dot)
    for members in list(groups.values())[:top]:
        lead = members[0]
        name = elide(common_name([m.name for m in members]), _NAME_LIMIT)
        yield Label(f"{name} ×{len(members)}" if len(members) > 1 else name, lead.x, lead.y)


def common_name(names: Sequence[str]) -> str:
    """Write several dotted names as one: ``a.*.{q,o}``; the first with an ellipsis where their shapes differ."""
    split = [name.split(".") for name in names]
    if len({len(parts) for parts in split}) > 1:
        return f"{names[0]}, …"
    return ".".join(_common_part(list(dict.fromkeys(column))) for column in zip(*split, strict=True))


def _common_part(values: Sequence[str]) -> str:
    if len(values) == 1:
        return values[0]
    stems = {v.rstrip("0123456789") for v in values}
    if len(stems) == 1 and stems != {""}:
        return f"{stems.pop()}*"
    few = len(values) <= 3 and not any(v.isdigit() for v in values)
    return "{" + ",".join(sorted(values)) + "}" if few else "*"


def elide(text: str, limit: int) -> str:
    """Cut the middle of a text that is longer than ``limit``."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}…{text[-tail:]}"


def _title(estimate: GraphEstimate) -> str:
    return elide(f"{estimate.graph.model or 'model'} on {estimate.hardware.title}", _TITLE_LIMIT)


def _subtitle(estimate: GraphEstimate) -> str:
    rates = estimate.hardware.time_label
    rest = "".join(
        f" · {part}"
        for part in (
            f"batch {estimate.batch}",
            f"{estimate.traffic} traffic",
            f"{number(estimate.arithmetic_intensity)} FLOP/byte",
            f"predicted {si(estimate.latency_s, 's')} ({rates})",
        )
    )
    return elide(str(estimate.scheme), max(_SUBTITLE_LIMIT - len(rest), 12)) + rest


def _notes(
    estimate: GraphEstimate,
    level: str | None,
    dots: Sequence[Dot],
    levels: Mapping[str, float],
    measured: Mapping[str, float],
) -> Iterable[str]:
    """Say what the figure leaves out and what would puzzle a reader."""
    said = []
    unknown = [layer for layer in estimate.layers if not layer.flops and layer.kind == "unknown"]
    still = [layer for layer in estimate.layers if not layer.flops and layer.kind != "unknown"]
    elsewhere = [layer for layer in estimate.layers if layer.flops and not _moved(layer, level)]
    for rows, what in (
        (still, "{} without FLOPs"),
        (unknown, "{} of unknown kind"),
        (elsewhere, f"{{}} without bytes from {level or 'memory'}"),
    ):
        if rows:
            text = _left_out(what.format(_count(len(rows), "row")), sum(r.latency_s for r in rows), estimate)
            said.append(f"{text}, not drawn")
    conversions = [t for t in estimate.transitions if t.latency_s]
    if conversions:
        text = _left_out(_count(len(conversions), "format conversion"), sum(t.latency_s for t in conversions), estimate)
        said.append(f"{text}, not drawn")
    lost = len(set(measured) - {dot.name for dot in dots})
    if lost:
        said.append(f"{_count(lost, 'measured row')} not drawn")
    if level is None and any(d.resource in levels and d.y > _VISIBLE * d.x * levels[d.resource] for d in dots):
        said.append("a dot above the diagonal of its colour takes part of its bytes from inner levels")
    if estimate.hardware.rates == "calibrated":
        said.append("dots stand at times by kernel models, roofs at sustained or datasheet rates")
    elif any(d.y > _VISIBLE * d.roof for d in dots):
        said.append("a dot above its roof does element-wise work beside the matrix units")
    bound = estimate.hardware.rates != "calibrated"
    if bound and any(d.resource == "compute" and d.y * _VISIBLE < d.roof for d in dots):
        said.append("a compute-bound dot below its roof waits for element-wise work")
    if not dots:
        said.append("no row to draw")
    return textwrap.wrap("; ".join(said), _NOTE_WIDTH) if said else []


def _left_out(what: str, seconds: float, estimate: GraphEstimate) -> str:
    share = _share(seconds, estimate)
    return f"{what}: {percent(share) if 0 < share < 0.0995 else f'{100 * share:.0f} %'} of time"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
