"""The table of schemes: equal to the estimate to the last bit, and additive."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import hardware_specs
from hardware_specs import HardwareSpec
from roofline import CostTable, LayerPrecision, OpGraph, estimate, trace
from roofline.errors import InputError, MissingCeilingError, UnknownNameError
from roofline.traffic import TRAFFIC_MODELS
from tests.machines import FLAT, MACHINES, NO_FP32, THREE_LEVELS, Fn, machine, machines, named_graph, zoo_graph
from tests.networks import llama_tiny

OPTIONS = tuple(LayerPrecision.parse(t) for t in ("keep", "w8", "w8a8", "w4:g32a8", "w4a4", "fp16", "int4:c/bf16"))
SCHEMES = 24


class SmallViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.cls = nn.Parameter(torch.zeros(1, 1, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
        return self.head(self.blocks(x)[:, 0])


class Recognizer(nn.Module):
    """Convolution and LSTM: the LSTM's module runs ops (its zero state) that follow no weighted op of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn, self.fc = nn.Conv1d(4, 8, 3, padding=1), nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(self.conv(x).relu().transpose(1, 2))
        return self.fc(y[:, -1])


class Gated(nn.Module):
    """A module with a weight of its own and a weighted child, whose own ops follow the child."""

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.child = nn.Parameter(torch.zeros(8, 8)), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.child(x @ self.weight))

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = Gated.Inner(), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.softmax(self.inner(x), -1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mid, self.head = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mid(self.embed(x)).relu())


GRAPHS: dict[str, Callable[[], OpGraph]] = {
    "resnet20": lambda: zoo_graph("resnet20"),
    "mobilenet_v2": lambda: zoo_graph("mobilenet_v2"),
    "vit": lambda: named_graph(SmallViT, (1, 3, 32, 32)),
    "llama": lambda: named_graph(llama_tiny, (1, 5), torch.int64),
    "recognizer": lambda: named_graph(Recognizer, (1, 4, 6)),
    "gated": lambda: named_graph(Gated, (2, 8)),
    "tied": lambda: named_graph(Tied, (1, 5), torch.int64),
    "argmax": lambda: trace(
        Fn(lambda m, x: m.b(m.a(x)).argmax(-1), a=nn.Linear(8, 8), b=nn.Linear(8, 8)), torch.zeros(2, 8)
    ),
}
# Capacities between the weights of the cheapest and of the dearest scheme: the level that keeps them varies.
STRADDLING = machine(
    memory=(("dram", 1e11, None), ("l2", 4e11, 7e5), ("l1", 2e12, 4e5)), overhead=2e-9, name="straddling"
)
TABLE_MACHINES = (*MACHINES.values(), STRADDLING, hardware_specs.load("t4"))


def check(
    graph: OpGraph, hw: HardwareSpec, traffic: str, *, batch: int | None = None, seed: int = 0, count: int = SCHEMES
) -> CostTable:
    table = CostTable(graph, hw, OPTIONS, traffic=traffic, batch=batch)
    choice = np.random.default_rng(seed).integers(0, len(OPTIONS), (count, len(table.layers)))
    choice[: min(count, len(OPTIONS))] = np.arange(min(count, len(OPTIONS)))[:, None]  # the uniform ones too
    scores = table.score(choice)
    for index, row in enumerate(choice):
        priced = estimate(graph, hw, table.scheme(row.tolist()), traffic=traffic, batch=batch)
        assert scores.latency_s[index] == priced.latency_s
        assert scores.bytes[index] == priced.bytes
        assert scores.weight_bytes[index] == priced.weight_bytes
        assert scores.arithmetic_intensity[index] == priced.arithmetic_intensity
        assert scores.flops == table.flops == priced.flops
    return table


@pytest.mark.parametrize("traffic", TRAFFIC_MODELS)
@pytest.mark.parametrize("hw", TABLE_MACHINES, ids=lambda hw: hw.name)
@pytest.mark.parametrize("name", GRAPHS)
def test_scores_are_the_estimates(name: str, hw: HardwareSpec, traffic: str) -> None:
    check(GRAPHS[name](), hw, traffic, count=SCHEMES if name != "mobilenet_v2" else 10)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(machines(), st.sampled_from(TRAFFIC_MODELS), st.integers(1, 300), st.integers(0, 2**32))
def test_scores_are_the_estimates_on_any_machine(hw: HardwareSpec, traffic: str, batch: int, seed: int) -> None:
    check(zoo_graph("digits_cnn"), hw, traffic, batch=batch, seed=seed, count=10)


def test_the_schemes_do_straddle_the_levels() -> None:
    table = check(zoo_graph("resnet20"), STRADDLING, "fused", seed=1)
    assert table.levels == [0, 1, 2]
    uniform = np.repeat(np.arange(len(OPTIONS))[:, None], len(table.layers), axis=1)
    reached = {table.pricing.weight_level(w) for w in table.score(uniform).weight_bytes}
    assert reached == {0, 1, 2}


