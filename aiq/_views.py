"""What people see of each result: headline, columns and notes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiq import zoo
from aiq._plan import Candidate, Plan
from aiq._probe import Probe
from aiq._repeats import collapsed
from aiq.report import Column, Report
from hardware_specs import HardwareSpec, KernelModel
from roofline import GraphEstimate, OpGraph, Transition
from roofline.estimate import resolve
from roofline.kernels import UNCALIBRATED_SHARE
from roofline.units import number, percent, si

_NOTICEABLE = 1.005


def _flops(value: float) -> str:
    return si(value)


def _bytes(value: float) -> str:
    return si(value, "B")


def _seconds(value: float) -> str:
    return si(value, "s")


def _times(value: float) -> str:
    return f"{number(value)}x"


def _shares(by_bound: dict[str, float], total: float) -> str:
    parts = [(name, seconds / total) for name, seconds in by_bound.items() if total and seconds / total >= 0.005]
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in parts)


def graph_report(graph: OpGraph) -> Report:
    """Show a graph: one row for each op, in the traced formats."""
    data = graph.to_dict()
    weights = sum(elements for elements, _ in graph.parameters.values())
    headline = (
        f"{graph.model}: {len(graph)} ops, {len(graph.layers)} layers with weights, {si(graph.macs, 'MAC')}, "
        f"{si(graph.flops, 'FLOP')} (1 MAC = 2 FLOP) at batch {graph.batch}; {si(weights)} stored values"
    )
    rows = [{**op, "output": _shape(op), "note": op["note"] or ""} for op in data["ops"]]
    columns = (
        Column("name", "name"),
        Column("kind", "kind"),
        Column("layer", "layer"),
        Column("output", "output"),
        Column("macs", "MACs", _flops, right=True),
        Column("flops", "FLOPs", _flops, right=True),
        Column("bytes", "bytes", _bytes, right=True, drop=7),
        Column("note", "note"),
    )
    return Report(headline, columns, rows, [*_unknown(graph), *graph.notes], {"schema_version": 1, **data})


def _shape(op: dict[str, Any]) -> str:
    return next(("x".join(map(str, t["shape"])) for t in op["tensors"] if t["role"] == "output"), "")


def _unknown(graph: OpGraph) -> Iterable[str]:
    for target, entry in graph.unknown.items():
        size = si(entry["bytes"], "B")
        yield f"no formula for {target} ({entry['count']} calls): priced by its {size} alone, FLOPs unknown"


def roofline_report(estimate: GraphEstimate, *, collapse: bool = False) -> Report:
    """Show an estimate: one row for each op or fused group, and for each format transition that costs time.

    Args:
        estimate: The estimate.
        collapse: Show rows that repeat once, with their number (see :func:`aiq._repeats.collapsed`).
    """
    data = estimate.to_dict()
    rows = [*data["layers"], *(_transition_row(t, estimate) for t in estimate.transitions if t.latency_s)]
    notes = [*_fit(estimate), *_reasons(estimate), *_unpriced(estimate), *_changes(estimate), *estimate.assumptions]
    columns: tuple[Column, ...] = _ROOFLINE_COLUMNS
    if estimate.kv_bytes:
        columns = (*columns[:5], Column("kv_bytes", "KV", _bytes, right=True, drop=9), *columns[5:])
        rows = [{**row, "kv_bytes": row.get("bytes_by_role", {}).get("kv")} for row in rows]
    if estimate.hardware.rates == "calibrated":
        columns += (
            Column("latency_interval_s", "90 % interval", lambda v: f"{_seconds(v[0])} to {_seconds(v[1])}", drop=9),
            Column("model", "model", lambda v: v or "bound", drop=9),
        )
    shown = collapsed(rows) if collapse else rows
    if len(shown) < len(rows):
        columns = (columns[0], Column("times", "rows", lambda v: f"{v}x", right=True), *columns[1:])
        once = "rows that repeat are one: share is that of all of them, the rest of each; csv and json have them all"
        notes = [once, *notes]
    return Report(_roofline_headline(estimate), columns, shown, notes, data)


def _interval(estimate: GraphEstimate) -> str:
    ends = estimate.latency_interval_s
    return f", 90 % between {si(ends[0], 's')} and {si(ends[1], 's')}" if ends else ""


def _roofline_headline(estimate: GraphEstimate) -> str:
    what = (
        f"{estimate.graph.model}, {estimate.scheme}, batch {estimate.batch}, {estimate.traffic} traffic on "
        f"{estimate.hardware.title}"
    )
    if not estimate.layers:
        return f"{what}: no op to price"
    total = estimate.latency_s
    return (
        f"{what}: {number(estimate.arithmetic_intensity, digits=4)} FLOP/byte, {si(total, 's')} "
        f"({estimate.hardware.time_label}{_interval(estimate)}), {si(estimate.throughput_per_s, 'samples/s')}; "
        f"{si(estimate.flops, 'FLOP')} (1 MAC = 2 FLOP), {si(estimate.bytes, 'B')} moved; "
        f"bound by {_shares(estimate.latency_by_bound, total)}"
    )


_ROOFLINE_COLUMNS = (
    Column("name", "name"),
    Column("kind", "kind", drop=4),
    Column("precision", "precision", drop=6),
    Column("flops", "FLOPs", _flops, right=True, drop=7),
    Column("bytes", "bytes", _bytes, right=True, drop=8),
    Column("arithmetic_intensity", "FLOP/B", number, right=True),
    Column("ridge", "ridge", number, right=True, drop=3),
    Column("bound", "bound"),
    Column("level", "level", drop=5),
    Column("latency_s", "latency", _seconds, right=True),
    Column("share", "share", percent, right=True),
    Column("headroom", "headroom", _times, right=True, drop=2),
    Column("computes_in", "computes in", drop=1),
)


def _transition_row(transition: Transition, estimate: GraphEstimate) -> dict[str, Any]:
    return {
        "name": f"{transition.producer} -> {transition.consumer}",
        "kind": "transition",
        "precision": f"{transition.source} -> {transition.target}",
        "flops": 0,
        "bytes": transition.bytes,
        "arithmetic_intensity": 0.0,
        "bound": "memory" if transition.latency_s > estimate.hardware.overhead_s else "overhead",
        "level": estimate.hardware.memory[0].name,
        "latency_s": transition.latency_s,
        "share": transition.latency_s / estimate.latency_s,
        "latency_interval_s": transition.interval_s,
        "model": transition.model.label if transition.model else None,
    }


def _fit(estimate: GraphEstimate) -> Iterable[str]:
    memory, level = estimate.memory, estimate.hardware.memory[0].name
    parts = {
        "weights": memory.weight_bytes,
        "other parameters": memory.constant_bytes,
        "key-value cache": memory.kv_bytes,
    }
    kept = ", ".join(f"{si(size, 'B')} of {what}" for what, size in parts.items() if size)
    peak = f"activations at most {si(memory.activation_bytes, 'B')} at once" + (
        f", during {memory.peak}" if memory.peak else ""
    )
    total = f"{si(memory.total_bytes, 'B')} for {kept + ' and ' if kept else ''}{peak}"
    if memory.capacity_bytes is None or memory.spare_bytes is None:
        yield f"memory needed: {total}; the size of {level} is not known"
    elif memory.fits:
        spare = si(memory.spare_bytes, "B")
        yield f"memory needed: {total}; fits {level} of {si(memory.capacity_bytes, 'B')} with {spare} to spare"
    else:
        short, room = si(-memory.spare_bytes, "B"), si(memory.capacity_bytes, "B")
        yield f"does not fit: {level} of {room} is {short} short of the memory needed: {total}"


def _reasons(estimate: GraphEstimate) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for layer in estimate.layers:
        if layer.reason:
            reasons.setdefault(layer.reason, []).append(layer.name)
    return [f"{reason}: {_some(names)}" for reason, names in reasons.items()]


def _unpriced(estimate: GraphEstimate) -> list[str]:
    unknown = list(_unknown(estimate.graph)) if estimate.traffic != "paper" else []
    if unknown:
        share = estimate.coverage
        unknown.append(
            f"ops without a formula: {percent(share['unknown_bytes_share'])} of bytes, "
            f"{percent(share['unknown_latency_share'])} of time"
        )
    return unknown


def _changes(estimate: GraphEstimate) -> list[str]:
    count = len(estimate.transitions)
    if not count:
        return []
    cost = sum(t.latency_s for t in estimate.transitions)
    price = f"{percent(cost / estimate.latency_s)} of time" if cost else "taken as free in fused traffic"
    return [f"{_count(count, 'tensor changes', 'tensors change')} format between layers: {price}"]


def _count(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def plan_report(plan: Plan) -> Report:
    """Show a plan: one row for each candidate, best first."""
    data = plan.to_dict()
    best, base, goal = plan.best, plan.baseline, plan.objective
    intensity, before = (number(e.arithmetic_intensity, digits=4) for e in (best.estimate, base))
    fastest = max(c.speedup for c in plan.candidates)
    speed = f"{_times(best.speedup)} the speed of {si(base.latency_s, 's')}"
    if fastest < _NOTICEABLE:
        bounds = _shares(base.latency_by_bound, base.latency_s)
        speed = f"no scheme is faster than {si(base.latency_s, 's')}: bound by {bounds}"
    headline = (
        f"{plan.graph.model}, batch {plan.batch}, {plan.traffic} traffic on {plan.hardware.title}: of "
        f"{len(plan.candidates)} schemes {best.name} ranks first for {goal.target} at lambda {goal.lam:g}: "
        f"{intensity} FLOP/byte against {before}, {speed} ({plan.hardware.time_label})"
    )
    columns = (
        Column("rank", "#", str, right=True),
        Column("name", "scheme"),
        Column("formats", "layers", drop=1),
        Column("origin", "optimal for", drop=4),
        Column("arithmetic_intensity", "FLOP/B", lambda v: number(v, digits=4), right=True),
        Column("bytes", "moved", _bytes, right=True, drop=7),
        Column("weight_bytes", "weights", _bytes, right=True, drop=6),
        Column("latency_s", "latency", _seconds, right=True),
        Column("speedup", "speed-up", _times, right=True),
        Column("bounds", "bound by", drop=2),
        Column("proxy_loss", "proxy loss", number, right=True),
        Column("objective", "L", lambda v: f"{v:.3f}", right=True),
        Column("gap", f"{goal.target} gap", percent, right=True, drop=5),
    )
    rows = [
        {
            **row,
            "formats": _mix(candidate, plan.graph),
            "bounds": _shares(candidate.estimate.latency_by_bound, candidate.estimate.latency_s),
            "gap": row["gap"] if goal.target in candidate.origin.split(", ") else None,
        }
        for row, candidate in zip(data["candidates"], plan.candidates, strict=True)
    ]
    return Report(headline, columns, rows, [*_plan_notes(plan), *base.assumptions], data)


def _mix(candidate: Candidate, graph: OpGraph) -> str:
    scheme = candidate.estimate.scheme
    counts: dict[str, int] = {}
    for precision in resolve(graph, scheme).values():
        counts[precision.label] = counts.get(precision.label, 0) + 1
    return ", ".join(f"{count} {label}" for label, count in sorted(counts.items(), key=lambda item: -item[1]))


def _plan_notes(plan: Plan) -> list[str]:
    goal, cost = plan.objective, plan.cost
    optimal = "is exact" if not plan.frontier_gap else f"is within {percent(plan.frontier_gap)} of a proved bound"
    notes = [
        f"L = -lambda * gain ({goal.target}, {goal.normalise}) + (1 - lambda) * proxy loss in {plan.losses.unit}, "
        f"smaller is better; proxy loss: {plan.losses.caveat}",
        "ai-60 is the scheme of least proxy loss that reaches 60 % of the greatest saving in bytes moved; memory and "
        "latency likewise",
        f"the {goal.target} trade-off over all {len(plan.graph.layers)} layers {optimal}; {goal.target} gap: cost "
        "above a proved lower bound at the same proxy loss",
    ]
    misfits = [c.name for c in plan.candidates if c.estimate.fits is False]
    if misfits:
        notes.insert(0, f"does not fit the memory of {plan.hardware.name}: {', '.join(misfits)}")
    bounds = [c.name for c in plan.candidates if sum(c.estimate.uncalibrated.values()) > UNCALIBRATED_SHARE]
    if bounds:
        notes.insert(
            0,
            f"times that are in good part bounds, for want of kernel models, and look too fast beside the others: "
            f"{_some(bounds)}",
        )
    if plan.graph.keep_weights:
        notes.append(f"weights declared as kept: {', '.join(plan.graph.keep_weights)}")
    for name, calls in cost.calls.items():
        seconds = cost.seconds(calls)
        time = f", about {duration(seconds)}" if seconds is not None else ""
        notes.append(f"to evaluate: {name}: {calls} oracle calls of {cost.samples} samples{time}")
    timing = str(cost.probe) if isinstance(cost.probe, Probe) else f"not timed: {cost.probe}"
    notes.append(f"speed of an evaluation: {timing}")
    return notes


def duration(seconds: float) -> str:
    """Format seconds as people say them: seconds, minutes or hours."""
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min")):
        if seconds < limit:
            return f"{number(seconds / unit)} {name}"
    return f"{number(seconds / 3600)} h"


_DROPPED_FORMATS = {"fp4": 2, "fp8": 3, "bf16": 4}


def specs_report(specs: Iterable[HardwareSpec]) -> Report:
    """Show the catalogue: one row for each machine, by vendor, kind and name."""
    formats = ("fp32", "bf16", "fp16", "fp8", "int8", "int4", "fp4")
    rows = [
        {
            "name": spec.name,
            "title": spec.title,
            "vendor": spec.vendor,
            "kind": spec.kind,
            **{f: spec.ceiling(f) if f in spec.compute else None for f in formats},
            "bandwidth_bytes_per_s": spec.bandwidth(),
            "memory_bytes": spec.memory[0].capacity_bytes.value if spec.memory[0].capacity_bytes else None,
            "aliases": ", ".join(spec.aliases),
        }
        for spec in sorted(specs, key=lambda s: (s.vendor.lower(), s.kind, s.name))
    ]
    columns = (
        Column("name", "name"),
        Column("title", "machine", drop=5),
        *(Column(f, f, si, right=True, drop=_DROPPED_FORMATS.get(f, 0)) for f in formats),
        Column("bandwidth_bytes_per_s", "memory", lambda v: si(v, "B/s"), right=True),
        Column("memory_bytes", "size", _bytes, right=True),
        Column("aliases", "also", drop=1),
    )
    headline = (
        f"{len(rows)} machines; dense FLOP/s or OP/s for each format (1 MAC = 2), bandwidth of the outermost memory"
    )
    return Report(headline, columns, rows, [], {"schema_version": 1, "machines": rows})


def spec_report(spec: HardwareSpec) -> Report:
    """Show one machine: one row for each number, with its source."""
    rows = []

    def add(field: str, unit: str, quantity: Any) -> None:
        if quantity is not None:
            rows.append(
                {
                    "field": field,
                    "value": quantity.value,
                    "unit": unit,
                    "kind": quantity.kind,
                    "source": quantity.source,
                }
            )
            add(f"{field}.sustained", unit, getattr(quantity, "sustained", None))

    for fmt, ceiling in spec.compute.items():
        add(f"compute.{fmt}", "FLOP/s" if fmt.startswith(("fp", "bf", "tf")) else "OP/s", ceiling)
    for level in spec.memory:
        add(f"memory.{level.name}.bandwidth", "B/s", level.bandwidth_bytes_per_s)
        add(f"memory.{level.name}.capacity", "B", level.capacity_bytes)
    add("launch_overhead", "s", spec.launch_overhead_s)
    add("tdp", "W", spec.tdp_w)
    add("price", "USD/h", spec.price_usd_per_hour)
    rows += [_kernel_row(model) for model in spec.kernels]
    columns = (
        Column("field", "field"),
        Column("value", "value", lambda v: f"{v:.4g}", right=True),
        Column("unit", "unit"),
        Column("kind", "kind"),
        Column("source", "source"),
    )
    notes = [spec.note] if spec.note else []
    notes += [f"{name} computes all floating-point layers of a network in one format" for name in spec.one_float_format]
    data = {"schema_version": 1, **spec.model_dump(mode="json")}
    return Report(f"{spec.name}: {spec.title} ({spec.architecture})", columns, rows, notes, data)


def _kernel_row(model: KernelModel) -> dict[str, Any]:
    rate, error = model.form.rate_flops_per_s, model.error
    return {
        "field": f"kernels.{model.runtime}.{model.label}",
        "value": rate or model.form.bandwidth_bytes_per_s,
        "unit": "FLOP/s" if rate else "B/s",
        "kind": model.kind,
        "source": f"median error {percent(error.median_ape)} on {error.rows} rows ({error.method}); {model.source}",
    }


def zoo_report() -> Report:
    """Show what ships with aiq: one row for each network, then for each configuration of a known model."""
    from roofline.frontends._shipped import shipped, shipped_names

    networks = [
        {
            "name": entry.name,
            "input": "1," + ",".join(map(str, entry.input_shape)),
            "weights": "trained" if entry.weights else "random",
            "keep_weights": ", ".join(entry.keep),
            "summary": entry.summary,
        }
        for entry in map(zoo.get, zoo.names())
    ]
    known = map(shipped, shipped_names())
    configs = [
        {
            "name": found.name,
            "input": "",
            "weights": "none",
            "keep_weights": "",
            "summary": f"{found.title}: its configuration, {si(found.parameters)} parameters.",
            "parameters": found.parameters,
            "source": found.source,
            "checked": found.checked,
        }
        for found in known
    ]
    columns = (
        Column("name", "name"),
        Column("input", "input"),
        Column("weights", "weights"),
        Column("keep_weights", "weights kept", drop=1),
        Column("summary", "summary", drop=2),
    )
    headline = (
        f"{len(networks)} networks, and {len(configs)} configurations of known models without weights; your own: "
        "path/to/file.py:callable, package.module:callable, FILE.onnx or hf:FOLDER"
    )
    data = {"schema_version": 1, "networks": networks, "configurations": configs}
    return Report(headline, columns, [*networks, *configs], [], data)
