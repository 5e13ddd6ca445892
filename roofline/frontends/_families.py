"""Which decoder a ``config.json`` describes: one reader for each ``model_type``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from roofline.frontends._config import Config
from roofline.frontends._decoder import Decoder, Names
from roofline.frontends._experts import Mixture, read_mixture
from roofline.frontends._latent import Latent

_SANDWICH = Names(
    after_attention="post_attention_layernorm",
    before_mlp="pre_feedforward_layernorm",
    after_mlp="post_feedforward_layernorm",
)
_ATTENTION_TYPES = ("full_attention", "sliding_attention")


def _gated(c: Config, *, kv_heads: bool = False, head_dim: bool = False) -> Decoder:
    """Read what gated decoders share; ``kv_heads`` and ``head_dim`` tell which keys must be there."""
    hidden, heads = c.whole("hidden_size"), c.whole("num_attention_heads", high=4096)
    count = c.layers("num_hidden_layers")
    shared = c.whole("num_key_value_heads", None if kv_heads else heads, high=4096)
    c.divided("num_attention_heads", "num_key_value_heads", (heads, shared))
    given = head_dim or c.has("head_dim")
    width = c.whole("head_dim") if given else c.divided("hidden_size", "num_attention_heads", (hidden, heads))
    return Decoder(
        hidden, c.whole("vocab_size"), heads, shared, width, c.whole("intermediate_size"),
        (None,) * count, (None,) * count,
        act=_activation(c, "hidden_act", "silu"), tied=c.flag("tie_word_embeddings"),
        longest=c.whole("max_position_embeddings", 0, high=10**9), rotary=_rotary(c, 1.0),
    )  # fmt: skip


def _activation(c: Config, key: str, default: str) -> str:
    name = c.text(key, default)
    return "gelu" if name.startswith("gelu") else name


def _rotary(c: Config, default: float) -> float:
    """Return the share of a head that rotates; newer files keep it among the rope parameters."""
    section = c.section("rope_parameters")
    inner = section.share("partial_rotary_factor", default) if section else default
    return c.share("partial_rotary_factor", inner)


def _windows(c: Config, count: int, sliding: Callable[[int], bool]) -> tuple[int | None, ...]:
    """Return the window of each layer: as ``layer_types`` says, else where ``sliding`` does."""
    size = c.whole("sliding_window", 0, low=0, high=10**9)
    kinds = c.texts("layer_types")
    if kinds is not None:
        if len(kinds) != count or not set(kinds) <= set(_ATTENTION_TYPES):
            raise c.error(
                f"layer_types has {len(kinds)} entries for {count} layers, or unknown ones "
                f"(known: {', '.join(_ATTENTION_TYPES)})",
                "give one for each layer",
            )
        slides = [kind == "sliding_attention" for kind in kinds]
    else:
        slides = [sliding(index) for index in range(count)]
    if any(slides) and not size and kinds is not None:
        raise c.error("sliding_window is missing, and layer_types names layers that slide", "give it in tokens")
    return tuple(size or None if slide else None for slide in slides)


def _llama(c: Config) -> Decoder:
    bias = c.flag("attention_bias")
    return replace(_gated(c), qkv_bias=bias, o_bias=bias, mlp_bias=c.flag("mlp_bias"))


def _mistral(c: Config) -> Decoder:
    d = _gated(c, kv_heads=True)
    return replace(d, windows=_windows(c, len(d.windows), lambda _: True))


def _mixtral(c: Config) -> Decoder:
    d = _mistral(c)
    return replace(d, mixtures=(read_mixture(c, "num_local_experts", d.inner),) * len(d.windows))


def _qwen_windows(c: Config, count: int) -> tuple[int | None, ...]:
    if not c.flag("use_sliding_window"):
        return (None,) * count
    first = c.whole("max_window_layers", count, low=0)
    return _windows(c, count, lambda index: index >= first)


def _qwen2(c: Config) -> Decoder:
    d = _gated(c, kv_heads=True)
    return replace(d, qkv_bias=True, windows=_qwen_windows(c, len(d.windows)))


def _qwen3(c: Config) -> Decoder:
    d = _gated(c, kv_heads=True, head_dim=True)
    bias = c.flag("attention_bias")
    windows = _qwen_windows(c, len(d.windows))
    return replace(d, qk_norm="head", qkv_bias=bias, o_bias=bias, windows=windows)


def _sparse(c: Config, d: Decoder, experts: Mixture) -> Decoder:
    """Put experts into every layer but those that the configuration keeps dense."""
    step, dense = c.whole("decoder_sparse_step", 1), c.data.get("mlp_only_layers") or ()
    if not isinstance(dense, list | tuple) or not all(type(index) is int for index in dense):
        raise c.error("mlp_only_layers is no list of layers", "give a list of whole numbers")
    count = len(d.windows)
    return replace(
        d, mixtures=tuple(experts if i not in dense and (i + 1) % step == 0 else None for i in range(count))
    )  # fmt: skip


def _qwen3_moe(c: Config) -> Decoder:
    return _sparse(c, _qwen3(c), read_mixture(c, "num_experts", c.whole("moe_intermediate_size")))


def _qwen2_moe(c: Config) -> Decoder:
    shared = ("shared_expert", c.whole("shared_expert_intermediate_size"))
    options = {"shared": shared, "shared_gate": True}
    d = replace(_qwen2(c), qkv_bias=c.flag("qkv_bias", True))
    return _sparse(c, d, read_mixture(c, "num_experts", c.whole("moe_intermediate_size"), **options))


def _gemma(c: Config) -> Decoder:
    d = _gated(c, kv_heads=True, head_dim=True)
    key = "hidden_activation" if c.has("hidden_activation") else "hidden_act"
    tied = c.flag("tie_word_embeddings", True)
    bias = c.flag("attention_bias")
    act = _activation(c, key, "gelu_pytorch_tanh")
    return replace(d, scaled_embedding=True, act=act, tied=tied, qkv_bias=bias, o_bias=bias)


def _gemma2(c: Config) -> Decoder:
    d = _gemma(c)
    caps = c.data.get("attn_logit_softcapping", 50.0), c.data.get("final_logit_softcapping", 30.0)
    return replace(
        d, names=_SANDWICH, windows=_windows(c, len(d.windows), lambda index: index % 2 == 0),
        softcap=caps[0] is not None, final_softcap=caps[1] is not None,
    )  # fmt: skip


def _gemma3(c: Config) -> Decoder:
    d = _gemma(c)
    pattern = c.whole("sliding_window_pattern", 6)
    windows = _windows(c, len(d.windows), lambda index: (index + 1) % pattern != 0)
    final = c.data.get("final_logit_softcapping") is not None
    softcap = c.data.get("attn_logit_softcapping") is not None
    return replace(d, names=_SANDWICH, windows=windows, qk_norm="head", softcap=softcap, final_softcap=final)


def _phi3(c: Config) -> Decoder:
    d = _gated(c)
    windows = _windows(c, len(d.windows), lambda _: True)
    return replace(d, names=Names(qkv="qkv_proj"), feed_forward="fused", windows=windows)


def _phi(c: Config) -> Decoder:
    d = _gated(c)
    names = Names(o="dense", up="fc1", down="fc2", act="activation_fn", before_mlp="", norm="final_layernorm",
                  q_norm="q_layernorm", k_norm="k_layernorm")  # fmt: skip
    return replace(
        d, names=names, norm="layer_norm", feed_forward="plain", parallel=True, qkv_bias=True, o_bias=True,
        mlp_bias=True, head_bias=True, act=_activation(c, "hidden_act", "gelu_new"), rotary=_rotary(c, 0.5),
        qk_norm="head" if c.flag("qk_layernorm") else "", qk_norm_kind="layer_norm",
    )  # fmt: skip


def _olmo2(c: Config) -> Decoder:
    names = Names(
        before_attention="", after_attention="post_attention_layernorm", before_mlp="",
        after_mlp="post_feedforward_layernorm",
    )  # fmt: skip
    return replace(_llama(c), names=names, qk_norm="all")


def _starcoder2(c: Config) -> Decoder:
    d, bias = _gated(c, kv_heads=True), c.flag("use_bias", True)
    windows = _windows(c, len(d.windows), lambda _: True)
    return replace(
        d, names=Names(up="c_fc", down="c_proj", act="act"), norm="layer_norm", feed_forward="plain", qkv_bias=bias,
        o_bias=bias, mlp_bias=bias, act=_activation(c, "hidden_act", "gelu"), windows=windows,
        tied=c.flag("tie_word_embeddings", True),
    )  # fmt: skip


def _deepseek(c: Config, *, sigmoid: bool) -> Decoder:
    hidden, heads, count = (
        c.whole("hidden_size"),
        c.whole("num_attention_heads", high=4096),
        c.layers("num_hidden_layers"),
    )
    if "q_lora_rank" not in c.data:
        raise c.error("q_lora_rank is missing", "give it, or null where queries are not compressed")
    latent = Latent(
        heads, c.whole("q_lora_rank", 0), c.whole("kv_lora_rank"), c.whole("qk_nope_head_dim"),
        c.whole("qk_rope_head_dim"), c.whole("v_head_dim"), c.flag("attention_bias"),
    )  # fmt: skip
    inner = c.whole("moe_intermediate_size")
    shared = ("shared_experts", inner * c.whole("n_shared_experts", 0, low=0, high=4096))
    experts = read_mixture(c, "n_routed_experts", inner, sigmoid=sigmoid, shared=shared)
    dense = c.whole("first_k_dense_replace", low=0)
    return Decoder(
        hidden, c.whole("vocab_size"), heads, heads, latent.nope + latent.rope, c.whole("intermediate_size"),
        (None,) * count, tuple(None if index < dense else experts for index in range(count)),
        act=_activation(c, "hidden_act", "silu"), tied=c.flag("tie_word_embeddings"), latent=latent,
        longest=c.whole("max_position_embeddings", 0, high=10**9),
    )  # fmt: skip


def _gpt_oss(c: Config) -> Decoder:
    d = _gated(c, kv_heads=True, head_dim=True)
    experts = read_mixture(c, "num_local_experts", d.inner, router="router", bias=True, transposed=True)
    bias, count = c.flag("attention_bias", True), len(d.windows)
    windows = _windows(c, count, lambda index: index % 2 == 0)
    return replace(d, windows=windows, mixtures=(experts,) * count, qkv_bias=bias, o_bias=bias, sinks=True)


def _plain(c: Config, keys: tuple[str, str, str], inner: int, names: Names) -> Decoder:
    """Read a decoder with layer norms, biases and one matrix up; ``keys`` name width, layers and heads."""
    hidden, heads, count = c.whole(keys[0]), c.whole(keys[2], high=4096), c.layers(keys[1])
    width = c.divided(keys[0], keys[2], (hidden, heads))
    return Decoder(
        hidden, c.whole("vocab_size"), heads, heads, width, inner, (None,) * count, (None,) * count, names=names,
        norm="layer_norm", feed_forward="plain", qkv_bias=True, o_bias=True, mlp_bias=True,
    )  # fmt: skip


def _gpt2(c: Config) -> Decoder:
    names = Names(
        base="transformer", embed="wte", positions="wpe", layers="h", attention="attn", qkv="c_attn", o="c_proj",
        up="c_fc", down="c_proj", act="act", before_attention="ln_1", before_mlp="ln_2", norm="ln_f",
    )  # fmt: skip
    inner = c.whole("n_inner", 4 * c.whole("n_embd"))
    d = _plain(c, ("n_embd", "n_layer", "n_head"), inner, names)
    positions = c.whole("n_positions") if c.has("n_positions") else c.whole("n_ctx")
    return replace(
        d, rotary=0.0, positions=positions, longest=positions, conv1d=True, tied=c.flag("tie_word_embeddings", True),
        act=_activation(c, "activation_function", "gelu_new"),
    )  # fmt: skip


def _opt(c: Config) -> Decoder:
    names = Names(
        base="model.decoder", positions="embed_positions", o="out_proj", mlp="", up="fc1", down="fc2",
        act="activation_fn", before_attention="self_attn_layer_norm", before_mlp="final_layer_norm",
        norm="final_layer_norm",
    )  # fmt: skip
    if not c.flag("do_layer_norm_before", True):
        raise c.error("do_layer_norm_before is false", "give a network that normalises first, as all but opt-350m do")
    d = _plain(c, ("hidden_size", "num_hidden_layers", "num_attention_heads"), c.whole("ffn_dim"), names)
    bias, longest = c.flag("enable_bias", True), c.whole("max_position_embeddings")
    return replace(
        d, rotary=0.0, positions=longest + 2, shared_positions=False, longest=longest,
        embedded=c.whole("word_embed_proj_dim", d.hidden),
        qkv_bias=bias, o_bias=bias, mlp_bias=bias, tied=c.flag("tie_word_embeddings", True),
        act=_activation(c, "activation_function", "relu"),
    )  # fmt: skip


def _gpt_neox(c: Config) -> Decoder:
    names = Names(
        base="gpt_neox", embed="embed_in", attention="attention", qkv="query_key_value", o="dense",
        up="dense_h_to_4h", down="dense_4h_to_h", act="act", norm="final_layer_norm",
    )  # fmt: skip
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    d, bias = _plain(c, keys, c.whole("intermediate_size"), names), c.flag("attention_bias", True)
    return replace(
        d, parallel=c.flag("use_parallel_residual", True), rotary=c.share("rotary_pct", _rotary(c, 0.25)),
        tied=c.flag("tie_word_embeddings"), act=_activation(c, "hidden_act", "gelu"), qkv_bias=bias, o_bias=bias,
        longest=c.whole("max_position_embeddings", 0, high=10**9),
    )  # fmt: skip


READERS: dict[str, Callable[[Config], Decoder]] = {
    "deepseek_v2": lambda c: _deepseek(c, sigmoid=False),
    "deepseek_v3": lambda c: _deepseek(c, sigmoid=True),
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "gpt_oss": _gpt_oss,
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "olmo2": _olmo2,
    "opt": _opt,
    "phi": _phi,
    "phi3": _phi3,
    "qwen2": _qwen2,
    "qwen2_moe": _qwen2_moe,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "starcoder2": _starcoder2,
}
