"""Traffic models: bytes by hand, what folds into what, and a reference count of the bytes of random networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aiq import zoo
from roofline import OpGraph, estimate, trace
from roofline.traffic import TRAFFIC_MODELS, build_rows
from tests.machines import FLAT, Fn, named_graph, zoo_graph
from tests.networks import llama_tiny, mobilenet_v2, resnet50, vit_b_16


def three_layers() -> nn.Module:
    """Input 32 values; conv weight 54, bias 3, output 48; ReLU 48; linear weight 240, bias 5, output 5."""
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5))


SMALL = trace(three_layers(), torch.zeros(1, 2, 4, 4))


@pytest.mark.parametrize(
    ("traffic", "scheme", "batch", "expected"),
    [
        ("paper", "keep", 1, {"0": 4 * (32 + 54 + 48), "3": 4 * (48 + 240 + 5)}),
        ("unfused", "keep", 1, {"0": 4 * (32 + 54 + 3 + 48), "1": 4 * (48 + 48), "3": 4 * (48 + 240 + 5 + 5)}),
        ("fused", "keep", 1, {"0": 4 * (32 + 54 + 3 + 48), "3": 4 * (48 + 240 + 5 + 5)}),
        # weights alone, four bits: 54 values take 27 bytes, 240 take 120
        ("paper", "w4", 1, {"0": 4 * 32 + 27 + 4 * 48, "3": 4 * 48 + 120 + 4 * 5}),
        ("unfused", "w4", 1, {"0": 4 * (32 + 3 + 48) + 27, "1": 4 * 96, "3": 4 * (48 + 5 + 5) + 120}),
        # activations too; a bias is as wide as activations, but not below 16 bits
        ("paper", "w8a8", 1, {"0": 32 + 54 + 48, "3": 48 + 240 + 5}),
        ("unfused", "w8a8", 1, {"0": 32 + 54 + 2 * 3 + 48, "1": 96, "3": 48 + 240 + 2 * 5 + 5}),
        ("fused", "w8a8", 1, {"0": 32 + 54 + 2 * 3 + 48, "3": 48 + 240 + 2 * 5 + 5}),
        ("fused", "fp16", 1, {"0": 2 * (32 + 54 + 3 + 48), "3": 2 * (48 + 240 + 5 + 5)}),
        ("fused", "w4a4", 1, {"0": 16 + 27 + 6 + 24, "3": 24 + 120 + 10 + 3}),
        # scales: one for each of 3 and 5 channels; paper traffic counts none
        ("paper", "w4:c", 1, {"0": 4 * 80 + 27, "3": 4 * 53 + 120}),
        ("fused", "w4:c", 1, {"0": 4 * 83 + 27 + 2 * 3, "3": 4 * 58 + 120 + 2 * 5}),
        # 18 values a channel in groups of 16: 2 groups of 3 channels; 48: 3 groups of 5
        ("fused", "w4:g16", 1, {"0": 4 * 83 + 27 + 2 * 6, "3": 4 * 58 + 120 + 2 * 15}),
        ("fused", "w4:g16:z8", 1, {"0": 4 * 83 + 27 + 3 * 6, "3": 4 * 58 + 120 + 3 * 15}),
        # activations grow with the batch, weights do not
        ("paper", "keep", 3, {"0": 4 * (3 * 80 + 54), "3": 4 * (3 * 53 + 240)}),
        ("unfused", "keep", 3, {"0": 4 * (3 * 80 + 57), "1": 4 * 3 * 96, "3": 4 * (3 * 53 + 245)}),
        ("fused", "w8a8", 3, {"0": 3 * 80 + 54 + 6, "3": 3 * 53 + 240 + 10}),
        ("fused", "w8,3=keep", 1, {"0": 4 * 83 + 54, "3": 4 * 298}),
    ],
)
def test_bytes_by_hand(traffic: str, scheme: str, batch: int, expected: dict[str, int]) -> None:
    priced = estimate(SMALL, FLAT, scheme, traffic=traffic, batch=batch)
    assert {row.name: row.bytes for row in priced.layers} == expected
    assert priced.bytes == sum(expected.values())


@pytest.mark.parametrize(
    ("traffic", "flops"),
    [
        ("paper", 2 * (16 * 54 + 240)),
        ("unfused", 2 * (16 * 54 + 240) + 48),
        ("fused", 2 * (16 * 54 + 240) + 48),
    ],
)
def test_flops_by_hand(traffic: str, flops: int) -> None:
    assert estimate(SMALL, FLAT, traffic=traffic).flops == flops
    assert estimate(SMALL, FLAT, traffic=traffic, batch=3).flops == 3 * flops


def groups(graph: OpGraph) -> list[tuple[str, ...]]:
    return [row.members for row in build_rows(graph, traffic="fused", batch=graph.batch)]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + x)


def test_a_residual_block_is_two_groups() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), Block()), torch.zeros(1, 4, 5, 5))
    assert groups(graph) == [
        ("0",),
        ("1.conv1", "1.bn1", "1.relu"),
        ("1.conv2", "1.bn2", "1.add", "1.relu#2"),
    ]
    stem, first, second = build_rows(graph, traffic="fused", batch=1)
    assert [(m.role, m.elements) for m in first.moved] == [
        ("input", 100),
        ("weight", 144),
        *[("parameter", 4)] * 2,
        *[("state", 4)] * 2,
        ("output", 100),
    ]
    assert [(m.role, m.elements, m.reusable) for m in second.moved if m.role in {"input", "output"}] == [
        ("input", 100, True),
        ("input", 100, True),
        ("output", 100, False),
    ]
    assert [(s.row, s.elements) for s in second.sources] == [(1, 100), (0, 100)]
    assert [m.reusable for m in stem.moved if m.role in {"input", "output"}] == [False, True]


def _shared(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    return torch.cat([m.b(y), m.c(y)])


def test_two_readers_one_write() -> None:
    layers = {name: nn.Conv2d(4, 4, 3, padding=1, bias=False) for name in "abc"}
    graph = trace(Fn(lambda m, x: torch.cat([m.b(m.a(x)), m.c(m.a(x))]), **layers), torch.zeros(1, 4, 5, 5))
    shared = trace(Fn(_shared, **layers), torch.zeros(1, 4, 5, 5))
    roles = estimate(shared, FLAT, traffic="fused").layers
    assert [row.bytes_by_role.get("output") for row in roles] == [400, 400, 400, 800]
    assert [row.bytes_by_role.get("input") for row in roles] == [400, 400, 400, 800]
    assert estimate(graph, FLAT).bytes == estimate(shared, FLAT).bytes + 800 + 576


def test_what_leaves_a_group_twice_is_written_once() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        z = y.relu()
        return m.b(z) + m.c(z) + m.d(y)

    layers = {name: nn.Linear(8, 8, bias=False) for name in "abcd"}
    graph = trace(Fn(forward, **layers), torch.zeros(1, 8))
    first = build_rows(graph, traffic="fused", batch=1)[0]
    assert first.members == ("a", "relu")
    assert [m.elements for m in first.moved if m.role == "output"] == [8, 8]


def test_what_the_model_returns_is_written() -> None:
    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = m.a(x)
        return y, y.relu()

    (row,) = build_rows(trace(Fn(forward, a=nn.Linear(8, 8)), torch.zeros(1, 8)), traffic="fused", batch=1)
    assert [(m.elements, m.reusable) for m in row.moved if m.role == "output"] == [(8, False), (8, False)]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # both halves of a producer's output are read: 16 + 16 values, not 16
        (lambda low, high: low * torch.sigmoid(high), 32),
        (lambda low, high: F.silu(low) * high, 32),
        # one tensor read by two ops of a group is read once
        (lambda low, _: low.relu() * low, 16),
    ],
)
def test_what_a_group_reads_is_told_apart(function: Callable[..., Any], expected: int) -> None:
    graph = trace(Fn(lambda m, x: function(*m.a(x).chunk(2, -1)), a=nn.Linear(16, 32)), torch.zeros(1, 16))
    rows = build_rows(graph, traffic="fused", batch=1)
    assert len(rows) == 2 and len(rows[1].members) == 2
    assert sum(m.elements for m in rows[1].moved if m.role == "input") == expected


def test_a_group_reads_a_model_input_once() -> None:
    graph = trace(Fn(lambda _, x: (x * 2).relu() + x), torch.zeros(1, 16))
    (row,) = build_rows(graph, traffic="fused", batch=1)
    assert [(m.role, m.elements) for m in row.moved] == [("input", 16), ("output", 16)]


class Step(NamedTuple):
    """One op of a random network: name, and the values it reads."""

    op: str
    reads: tuple[int, ...]


FULL, PART = 2 * 8 * 3 * 3, 2 * 4 * 3 * 3
UNARY, BINARY = ("conv", "bn", "relu", "tanh", "pool"), ("add", "mul", "relu_of_sum")


@st.composite
def programs(draw: st.DrawFn) -> list[Step]:
    """Draw steps over full values (0 is the input); ``glu`` reads both halves of one, ``cat`` halves of two."""
    steps = []
    for count in range(1, draw(st.integers(2, 12))):
        value = st.integers(0, count - 1)
        op = draw(st.sampled_from((*UNARY, *BINARY, "gate", "swap")))
        steps.append(Step(op, (draw(value),) if op in UNARY else (draw(value), draw(value))))
    return steps


class Random(nn.Module):
    """Run a program; every step is one aten op, in order, except that halves are views."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps = steps
        self.own = nn.ModuleDict()
        for index, step in enumerate(steps):
            if step.op == "conv":
                self.own[str(index)] = nn.Conv2d(8, 8, 3, padding=1, bias=False)
            elif step.op == "bn":
                self.own[str(index)] = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for index, (op, reads) in enumerate(self.steps):
            a, *rest = (values[i] for i in reads)
            b = rest[0] if rest else a
            if op in {"conv", "bn"}:
                y = self.own[str(index)](a)
            elif op == "pool":
                y = F.avg_pool2d(a, 3, 1, 1)
            elif op in {"relu", "tanh"}:
                y = getattr(torch, op)(a)
            elif op == "gate":  # halves of two values, or both halves of one
                y = torch.cat([a[:, :4], b[:, 4:]], 1)
            elif op == "swap":
                y = torch.lerp(a, b, 0.5)
            else:
                y = torch.mul(a, b) if op == "mul" else torch.add(a, b)
            values.append(y)
        return values[-1]


