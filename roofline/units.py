"""The one formatter: SI numbers in, short text for people out."""

from __future__ import annotations

from math import floor, isfinite, log10

_PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}


def si(value: float, unit: str = "", *, digits: int = 3) -> str:
    """Format with a decimal SI prefix: ``si(8.141e12, "FLOP/s") == "8.14 TFLOP/s"``."""
    if not isfinite(value):
        return "–"
    if value == 0:
        return f"0 {unit}".rstrip()
    rounded = float(f"{value:.{digits - 1}e}")
    power = 3 * floor(log10(abs(rounded)) / 3)
    if power not in _PREFIXES:
        return f"{value:.{digits - 1}e} {unit}".rstrip()
    text = f"{value:.0f}" if value == int(value) and power == 0 else _significant(value / 10.0**power, digits)
    return f"{text} {_PREFIXES[power]}{unit}".rstrip()


def _significant(value: float, digits: int) -> str:
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = max(digits - 1 - floor(log10(abs(rounded))), 0)
    return f"{value:.{decimals}f}"


def percent(share: float) -> str:
    """Format a share between 0 and 1 as a percentage."""
    return f"{100 * share:.1f} %"


def number(value: float, *, digits: int = 3) -> str:
    """Format a plain number to a few significant digits, without exponent in the usual range."""
    if not isfinite(value):
        return "–"
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.{digits - 1}e}"
    return _significant(value, digits) if value else "0"
