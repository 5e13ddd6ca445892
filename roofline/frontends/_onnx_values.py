"""Values of an ONNX graph: shape, layout and storage of each tensor, so that views are told from copies."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roofline.precision import Precision

Shape = tuple[int, ...]
Origin = Literal["stored", "shapes", "computed"]

MOST_ELEMENTS = 2**62
TINY = 4096


class Format(NamedTuple):
    """Name and width of a number format, and whether a scheme may change it."""

    name: str
    bits: int
    is_float: bool


# onnx.TensorProto.DataType, which onnx itself never renumbers.
FLOAT, UINT8, INT8, INT32, INT64, STRING, BOOL = 1, 2, 3, 6, 7, 8, 9
FORMATS: dict[int, Format] = {
    1: Format("fp32", 32, True),
    2: Format("uint8", 8, False),
    3: Format("int8", 8, False),
    4: Format("uint16", 16, False),
    5: Format("int16", 16, False),
    6: Format("int32", 32, False),
    7: Format("int64", 64, False),
    8: Format("string", 64, False),
    9: Format("bool", 8, False),
    10: Format("fp16", 16, True),
    11: Format("fp64", 64, True),
    12: Format("uint32", 32, False),
    13: Format("uint64", 64, False),
    14: Format("complex64", 64, False),
    15: Format("complex128", 128, False),
    16: Format("bf16", 16, True),
    17: Format("fp8_e4m3", 8, True),
    18: Format("fp8_e4m3fnuz", 8, False),
    19: Format("fp8_e5m2", 8, True),
    20: Format("fp8_e5m2fnuz", 8, False),
    21: Format("uint4", 4, False),
    22: Format("int4", 4, False),
    23: Format("fp4_e2m1", 4, False),
    24: Format("fp8_e8m0", 8, False),
    25: Format("uint2", 2, False),
    26: Format("int2", 2, False),
}
UNKNOWN_FORMAT = Format("unknown", 0, False)


@dataclass(slots=True, eq=False)
class Storage:
    """The memory behind values that are views of each other.

    Attributes:
        elements: Values that it holds.
        origin: ``stored`` in the file, or computed from such alone; from ``shapes``; ``computed`` from inputs.
        name: Of the initializer, where it is one.
        writers: Positions of the records that wrote it.
        batched: Whether it grows with the batch.
        read_as: Formats in which readers read it; ``None`` for its own.
        serial: Its own number.
    """

    elements: int
    origin: Origin = "computed"
    name: str = ""
    writers: tuple[int, ...] = ()
    batched: bool = False
    read_as: set[Precision | None] = field(default_factory=set)
    serial: int = field(default_factory=itertools.count().__next__)


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """One tensor as nodes see it.

    Attributes:
        shape: ``None`` where it is not known, or the value is no tensor.
        kind: ``onnx.TensorProto.DataType``; 0 if not known.
        storage: What it is a view of.
        strides: In elements.
        offset: In elements.
        data: Its numbers, where they are few and known.
        stored_as: The format that its numbers pass through or are stored in, where nodes that quantize or cast say so.
    """

    shape: Shape | None
    kind: int
    storage: Storage
    strides: Shape = ()
    offset: int = 0
    data: NDArray[Any] | None = None
    stored_as: Precision | None = None

    @property
    def format(self) -> Format:
        """The format of its numbers."""
        return FORMATS.get(self.kind, UNKNOWN_FORMAT)

    @property
    def elements(self) -> int:
        """Values that it shows; 0 if its shape is not known."""
        return 0 if self.shape is None else prod(self.shape)

    @property
    def constant(self) -> bool:
        """Whether it is the same in every pass."""
        return self.storage.origin != "computed"

    @property
    def distinct(self) -> int:
        """Values of its storage that it can reach."""
        if self.elements < 2:
            return self.elements
        product, extent = 1, 1
        for size, step in zip(self.shape or (), self.strides, strict=True):
            product *= size if step else 1
            extent += (size - 1) * abs(step)
        return min(product, extent)

    @property
    def number(self) -> bool:
        """Whether it is a constant of one value that a kernel takes as an argument, not a parameter of a module."""
        alone = self.elements == 1 and len(self.shape or ()) < 2
        return alone and self.constant and "." not in self.storage.name


def contiguous(shape: Sequence[int]) -> Shape:
    """Return the strides of a tensor that lies in memory in order of its axes."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def fresh(shape: Shape | None, kind: int, storage: Storage, data: NDArray[Any] | None = None) -> Value:
    """Return a value that is all of its storage."""
    return Value(shape, kind, storage, contiguous(shape or ()), data=data)