def views(step: Step) -> dict[tuple[int, str], int]:
    """Return the views that a step reads and their sizes; a half and the whole of a value are two views."""
    if step.op == "gate":
        return {(step.reads[0], "low"): PART, (step.reads[1], "high"): PART}
    return {(i, "all"): FULL for i in step.reads}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(programs())
def test_fused_bytes_agree_with_a_reference_count(steps: list[Step]) -> None:
    graph = trace(Random(steps), torch.zeros(2, 8, 3, 3))
    assert len(graph) == len(steps)
    rows = build_rows(graph, traffic="fused", batch=2)
    row_of = {name: r for r, row in enumerate(rows) for name in row.members}
    group = [-1, *(row_of[op.name] for op in graph)]  # of each value; the input has none
    # no cycles: whatever a row reads was written by a row before it
    assert all(source < index for index, row in enumerate(rows) for source, *_ in row.sources)
    assert sorted(name for row in rows for name in row.members) == sorted(op.name for op in graph)
    expected = 0
    for r in range(len(rows)):
        inside = [i for i in range(len(steps)) if group[i + 1] == r]
        read = {view: size for i in inside for view, size in views(steps[i]).items() if group[view[0]] != r}
        expected += sum(read.values())
        for i in inside:
            readers = {group[j + 1] for j, step in enumerate(steps) if i + 1 in step.reads}
            expected += FULL * (i == len(steps) - 1 or not readers or bool(readers - {r}))
            expected += {"conv": 8 * 8 * 9, "bn": 32}.get(steps[i].op, 0)
    assert estimate(graph, FLAT, traffic="fused").bytes == 4 * expected
    assert 4 * expected <= estimate(graph, FLAT, traffic="unfused").bytes


