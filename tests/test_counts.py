"""Multiply-accumulates, to the unit: published totals, torch's own counter, and closed forms written by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import roofline
from aiq import zoo
from tests.layers import ATTENTION, ELEMENTWISE, LOOKUPS, RECURRENT
from tests.networks import IMAGE_NETWORKS, llama_70b
from tests.operations import CONVOLUTIONS, MATRICES, Inputs, Row

IMAGE = (1, 3, 224, 224)
ROWS = (*CONVOLUTIONS, *MATRICES, *ATTENTION, *RECURRENT, *LOOKUPS, *ELEMENTWISE)
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def torch_flops(module: nn.Module, inputs: Inputs) -> int:
    """The reference: torch's counter over the same forward pass, one multiply-accumulate being two flops."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops()


def checked_macs(graph: roofline.OpGraph) -> int:
    """The total of ``graph``, once it is known that nothing is unknown and that the rows sum to it."""
    assert not graph.unknown
    assert sum(op.macs for op in graph.ops) == graph.macs
    assert all(op.macs >= 0 for op in graph.ops)
    return graph.macs


@every_row
def test_row_has_its_closed_form(row: Row) -> None:
    module, inputs = row.make("meta")
    assert checked_macs(roofline.trace(module, inputs)) == row.macs


@every_row
def test_row_agrees_with_torch(row: Row) -> None:
    module, inputs = row.make("meta")
    flops = 2 * roofline.trace(module, inputs).macs
    # Where this torch has no formula it says 0; a later torch may learn the operation, and must then agree.
    assert torch_flops(module, inputs) in ({0, flops} if row.torch_misses else {flops})


@every_row
def test_row_counts_the_same_on_real_tensors(row: Row) -> None:
    # Eager on a CPU runs other operations than meta does: fused attention, fused transformer layers, fused LSTM layers.
    module, inputs = row.make("cpu")
    assert checked_macs(roofline.trace(module, inputs, real=True)) == row.macs


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "fused"),
    [
        ("sdpa", "aten._scaled_dot_product_flash_attention_for_cpu"),
        ("multihead_self_attention", "aten._native_multi_head_attention"),
        ("transformer_encoder_layer", "aten._transformer_encoder_layer_fwd"),
    ],
)
def test_real_rows_do_reach_the_fused_operation(name: str, fused: str) -> None:
    module, inputs = next(row for row in ROWS if row.name == name).make("cpu")
    with Recorder() as recorder, torch.no_grad():
        module(*inputs)
    assert fused in recorder.seen


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_published_total(name: str) -> None:
    build, macs = IMAGE_NETWORKS[name]
    with torch.device("meta"):
        module, image = build(), torch.empty(IMAGE)
    assert checked_macs(roofline.trace(module, image)) == macs
    assert torch_flops(module, (image,)) == 2 * macs


@pytest.mark.parametrize("name", zoo.names())
def test_zoo_network_agrees_with_torch(name: str) -> None:
    module = zoo.build(name).to("meta").eval()
    image = torch.empty(2, *zoo.get(name).input_shape, device="meta")
    macs = checked_macs(roofline.trace(module, image))
    assert macs > 0
    assert 2 * macs == torch_flops(module, (image,))


def test_seventy_billion_parameters_need_no_memory() -> None:
    with torch.device("meta"):
        module, tokens = llama_70b(), torch.zeros(1, 128, dtype=torch.int64)
    assert sum(parameter.numel() for parameter in module.parameters()) == 68_976_648_192
    # layers (S (2 d d + 2 d kv + 3 d f) + 2 S S d) + S d vocab
    per_layer = 128 * (2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 28672) + 2 * 128 * 128 * 8192
    assert checked_macs(roofline.trace(module, tokens)) == 80 * per_layer + 128 * 8192 * 32000


def conv_then_linear() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 10)).eval()


def test_operations_come_in_execution_order() -> None:
    graph = roofline.trace(conv_then_linear(), torch.zeros(1, 3, 8, 8))
    assert [op.macs for op in graph.ops if op.macs] == [4 * 6 * 6 * 3 * 3 * 3, 4 * 6 * 6 * 10]


@pytest.mark.parametrize("batch", [2, 7])
def test_macs_are_proportional_to_the_batch(batch: int) -> None:
    one, many = (roofline.trace(conv_then_linear(), torch.zeros(n, 3, 8, 8)).macs for n in (1, batch))
    assert many == batch * one


@pytest.mark.parametrize("inputs_on", ["cpu", "meta"])
@pytest.mark.parametrize("module_on", ["cpu", "meta"])
def test_only_shapes_matter(module_on: str, inputs_on: str) -> None:
    graph = roofline.trace(conv_then_linear().to(module_on), torch.zeros(1, 3, 8, 8, device=inputs_on))
    assert graph.macs == 4 * 6 * 6 * 3 * 3 * 3 + 4 * 6 * 6 * 10


def test_tracing_leaves_the_module_as_it_was() -> None:
    module = conv_then_linear()
    before = {name: (value.device, value.clone()) for name, value in module.state_dict().items()}
    roofline.trace(module, torch.zeros(1, 3, 8, 8))
    for name, value in module.state_dict().items():
        assert value.device == before[name][0]
        assert torch.equal(value, before[name][1])


def test_example_may_be_a_tuple_or_a_dict() -> None:
    attend = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    x = torch.zeros(2, 5, 16)
    by_place = roofline.trace(attend, (x, x, x))
    by_name = roofline.trace(attend, {"query": x, "key": x, "value": x})
    assert by_place.macs == by_name.macs == 2 * (4 * 5 * 16 * 16 + 2 * 5 * 5 * 16)
