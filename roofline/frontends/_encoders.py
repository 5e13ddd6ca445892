"""Encoders: BERT and its relatives over tokens, ViT over patches of an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from roofline import ops as formulas
from roofline.frontends._builder import Builder, Value, Weight
from roofline.frontends._config import Config
from roofline.graph import Extents, TensorSpec


@dataclass(frozen=True)
class Encoder:
    """Sizes of an encoder over tokens, and the names of its modules.

    Attributes:
        hidden: Width.
        inner: Inner width of the feed-forward part.
        layers: Blocks.
        heads: Heads.
        vocabulary: Rows of the token table.
        positions: Rows of the position table.
        types: Rows of the table of token types; 0 without one.
        act: Activation function.
        block: Name of the list of blocks.
        attention: Names in a block of q, k, v, of the attention that has them, of its output and its norm.
        mlp: Names in a block of the matrix up, the activation, the matrix down and the norm.
        pooler: Whether the first token goes through a matrix and tanh at the end.
        padding: Rows of the position table that no token takes, where positions count from the padding token's on, for
            each sequence apart.
    """

    hidden: int
    inner: int
    layers: int
    heads: int
    vocabulary: int
    positions: int
    types: int
    act: str
    block: str
    attention: tuple[str, str, str, str, str, str]
    mlp: tuple[str, str, str, str]
    pooler: bool
    padding: int = 0


_BERT_ATTENTION = ("query", "key", "value", "attention.self", "attention.output.dense", "attention.output.LayerNorm")
_BERT_MLP = ("intermediate.dense", "intermediate.intermediate_act_fn", "output.dense", "output.LayerNorm")


def read_bert(c: Config) -> Encoder:
    """Read BERT or RoBERTa.

    Raises:
        ConfigError: A key is missing, out of range, or at odds with another.
    """
    hidden, heads = c.whole("hidden_size"), c.whole("num_attention_heads", high=4096)
    c.divided("hidden_size", "num_attention_heads", (hidden, heads))
    return Encoder(
        hidden, c.whole("intermediate_size"), c.layers("num_hidden_layers"), heads, c.whole("vocab_size"),
        c.whole("max_position_embeddings"), c.whole("type_vocab_size"), c.text("hidden_act", "gelu"),
        "encoder.layer", _BERT_ATTENTION, _BERT_MLP, pooler=True,
        padding=2 if c.text("model_type", "") == "roberta" else 0,
    )  # fmt: skip


def read_distilbert(c: Config) -> Encoder:
    """Read DistilBERT.

    Raises:
        ConfigError: A key is missing, out of range, or at odds with another.
    """
    hidden, heads = c.whole("dim"), c.whole("n_heads", high=4096)
    c.divided("dim", "n_heads", (hidden, heads))
    attention = ("q_lin", "k_lin", "v_lin", "attention", "attention.out_lin", "sa_layer_norm")
    return Encoder(
        hidden, c.whole("hidden_dim"), c.layers("n_layers"), heads, c.whole("vocab_size"),
        c.whole("max_position_embeddings"), 0, c.text("activation", "gelu"), "transformer.layer", attention,
        ("ffn.lin1", "ffn.activation", "ffn.lin2", "output_layer_norm"), pooler=False,
    )  # fmt: skip


def encode_tokens(b: Builder, e: Encoder, tokens: int) -> Value:
    """Build an encoder over tokens; returns its last state, pooled where there is a pooler."""
    ids = b.input((b.batch, tokens))
    x = b.embedding(ids, _table("word_embeddings", e.vocabulary, e.hidden))
    if e.types:
        kinds = b.embedding(b.input((b.batch, tokens)), _table("token_type_embeddings", e.types, e.hidden))
        x = b.add("embeddings", x, kinds)
    rows = b.input((b.batch, tokens)) if e.padding else b.input((1, tokens), batched=False)
    places = b.embedding(rows, _table("position_embeddings", e.positions, e.hidden))
    x = b.norm(b.add("embeddings", x, places), "embeddings.LayerNorm", "layer_norm")
    for index in range(e.layers):
        x = _post_norm_block(b, e, f"{e.block}.{index}", x)
    if not e.pooler:
        return x
    first = b.linear(b.part(x, b.batch, e.hidden), "pooler.dense", e.hidden, bias=True)
    return b.elementwise("pooler.activation", [first], "tanh")


def _table(name: str, rows: int, width: int) -> Weight:
    return Weight(f"embeddings.{name}", f"embeddings.{name}.weight", (rows, width), rows)


def _post_norm_block(b: Builder, e: Encoder, name: str, x: Value) -> Value:
    q, k, v, module, output, norm = e.attention
    owner = f"{name}.{module}"
    heads = (b.batch, e.heads, x.shape[1], e.hidden // e.heads)
    parts = [b.linear(x, f"{owner}.{part}", e.hidden, bias=True)._replace(shape=heads) for part in (q, k, v)]
    attended = b.attention(owner, *parts, keys=x.shape[1])
    out = b.linear(attended, f"{name}.{output}", e.hidden, bias=True)
    x = b.norm(b.add(f"{name}.{output.rpartition('.')[0]}", out, x), f"{name}.{norm}", "layer_norm")
    up, act, down, norm = e.mlp
    inner = b.elementwise(f"{name}.{act}", [b.linear(x, f"{name}.{up}", e.inner, bias=True)], e.act)
    out = b.linear(inner, f"{name}.{down}", e.hidden, bias=True)
    return b.norm(b.add(f"{name}.{down.rpartition('.')[0]}", out, x), f"{name}.{norm}", "layer_norm")


@dataclass(frozen=True)
class Block:
    """Sizes and names of a block that normalises first, with biases.

    Attributes:
        hidden: Width.
        inner: Inner width of the feed-forward part.
        heads: Heads.
        act: Activation function.
        names: Norm before attention, attention, its output, norm before the feed-forward part, that part's prefix.
        qkv_bias: Biases of the projections to q, k and v.
    """

    hidden: int
    inner: int
    heads: int
    act: str
    names: tuple[str, str, str, str, str]
    qkv_bias: tuple[bool, bool, bool] = (True, True, True)


def pre_norm_block(b: Builder, e: Block, name: str, x: Value) -> Value:
    """Build ``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""
    before, attention, output, middle, mlp = e.names
    y = b.norm(x, f"{name}.{before}", "layer_norm")
    q, k, v = projected(b, e, f"{name}.{attention}", y, y)
    attended = b.attention(f"{name}.{attention}", q, k, v, keys=x.shape[1])
    x = b.add(name, b.linear(attended, f"{name}.{attention}.{output}", e.hidden, bias=True), x)
    return plain_mlp(b, e, name, x, norm=middle, mlp=mlp)


