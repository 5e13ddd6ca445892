"""Decoders of language models: embeddings, blocks of attention and feed-forward, a head; prefill or one new token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from roofline.frontends._builder import Builder, Value, Weight
from roofline.frontends._experts import Mixture, gated, mixture
from roofline.frontends._latent import Latent, latent_attention

Phase = Literal["prefill", "decode"]


@dataclass(frozen=True)
class Run:
    """What runs: ``tokens`` new ones a sequence after ``past`` that the cache holds.

    Attributes:
        phase: ``prefill`` (the prompt at once) or ``decode`` (one new token).
        batch: Sequences, or images.
        tokens: New tokens of each sequence.
        past: Tokens that the key-value cache holds.
        every_logit: Whether the head runs on every token of the prompt, not on the last alone.
    """

    phase: Phase
    batch: int
    tokens: int
    past: int
    every_logit: bool = False


@dataclass(frozen=True)
class Names:
    """How the modules of a block are called in transformers."""

    base: str = "model"
    embed: str = "embed_tokens"
    positions: str = ""
    layers: str = "layers"
    attention: str = "self_attn"
    q: str = "q_proj"
    k: str = "k_proj"
    v: str = "v_proj"
    qkv: str = ""
    o: str = "o_proj"
    q_norm: str = "q_norm"
    k_norm: str = "k_norm"
    mlp: str = "mlp"
    up: str = "up_proj"
    down: str = "down_proj"
    act: str = "act_fn"
    before_attention: str = "input_layernorm"
    after_attention: str = ""
    before_mlp: str = "post_attention_layernorm"
    after_mlp: str = ""
    norm: str = "norm"
    head: str = "lm_head"


@dataclass(frozen=True)
class Decoder:
    """The architecture of a decoder: sizes, and what its blocks do.

    Attributes:
        hidden: Width of the residual stream.
        embedded: Width of the embedding table; where it differs, ``project_in`` and ``project_out`` join them.
        vocabulary: Rows of the embedding table.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Width of a head.
        inner: Inner width of the feed-forward part.
        windows: For each layer the tokens that attention sees, or ``None`` for all.
        mixtures: For each layer its experts, or ``None`` for a dense one.
        names: Names of modules.
        norm: ``rms_norm`` or ``layer_norm``.
        feed_forward: ``gated``, ``fused`` (gate and up in one matrix) or ``plain``.
        act: Activation function.
        qkv_bias: Whether projections to q, k and v have biases; ``k_bias`` whether that to k has.
        qk_norm: Normalise queries and keys: ``head`` over each head's values, ``all`` over all of them.
        qk_norm_kind: The kind of that normalisation.
        rotary: Share of each head that rotates by position.
        positions: Rows of a table of learned positions; 0 without one.
        shared_positions: Whether they are looked up once for all sequences.
        longest: Positions the model was made for; 0 where nobody says.
        parallel: Whether attention and feed-forward read the same block input.
        scaled_embedding: Whether embeddings are multiplied by a constant.
        softcap: Whether attention scores are capped by tanh.
        final_softcap: Whether logits are.
        sinks: Whether each head has a learned sink.
        tied: Whether the head is the embedding table.
        latent: Multi-head latent attention.
        conv1d: Whether matrices are stored transposed, as in GPT-2.
    """

    hidden: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    windows: tuple[int | None, ...]
    mixtures: tuple[Mixture | None, ...]
    names: Names = Names()
    norm: str = "rms_norm"
    final_norm: bool = True
    feed_forward: Literal["gated", "fused", "plain"] = "gated"
    act: str = "silu"
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    qk_norm: Literal["", "head", "all"] = ""
    qk_norm_kind: str = "rms_norm"
    rotary: float = 1.0
    positions: int = 0
    shared_positions: bool = True
    longest: int = 0
    embedded: int = 0
    parallel: bool = False
    scaled_embedding: bool = False
    softcap: bool = False
    final_softcap: bool = False
    sinks: bool = False
    tied: bool = False
    latent: Latent | None = None
    conv1d: bool = False


def decode_model(b: Builder, d: Decoder, run: Run) -> Value:
    """Build a decoder; returns the logits."""
    n = d.names
    prefix = f"{n.base}." if n.base else ""
    width = d.embedded or d.hidden
    table = Weight(f"{prefix}{n.embed}", f"{prefix}{n.embed}.weight", (d.vocabulary, width), d.vocabulary)
    x = b.embedding(b.input((run.batch, run.tokens)), table)
    if d.scaled_embedding:
        x = b.elementwise(f"{prefix}{n.embed}.mul", [x], "mul", layer=f"{prefix}{n.embed}")
    if width != d.hidden:
        x = b.linear(x, f"{prefix}project_in", d.hidden)
    if d.positions:
        name = f"{prefix}{n.positions}"
        rows = b.input((1 if d.shared_positions else run.batch, run.tokens), batched=not d.shared_positions)
        found = b.embedding(rows, Weight(name, f"{name}.weight", (d.positions, d.hidden), d.positions))
        x = b.add(n.base, x, found)
    for index, window in enumerate(d.windows):
        x = _block(b, d, run, f"{prefix}{n.layers}.{index}", x, window=window, experts=d.mixtures[index])
    if d.final_norm:
        x = b.norm(x, f"{prefix}{n.norm}", d.norm)
    if width != d.hidden:
        x = b.linear(x, f"{prefix}project_out", width)
    if not run.every_logit and run.tokens > 1:
        x = b.part(x, run.batch, 1, width)
    logits = b.linear(x, n.head, d.vocabulary, bias=d.head_bias, tied=table if d.tied else None)
    return b.elementwise("tanh", [logits], "tanh", flops=3, layer="") if d.final_softcap else logits


def _block(
    b: Builder, d: Decoder, run: Run, name: str, x: Value, *, window: int | None, experts: Mixture | None
) -> Value:
    n = d.names
    y = b.norm(x, f"{name}.{n.before_attention}", d.norm) if n.before_attention else x
    if d.latent is not None:
        attended = latent_attention(
            b, d.latent, f"{name}.{n.attention}", y, absorbed=run.phase == "decode", past=run.past
        )
    else:
        attended = _attention(b, d, run, f"{name}.{n.attention}", y, window=window)
    if n.after_attention:
        attended = b.norm(attended, f"{name}.{n.after_attention}", d.norm)
    if d.parallel:
        z = b.norm(x, f"{name}.{n.before_mlp}", d.norm) if n.before_mlp else y
        return b.add(name, b.add(name, attended, _feed_forward(b, d, name, z, experts)), x)
    x = b.add(name, x, attended)
    y = b.norm(x, f"{name}.{n.before_mlp}", d.norm) if n.before_mlp else x
    out = _feed_forward(b, d, name, y, experts)
    if n.after_mlp:
        out = b.norm(out, f"{name}.{n.after_mlp}", d.norm)
    return b.add(name, x, out)


def _feed_forward(b: Builder, d: Decoder, name: str, x: Value, experts: Mixture | None) -> Value:
    n = d.names
    mlp = f"{name}.{n.mlp}" if n.mlp else name
    if experts is not None:
        return mixture(b, x, mlp, experts, d.act)
    if d.feed_forward == "gated":
        return gated(b, x, mlp, d.inner, d.act, bias=d.mlp_bias)
    if d.feed_forward == "fused":
        both = b.linear(x, f"{mlp}.gate_up_proj", 2 * d.inner, bias=d.mlp_bias)
        gate, up = (b.part(both, *x.shape[:-1], d.inner) for _ in range(2))
        active = b.elementwise(f"{mlp}.activation_fn", [gate], d.act)
        inner = b.elementwise(f"{mlp}.mul", [active, up], "mul", layer=mlp)
    else:
        wide = b.linear(x, f"{mlp}.{n.up}", d.inner, bias=d.mlp_bias, conv1d=d.conv1d)
        inner = b.elementwise(f"{mlp}.{n.act}", [wide], d.act)
    return b.linear(inner, f"{mlp}.{n.down}", d.hidden, bias=d.mlp_bias, conv1d=d.conv1d)


def _attention(b: Builder, d: Decoder, run: Run, name: str, x: Value, *, window: int | None) -> Value:
    n = d.names
    q, k, v = _projected(b, d, name, x)
    if d.qk_norm == "all":
        q, k = b.norm(q, f"{name}.{n.q_norm}", d.qk_norm_kind), b.norm(k, f"{name}.{n.k_norm}", d.qk_norm_kind)
    heads = (run.batch, -1, run.tokens, d.head_dim)
    q, k, v = (split(t, heads, count) for t, count in ((q, d.heads), (k, d.kv_heads), (v, d.kv_heads)))
    if d.qk_norm == "head":
        q, k = b.norm(q, f"{name}.{n.q_norm}", d.qk_norm_kind), b.norm(k, f"{name}.{n.k_norm}", d.qk_norm_kind)
    q, k = (rotated(b, name, t, round(d.rotary * d.head_dim)) for t in (q, k))
    past = run.past if window is None else min(run.past, window - 1)
    kept = run.tokens if window is None else min(run.tokens, window)
    cache = [
        entry
        for tokens in (past, kept)
        for part in ("k", "v")
        for entry in b.cached(f"{name}.{part}_cache", d.kv_heads, tokens, d.head_dim)
    ]
    sinks = [b.parameter(f"{name}.sinks", d.heads)] if d.sinks else []
    cut = window is not None and past + run.tokens >= window
    out = b.attention(
        name, q, k, v, keys=past + kept, cache=[*cache, *sinks], causal=True, softcap=d.softcap,
        note=f"window of {window} tokens" if cut else "",
    )  # fmt: skip
    return b.linear(out, f"{name}.{n.o}", d.hidden, bias=d.o_bias, conv1d=d.conv1d)


def _projected(b: Builder, d: Decoder, name: str, x: Value) -> tuple[Value, Value, Value]:
    n = d.names
    sizes = d.heads * d.head_dim, d.kv_heads * d.head_dim, d.kv_heads * d.head_dim
    if n.qkv:
        all_three = b.linear(x, f"{name}.{n.qkv}", sum(sizes), bias=d.qkv_bias, conv1d=d.conv1d)
        q, k, v = (b.part(all_three, *x.shape[:-1], size) for size in sizes)
    else:
        q, k, v = (
            b.linear(x, f"{name}.{part}", size, bias=d.qkv_bias)
            for part, size in zip((n.q, n.k, n.v), sizes, strict=True)
        )
    return q, k, v


def split(value: Value, heads: tuple[int, int, int, int], count: int) -> Value:
    """View ``[B, T, H · D]`` as ``[B, H, T, D]``."""
    return value._replace(shape=(heads[0], count, *heads[2:]))


def rotated(b: Builder, module: str, x: Value, width: int) -> Value:
    """Rotate the first ``width`` values of each head by position: two products and a sum for each value."""
    if not width:
        return x
    turned = b.part(x, *x.shape[:-1], width) if width < x.shape[-1] else x
    found = b.elementwise(f"{module}.rotary", [turned], "mul", flops=3, layer=module)
    if width == x.shape[-1]:
        return found
    return Value(x.shape, (*x.producers, *found.producers), b.fresh(), x.dtype, x.batched)
