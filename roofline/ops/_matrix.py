"""Multiply-accumulates of convolution and matrix ops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

Shape = Sequence[int]


def conv_macs(output: Shape, weight: Shape) -> int:
    """Count a convolution, grouped and depthwise included.

    ``out[N, Cout, *O] = x[N, Cin, *I] ⋆ w[Cout, Cin/groups, *K]``: N · Cout · ΠO · Cin/groups · ΠK. The groups are in
    the weight's shape; stride, padding and dilation are in the output's.

    Args:
        output: Shape of the output, batch first.
        weight: Shape of the weight.

    Source: Dumoulin and Visin, A guide to convolution arithmetic, arXiv 1603.07285.
    """
    return output[0] * prod(output[2:]) * prod(weight)


def conv_transpose_macs(input_: Shape, weight: Shape) -> int:
    """Count a transposed convolution: every input value meets every tap of its filters.

    ``x[N, Cin, *I]``, ``w[Cin, Cout/groups, *K]``: N · ΠI · Cin · Cout/groups · ΠK.

    Source: Dumoulin and Visin, arXiv 1603.07285, section 4.
    """
    return input_[0] * prod(input_[2:]) * prod(weight)


def linear_macs(output: Shape, in_features: int) -> int:
    """Count a linear layer: ``out[..., N] = x[..., K] @ w[N, K]ᵀ`` is Π(...) · N · K."""
    return prod(output) * in_features


def matmul_macs(output: Shape, inner: int) -> int:
    """Count a (batched, broadcast) matrix product ``[..., M, K] @ [..., K, N]``: Π(...) · M · N · K."""
    return prod(output) * inner


def bilinear_macs(rows: int, out_features: int, in1: int, in2: int) -> int:
    """Count ``out[B, O] = Σ_ij x1[B, i] w[O, i, j] x2[B, j]`` as two products.

    ``[B, I1] @ [I1, O · I2]``, then a contraction over I2: B · O · I2 · (I1 + 1).
    """
    return rows * out_features * in2 * (in1 + 1)


def attention_macs(query: Shape, key: Shape, value: Shape) -> int:
    """Count scaled-dot-product attention: ``softmax(q kᵀ) v``.

    ``q[..., Hq, M, D]``, ``k[..., Hkv, N, D]``, ``v[..., Hkv, N, Dv]``: Π(...) · Hq · M · N · (D + Dv). With grouped
    queries the shared heads of k and v are read once and used Hq / Hkv times, so Hq counts. A causal mask is counted in
    full, as PyTorch's own counter does; a kernel that skips masked tiles does about half.

    Source: Vaswani et al., arXiv 1706.03762; Ainslie et al. (GQA), arXiv 2305.13245.
    """
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def recurrent_macs(weights: Iterable[Shape], steps: int) -> int:
    """Count an LSTM, GRU or RNN: each weight matrix meets one vector per sequence element.

    Σ over layers and directions of (rows · columns of W_ih, W_hh and W_hr) · T · B: 4H(I + H) per element for an LSTM
    layer, 3H(I + H) for a GRU, H(I + H) for an RNN.

    Args:
        weights: Shapes of the two-dimensional weights of all layers and directions.
        steps: T · B, sequence elements over the batch.

    Source: Hochreiter and Schmidhuber 1997; Cho et al., arXiv 1406.1078.
    """
    return steps * sum(prod(w) for w in weights)
