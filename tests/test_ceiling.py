"""Which ceiling a layer computes on, and why: its formats and the machine's in, format and reason out."""

from __future__ import annotations

import pytest

from roofline import Precision
from roofline.ceiling import choose_ceiling, vector_ceiling
from roofline.errors import AIQError, MissingCeilingError
from tests.machines import ALL_FORMATS, machine

ALL = {**ALL_FORMATS, "fp64": 5e11, "tf32": 2e12, "fp8": 8e12}
FLOATS = {"fp32": 1e12, "fp16": 4e12, "bf16": 4e12}
SLOW_INT8 = {**FLOATS, "int8": 2e12}


def only(*formats: str) -> dict[str, float]:
    return {fmt: ALL[fmt] for fmt in formats}


@pytest.mark.parametrize(
    ("weights", "activations", "compute", "fmt", "reason"),
    [
        # the stored format's own ceiling: nothing to explain
        ("fp32", "fp32", ALL, "fp32", ""),
        ("fp16", "fp16", ALL, "fp16", ""),
        ("bf16", "bf16", ALL, "bf16", ""),
        ("tf32", "tf32", ALL, "tf32", ""),
        ("fp64", "fp64", ALL, "fp64", ""),
        ("fp8_e4m3", "fp8_e4m3", ALL, "fp8", ""),
        ("fp8_e4m3", "fp8_e5m2", ALL, "fp8", ""),
        ("int8", "int8", ALL, "int8", ""),
        ("int8:c", "int8", ALL, "int8", ""),
        ("int4:g128", "int4", ALL, "int4", ""),
        # two operands of different formats
        ("int4", "int8", ALL, "int8", "int4 is widened to int8, the other operand's format"),
        ("int8", "int4", ALL, "int8", "int4 is widened to int8, the other operand's format"),
        ("int3", "int4", ALL, "int4", "int3 is widened to int4, the other operand's format"),
        ("int8", "fp32", ALL, "fp32", "weights int8 are widened to fp32, the other operand's format"),
        ("int4:g128", "fp16", ALL, "fp16", "weights int4 are widened to fp16, the other operand's format"),
        ("fp16", "int8", ALL, "fp16", "activations int8 are widened to fp16, the other operand's format"),
        ("fp16", "bf16", ALL, "fp32", "fp16 and bf16 meet in fp32"),
        ("fp16", "fp32", ALL, "fp32", "fp16 weights and fp32 activations compute in fp32"),
        ("fp8_e4m3", "fp16", ALL, "fp16", "fp8 weights and fp16 activations compute in fp16"),
        ("fp32", "fp64", ALL, "fp64", "fp32 weights and fp64 activations compute in fp64"),
        ("int16", "int16", ALL, "fp32", "int16 computes in fp32: no ceiling is known for integers above 8 bits"),
        ("int8", "int12", ALL, "fp32", "int12 computes in fp32: no ceiling is known for integers above 8 bits"),
        # no kernel on this machine: nearest wider format with the fastest ceiling
        ("int8", "int8", FLOATS, "fp16", "int8 is widened to fp16: no int8 ceiling on toy"),
        ("int8", "int8", only("fp32"), "fp32", "int8 is widened to fp32: no int8 ceiling on toy"),
        ("int4", "int4", only("fp32", "int8"), "int8", "int4 is widened to int8: no int4 ceiling on toy"),
        ("fp16", "fp16", only("fp32"), "fp32", "fp16 is widened to fp32: no fp16 ceiling on toy"),
        ("fp8_e5m2", "fp8_e5m2", FLOATS, "fp16", "fp8 is widened to fp16: no fp8 ceiling on toy"),
        ("tf32", "tf32", FLOATS, "fp32", "tf32 is widened to fp32: no tf32 ceiling on toy"),
        ("int8", "int8", SLOW_INT8, "fp16", "int8 is widened to fp16: no faster int8 ceiling on toy"),
        (
            "int4",
            "int8",
            FLOATS,
            "fp16",
            "int4 is widened to int8, the other operand's format; int8 is widened to fp16: no int8 ceiling on toy",
        ),
        (
            "int8",
            "fp16",
            only("fp32"),
            "fp32",
            "weights int8 are widened to fp16, the other operand's format; fp16 is widened to fp32: "
            "no fp16 ceiling on toy",
        ),
    ],
)
def test_choice(weights: str, activations: str, compute: dict[str, float], fmt: str, reason: str) -> None:
    choice = choose_ceiling(Precision.parse(weights), Precision.parse(activations), machine(compute))
    assert choice == (fmt, compute[fmt], reason)