def projected(b: Builder, e: Block, name: str, x: Value, source: Value) -> tuple[Value, Value, Value]:
    """Project to queries of ``x`` and keys and values of ``source``, split in heads."""
    found = []
    for part, bias, given in zip("qkv", e.qkv_bias, (x, source, source), strict=True):
        heads = (b.batch, e.heads, given.shape[1], e.hidden // e.heads)
        found.append(b.linear(given, f"{name}.{part}_proj", e.hidden, bias=bias)._replace(shape=heads))
    return found[0], found[1], found[2]


def plain_mlp(b: Builder, e: Block, name: str, x: Value, *, norm: str, mlp: str) -> Value:
    """Build ``x + fc2(act(fc1(norm(x))))``."""
    y = b.linear(b.norm(x, f"{name}.{norm}", "layer_norm"), f"{name}.{mlp}fc1", e.inner, bias=True)
    y = b.elementwise(f"{name}.{mlp}activation_fn", [y], e.act)
    return b.add(name, b.linear(y, f"{name}.{mlp}fc2", e.hidden, bias=True), x)


@dataclass(frozen=True)
class Vision:
    """A vision transformer.

    Attributes:
        block: Its blocks.
        layers: How many.
        image: Height and width of the image.
        patch: Height and width of a patch.
        channels: Channels of the image.
        labels: Classes; 0 for the pooled state without a classifier.
    """

    block: Block
    layers: int
    image: int
    patch: int
    channels: int
    labels: int


def read_vit(c: Config) -> Vision:
    """Read ViT.

    Raises:
        ConfigError: A key is missing, out of range, or at odds with another.
    """
    hidden, heads = c.whole("hidden_size"), c.whole("num_attention_heads", high=4096)
    c.divided("hidden_size", "num_attention_heads", (hidden, heads))
    bias = c.flag("qkv_bias", True)
    names = ("layernorm_before", "attention", "o_proj", "layernorm_after", "mlp.")
    act = c.text("hidden_act", "gelu")
    block = Block(hidden, c.whole("intermediate_size"), heads, act, names, (bias, bias, bias))
    kinds = c.texts("architectures") or ()
    labels = c.whole("num_labels", _labels(c)) if "ViTForImageClassification" in kinds else 0
    image, patch = c.whole("image_size", high=65536), c.whole("patch_size", high=65536)
    c.divided("image_size", "patch_size", (image, patch))
    return Vision(block, c.layers("num_hidden_layers"), image, patch, c.whole("num_channels", 3), labels)


def _labels(c: Config) -> int:
    """Return how many classes ``id2label`` names; transformers takes two where nobody says."""
    section = c.section("id2label")
    return len(section.data) if section else 2


def encode_image(b: Builder, v: Vision) -> Value:
    """Build a vision transformer; returns class scores or the pooled state."""
    prefix, width, side = ("vit." if v.labels else ""), v.block.hidden, v.image // v.patch
    name = f"{prefix}embeddings.patch_embeddings.projection"
    shape = (width, v.channels, v.patch, v.patch)
    image = b.input((b.batch, v.channels, v.image, v.image), b.dtype)
    x = convolution(b, image, Weight(name, f"{name}.weight", shape, width), (side, side), variant=f"/{v.patch}")
    count = side * side
    first = b.parameter(f"{prefix}embeddings.cls_token", 1, 1, width)
    embeddings = f"{prefix}embeddings"
    x = b.op(f"{embeddings}.cat", "copy", [first, x], (b.batch, count + 1, width), layer=embeddings, target="cat")
    x = b.add(embeddings, x, b.parameter(f"{embeddings}.position_embeddings", 1, count + 1, width))
    for index in range(v.layers):
        x = pre_norm_block(b, v.block, f"{prefix}layers.{index}", x)
    x = b.norm(x, f"{prefix}layernorm", "layer_norm")
    first_token = b.part(x, b.batch, width)
    if v.labels:
        return b.linear(first_token, "classifier", v.labels, bias=True)
    return b.elementwise("pooler.activation", [b.linear(first_token, "pooler.dense", width, bias=True)], "tanh")


def convolution(b: Builder, x: Value, weight: Weight, size: tuple[int, ...], *, variant: str = "") -> Value:
    """Convolve ``x[B, C, *I]`` with ``w[N, C, *K]`` and a bias to ``[B, N, *size]``."""
    width, window = weight.shape[0], weight.shape[2:]
    out = (x.shape[0], width, *size)
    places = 1
    for length in size:
        places *= length
    taps = formulas.conv_macs((1, 1, 1), weight.shape) // width
    inputs: list[Value | TensorSpec] = [x, *b.weight(weight, plain=True), b.parameter(f"{weight.layer}.bias", width)]
    return b.op(
        weight.layer, "conv", inputs, out, target=f"conv{len(size)}d", macs=formulas.conv_macs(out, weight.shape),
        extents=Extents(1, x.shape[0] * places, width, taps), variant="x".join(map(str, window)) + variant,
    )  # fmt: skip


READERS: dict[str, Callable[[Config], Encoder]] = {
    "bert": read_bert,
    "distilbert": read_distilbert,
    "roberta": read_bert,
}
