"""Number formats: text forms, exact sizes, shorthands and the wording of every refusal."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofline import LayerPrecision, Precision
from roofline.errors import AIQError, PrecisionError
from roofline.precision import FLOAT_BITS, INT_WIDTHS

KNOWN = (
    "fp64, fp32, tf32, bf16, fp16, fp8_e4m3, fp8_e5m2, int2 to int16, each integer with :gN, :c, :sN, :zN. "
    "Next: write one of these."
)

floats = st.sampled_from([Precision(name, bits) for name, bits in FLOAT_BITS.items()])


@st.composite
def integers(draw: st.DrawFn) -> Precision:
    bits = draw(st.sampled_from(INT_WIDTHS))
    group = draw(st.integers(0, 4096))
    return Precision(
        f"int{bits}",
        bits,
        group,
        False if group else draw(st.booleans()),
        draw(st.integers(1, 64)),
        draw(st.integers(0, 64)),
    )


precisions = floats | integers()


@pytest.mark.parametrize(
    ("text", "expected", "canonical"),
    [
        ("fp64", Precision("fp64", 64), "fp64"),
        ("fp32", Precision("fp32", 32), "fp32"),
        ("float32", Precision("fp32", 32), "fp32"),
        ("tf32", Precision("tf32", 32), "tf32"),
        ("bf16", Precision("bf16", 16), "bf16"),
        ("bfloat16", Precision("bf16", 16), "bf16"),
        ("fp16", Precision("fp16", 16), "fp16"),
        ("float16", Precision("fp16", 16), "fp16"),
        ("fp8_e4m3", Precision("fp8_e4m3", 8), "fp8_e4m3"),
        ("fp8_e5m2", Precision("fp8_e5m2", 8), "fp8_e5m2"),
        ("int2", Precision("int2", 2), "int2"),
        ("int16", Precision("int16", 16), "int16"),
        (" INT8 ", Precision("int8", 8), "int8"),
        ("int8:c", Precision("int8", 8, per_channel=True), "int8:c"),
        ("int4:g128", Precision("int4", 4, 128), "int4:g128"),
        ("INT4:G128", Precision("int4", 4, 128), "int4:g128"),
        ("int4:g128:s16", Precision("int4", 4, 128), "int4:g128"),
        ("int4:g64:s32", Precision("int4", 4, 64, scale_bits=32), "int4:g64:s32"),
        ("int4:s32:g64", Precision("int4", 4, 64, scale_bits=32), "int4:g64:s32"),
        ("int4:g32:z", Precision("int4", 4, 32, zero_point_bits=4), "int4:g32:z4"),
        ("int4:g32:s8:z8", Precision("int4", 4, 32, False, 8, 8), "int4:g32:s8:z8"),
        ("int4:c:z8", Precision("int4", 4, 0, True, zero_point_bits=8), "int4:c:z8"),
        ("int8:z", Precision("int8", 8, zero_point_bits=8), "int8:z8"),
    ],
)
def test_text_form(text: str, expected: Precision, canonical: str) -> None:
    assert Precision.parse(text) == expected
    assert str(expected) == canonical


@given(precisions)
def test_text_form_round_trips(precision: Precision) -> None:
    assert Precision.parse(str(precision)) == precision
    assert hash(Precision.parse(str(precision))) == hash(precision)


@given(st.none() | precisions, st.none() | precisions, st.none() | precisions)
def test_layer_text_form_round_trips(
    weights: Precision | None, activations: Precision | None, kv: Precision | None
) -> None:
    formats = LayerPrecision(weights, activations, kv=kv)
    assert LayerPrecision.parse(str(formats)) == formats
    assert LayerPrecision.parse(formats.label) == formats


@pytest.mark.parametrize("text", ["int08", "int008", "int٨", "w08", "w٨"])
def test_a_format_has_one_name(text: str) -> None:
    # Two names of one format would differ in digest, and a tensor passed between them would count as converted.
    try:
        read = LayerPrecision.parse(text).weights
    except PrecisionError:
        return
    assert read == Precision("int8", 8)


def test_precisions_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Precision("int8", 8).bits = 4  # type: ignore[misc]


@pytest.mark.parametrize(("name", "is_float"), [("fp32", True), ("fp8_e4m3", True), ("int8", False), ("int16", False)])
def test_is_float(name: str, is_float: bool) -> None:
    assert Precision.parse(name).is_float is is_float


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("fp32", 32.0),
        ("tf32", 32.0),
        ("int8", 8.0),
        ("int8:c", 8.0),
        ("int4:g128", 4.125),
        ("int4:g32", 4.5),
        ("int4:g128:s32", 4.25),
        ("int4:g32:z", 4.625),
        ("int4:g64:z8", 4.375),
    ],
)
def test_bits_per_value(text: str, bits: float) -> None:
    assert Precision.parse(text).bits_per_value == bits


@pytest.mark.parametrize(
    ("text", "elements", "channels", "bits", "derivation"),
    [
        ("fp32", 10, 1, 320, "10 x 32"),
        ("int8", 3, 1, 24, "3 x 8, one scale for the tensor is not counted"),
        ("int4", 7, 1, 28, "7 x 4, not rounded to bytes"),
        ("int3", 5, 5, 15, "5 x 3"),
        ("int4:g128", 1000, 1, 4128, "1000 x 4 + 8 groups x 16, the last group of 104"),
        ("int4:g4", 10, 2, 104, "10 x 4 + 2 channels x ceil(5 / 4) x 16"),
        ("int4:g4", 11, 2, 108, "11 x 4 + 2 channels x ceil(6 / 4) x 16"),
        ("int4:g4", 9, 2, 100, "9 x 4 + 2 channels x ceil(5 / 4) x 16: the longer channel decides"),
        ("int4:g100", 10, 2, 72, "10 x 4 + 2 channels x 1 group x 16"),
        ("int8:c", 30, 3, 288, "30 x 8 + 3 x 16"),
        ("int8:c:s32", 30, 3, 336, "30 x 8 + 3 x 32"),
        ("int4:g32:z", 64, 2, 296, "64 x 4 + 2 x (16 + 4)"),
        ("int4:g32:s32:z8", 65, 1, 380, "65 x 4 + 3 x (32 + 8)"),
        ("int8:z", 30, 3, 240, "one zero point for the tensor is not counted"),
        ("int4:g4", 0, 1, 0, "nothing stored, no scale"),
        ("int8:c", 0, 3, 0, "nothing stored, no scale"),
    ],
)
def test_stored_bits(text: str, elements: int, channels: int, bits: int, derivation: str) -> None:
    assert Precision.parse(text).stored_bits(elements, channels) == bits, derivation


@given(precisions, st.integers(0, 10_000), st.integers(1, 64))
def test_without_scales_only_values_are_stored(precision: Precision, per_channel: int, channels: int) -> None:
    elements = per_channel * channels
    assert precision.stored_bits(elements, channels, scales=False) == elements * precision.bits
    assert precision.stored_bits(elements, channels) >= elements * precision.bits


@given(integers(), st.integers(1, 50), st.integers(1, 64))
def test_full_groups_take_bits_per_value(precision: Precision, groups: int, channels: int) -> None:
    if precision.per_channel:
        return
    elements = groups * channels * (precision.group_size or 1)
    assert precision.stored_bits(elements, channels) == pytest.approx(elements * precision.bits_per_value, rel=1e-12)


def _layer(weights: str | None, activations: str | None, kv: str | None = None) -> LayerPrecision:
    first, second, third = (Precision.parse(text) if text else None for text in (weights, activations, kv))
    return LayerPrecision(first, second, kv=third)


@pytest.mark.parametrize(
    ("text", "expected", "canonical"),
    [
        ("keep", _layer(None, None), "keep"),
        ("KEEP ", _layer(None, None), "keep"),
        ("keep/keep", _layer(None, None), "keep"),
        ("w8", _layer("int8", None), "int8/keep"),
        ("w4", _layer("int4", None), "int4/keep"),
        ("w4:g128", _layer("int4:g128", None), "int4:g128/keep"),
        ("w4:g128:s32:z", _layer("int4:g128:s32:z4", None), "int4:g128:s32:z4/keep"),
        ("w8:c", _layer("int8:c", None), "int8:c/keep"),
        ("w8a8", _layer("int8", "int8"), "int8/int8"),
        ("W4A8", _layer("int4", "int8"), "int4/int8"),
        ("w4:g128a8", _layer("int4:g128", "int8"), "int4:g128/int8"),
        ("w4:ca8", _layer("int4:c", "int8"), "int4:c/int8"),
        ("w4a16", _layer("int4", "fp16"), "int4/fp16"),
        ("w16a16", _layer("fp16", "fp16"), "fp16/fp16"),
        ("w16", _layer("fp16", None), "fp16/keep"),
        ("w32a32", _layer("fp32", "fp32"), "fp32/fp32"),
        ("fp16", _layer("fp16", "fp16"), "fp16/fp16"),
        ("int8", _layer("int8", "int8"), "int8/int8"),
        ("int4:g128", _layer("int4:g128", "int4"), "int4:g128/int4"),
        ("int4:g128/bf16", _layer("int4:g128", "bf16"), "int4:g128/bf16"),
        ("keep/int8", _layer(None, "int8"), "keep/int8"),
        ("fp8_e4m3 / keep", _layer("fp8_e4m3", None), "fp8_e4m3/keep"),
        ("int4:g128/bf16/fp8_e4m3", _layer("int4:g128", "bf16", "fp8_e4m3"), "int4:g128/bf16/fp8_e4m3"),
        ("int8/int8/keep", _layer("int8", "int8"), "int8/int8"),
        ("keep/keep/int8", _layer(None, None, "int8"), "keep/keep/int8"),
        ("kv8", _layer(None, None, "int8"), "keep/keep/int8"),
        ("kv4:g64", _layer(None, None, "int4:g64"), "keep/keep/int4:g64"),
        ("w4:g128kv8", _layer("int4:g128", None, "int8"), "int4:g128/keep/int8"),
        ("w4a16kv8", _layer("int4", "fp16", "int8"), "int4/fp16/int8"),
        ("w8a8kv8", _layer("int8", "int8", "int8"), "int8/int8/int8"),
        ("w8a8kv16", _layer("int8", "int8", "fp16"), "int8/int8/fp16"),
    ],
)
def test_layer_text_form(text: str, expected: LayerPrecision, canonical: str) -> None:
    assert LayerPrecision.parse(text) == expected
    assert str(expected) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int1", f"unknown precision 'int1': known: {KNOWN}"),
        ("int17", f"unknown precision 'int17': known: {KNOWN}"),
        ("fp8", f"unknown precision 'fp8': known: {KNOWN}"),
        ("", f"unknown precision '': known: {KNOWN}"),
        ("fp16:g2", "precision 'fp16:g2': fp16 takes no options. Next: write 'fp16'."),
        (
            "int4:x",
            "precision 'int4:x': unknown option 'x': known: gN, c, sN, zN. Next: write for instance int4:g128.",
        ),
        (
            "int4:",
            "precision 'int4:': unknown option '': known: gN, c, sN, zN. Next: write for instance int4:g128.",
        ),
        (
            "int4:g-1",
            "precision 'int4:g-1': unknown option 'g-1': known: gN, c, sN, zN. Next: write for instance int4:g128.",
        ),
        ("int4:g0", "precision 'int4:g0': option 'g0' needs a number above 0 (c: none). Next: mend it."),
        ("int4:g", "precision 'int4:g': option 'g' needs a number above 0 (c: none). Next: mend it."),
        ("int4:s", "precision 'int4:s': option 's' needs a number above 0 (c: none). Next: mend it."),
        ("int4:c3", "precision 'int4:c3': option 'c3' needs a number above 0 (c: none). Next: mend it."),
        ("int4:g3:c", "precision 'int4:g3:c': choose :g or :c, not both. Next: drop one."),
    ],
)
def test_refusals_of_a_format(text: str, message: str) -> None:
    with pytest.raises(PrecisionError) as caught:
        Precision.parse(text)
    assert str(caught.value) == message
    assert isinstance(caught.value, AIQError)


@pytest.mark.parametrize("text", ["int4:g32:g64", "int4:c:c", "int4:g8:s8:s16", "int4:g8:z4:z8"])
def test_an_option_given_twice_is_refused(text: str) -> None:
    with pytest.raises(PrecisionError):
        Precision.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("w0", f"unknown precision 'w0': known: {KNOWN}"),
        ("w8a1", f"unknown precision 'w8a1': known: {KNOWN}"),
        ("w64", f"unknown precision 'w64': known: {KNOWN}"),
        ("a8", f"unknown precision 'a8': known: {KNOWN}"),
        ("w8a8:c", f"unknown precision 'w8a8:c': known: {KNOWN}"),
        ("int8/x", f"unknown precision 'x': known: {KNOWN}"),
        ("int8/int8/int8/int8", f"unknown precision 'int8/int8': known: {KNOWN}"),
        ("w8kv1", f"unknown precision 'w8kv1': known: {KNOWN}"),
        ("kv", f"unknown precision 'kv': known: {KNOWN}"),
        ("int8/", f"unknown precision '': known: {KNOWN}"),
        ("w16:g8", "precision 'fp16:g8': fp16 takes no options. Next: write 'fp16'."),
        (
            "w4:q2",
            "precision 'int4:q2': unknown option 'q2': known: gN, c, sN, zN. Next: write for instance int4:g128.",
        ),
    ],
)
def test_refusals_of_a_layer(text: str, message: str) -> None:
    with pytest.raises(PrecisionError) as caught:
        LayerPrecision.parse(text)
    assert str(caught.value) == message
