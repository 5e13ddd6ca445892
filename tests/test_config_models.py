"""Graphs of language models from a configuration: published figures, phases, caches, experts, stored formats."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest

import hardware_specs
from aiq import load_source
from roofline import OpGraph, estimate
from roofline.errors import InputError
from roofline.frontends._experts import distinct_experts
from roofline.frontends._shipped import shipped, shipped_names
from roofline.frontends.transformers import ConfigError, from_config
from tests.machines import FLAT

LLAMA = shipped("llama-2-7b").config
SMALL: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000, "torch_dtype": "bfloat16",
    "max_position_embeddings": 4096,
}  # fmt: skip
LATENT: dict[str, Any] = {
    **SMALL, "model_type": "deepseek_v3", "q_lora_rank": 64, "kv_lora_rank": 32, "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8, "v_head_dim": 24, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 48, "first_k_dense_replace": 1,
}  # fmt: skip


def of(graph: OpGraph, end: str) -> Any:
    return next(op for op in graph if op.name.endswith(end))


def moved(ops: Iterable[Any], role: str) -> int:
    return sum(t.native_bytes for op in ops for t in op.role(role))


def test_llama_2_7b_decoding_as_published() -> None:
    graph = from_config(LLAMA, phase="decode", context=2048)
    for layer in range(32):
        for part in "qkvo":
            op = of(graph, f"layers.{layer}.self_attn.{part}_proj")
            assert (op.flops, op.native_bytes) == (33_554_432, 33_570_816)
            assert op.flops / op.native_bytes == pytest.approx(0.9995, abs=5e-5)
        for part in ("gate", "up", "down"):
            op = of(graph, f"layers.{layer}.mlp.{part}_proj")
            assert (op.flops, op.native_bytes) == (90_177_536, 90_207_744)
    assert of(graph, "lm_head").flops == 262_144_000
    found = estimate(graph, hardware_specs.load("a100-40"))
    weights = sum(row.bytes_by_role.get("weight", 0) for row in found.layers)
    # all matrices but the table of embeddings, of which one row is looked up
    assert weights == 2 * (32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32000 * 4096 + 4096) == 13_214_162_944
    assert found.kv_bytes == 2 * 2 * 32 * 4096 * 2049 == 1_074_266_112
    assert found.weight_bytes == 2 * (6_738_415_616 - 65 * 4096)
    assert found.latency_s == pytest.approx(9.19e-3, rel=1e-3)


def test_llama_2_7b_prefill_as_published() -> None:
    assert from_config(LLAMA, context=128, every_logit=True).macs == 850_000_871_424
    last = from_config(LLAMA, context=128)
    assert last.macs == 850_000_871_424 - 127 * 32000 * 4096
    assert estimate(last, FLAT).kv_bytes == 2 * 2 * 32 * 4096 * 128


def test_bert_base_encoder_as_published() -> None:
    graph = from_config(shipped("bert-base").config, context=128)
    assert sum(op.macs for op in graph if op.name.startswith("encoder.")) == 11_173_625_856
    assert graph.macs == 11_173_625_856 + 768**2


@pytest.mark.parametrize("name", shipped_names())
def test_parameters_are_those_of_the_published_weights(name: str) -> None:
    found = shipped(name)
    graph = from_config(found.config, name=name)
    sizes = {key: size for key, (size, _) in graph.parameters.items() if not key.endswith("_scale_inv")}
    assert sum(sizes.values()) == found.parameters
    assert graph.model == name
    assert not graph.unknown
    assert found.source.startswith("https://")
    assert len(found.checked) > 20


def test_about_25_configurations_ship() -> None:
    assert len(shipped_names()) == 26


@pytest.mark.parametrize("name", ["llama-2-7b", "gemma-3-12b", "deepseek-v3", "whisper-large-v3", "t5-base"])
def test_batch_scales_like_a_graph_built_for_it(name: str) -> None:
    config = shipped(name).config
    for phase in ("prefill", "decode"):
        one, four = (from_config(config, phase=phase, batch=n, context=64) for n in (1, 4))
        if one.fixed_batch:
            assert name == "deepseek-v3"
            with pytest.raises(InputError):
                estimate(one, FLAT, batch=4, scheme="bf16")
            continue
        scaled, built = estimate(one, FLAT, batch=4), estimate(four, FLAT)
        assert [(r.flops, r.bytes) for r in scaled.layers] == [(r.flops, r.bytes) for r in built.layers]


def test_latent_attention_reads_one_compressed_cache_and_absorbs_its_projection() -> None:
    graph = from_config(LATENT, phase="decode", context=99)
    attention = of(graph, "layers.0.self_attn.scaled_dot_product_attention")
    width, heads = 32 + 8, 4
    assert [t.shape for t in attention.role("kv")] == [(1, 1, 99, width), (1, 1, 1, width)]
    assert attention.macs == heads * 100 * (width + 32)
    first, second = (of(graph, f"layers.0.self_attn.kv_b_proj{n}") for n in ("", "#2"))
    assert (first.macs, second.macs) == (heads * 16 * 32, heads * 24 * 32)
    assert moved([first, second], "weight") == 2 * heads * (16 + 24) * 32
    assert any("absorbed" in note for note in graph.notes)
    prompt = from_config(LATENT, context=100)
    assert of(prompt, "layers.0.self_attn.kv_b_proj").macs == 100 * heads * (16 + 24) * 32
    assert of(prompt, "layers.0.self_attn.scaled_dot_product_attention").macs == heads * 100 * 100 * (24 + 24)
    # the same cache is written at prefill
    assert moved(prompt, "kv") == moved(graph, "kv")


@pytest.mark.parametrize(("tokens", "distinct"), [(1, 2.0), (2, 3.5), (10**6, 8.0)])
def test_expected_experts_by_hand(tokens: int, distinct: float) -> None:
    assert distinct_experts(8, 2, tokens) == pytest.approx(distinct)
    assert distinct_experts(8, 8, tokens) == 8.0


@pytest.mark.parametrize(("batch", "read"), [(1, 2.0), (2, 3.5), (100, 8.0)])
def test_experts_read_grow_with_the_batch_and_work_is_exact(batch: int, read: float) -> None:
    config = {**SMALL, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    graph = from_config(config, phase="decode", batch=batch, context=10)
    up, down = of(graph, "layers.0.mlp.experts"), of(graph, "layers.0.mlp.experts#2")
    assert (up.macs, down.macs) == (2 * batch * 2 * 512 * 256, 2 * batch * 512 * 256)
    assert moved([up], "weight") == pytest.approx(2 * read * 2 * 512 * 256, rel=1e-3)
    assert up.role("weight")[0].stored == 8 * 2 * 512 * 256
    assert graph.fixed_batch
    assert any(f"of 8, {read:.4g} are read on average" in note for note in graph.notes)


@pytest.mark.parametrize(
    ("config", "seen"),
    [
        ({"model_type": "mistral", "sliding_window": 10}, [10, 10]),
        ({"model_type": "mistral", "sliding_window": None}, [51, 51]),
        ({"model_type": "gemma2", "head_dim": 64, "sliding_window": 10}, [10, 51]),
        ({"model_type": "gemma3_text", "head_dim": 64, "sliding_window": 10, "sliding_window_pattern": 2}, [10, 51]),
        ({"model_type": "qwen2", "sliding_window": 10, "max_window_layers": 1, "use_sliding_window": True}, [51, 10]),
        ({"model_type": "qwen2", "sliding_window": 10, "use_sliding_window": False}, [51, 51]),
        ({"model_type": "mistral", "sliding_window": 10, "layer_types": ["full_attention", "sliding_attention"]},
         [51, 10]),
    ],
)  # fmt: skip
def test_windows_limit_what_attention_reads_and_keeps(config: dict[str, Any], seen: list[int]) -> None:
    graph = from_config({**SMALL, **config}, phase="decode", context=50)
    ops = [op for op in graph if op.kind == "attention"]
    assert [sum(t.shape[2] for t in op.role("kv")) // 2 for op in ops] == seen
    assert [("window" in op.note) for op in ops] == [n == 10 for n in seen]
    prompt = [op for op in from_config({**SMALL, **config}, context=51) if op.kind == "attention"]
    assert [op.role("kv")[0].shape[2] for op in prompt] == seen
    assert all(op.role("input")[1].shape[2] == 51 for op in prompt)


def test_tied_embeddings_are_stored_once_and_read_twice() -> None:
    graph = from_config({**SMALL, "tie_word_embeddings": True}, phase="decode", context=10)
    head = of(graph, "lm_head")
    assert (head.layer, head.role("weight")[0].name) == ("model.embed_tokens", "model.embed_tokens.weight")
    assert graph.aliases == {"model.embed_tokens": ("lm_head",)}
    untied = from_config(SMALL, phase="decode", context=10)
    assert estimate(graph, FLAT).bytes == estimate(untied, FLAT).bytes
    assert estimate(untied, FLAT).weight_bytes - estimate(graph, FLAT).weight_bytes == 2 * 1000 * 256


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 64}, 4 + 20 / 64),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8 + 24 / 256),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, 4 + 20 / 128),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, 4 + 32 / 64),
        ({"load_in_4bit": True, "bnb_4bit_use_double_quant": True}, 4 + 8 / 64),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8 + 32 / 256),
        ({"quant_method": "fp8"}, 8),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 8 + 32 / 128**2),
        ({"quant_method": "fbgemm_fp8"}, 8 + 32 / 256),
        ({"quant_method": "compressed-tensors", "ignore": ["lm_head"], "config_groups": {"group_0": {"weights": {
            "num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": False}}}}, 4 + 20 / 32),
        ({"quant_method": "compressed-tensors", "ignore": ["lm_head"], "config_groups": {"group_0": {"weights": {
            "num_bits": 8, "type": "float", "strategy": "channel"}}}}, 8 + 32 / 256),
    ],
)  # fmt: skip
def test_quantization_config_sets_weight_bytes_and_dtype_never_does(quantization: dict[str, Any], bits: float) -> None:
    for dtype in ("bfloat16", "float32"):
        config = {**SMALL, "torch_dtype": dtype, "quantization_config": quantization}
        graph = from_config(config, phase="decode", context=10)
        op = of(graph, "layers.0.self_attn.q_proj")
        assert 8 * (moved([op], "weight") + moved([op], "parameter")) == 256 * 256 * bits
        assert of(graph, "lm_head").role("weight")[0].bits == (16 if dtype == "bfloat16" else 32)
        assert of(graph, "embed_tokens").role("weight")[0].bits == (16 if dtype == "bfloat16" else 32)
        assert any("as quantization_config says" in note for note in graph.notes)


def test_ignored_modules_keep_the_dtype_and_integers_are_not_changed_by_schemes() -> None:
    groups = {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "strategy": "group", "group_size": 128}}}
    kept = ["lm_head", "model.layers.0.self_attn.q_proj", "re:.*down_proj", "model.layers.1.mlp"]
    config = {
        **SMALL, "quantization_config": {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": kept}
    }  # fmt: skip
    graph = from_config(config, phase="decode", context=10)
    bits = {op.name.removeprefix("model.layers."): op.role("weight")[0].bits for op in graph if op.kind == "linear"}
    assert [name for name, b in bits.items() if b == 16] == [
        "0.self_attn.q_proj", "0.mlp.down_proj", "1.mlp.gate_proj", "1.mlp.up_proj", "1.mlp.down_proj", "lm_head"
    ]  # fmt: skip
    as_stored, eight = (
        {
            row.name: row.bytes_by_role["weight"]
            for row in estimate(graph, FLAT, s).layers
            if "weight" in row.bytes_by_role
        }
        for s in ("keep", "w8")
    )
    name = "model.layers.0.self_attn.k_proj"
    assert eight[name] == as_stored[name] == 128 * 256 // 2 + 128 * 2 * 2
    assert eight["model.layers.0.self_attn.q_proj"] == as_stored["model.layers.0.self_attn.q_proj"] // 2
    fp8 = from_config({**SMALL, "quantization_config": {"quant_method": "fp8"}}, phase="decode", context=10)
    assert estimate(fp8, FLAT, "w4").weight_bytes < estimate(fp8, FLAT).weight_bytes


def test_mxfp4_is_of_experts_alone() -> None:
    graph = from_config(shipped("gpt-oss-20b").config, phase="decode", context=10)
    bits = {op.layer.rpartition(".")[2]: op.role("weight")[0].bits for op in graph if op.weighted}
    assert {name for name, b in bits.items() if b == 4} == {"experts"}
    stored = estimate(graph, FLAT).weight_bytes
    experts = 24 * 32 * 3 * 2880 * 2880
    assert stored == experts // 2 + experts // 32 + 2 * (20_914_757_184 - experts - _not_weights())


def _not_weights() -> int:
    """Biases, norms and sinks of GPT-OSS 20B."""
    attention = 64 * 64 + 2 * 8 * 64 + 2880 + 64
    experts = 32 * (2 * 2880 + 2880) + 32
    return 24 * (attention + experts + 2 * 2880) + 2880


def test_phases_of_encoder_decoder_models() -> None:
    config = shipped("whisper-large-v3").config
    prompt, token = from_config(config), from_config(config, phase="decode", context=20)
    assert any(op.name == "model.encoder.conv1" for op in prompt)
    assert not any(op.name.startswith("model.encoder") for op in token)
    cross = of(token, "layers.0.encoder_attn.scaled_dot_product_attention")
    assert [t.shape[2] for t in cross.role("kv")] == [1500, 1500]
    assert not any("encoder_attn.k_proj" in op.name for op in token)
    own = of(token, "layers.0.self_attn.scaled_dot_product_attention")
    assert [t.shape[2] for t in own.role("kv")] == [20, 20, 1, 1]


def test_language_model_of_a_larger_network() -> None:
    text = {**SMALL, "model_type": "gemma3_text", "head_dim": 64, "sliding_window": 10}
    graph = from_config({"model_type": "gemma3", "text_config": text, "vision_config": {}}, context=10)
    assert graph.ops[0].name == "model.language_model.embed_tokens"
    assert "vision tower, is left out" in graph.notes[0]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("llama-2-7b", {"phase": "encode"}, "unknown phase 'encode': known: prefill, decode. Next: choose one."),
        ("llama-2-7b", {"batch": 0}, "batch must be a whole number from 1 to 1000000, got 0. Next: choose one."),
        ("llama-2-7b", {"context": 10**9},
         "context must be a whole number from 1 to 100000000, got 1000000000. Next: choose one."),
        ("bert-base", {"phase": "decode"},
         "bert-base makes no tokens: it has no phase decode. Next: leave out the phase."),
        ("vit-base", {"context": 5}, "vit-base reads no tokens: it takes no context. Next: leave it out."),
        ("gpt2", {"context": 1025},
         "gpt2 has 1024 positions, which a context of 1025 does not fit. Next: give at most 1024."),
        ("gpt2", {"context": 1024, "phase": "decode"},
         "gpt2 has 1024 positions, which a context of 1024 does not fit. Next: give at most 1023."),
    ],
)  # fmt: skip
def test_what_a_model_does_not_do(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        from_config(shipped(name).config, name=name, **options)
    assert str(caught.value) == message


def test_unknown_quantization_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        from_config({**SMALL, "quantization_config": {"quant_method": "aqlm"}}, name="m")
    assert str(caught.value) == (
        "config of m: quantization_config: quant_method is aqlm, known: gptq, awq, bitsandbytes, compressed-tensors, "
        "fp8, fbgemm_fp8, mxfp4. Next: remove quantization_config to price weights in the config's dtype."
    )


def test_a_70b_model_needs_neither_frameworks_nor_much_memory() -> None:
    code = (
        "import sys, tracemalloc, hardware_specs\n"
        "from roofline import estimate\n"
        "from roofline.frontends._shipped import shipped\n"
        "from roofline.frontends.transformers import from_config\n"
        "tracemalloc.start()\n"
        "graph = from_config(shipped('llama-3-70b').config, phase='decode', context=8192)\n"
        "assert estimate(graph, hardware_specs.load('h100')).latency_s > 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "print(tracemalloc.get_traced_memory()[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100e6


def test_a_default_leaves_routers_alone() -> None:
    found = estimate(load_source("mixtral-8x7b").graph(), hardware_specs.load("h100"), "w4:g128")
    routers = [row for row in found.layers if row.name.endswith(".gate")]
    assert len(routers) == 32
    assert {row.precision for row in routers} == {"keep"}
