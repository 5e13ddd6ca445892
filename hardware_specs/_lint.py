"""The linter: a specification must agree with itself, with its architecture and with a second source.

Most errors in published tables are of a few kinds (a sparse rate, a neighbour's bandwidth, a wrong power of ten), and
most of them contradict another figure of the same row. Each rule is one small function; the facts are in
``_lint_tables.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hardware_specs._lint_tables import (
    FORMATS,
    GDDR_CHANNEL_GIB,
    GIB,
    MIB,
    PIN_RATES,
    PRODUCTS,
    RATIOS,
    SPANS,
    SPARSE_ARCHITECTURES,
    WHY_NOT,
    Product,
    Ratio,
    Span,
)
from hardware_specs._spec import Ceiling, HardwareSpec, MemoryLevel, Quantity, Rated

PEAK_TOLERANCE = 0.03
BUS_TOLERANCE = 0.01
SECOND_TOLERANCE = 0.03
SIZE_TOLERANCE = 0.03
SHORTEST_SOURCE = 40
KERNEL_TOLERANCE = 1.05
COVERAGE = Span(0.8, 1.0, "share")

_DATE = re.compile(r"\b(19|20)\d\d-\d\d-\d\d\b")
_SIZE = re.compile(r"\b(\d+(?:\.\d+)?) ?g(i?)b\b")


@dataclass(frozen=True)
class Finding:
    """One contradiction: the rule that found it, the field it is about, and a sentence."""

    rule: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message} [{self.rule}]"


def lint(spec: HardwareSpec) -> list[Finding]:
    """Return everything in ``spec`` that contradicts itself or known hardware; an empty list is clean.

    Args:
        spec: A specification that has passed the schema.
    """
    return [finding for rule in _RULES for finding in rule(spec)]


def _quantities(spec: HardwareSpec) -> Iterator[tuple[str, Quantity]]:
    """Every number of the machine with the path of its field."""
    rated: list[tuple[str, Rated]] = [(f"compute.{fmt}", ceiling) for fmt, ceiling in spec.compute.items()]
    rated += [(f"memory.{level.name}.bandwidth_bytes_per_s", level.bandwidth_bytes_per_s) for level in spec.memory]
    for where, quantity in rated:
        yield where, quantity
        if quantity.sustained:
            yield f"{where}.sustained", quantity.sustained
    for level in spec.memory:
        if level.capacity_bytes:
            yield f"memory.{level.name}.capacity_bytes", level.capacity_bytes
    if spec.launch_overhead_s:
        yield "launch_overhead_s", spec.launch_overhead_s
        if spec.launch_overhead_s.sustained:
            yield "launch_overhead_s.sustained", spec.launch_overhead_s.sustained
    if spec.tdp_w:
        yield "tdp_w", spec.tdp_w
    if spec.price_usd_per_hour:
        yield "price_usd_per_hour", spec.price_usd_per_hour


def _off(value: float, expected: float) -> float:
    return abs(value / expected - 1.0) if expected else math.inf


def _span_of(where: str, spec: HardwareSpec) -> Span:
    field = where.removesuffix(".sustained")
    if field in SPANS:
        return SPANS[field]
    if where.startswith("compute."):
        return SPANS["ceiling"]
    _, level, field = where.split(".")[:3]
    kind = "dram" if level == spec.memory[0].name else "cache"
    return SPANS[f"{kind} {'capacity' if field == 'capacity_bytes' else 'bandwidth'}"]


def _range(spec: HardwareSpec) -> Iterator[Finding]:
    for where, quantity in _quantities(spec):
        span = _span_of(where, spec)
        if not span.low <= quantity.value <= span.high:
            yield Finding(
                "range",
                where,
                f"got {quantity.value:.4g} {span.unit}, expected {span.low:.4g} to {span.high:.4g}: "
                "the value is probably in a scaled unit or off by a power of ten.",
            )
    for fmt, ceiling in spec.compute.items():
        span = SPANS["clock_hz"]
        if ceiling.clock_hz is not None and not span.low <= ceiling.clock_hz <= span.high:
            yield Finding(
                "range",
                f"compute.{fmt}.clock_hz",
                f"got {ceiling.clock_hz:.4g} Hz, expected {span.low:.4g} to {span.high:.4g}: state the clock in hertz.",
            )


def _source(spec: HardwareSpec) -> Iterator[Finding]:
    for where, quantity in _quantities(spec):
        if len(quantity.source) < SHORTEST_SOURCE or not _DATE.search(quantity.source):
            yield Finding(
                "source",
                where,
                f"got the source {quantity.source!r}, expected a document or URL and a date like 2026-11-21: "
                "a reader must be able to find the number again.",
            )


def _format(spec: HardwareSpec) -> Iterator[Finding]:
    known = FORMATS.get(spec.architecture)
    if known is None:
        return
    for fmt in spec.compute:
        if fmt not in known:
            why = WHY_NOT.get((spec.architecture, fmt), f"{spec.architecture} does not multiply {fmt} in hardware")
            yield Finding(
                "format",
                f"compute.{fmt}",
                f"got a {fmt} ceiling, expected none on {spec.architecture}: {why}.",
            )


def _ratios(spec: HardwareSpec) -> list[Ratio]:
    """The chip's own rows replace those of its architecture for the same pair."""
    rows = {(r.of, r.to): r for r in RATIOS.get(spec.architecture, ())}
    rows |= {(r.of, r.to): r for r in RATIOS.get((spec.chip or "").lower(), ())}
    return list(rows.values())


