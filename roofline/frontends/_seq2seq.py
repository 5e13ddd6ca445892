"""Encoder-decoder models: Whisper and T5. The decoder reads the encoder's keys and values from a cache of its own."""

from __future__ import annotations

from dataclasses import dataclass

from roofline.frontends._builder import Builder, Value, Weight
from roofline.frontends._config import Config
from roofline.frontends._decoder import Run
from roofline.frontends._encoders import Block, convolution, plain_mlp, pre_norm_block, projected
from roofline.graph import TensorSpec

_NAMES = ("self_attn_layer_norm", "self_attn", "out_proj", "final_layer_norm", "")


@dataclass(frozen=True)
class Whisper:
    """Sizes of Whisper: blocks of encoder and decoder, mel bins, positions of both, and the vocabulary."""

    encoder: Block
    decoder: Block
    layers: tuple[int, int]
    bins: int
    source: int
    target: int
    vocabulary: int


def read_whisper(c: Config) -> Whisper:
    """Read Whisper.

    Raises:
        ConfigError: A key is missing, out of range, or at odds with another.
    """
    width, act = c.whole("d_model"), c.text("activation_function", "gelu")
    blocks = []
    for side in ("encoder", "decoder"):
        heads = c.whole(f"{side}_attention_heads", high=4096)
        c.divided("d_model", f"{side}_attention_heads", (width, heads))
        blocks.append(Block(width, c.whole(f"{side}_ffn_dim"), heads, act, _NAMES, (True, False, True)))
    layers = c.layers("encoder_layers"), c.layers("decoder_layers")
    return Whisper(
        blocks[0], blocks[1], layers, c.whole("num_mel_bins", high=65536), c.whole("max_source_positions"),
        c.whole("max_target_positions"), c.whole("vocab_size"),
    )  # fmt: skip


def build_whisper(b: Builder, w: Whisper, run: Run) -> Value:
    """Build Whisper: at prefill the encoder and the prompt's tokens, at decode one token; returns the logits."""
    source = _listen(b, w) if run.phase == "prefill" else None
    width, base = w.decoder.hidden, "model.decoder"
    table = Weight(f"{base}.embed_tokens", f"{base}.embed_tokens.weight", (w.vocabulary, width), w.vocabulary)
    x = b.embedding(b.input((b.batch, run.tokens)), table)
    rows = _rows(b, f"{base}.embed_positions.weight", w.target, run.tokens, width)
    ids = b.input((b.batch, run.tokens))
    places = b.op(f"{base}.embed_positions", "copy", [ids, rows], (b.batch, run.tokens, width), target="index")
    x = b.add(base, x, places)
    for index in range(w.layers[1]):
        name = f"{base}.layers.{index}"
        y = b.norm(x, f"{name}.self_attn_layer_norm", "layer_norm")
        x = b.add(name, x, _self_attention(b, w.decoder, f"{name}.self_attn", y, run))
        y = b.norm(x, f"{name}.encoder_attn_layer_norm", "layer_norm")
        x = b.add(name, x, _cross_attention(b, w.decoder, f"{name}.encoder_attn", y, source, keys=w.source))
        x = plain_mlp(b, w.decoder, name, x, norm="final_layer_norm", mlp="")
    x = b.norm(x, f"{base}.layer_norm", "layer_norm")
    if not run.every_logit and run.tokens > 1:
        x = b.part(x, b.batch, 1, width)
    return b.linear(x, "proj_out", w.vocabulary, tied=table)


def _rows(b: Builder, name: str, rows: int, read: int, width: int) -> TensorSpec:
    """Return what reading a few rows of a table of positions moves."""
    table = b.parameter(name, rows, width)
    return TensorSpec(
        "parameter", table.shape, read * width, table.dtype, table.bits, True, name=name, stored=table.stored,
        identity=table.identity,
    )  # fmt: skip


