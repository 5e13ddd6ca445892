"""Oracles that run the network without labels: agreement, divergence and perplexity against plain computations."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aiq import Model
from aiq.data import DataError, load
from aiq.oracle import Metric, OracleContext, OracleError
from aiq.registry import load_oracle
from aiq.testing import check_oracle
from oracles.agreement import agreement, kl
from oracles.perplexity import next_token_nll, perplexity
from roofline import Scheme
from roofline.errors import AIQError, InputError
from tests.evaluating import context, digits, linear
from tests.networks import llama_tiny

W3 = Scheme.parse("w3@nearest+nobias")


def on_digits(**settings: Any) -> OracleContext:
    return context(data="digits", **settings)


@pytest.mark.parametrize("factory", [agreement, kl])
def test_the_contract_of_oracles(factory: Callable[..., Any]) -> None:
    check_oracle(factory, context=on_digits(limit=24))


def test_agreement_and_divergence_against_the_plain_network() -> None:
    settings = on_digits()
    first, second = agreement("", settings), kl("", settings)
    x = torch.from_numpy(load("digits", "search").x)
    with torch.no_grad():
        exact = digits()[0].module(x)
    rounded = first.network.simulator.outputs(W3, x)
    agreed, diverged = first.evaluate(W3), second.evaluate(W3)
    assert (agreed.n, diverged.n) == (len(x), len(x))
    assert agreed.outcomes is not None
    assert diverged.outcomes is not None
    assert agreed.outcomes.tolist() == (exact.argmax(1) == rounded.argmax(1)).tolist()
    assert 0.9 < agreed.value < 1.0
    expected = F.kl_div(rounded.log_softmax(1), exact.log_softmax(1), log_target=True, reduction="none").sum(1)
    assert diverged.outcomes.tolist() == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-6)
    assert diverged.value == pytest.approx(expected.mean().item(), rel=1e-4)
    assert diverged.stderr == pytest.approx(expected.std().item() / math.sqrt(len(x)), rel=1e-4)
    assert agreed.divergence == diverged.divergence == diverged.value
    assert first.evaluate(Scheme()).value == 1.0
    assert second.evaluate(Scheme()).value == 0.0
    assert first.metric == Metric("agreement", "points", higher_is_better=True, scale=100.0)
    assert (second.metric.unit, second.metric.higher_is_better) == ("nats", False)


def test_fewer_bits_diverge_more() -> None:
    oracle = kl("", on_digits(limit=64))
    found = [oracle.evaluate(Scheme.parse(f"w{bits}@nearest+nobias")).value for bits in (8, 6, 4, 3, 2)]
    assert found == sorted(found)
    assert found[0] > 0


def test_fingerprints_tell_metric_split_and_size_apart() -> None:
    made = [
        agreement("", on_digits()),
        kl("", on_digits()),
        kl("", on_digits(split="report")),
        kl("", on_digits(limit=9)),
    ]
    assert len({tuple(sorted(oracle.fingerprint.items())) for oracle in made}) == 4


@pytest.mark.parametrize("name", ["agreement", "kl", "perplexity", "activation-sqnr", "fisher"])
def test_none_takes_an_argument(name: str) -> None:
    with pytest.raises(InputError) as caught:
        load_oracle(f"{name}:x", on_digits())
    assert str(caught.value) == f"the oracle {name} takes no argument, got 'x'. Next: write {name}."


@pytest.mark.parametrize("name", ["agreement", "kl", "perplexity", "activation-sqnr", "fisher"])
def test_a_model_without_data(name: str) -> None:
    with pytest.raises(AIQError, match="linear comes with no data"):
        load_oracle(name, context(linear(torch.ones(4, 3))))


def test_a_scheme_that_overflows(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[0].weight.data.fill_(1e5)  # fp16 ends at 65504
    model = Model("net", net.eval(), torch.empty(1, 3, device="meta"))
    data = data_file(tmp_path, "torch.linspace(0, 1, 30).reshape(10, 3)")
    oracle = kl("", context(model, data=data))
    assert math.isfinite(oracle.evaluate(Scheme.parse("w8")).value)
    with pytest.raises(OracleError) as caught:
        oracle.evaluate(Scheme.parse("fp16/keep"))
    assert str(caught.value).startswith("the outputs of scheme 'fp16/keep' hold NaN or infinity for 10 of 10 examples.")


def data_file(folder: Path, expression: str) -> str:
    """Return the name of a function that returns unlabelled inputs."""
    path = folder / "data.py"
    path.write_text(f"import torch\ntorch.manual_seed(0)\ndef inputs(split):\n    return {expression}, None\n")
    return f"{path}:inputs"


class Bigram(nn.Module):
    """Its logits for the next token are a row of a table."""

    def __init__(self, *, wrapped: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 3)
        self.table.weight.data = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
        self.wrapped = wrapped

    def forward(self, tokens: torch.Tensor) -> Any:
        logits = self.table(tokens)
        return SimpleNamespace(logits=logits) if self.wrapped else logits


def language(module: nn.Module, folder: Path, expression: str, length: int) -> OracleContext:
    model = Model("lm", module.eval(), torch.empty(1, length, dtype=torch.int64, device="meta"))
    return context(model, data=data_file(folder, expression))


@pytest.mark.parametrize("wrapped", [False, True])
def test_perplexity_by_hand(tmp_path: Path, wrapped: bool) -> None:
    oracle = perplexity("", language(Bigram(wrapped=wrapped), tmp_path, "torch.tensor([[0, 0, 1], [2, 2, 2]])", 3))
    e = math.e
    first = (-math.log(e / (e + 2)) - math.log(1 / (e + 2))) / 2
    second = -math.log(e**3 / (e**3 + 2))
    mean = (first + second) / 2
    found = oracle.evaluate(Scheme())
    assert found.value == pytest.approx(math.exp(mean), rel=1e-6)
    assert found.n == 2
    assert found.outcomes is not None
    assert found.outcomes.tolist() == pytest.approx(
        [math.exp(mean) * (1 + nll - mean) for nll in (first, second)], rel=1e-5
    )
    assert found.stderr == pytest.approx(math.exp(mean) * abs(first - second) / 2, rel=1e-5)
    assert oracle.metric == Metric("perplexity", "perplexity", higher_is_better=False)


def test_perplexity_of_a_decoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    decoder = llama_tiny()
    settings = language(decoder, tmp_path, "torch.randint(0, 64, (20, 12))", 12)
    assert settings.data is not None
    oracle = perplexity("", settings)
    tokens = torch.from_numpy(load(settings.data, "search").x)
    with torch.no_grad():
        expected = F.cross_entropy(decoder(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).exp().item()
    base, found = oracle.evaluate(Scheme()), oracle.evaluate(Scheme.parse("w4"))
    assert base.value == pytest.approx(expected, rel=1e-5)
    assert found.value != base.value
    assert base.outcomes is not None
    assert found.outcomes is not None
    paired = (found.outcomes.astype(float) - base.outcomes.astype(float)).mean()
    assert paired == pytest.approx(found.value - base.value, rel=1e-3)
    check_oracle(perplexity, context=settings)


def test_a_uniform_model_is_as_perplexed_as_its_vocabulary() -> None:
    tokens = torch.tensor([[0, 3, 1, 4], [2, 2, 2, 2]])
    assert next_token_nll(torch.zeros(2, 4, 5), tokens).tolist() == pytest.approx([math.log(5)] * 2)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("torch.zeros(4, 3)", "got float32 [4, 3]"),
        ("torch.zeros(4, 3, 2, dtype=torch.int64)", "got int64 [4, 3, 2]"),
        ("torch.zeros(4, 1, dtype=torch.int64)", "got int64 [4, 1]"),
        ("torch.full((4, 3), -1)", "got int64 [4, 3]"),
    ],
)
def test_data_that_are_no_tokens(tmp_path: Path, expression: str, message: str) -> None:
    with pytest.raises(OracleError) as caught:
        perplexity("", language(Bigram(), tmp_path, expression, 3))
    assert str(caught.value) == (
        f"perplexity needs token ids, int64 [N, T] with T of at least 2 and none negative, {message}. "
        "Next: give tokenized text."
    )


def test_tokens_that_the_model_does_not_know(tmp_path: Path) -> None:
    oracle = perplexity("", language(Bigram(), tmp_path, "torch.tensor([[0, 1, 7]] * 4)", 3))
    with pytest.raises(OracleError) as caught:
        oracle.evaluate(Scheme())
    assert str(caught.value) == (
        "the model has no embedding for some token ids: they reach 7. Next: tokenize with the model's own tokenizer."
    )
    with pytest.raises(OracleError) as caught:
        next_token_nll(torch.zeros(1, 3, 5), torch.tensor([[0, 1, 7]]))
    assert str(caught.value) == (
        "token id 7 lies outside the model's 5 logits. Next: tokenize with the model's own tokenizer."
    )


def test_a_model_that_is_no_language_model(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Embedding(3, 4), nn.Flatten(), nn.Linear(12, 2))
    oracle = perplexity("", language(module, tmp_path, "torch.tensor([[0, 1, 2]] * 4)", 3))
    with pytest.raises(OracleError) as caught:
        oracle.evaluate(Scheme())
    assert str(caught.value) == (
        "the model maps tokens [4, 3] to outputs [4, 2], not to logits [N, T, V]. "
        "Next: choose a causal language model, or another oracle."
    )


def test_a_perplexity_beyond_any_number(tmp_path: Path) -> None:
    module = Bigram()
    module.table.weight.data *= 1e4
    oracle = perplexity("", language(module, tmp_path, "torch.tensor([[0, 1, 2]] * 4)", 3))
    with pytest.raises(OracleError) as caught:
        oracle.evaluate(Scheme())
    assert str(caught.value) == (
        "the perplexity of 'keep' is beyond any number: 15000 nats a token. "
        "Next: leave out the formats that break the model."
    )


def test_data_that_do_not_exist() -> None:
    with pytest.raises(DataError):
        agreement("", context(data="npz:no/such.npz"))


def test_outcomes_of_a_sequence_are_shares(tmp_path: Path) -> None:
    torch.manual_seed(0)
    oracle = agreement("", language(llama_tiny(), tmp_path, "torch.randint(0, 64, (10, 6))", 6))
    for text in ("keep", "w3"):
        found = oracle.evaluate(Scheme.parse(text))
        assert found.outcomes is not None
        assert found.outcomes.dtype == np.float32
        assert found.value == pytest.approx(found.outcomes.mean(), rel=1e-6)
