"""Round-to-nearest quantization of a tensor, per output channel or per group."""

from __future__ import annotations

import torch

from roofline.precision import Precision

CASTS = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
_TF32_DROPPED_BITS = 13


def fake_quantize(values: torch.Tensor, precision: Precision) -> torch.Tensor:
    """Round values to a number format and return them as float32.

    Integers, symmetric: ``s = max|x| / (2^(b−1) − 1)``, ``q = clamp(round(x / s), −(2^(b−1) − 1), 2^(b−1) − 1)``,
    returned as ``s · q``; with a zero point, affine over [min, max] in 2^b − 1 steps. One scale for each group of
    ``precision.group_size`` values along the flattened input axes, else for each output channel. FP8 is scaled so that
    the largest value of a channel meets the format's largest; the other floats are cast.

    Args:
        values: Tensor [channels, ...]; the first axis holds the output channels.
        precision: The format.

    Source: Nagel et al., A White Paper on Neural Network Quantization, arXiv 2106.08295, section 2.
    """
    flat = values.detach().to(torch.float32).reshape(values.shape[0], -1)
    if precision.name == "tf32":
        kept = flat.contiguous().view(torch.int32) + (1 << (_TF32_DROPPED_BITS - 1))
        return (kept >> _TF32_DROPPED_BITS << _TF32_DROPPED_BITS).view(torch.float32).reshape(values.shape)
    if precision.is_float and not precision.name.startswith("fp8"):
        return flat.to(CASTS[precision.name]).to(torch.float32).reshape(values.shape)
    groups, size = grouped(flat, precision.group_size)
    rounded = _fp8(groups, precision) if precision.is_float else _integer(groups, precision)
    return rounded.reshape(flat.shape[0], -1)[:, :size].reshape(values.shape)


def grouped(flat: torch.Tensor, group_size: int) -> tuple[torch.Tensor, int]:
    """Split rows into groups; a short last group repeats its last value, which changes no maximum or minimum."""
    size = flat.shape[1]
    if not group_size or group_size >= size:
        return flat[:, None, :], size
    short = -size % group_size
    padded = torch.cat([flat, flat[:, -1:].expand(-1, short)], dim=1) if short else flat
    return padded.reshape(flat.shape[0], -1, group_size), size


def _integer(groups: torch.Tensor, precision: Precision) -> torch.Tensor:
    values = groups.to(torch.float64)
    if precision.zero_point_bits:
        steps = 2**precision.bits - 1
        low = values.amin(-1, keepdim=True).clamp(max=0)
        scale = _nonzero((values.amax(-1, keepdim=True).clamp(min=0) - low) / steps)
        zero = (-low / scale).round()
        rounded = ((values / scale).round() + zero).clamp(0, steps).sub(zero)
    else:
        limit = 2 ** (precision.bits - 1) - 1
        scale = _nonzero(values.abs().amax(-1, keepdim=True) / limit)
        rounded = (values / scale).round().clamp(-limit, limit)
    return rounded.mul(scale).to(torch.float32)


def _nonzero(scale: torch.Tensor) -> torch.Tensor:
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def _fp8(groups: torch.Tensor, precision: Precision) -> torch.Tensor:
    dtype = CASTS[precision.name]
    scale = _nonzero(groups.abs().amax(-1, keepdim=True) / torch.finfo(dtype).max)
    return (groups / scale).to(dtype).to(torch.float32) * scale


def noise_to_signal(values: torch.Tensor, precision: Precision) -> float:
    """Return ``Σ (x − q(x))² / Σ x²``, the inverse of the signal-to-quantization-noise ratio; 0 for all-zero values."""
    exact = values.detach().to(torch.float64)
    signal = exact.square().sum().item()
    noise = (exact - fake_quantize(values, precision).to(torch.float64)).square().sum().item()
    return noise / signal if signal else 0.0