def _listen(b: Builder, w: Whisper) -> Value:
    base, width = "model.encoder", w.encoder.hidden
    sound = b.input((b.batch, w.bins, 2 * w.source), b.dtype)
    first = Weight(f"{base}.conv1", f"{base}.conv1.weight", (width, w.bins, 3), width)
    x = b.elementwise(f"{base}.gelu", [convolution(b, sound, first, (2 * w.source,))], "gelu", layer=base)
    second = Weight(f"{base}.conv2", f"{base}.conv2.weight", (width, width, 3), width)
    x = b.elementwise(f"{base}.gelu", [convolution(b, x, second, (w.source,), variant="/2")], "gelu", layer=base)
    x = x._replace(shape=(b.batch, w.source, width))
    table = Weight(f"{base}.embed_positions", f"{base}.embed_positions.weight", (w.source, width), w.source)
    x = b.add(base, x, b.embedding(b.input((w.source,), batched=False), table))
    for index in range(w.layers[0]):
        x = pre_norm_block(b, w.encoder, f"{base}.layers.{index}", x)
    return b.norm(x, f"{base}.layer_norm", "layer_norm")


def _self_attention(b: Builder, e: Block, name: str, x: Value, run: Run) -> Value:
    q, k, v = projected(b, e, name, x, x)
    cache = _cache(b, name, e.heads, (run.past, run.tokens), e.hidden // e.heads)
    out = b.attention(name, q, k, v, keys=run.past + run.tokens, cache=cache, causal=True)
    return b.linear(out, f"{name}.out_proj", e.hidden, bias=True)


def _cross_attention(b: Builder, e: Block, name: str, x: Value, source: Value | None, *, keys: int) -> Value:
    """Attend to the encoder: its keys and values are computed and kept at prefill, and read from the cache after."""
    width = e.hidden // e.heads
    cache = _cache(b, name, e.heads, (keys,), width)
    if source is not None:
        q, k, v = projected(b, e, name, x, source)
    else:
        heads = (b.batch, e.heads, x.shape[1], width)
        q = b.linear(x, f"{name}.q_proj", e.hidden, bias=e.qkv_bias[0])._replace(shape=heads)
        k = v = Value((b.batch, e.heads, 0, width), (), b.fresh(), b.dtype)
    out = b.attention(name, q, k, v, keys=keys, cache=cache)
    return b.linear(out, f"{name}.out_proj", e.hidden, bias=True)


def _cache(b: Builder, name: str, heads: int, tokens: tuple[int, ...], width: int) -> list[TensorSpec]:
    return [
        entry
        for count in tokens
        for part in ("k", "v")
        for entry in b.cached(f"{name}.{part}_cache", heads, count, width)
    ]


@dataclass(frozen=True)
class T5:
    """Sizes of T5: width, a head's width, inner width, layers of encoder and decoder, heads, and what is special."""

    hidden: int
    head_dim: int
    inner: int
    layers: tuple[int, int]
    heads: int
    vocabulary: int
    buckets: int
    act: str
    gated: bool
    tied: bool


def read_t5(c: Config) -> T5:
    """Read T5, its version 1.1 and Flan-T5.

    Raises:
        ConfigError: A key is missing or out of range.
    """
    kind = c.text("feed_forward_proj", "relu")
    layers = c.layers("num_layers")
    decoder = c.layers("num_decoder_layers") if c.has("num_decoder_layers") else layers
    return T5(
        c.whole("d_model"), c.whole("d_kv"), c.whole("d_ff"), (layers, decoder), c.whole("num_heads", high=4096),
        c.whole("vocab_size"), c.whole("relative_attention_num_buckets", 32, high=65536), kind.removeprefix("gated-"),
        kind.startswith("gated-"), c.flag("tie_word_embeddings", True),
    )  # fmt: skip


def build_t5(b: Builder, t: T5, run: Run) -> Value:
    """Build T5: at prefill the encoder over the source and one token of the decoder; returns the logits."""
    length = run.past if run.phase == "decode" else run.tokens
    table = Weight("shared", "shared.weight", (t.vocabulary, t.hidden), t.vocabulary)
    source = None
    if run.phase == "prefill":
        x = b.embedding(b.input((b.batch, length)), table, "encoder.embed_tokens")
        bias = _positions(b, t, "encoder", length, length)
        for index in range(t.layers[0]):
            name = f"encoder.block.{index}.layer"
            x = _t5_self(b, t, f"{name}.0", x, bias, past=None)
            x = _t5_mlp(b, t, f"{name}.1", x)
        source = b.norm(x, "encoder.final_layer_norm", "rms_norm")
    x = b.embedding(b.input((b.batch, 1)), table, "decoder.embed_tokens")
    bias = _positions(b, t, "decoder", 1, run.past + 1)
    for index in range(t.layers[1]):
        name = f"decoder.block.{index}.layer"
        x = _t5_self(b, t, f"{name}.0", x, bias, past=run.past)
        x = _t5_cross(b, t, f"{name}.1", x, source, keys=length)
        x = _t5_mlp(b, t, f"{name}.2", x)
    x = b.norm(x, "decoder.final_layer_norm", "rms_norm")
    return b.linear(x, "lm_head", t.vocabulary, tied=table if t.tied else None)


def _positions(b: Builder, t: T5, side: str, queries: int, keys: int) -> Value:
    """Look up the bias of each pair of positions; the first layer has the table for all of its side."""
    name = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias"
    pairs = b.input((queries, keys), batched=False)
    return b.embedding(pairs, Weight(name, f"{name}.weight", (t.buckets, t.heads), t.buckets))


def _t5_self(b: Builder, t: T5, name: str, x: Value, bias: Value, *, past: int | None) -> Value:
    y, module = b.norm(x, f"{name}.layer_norm", "rms_norm"), f"{name}.SelfAttention"
    q, k, v = (_heads(b, t, y, f"{module}.{part}") for part in "qkv")
    length, kept = x.shape[1], 0 if past is None else past
    cache = [] if past is None else _cache(b, module, t.heads, (past, length), t.head_dim)
    out = b.attention(module, q, k, v, keys=kept + length, cache=cache, extra=[bias], causal=past is not None)
    return b.add(name, x, b.linear(out, f"{module}.o", t.hidden))


def _t5_cross(b: Builder, t: T5, name: str, x: Value, source: Value | None, *, keys: int) -> Value:
    y, module = b.norm(x, f"{name}.layer_norm", "rms_norm"), f"{name}.EncDecAttention"
    q = _heads(b, t, y, f"{module}.q")
    k = v = Value((b.batch, t.heads, 0, t.head_dim), (), b.fresh(), b.dtype)
    if source is not None:
        k, v = (_heads(b, t, source, f"{module}.{part}") for part in "kv")
    out = b.attention(module, q, k, v, keys=keys, cache=_cache(b, module, t.heads, (keys,), t.head_dim))
    return b.add(name, x, b.linear(out, f"{module}.o", t.hidden))


def _heads(b: Builder, t: T5, x: Value, name: str) -> Value:
    shape = (b.batch, t.heads, x.shape[1], t.head_dim)
    return b.linear(x, name, t.heads * t.head_dim)._replace(shape=shape)


def _t5_mlp(b: Builder, t: T5, name: str, x: Value) -> Value:
    y, module = b.norm(x, f"{name}.layer_norm", "rms_norm"), f"{name}.DenseReluDense"
    wide = b.linear(y, f"{module}.wi_0" if t.gated else f"{module}.wi", t.inner)
    inner = b.elementwise(f"{module}.act", [wide], t.act)
    if t.gated:
        up = b.linear(y, f"{module}.wi_1", t.inner)
        inner = b.elementwise(f"{module}.mul", [inner, up], "mul", layer=module)
    return b.add(name, x, b.linear(inner, f"{module}.wo", t.hidden))