GRAPHS: dict[str, Callable[[], OpGraph]] = {
    **{name: (lambda n=name: zoo_graph(n)) for name in zoo.names()},  # type: ignore[misc]
    "resnet50": lambda: named_graph(resnet50, (1, 3, 224, 224)),
    "mobilenet_v2_224": lambda: named_graph(mobilenet_v2, (1, 3, 224, 224)),
    "vit_b_16": lambda: named_graph(vit_b_16, (1, 3, 224, 224)),
    "llama": lambda: named_graph(llama_tiny, (1, 5), torch.int64),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_relations_between_the_models(name: str) -> None:
    graph = GRAPHS[name]()
    paper, unfused, fused = (estimate(graph, FLAT, "w8a8", traffic=traffic) for traffic in TRAFFIC_MODELS)
    assert paper.bytes <= unfused.bytes and fused.bytes <= unfused.bytes
    assert paper.macs <= unfused.macs == fused.macs == graph.macs
    assert unfused.flops == fused.flops == graph.flops
    for priced in (unfused, fused):
        assert priced.coverage["priced_ops"] == priced.coverage["ops"] == len(graph)
        assert priced.coverage["left_out_ops"] == 0
    assert paper.coverage["priced_ops"] + paper.coverage["left_out_ops"] == len(graph)
    rows = build_rows(graph, traffic="fused", batch=1)
    assert all(source < index for index, row in enumerate(rows) for source, *_ in row.sources)
    assert {row.anchor for row in rows} <= set(graph.layers)


def _relu_first(m: Any, x: Tensor) -> Tensor:
    a, b = m.a(x).relu(), m.b(x)
    return a + b


def _relu_second(m: Any, x: Tensor) -> Tensor:
    b, a = m.b(x), m.a(x).relu()
    return a + b


def _relu_late(m: Any, x: Tensor) -> Tensor:
    a, b = m.a(x), m.b(x)
    return a.relu() + b


def _three(m: Any, x: Tensor) -> Tensor:
    a, b, c = m.a(x), m.b(x), m.c(x)
    return (a + b) * c


def _three_turned(m: Any, x: Tensor) -> Tensor:
    c, a, b = m.c(x), m.a(x), m.b(x)
    return (a + b) * c


def _joined(m: Any, x: Tensor) -> Tensor:
    return torch.cat([m.a(x).relu(), m.b(x).tanh()])


def _joined_turned(m: Any, x: Tensor) -> Tensor:
    b, a = m.b(x).tanh(), m.a(x).relu()
    return torch.cat([a, b])


ORDERS = {
    "sum": (_relu_first, _relu_second),
    "late relu": (_relu_late, _relu_first),
    "three": (_three, _three_turned),
    "cat": (_joined, _joined_turned),
}


@pytest.mark.parametrize("traffic", TRAFFIC_MODELS)
@pytest.mark.parametrize("name", ORDERS)
def test_the_order_of_independent_branches_changes_no_totals(name: str, traffic: str) -> None:
    layers = {"a": nn.Linear(16, 16), "b": nn.Linear(16, 16), "c": nn.Linear(16, 16)}
    first, second = (
        estimate(trace(Fn(f, **layers), torch.zeros(1, 16)), FLAT, "w8", traffic=traffic) for f in ORDERS[name]
    )
    assert (first.bytes, first.flops, first.macs, first.weight_bytes) == (
        second.bytes,
        second.flops,
        second.macs,
        second.weight_bytes,
    )
    assert first.latency_s == pytest.approx(second.latency_s, rel=1e-12)
