"""Agreement of embeddings: neighbours by hand, the oracle on a small random encoder, and its refusals."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aiq import Model
from aiq.oracle import Metric, OracleContext, OracleError
from aiq.quantize import Simulator
from aiq.registry import load_runtime
from aiq.runtimes import Deployment
from aiq.stats import paired_difference
from aiq.testing import check_oracle
from oracles.embedding import cosines, embedding, nearest, still_nearest, unit
from roofline import Scheme
from roofline.errors import InputError
from tests.evaluating import context, linear

ANGLES = torch.tensor([0.0, 10.0, 30.0, 90.0])
LINEAR = ("q", "k", "v", "o", "up", "down")
W3 = Scheme.parse("w3@nearest+nobias")


def at(degrees: torch.Tensor) -> torch.Tensor:
    radians = degrees.double() * math.pi / 180
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def test_neighbours_by_hand() -> None:
    plane = at(ANGLES)
    assert nearest(plane).tolist() == [1, 0, 1, 2]
    moved = at(torch.tensor([0.0, 18.0, 30.0, 90.0]))  # the second turns from the first to the third
    assert still_nearest(moved, nearest(plane)).tolist() == [True, False, True, True]
    assert cosines(plane, moved).tolist() == pytest.approx([1.0, math.cos(math.radians(8)), 1.0, 1.0])


def test_equals_are_as_near_as_each_other() -> None:
    plane = at(torch.tensor([0.0, 5.0, 5.0]))
    assert still_nearest(plane, torch.tensor([1, 2, 1])).all()
    assert still_nearest(plane, torch.tensor([2, 2, 1])).all()
    assert still_nearest(plane, torch.tensor([2, 0, 0])).tolist() == [True, False, False]


def test_neighbours_do_not_depend_on_lengths_or_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    first, noise = torch.randn(2, 11, 5, generator=generator)
    second = first + noise / 2
    expected = nearest(unit(first))
    outcomes = still_nearest(unit(second), expected)
    assert 0 < outcomes.sum() < 11
    assert nearest(unit(first * torch.arange(1, 12)[:, None])).tolist() == expected.tolist()
    monkeypatch.setattr("oracles.embedding._CHUNK_VALUES", 33)
    assert nearest(unit(first)).tolist() == expected.tolist()
    assert still_nearest(unit(second), expected).tolist() == outcomes.tolist()


class Encoder(nn.Module):
    """Masked attention over token ids and a layer after it, pooled over what is no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(40, 32)
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))
        self.norm, self.up, self.down = nn.LayerNorm(32), nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        real, x = ids != 0, self.tokens(ids)
        q, k, v = (layer(x).unflatten(-1, (2, 16)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None, :])
        x = self.norm(x + self.o(read.transpose(1, 2).flatten(2)))
        x = x + self.down(F.gelu(self.up(x)))
        weight = real.unsqueeze(-1).to(x.dtype)
        return F.normalize((x * weight).sum(1) / weight.sum(1), dim=-1)


@cache
def encoder() -> Model:
    torch.manual_seed(0)
    return Model("encoder", Encoder().eval(), torch.ones(1, 6, dtype=torch.int64, device="meta"))


@pytest.fixture
def small(tmp_path: Path) -> OracleContext:
    padded = "torch.randint(1, 40, (60, 6), generator=g) * (torch.arange(6) < 3 + torch.arange(60)[:, None] % 4)"
    return context(encoder(), data=data_file(tmp_path, padded))


def data_file(folder: Path, expression: str) -> str:
    path = folder / "data.py"
    seeded = "g = torch.Generator().manual_seed(len(split))"
    path.write_text(f"import torch\ndef inputs(split):\n    {seeded}\n    return {expression}, None\n", "utf-8")
    return f"{path}:inputs"


def test_the_contract_of_oracles(small: OracleContext) -> None:
    check_oracle(embedding, context=small)


def test_against_a_plain_computation(small: OracleContext) -> None:
    oracle = embedding("", small)
    exact, rounded = (oracle.network.simulator.outputs(scheme, oracle.network.inputs) for scheme in (Scheme(), W3))
    found = oracle.evaluate(W3)
    expected = []
    for i in range(60):
        a, b = (torch.cosine_similarity(e[i : i + 1].double(), e.double()) for e in (exact, rounded))
        a[i] = b[i] = -2
        expected.append(bool(a.argmax() == b.argmax()))
    assert found.outcomes is not None
    assert found.outcomes.tolist() == expected
    assert 0.2 < found.value < 1.0
    assert (found.n, found.value) == (60, np.mean(expected))
    assert found.stderr == pytest.approx(math.sqrt(found.value * (1 - found.value) / 60))
    apart = 1 - torch.cosine_similarity(exact.double(), rounded.double())
    assert found.divergence == pytest.approx(apart.mean().item())
    assert oracle.metric == Metric("neighbour agreement", "points", higher_is_better=True, scale=100.0)


