"""What models in the wild do: tied tables, key-value caches, gathers, handwritten norms, int8 buffers, containers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import roofline
from aiq import Model, plan
from roofline import CostTable, LayerPrecision, estimate, trace
from roofline.errors import SchemeError, TraceError
from roofline.frontends import _aten
from tests.machines import FLAT


class Fn(nn.Module):
    """A module whose forward is a function of itself and the input."""

    def __init__(self, forward: Callable[..., Any], **members: Any) -> None:
        super().__init__()
        self.body = forward
        for name, member in members.items():
            if isinstance(member, Tensor) and not isinstance(member, nn.Parameter):
                self.register_buffer(name, member)
            else:
                setattr(self, name, member)

    def forward(self, *inputs: Tensor) -> Any:
        return self.body(self, *inputs)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.mid, self.head = nn.Embedding(32, 8), nn.Linear(8, 8), nn.Linear(8, 32, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.mid(self.table(ids)))


IDS = torch.zeros(2, 4, dtype=torch.int64)


def test_a_tied_table_has_one_format_and_its_noise_is_paid_once() -> None:
    graph = trace(Tied(), IDS)
    assert graph.layers == ("table", "mid")
    by_name = {row.name: row.precision for row in estimate(graph, FLAT, "w8,head=w4").layers}
    assert by_name == {"table": "int4/keep", "mid": "int8/keep", "head": "int4/keep"}
    result = plan(Model("tied", Tied().eval(), IDS), FLAT, formats=["w8", "w4"], probe_seconds=0)
    for candidate in result.candidates:
        formats = {row.name: row.precision for row in candidate.estimate.layers}
        assert formats["table"] == formats["head"]
        assert candidate.loss > 0 or formats["head"] == "keep"


def cached(m: Any, x: Tensor) -> Tensor:
    m.cache.index_copy_(1, torch.zeros(1, dtype=torch.int64), m.k(x))
    return m.q(x) @ m.cache.transpose(1, 2)


def test_a_cache_that_forward_writes_is_state_and_no_weight() -> None:
    graph = trace(Fn(cached, k=nn.Linear(8, 8), q=nn.Linear(8, 8), cache=torch.zeros(2, 64, 8)), torch.zeros(2, 1, 8))
    assert graph.layers == ("k", "q")
    write = next(op for op in graph if op.target.startswith("aten.index_copy_"))
    assert sum(t.elements for t in write.role("output")) == 2 * 1 * 8
    assert not any(t.elements == 2 * 64 * 8 for t in write.tensors)
    product = graph.ops[-1]
    assert (product.kind, product.macs) == ("matmul", 2 * 64 * 8)
    assert [t.elements for t in product.role("state")] == [2 * 64 * 8]
    assert write.index in product.role("state")[0].producers


def test_a_weight_computed_in_place_is_still_a_weight() -> None:
    model = Fn(lambda m, x: F.linear(x, (m.w * 2).add_(1)), w=nn.Parameter(torch.zeros(4, 8)))
    graph = trace(model, torch.zeros(2, 8))
    assert graph.layers == ("w",)
    assert (graph.ops[-1].kind, graph.ops[-1].name) == ("linear", "w")


@pytest.mark.parametrize(
    ("read", "values"),
    [
        (lambda m, x: m.table[IDS], 8 * 8),
        (lambda m, x: m.table.index_select(0, torch.tensor([3])), 8),
        (lambda m, x: torch.gather(m.table, 0, torch.zeros(2, 8, dtype=torch.int64)), 16),
    ],
)
def test_a_gather_reads_what_it_selects(read: Callable[..., Any], values: int) -> None:
    graph = trace(Fn(read, table=nn.Parameter(torch.zeros(1000, 8))), torch.zeros(2, 8))
    source = next(t for op in graph for t in op.tensors if t.role == "parameter")
    assert source.elements == values


class HandwrittenNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.float32)
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


def test_a_handwritten_norm_folds_like_the_operator() -> None:
    def net(norm: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Linear(64, 64), norm, nn.Linear(64, 64)).to(torch.bfloat16)

    x = torch.zeros(16, 64, dtype=torch.bfloat16)
    by_hand, by_operator = (
        estimate(trace(net(n), x), FLAT) for n in (HandwrittenNorm(), nn.RMSNorm(64, elementwise_affine=False))
    )
    assert len(by_hand.layers) == len(by_operator.layers) == 2
    assert by_hand.bytes == by_operator.bytes


@pytest.mark.parametrize(("axis", "rows"), [(-1, 1), (0, 2)])
def test_only_a_reduction_over_the_last_axis_folds(axis: int, rows: int) -> None:
    model = Fn(lambda m, x: m.out(x).sum(axis, keepdim=True), out=nn.Linear(8, 8))
    assert len(estimate(trace(model, torch.zeros(8, 8)), FLAT).layers) == rows


@pytest.mark.parametrize("batch", [3, 16])
def test_fusion_does_not_depend_on_the_traced_batch(batch: int) -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.word, self.place, self.out = nn.Embedding(9, 8), nn.Embedding(4, 8), nn.Linear(8, 8)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.word(ids) + self.place(torch.arange(4))[None])

    one, many = (trace(Positions(), torch.zeros(b, 4, dtype=torch.int64)) for b in (1, batch))
    for traffic in roofline.TRAFFIC_MODELS:
        scaled, direct = estimate(one, FLAT, batch=batch, traffic=traffic), estimate(many, FLAT, traffic=traffic)
        assert (scaled.bytes, scaled.flops) == (direct.bytes, direct.flops)


def test_int8_buffers_keep_their_format_and_their_ceiling() -> None:
    weight = torch.zeros(64, 64, dtype=torch.int8)
    model = Fn(lambda m, x: torch._int_mm(x, m.weight), weight=weight)
    graph = trace(model, torch.zeros(32, 64, dtype=torch.int8))
    row = estimate(graph, FLAT, "w4a4").layers[0]
    assert (row.precision.split("/")[0], row.ceiling.format) == ("keep", "int8" if "int8" in FLAT.compute else "fp32")
    table = CostTable(graph, FLAT, [LayerPrecision(), LayerPrecision.parse("w4")])
    assert table.weight_bytes.tolist() == [[4096.0, 4096.0]]


def test_index_buffers_of_an_embedding_are_no_weights() -> None:
    ids = torch.arange(4)[None]
    graph = trace(Fn(lambda m, x: m.place(m.ids) + x, place=nn.Embedding(4, 8), ids=ids), torch.zeros(2, 4, 8))
    lookup = next(op for op in graph if op.kind == "embedding")
    assert [t.name for t in lookup.role("weight")] == ["place.weight"]
    assert [t.dtype for t in lookup.role("state")] == ["int64"]


def test_layers_have_the_same_names_on_meta_and_for_real() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    x = torch.zeros(1, 5, 16)
    assert trace(layer, x).layers == trace(layer, x, real=True).layers
    assert "self_attn.out_proj" in trace(layer, x).layers


@pytest.mark.parametrize("function", [F.hardswish, F.mish, F.silu, F.relu, F.leaky_relu, F.elu])
def test_in_place_functions_cost_what_their_twins_cost(function: Callable[..., Tensor]) -> None:
    kinds = [
        trace(Fn(lambda m, x, i=inplace: function(x * 2, inplace=i)), torch.zeros(2, 8)).ops[-1].kind
        for inplace in (False, True)
    ]
    assert kinds == ["elementwise", "elementwise"]


def test_pooling_without_a_batch_counts_its_whole_window() -> None:
    graph = trace(Fn(lambda m, x: F.max_pool2d(x, 3, 1)), torch.zeros(8, 16, 16))
    assert graph.flops == 9 * 8 * 14 * 14


def test_every_operator_in_the_tables_exists() -> None:
    named = {
        *_aten._NAMED,
        *_aten.COPY,
        *_aten.FILL,
        *_aten.REDUCTION,
        *_aten.ELEMENTWISE,
        *_aten.GATHER,
        *_aten.SCATTER,
    }
    known = {name.removeprefix("aten::") for name in torch._C._dispatch_get_all_op_names() if name.startswith("aten::")}
    bases = {name.partition(".")[0] for name in known}
    missing = {name for name in named if name not in bases and f"{name}_" not in bases}
    assert missing == set()


def test_a_rule_that_names_a_container_is_refused() -> None:
    graph = trace(nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 8)), torch.zeros(1, 8))
    with pytest.raises(SchemeError, match=r"rule '0' names a module .* Next: write '0\.\*' for all of them"):
        estimate(graph, FLAT, "w4,0=keep")
    assert estimate(graph, FLAT, "w4,0.*=keep").layers[0].precision == "keep"


def test_torchscript_is_refused() -> None:
    with pytest.raises(TraceError, match="net is TorchScript"):
        trace(torch.jit.script(nn.Linear(2, 2)), torch.zeros(1, 2), name="net")


def test_containers_of_a_module_are_put_back() -> None:
    def remember(m: Any, x: Tensor) -> Tensor:
        m.seen.append(x)
        m.last["x"] = x
        return m.out(x)

    model = Fn(remember, out=nn.Linear(8, 8))
    model.seen, model.last = [], {}
    trace(model, torch.zeros(1, 8))
    assert (model.seen, model.last) == ([], {})


def test_traces_in_two_threads_do_not_mix_their_names() -> None:
    found: dict[str, list[list[str]]] = {"a": [], "b": []}

    def work(name: str) -> None:
        model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(8)))
        model.add_module(name, nn.Linear(8, 8))
        for _ in range(5):
            found[name].append([op.name for op in trace(model, torch.zeros(1, 8))])

    threads = [threading.Thread(target=work, args=(name,)) for name in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, runs in found.items():
        assert all(run == [*(f"{i}.{j}" for i in range(8) for j in (0, 1)), name] for run in runs)


def test_a_model_that_does_not_fit_says_so() -> None:
    small = FLAT.model_copy(
        update={
            "memory": (
                FLAT.memory[0].model_copy(
                    update={"capacity_bytes": FLAT.memory[0].bandwidth_bytes_per_s.model_copy(update={"value": 1000.0})}
                ),
                *FLAT.memory[1:],
            )
        }
    )
    graph = trace(nn.Linear(64, 64), torch.zeros(1, 64))
    assert estimate(graph, small).fits is False
    assert estimate(graph, small).memory.total_bytes == 4 * (64 * 64 + 64 + 128)
    assert estimate(graph, FLAT).fits in {None, True}
