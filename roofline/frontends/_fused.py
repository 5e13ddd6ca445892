"""Operators that run many ops in one call: recurrent layers on ``meta``, and the transformer fast paths.

The fast paths are recorded as the ops they fuse, so that each weight keeps its layer and its format.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch._ops import OpOverload

if TYPE_CHECKING:
    from roofline.frontends._tracer import Tracer

FusedRun = Callable[["Tracer", OpOverload, Any, Any], Any]


def recurrent(tracer: Tracer, func: OpOverload, args: Any, kwargs: Any) -> Any:
    """Record a recurrent layer without running its time steps: the output shapes follow from the states'."""
    sequence, states, *_ = args
    first = states[0] if isinstance(states, list | tuple) else states
    directions = 2 if args[7] else 1
    out = sequence.new_empty((*sequence.shape[:-1], directions * first.shape[-1]))
    rest = [torch.empty_like(s) for s in states] if isinstance(states, list | tuple) else [torch.empty_like(states)]
    result = (out, *rest)
    tracer.record_call(func, args, kwargs, result)
    return result


def _attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int, weights: tuple[Any, Any, Any, Any]
) -> torch.Tensor:
    qkv_weight, qkv_bias, out_weight, out_bias = weights
    if query is key and key is value:
        parts = F.linear(query, qkv_weight, qkv_bias).chunk(3, dim=-1)
    else:
        biases = qkv_bias.chunk(3) if qkv_bias is not None else (None,) * 3
        parts = tuple(
            F.linear(x, w, b) for x, w, b in zip((query, key, value), qkv_weight.chunk(3), biases, strict=True)
        )
    q, k, v = (p.unflatten(-1, (heads, -1)).transpose(1, 2) for p in parts)
    attended = F.scaled_dot_product_attention(q, k, v)
    return F.linear(attended.transpose(1, 2).flatten(2), out_weight, out_bias)


def encoder_layer(tracer: Tracer, func: OpOverload, args: Any, kwargs: Any) -> Any:
    """Record ``aten._transformer_encoder_layer_fwd`` as attention, feed-forward, residual sums and norms."""
    out = func(*args, **kwargs)
    x, dim, heads, *weights = (tracer.stand_in(a) for a in args)
    attention_weights = tuple(weights[:4])
    gelu, norm_first, eps, g1, b1, g2, b2, w1, c1, w2, c2 = weights[4:15]

    def feed_forward(y: torch.Tensor) -> torch.Tensor:
        hidden = F.linear(y, w1, c1)
        return F.linear(F.gelu(hidden) if gelu else F.relu(hidden), w2, c2)

    with tracer:
        if norm_first:
            y = F.layer_norm(x, (dim,), g1, b1, eps)
            x = x + _attention(y, y, y, heads, attention_weights)
            result = x + feed_forward(F.layer_norm(x, (dim,), g2, b2, eps))
        else:
            x = F.layer_norm(x + _attention(x, x, x, heads, attention_weights), (dim,), g1, b1, eps)
            result = F.layer_norm(x + feed_forward(x), (dim,), g2, b2, eps)
    tracer.link(out, result)
    return out


def multi_head_attention(tracer: Tracer, func: OpOverload, args: Any, kwargs: Any) -> Any:
    """Record ``aten._native_multi_head_attention`` as projections and attention."""
    out = func(*args, **kwargs)
    query, key, value, _dim, heads, *weights = (tracer.stand_in(a) for a in args)
    with tracer:
        result = _attention(query, key, value, heads, tuple(weights[:4]))
    tracer.link(out[0], result)
    return out


ON_META: dict[str, FusedRun] = dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), recurrent)
ON_REAL: dict[str, FusedRun] = {
    "_transformer_encoder_layer_fwd": encoder_layer,
    "_native_multi_head_attention": multi_head_attention,
}
