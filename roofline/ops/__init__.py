"""One pure formula per op kind: shapes in, multiply-accumulates or element-wise FLOPs out.

Conventions: 1 MAC = 2 FLOP; bias is not counted; an element-wise function is one FLOP per output value, whatever its
cost in instructions, and a reduction one FLOP per input value.
"""

from __future__ import annotations

from roofline.ops._matrix import (
    attention_macs,
    bilinear_macs,
    conv_macs,
    conv_transpose_macs,
    linear_macs,
    matmul_macs,
    recurrent_macs,
)
from roofline.ops._vector import (
    attention_softmax_flops,
    elementwise_flops,
    interpolate_flops,
    norm_flops,
    pool_flops,
    recurrent_gate_flops,
    reduction_flops,
    softmax_flops,
)

__all__ = [
    "attention_macs",
    "attention_softmax_flops",
    "bilinear_macs",
    "conv_macs",
    "conv_transpose_macs",
    "elementwise_flops",
    "interpolate_flops",
    "linear_macs",
    "matmul_macs",
    "norm_flops",
    "pool_flops",
    "recurrent_gate_flops",
    "recurrent_macs",
    "reduction_flops",
    "softmax_flops",
]
