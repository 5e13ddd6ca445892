"""Memory by liveness: closed forms of small networks, an executor that frees at last use, and what a user reads."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from roofline import OpGraph, estimate, trace
from roofline.frontends.transformers import from_config
from roofline.memory import Memory
from tests.commands import run
from tests.machines import FLAT, Fn, machine, zoo_graph
from tests.networks import llama_tiny

widths = st.lists(st.integers(1, 40), min_size=2, max_size=6)


def peak(graph: OpGraph, scheme: str = "keep", **options: Any) -> int:
    return estimate(graph, FLAT, scheme, **options).memory.activation_bytes


def chain(sizes: list[int]) -> nn.Module:
    return nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(sizes)))


@given(sizes=widths, batch=st.integers(1, 9), traffic=st.sampled_from(["unfused", "fused"]))
@settings(max_examples=25, deadline=None)
def test_a_chain_holds_two_neighbours(sizes: list[int], batch: int, traffic: str) -> None:
    graph = trace(chain(sizes), torch.zeros(1, sizes[0]))
    pairs = [a + b for a, b in itertools.pairwise(sizes)]
    found = estimate(graph, FLAT, traffic=traffic, batch=batch).memory
    assert found.activation_bytes == 4 * batch * max(pairs)
    assert found.peak == str(pairs.index(max(pairs)))


class Residual(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.stem, self.up, self.down = nn.Linear(width, width), nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.relu(x + self.down(torch.relu(self.up(x))))


@pytest.mark.parametrize(("width", "inner"), [(8, 3), (8, 8), (8, 64)])
def test_a_residual_keeps_its_shortcut(width: int, inner: int) -> None:
    graph = trace(Residual(width, inner), torch.zeros(1, width))
    # stem: x, y. up: y, h. down, with the sum and the ReLU in place: y, h, z.
    assert peak(graph) == 4 * max(2 * width, 2 * width + inner)
    # Eager: the ReLU of h beside h and y; the sum beside y and down's result.
    assert peak(graph, traffic="unfused") == 4 * max(width + 2 * inner, 2 * width + inner, 3 * width)


def unet(first: int, second: int) -> nn.Module:
    """Two levels down and up again; each level's features wait for the way up."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, first, 1), nn.Conv2d(first, second, 1)
            self.c, self.d = nn.Conv2d(second, first, 1), nn.Conv2d(2 * first, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            a = self.a(x)
            c = self.c(self.b(F.max_pool2d(a, 2)))
            return self.d(torch.cat([a, F.interpolate(c, scale_factor=2.0)], 1))

    return Net()


@pytest.mark.parametrize(("first", "second"), [(2, 100), (6, 4)])
def test_a_skip_waits_for_its_reader(first: int, second: int) -> None:
    graph = trace(unet(first, second), torch.zeros(1, 1, 8, 8))
    full, quarter = 64, 16
    skip = first * full
    rows = {
        "a": full + skip,
        "pool": skip + first * quarter,
        "b": skip + (first + second) * quarter,
        "c": skip + (second + first) * quarter,
        "up": skip + first * quarter + skip,
        "cat": skip + skip + 2 * skip,
        "d": 2 * skip + full,
    }
    assert peak(graph) == 4 * max(rows.values())
    assert max(rows, key=lambda row: rows[row]) == ("b" if second > 50 else "cat")


def test_an_early_result_stays_to_the_end() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.wide, self.second = nn.Linear(4, 30), nn.Linear(4, 50), nn.Linear(50, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.first(x), self.second(self.wide(x))

    graph = trace(Heads(), torch.zeros(1, 4))
    assert peak(graph) == 4 * (4 + 30 + 50)
    one = trace(Fn(lambda self, x: self.net(x)[1], net=Heads()), torch.zeros(1, 4))
    assert peak(one) == 4 * max(4 + 30, 4 + 50, 50 + 2)


def test_in_place_results_and_views_take_nothing() -> None:
    apart = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 1))
    within = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(256, 1))
    x = torch.zeros(1, 1, 8, 8)
    assert peak(trace(apart, x), traffic="unfused") == 4 * (256 + 256)
    assert peak(trace(within, x), traffic="unfused") == 4 * (256 + 64)
    assert peak(trace(apart, x)) == peak(trace(within, x)) == 4 * (256 + 64)