def test_the_schemes_do_have_transitions() -> None:
    graph = zoo_graph("resnet20")
    table = CostTable(graph, FLAT, OPTIONS, traffic="unfused")
    mixed = [2 if index % 2 else 5 for index in range(len(table.layers))]
    priced = estimate(graph, FLAT, table.scheme(mixed), traffic="unfused")
    assert len(priced.transitions) > 20
    assert table.score(np.array([mixed])).bytes[0] == priced.bytes


@pytest.mark.parametrize("traffic", ["paper", "fused"])
def test_bytes_are_additive_over_layers(traffic: str) -> None:
    table = CostTable(zoo_graph("mobilenet_v2"), FLAT, OPTIONS, traffic=traffic)
    choice = np.random.default_rng(3).integers(0, len(OPTIONS), (20, len(table.layers)))
    picked = table.bytes[np.arange(len(table.layers)), choice]
    assert np.array_equal(table.score(choice).bytes, picked.sum(axis=1))


def test_many_schemes_score_as_few() -> None:
    table = CostTable(zoo_graph("digits_cnn"), STRADDLING, OPTIONS)
    choice = np.random.default_rng(4).integers(0, len(OPTIONS), (20_000, len(table.layers)), dtype=np.int8)
    all_at_once, head = table.score(choice), table.score(choice[8190:8195])
    for field in ("bytes", "weight_bytes", "latency_s", "arithmetic_intensity"):
        assert np.array_equal(getattr(all_at_once, field)[8190:8195], getattr(head, field))
    assert table.score(choice[:0]).bytes.shape == (0,)


def test_a_declared_keep_holds() -> None:
    graph = zoo_graph("resnet20")
    table = CostTable(graph, FLAT, OPTIONS, traffic="paper")
    for k, option in enumerate(OPTIONS):
        scores = table.score(np.full((1, len(table.layers)), k))
        assert scores.bytes[0] == estimate(graph, FLAT, str(option), traffic="paper").bytes


def test_shapes() -> None:
    table = CostTable(zoo_graph("digits_cnn"), THREE_LEVELS, OPTIONS)
    layers, options = len(zoo_graph("digits_cnn").layers), len(OPTIONS)
    assert table.bytes.shape == table.weight_bytes.shape == (layers, options)
    assert table.latency_s.shape == (3, layers, options)
    assert table.layers == zoo_graph("digits_cnn").layers


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (np.zeros(2, int), "schemes must be integers of shape [S, 2], got int64 [2]. "),
        (np.zeros((1, 3), int), "schemes must be integers of shape [S, 2], got int64 [1, 3]. "),
        (np.zeros((1, 2)), "schemes must be integers of shape [S, 2], got float64 [1, 2]. "),
        (np.zeros((1, 2), bool), "schemes must be integers of shape [S, 2], got bool [1, 2]. "),
        (np.array([[0, 7]]), "option indices must lie in [0, 7). "),
        (np.array([[-1, 0]]), "option indices must lie in [0, 7). "),
    ],
)
def test_refused_choices(choice: np.ndarray, message: str) -> None:
    graph = trace(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)), torch.zeros(1, 8))
    with pytest.raises(InputError) as caught:
        CostTable(graph, FLAT, OPTIONS).score(choice)
    assert str(caught.value).startswith(message)
    assert "Next: " in str(caught.value)


def test_refusals() -> None:
    with pytest.raises(InputError) as caught:
        CostTable(trace(nn.ReLU(), torch.zeros(2, 2), name="net"), FLAT, OPTIONS)
    assert str(caught.value) == ("net has no layer with weights: there is nothing to choose. Next: check the model.")
    graph = trace(nn.Linear(8, 4), torch.zeros(1, 8))
    with pytest.raises(InputError, match="unknown traffic model 'x'"):
        CostTable(graph, FLAT, OPTIONS, traffic="x")
    with pytest.raises(InputError, match="batch must be a whole number of at least 1, got 0"):
        CostTable(graph, FLAT, OPTIONS, batch=0)
    with pytest.raises(MissingCeilingError, match="no-fp32 states no fp32 ceiling"):
        CostTable(graph, NO_FP32, OPTIONS)


def test_no_options_are_refused() -> None:
    with pytest.raises(InputError):
        CostTable(zoo_graph("digits_cnn"), FLAT, [])


def test_a_table_names_its_scheme() -> None:
    table = CostTable(zoo_graph("digits_cnn"), FLAT, OPTIONS)
    scheme = table.scheme([0] * len(table.layers), name="all kept")
    assert str(scheme) == "all kept"
    assert scheme.resolve(table.layers) == dict.fromkeys(table.layers, OPTIONS[0])
    with pytest.raises(UnknownNameError):
        scheme.resolve(["other"])
