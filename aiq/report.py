"""Reports: typed rows in, a table, JSON, CSV or Markdown text out. Nothing here prints."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roofline.errors import InputError

FORMATS = ("table", "json", "csv", "md")
_PIPED_WIDTH = 10_000
_COLUMN_GAP = 3


@dataclass(frozen=True)
class Column:
    """One column: the key of the raw value, the heading for people, and how people read the value.

    Where a terminal is too narrow, columns are left out by ascending ``drop``; those with 0 always stay.
    """

    key: str
    title: str
    show: Callable[[Any], str] = str
    right: bool = False
    drop: int = 0


@dataclass(frozen=True)
class Report:
    """What every output format is made from.

    Attributes:
        headline: The one sentence that a hurried reader needs.
        columns: Columns of the table.
        rows: Raw values by column key, SI units.
        notes: Assumptions and caveats, one sentence each.
        data: The whole result as plain data, for JSON.
    """

    headline: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str]
    data: Mapping[str, Any]


def render(report: Report, fmt: str, *, terminal_width: int | None = None) -> str:
    """Return the report as text.

    Args:
        report: What to show.
        fmt: ``table``, ``json``, ``csv`` (raw SI values) or ``md``.
        terminal_width: Columns of the terminal; ``None`` when the text goes elsewhere: then rows are never cut.

    Raises:
        InputError: An unknown format.
    """
    if fmt == "json":
        return json.dumps(report.data, indent=2, allow_nan=False, ensure_ascii=False)
    if fmt == "csv":
        return _csv(report)
    if fmt == "md":
        return _markdown(report)
    if fmt == "table":
        return _table(report, terminal_width)
    raise InputError(f"unknown format {fmt!r}: known: {', '.join(FORMATS)}. Next: choose one.")


def _csv(report: Report) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([c.key for c in report.columns])
    writer.writerows([row.get(c.key) for c in report.columns] for row in report.rows)
    return out.getvalue().rstrip("\n")


def _cells(report: Report, row: Mapping[str, Any]) -> list[str]:
    values = ((column, row.get(column.key)) for column in report.columns)
    return ["–" if value is None else column.show(value) for column, value in values]


def _markdown(report: Report) -> str:
    escaped = [[cell.replace("|", r"\|") for cell in _cells(report, row)] for row in report.rows]
    lines = [
        report.headline,
        "",
        "| " + " | ".join(c.title for c in report.columns) + " |",
        "|" + "|".join("---:" if c.right else "---" for c in report.columns) + "|",
        *("| " + " | ".join(cells) + " |" for cells in escaped),
        "",
        *(f"* {note}" for note in report.notes),
    ]
    return "\n".join(lines).rstrip()


def _table(report: Report, width: int | None) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    cells = [_cells(report, row) for row in report.rows]
    shown = _fitting(report.columns, cells, width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index in shown:
        column = report.columns[index]
        table.add_column(column.title, justify="right" if column.right else "left", overflow="ellipsis", no_wrap=True)
    for row in cells:
        table.add_row(*(row[index] for index in shown))
    out = io.StringIO()
    console = Console(
        file=out, width=width or _PIPED_WIDTH, color_system=None, highlight=False, markup=False, emoji=False
    )
    console.print(report.headline)
    console.print()
    console.print(table)
    hidden = [c.title for index, c in enumerate(report.columns) if index not in shown]
    notes = [*report.notes, *([f"left out for width: {', '.join(hidden)}"] if hidden else [])]
    if notes:
        console.print()
    for note in notes:
        console.print(f"- {note}")
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _fitting(columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """Return the columns that fit, leaving out the least needed first."""
    shown = list(range(len(columns)))
    widths = [max([len(c.title), *(len(row[i]) for row in cells)]) for i, c in enumerate(columns)]
    while width and sum(widths[i] + _COLUMN_GAP for i in shown) - _COLUMN_GAP > width:
        spare = [i for i in shown if columns[i].drop]
        if not spare:
            break
        shown.remove(min(spare, key=lambda i: columns[i].drop))
    return shown


def check_writable(path: str | Path, suffixes: Sequence[str]) -> Path:
    """Return the path if a file of that kind can be written there; checked before any work is done.

    Raises:
        InputError: Another suffix, or a place that cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise InputError(
            f"cannot write {str(path)!r}: known suffixes: {', '.join(suffixes)}. Next: choose one of these."
        )
    try:
        existed = target.exists()
        with target.open("ab"):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write {str(path)!r}: {error.strerror}. Next: choose a folder that exists and is yours."
        ) from None
    if not existed:
        target.unlink(missing_ok=True)
    return target
