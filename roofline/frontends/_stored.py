"""How a checkpoint stores its weights: what ``quantization_config`` says, read into formats with their scales."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from roofline.frontends._config import Config, shown
from roofline.precision import Precision

_MOST_REPEATS = 4
_WHOLE = 1 << 30
_NEXT = "remove quantization_config to price weights in the config's dtype"


class Form(NamedTuple):
    """The stored format of one matrix, and the count of 32-bit scales that are a parameter of their own."""

    precision: Precision
    scales: int = 0


@dataclass(frozen=True)
class Stored:
    """Which matrices a checkpoint stores quantized.

    Attributes:
        groups: Names or classes of modules, and the format of their weights; the first that fits holds.
        kept: Modules left alone: names, parts of names, globs, or ``re:`` and an expression.
        block: Rows and columns that share a scale, where scales are a parameter of their own.
        notes: What a reader must know.
    """

    groups: tuple[tuple[str, Precision], ...] = ()
    kept: tuple[str, ...] = ()
    block: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()

    def form(self, layer: str, shape: tuple[int, ...]) -> Form | None:
        """Return how the weight of a linear layer is stored; ``None`` in the config's dtype.

        Args:
            layer: Name of the layer.
            shape: Its weight's shape: a matrix, or a stack of them.
        """
        if not self.groups or any(_names(pattern, layer) for pattern in self.kept):
            return None
        found = next((form for what, form in self.groups if what == "Linear" or _names(what, layer)), None)
        if found is None or self.block is None:
            return Form(found) if found else None
        rows, columns = shape[-2:]
        stack = 1 if len(shape) == 2 else shape[0]
        return Form(found, stack * -(-rows // self.block[0]) * -(-columns // self.block[1]))


def read_stored(config: Config) -> Stored:
    """Read the ``quantization_config`` of a model.

    Raises:
        ConfigError: A method, or a setting of one, that is not known.
    """
    section = config.section("quantization_config") or config.section("compression_config")
    if section is None:
        return Stored()
    known = ", ".join(_METHODS)
    method = section.text("quant_method", "bitsandbytes" if _bits_and_bytes(section) else "").lower()
    read = _METHODS.get(method)
    if read is None:
        raise section.error(f"quant_method is {method or 'missing'}, known: {known}", _NEXT)
    stored = read(section)
    for pattern in (*stored.kept, *(what for what, _ in stored.groups)):
        _check(section, pattern)
    formats = ", ".join(dict.fromkeys(str(form) for _, form in stored.groups))
    if not stored.groups:
        return stored
    fixed = "" if stored.groups[0][1].is_float else "; schemes leave these as they are"
    note = f"weights are stored as {formats} ({method}), as quantization_config says{fixed}"
    return Stored(stored.groups, stored.kept, stored.block, (note,))


def _bits_and_bytes(section: Config) -> bool:
    return section.has("load_in_4bit") or section.has("load_in_8bit")


def _skipped(section: Config, *keys: str) -> tuple[str, ...]:
    named = [pattern for key in keys for pattern in section.texts(key) or ()]
    return (*named, "lm_head")


def _integer(section: Config, bits_key: str, *, zero: bool) -> Precision:
    bits = section.whole(bits_key, low=2, high=8)
    group = section.whole("group_size", 128, low=-1, high=65536)
    return Precision(f"int{bits}", bits, max(group, 0), group <= 0, zero_point_bits=bits if zero else 0)


def _gptq(section: Config) -> Stored:
    """GPTQ packs a zero point beside each scale, of symmetric weights too."""
    return Stored((("Linear", _integer(section, "bits", zero=True)),), _skipped(section, "modules_in_block_to_skip"))


def _awq(section: Config) -> Stored:
    form = _integer(section, "bits", zero=section.flag("zero_point", True))
    return Stored((("Linear", form),), _skipped(section, "modules_to_not_convert"))


def _bnb(section: Config) -> Stored:
    """bitsandbytes: NF4 or FP4 in blocks of 64, their scales in 8 bits where they are quantized too; or INT8 by row."""
    kept = _skipped(section, "llm_int8_skip_modules")
    if section.flag("load_in_4bit"):
        kind = section.one_of("bnb_4bit_quant_type", "fp4", ("nf4", "fp4"))
        double = section.flag("bnb_4bit_use_double_quant")
        form = Precision({"fp4": "fp4_e2m1"}.get(kind, kind), 4, 64, scale_bits=8 if double else 32)
        return Stored((("Linear", form),), kept)
    if section.flag("load_in_8bit"):
        return Stored((("Linear", Precision("int8", 8, per_channel=True, scale_bits=32)),), kept)
    return Stored()


def _fp8(section: Config) -> Stored:
    form = Precision("fp8_e5m2" if section.text("fmt", "e4m3") == "e5m2" else "fp8_e4m3", 8)
    block = _pair(section, "weight_block_size") if section.has("weight_block_size") else None
    return Stored((("Linear", form),), _skipped(section, "modules_to_not_convert", "ignored_layers"), block)


def _pair(section: Config, key: str) -> tuple[int, int]:
    sizes = section.data.get(key)
    if not isinstance(sizes, list) or len(sizes) != 2 or not all(type(s) is int and 1 <= s <= 65536 for s in sizes):
        raise section.error(f"{key} is no pair of sizes", "give for instance [128, 128]")
    return sizes[0], sizes[1]


def _fbgemm(section: Config) -> Stored:
    kept = _skipped(section, "modules_to_not_convert")
    return Stored((("Linear", Precision("fp8_e4m3", 8)),), kept, (1, _WHOLE))


def _mxfp4(section: Config) -> Stored:
    """MXFP4 of experts: 4-bit floats with a shared exponent of 8 bits for each 32."""
    form = Precision("fp4_e2m1", 4, 32, scale_bits=8)
    return Stored((("re:.*experts", form),), section.texts("modules_to_not_convert") or ())


def _compressed(section: Config) -> Stored:
    """compressed-tensors: groups of target modules, each with a format of its weights."""
    groups = section.section("config_groups")
    if groups is None:
        raise section.error("config_groups is missing", _NEXT)
    found: list[tuple[str, Precision]] = []
    block = None
    for key in list(groups.data)[:64]:
        group = groups.section(key)
        weights = group.section("weights") if group else None
        if group is None or weights is None:
            continue
        form, rows = _compressed_form(weights)
        block = block or rows
        found += [(target, form) for target in group.texts("targets") or ("Linear",)]
    return Stored(tuple(found), section.texts("ignore") or (), block)


def _compressed_form(weights: Config) -> tuple[Precision, tuple[int, int] | None]:
    bits = weights.whole("num_bits", 8, low=2, high=8)
    strategy = weights.one_of("strategy", "tensor", ("tensor", "channel", "group", "tensor_group", "block"))
    if weights.one_of("type", "int", ("int", "float")) == "float":
        if bits != 8:
            raise weights.error(f"a float of {bits} bits is not known", _NEXT)
        block = _pair(weights, "block_structure") if strategy == "block" else None
        return Precision("fp8_e4m3", 8), (1, _WHOLE) if strategy == "channel" else block
    zero = 0 if weights.flag("symmetric", True) else bits
    if strategy == "group":
        return Precision(f"int{bits}", bits, weights.whole("group_size", 128, high=65536), zero_point_bits=zero), None
    return Precision(f"int{bits}", bits, per_channel=strategy == "channel", zero_point_bits=zero), None


_METHODS: dict[str, Callable[[Config], Stored]] = {
    "gptq": _gptq,
    "awq": _awq,
    "bitsandbytes": _bnb,
    "compressed-tensors": _compressed,
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm,
    "mxfp4": _mxfp4,
}


def _check(section: Config, pattern: str) -> None:
    """Refuse an expression that cannot be read, or that could take for ever: one that repeats a group."""
    if not pattern.startswith("re:"):
        return
    try:
        re.compile(pattern[3:])
    except (re.error, RecursionError, OverflowError):
        raise section.error(f"{shown(pattern)} is no regular expression", "mend it") from None
    if re.search(r"\)[*+{]", pattern) or pattern.count("*") + pattern.count("+") > _MOST_REPEATS:
        raise section.error(f"the expression {shown(pattern)} could take too long", "write a simpler one")


def _names(pattern: str, layer: str) -> bool:
    """Tell whether a pattern of a ``quantization_config`` speaks of a layer."""
    if pattern.startswith("re:"):
        return re.match(pattern[3:], layer) is not None
    if "*" in pattern:
        return fnmatchcase(layer, pattern) or fnmatchcase(layer, f"{pattern}.*")
    return f".{pattern}." in f".{layer}."
