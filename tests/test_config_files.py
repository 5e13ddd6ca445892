"""Bad configurations: one sentence, no traceback, nothing built of absurd size."""

from __future__ import annotations

import json
import math
import random
import string
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from aiq._hub import cached_config
from roofline.errors import AIQError, InputError
from roofline.frontends._shipped import shipped, shipped_names
from roofline.frontends.transformers import ConfigError, from_config, known_types, read_config

LLAMA = {**shipped("llama-3.2-1b").config, "num_hidden_layers": 2}


def refusal(config: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        from_config(config, name="m", context=4)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "hidden_size is missing. Next: give it as a whole number from 1 to 10000000."),
        ({"hidden_size": "2048"}, "hidden_size is 2048. Next: give a whole number from 1 to 10000000."),
        ({"hidden_size": 2048.0}, "hidden_size is 2048.0. Next: give a whole number from 1 to 10000000."),
        ({"hidden_size": True}, "hidden_size is True. Next: give a whole number from 1 to 10000000."),
        ({"hidden_size": -1}, "hidden_size is -1. Next: give a whole number from 1 to 10000000."),
        ({"hidden_size": math.nan}, "hidden_size is nan. Next: give a whole number from 1 to 10000000."),
        ({"hidden_size": 10**400},
         "hidden_size is a number of more than 40 digits. Next: give a whole number from 1 to 10000000."),
        ({"num_hidden_layers": 10**30},
         f"num_hidden_layers is {10**30}. Next: give a whole number from 1 to 2000."),
        ({"num_hidden_layers": 1e30}, "num_hidden_layers is 1e+30. Next: give a whole number from 1 to 2000."),
        ({"num_hidden_layers": [2]}, "num_hidden_layers is [2]. Next: give a whole number from 1 to 2000."),
        ({"vocab_size": {"a": 1}}, "vocab_size is {'a': 1}. Next: give a whole number from 1 to 10000000."),
        ({"head_dim": None, "num_attention_heads": 33},
         "num_attention_heads of 33 is no multiple of num_key_value_heads, 8. Next: mend one of them."),
        ({"head_dim": None, "hidden_size": 2047},
         "hidden_size of 2047 is no multiple of num_attention_heads, 32. Next: mend one of them."),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is yes. Next: give true or false."),
        ({"hidden_act": 3}, "hidden_act is 3. Next: give a text."),
        ({"torch_dtype": "int8"},
         "torch_dtype is int8. Next: give one of float32, float16, bfloat16, float64, auto, half."),
        ({"model_type": 5}, "model_type is 5. Next: give a text."),
        ({"quantization_config": "gptq"}, "quantization_config is gptq. Next: give an object."),
        ({"quantization_config": {"quant_method": "gptq", "bits": 99}},
         "quantization_config: bits is 99. Next: give a whole number from 2 to 8."),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [0, 1]}},
         "quantization_config: weight_block_size is no pair of sizes. Next: give for instance [128, 128]."),
        ({"quantization_config": {"quant_method": "awq", "bits": 4, "modules_to_not_convert": ["re:(a+)+$"]}},
         "quantization_config: the expression re:(a+)+$ could take too long. Next: write a simpler one."),
        ({"quantization_config": {"quant_method": "awq", "bits": 4, "modules_to_not_convert": ["re:("]}},
         "quantization_config: re:( is no regular expression. Next: mend it."),
    ],
)  # fmt: skip
def test_bad_values(change: dict[str, Any], message: str) -> None:
    text = refusal({**LLAMA, **change})
    assert text == f"config of m: {message}"


def test_bad_mixtures_and_layer_types() -> None:
    mixtral = shipped("mixtral-8x7b").config
    assert "num_experts_per_tok is 9 of 8 experts" in refusal({**mixtral, "num_experts_per_tok": 9})
    assert "num_local_experts is 1000000" in refusal({**mixtral, "num_local_experts": 10**6})
    assert "layer_types has 1 entries for 32 layers" in refusal({**mixtral, "layer_types": ["full_attention"]})
    assert "sliding_window is missing" in refusal({**mixtral, "layer_types": ["sliding_attention"] * 32})
    assert "q_lora_rank is missing" in refusal(
        {key: value for key, value in shipped("deepseek-v3").config.items() if key != "q_lora_rank"}
    )


