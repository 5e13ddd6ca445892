"""Tracing: what an op reads and writes, whose layer it is, what the trace leaves behind, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from aiq import zoo
from roofline import OpGraph, estimate, trace
from roofline.errors import AIQError, TraceError
from tests.machines import FLAT, Fn, named_graph, zoo_graph
from tests.networks import llama_tiny, resnet50, vit_b_16

X = torch.zeros(2, 8)


def run(function: Callable[..., Any], *inputs: Tensor, **attributes: Any) -> OpGraph:
    return trace(Fn(function, **attributes), inputs or (X,))


def edges(graph: OpGraph) -> set[tuple[str, str]]:
    return {(graph.ops[a].name, graph.ops[b].name) for a, b in graph.nx.edges}


def names(graph: OpGraph) -> list[str]:
    return [op.name for op in graph]


def test_roles_shapes_and_names() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5)), IMAGE)
    conv, norm, linear = graph.ops
    assert [(t.role, t.name, t.shape, t.elements, t.batched) for t in conv.tensors] == [
        ("input", "", (2, 3, 8, 8), 384, True),
        ("weight", "0.weight", (4, 3, 3, 3), 108, False),
        ("parameter", "0.bias", (4,), 4, False),
        ("output", "", (2, 4, 6, 6), 288, True),
    ]
    assert [(t.role, t.name) for t in norm.tensors[1:5]] == [
        ("parameter", "1.weight"),
        ("parameter", "1.bias"),
        ("state", "1.running_mean"),
        ("state", "1.running_var"),
    ]
    assert [op.kind for op in graph] == ["conv", "batch_norm", "linear"]
    assert [op.name for op in graph] == [op.layer for op in graph] == ["0", "1", "3"]
    assert graph.layers == ("0", "3")
    assert graph.parameters["3.weight"] == (720, 32)
    assert linear.role("weight")[0].channels == 5
    assert conv.role("weight")[0].channels == 4
    assert graph.batch == 2 and graph.outputs == {2} and graph.notes == ()


IMAGE = torch.zeros(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("build", "channels"),
    [
        (lambda: nn.Conv2d(4, 6, 3, groups=2), 6),
        (lambda: nn.ConvTranspose2d(4, 6, 3), 6),
        (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), 6),
        (lambda: Fn(lambda m, x: x @ m.w, w=nn.Parameter(torch.zeros(8, 5))), 5),
        (lambda: Fn(lambda m, x: x @ m.w.t(), w=nn.Parameter(torch.zeros(5, 8))), 5),
        (lambda: nn.LSTM(8, 3), 12),
    ],
)
def test_output_channels_share_out_a_weight(build: Callable[[], nn.Module], channels: int) -> None:
    graph = trace(build(), torch.zeros(2, 4, 8, 8) if "Conv" in repr(build()) else torch.zeros(1, 2, 8))
    weight = next(t for op in graph for t in op.role("weight"))
    assert weight.channels == channels


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda m, x: m.b(m.a(x).view(2, 8)), {("a", "b")}),
        (lambda m, x: m.b(m.a(x).t().t().unsqueeze(0).squeeze(0)), {("a", "b")}),
        (lambda m, x: m.b(m.a(x).contiguous().to(torch.float32).cpu()), {("a", "b")}),
        (lambda m, x: m.b(F.dropout(m.a(x), training=False)), {("a", "b")}),
        (lambda m, x: m.b(m.a(x).relu_()), {("a", "relu"), ("relu", "b")}),
        (lambda m, x: m.a(x) + m.b(x), {("a", "add"), ("b", "add")}),
        (lambda m, x: m.b(x.relu()).add_(x), {("relu", "b"), ("b", "add")}),
        (lambda m, x: m.b(m.a(x)[:, :4].repeat(1, 2)), {("a", "repeat"), ("repeat", "b")}),
    ],
)
def test_edges_follow_tensors(function: Callable[..., Any], expected: set[tuple[str, str]]) -> None:
    graph = run(function, a=nn.Linear(8, 8), b=nn.Linear(8, 8))
    assert edges(graph) == expected


def test_an_in_place_write_to_a_slice_adds_a_writer() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        y[:, 0].mul_(2)
        return m.b(y)

    graph = run(forward, a=nn.Linear(8, 8), b=nn.Linear(8, 8))
    assert edges(graph) == {("a", "mul"), ("a", "b"), ("mul", "b")}


def test_halves_of_a_tensor_are_read_in_part() -> None:
    graph = run(lambda m, x: m.a(x).chunk(2, -1)[1].relu(), a=nn.Linear(8, 8))
    assert graph.ops[1].role("input")[0].elements == 8


@pytest.mark.parametrize(
    ("function", "elements"),
    [
        (lambda m, x: x[:, :1].expand(2, 100) + m.c, [2, 100]),
        (lambda m, x: x + m.c[:1].expand(2, 8), [16, 1]),
        (lambda m, x: x[None].expand(5, 2, 8).relu(), [16]),
        (lambda m, x: x[0].unfold(0, 3, 1).relu(), [8]),
        (lambda m, x: x * x, [16]),
    ],
)
def test_broadcast_values_count_once(function: Callable[..., Any], elements: list[int]) -> None:
    graph = run(function, c=torch.zeros(100))
    assert [t.elements for t in graph.ops[0].role("input")] == elements


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x))


def test_a_tied_table_is_read_by_rows_and_stored_once() -> None:
    graph = trace(Tied(), torch.zeros(2, 3, dtype=torch.int64))
    lookup, head = graph.ops
    assert [op.kind for op in graph] == ["embedding", "linear"]
    assert (lookup.role("weight")[0].elements, lookup.role("weight")[0].stored) == (6 * 8, 160)
    assert head.role("weight")[0].elements == 160
    assert dict(graph.parameters) == {"embed.weight": (160, 32)}
    assert estimate(graph, FLAT).weight_bytes == 640
    assert graph.layers == ("embed",)
    assert graph.aliases == {"embed": ("head",)}
    assert {op.name for op in graph} == {"embed", "head"}


def test_an_embedding_reads_no_more_than_its_table() -> None:
    graph = trace(nn.Embedding(4, 8), torch.zeros(2, 30, dtype=torch.int64))
    assert graph.ops[0].role("weight")[0].distinct == 32
    assert graph.ops[0].role("weight")[0].elements == 60 * 8
    assert graph.ops[0].macs == graph.ops[0].flops == 0


def test_a_linear_used_three_times_is_read_three_times_and_stored_once() -> None:
    graph = run(lambda m, x: m.l(m.l(m.l(x))), l=nn.Linear(8, 8))
    assert names(graph) == ["l", "l#2", "l#3"]
    assert {op.layer for op in graph} == {"l"}
    priced = estimate(graph, FLAT, "w8")
    assert priced.weight_bytes == 64
    assert [row.bytes_by_role["weight"] for row in priced.layers] == [64, 64, 64]


def test_two_modules_that_share_a_parameter_are_one_layer_under_two_names() -> None:
    second = nn.Linear(8, 8)
    first = nn.Linear(8, 8)
    second.weight = first.weight
    graph = run(lambda m, x: m.b(m.a(x)), a=first, b=second)
    assert [op.name for op in graph] == ["a", "b"]
    assert [op.layer for op in graph] == ["a", "a"]


def test_paths_follow_modules() -> None:
    graph = trace(nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.GELU()), nn.Softmax(-1)), X)
    assert names(graph) == ["0.0", "0.1", "1"]


@pytest.mark.parametrize("build", [llama_tiny, resnet50, lambda: nn.LSTM(8, 8, batch_first=True)])
def test_names_are_unique(build: Callable[[], nn.Module]) -> None:
    shape, dtype = {"_Decoder": ((1, 5), torch.int64), "LSTM": ((1, 5, 8), torch.float32)}.get(
        type(build()).__name__, ((1, 3, 64, 64), torch.float32)
    )
    graph = named_graph(build, shape, dtype)
    assert len(set(names(graph))) == len(graph)


def test_the_op_with_the_weights_has_the_layers_name() -> None:
    graph = trace(nn.Sequential(nn.LSTM(8, 4, batch_first=True)), torch.zeros(1, 5, 8))
    assert next(op.name for op in graph if op.weighted) == "0"


@pytest.mark.parametrize("name", [*zoo.names(), "llama"])
def test_cpu_and_meta_give_the_same_graph(name: str) -> None:
    if name == "llama":
        model, example = llama_tiny(), torch.zeros(1, 4, dtype=torch.int64)
    else:
        model, example = zoo.build(name, pretrained=False), torch.zeros(1, *zoo.get(name).input_shape)
    on_cpu = trace(model, example)
    on_meta = trace(model.to("meta"), example.to("meta"))
    assert on_cpu.ops == on_meta.ops
    assert (on_cpu.parameters, on_cpu.outputs, on_cpu.free_ops) == (
        on_meta.parameters,
        on_meta.outputs,
        on_meta.free_ops,
    )


@pytest.mark.parametrize("real", [False, True])
def test_the_model_is_left_as_it_was(real: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 5))
    model[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [m.training for m in model.modules()]
    rng = torch.get_rng_state()
    trace(model, torch.zeros(2, 3, 8, 8), real=real)
    assert [m.training for m in model.modules()] == flags
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) and v.device == before[k].device for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert not torch_module._global_forward_hooks and not torch_module._global_forward_pre_hooks
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    model(torch.zeros(2, 3, 8, 8)).sum().backward()  # and it still trains
    assert all(p.grad is not None for p in model.parameters())


def _increment(m: Any, x: Tensor) -> Tensor:
    m.n += 1
    return x * m.n


def _reassign(m: Any, x: Tensor) -> Tensor:
    m.n = m.n + 1
    return x * m.n


def _cache(m: Any, x: Tensor) -> Tensor:
    if m.kept is None:
        m.kept = torch.arange(8.0)
    return x * m.kept


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("function", [_increment, _reassign, _cache])
def test_state_that_forward_changes_is_put_back(function: Callable[..., Any], real: bool) -> None:
    model = Fn(function, kept=None).eval()
    model.register_buffer("n", torch.zeros(1))
    trace(model, X, real=real)
    assert model.get_buffer("n").device.type == "cpu"
    assert model.get_buffer("n").item() == 0
    assert model.kept is None
    x = torch.ones(2, 8, requires_grad=True)
    model(x).sum().backward()


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize(
    "draw", [lambda: torch.rand(8), lambda: torch.randint(5, (8,)), lambda: torch.randperm(8)], ids=["u", "i", "p"]
)
def test_the_random_state_is_left_as_it_was(draw: Callable[[], Tensor], real: bool) -> None:
    before = torch.get_rng_state()
    trace(Fn(lambda _, x: x + draw()), X, real=real)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("where", ["cpu", "meta"])
def test_plain_attribute_tensors_are_read(where: str) -> None:
    graph = trace(Fn(lambda m, x: m.l(x) * m.scale, l=nn.Linear(8, 8), scale=torch.ones(8)).to(where), X.to(where))
    scale = graph.ops[1].role("input")[1]
    assert (scale.elements, scale.batched, scale.producers) == (8, False, ())


@pytest.mark.parametrize(
    "make",
    [
        lambda x: torch.zeros(8),
        lambda x: torch.zeros(8, device="cpu"),
        lambda x: torch.zeros(8, device=x.device),
        lambda x: torch.full((8,), 2.0),
        lambda x: torch.arange(8),
        lambda x: torch.linspace(0, 1, 8),
        lambda x: torch.eye(8)[0],
        lambda x: torch.ones(8).to("cpu"),
        lambda x: x.new_ones(8),
    ],
)
def test_factories_in_forward(make: Callable[[Tensor], Tensor]) -> None:
    graph = run(lambda _, x: x + make(x))
    assert graph.notes == ()
    assert [op.kind for op in graph] == ["fill", "elementwise"]
    assert edges(graph) == {(graph.ops[0].name, "add")}


def test_constants_in_forward() -> None:
    graph = run(lambda _, x: x * torch.tensor([2.0]) + torch.tensor(3.0))
    assert [op.kind for op in graph] == ["elementwise", "elementwise"]


def test_memory_that_is_only_reserved_moves_nothing() -> None:
    graph = run(lambda _, x: torch.empty_like(x).copy_(x))
    assert [op.target for op in graph] == ["aten.copy_.default"]
    assert sum(t.elements for t in graph.ops[0].role("input")) == 16  # what copy_ overwrites is not read


def test_a_branch_on_data_runs_real_tensors_and_says_so() -> None:
    graph = run(lambda m, x: m.l(x) if x.sum() > 0 else m.l(x).relu(), l=nn.Linear(8, 8))
    assert [op.kind for op in graph] == ["reduction", "elementwise", "linear", "elementwise"]
    reason = "RuntimeError: Tensor.item() cannot be called on meta tensors"
    assert graph.notes == (f"ran on real tensors: on meta tensors forward raised {reason}",)
    assert graph.notes[0] in estimate(graph, FLAT).assumptions


def test_a_forward_that_raises() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        raise ValueError("no such\nluck")

    with pytest.raises(TraceError) as caught:
        trace(Fn(forward), X, name="net")
    assert str(caught.value) == (
        "net raised in forward for input 2x8: ValueError: no such. "
        "Next: check the input shape (--input), or run the model by itself."
    )
    assert not torch_module._global_forward_hooks


@pytest.mark.parametrize("where", ["cpu", "meta"])
def test_a_wrong_input_shape(where: str) -> None:
    with pytest.raises(
        TraceError, match=r"^Linear raised in forward for input 2x7: RuntimeError: .*2.*7.*8.*5.* Next: "
    ):
        trace(nn.Linear(8, 5).to(where), torch.zeros(2, 7))


@pytest.mark.parametrize("example", [(), {}, [], None, {"x": 3}])
def test_an_example_without_a_tensor(example: Any) -> None:
    with pytest.raises(TraceError) as caught:
        trace(nn.Linear(8, 5), example)
    assert str(caught.value) == (
        "Linear: the example input holds no tensor. Next: pass a tensor, a tuple or a dict of tensors."
    )


@dataclass
class Result:
    logits: Tensor
    loss: Tensor | None = None


@dataclass(slots=True)
class Slotted:
    logits: Tensor


class Pair(NamedTuple):
    logits: Tensor
    extra: Any


@pytest.mark.parametrize(
    "wrap", [lambda y: y, lambda y: {"y": y}, lambda y: (1, [y]), Result, Slotted, lambda y: Pair(y, {"a": (y,)})]
)
def test_outputs_of_any_shape_are_found(wrap: Callable[[Tensor], Any]) -> None:
    graph = run(lambda m, x: wrap(m.l(x)), l=nn.Linear(8, 8))
    assert graph.outputs == {0}


def test_inputs_by_place_and_by_name() -> None:
    model = Fn(lambda m, x, *, y, flag=False: m.l(x + y["a"]), l=nn.Linear(8, 8))
    graph = trace(Named(model), {"x": X, "y": {"a": X}, "flag": True})
    assert [op.kind for op in graph] == ["elementwise", "linear"]
    assert all(t.batched for t in graph.ops[0].role("input"))


class Named(nn.Module):
    def __init__(self, inner: Fn) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, y: Any, flag: bool) -> Any:
        return self.inner(x, y=y, flag=flag)


def test_an_unknown_op_is_kept_priced_and_listed() -> None:
    graph = run(lambda m, x: torch.fft.fft(m.l(x)).abs(), l=nn.Linear(8, 8))
    unknown = next(op for op in graph if op.kind == "unknown")
    assert graph.unknown == {unknown.target: {"count": 1, "bytes": 16 * 4 + 16 * 8}}
    priced = estimate(graph, FLAT)
    row = next(row for row in priced.layers if row.kind == "unknown")
    assert row.bytes == 192 and row.latency_s == 192 / 1e11
    assert priced.coverage["unknown_ops"] == 1
    assert priced.coverage["unknown_bytes_share"] == pytest.approx(192 / priced.bytes)
    assert priced.coverage["unknown_latency_share"] == pytest.approx(row.latency_s / priced.latency_s)
    assert "1 operators without a formula are priced by their bytes alone" in priced.assumptions


@pytest.mark.parametrize("change", [lambda w: w * 2, lambda w: w.half().float(), lambda w: w / w.norm()])
def test_a_weight_computed_in_forward_is_still_a_layer(change: Callable[[Tensor], Tensor]) -> None:
    # Weight normalisation, autocast, fake quantization: the layer must not vanish from schemes and from paper traffic.
    graph = run(lambda m, x: F.linear(x, change(m.w)), w=nn.Parameter(torch.ones(4, 8)))
    assert graph.layers or graph.notes


@pytest.mark.parametrize("traffic", ["paper", "unfused", "fused"])
@pytest.mark.parametrize("name", [*zoo.names(), "resnet50", "vit_b_16", "llama"])
def test_a_graph_scales_to_the_batch(name: str, traffic: str) -> None:
    def graph(batch: int) -> OpGraph:
        if name == "llama":
            return named_graph(llama_tiny, (batch, 5), torch.int64)
        if name in zoo.names():
            return zoo_graph(name, batch)
        return named_graph({"resnet50": resnet50, "vit_b_16": vit_b_16}[name], (batch, 3, 224, 224))

    for scheme in ("keep", "w4:g32a8"):
        scaled, traced = (
            estimate(graph(1), FLAT, scheme, batch=3, traffic=traffic),
            estimate(graph(3), FLAT, scheme, traffic=traffic),
        )
        assert [(r.name, r.bytes_by_role, r.flops, r.macs) for r in scaled.layers] == [
            (r.name, r.bytes_by_role, r.flops, r.macs) for r in traced.layers
        ]
        assert (scaled.bytes, scaled.flops, scaled.macs) == (traced.bytes, traced.flops, traced.macs)


@pytest.mark.parametrize("traced", [1, 4])
@pytest.mark.parametrize("scheme", ["keep", "w4:g4"])
def test_a_small_embedding_scales_up_to_its_table_and_down_again(traced: int, scheme: str) -> None:
    def graph(batch: int) -> OpGraph:
        return trace(nn.Embedding(10, 8), torch.zeros(batch, 4, dtype=torch.int64))

    batch = 5 - traced
    assert estimate(graph(traced), FLAT, scheme, batch=batch).bytes == estimate(graph(batch), FLAT, scheme).bytes


def test_an_empty_batch_is_refused_with_a_sentence() -> None:
    with pytest.raises(AIQError):
        estimate(trace(nn.Linear(8, 8), torch.zeros(0, 8)), FLAT, batch=2)
