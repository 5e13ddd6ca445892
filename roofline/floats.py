"""What runs on a runtime that computes all floating-point layers of a network in one format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from roofline.precision import FLOAT_BITS, LayerPrecision, Precision

# A network that has both is taken to compute in the last of them.
HALVES = ("fp16", "bf16")
_HALF_BITS = 16


def float_kind(formats: LayerPrecision) -> str:
    """Return ``fp16`` or ``bf16`` where a layer's activations are that, ``wide`` where they are wider or kept, else ''.

    Layers with activations of 8 bits or less, or integers, have no part in the one format.
    """
    activations = formats.activations
    if activations is None or (activations.is_float and activations.bits > _HALF_BITS):
        return "wide"
    return activations.name if activations.name in HALVES else ""


def common_half(layers: Iterable[LayerPrecision]) -> Precision | None:
    """Return the 16-bit float that a network computes in whose layers have these formats; ``None`` without any."""
    found = {float_kind(formats) for formats in layers}
    name = next((name for name in reversed(HALVES) if name in found), None)
    return None if name is None else Precision(name, FLOAT_BITS[name])


def in_half(formats: LayerPrecision, half: Precision) -> LayerPrecision:
    """Return what a layer runs in where the network computes in ``half``: floating-point activations become it.

    Their weights do too, except for narrower ones, which are widened to it as they are read. Other layers stay.
    """
    if not float_kind(formats):
        return formats
    weights = formats.weights
    narrow = weights is not None and not (weights.is_float and weights.bits >= _HALF_BITS)
    return replace(formats, weights=weights if narrow else half, activations=half)


def families(options: Sequence[LayerPrecision]) -> tuple[tuple[int, ...], ...]:
    """Return which options one scheme may hold if it is to run as it is written: those of one float, and all others."""
    kinds = [float_kind(option) for option in options]
    distinct = list(dict.fromkeys(filter(None, kinds))) or [""]
    return tuple(tuple(k for k, kind in enumerate(kinds) if kind in {"", each}) for each in distinct)
