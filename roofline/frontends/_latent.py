"""Multi-head latent attention: keys and values of all heads from one compressed vector a token."""

from __future__ import annotations

from dataclasses import dataclass

from roofline.frontends._builder import Builder, Value, Weight
from roofline.graph import Extents, TensorSpec


@dataclass(frozen=True)
class Latent:
    """Sizes of latent attention.

    Attributes:
        heads: Query heads.
        q_rank: Width of the compressed query; 0 where queries are projected at once.
        kv_rank: Width of the compressed keys and values.
        nope: Width of a head's query and key without position.
        rope: Width of their rotating part, which all heads' keys share.
        value: Width of a head's value.
        bias: Whether the compressing projections and the last have biases.
    """

    heads: int
    q_rank: int
    kv_rank: int
    nope: int
    rope: int
    value: int
    bias: bool = False


def latent_attention(b: Builder, m: Latent, name: str, x: Value, *, absorbed: bool, past: int) -> Value:
    """Build the attention of one layer; returns ``[B, T, H]``.

    At prefill keys and values of all heads are expanded from the compressed ones. At decode (``absorbed``) they never
    are, as engines run it: ``q k = (q W_uk) c`` and ``p v = (p c) W_uv``, so ``kv_b_proj`` is applied to queries and
    results, and attention reads the compressed cache once for all heads.

    Source: DeepSeek-AI, DeepSeek-V2, arXiv 2405.04434, section 2.1.
    """
    batch, length, hidden = x.shape
    if m.q_rank:
        q = b.norm(b.linear(x, f"{name}.q_a_proj", m.q_rank, bias=m.bias), f"{name}.q_a_layernorm", "rms_norm")
        q = b.linear(q, f"{name}.q_b_proj", m.heads * (m.nope + m.rope))
    else:
        q = b.linear(x, f"{name}.q_proj", m.heads * (m.nope + m.rope))
    both = b.linear(x, f"{name}.kv_a_proj_with_mqa", m.kv_rank + m.rope, bias=m.bias)
    latent = b.norm(b.part(both, batch, length, m.kv_rank), f"{name}.kv_a_layernorm", "rms_norm")
    turned = b.part(q, batch, m.heads, length, m.rope)
    q_rope = b.elementwise(f"{name}.rotary", [turned], "mul", flops=3, layer=name)
    k_rope = b.elementwise(
        f"{name}.rotary", [b.part(both, batch, 1, length, m.rope)], "mul", flops=3, layer=name
    )  # fmt: skip
    cache = [
        entry
        for tokens in (past, length)
        for entry in b.cached(f"{name}.latent_cache", 1, tokens, m.kv_rank + m.rope)
    ]  # fmt: skip
    attend = _absorbed if absorbed else _expanded
    out = attend(b, m, name, (q, q_rope), (latent, k_rope), cache=cache, past=past)
    return b.linear(out, f"{name}.o_proj", hidden, bias=m.bias)


def _expanded(
    b: Builder,
    m: Latent,
    name: str,
    q: tuple[Value, Value],
    kv: tuple[Value, Value],
    *,
    cache: list[TensorSpec],
    past: int,
) -> Value:
    batch, length, _ = kv[0].shape
    expanded = b.linear(kv[0], f"{name}.kv_b_proj", m.heads * (m.nope + m.value))
    nope = b.part(expanded, batch, m.heads, length, m.nope)
    shape = (batch, m.heads, length, m.nope + m.rope)
    key = b.op(f"{name}.cat", "copy", [nope, kv[1]], shape, layer=name, target="cat")
    query = Value(shape, (*q[0].producers, *q[1].producers), b.fresh(), b.dtype)
    value = b.part(expanded, batch, m.heads, length, m.value)
    b.notes.append("latent attention at prefill: keys and values of all heads are expanded, the cache is compressed")
    return b.attention(name, query, key, value, keys=past + length, cache=cache, causal=True)


def _absorbed(
    b: Builder,
    m: Latent,
    name: str,
    q: tuple[Value, Value],
    kv: tuple[Value, Value],
    *,
    cache: list[TensorSpec],
    past: int,
) -> Value:
    batch, length, _ = kv[0].shape
    nope = b.part(q[0], batch, m.heads, length, m.nope)
    query = _through(b, m, name, nope, (batch, m.heads, length, m.kv_rank), part=m.nope)
    width = m.kv_rank + m.rope
    query = Value((batch, m.heads, length, width), (*query.producers, *q[1].producers), b.fresh(), b.dtype)
    key = Value((batch, 1, length, width), (*kv[0].producers, *kv[1].producers), b.fresh(), b.dtype)
    value = key._replace(shape=(batch, 1, length, m.kv_rank))
    b.notes.append(
        f"latent attention at decode: kv_b_proj is absorbed in queries and results, the cache holds {width} values a "
        "token and layer and is read once"
    )
    mixed = b.attention(name, query, key, value, keys=past + length, cache=cache, causal=True, shared=True)
    return _through(b, m, name, mixed, (batch, length, m.heads * m.value), part=m.value)


def _through(b: Builder, m: Latent, name: str, x: Value, shape: tuple[int, ...], *, part: int) -> Value:
    """Apply the part of ``kv_b_proj`` that makes keys to queries, or the part that makes values to results."""
    rows = m.heads * part
    full = Weight(
        f"{name}.kv_b_proj", f"{name}.kv_b_proj.weight", (m.heads * (m.nope + m.value), m.kv_rank),
        m.heads * (m.nope + m.value),
    )  # fmt: skip
    outer, inner = (m.kv_rank, part) if len(shape) == 4 else (part, m.kv_rank)
    tokens = shape[0] * (shape[2] if len(shape) == 4 else shape[1])
    return b.op(
        full.layer, "linear", [x, *b.weight(full, elements=rows * m.kv_rank, channels=rows)], shape, target="bmm",
        macs=tokens * rows * m.kv_rank, extents=Extents(m.heads, tokens, outer, inner),
    )  # fmt: skip