def dense(value: Value) -> bool:
    """Tell whether the value's numbers fill a block of memory, in whatever order of axes."""
    step = 1
    for size, stride in sorted(zip(value.shape or (), value.strides, strict=True), key=lambda pair: pair[1]):
        if size > 1:
            if stride != step:
                return False
            step *= size
    return True


def _replaced(value: Value, shape: Shape, strides: Shape, offset: int = 0) -> Value:
    return replace(value, shape=shape, strides=strides, offset=value.offset + offset, data=None)


def transposed(value: Value, order: Sequence[int]) -> Value:
    """Return a view with its axes in another order."""
    shape = value.shape or ()
    return _replaced(value, tuple(shape[i] for i in order), tuple(value.strides[i] for i in order))


def expanded(value: Value, shape: Shape) -> Value:
    """Return a view that repeats axes of length 1."""
    old = value.shape or ()
    extra = len(shape) - len(old)
    strides = [0] * extra
    for size, step, wanted in zip(old, value.strides, shape[extra:], strict=True):
        strides.append(step if size == wanted else 0)
    return _replaced(value, shape, tuple(strides))


def sliced(value: Value, axis: int, start: int, step: int, size: int) -> Value:
    """Return every ``step``-th of the positions of one axis."""
    shape, strides = list(value.shape or ()), list(value.strides)
    offset = start * strides[axis]
    shape[axis], strides[axis] = size, strides[axis] * step
    return _replaced(value, tuple(shape), tuple(strides), offset)


def selected(value: Value, axis: int, position: int) -> Value:
    """Return one position of an axis, which is dropped."""
    shape, strides = list(value.shape or ()), list(value.strides)
    offset = position * strides.pop(axis)
    shape.pop(axis)
    return _replaced(value, tuple(shape), tuple(strides), offset)


def reshaped(value: Value, shape: Shape) -> Value | None:
    """Return a view in another shape, or ``None`` where the layout asks for a copy.

    Each run of old axes that lie in memory as one is shared out among new axes of the same product, as PyTorch's
    ``view`` does.
    """
    old, steps = value.shape or (), value.strides
    if 0 in shape or 0 in old:
        return _replaced(value, shape, contiguous(shape))
    runs: list[list[int]] = []
    for size, step in zip(old, steps, strict=True):
        if size == 1:
            continue
        if runs and runs[-1][1] == size * step:
            runs[-1] = [runs[-1][0] * size, step]
        else:
            runs.append([size, step])
    strides: list[int] = [1] * len(shape)
    axis = len(shape) - 1
    for size, step in reversed(runs):
        left, stride = size, step
        while left > 1 and axis >= 0:
            if left % shape[axis]:
                return None
            strides[axis] = stride
            stride *= shape[axis]
            left //= shape[axis]
            axis -= 1
        if left > 1:
            return None
    for rest in range(axis, -1, -1):
        strides[rest] = strides[rest + 1] * shape[rest + 1] if rest + 1 < len(shape) else 1
    return _replaced(value, shape, tuple(strides))


def of_data(array: NDArray[Any], kind: int) -> Value:
    """Return a value that is known from shapes alone."""
    return fresh(tuple(array.shape), kind, Storage(array.size, "shapes"), array)


def small(array: NDArray[Any]) -> bool:
    """Tell whether numbers are few enough to be carried along."""
    return array.size <= TINY and array.dtype != np.dtype(object)
