"""A configuration gives the same FLOPs and bytes, layer by layer, as a trace of its transformers module."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import roofline
from roofline import OpGraph
from roofline.errors import AIQError
from roofline.frontends._meta_model import trace_config
from roofline.frontends._shipped import shipped
from roofline.frontends.transformers import from_config, known_types
from tests.transformers_models import ARCHITECTURES, DENSE, MIXTURES, OTHERS, config_of, module_of, rows, traced

transformers = pytest.importorskip("transformers")

BATCH, TOKENS = 2, 10
BUFFERS = ("inv_freq", "embed_scale", "position_ids", "token_type_ids")


def assert_same(trace: OpGraph, built: OpGraph, *, cache: bool = False, but: str = "") -> None:
    """Compare ops with weights and attention: MACs, element-wise FLOPs, bytes by role; and stored parameters."""
    left, right = rows(trace), rows(built, cache=cache)
    assert set(left) == set(right)
    assert len(left) > 10
    assert {k: v for k, v in left.items() if not but or but not in k} == {
        k: v for k, v in right.items() if not but or but not in k
    }
    stored = {name: size for name, size in trace.parameters.items() if not name.endswith(BUFFERS)}
    assert stored == dict(built.parameters)
    assert not trace.unknown


@pytest.mark.parametrize("name", [name for name in DENSE if name != "gemma2"])
def test_prefill_of_decoders(name: str) -> None:
    config = config_of(name)
    assert config["model_type"] in known_types()
    assert_same(traced(config, BATCH, TOKENS), from_config(config, batch=BATCH, context=TOKENS, every_logit=True))
    last = traced(config, BATCH, TOKENS, logits_to_keep=1)
    assert_same(last, from_config(config, batch=BATCH, context=TOKENS))


@pytest.mark.parametrize("name", [name for name in DENSE if name != "gemma2"])
def test_decode_of_decoders_with_a_cache(name: str) -> None:
    """Bytes of cached keys and values are those that transformers passes to attention; what is written is apart."""
    config = config_of(name)
    module: Any = module_of(config)
    made = module.config
    dim = getattr(made, "head_dim", None) or made.hidden_size // made.num_attention_heads
    heads = getattr(made, "num_key_value_heads", None) or made.num_attention_heads
    cache = transformers.DynamicCache(config=made)
    for layer in range(2):
        keys = torch.zeros(BATCH, heads, TOKENS, dim, device="meta")
        cache.update(keys, keys.clone(), layer)
    ids = torch.zeros(BATCH, 1, dtype=torch.int64, device="meta")
    trace = roofline.trace(module, {"input_ids": ids, "past_key_values": cache, "use_cache": True})
    built = from_config(config, phase="decode", batch=BATCH, context=TOKENS)
    assert_same(trace, built, cache=True)
    written = [t for op in built for t in op.role("kv") if t.shape[2] == 1]
    assert [t.elements for t in written] == [BATCH * heads * dim] * 4


def test_gemma2_but_for_attention_which_transformers_runs_in_parts() -> None:
    config = config_of("gemma2")
    made = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(made, attn_implementation="eager").eval()
    ids = torch.zeros(BATCH, TOKENS, dtype=torch.int64, device="meta")
    left = rows(roofline.trace(module, {"input_ids": ids, "use_cache": True}))
    right = rows(from_config(config, batch=BATCH, context=TOKENS, every_logit=True))
    assert left == {name: row for name, row in right.items() if "attention" not in name}


@pytest.mark.parametrize("name", list(MIXTURES))
def test_mixtures_of_experts(name: str) -> None:
    """All but the weights of experts agree: their trace reads every expert, the configuration those chosen."""
    config = config_of(name)
    trace = traced(config, BATCH, TOKENS)
    built = from_config(config, batch=BATCH, context=TOKENS, every_logit=True)
    assert_same(trace, built, but=".experts")
    products = [sum(op.macs for op in g if ".mlp.experts" in op.name) for g in (trace, built)]
    assert products[0] == products[1] > 0
    read = [
        sum(t.stored for op in g if op.name.endswith(".mlp.experts") for t in op.role("weight")) for g in (trace, built)
    ]
    assert read[0] == read[1] > 0


@pytest.mark.parametrize("name", list(OTHERS))
def test_encoders_and_encoder_decoders(name: str) -> None:
    config, auto, inputs, options = OTHERS[name]
    trace = roofline.trace(module_of(config, getattr(transformers, auto)), inputs())
    built = from_config(config, batch=BATCH, **options)
    # T5 adds a table of zeros to the scores of cross-attention; a kernel without bias has none to read
    assert_same(trace, built, but="EncDecAttention.scaled" if "t5" in name else "")
    norms = [
        [(op.name, op.vector_flops, op.native_bytes) for op in g if op.kind == "layer_norm"] for g in (trace, built)
    ]
    assert norms[0] == norms[1]


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_architectures_trace_on_meta_without_unknown_operators(name: str) -> None:
    graph = trace_config({"model_type": name, **ARCHITECTURES[name]}, name, batch=BATCH, tokens=TOKENS)
    unknown = sum(entry["bytes"] for entry in graph.unknown.values())
    assert unknown <= 0.01 * sum(op.native_bytes for op in graph)
    assert graph.macs > 0
    assert "traced from transformers" in graph.notes[-1]


def test_other_architectures_take_the_road_of_the_trace() -> None:
    config = {"model_type": "bloom", **ARCHITECTURES["bloom"]}
    graph = from_config(config, batch=BATCH, context=TOKENS)
    assert graph.layers[0] == "transformer.word_embeddings"
    with pytest.raises(AIQError) as caught:
        from_config(config, phase="decode", name="b")
    assert str(caught.value) == (
        "b is traced as a whole, since model_type bloom is not among those that are built: it has no phase decode and "
        "no choice of logits. Next: leave them out."
    )
    with pytest.raises(AIQError) as caught:
        from_config({"model_type": "no_such"}, name="b")
    assert str(caught.value) == (
        f"config of b: model_type is no_such, which transformers {transformers.__version__} has not. "
        "Next: give the module itself: path/to/file.py:callable."
    )


def test_architectures_count() -> None:
    assert len(ARCHITECTURES) >= 30
    assert not {"llama", "bert"} & set(ARCHITECTURES)


@pytest.mark.parametrize("name", ["gpt2", "llama-3.2-1b", "llama-2-7b"])
def test_shipped_decoders_as_large_as_they_are(name: str) -> None:
    config = dict(shipped(name).config)
    assert_same(traced(config, BATCH, TOKENS), from_config(config, batch=BATCH, context=TOKENS, every_logit=True))


@pytest.mark.parametrize(
    ("name", "kind"), [("bert-base", "AutoModel"), ("vit-base", "AutoModelForImageClassification")]
)
def test_shipped_encoders_as_large_as_they_are(name: str, kind: str) -> None:
    config = dict(shipped(name).config)
    ids = torch.zeros(BATCH, TOKENS, dtype=torch.int64, device="meta")
    image = torch.zeros(BATCH, 3, 224, 224, device="meta")
    inputs = image if name == "vit-base" else {"input_ids": ids, "token_type_ids": ids.clone()}
    options = {} if name == "vit-base" else {"context": TOKENS}
    trace = roofline.trace(module_of(config, getattr(transformers, kind)), inputs)
    assert_same(trace, from_config(config, batch=BATCH, **options))
