"""Recipes: how the values of a quantized layer are found. They cost accuracy and evaluation time, never bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from roofline import Precision
from roofline.errors import InputError

_FEW_BITS = 4
_WORDS: dict[str, tuple[str, object]] = {
    "nearest": ("rounding", "nearest"),
    "gptq": ("rounding", "gptq"),
    "max": ("clip", "max"),
    "mse": ("clip", "mse"),
    "percentile": ("clip", "percentile"),
    "channel": ("per_tensor", False),
    "tensor": ("per_tensor", True),
    "bias": ("bias_correction", True),
    "nobias": ("bias_correction", False),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How weights and activations are rounded.

    Attributes:
        rounding: ``nearest``; or ``gptq``, which spreads each weight's rounding error over the weights not yet rounded
            so that the layer's output on calibration data changes least.
        clip: Where values saturate: at the largest (``max``), where the squared error is least (``mse``), or at the
            99.99th percentile of magnitudes (``percentile``).
        per_tensor: One scale for a whole weight tensor instead of one for each output channel.
        bias_correction: Shift the bias by what quantization changes in the mean of the output.
    """

    rounding: str = "nearest"
    clip: str = "mse"
    per_tensor: bool = False
    bias_correction: bool = True

    def __str__(self) -> str:
        granularity = "tensor" if self.per_tensor else "channel"
        return f"{self.rounding}+{self.clip}+{granularity}+{'bias' if self.bias_correction else 'nobias'}"

    @classmethod
    def parse(cls, text: str, weights: Precision | None) -> Recipe:
        """Read words joined by ``+``; what they leave open is the default of the weights' format.

        By default weights of at most 4 bits are rounded by GPTQ, others to nearest; clipping at least squared error,
        one scale a channel or group, bias corrected.

        Args:
            text: For instance ``gptq``, ``nearest+max+tensor+nobias``; empty for the default.
            weights: The format of the weights.

        Raises:
            InputError: An unknown word, or two that contradict each other.
        """
        few = weights is not None and not weights.is_float and weights.bits <= _FEW_BITS
        found: dict[str, object] = {}
        for word in filter(None, text.split("+")):
            if word not in _WORDS:
                raise InputError(
                    f"recipe {text!r}: unknown word {word!r}: known: {', '.join(_WORDS)}. "
                    "Next: join some of these by '+'."
                )
            key, value = _WORDS[word]
            if found.setdefault(key, value) != value:
                raise InputError(f"recipe {text!r}: {word!r} contradicts a word before it. Next: drop one of them.")
        return replace(cls(rounding="gptq" if few else "nearest"), **found)  # type: ignore[arg-type]