def _ratio(spec: HardwareSpec) -> Iterator[Finding]:
    rates: dict[str, Ceiling] = {str(fmt): ceiling for fmt, ceiling in spec.compute.items()}
    for row in _ratios(spec):
        if row.of not in rates or row.to not in rates:
            continue
        got = rates[row.of].value / rates[row.to].value
        if min(_off(got, t) for t in row.times) <= row.tolerance:
            continue
        expected = " or ".join(f"{t:.3g}" for t in row.times)
        yield Finding(
            "ratio",
            f"compute.{row.of}",
            f"got {got:.3g} times {row.to}, expected {expected}: {row.why}{_guess(got, row)}.",
        )


def _guess(got: float, row: Ratio) -> str:
    if min(_off(got, 2.0 * t) for t in row.times) <= row.tolerance:
        return "; it looks like the sparse figure"
    if got <= 1.05 < min(row.times):
        return "; it looks like the rate without tensor cores"
    return ""


def _sparsity(spec: HardwareSpec) -> Iterator[Finding]:
    for fmt, ceiling in spec.compute.items():
        if ceiling.sparsity_factor <= 1.0:
            continue
        if spec.architecture in FORMATS and spec.architecture not in SPARSE_ARCHITECTURES:
            yield Finding(
                "sparsity",
                f"compute.{fmt}.sparsity_factor",
                f"got {ceiling.sparsity_factor:g}, expected 1: {spec.architecture} has no structured sparsity.",
            )


def _peak(spec: HardwareSpec) -> Iterator[Finding]:
    for fmt, ceiling in spec.compute.items():
        parts = (ceiling.units, ceiling.ops_per_clock, ceiling.clock_hz)
        if None in parts:
            if any(parts):
                yield Finding(
                    "peak",
                    f"compute.{fmt}",
                    "got only a part of units, ops_per_clock and clock_hz, expected all three or none: "
                    "the peak cannot be checked against half a geometry.",
                )
            continue
        peak = float(ceiling.units or 0) * float(ceiling.ops_per_clock or 0) * float(ceiling.clock_hz or 0)
        if _off(ceiling.value, peak) > PEAK_TOLERANCE:
            yield Finding(
                "peak",
                f"compute.{fmt}",
                f"got {ceiling.value:.4g} op/s, expected {peak:.4g} = {ceiling.units:g} units × "
                f"{ceiling.ops_per_clock:g} op/clock × {ceiling.clock_hz:.4g} Hz{_multiple(ceiling.value, peak)}.",
            )


def _multiple(value: float, peak: float) -> str:
    if _off(value, 2.0 * peak) <= 2 * PEAK_TOLERANCE:
        return ": twice the dense rate looks like the sparse figure"
    if _off(value, 0.5 * peak) <= PEAK_TOLERANCE:
        return ": half the rate looks like one of two dies"
    return ": the value is of another part, or the geometry is"


def _bus(spec: HardwareSpec) -> Iterator[Finding]:
    for level in spec.memory:
        if level.bus_bits is None or level.transfers_per_s is None:
            continue
        expected = level.bus_bits * level.transfers_per_s / 8.0
        got = level.bandwidth_bytes_per_s.value
        if _off(got, expected) > BUS_TOLERANCE:
            yield Finding(
                "bandwidth",
                f"memory.{level.name}.bandwidth_bytes_per_s",
                f"got {got:.4g} B/s, expected {expected:.4g} = {level.bus_bits:g} bit × "
                f"{level.transfers_per_s:.4g} transfers/s / 8: the bandwidth is of another part, or the bus is.",
            )


