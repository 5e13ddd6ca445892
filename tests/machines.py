"""Machines with round numbers, hypothesis strategies over machines, and graphs traced once for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn

import roofline
from aiq import zoo
from hardware_specs import Ceiling, HardwareSpec, MemoryLevel, Quantity, Rated

SOURCE = "made up for a test"
FLOATS = {"fp32": 1e12, "fp16": 4e12, "bf16": 4e12}
ALL_FORMATS = {**FLOATS, "int8": 8e12, "int4": 16e12}
Level = tuple[str, float, float | None]


def quantity(value: float) -> Quantity:
    return Quantity(value=value, kind="measured", source=SOURCE)


def machine(
    compute: Mapping[str, float] = ALL_FORMATS,
    memory: Iterable[Level] = (("dram", 1e11, None),),
    *,
    overhead: float = 0.0,
    sustained: Mapping[str, float] | None = None,
    name: str = "toy",
) -> HardwareSpec:
    """Build a machine: FLOP/s by format; levels ``(name, bytes/s, capacity)``; sustained rates by format, level
    or ``overhead``."""
    slow = {key: quantity(value) for key, value in (sustained or {}).items()}
    return HardwareSpec(
        name=name,
        title="Toy machine",
        vendor="nobody",
        kind="cpu",
        architecture="toy",
        compute={
            fmt: Ceiling(value=rate, kind="datasheet", source=SOURCE, sustained=slow.get(fmt))  # type: ignore[misc]
            for fmt, rate in compute.items()
        },
        memory=tuple(
            MemoryLevel(
                name=level,
                bandwidth_bytes_per_s=Rated(value=rate, kind="datasheet", source=SOURCE, sustained=slow.get(level)),
                capacity_bytes=quantity(capacity) if capacity else None,
            )
            for level, rate, capacity in memory
        ),
        launch_overhead_s=Rated(value=overhead, kind="measured", source=SOURCE, sustained=slow.get("overhead"))
        if overhead
        else None,
    )


FLAT = machine()
TWO_LEVELS = machine(memory=(("dram", 1e11, 16e9), ("l2", 1e12, 4e6)), name="two-levels")
THREE_LEVELS = machine(
    memory=(("dram", 1e11, None), ("l2", 8e11, 4e6), ("l1", 4e12, 2e5)), overhead=1e-6, name="three-levels"
)
SLOW_INT8 = machine({**FLOATS, "int8": 2e12, "int4": 1e12}, (("dram", 3e10, None), ("l2", 2e11, 1e6)), name="slow-int8")
FP32_ONLY = machine({"fp32": 1e11}, (("dram", 2e10, None), ("l3", 6e10, 3e7)), name="fp32-only")
NO_FP32 = machine({"bf16": 1e14, "int8": 2e14}, (("hbm", 8e11, None),), name="no-fp32")
MACHINES = {m.name: m for m in (FLAT, TWO_LEVELS, THREE_LEVELS, SLOW_INT8, FP32_ONLY)}

_rates = st.floats(1e9, 1e15, allow_nan=False)


@st.composite
def machines(draw: st.DrawFn) -> HardwareSpec:
    """Draw a machine: FP32 and any other formats in any order of speed, one to three levels, some overhead."""
    formats = ["fp32", *draw(st.lists(st.sampled_from(["fp16", "bf16", "int8", "int4"]), unique=True))]
    inner = draw(st.lists(st.tuples(_rates, st.floats(1e3, 1e8)), max_size=2))
    levels: list[Level] = [("dram", draw(_rates), None)]
    levels += [(f"l{index}", rate, capacity) for index, (rate, capacity) in enumerate(inner)]
    return machine({fmt: draw(_rates) for fmt in formats}, levels, overhead=draw(st.sampled_from([0.0, 1e-7, 1e-5])))


class Fn(nn.Module):
    """A module from a function of itself and its inputs; keywords become its attributes."""

    def __init__(self, function: Callable[..., Any], **attributes: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.function(self, *inputs, **named)


@cache
def zoo_graph(name: str, batch: int = 1) -> roofline.OpGraph:
    entry = zoo.get(name)
    example = torch.zeros(batch, *entry.input_shape)
    return roofline.trace(zoo.build(name, pretrained=False), example, name=name, keep_weights=entry.keep)


@cache
def named_graph(build: Callable[[], nn.Module], shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Any:
    with torch.device("meta"):
        return roofline.trace(build(), torch.zeros(shape, dtype=dtype))
