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
    power = min(max(3 * floor(log10(abs(value)) / 3), -12), 18)
    scaled = value / 10.0**power
    if float(f"{abs(scaled):.{digits}g}") >= 1000 and power < 18:
        power += 3
        scaled = value / 10.0**power
    whole = value == int(value) and power == 0
    text = f"{scaled:.0f}" if whole and abs(scaled) < 1000 else _significant(scaled, digits)
    return f"{text} {_PREFIXES[power]}{unit}".rstrip()


def _significant(value: float, digits: int) -> str:
    decimals = max(digits - 1 - floor(log10(abs(value))), 0)
    return f"{value:.{decimals}f}"


def percent(share: float) -> str:
    """Format a share between 0 and 1 as a percentage."""
    return f"{100 * share:.1f} %"


def number(value: float, *, digits: int = 3) -> str:
    """Format a plain number to a few significant digits, without exponent in the usual range."""
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.{digits - 1}e}"
    return _significant(value, digits) if value else "0"
