"""What people see of a sweep: the answers in words, one row for each combination, and what was assumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiq._whatif import Sweep
from aiq._whatif_answers import Answers, Goal
from aiq._whatif_schemes import Choices
from aiq._whatif_words import sentences
from aiq.report import Column, Report
from roofline.units import number, si

SCHEMA_VERSION = 1
_SHOWN_SHARE = 0.005
_BEST_FIRST = {"throughput": "throughput_per_s", "latency": "latency_s", "cost": "cost_per_million"}


def whatif_report(
    sweep: Sweep,
    answers: Answers,
    choices: Choices | None = None,
    *,
    best_first: Goal | None = None,
    most_rows: int | None = None,
) -> Report:
    """Show a sweep.

    Args:
        sweep: From :func:`aiq._whatif.whatif`.
        answers: From :func:`aiq._whatif_answers.answer`.
        choices: The best scheme for each machine, where that was asked.
        best_first: What orders the rows; by default the order of the sweep. Rows that cannot run come last.
        most_rows: Rows shown; a note counts the others, and the data have all.
    """
    rows = list(sweep.rows())
    if best_first is not None:
        rows.sort(key=lambda row: _rank(row, best_first))
    shown = [{**row, "bounds": _bounds(row)} for row in rows[:most_rows]]
    notes = [*_left_out(len(rows) - len(shown)), *_notes(sweep)]
    words = sentences(sweep, answers, choices)
    data = {
        "schema_version": SCHEMA_VERSION,
        "model": sweep.model,
        "traffic": sweep.traffic,
        "unit": sweep.unit.name,
        "machines": [
            {
                "name": m.label,
                "base": m.base,
                "title": m.spec.title,
                "rates": m.spec.rates_option,
                "price_usd_per_hour": m.price_per_hour,
            }
            for m in sweep.machines
        ],
        "words": words,
        "answers": answers.to_dict(),
        "best_schemes": choices.to_dict() if choices else None,
        "rows": rows,
        "notes": notes,
    }
    return Report("\n".join([_headline(sweep), *(f"- {line}" for line in words)]), _columns(sweep), shown, notes, data)


def _rank(row: dict[str, Any], goal: Goal) -> tuple[bool, float]:
    value = row[_BEST_FIRST[goal]]
    return not row["runs"] or value is None, (-value if goal == "throughput" else value) if value is not None else 0.0


def _headline(sweep: Sweep) -> str:
    h, s, c, b = sweep.shape
    runs = int(sweep.runs.sum())
    counts = ((h, "machine"), (s, "scheme"), (c if sweep.contexts[0] else 0, "context"), (b, "batch"))
    words = " x ".join(f"{n} {what}{'' if n == 1 else 'es' if what == 'batch' else 's'}" for n, what in counts if n)
    return f"{sweep.model}, {sweep.traffic} traffic: {words}, {runs} of {h * s * c * b} combinations can run"


def _columns(sweep: Sweep) -> list[Column]:
    rate = f"{sweep.unit.name}/s"
    found = [Column("hardware", "hardware"), Column("scheme", "scheme")]
    if sweep.contexts != (None,):
        found.append(Column("context", "context", right=True))
    found += [
        Column("batch", "batch", right=True),
        Column("latency_s", "latency", lambda v: si(v, "s"), right=True),
        Column("throughput_per_s", rate, si, right=True),
        Column("bounds", "bound by"),
        Column("arithmetic_intensity", "FLOP/B", number, right=True, drop=2),
        Column("memory_bytes", "memory", lambda v: si(v, "B"), right=True, drop=3),
        Column("fits", "fits", lambda v: "yes" if v else "no", drop=1),
    ]
    if any(machine.price_per_hour for machine in sweep.machines):
        found.append(Column("cost_per_million", f"USD/M {sweep.unit.name}", lambda v: f"{v:.3g}", right=True))
    return [*found, Column("reason", "cannot run because", lambda v: v or "–")]


def _bounds(row: dict[str, Any]) -> str | None:
    if row["bound_shares"] is None:
        return None
    ordered = sorted(row["bound_shares"].items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in ordered if share >= _SHOWN_SHARE)


def _left_out(count: int) -> Iterator[str]:
    if count > 0:
        yield f"{count} more rows are not shown: --format csv or json has all"


def _notes(sweep: Sweep) -> Iterator[str]:
    labels: dict[str, list[str]] = {}
    for machine in sweep.machines:
        labels.setdefault(machine.spec.time_label, []).append(machine.label)
    for label, names in labels.items():
        who = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        yield f"time is {label}: {who}" if len(labels) > 1 else f"time is {label}, not a measurement"
    yield "bound by: shares of the time by the resource that binds each row; 1 MAC = 2 FLOP"
    yield "memory: weights, other parameters, key-value cache and the most that is alive of activations"
    if any(machine.price_per_hour for machine in sweep.machines):
        listed = [
            m.label
            for m in sweep.machines
            if m.spec.price_usd_per_hour and m.price_per_hour == m.spec.price_usd_per_hour.value
        ]
        rest = f"; as listed in the catalogue: {', '.join(listed)}" if listed else ""
        yield f"cost: USD an hour x time at full use, nothing for idling{rest}"
    if any(machine.label != machine.base for machine in sweep.machines):
        yield "a changed machine costs what the one that it was made from does, unless --price says otherwise"
    graph = sweep.graphs.grid(sweep.contexts[0]).graph
    yield from graph.notes if sweep.contexts == (None,) else ()
    for target, entry in graph.unknown.items():
        yield f"no formula for {target} ({entry['count']} calls): priced by its {si(entry['bytes'], 'B')} alone"
