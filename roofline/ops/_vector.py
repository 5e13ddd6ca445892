"""FLOPs of element-wise work and reductions, which run outside the matrix units."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

Shape = Sequence[int]

_NORM_FLOPS_PER_VALUE = {"batch_norm": 2, "layer_norm": 7, "group_norm": 7, "rms_norm": 4}
_INTERPOLATION_TAPS = {"nearest": 1, "linear": 2, "bilinear": 4, "bicubic": 16, "trilinear": 8}


def elementwise_flops(output: Shape) -> int:
    """Count an element-wise function: one FLOP per output value."""
    return prod(output)


def reduction_flops(input_: Shape) -> int:
    """Count a reduction or scan: one FLOP per input value."""
    return prod(input_)


def softmax_flops(output: Shape) -> int:
    """Count a softmax: five FLOPs per value (maximum, subtract, exponential, sum, divide)."""
    return 5 * prod(output)


def attention_softmax_flops(query: Shape, key: Shape) -> int:
    """Count softmax and scaling of attention scores ``[..., Hq, M, N]``: six FLOPs per score."""
    return 6 * prod(query[:-1]) * key[-2]


def norm_flops(kind: str, output: Shape) -> int:
    """Count a normalisation at inference.

    Per value: batch norm 2 (its statistics are constants: scale and shift); layer and group norm 7 (sum; subtract,
    square and sum; scale; affine); RMS norm 4 (square and sum; scale; weight).

    Source: Ioffe and Szegedy, arXiv 1502.03167; Ba et al., arXiv 1607.06450; Zhang and Sennrich, arXiv 1910.07467.
    """
    return _NORM_FLOPS_PER_VALUE[kind] * prod(output)


def pool_flops(output: Shape, window: int) -> int:
    """Count a pooling: one FLOP per tap, ``window`` taps per output value."""
    return prod(output) * window


def interpolate_flops(mode: str, output: Shape) -> int:
    """Count an interpolation of t taps per output value: t products and t − 1 additions; nearest is a copy."""
    taps = _INTERPOLATION_TAPS[mode]
    return (2 * taps - 1) * prod(output) if taps > 1 else 0


def recurrent_gate_flops(kind: str, hidden: int, steps: int, layers: int) -> int:
    """Count the element-wise work of recurrent cells.

    Per hidden value: LSTM 17 (two sums for each of four gates, their functions, three products, one sum, one tanh), GRU
    14, RNN 3. ``layers`` counts layers times directions, ``steps`` is T · B.
    """
    return {"lstm": 17, "gru": 14, "rnn": 3}[kind] * hidden * steps * layers
