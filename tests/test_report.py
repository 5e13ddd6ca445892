"""Rendering: one report in four formats, raw where machines read, and files that can be written."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from aiq.report import FORMATS, Column, Report, check_writable, render
from roofline.errors import InputError
from roofline.units import si

COLUMNS = (
    Column("name", "name"),
    Column("seconds", "latency", lambda v: si(v, "s"), right=True),
    Column("note", "note"),
)
ROWS: tuple[dict[str, Any], ...] = (
    {"name": "conv1", "seconds": 1.5e-6, "note": None, "hidden": 1},
    {"name": 'a|b, "c"', "seconds": 0.0, "note": "[bold]x[/bold] :smile: *y*"},
    {"name": "layer2.0.µ", "seconds": 1234.5},
)
REPORT = Report(
    "Three rows.", COLUMNS, ROWS, ("a note", "another | note"), {"schema_version": 1, "rows": [1, 2.5e-7, None]}
)

TABLE = """\
Three rows.

name         latency   note
─────────────────────────────────────────────────
conv1        1.50 µs   –
a|b, "c"         0 s   [bold]x[/bold] :smile: *y*
layer2.0.µ   1.23 ks   –

- a note
- another | note"""

MARKDOWN = """\
Three rows.

| name | latency | note |
|---|---:|---|
| conv1 | 1.50 µs | – |
| a\\|b, "c" | 0 s | [bold]x[/bold] :smile: *y* |
| layer2.0.µ | 1.23 ks | – |

* a note
* another | note"""

CSV = """\
name,seconds,note
conv1,1.5e-06,
"a|b, ""c""\",0.0,[bold]x[/bold] :smile: *y*
layer2.0.µ,1234.5,"""


@pytest.mark.parametrize(("fmt", "text"), [("table", TABLE), ("md", MARKDOWN), ("csv", CSV)])
def test_golden(fmt: str, text: str) -> None:
    assert render(REPORT, fmt) == text


def test_json_is_the_data_and_nothing_else() -> None:
    assert json.loads(render(REPORT, "json")) == REPORT.data


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_never_holds_what_json_has_not(value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        render(Report("", COLUMNS, (), (), {"x": value}), "json")


def test_csv_reads_back_raw() -> None:
    rows = list(csv.DictReader(io.StringIO(render(REPORT, "csv"))))
    assert [row["name"] for row in rows] == [row["name"] for row in ROWS]
    assert [float(row["seconds"]) for row in rows] == [1.5e-6, 0.0, 1234.5]


def test_markdown_rows_have_equal_cells() -> None:
    table = [line for line in render(REPORT, "md").splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {len(COLUMNS) + 1}


def test_a_piped_table_is_never_cut() -> None:
    long = "x" * 500
    report = Report(long, COLUMNS, [{"name": long, "seconds": 1.0, "note": long}], [long], {})
    text = render(report, "table")
    assert "…" not in text
    assert text.count(long) == 4
    assert len(text.splitlines()) == 7


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_table_in_a_terminal_fits_it(width: int) -> None:
    columns = [Column("name", "name"), *(Column(f"c{i}", f"column {i}", si, right=True) for i in range(3))]
    rows = [{"name": "layer1.0.conv1", "c0": 1.5e6, "c1": 2.5e6, "c2": 3.5e6}]
    lines = render(Report("word " * 50, columns, rows, ["word " * 50], {}), "table", terminal_width=width).splitlines()
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("fmt", FORMATS)
def test_no_escape_codes_and_no_trailing_space(fmt: str) -> None:
    text = render(REPORT, fmt, terminal_width=None if fmt != "table" else 100)
    assert "\x1b" not in text
    assert not re.search(r"[ \t]+$", text, re.MULTILINE)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_report_without_rows_or_notes(fmt: str) -> None:
    text = render(Report("Nothing.", COLUMNS, (), (), {"rows": []}), fmt)
    assert text
    assert text == text.rstrip()


def test_unknown_format() -> None:
    with pytest.raises(InputError) as caught:
        render(REPORT, "xml")
    assert str(caught.value) == "unknown format 'xml': known: table, json, csv, md. Next: choose one."


@pytest.mark.parametrize("name", ["figure.svg", "figure.PNG", "with space.svg"])
def test_writable_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    assert check_writable(tmp_path / name, (".svg", ".png")) == tmp_path / name
    assert list(tmp_path.iterdir()) == []


def test_writable_keeps_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "figure.svg"
    path.write_text("old")
    check_writable(str(path), (".svg",))
    assert path.read_text() == "old"


@pytest.mark.parametrize("name", ["figure.pdf", "figure", "svg", ".svg", "figure.svg.txt"])
def test_another_suffix(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    with pytest.raises(InputError) as caught:
        check_writable(path, (".svg", ".png"))
    assert str(caught.value) == f"cannot write {path!r}: known suffixes: .svg, .png. Next: choose one of these."


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing/figure.svg", "No such file or directory"),
        ("folder.svg", "Is a directory"),
        ("file.txt/figure.svg", "Not a directory"),
        ("x" * 300 + ".svg", "File name too long"),
    ],
)
def test_a_place_that_cannot_be_written(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder.svg").mkdir()
    (tmp_path / "file.txt").touch()
    path = str(tmp_path / name)
    with pytest.raises(InputError) as caught:
        check_writable(path, (".svg", ".png"))
    assert str(caught.value) == f"cannot write {path!r}: {reason}. Next: choose a folder that exists and is yours."
