"""The formatter: SI prefixes, rounding carries, signs, zeros and the ends of the scale."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofline.units import number, percent, si

_POWERS = {"p": -12, "n": -9, "µ": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8.141e12, "8.14 TX"),
        (1, "1 X"),
        (10, "10 X"),
        (999, "999 X"),
        (1000, "1.00 kX"),
        (1001, "1.00 kX"),
        (1234, "1.23 kX"),
        (12_345, "12.3 kX"),
        (123_456, "123 kX"),
        (2.5, "2.50 X"),
        (25.25, "25.2 X"),
        (0.5, "500 mX"),
        (1e-3, "1.00 mX"),
        (1e-6, "1.00 µX"),
        (1e-9, "1.00 nX"),
        (1e-12, "1.00 pX"),
        (1.5e-7, "150 nX"),
        (1e3, "1.00 kX"),
        (1e6, "1.00 MX"),
        (1e9, "1.00 GX"),
        (1e12, "1.00 TX"),
        (1e15, "1.00 PX"),
        (1e18, "1.00 EX"),
    ],
)
def test_prefixes(value: float, text: str) -> None:
    assert si(value, "X") == text
    assert si(-value, "X") == f"-{text}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (999.4, "999 X"),
        (999.95, "1.00 kX"),
        (999_499, "999 kX"),
        (999_950, "1.00 MX"),
        (999_999, "1.00 MX"),
        (0.99996, "1.00 X"),
        (9.996, "10.0 X"),
        (99.96, "100 X"),
        (9_996, "10.0 kX"),
        (99_960, "100 kX"),
        (9.996e-7, "1.00 µX"),
    ],
)
def test_a_carry_keeps_three_digits(value: float, text: str) -> None:
    assert si(value, "X") == text
    assert si(-value, "X") == f"-{text}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 X"), (0.0, "0 X"), (-0.0, "0 X"), (math.inf, "–"), (-math.inf, "–"), (math.nan, "–")],
)
def test_zero_and_what_is_no_number(value: float, text: str) -> None:
    assert si(value, "X") == text


def test_without_a_unit_no_space_trails() -> None:
    assert [si(0), si(5), si(1500)] == ["0", "5", "1.50 k"]


@pytest.mark.parametrize("value", [1e-300, 1e24, 1e300, -1e300])
def test_beyond_the_prefixes_the_text_stays_short(value: float) -> None:
    text = si(value, "s")
    assert len(text) <= 16
    assert float(text.split()[0]) != 0


@given(st.floats(1e-12, 9.99e20), st.sampled_from([1, -1]))
def test_text_reads_back_within_half_a_unit_of_the_last_digit(value: float, sign: int) -> None:
    text = si(sign * value, "B")
    match = re.fullmatch(r"(-?)(\d+(?:\.\d+)?) ([pnµmkMGTPE]?)B", text)
    assert match, text
    assert (match[1] == "-") == (sign < 0)
    assert float(match[2]) * 10.0 ** _POWERS[match[3]] == pytest.approx(value, rel=0.00501)
    if 1e-12 <= value < 9.99e17:
        assert float(match[2]) < 1000
        digits = match[2].replace(".", "").lstrip("0")
        assert len(digits) <= 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1, "1.00"),
        (26.4837, "26.5"),
        (966.2, "966"),
        (20250.4, "20250"),
        (0.0424, "0.0424"),
        (0.00182, "0.00182"),
        (1.82e-4, "1.82e-04"),
        (2.5e7, "2.50e+07"),
        (9.996, "10.0"),
        (0.9999, "1.00"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def test_number_takes_digits() -> None:
    assert number(26.4837, digits=4) == "26.48"


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_number_writes_a_dash_for_what_is_no_number(value: float) -> None:
    assert number(value) == "–"


@pytest.mark.parametrize(("share", "text"), [(0, "0.0 %"), (1, "100.0 %"), (0.0434, "4.3 %"), (0.9996, "100.0 %")])
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text