def _pins(spec: HardwareSpec) -> Iterator[Finding]:
    for level in spec.memory:
        span = PIN_RATES.get(level.technology or "")
        if span and level.transfers_per_s and not span.low <= level.transfers_per_s <= span.high:
            yield Finding(
                "pins",
                f"memory.{level.name}.transfers_per_s",
                f"got {level.transfers_per_s:.4g} transfers/s, expected {span.low:.3g} to {span.high:.3g} for "
                f"{level.technology}: a pin of that kind does not run at this rate.",
            )


def _channels(spec: HardwareSpec) -> Iterator[Finding]:
    for level in spec.memory:
        if not (level.technology or "").startswith("gddr") or not level.bus_bits or not level.capacity_bytes:
            continue
        channels = max(level.bus_bits, 1.0) / 32.0
        sizes = [level.capacity_bytes.value / channels / unit for unit in (GIB, 1e9)]
        if not any(_off(size, fit) <= SIZE_TOLERANCE for size in sizes for fit in GDDR_CHANNEL_GIB):
            yield Finding(
                "channels",
                f"memory.{level.name}.capacity_bytes",
                f"got {sizes[0]:.3g} GiB on each of {channels:g} channels of 32 bit, expected one of "
                f"{', '.join(f'{g:g}' for g in GDDR_CHANNEL_GIB)}: no memory chips add up to that.",
            )


def _title_size(spec: HardwareSpec) -> Iterator[Finding]:
    capacity = spec.memory[0].capacity_bytes
    if capacity is None:
        return
    for number, binary in _SIZE.findall(spec.title.lower()):
        units = (GIB,) if binary else (1e9, GIB)
        if not any(_off(capacity.value, float(number) * unit) <= SIZE_TOLERANCE for unit in units):
            yield Finding(
                "capacity",
                f"memory.{spec.memory[0].name}.capacity_bytes",
                f"got {capacity.value:.4g} B, expected {float(number):g} GB as in the title {spec.title!r}: "
                "the size is of another variant.",
            )


def _order(spec: HardwareSpec) -> Iterator[Finding]:
    for outer, inner in zip(spec.memory, spec.memory[1:], strict=False):
        yield from _faster(outer, inner)
        if outer.capacity_bytes and inner.capacity_bytes and inner.capacity_bytes.value >= outer.capacity_bytes.value:
            yield Finding(
                "order",
                f"memory.{inner.name}.capacity_bytes",
                f"got {inner.capacity_bytes.value:.4g} B, expected less than the {outer.capacity_bytes.value:.4g} B of "
                f"{outer.name}: levels run from the outermost to the innermost.",
            )


def _faster(outer: MemoryLevel, inner: MemoryLevel) -> Iterator[Finding]:
    slow, fast = outer.bandwidth_bytes_per_s.value, inner.bandwidth_bytes_per_s.value
    if fast < slow:
        yield Finding(
            "order",
            f"memory.{inner.name}.bandwidth_bytes_per_s",
            f"got {fast:.4g} B/s, expected at least the {slow:.4g} B/s of {outer.name}: "
            "an inner level is never slower than the one outside it.",
        )


def _product_of(spec: HardwareSpec) -> Product | None:
    title = re.sub(r"[-_/]", " ", spec.title.lower())
    return next((p for p in PRODUCTS if re.search(p.pattern, title)), None)


def _product(spec: HardwareSpec) -> Iterator[Finding]:
    product = _product_of(spec) if spec.kind == "gpu" else None
    if product is None:
        return
    for fmt, ceiling in spec.compute.items():
        if ceiling.units is not None and ceiling.units != product.units:
            yield Finding(
                "product",
                f"compute.{fmt}.units",
                f"got {ceiling.units:g} units, expected {product.units}: {spec.title} is sold with that many enabled.",
            )
        if ceiling.clock_hz is not None and ceiling.clock_hz > 1.01 * product.boost_hz:
            yield Finding(
                "product",
                f"compute.{fmt}.clock_hz",
                f"got {ceiling.clock_hz:.4g} Hz, expected at most the boost clock {product.boost_hz:.4g}: "
                "a peak is stated at a clock the part can reach.",
            )
    for level in spec.memory:
        if level.name == "l2" and level.capacity_bytes and product.l2_mib:
            yield from _l2(spec, level.capacity_bytes.value, product.l2_mib)


