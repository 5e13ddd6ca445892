"""Rows that repeat are shown once, and nothing of them is lost."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from aiq._repeats import collapsed
from tests.commands import run


def row(name: str, latency_s: float = 1.0, **others: Any) -> dict[str, Any]:
    return {"name": name, "latency_s": latency_s, "share": 0.25, "members": [name], **others}


def test_equal_rows_of_a_deep_network_are_one() -> None:
    rows = [row("head"), *(row(f"layers.{i}.up") for i in range(90)), *(row(f"layers.{i}.down") for i in range(10))]
    rows[5]["latency_s"] = 2.0
    found = collapsed(rows)
    assert [(each["name"], each.get("times")) for each in found] == [
        ("head", None),
        ("layers.*.up", 89),
        ("layers.4.up", None),
        ("layers.*.down", 10),
    ]
    assert found[1]["share"] == pytest.approx(89 * 0.25)
    assert sum(each["share"] for each in found) == pytest.approx(sum(each["share"] for each in rows))


def test_few_rows_and_few_repeats_stay() -> None:
    few = [row(f"layers.{i}.up") for i in range(100)]
    assert collapsed(few) == few
    apart = [row(f"part{i // 7}.{i % 7}.w1", latency_s=float(i // 7)) for i in range(105)]
    assert collapsed(apart) == apart


def test_numbers_inside_words_are_no_numbers_of_layers() -> None:
    rows = [row(f"layers.{i}.fc{j}") for i in range(60) for j in (1, 2)]
    assert [each["name"] for each in collapsed(rows)] == ["layers.*.fc1", "layers.*.fc2"]


def test_only_the_table_is_shortened() -> None:
    command = ("roofline", "llama-3.2-1b", "--phase", "decode", "--context", "100", "--hardware", "l4", "--format")
    table, data, lines = (run(*command, fmt).out for fmt in ("table", "json", "csv"))
    assert "model.layers.*.self_attn.q_proj" in table
    assert "rows that repeat are one" in table
    names = [layer["name"] for layer in json.loads(data)["layers"]]
    assert "model.layers.15.self_attn.q_proj" in names
    assert [line["name"] for line in csv.DictReader(io.StringIO(lines))] == names
