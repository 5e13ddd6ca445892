"""Quantized values by hand, and the relations that every format keeps."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aiq.quantize import fake_quantize, noise_to_signal
from roofline import Precision

SYMMETRIC = ("int2", "int3", "int4", "int8", "int16", "int4:g32", "int8:g7", "int8:c")
AFFINE = ("int2:z2", "int4:z4", "int8:z8", "int4:g7:z4")
FLOATS = ("fp32", "tf32", "bf16", "fp16", "fp8_e4m3", "fp8_e5m2")


def quantize(text: str, rows: list[list[float]]) -> torch.Tensor:
    return fake_quantize(torch.tensor(rows), Precision.parse(text))


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("text", "row", "expected"),
    [
        # scale 127 / 127 = 1; halves go to the even neighbour
        ("int8", [127.0, 0.4, 0.5, 1.5, 2.5, -2.5, -126.6], [127, 0, 0, 2, 2, -2, -127]),
        # scale 3.5 / 7 = 0.5; −8 is not used
        ("int4", [3.5, -3.5, 1.0, 0.7, 0.3, -0.2], [3.5, -3.5, 1.0, 0.5, 0.5, 0.0]),
        # scale 1: the three values of int2 are −1, 0, 1
        ("int2", [1.0, -1.0, 0.6, 0.4, -0.4], [1, -1, 1, 0, 0]),
        # min −1.5, max 6, scale 7.5 / 15 = 0.5, zero point 3
        ("int4:z4", [-1.5, 0.0, 6.0, 1.1, -0.8], [-1.5, 0.0, 6.0, 1.0, -1.0]),
        # all positive: zero is in the range, scale 30 / 15 = 2
        ("int4:z4", [30.0, 29.0, 10.9], [30, 28, 10]),
        # all negative: zero is in the range, scale 15 / 15 = 1, zero point 15
        ("int4:z4", [-15.0, -3.2], [-15, -3]),
        # groups of two, the last one short: scales 7 / 7, 70 / 7, 14 / 7
        ("int4:g2", [7.0, 3.4, 70.0, 34.0, 14.0], [7, 3, 70, 30, 14]),
        # a group as long as the row, and one longer, is the row
        ("int4:g5", [7.0, 3.4, 70.0, 34.0, 14.0], [10 * round(v / 10) for v in (7.0, 3.4, 70.0, 34.0, 14.0)]),
        ("int4:g64", [7.0, 3.4, 70.0, 34.0, 14.0], [10 * round(v / 10) for v in (7.0, 3.4, 70.0, 34.0, 14.0)]),
    ],
)
def test_by_hand(text: str, row: list[float], expected: list[float]) -> None:
    assert quantize(text, [row])[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_each_channel_has_its_own_scale() -> None:
    rows = [[127.0, 0.6], [1.27, 0.006]]
    assert quantize("int8", rows).tolist() == [pytest.approx([127.0, 1.0]), pytest.approx([1.27, 0.01])]


def test_groups_run_along_the_flattened_input_axes() -> None:
    values = gaussian(4, 3, 5, 5)
    flat = fake_quantize(values.reshape(4, 75), Precision.parse("int4:g10"))
    assert torch.equal(fake_quantize(values, Precision.parse("int4:g10")), flat.reshape(4, 3, 5, 5))


@pytest.mark.parametrize("text", SYMMETRIC + AFFINE + FLOATS)
def test_idempotent(text: str) -> None:
    precision = Precision.parse(text)
    once = fake_quantize(gaussian(16, 100) * 10 ** gaussian(16, 1, seed=1), precision)
    twice = fake_quantize(once, precision)
    # an affine scale is derived from both ends: it may come back an ulp away
    torch.testing.assert_close(twice, once, rtol=1e-6 if text in AFFINE else 0.0, atol=0.0)


@pytest.mark.parametrize("text", SYMMETRIC + AFFINE)
def test_the_error_is_at_most_half_a_step(text: str) -> None:
    precision = Precision.parse(text)
    values = gaussian(8, 105, seed=2) * 10 ** gaussian(8, 1, seed=3)
    quantized = fake_quantize(values, precision)
    size = precision.group_size or values.shape[1]
    for start in range(0, values.shape[1], size):
        group, got = values[:, start : start + size], quantized[:, start : start + size]
        if precision.zero_point_bits:
            span = group.amax(1, keepdim=True).clamp(min=0) - group.amin(1, keepdim=True).clamp(max=0)
            step = span / (2**precision.bits - 1)
        else:
            step = group.abs().amax(1, keepdim=True) / (2 ** (precision.bits - 1) - 1)
        assert ((group - got).abs() <= 0.5 * step * (1 + 1e-3)).all()
        assert ((got / step).round() * step - got).abs().max() <= 1e-3 * step.max() + 4e-7 * got.abs().max()


@pytest.mark.parametrize(("text", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_floats_are_torch_casts(text: str, dtype: torch.dtype) -> None:
    values = gaussian(8, 1000) * 10 ** (2 * gaussian(8, 1, seed=1))
    assert torch.equal(fake_quantize(values, Precision.parse(text)), values.to(dtype).float())


@pytest.mark.parametrize("text", ["fp32", "fp64"])
def test_wide_floats_change_nothing(text: str) -> None:
    values = gaussian(4, 50)
    assert torch.equal(fake_quantize(values, Precision.parse(text)), values)


@pytest.mark.parametrize(("text", "dtype"), [("fp8_e4m3", torch.float8_e4m3fn), ("fp8_e5m2", torch.float8_e5m2)])
def test_fp8_is_a_scaled_torch_cast(text: str, dtype: torch.dtype) -> None:
    top = torch.finfo(dtype).max
    values = gaussian(8, 200)
    values = values / values.abs().amax(1, keepdim=True) * top  # the scale is then 1
    expected = values.to(dtype).float()
    torch.testing.assert_close(fake_quantize(values, Precision.parse(text)), expected, rtol=1e-6, atol=0)
    shrunk = fake_quantize(values * 2.0**-20, Precision.parse(text))
    torch.testing.assert_close(shrunk, expected * 2.0**-20, rtol=1e-6, atol=0)


def test_tf32_keeps_ten_bits_of_mantissa() -> None:
    ulp = 2.0**-10
    row = [1.0, 1 + ulp, 1 + ulp / 4, 1 + 0.75 * ulp, -(1 + 0.75 * ulp), 3 * 2.0**-130, 1e38]
    got = quantize("tf32", [row])[0]
    assert got[:5].tolist() == [1.0, 1 + ulp, 1.0, 1 + ulp, -(1 + ulp)]
    bits = got.view(torch.int32)
    assert (bits & 0x1FFF).eq(0).all()
    values = gaussian(4, 1000)
    error = (fake_quantize(values, Precision.parse("tf32")) - values).abs() / values.abs()
    assert 0 < error.max() <= ulp / 2


def test_tf32_leaves_its_argument_alone() -> None:
    values = gaussian(2, 3)
    before = values.clone()
    for text in SYMMETRIC + AFFINE + FLOATS:
        fake_quantize(values, Precision.parse(text))
    assert torch.equal(values, before)


@pytest.mark.parametrize("text", SYMMETRIC + AFFINE + FLOATS)
def test_zeros_stay_zero(text: str) -> None:
    zeros = torch.zeros(3, 5)
    assert torch.equal(fake_quantize(zeros, Precision.parse(text)), zeros)
    assert noise_to_signal(zeros, Precision.parse(text)) == 0.0


@pytest.mark.parametrize("text", SYMMETRIC + AFFINE + FLOATS)
def test_zero_is_represented_exactly(text: str) -> None:
    values = gaussian(4, 64)
    values[:, 10] = 0.0
    assert fake_quantize(values, Precision.parse(text))[:, 10].abs().max() == 0.0


@pytest.mark.parametrize("text", SYMMETRIC + AFFINE + FLOATS)
def test_shape_and_type(text: str) -> None:
    for shape in [(4, 3, 3, 3), (4, 7), (4,), (1, 1)]:
        for dtype in (torch.float32, torch.float64, torch.float16):
            got = fake_quantize(torch.ones(shape, dtype=dtype), Precision.parse(text))
            assert (got.shape, got.dtype) == (shape, torch.float32)


@pytest.mark.parametrize("text", ["int8", "int4:g2", "int8:z8", "fp8_e4m3"])
def test_the_ends_of_float32_stay_finite(text: str) -> None:
    got = quantize(text, [[3e38, -3e38, 1.0], [1e-42, -1e-43, 0.0]])
    assert torch.isfinite(got).all()
    assert got[0].tolist() == pytest.approx([3e38, -3e38, 0.0], rel=1e-2, abs=3e36)


@pytest.mark.parametrize("group", [100, 10**6, 999_999_999])
def test_a_group_longer_than_the_row_is_the_row(group: int) -> None:
    values = gaussian(4, 100)
    assert torch.equal(
        fake_quantize(values, Precision.parse(f"int4:g{group}")), fake_quantize(values, Precision.parse("int4"))
    )


def test_noise_to_signal_by_hand() -> None:
    # scale 1: errors 0, 0.25, −0.25
    values = torch.tensor([[7.0, 1.25, 2.75]])
    assert noise_to_signal(values, Precision.parse("int4")) == pytest.approx(0.125 / (49 + 1.25**2 + 2.75**2), rel=1e-9)


def test_six_decibels_a_bit() -> None:
    values = gaussian(64, 4096)
    decibels = [-10 * math.log10(noise_to_signal(values, Precision.parse(f"int{b}"))) for b in range(5, 15)]
    steps = [b - a for a, b in itertools.pairwise(decibels)]
    assert all(5.9 < step < 6.8 for step in steps)
    assert steps[-1] == pytest.approx(20 * math.log10(2), abs=0.1)


@given(st.integers(0, 10_000), st.sampled_from(["", ":g16", ":z"]))
@settings(max_examples=25, deadline=None)
def test_more_bits_never_add_noise(seed: int, options: str) -> None:
    values = gaussian(8, 256, seed=seed)
    noise = [noise_to_signal(values, Precision.parse(f"int{b}{options}")) for b in range(2, 13)]
    assert all(wide < narrow for narrow, wide in itertools.pairwise(noise))


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_scaling_by_a_power_of_two_changes_nothing(seed: int) -> None:
    values = gaussian(4, 64, seed=seed)
    for text in ("int8", "int4:g16", "int4:z4", "fp8_e4m3", "bf16"):
        precision = Precision.parse(text)
        assert torch.equal(fake_quantize(values * 8, precision), fake_quantize(values, precision) * 8)


def test_smaller_groups_add_no_noise_to_a_gaussian() -> None:
    values = gaussian(64, 1024)
    noise = [noise_to_signal(values, Precision.parse(f"int4{g}")) for g in (":g16", ":g64", ":g256", "")]
    assert noise == sorted(noise)


def test_the_package_is_light_and_names_what_it_has() -> None:
    import aiq.quantize

    assert all(callable(getattr(aiq.quantize, name)) for name in aiq.quantize.__all__)
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        aiq.quantize.quantise  # noqa: B018