def test_views_of_an_input_are_one_input() -> None:
    graph = trace(Fn(lambda _, x: (x[:, :3] * 2, x[:, 3:] * 2, x.view(1, 2, 5) * 2)), torch.zeros(1, 10))
    # The input, then results of 3, 7 and 10 values that all stay.
    assert peak(graph, traffic="unfused") == 4 * (10 + 3 + 7 + 10)


def test_a_tensor_written_in_parts_is_one_tensor() -> None:
    def parts(_: Any, x: Tensor) -> Tensor:
        out = torch.zeros(1, 8)
        out[:, :4] = x + 1
        out[:, 4:] = x + 2
        return out

    assert peak(trace(Fn(parts), torch.zeros(1, 4)), traffic="unfused") == 4 * (8 + 4 + 4)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    # Input 20, hidden 12, result 6: an input has its reader's format, a result its writer's.
    [
        ("keep", 4 * 32),
        ("w8", 4 * 32),
        ("w8a8", 32),
        ("fp16", 2 * 32),
        ("w8a8,1=keep", 12 + 4 * 6),
        ("w8a8,0=keep", 4 * 32),
    ],
)
def test_tensors_have_their_writers_format(scheme: str, expected: int) -> None:
    assert peak(trace(chain([20, 12, 6]), torch.zeros(1, 20)), scheme) == expected


@pytest.mark.parametrize("traffic", ["paper", "fused", "unfused"])
def test_parts_add_up(traffic: str) -> None:
    found = estimate(zoo_graph("digits_cnn"), FLAT, "w8:c", traffic=traffic).memory
    assert found.total_bytes == sum((found.weight_bytes, found.constant_bytes, found.kv_bytes, found.activation_bytes))
    assert found.weight_bytes == estimate(zoo_graph("digits_cnn"), FLAT, "w8:c", traffic=traffic).weight_bytes
    assert found.constant_bytes > 0


def test_paper_traffic_holds_what_runs_between_its_layers() -> None:
    graph = trace(Residual(8, 3), torch.zeros(1, 8))
    assert peak(graph, traffic="paper") == peak(graph, traffic="fused")


@pytest.mark.parametrize("traffic", ["fused", "unfused"])
def test_it_is_no_less_than_any_row_moves(traffic: str) -> None:
    with torch.device("meta"):
        graph = trace(llama_tiny(), torch.zeros(1, 7, dtype=torch.int64))
    for candidate in (graph, zoo_graph("mobilenet_v2")):
        found = estimate(candidate, FLAT, traffic=traffic, batch=3)
        # A row's inputs and results are alive together; where two reads overlap, what is alive is less than what moves.
        largest = max(layer.bytes_by_role["output"] for layer in found.layers)
        assert found.memory.activation_bytes >= largest
        assert found.memory.activation_bytes <= sum(layer.activation_bytes for layer in found.layers)