def test_without_a_model_type_the_known_ones_are_listed() -> None:
    assert refusal({}) == (
        f"config of m: model_type is missing. Next: give one, for instance one of these: {', '.join(known_types())}."
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layer": 10**9}, "n_layer is 1000000000. Next: give at most 4096."),
        ({"hidden_size": 1e30}, "hidden_size is 1e+30. Next: give at most 1000000000."),
        ({"depths": [1, 10**9]}, "depths is 1000000000. Next: give at most 4096."),
        ({"a": {"b": {"num_layers": 10**9}}}, "num_layers is 1000000000. Next: give at most 4096."),
        ({"hidden_size": "x"}, "transformers refuses it: "),
    ],
)
def test_what_only_transformers_knows_is_limited_before_it_is_made(change: dict[str, Any], message: str) -> None:
    pytest.importorskip("transformers")
    assert refusal({"model_type": "bloom", "hidden_size": 64, "n_layer": 1, "n_head": 2, **change}).startswith(
        f"config of m: {message}"
    )


def test_deeply_nested_values_are_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(50):
        nested = {"a": nested}
    assert "nested too deep" in refusal({"model_type": "bloom", **nested})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "malformed JSON: Expecting value: line 1 column 1 (char 0). Next: mend it."),
        (b"[1]", "holds no JSON object. Next: give the config.json of a model."),
        (b"\xff\xfe", "is no UTF-8 text. Next: give a readable config.json."),
        (b"[" * 100_000, "malformed JSON: "),
        (b'{"a": ' * 50_000, "malformed JSON: "),
        (b" " * 8_000_001, "has 8000001 bytes, at most 8000000 are read. Next: give a config.json."),
        (b'{"hidden_size": ' + b"9" * 5000 + b"}", "malformed JSON: Exceeds the limit"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    for path in (file, tmp_path):
        with pytest.raises(ConfigError) as caught:
            read_config(path)
        assert message in str(caught.value)
        assert str(caught.value).startswith(f"config {str(file)!r}")
        assert "\n" not in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path)
    name = str(tmp_path / "config.json")
    assert str(caught.value) == (
        f"config {name!r}: no such file. Next: give a config.json or the folder that holds it."
    )
    with pytest.raises(ConfigError):
        read_config("x\0y")


def test_a_large_model_costs_little_memory() -> None:
    tracemalloc.start()
    from_config({**LLAMA, "num_hidden_layers": 2000, "hidden_size": 10**7, "intermediate_size": 10**7}, context=10**7)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 7, 10**9, 10**30, 1e30, -1e-9, math.nan, math.inf, "", "x", "4096", [], [1], ["a"],
    {}, {"a": 1}, "re:(a+)+$", ["re:["], {"quant_method": "gptq"}, "\0", "ß" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_mutated_configurations_give_a_graph_or_one_sentence(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(40):
        config = json.loads(json.dumps(shipped(draw.choice(shipped_names())).config))
        for key in ("num_hidden_layers", "n_layer", "encoder_layers", "decoder_layers", "num_layers"):
            if key in config:
                config[key] = 2
        for _ in range(draw.randint(1, 3)):
            target = config.get("quantization_config", config) if draw.random() < 0.2 else config
            key = draw.choice(
                [*target, "quantization_config", "layer_types", "".join(draw.choices(string.ascii_letters))]
            )
            if draw.random() < 0.3:
                target.pop(key, None)
            else:
                target[key] = draw.choice(VALUES)
            if not isinstance(config.get("quantization_config", {}), dict):
                break
        if config.get("model_type") not in known_types():
            config["model_type"] = "llama"
        try:
            graph = from_config(config, name="m", phase=draw.choice([None, "decode"]), context=draw.choice([None, 3]))
        except AIQError as error:
            assert "\n" not in str(error)
            assert "Next: " in str(error)
        else:
            assert graph.macs > 0


def test_names_in_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--org--net"
    (model / "snapshots" / "abcdef0").mkdir(parents=True)
    (model / "snapshots" / "abcdef1").mkdir()
    for revision in ("abcdef0", "abcdef1"):
        (model / "snapshots" / revision / "config.json").write_text("{}")
    assert cached_config("org/net").parent.name == "abcdef0"
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("abcdef1\n")
    assert cached_config("org/net").parent.name == "abcdef1"
    (model / "refs" / "main").write_text("../../../../etc")
    assert cached_config("org/net").parent.name == "abcdef0"
    for name in ("org/other", "../net", "/etc", "a/b/c", "", "org/net\n"):
        with pytest.raises(InputError) as caught:
            cached_config(name)
        assert "nothing is fetched from the network" in str(caught.value)
