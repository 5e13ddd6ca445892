"""Operators that quantize, read as the formats of tensors: they move nothing and compute nothing by themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from roofline.frontends._onnx_values import FLOAT, UINT8, Storage, Value, fresh, of_data
from roofline.frontends._onnx_views import recast
from roofline.precision import Precision

if TYPE_CHECKING:
    import onnx

    from roofline.frontends._onnx_reader import Reader

Declared = Sequence[tuple[tuple[int, ...] | None, int]]
Inputs = Sequence[Value | None]
Special = Callable[["Reader", "onnx.NodeProto", dict[str, Any], Inputs, Declared], "list[Value] | None"]

_INT64 = 7


def precision(codes: Value, scale: Value | None, zero: Value | None, block: int = 0) -> Precision:
    """Return the format of integers with their scales: one for the tensor, for each channel, or for each block.

    Zero points that are known to be 0 are not counted: no kernel reads them.
    """
    form = codes.format
    if form.is_float:
        return Precision(form.name, form.bits)
    several = scale is not None and scale.elements > 1
    return Precision(
        f"int{form.bits}",
        form.bits,
        block if several else 0,
        several and not block,
        scale.format.bits if several and scale is not None else 16,
        form.bits if several and _counts(zero) else 0,
    )


def _counts(zero: Value | None) -> bool:
    return zero is not None and not (zero.data is not None and not np.any(zero.data))


def _quantize(_reader: Any, _node: Any, settings: dict[str, Any], inputs: Inputs, declared: Declared) -> Any:
    source, kind = inputs[0], declared[0][1] or UINT8
    if source is None:
        return None
    codes = replace(source, kind=kind)
    scale, zero = (inputs[i] if len(inputs) > i else None for i in (1, 2))
    block = int(settings.get("block_size", 0))
    stored = precision(codes, scale if source.constant else None, zero, block)
    return [recast(source, kind, stored)]


def _dequantize(_reader: Any, _node: Any, settings: dict[str, Any], inputs: Inputs, declared: Declared) -> Any:
    codes = inputs[0]
    if codes is None:
        return None
    scale, zero = (inputs[i] if len(inputs) > i else None for i in (1, 2))
    constant = codes.storage.origin == "stored"
    stored = codes.stored_as or precision(codes, scale if constant else None, zero, int(settings.get("block_size", 0)))
    return [recast(codes, declared[0][1] or (scale.kind if scale is not None else FLOAT), stored)]


def _quantize_dynamically(_reader: Any, _node: Any, _settings: Any, inputs: Inputs, _declared: Declared) -> Any:
    source = inputs[0]
    if source is None:
        return None
    batched = source.storage.batched
    codes = recast(source, UINT8, Precision("int8", 8))
    return [codes, fresh((), FLOAT, Storage(1, batched=batched)), fresh((), UINT8, Storage(1, batched=batched))]


def _shape(_reader: Any, _node: Any, settings: dict[str, Any], inputs: Inputs, _declared: Declared) -> Any:
    source = inputs[0]
    if source is None:
        return None
    if source.shape is None:
        return [fresh(None, _INT64, Storage(0, "shapes"))]
    dims = source.shape[settings.get("start", 0) : settings.get("end", len(source.shape))]
    return [of_data(np.array(dims, np.int64), _INT64)]


def _size(_reader: Any, _node: Any, _settings: Any, inputs: Inputs, _declared: Declared) -> Any:
    source = inputs[0]
    if source is None or source.shape is None:
        return None
    return [of_data(np.array(source.elements, np.int64), _INT64)]


def _cast(reader: Reader, node: onnx.NodeProto, _settings: Any, inputs: Inputs, declared: Declared) -> Any:
    """A cast to the same type is free, and so is one to a narrower float and back, which rounds."""
    source, kind = inputs[0], declared[0][1]
    if source is None or source.kind == kind:
        return [source]
    if source.constant:
        return None
    stored = source.stored_as
    if stored is not None and stored.is_float and reader.rounds(node.input[0]):
        return [recast(source, kind, stored)]
    narrow = replace(source, kind=kind).format
    if (
        source.format.is_float
        and narrow.is_float
        and narrow.bits < source.format.bits
        and reader.rounds(node.output[0])
    ):
        return [recast(source, kind, Precision(narrow.name, narrow.bits))]
    return None


SPECIAL: dict[str, Special] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _quantize_dynamically,
    "Shape": _shape,
    "Size": _size,
    "Cast": _cast,
}


def weight_format(op: str, settings: dict[str, Any], inputs: list[Value | None]) -> list[Value | None]:
    """Return the inputs of an operator on integers with the weight in the format that its scales say."""
    if op == "MatMulNBits" and len(inputs) > 2 and inputs[1] is not None and inputs[2] is not None:
        zero = inputs[3] if len(inputs) > 3 else None
        return [inputs[0], _unpacked(settings, inputs[1], inputs[2], zero), *inputs[2:]]
    if op in {"QLinearConv", "QLinearMatMul"} and len(inputs) > 5 and inputs[3] is not None:
        weight = inputs[3]
        if weight.storage.origin == "stored":
            weight = replace(weight, stored_as=precision(weight, inputs[4], inputs[5]))
        return [*inputs[:3], weight, *inputs[4:]]
    return inputs


def _unpacked(settings: dict[str, Any], packed: Value, scales: Value, zero: Value | None) -> Value:
    """Return the packed weight of ``MatMulNBits`` as the matrix ``[N, K]`` that it stands for."""
    rows, columns, bits = int(settings["N"]), int(settings["K"]), int(settings.get("bits", 4))
    zero_bits = 0 if zero is None else zero.format.bits if zero.format.is_float else bits
    stored = Precision(f"int{bits}", bits, int(settings["block_size"]), False, scales.format.bits, zero_bits)
    storage = Storage(rows * columns, packed.storage.origin, packed.storage.name, packed.storage.writers)
    return replace(fresh((rows, columns), packed.kind, storage), stored_as=stored)
