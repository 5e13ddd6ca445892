"""Which compute ceiling a layer runs on, and why: storage and compute precision are two things."""

from __future__ import annotations

from typing import NamedTuple

from hardware_specs import HardwareSpec
from roofline.errors import MissingCeilingError
from roofline.precision import Precision

# Each format and the wider ones that hold its values exactly, nearest first.
_WIDER: dict[str, tuple[str, ...]] = {
    "int4": ("int8", "fp16", "bf16", "fp32"),
    "int8": ("fp16", "bf16", "fp32"),
    "fp8": ("fp16", "bf16", "fp32"),
    "fp16": ("fp32",),
    "bf16": ("fp32",),
    "tf32": ("fp32",),
    "fp32": (),
    "fp64": (),
}
_FLOATS = ("fp8", "fp16", "bf16", "tf32", "fp32", "fp64")
_VECTOR_ORDER = ("fp32", "bf16", "fp16")


class CeilingChoice(NamedTuple):
    """The ceiling a layer runs on: format, dense FLOP/s, and the reason where it is not the stored format's own."""

    format: str
    flops_per_s: float
    reason: str


def choose_ceiling(
    weights: Precision, activations: Precision, hardware: HardwareSpec, *, first: str = "weights"
) -> CeilingChoice:
    """Decide the compute format of a matrix-like layer; ``first`` is what the reason calls the first operand.

    1. Operands: two integers compute at the wider width (≤ 4 bits: int4, ≤ 8: int8, above: fp32); an integer beside a
       float is widened to the float (weight-only formats lower bytes, not FLOP/s); two floats meet at the wider.
    2. Kernels: without a ceiling for that format, or with a faster one for a wider format that holds its values
       exactly, the layer is widened. This is a bound: no kernel is assumed slower than a wider one.

    Raises:
        MissingCeilingError: Neither the format nor a wider one has a ceiling on this machine; the text lists those it
            has.
    """
    (wanted, *wider), reason = operand_formats(weights, activations, first=first)
    candidates = [f for f in (wanted, *wider) if f in hardware.compute]
    if not candidates:
        raise MissingCeilingError(
            f"{hardware.name} states no {wanted} ceiling and none that could stand in "
            f"({', '.join(wider) or 'no wider format'}): it has "
            f"{', '.join(hardware.compute)}. Next: choose one of these formats, or add "
            f"[compute.{wanted}] with its source."
        )
    best = max(candidates, key=hardware.ceiling)
    if best != wanted:
        why = "no" if wanted not in hardware.compute else "no faster"
        fallback = f"{wanted} is widened to {best}: {why} {wanted} ceiling on {hardware.name}"
        reason = f"{reason}; {fallback}" if reason else fallback
    return CeilingChoice(best, hardware.ceiling(best), reason)


def operand_formats(
    weights: Precision, activations: Precision, *, first: str = "weights"
) -> tuple[tuple[str, ...], str]:
    """Return the format that two operands meet in and the wider ones that hold its values, and why it is not theirs."""
    wanted, reason = _operand_format(weights, activations, first)
    return (wanted, *_WIDER[wanted]), reason


def vector_ceiling(hardware: HardwareSpec) -> CeilingChoice:
    """Return the ceiling of element-wise work and reductions, which run on the vector units: FP32's where it is stated.

    Raises:
        MissingCeilingError: The machine states none of fp32, bf16 and fp16.
    """
    for fmt in _VECTOR_ORDER:
        if fmt in hardware.compute:
            return CeilingChoice(fmt, hardware.ceiling(fmt), "")
    raise MissingCeilingError(
        f"{hardware.name} states no ceiling for element-wise work ({', '.join(_VECTOR_ORDER)}): it has "
        f"{', '.join(hardware.compute)}. Next: add [compute.fp32] with its source."
    )


def _operand_format(weights: Precision, activations: Precision, what: str) -> tuple[str, str]:
    if not weights.is_float and not activations.is_float:
        width = max(weights.bits, activations.bits)
        if width > 8:
            return "fp32", f"int{width} computes in fp32: no ceiling is known for integers above 8 bits"
        wanted = "int4" if width <= 4 else "int8"
        return wanted, _widening(weights, activations, wanted)
    if weights.is_float and activations.is_float:
        first, second = _family(weights), _family(activations)
        if first == second:
            return first, ""
        if {first, second} == {"fp16", "bf16"}:
            return "fp32", "fp16 and bf16 meet in fp32"
        wider = max((first, second), key=_FLOATS.index)
        return wider, f"{first} {what} and {second} activations compute in {wider}"
    integer, floating, side = (
        (weights, activations, what) if activations.is_float else (activations, weights, "activations")
    )
    return _family(floating), f"{side} {integer.name} are widened to {floating.name}, the other operand's format"


def _widening(weights: Precision, activations: Precision, wanted: str) -> str:
    if weights.name == activations.name:
        return "" if weights.name == wanted else f"{weights.name} is widened to {wanted}"
    narrow = [p.name for p in (weights, activations) if p.name != wanted]
    if len(narrow) == 1:
        return f"{narrow[0]} is widened to {wanted}, the other operand's format"
    return f"{' and '.join(narrow)} are widened to {wanted}"


def _family(precision: Precision) -> str:
    return "fp8" if precision.name.startswith("fp8") else precision.name