def test_the_float_model_agrees_with_itself_and_fewer_bits_agree_less(small: OracleContext) -> None:
    oracle = embedding("", small)
    found = [oracle.evaluate(Scheme.parse(text)) for text in ("keep", "w8", "w5", "w3@nearest", "w2@nearest")]
    assert found[0].value == 1.0
    assert found[0].divergence == pytest.approx(0.0, abs=1e-12)
    apart = [evaluation.divergence for evaluation in found]
    assert apart == sorted(apart)
    assert found[1].value > found[3].value > found[4].value


def test_outcomes_pair_two_schemes(small: OracleContext) -> None:
    oracle = embedding("", small)
    better, worse = (oracle.evaluate(Scheme.parse(text)).outcomes for text in ("w8", "w2@nearest"))
    assert better is not None
    assert worse is not None
    difference = paired_difference(better, worse)
    assert difference.value == pytest.approx(better.mean() - worse.mean())
    assert difference.low > 0


@cache
def deployed() -> Deployment:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 40, (64, 6), generator=generator) * (torch.arange(6) < 3 + torch.arange(64)[:, None] % 4)
    return Deployment(Simulator(encoder(), encoder().trace(), ids))


@pytest.mark.parametrize("scheme", ["w4:g32", "w4:g16", "w8", "w8a8"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_give_the_embeddings_of_the_simulation(runtime: str, scheme: str) -> None:
    made, formats = deployed(), Scheme.parse(scheme)
    prepared = load_runtime(runtime).prepare(made, formats, batch=64)
    (ids,) = made.example(64)
    found, expected = prepared.run([ids]), made.simulator.outputs(formats, torch.from_numpy(ids)).numpy()
    changed = np.abs(expected - made.simulator.outputs(Scheme(), torch.from_numpy(ids)).numpy()).mean()
    assert np.abs(found - expected).mean() < (0.3 if scheme == "w8a8" else 1e-3) * changed
    told = prepared.executed_precisions()
    stored, compute = ("int8" if scheme.startswith("w8") else "int4"), ("int8" if scheme == "w8a8" else "fp32")
    assert {layer: (told[layer].compute, told[layer].stored) for layer in LINEAR} == dict.fromkeys(
        LINEAR, (compute, stored)
    )


class Turned(nn.Module):
    """A weight on each side of a product, both with their channels on another axis than a linear layer has."""

    def __init__(self) -> None:
        super().__init__()
        self.right, self.left = nn.Parameter(torch.randn(64, 32)), nn.Parameter(torch.randn(5, 32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.left @ torch.tanh(x @ self.right).unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_weights_with_their_channels_last_are_stored_in_groups(runtime: str) -> None:
    """As those of GPT-2 are."""
    torch.manual_seed(0)
    model, x = Model("turned", Turned().eval(), torch.empty(1, 64, device="meta")), torch.randn(16, 64)
    made, formats = Deployment(Simulator(model, model.trace(), x)), Scheme.parse("w4:g16")
    prepared = load_runtime(runtime).prepare(made, formats, batch=16)
    found, expected = prepared.run([x.numpy()]), made.simulator.outputs(formats, x).numpy()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert prepared.executed_precisions()["right"].stored == "int4"


def test_fingerprints_tell_splits_and_weights_apart(small: OracleContext) -> None:
    others: list[dict[str, Any]] = [{}, {"split": "report"}, {"limit": 9}]
    made = [embedding("", context(encoder(), data=small.data, **settings)).fingerprint for settings in others]
    assert len({tuple(sorted(found.items())) for found in made}) == 3
    assert embedding("", small).fingerprint == made[0]


def refusal(made: OracleContext, argument: str = "") -> str:
    with pytest.raises((OracleError, InputError)) as caught:
        embedding(argument, made).evaluate(Scheme())
    return str(caught.value)


def test_refusals(small: OracleContext, tmp_path: Path) -> None:
    assert refusal(small, "x") == "the oracle embedding takes no argument, got 'x'. Next: write embedding."
    assert refusal(context(encoder(), data=small.data, limit=2)) == (
        "an example has a nearest neighbour only among others: embedding needs at least 3 examples, got 2. "
        "Next: give more."
    )
    tokens = Model("tokens", nn.Embedding(40, 4).eval(), encoder().example)
    assert refusal(context(tokens, data=small.data)) == (
        "the model gives outputs [60, 6, 4], not embeddings [N, D]. "
        "Next: choose a model that pools its tokens, or another oracle."
    )
    nowhere = linear(torch.zeros(4, 3))
    nowhere.module.bias.data.zero_()  # type: ignore[union-attr]
    assert refusal(context(nowhere, data=data_file(tmp_path, "torch.rand(5, 3, generator=g)"))) == (
        "5 of 5 embeddings of the float model are all zeros and point nowhere. "
        "Next: check the inputs, or give layers a wider format."
    )
