"""Small configurations of architectures that are built from a configuration, and what both doors are compared by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers

import roofline
from roofline import OpGraph

_LLAMA: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 120, "max_position_embeddings": 64, "torch_dtype": "float32",
    "tie_word_embeddings": False,
}  # fmt: skip
_LATENT: dict[str, Any] = {
    "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 24, "first_k_dense_replace": 1, "n_shared_experts": 1,
    "num_key_value_heads": 4, "n_group": 1, "topk_group": 1, "norm_topk_prob": False,
}  # fmt: skip
_MIXTURE = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}

DENSE: dict[str, dict[str, Any]] = {
    "llama": {**_LLAMA, "attention_bias": True, "mlp_bias": True},
    "llama-mha": {**_LLAMA, "model_type": "llama", "num_key_value_heads": 4, "tie_word_embeddings": True},
    "llama-mqa": {**_LLAMA, "model_type": "llama", "num_key_value_heads": 1, "head_dim": 24},
    "mistral": {**_LLAMA, "sliding_window": None, "head_dim": 32},
    "qwen2": {**_LLAMA, "use_sliding_window": False},
    "qwen3": {**_LLAMA, "head_dim": 32, "use_sliding_window": False},
    "gemma": {**_LLAMA, "head_dim": 32, "tie_word_embeddings": True},
    "gemma2": {**_LLAMA, "head_dim": 32, "sliding_window": 48, "tie_word_embeddings": True,
               "attn_logit_softcapping": None, "final_logit_softcapping": None},
    "gemma3_text": {**_LLAMA, "head_dim": 32, "sliding_window": 48, "tie_word_embeddings": True},
    "phi": {**_LLAMA, "num_key_value_heads": 4, "partial_rotary_factor": 0.5},
    "phi3": {**_LLAMA, "pad_token_id": 0, "sliding_window": None},
    "olmo2": _LLAMA,
    "starcoder2": {**_LLAMA, "use_bias": True, "sliding_window": None, "tie_word_embeddings": True},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 120},
    "opt": {"hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 120,
            "max_position_embeddings": 64, "word_embed_proj_dim": 64},
    "opt-350m": {"model_type": "opt", "hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 2,
                 "num_attention_heads": 4, "vocab_size": 120, "max_position_embeddings": 64, "word_embed_proj_dim": 32},
    "gpt_neox": {k: v for k, v in _LLAMA.items() if k != "num_key_value_heads"},
}  # fmt: skip
MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen2_moe": {**_LLAMA, **_MIXTURE, "num_experts": 4, "shared_expert_intermediate_size": 40,
                  "decoder_sparse_step": 1, "use_sliding_window": False},
    "qwen3_moe": {**_LLAMA, **_MIXTURE, "num_experts": 4, "head_dim": 32, "decoder_sparse_step": 1,
                  "mlp_only_layers": [1], "use_sliding_window": False},
    "deepseek_v2": {**_LLAMA, **_LATENT, "q_lora_rank": None},
    "deepseek_v3": {**_LLAMA, **_LATENT, "q_lora_rank": 40},
}  # fmt: skip


def config_of(name: str) -> dict[str, Any]:
    """Return a configuration with its model_type."""
    config = {**DENSE, **MIXTURES}[name]
    return {"model_type": name, **config}


def module_of(config: Mapping[str, Any], kind: Any = None, *, device: str = "meta", **options: Any) -> torch.nn.Module:
    """Return the transformers module of a configuration, without weights."""
    made = transformers.AutoConfig.for_model(**config)
    auto = kind or transformers.AutoModelForCausalLM
    with torch.device(device):
        module: torch.nn.Module = auto.from_config(made, attn_implementation="sdpa", **options)
    return module.eval()


def traced(config: Mapping[str, Any], batch: int, tokens: int, **inputs: Any) -> OpGraph:
    """Trace the transformers module of a configuration on a prompt."""
    ids = torch.zeros(batch, tokens, dtype=torch.int64, device="meta")
    return roofline.trace(module_of(config), {"input_ids": ids, "use_cache": True, **inputs})


Row = tuple[int, int, dict[str, int]]


def rows(graph: OpGraph, *, cache: bool = False) -> dict[str, Row]:
    """Return MACs, element-wise FLOPs and bytes by role of every op with weights and of attention.

    With ``cache`` the entries that attention reads of the cache count as inputs; what it writes never counts. Indices
    count alike whether they are inputs or buffers.
    """
    found: dict[str, Row] = {}
    for op in graph:
        if not op.weighted and op.kind != "attention":
            continue
        moved: dict[str, int] = {}
        for tensor in op.tensors:
            role = "input" if tensor.role in {"kv", "state"} else tensor.role
            moved[role] = moved.get(role, 0) + tensor.native_bytes
        if op.kind == "attention":
            entries = op.role("kv")
            new = entries if not cache else entries[len(entries) // 2 :]
            moved["input"] -= sum(t.native_bytes for t in new)
        found[op.name] = op.macs, op.vector_flops, moved
    return found


def _ids(length: int) -> torch.Tensor:
    return torch.zeros(2, length, dtype=torch.int64, device="meta")


_BERT = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "vocab_size": 120, "max_position_embeddings": 66, "type_vocab_size": 2}  # fmt: skip
_VIT = {"model_type": "vit", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": 32, "patch_size": 8}  # fmt: skip
_WHISPER = {
    "model_type": "whisper", "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "vocab_size": 120, "num_mel_bins": 8,
    "max_source_positions": 20, "max_target_positions": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 3,
}  # fmt: skip
_T5 = {"model_type": "t5", "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4, "vocab_size": 120,
       "tie_word_embeddings": True}  # fmt: skip
_TOKENS = {"context": 10}

Other = tuple[dict[str, Any], str, Callable[[], Any], dict[str, Any]]
OTHERS: dict[str, Other] = {
    "bert": (
        {"model_type": "bert", **_BERT}, "AutoModel",
        lambda: {"input_ids": _ids(10), "token_type_ids": _ids(10)}, _TOKENS,
    ),
    "roberta": ({"model_type": "roberta", **_BERT}, "AutoModel", lambda: {"input_ids": _ids(10)}, _TOKENS),
    "distilbert": (
        {"model_type": "distilbert", "dim": 64, "hidden_dim": 96, "n_layers": 2, "n_heads": 4, "vocab_size": 120,
         "max_position_embeddings": 64},
        "AutoModel", lambda: {"input_ids": _ids(10)}, _TOKENS,
    ),
    "vit": (_VIT, "AutoModel", lambda: torch.zeros(2, 3, 32, 32, device="meta"), {}),
    "vit-classifier": (
        {**_VIT, "architectures": ["ViTForImageClassification"]}, "AutoModelForImageClassification",
        lambda: torch.zeros(2, 3, 32, 32, device="meta"), {},
    ),
    "whisper": (
        _WHISPER, "AutoModelForSpeechSeq2Seq",
        lambda: {"input_features": torch.zeros(2, 8, 40, device="meta"), "decoder_input_ids": _ids(4)},
        {"context": 4, "every_logit": True},
    ),
    "t5": (_T5, "AutoModelForSeq2SeqLM", lambda: {"input_ids": _ids(10), "decoder_input_ids": _ids(1)}, _TOKENS),
    "t5-gated": (
        {**_T5, "feed_forward_proj": "gated-gelu"}, "AutoModelForSeq2SeqLM",
        lambda: {"input_ids": _ids(10), "decoder_input_ids": _ids(1)}, _TOKENS,
    ),
}  # fmt: skip

_TEXT = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 120, "max_position_embeddings": 64, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
_OLD = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 120, "rotary_dim": 8,
        "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
_IMAGE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
          "image_size": 32, "patch_size": 8}  # fmt: skip

_WITH_TEXT = (
    "albert", "apertus", "cohere", "electra", "ernie4_5", "exaone4", "falcon", "granite", "mpnet", "nemotron", "olmo",
    "persimmon", "stablelm", "clip_text_model",
)  # fmt: skip
ARCHITECTURES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(_WITH_TEXT, _TEXT),
    **{name: {**_TEXT, "head_dim": 16} for name in ("glm", "glm4", "helium", "seed_oss")},
    **{name: {**_TEXT, "num_local_experts": 4, "num_experts_per_tok": 2} for name in ("granitemoe", "phimoe")},
    **dict.fromkeys(("codegen", "gptj"), _OLD),
    **dict.fromkeys(("beit", "clip_vision_model", "deit", "dinov2", "siglip_vision_model"), _IMAGE),
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 120},
    "convnext": {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "image_size": 32},
    "mamba": {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 120, "state_size": 4},
    "mpt": {"d_model": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 120, "max_seq_len": 64},
    "olmoe": {**_TEXT, "num_experts": 4, "num_experts_per_tok": 2},
    "resnet": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "image_size": 32},
    "segformer": {"image_size": 64},
    "smollm3": {**_TEXT, "no_rope_layers": [1, 0]},
    "swin": {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "image_size": 32, "patch_size": 2,
             "window_size": 4},
    "xglm": {"d_model": 64, "ffn_dim": 96, "num_layers": 2, "attention_heads": 4, "vocab_size": 120,
             "max_position_embeddings": 64},
}  # fmt: skip
