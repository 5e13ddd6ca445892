"""Amounts as people write them on the command line, and what is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aiq._options import read_bytes, read_drop, read_seconds
from roofline.errors import AIQError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("120000", 120000.0),
        ("1.5k", 1500.0),
        ("2 MB", 2e6),
        ("3GB", 3e9),
        ("64KiB", 65536.0),
        ("1Mi", 1048576.0),
        ("1e3", 1e3),
        ("7B", 7.0),
        (".5k", 500.0),
    ],
)
def test_amounts_of_memory(text: str, value: float) -> None:
    assert read_bytes("--max-memory", text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("2ms", 2e-3), ("15us", 15e-6), ("0.25", 0.25), ("3 s", 3.0), ("7µs", 7e-6)]
)
def test_times(text: str, value: float) -> None:
    assert read_seconds("--max-latency", text) == pytest.approx(value, rel=1e-15)


def test_drops_are_points_or_shares() -> None:
    assert read_drop("--max-drop", "0.5") == (0.5, None)
    assert read_drop("--max-drop", "1%") == (None, 0.01)
    assert read_drop("--max-drop", "2.5 %") == (None, 0.025)


@pytest.mark.parametrize("read", [read_bytes, read_seconds, read_drop])
@pytest.mark.parametrize("text", ["", "abc", "-1", "1 2", "nan", "inf", "1e999", "k", "1kk", "1%%", "١"])
def test_what_is_no_amount(read: Callable[[str, str], Any], text: str) -> None:
    with pytest.raises(AIQError, match=r"^--option takes a number of .*Next: write for instance --option "):
        read("--option", text)
