"""The numerics of quantization, simulated in PyTorch: values are rounded to a format and returned as floats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiq.quantize._fake import fake_quantize, noise_to_signal

__all__ = ["fake_quantize", "noise_to_signal"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from aiq.quantize import _fake

        return getattr(_fake, name)
    raise AttributeError(f"module 'aiq.quantize' has no attribute {name!r}")