@pytest.mark.parametrize(
    ("weights", "activations", "fmt"),
    [("int5", "int5", "int8"), ("int3", "int3", "int4"), ("int7", "int6", "int8"), ("int4", "int6", "int8")],
)
def test_an_odd_width_says_what_it_computes_in(weights: str, activations: str, fmt: str) -> None:
    choice = choose_ceiling(Precision.parse(weights), Precision.parse(activations), machine(ALL))
    assert choice.format == fmt
    assert f"widened to {fmt}" in choice.reason
    assert "other operand" not in choice.reason  # neither operand is stored in that format


def test_equal_ceilings_keep_the_stored_format() -> None:
    choice = choose_ceiling(Precision("int8", 8), Precision("int8", 8), machine({"fp32": 1e12, "int8": 1e12}))
    assert choice == ("int8", 1e12, "")


@pytest.mark.parametrize(
    ("weights", "activations", "compute", "message"),
    [
        (
            "fp32",
            "fp32",
            only("bf16", "int8"),
            "toy states no fp32 ceiling and none that could stand in (no wider format): it has bf16, int8. "
            "Next: choose one of these formats, or add [compute.fp32] with its source.",
        ),
        (
            "fp16",
            "fp16",
            only("int8", "bf16"),
            "toy states no fp16 ceiling and none that could stand in (fp32): it has int8, bf16. "
            "Next: choose one of these formats, or add [compute.fp16] with its source.",
        ),
        (
            "int8",
            "int8",
            only("fp64"),
            "toy states no int8 ceiling and none that could stand in (fp16, bf16, fp32): it has fp64. "
            "Next: choose one of these formats, or add [compute.int8] with its source.",
        ),
    ],
)
def test_missing_ceiling(weights: str, activations: str, compute: dict[str, float], message: str) -> None:
    with pytest.raises(MissingCeilingError) as caught:
        choose_ceiling(Precision.parse(weights), Precision.parse(activations), machine(compute))
    assert str(caught.value) == message
    assert isinstance(caught.value, AIQError)


@pytest.mark.parametrize(
    ("compute", "fmt"),
    [(ALL, "fp32"), (only("fp16", "bf16"), "bf16"), (only("int8", "fp16"), "fp16"), (only("fp32"), "fp32")],
)
def test_vector_work(compute: dict[str, float], fmt: str) -> None:
    assert vector_ceiling(machine(compute)) == (fmt, compute[fmt], "")


def test_vector_work_without_a_ceiling() -> None:
    with pytest.raises(MissingCeilingError) as caught:
        vector_ceiling(machine(only("int8", "tf32")))
    assert str(caught.value) == (
        "toy states no ceiling for element-wise work (fp32, bf16, fp16): it has int8, tf32. "
        "Next: add [compute.fp32] with its source."
    )


def test_sustained_rates_decide_where_they_are_in_force() -> None:
    peak = machine({"fp32": 1e12, "fp16": 4e12, "int8": 8e12}, sustained={"int8": 3e12})
    eight = Precision("int8", 8)
    assert choose_ceiling(eight, eight, peak).format == "int8"
    assert choose_ceiling(eight, eight, peak.sustained()) == (
        "fp16",
        4e12,
        "int8 is widened to fp16: no faster int8 ceiling on toy",
    )