class _Eager(fx.Interpreter):
    """Run a network operator by operator, free each value after its last reader, and count the bytes that are held."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.most = 0

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op != "output":
            held = [v for v in [*self.env.values(), result] if isinstance(v, Tensor)]
            storages = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in held}
            self.most = max(self.most, sum(storages.values()))
        return result


class Convnet(nn.Module):
    """A residual, a skip over a pool, an in-place ReLU, views and two results."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.down, self.last = nn.Conv2d(8, 24, 3, 2, 1), nn.Conv2d(32, 4, 1)
        self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(4 * 36, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        stem = self.relu(self.stem(x))
        y = torch.relu(self.body(stem) + stem)
        low = self.down(y)
        joined = torch.cat([low, F.max_pool2d(y, 2)], 1)
        last = self.last(joined)
        return self.fc(torch.flatten(last, 1)), last.mean((2, 3))


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("build", [Convnet, lambda: unet(6, 40), lambda: Residual(16, 90)])
def test_it_is_what_an_executor_holds_that_frees_at_last_use(build: Any, batch: int) -> None:
    torch.manual_seed(0)
    network = build().eval()
    shape = {Convnet: (3, 12, 12)}.get(build, (16,) if isinstance(network, Residual) else (1, 8, 8))
    eager = _Eager(fx.symbolic_trace(network))
    with torch.inference_mode():
        eager.run(torch.zeros(batch, *shape))
    graph = trace(network, torch.zeros(1, *shape))
    assert peak(graph, traffic="unfused", batch=batch) == eager.most
    assert peak(graph, traffic="fused", batch=batch) <= eager.most


@pytest.mark.parametrize(("capacity", "fits"), [(2000.0, True), (928.0, True), (927.0, False)])
def test_it_fits_or_not(capacity: float, fits: bool) -> None:
    graph = trace(nn.Sequential(nn.Linear(16, 12)), torch.zeros(1, 16))
    found = estimate(graph, machine(memory=(("dram", 1e9, capacity),)))
    assert found.memory == Memory(4 * 16 * 12, 4 * 12, 0, 4 * (16 + 12), "0", capacity)
    assert (found.memory.total_bytes, found.memory.spare_bytes, found.fits) == (928, capacity - 928, fits)


def test_an_unknown_size_is_not_judged() -> None:
    found = estimate(trace(nn.Linear(4, 4), torch.zeros(1, 4)), FLAT).memory
    assert (found.capacity_bytes, found.spare_bytes, found.fits) == (None, None, None)


def test_a_graph_of_views_alone_holds_nothing() -> None:
    found = estimate(trace(Fn(lambda _, x: x.view(4, 2)), torch.zeros(2, 4)), FLAT).memory
    assert (found.activation_bytes, found.peak, found.total_bytes) == (0, "", 0)


def test_the_report_says_it() -> None:
    code, out, _ = run("roofline", "digits_cnn", "--hardware", "t4")
    (line,) = [line for line in out.splitlines() if line.startswith("- memory needed: ")]
    assert code == 0
    assert "of weights, " in line
    assert "fits dram of 16.0 GB with 16.0 GB to spare" in line
    data = json.loads(run("roofline", "digits_cnn", "--hardware", "t4", "--format", "json").out)["memory"]
    assert data["total_bytes"] == sum(data[f"{part}_bytes"] for part in ("weight", "constant", "kv", "activation"))
    assert data["spare_bytes"] == data["capacity_bytes"] - data["total_bytes"]
    assert data["fits"] is True
    code, out, _ = run("roofline", "mobilenet_v2", "--hardware", "t4", "--batch", "1000000")
    assert code == 0
    assert "- does not fit: dram of 16.0 GB is " in out


@pytest.mark.parametrize(("scheme", "bits"), [("bf16", 16), ("w4:g32", 16), ("w8kv8", 8), ("kv4", 4)])
@pytest.mark.parametrize("traffic", ["paper", "fused", "unfused"])
def test_the_cache_of_keys_and_values_is_part_of_it(scheme: str, bits: int, traffic: str) -> None:
    config = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "vocab_size": 100,
        "num_attention_heads": 4, "num_key_value_heads": 2, "torch_dtype": "bfloat16",
    }  # fmt: skip
    graph = from_config(config, phase="decode", batch=2, context=50)
    found = estimate(graph, FLAT, scheme, batch=5, traffic=traffic).memory
    # Keys and values of 3 layers, 5 sequences, 50 tokens and the new one, 2 heads of 16 values.
    assert found.kv_bytes == 2 * 3 * 5 * (50 + 1) * 2 * 16 * bits // 8
    prefill = from_config(config, phase="prefill", batch=1, context=50)
    assert estimate(prefill, FLAT, scheme, traffic=traffic).memory.kv_bytes == 2 * 3 * 50 * 2 * 16 * bits // 8