def _l2(spec: HardwareSpec, got: float, mib: float) -> Iterator[Finding]:
    if min(_off(got, mib * MIB), _off(got, mib * 1e6)) > SIZE_TOLERANCE:
        yield Finding(
            "product",
            "memory.l2.capacity_bytes",
            f"got {got:.4g} B, expected {mib * MIB:.4g} ({mib:g} MiB): that is what the die of {spec.title} has.",
        )


def _rated(spec: HardwareSpec) -> Iterator[tuple[str, Rated]]:
    yield from ((where, q) for where, q in _quantities(spec) if isinstance(q, Rated))


def _second(spec: HardwareSpec) -> Iterator[Finding]:
    for where, rated in _rated(spec):
        if rated.second and _off(rated.value, rated.second.value) > SECOND_TOLERANCE:
            yield Finding(
                "second",
                where,
                f"got {rated.value:.4g}, expected within 3 % of {rated.second.value:.4g} as in {rated.second.source}: "
                "two sources that disagree cannot both be right.",
            )


def _sustained(spec: HardwareSpec) -> Iterator[Finding]:
    overhead = spec.launch_overhead_s
    if overhead and overhead.sustained and overhead.sustained.value < overhead.value:
        yield Finding(
            "sustained",
            "launch_overhead_s.sustained",
            f"got {overhead.sustained.value:.4g} s, expected at least the floor {overhead.value:.4g} s: "
            "an eager framework pays the launch and its own work.",
        )
    for where, rated in _rated(spec):
        if rated is not overhead and rated.sustained and rated.sustained.value > rated.value * (1 + SECOND_TOLERANCE):
            yield Finding(
                "sustained",
                f"{where}.sustained",
                f"got {rated.sustained.value:.4g}, expected at most the peak {rated.value:.4g}: "
                "nothing sustains more than its peak.",
            )


def _kernels(spec: HardwareSpec) -> Iterator[Finding]:
    for index, model in enumerate(spec.kernels):
        where, form, error = f"kernels.{index}", model.form, model.error
        if len(model.source) < SHORTEST_SOURCE or not _DATE.search(model.source):
            yield Finding(
                "source",
                where,
                f"got the source {model.source!r}, expected a document, URL or machine and a date like 2026-11-21: "
                "a reader must be able to find the times again.",
            )
        for fmt in model.formats:
            peak = spec.compute[fmt].value if fmt in spec.compute else None
            rate = (form.rate_flops_per_s or 0.0) * (1.0 + form.burst_gain)
            if peak and rate and rate > KERNEL_TOLERANCE * peak and not model.note:
                yield Finding(
                    "kernels",
                    f"{where}.form.rate_flops_per_s",
                    f"got {rate:.4g} op/s, expected at most {KERNEL_TOLERANCE:g} times the {fmt} peak {peak:.4g}: a "
                    "note must explain a point above its roof (units, algorithm, cache, sparsity).",
                )
        innermost = max(level.bandwidth_bytes_per_s.value for level in spec.memory)
        for field in ("bandwidth_bytes_per_s", "cache_bandwidth_bytes_per_s"):
            bandwidth = getattr(form, field)
            if bandwidth and bandwidth > KERNEL_TOLERANCE * innermost and not model.note:
                yield Finding(
                    "kernels",
                    f"{where}.form.{field}",
                    f"got {bandwidth:.4g} B/s, expected at most {KERNEL_TOLERANCE:g} times the {innermost:.4g} of the "
                    "fastest memory level: a note must explain it.",
                )
        if error.coverage is not None and error.rows >= 30 and not COVERAGE.low <= error.coverage <= COVERAGE.high:
            yield Finding(
                "kernels",
                f"{where}.error.coverage",
                f"got {error.coverage:.3g}, expected {COVERAGE.low:g} to {COVERAGE.high:g}: "
                "an interval of 90 % that misses this is not one.",
            )


_RULES: tuple[Callable[[HardwareSpec], Iterator[Finding]], ...] = (
    _range,
    _source,
    _format,
    _ratio,
    _sparsity,
    _peak,
    _bus,
    _pins,
    _channels,
    _title_size,
    _order,
    _product,
    _second,
    _sustained,
    _kernels,
)
