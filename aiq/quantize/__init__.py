"""The numerics of quantization, simulated in PyTorch: values are rounded to a format and returned as floats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiq.quantize._fake import fake_quantize, noise_to_signal
    from aiq.quantize._recipe import Recipe
    from aiq.quantize._reuse import Evaluator
    from aiq.quantize._simulate import Simulator
    from aiq.quantize._weights import QuantizedWeight, quantize_weight

__all__ = ["Evaluator", "QuantizedWeight", "Recipe", "Simulator", "fake_quantize", "noise_to_signal", "quantize_weight"]

_HOMES = {
    "Evaluator": "_reuse",
    "QuantizedWeight": "_weights",
    "Recipe": "_recipe",
    "Simulator": "_simulate",
    "fake_quantize": "_fake",
    "noise_to_signal": "_fake",
    "quantize_weight": "_weights",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"aiq.quantize.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'aiq.quantize' has no attribute {name!r}")
