"""What an experiment hands back, and the page, tables and figures that are written of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiq import _paper
from aiq.report import Column, Report, render
from roofline._plot_canvas import image
from roofline.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPRODUCE_SCHEMA_VERSION = 1
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        title: Its heading.
        columns: Its columns.
        rows: Values by column.
        note: What a reader must know beside it; Markdown.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Record]
    note: str = ""


@dataclass(frozen=True)
class Drawing:
    """A figure of the page.

    Attributes:
        name: Its file name without suffix.
        caption: What it shows.
        draw: Draws it.
    """

    name: str
    caption: str
    draw: Callable[[], Figure] = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """What an experiment found.

    Attributes:
        experiment: Its name.
        title: Heading of the page.
        headline: One sentence for a hurried reader.
        tables: The first is the one that the command shows.
        records: Flat rows by file name without suffix; the first is the command's CSV.
        drawings: The figures.
        differences: Where this differs from the paper and why, one sentence each, computed from the results.
        notes: What the figures rest on, one sentence each.
        setup: The same as plain data.
        measured: Evaluations that this run ran.
        recalled: Evaluations that the cache answered.
        interrupted: Whether Ctrl-C cut it short; what was measured by then is here.
        failure: Why the command fails although there are results; empty where it does not.
    """

    experiment: str
    title: str
    headline: str
    tables: Sequence[Table]
    records: Mapping[str, Sequence[Record]]
    drawings: Sequence[Drawing]
    differences: Sequence[str]
    notes: Sequence[str]
    setup: Mapping[str, Any]
    measured: int
    recalled: int
    interrupted: bool = False
    failure: str = ""


@dataclass(frozen=True)
class Reproduction:
    """What was reproduced, and where it was written.

    Attributes:
        outcome: What was found.
        files: What was written, the page first.
    """

    outcome: Outcome
    files: tuple[Path, ...]

    def report(self, fmt: str) -> Report:
        """Return the report for an output format: the table for people, the flat rows for ``csv``."""
        found = self.outcome
        main = found.tables[0]
        columns, rows = main.columns, main.rows
        if fmt == "csv":
            rows = next(iter(found.records.values()))
            columns = [Column(key, key) for key in rows[0]]
        counts = f"{found.measured} evaluations in this run, {found.recalled} from the cache"
        data = {
            "schema_version": REPRODUCE_SCHEMA_VERSION,
            "experiment": found.experiment,
            "headline": found.headline,
            **found.setup,
            **{name: [dict(row) for row in rows] for name, rows in found.records.items()},
            "differences": list(found.differences),
            "notes": list(found.notes),
            "evaluations": {"measured": found.measured, "cached": found.recalled},
            "files": [str(path) for path in self.files],
        }
        return Report(found.headline, columns, rows, [*found.differences, *found.notes, counts], data)


def prepared(folder: Path) -> Path:
    """Return the folder, made where it is missing; refused before any work where it cannot be written.

    Raises:
        InputError: It cannot be made or written to.
    """
    trial = folder / ".aiq"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to folder {str(folder)!r}: {error.strerror}. Next: choose another with --out."
        ) from None
    return folder


def write(found: Outcome, folder: Path) -> Reproduction:
    """Write the page, one CSV for each kind of record, and each figure as ``.svg`` and ``.png``.

    Raises:
        InputError: A file cannot be written.
    """
    files: dict[str, bytes] = {f"{found.experiment}.md": _page(found).encode()}
    files |= {f"{name}.csv": _csv(rows).encode() for name, rows in found.records.items()}
    for drawing in found.drawings:
        figure = drawing.draw()
        files |= {f"{drawing.name}.{kind}": image(figure, kind) for kind in ("svg", "png")}
    for name, content in files.items():
        try:
            (folder / name).write_bytes(content)
        except OSError as error:
            raise InputError(
                f"cannot write {str(folder / name)!r}: {error.strerror}. Next: make room, then run again: everything "
                "measured is in the cache."
            ) from None
    return Reproduction(found, tuple(folder / name for name in files))


def _page(found: Outcome) -> str:
    parts = [f"# {found.title}", found.headline + "."]
    for table in found.tables:
        shown = render(Report(table.note, table.columns, table.rows, (), {}), "md").strip()
        parts += [f"## {table.title}", shown]
    parts += [f"![{drawing.caption}]({drawing.name}.png)\n\n*{drawing.caption}*" for drawing in found.drawings]
    parts += ["## Where we differ and why", _bullets(found.differences)]
    parts += ["## What this rests on", _bullets(found.notes)]
    parts += [f"Paper: {_paper.TITLE}. Tables as CSV: {', '.join(f'`{name}.csv`' for name in found.records)}."]
    return "\n\n".join(parts) + "\n"


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"* {_opened(sentence)}." for sentence in sentences)


def _opened(sentence: str) -> str:
    """Start a sentence with a capital, unless its first word is a name such as ``resnet20``."""
    return sentence[:1].upper() + sentence[1:] if sentence.split(maxsplit=1)[0].strip(",:").isalpha() else sentence


def _csv(rows: Sequence[Record]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
