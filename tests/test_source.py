"""Models in any form on the command line and in Python: modules, ONNX files, configurations, shipped names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hardware_specs
from aiq import Workload, load_model, load_source
from aiq._generation import generate
from aiq._model import ModelError
from cli import app
from roofline import LayerPrecision, Scheme, estimate
from roofline.errors import AIQError, InputError, UnknownNameError
from roofline.frontends._shipped import shipped
from roofline.frontends.transformers import from_config

TINY: dict[str, Any] = {
    **shipped("llama-3.2-1b").config, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 100,
}  # fmt: skip


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    return f"hf:{tmp_path}"


def run(*words: str) -> Any:
    result = CliRunner().invoke(app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def shown(*words: str) -> Any:
    return json.loads(run(*words, "--format", "json").stdout)


def test_shipped_names_and_folders_are_configurations(tiny: str) -> None:
    source = load_source("llama-2-7b", workload=Workload("decode", 2, 100))
    assert source.phased
    assert source.model is None
    graph = source.graph()
    assert (graph.model, graph.batch) == ("llama-2-7b", 2)
    assert "decode: one new token of each sequence, 100 in the cache" in graph.notes
    assert source.graph(batch=4, context=7, phase="prefill").batch == 4
    assert load_source(tiny).graph(context=5).macs == from_config(TINY, context=5).macs
    assert load_source(f"{tiny}/config.json").graph().model == f"{tiny}/config.json"


def test_modules_have_one_graph_and_no_phases() -> None:
    source = load_source("digits_cnn")
    assert source.model is not None
    assert source.graph() is source.graph(batch=8)
    for work in (Workload(phase="decode"), Workload(context=3), Workload(every_logit=True)):
        with pytest.raises(InputError) as caught:
            load_source("digits_cnn", workload=work)
        assert "is a network as it stands: it takes no --" in str(caught.value)
    with pytest.raises(InputError):
        source.graph(context=3)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("llama-2-7b", "a configuration without weights"),
        ("hf:somewhere", "a configuration without weights"),
        ("net.onnx", "an ONNX file"),
    ],
)
def test_where_a_network_has_to_run_graphs_are_refused(name: str, what: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(name)
    assert str(caught.value) == (
        f"model {name!r} is {what}, and this needs a network that runs. Next: give path/to/file.py:callable; "
        "'aiq graph' and 'aiq roofline' take it as it is."
    )


def test_near_names_of_configurations_and_networks() -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_source("lama-3-8b")
    assert "did you mean 'llama-3-8b'" in str(caught.value)
    with pytest.raises(UnknownNameError) as caught:
        load_source("resnet2")
    assert "'resnet20'" in str(caught.value)
    with pytest.raises(InputError) as caught:  # type: ignore[assignment]
        load_source("llama-3-8b", ["1,3"])
    assert "it takes no --input" in str(caught.value)


def test_roofline_of_a_shipped_model_offline() -> None:
    words = ("--phase", "decode", "--context", "8192", "--hardware", "l4", "--scheme", "w4:g128")
    found = shown("roofline", "llama-3-8b", *words)
    assert found["kv_bytes"] == 2 * 2 * 32 * 1024 * 8193
    linear = next(row for row in found["layers"] if row["name"] == "model.layers.0.mlp.gate_proj")
    assert linear["bytes_by_role"]["weight"] == 4096 * 14336 // 2 + 14336 * 32 * 2
    table = run("roofline", "llama-3-8b", *words).stdout
    assert " KV " in table
    assert "8193 tokens are more than the 8192 that the model was made for" in table


def test_acceptance_on_the_a100() -> None:
    words = ("--phase", "decode", "--context", "2048", "--hardware", "a100-40")
    assert shown("roofline", "llama-2-7b", *words)["latency_s"] == pytest.approx(9.19e-3, rel=1e-3)


def test_graph_and_batches(tiny: str) -> None:
    found = shown("graph", tiny, "--phase", "decode", "--batch", "3", "--context", "9")
    assert (found["batch"], found["ops"][0]["name"]) == (3, "model.embed_tokens")
    assert {t["role"] for op in found["ops"] for t in op["tensors"]} == {"input", "weight", "parameter", "output", "kv"}
    with pytest.raises(InputError) as caught:
        run("graph", "digits_cnn", "--batch", "3")
    assert "give the batch in --input" in str(caught.value)
    mixture = shown("roofline", "mixtral-8x7b", "--phase", "decode", "--batch", "4", "--hardware", "h100")
    assert mixture["batch"] == 4


def test_zoo_lists_configurations_with_their_sources() -> None:
    found = shown("zoo")
    names = [row["name"] for row in found["configurations"]]
    assert "llama-2-7b" in names
    assert all(row["source"].startswith("https://") and row["checked"] for row in found["configurations"])
    assert "26 configurations of known models" in run("zoo").stdout


def test_plan_of_a_configuration_needs_losses_measured_elsewhere(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run("plan", tiny)
    assert str(caught.value) == (
        f"model {tiny!r} comes without weights, which the proxy 'weight-sqnr' reads. Next: give --proxy table:FILE "
        "with losses measured elsewhere, or a network with weights."
    )
    layers = from_config(TINY).layers
    table = tmp_path / "losses.json"
    table.write_text(json.dumps({"unit": "points", "losses": {layer: {"w4": 1.0, "w8": 0.1} for layer in layers}}))
    words = ("--proxy", f"table:{table}", "--formats", "keep,w8,w4", "--hardware", "l4", "--phase", "decode")
    found = shown("plan", tiny, *words, "--context", "16", "--batch", "2")
    assert found["batch"] == 2
    assert found["evaluation_cost"]["probe"]["reason"] == "there are no weights to run"
    with pytest.raises(InputError) as caught:
        run("plan", tiny, "--weights", "x.safetensors", *words)
    assert "has no module that --weights could fill" in str(caught.value)


def test_a_generation_sums_every_step() -> None:
    machine = hardware_specs.load("l4")
    source = load_source("gpt2", workload=Workload(context=40, batch=2))
    scheme = Scheme(LayerPrecision.parse("w8kv8"))
    found = generate(source, machine, scheme, 6)
    steps = [estimate(source.graph(context=40 + i, phase="decode"), machine, scheme).latency_s for i in range(5)]
    first = estimate(source.graph(phase="prefill"), machine, scheme).latency_s
    assert list(found.steps) == [40, 41, 42, 43, 44]
    assert found.latency_s == pytest.approx(first + sum(steps), rel=1e-12)
    assert found.tokens_per_s == pytest.approx(12 / found.latency_s)
    assert generate(source, machine, scheme, 1).latency_s == first
    long = generate(source, machine, scheme, 200)
    each = [estimate(source.graph(context=40 + i, phase="decode"), machine, scheme).latency_s for i in range(199)]
    assert len(long.steps) == 9
    assert long.latency_s >= (first + sum(each)) * (1 - 1e-12)
    assert long.latency_s == pytest.approx(first + sum(each), rel=1e-3)


def test_new_tokens_on_the_command_line(tmp_path: Path) -> None:
    words = ("roofline", "llama-3.2-1b", "--hardware", "l4", "--context", "100", "--new-tokens", "20")
    found = shown(*words)
    assert found["new_tokens"] == 20
    assert [step["context"] for step in found["decode"]] == [100, 102, 104, 106, 109, 111, 113, 115, 118]
    text = run(*words).stdout
    assert "20 new tokens in" in text
    assert "the first after" in text
    bad = [
        ("--new-tokens", "5", "--phase", "decode", "a generation has both phases"),
        ("--new-tokens", "0", "--rates", "datasheet", "--new-tokens must be from 1 to 1000000, got 0"),
        ("--new-tokens", "5", "--plot", str(tmp_path / "x.svg"), "--plot draws one pass"),
    ]
    for *options, message in bad:
        with pytest.raises(AIQError) as caught:
            run("roofline", "llama-3.2-1b", "--hardware", "l4", *options)
        assert message in str(caught.value)
    with pytest.raises(InputError) as caught:
        run("roofline", "digits_cnn", "--new-tokens", "5")
    assert "it takes no --new-tokens" in str(caught.value)
