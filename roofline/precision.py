"""Number formats of stored values, and the pair of formats that a layer uses."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from roofline.errors import PrecisionError

FLOAT_BITS = {"fp64": 64, "fp32": 32, "tf32": 32, "bf16": 16, "fp16": 16, "fp8_e4m3": 8, "fp8_e5m2": 8}
INT_WIDTHS = range(2, 17)
DEFAULT_SCALE_BITS = 16
_CACHED_BITS = 16

_KNOWN = f"{', '.join(FLOAT_BITS)}, int{INT_WIDTHS[0]} to int{INT_WIDTHS[-1]}, each integer with :gN, :c, :sN, :zN"
_OPTION = re.compile(r"(g|s|z|c)([0-9]{0,9})")
_RECIPE = re.compile(r"[a-z][a-z0-9]*(?:\+[a-z][a-z0-9]*)*")
_SHORTHAND = re.compile(
    r"(?=[wk])(?:w([0-9]{1,9})((?::[a-z][0-9]*)*)(?:a([0-9]{1,9}))?)?(?:kv([0-9]{1,9})((?::[a-z][0-9]*)*))?"
)


@dataclass(frozen=True, slots=True)
class Precision:
    """A number format of stored values.

    The text form is ``NAME[:gN|:c][:sN][:zN]``: ``int4:g128`` has one scale for each group of 128 values along the
    reduction axis, ``int8:c`` one for each output channel; ``:s32`` makes scales 32 bits wide (default 16), ``:z``
    stores a zero point as wide as the values (``:z8`` in 8 bits) beside each scale. Without ``:g`` or ``:c`` there is
    one scale for the tensor, which is not counted.

    Attributes:
        name: ``fp32``, ``tf32``, ``bf16``, ``fp16``, ``fp8_e4m3``, ``fp8_e5m2`` or ``intB`` with B from 2 to 16.
        bits: Bits of one value, scales apart.
        group_size: Values that share a scale; 0 without groups.
        per_channel: One scale for each output channel.
        scale_bits: Bits of one scale.
        zero_point_bits: Bits of one zero point; 0 for symmetric formats.
    """

    name: str
    bits: int
    group_size: int = 0
    per_channel: bool = False
    scale_bits: int = DEFAULT_SCALE_BITS
    zero_point_bits: int = 0

    @property
    def is_float(self) -> bool:
        """Whether values are floating point."""
        return self.name in FLOAT_BITS

    @property
    def bits_per_value(self) -> float:
        """Bits of one value with its share of a full group's scale and zero point: 4.125 for ``int4:g128``."""
        if not self.group_size:
            return float(self.bits)
        return self.bits + (self.scale_bits + self.zero_point_bits) / self.group_size

    def stored_bits(self, elements: int, channels: int = 1, *, scales: bool = True) -> int:
        """Return the bits that a tensor takes.

        elements · bits + groups · (scale bits + zero-point bits), with groups = channels · ⌈(elements / channels) / g⌉.

        Args:
            elements: Number of values.
            channels: Output channels; each holds ``elements / channels`` values along the reduction axis.
            scales: Whether scales and zero points are counted.
        """
        total = elements * self.bits
        if scales and elements and (self.group_size or self.per_channel):
            per_channel = -(-elements // channels)
            groups = channels * (-(-per_channel // self.group_size) if self.group_size else 1)
            total += groups * (self.scale_bits + self.zero_point_bits)
        return total

    def __str__(self) -> str:
        text = self.name
        if self.group_size:
            text += f":g{self.group_size}"
        elif self.per_channel:
            text += ":c"
        if self.scale_bits != DEFAULT_SCALE_BITS:
            text += f":s{self.scale_bits}"
        if self.zero_point_bits:
            text += f":z{self.zero_point_bits}"
        return text

    @classmethod
    def parse(cls, text: str) -> Precision:
        """Read the text form; ``Precision.parse(str(p)) == p``.

        Raises:
            PrecisionError: An unknown format or option, or an option without a meaning for it.
        """
        name, *options = text.strip().lower().split(":")
        name = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}.get(name, name)
        width = re.fullmatch(r"int([0-9]{1,9})", name)
        if name in FLOAT_BITS:
            if options:
                raise PrecisionError(f"precision {text!r}: {name} takes no options. Next: write {name!r}.")
            return cls(name, FLOAT_BITS[name])
        if not width or int(width[1]) not in INT_WIDTHS:
            raise PrecisionError(f"unknown precision {text!r}: known: {_KNOWN}. Next: write one of these.")
        bits = int(width[1])
        return cls(f"int{bits}", bits, **_options(text, options, bits))


def _options(text: str, options: list[str], bits: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    seen: set[str] = set()
    for option in options:
        match = _OPTION.fullmatch(option)
        if not match:
            raise PrecisionError(
                f"precision {text!r}: unknown option {option!r}: known: gN, c, sN, zN. "
                "Next: write for instance int4:g128."
            )
        letter, number = match[1], int(match[2] or 0)
        if letter in seen:
            raise PrecisionError(f"precision {text!r}: option :{letter} stands twice. Next: drop one.")
        seen.add(letter)
        if letter == "z":
            found["zero_point_bits"] = number or bits
        elif letter == "c" and not match[2]:
            found["per_channel"] = True
        elif letter != "c" and number:
            found["group_size" if letter == "g" else "scale_bits"] = number
        else:
            raise PrecisionError(
                f"precision {text!r}: option {option!r} needs a number above 0 (c: none). Next: mend it."
            )
    if "group_size" in found and "per_channel" in found:
        raise PrecisionError(f"precision {text!r}: choose :g or :c, not both. Next: drop one.")
    return found


@dataclass(frozen=True, slots=True)
class LayerPrecision:
    """The formats of one layer; ``None`` keeps what the model has.

    Attributes:
        weights: Format of the weights of matrix-like operations (convolution, linear, embedding, recurrent).
        activations: Format of the tensors the layer reads and writes.
        recipe: How the values are found (``gptq``, ``nearest+max``): it changes accuracy and neither bytes nor time.
            Empty for the quantizer's default.
        kv: Format of the key-value cache that attention reads and writes; its scale groups lie along each head's
            vector of a token. Without one the cache is as ``cache`` says.
    """

    weights: Precision | None = None
    activations: Precision | None = None
    recipe: str = ""
    kv: Precision | None = None

    @property
    def cache(self) -> Precision | None:
        """Format of the key-value cache: ``kv``, else that of activations which are floats of 16 bits or more.

        Engines keep keys and values as attention computes them unless they are told otherwise.
        """
        activations = self.activations
        wide = activations is not None and activations.is_float and activations.bits >= _CACHED_BITS
        return activations if self.kv is None and wide else self.kv

    def __str__(self) -> str:
        if self.weights is None and self.activations is None and self.kv is None:
            return "keep"
        cache = f"/{self.kv}" if self.kv else ""
        return f"{self.weights or 'keep'}/{self.activations or 'keep'}{cache}{self._suffix}"

    @property
    def _suffix(self) -> str:
        return f"@{self.recipe}" if self.recipe else ""

    @property
    def label(self) -> str:
        """The shortest text that reads back as this: ``w8a8``, ``w4:g128``, ``fp16``, ``w4kv8``; else the full form."""
        weights, activations, kv = self.weights, self.activations, self.kv
        if kv is not None and (kv.is_float or kv.bits == 16):
            return str(self)
        cache = str(kv).replace("int", "kv", 1) if kv is not None else ""
        if weights is not None and weights == activations and weights.is_float and not cache:
            return f"{weights}{self._suffix}"
        if weights is None and activations is None and cache:
            return cache + self._suffix
        if weights is None or weights.is_float or weights.bits == 16:
            return str(self)
        short = str(weights).replace("int", "w", 1)
        if activations is None:
            return short + cache + self._suffix
        plain = activations == Precision(activations.name, activations.bits)
        if not plain or activations.is_float or activations.bits == 16:
            return str(self)
        return f"{short}a{activations.bits}{cache}{self._suffix}"

    @classmethod
    def parse(cls, text: str) -> LayerPrecision:
        """Read a layer's formats.

        ``keep``; a format for both (``fp16``); ``WEIGHTS/ACTIVATIONS[/KV]`` (``int4:g128/bf16``,
        ``keep/keep/fp8_e4m3``; any may be ``keep``); or a shorthand ``wB[:options][aB][kvB[:options]]``: ``w8`` (INT8
        weights), ``w4:g128``, ``w8a8``, ``w4a8``, ``w4a16kv8``, ``kv8``. In a shorthand 16 and 32 mean fp16 and fp32,
        other widths integers. ``@RECIPE`` after any of them but ``keep`` says how values are found.

        Raises:
            PrecisionError: The text is none of these.
        """
        text, at, recipe = text.strip().lower().partition("@")
        if at and (text == "keep" or not _RECIPE.fullmatch(recipe)):
            raise PrecisionError(
                f"precision '{text}@{recipe}': a recipe is a word or several joined by '+', after a format. "
                "Next: write for instance w4@gptq."
            )
        return replace(cls._parse(text), recipe=recipe)

    @classmethod
    def _parse(cls, text: str) -> LayerPrecision:
        if text == "keep":
            return cls()
        if match := _SHORTHAND.fullmatch(text):
            for width in filter(None, (match[1], match[3], match[4])):
                if int(width) not in (*INT_WIDTHS, 32):
                    raise PrecisionError(f"unknown precision {text!r}: known: {_KNOWN}. Next: write one of these.")
            return cls(_short(match[1], match[2]), _short(match[3]), kv=_short(match[4], match[5]))
        if "/" in text:
            parts = [_or_keep(part) for part in text.split("/", 2)]
            return cls(parts[0], parts[1], kv=parts[2] if len(parts) > 2 else None)
        both = Precision.parse(text)
        return cls(both, Precision(both.name, both.bits))


def _or_keep(text: str) -> Precision | None:
    return None if text.strip() == "keep" else Precision.parse(text)


def _short(width: str | None, options: str = "") -> Precision | None:
    """Read one part of a shorthand: its width and options; ``None`` where it is left out."""
    if not width:
        return None
    return Precision.parse({16: "fp16", 32: "fp32"}.get(int(width), f"int{width}") + options)
