"""Multiply-accumulates, to the unit: published totals, torch's own counter, and closed forms written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import roofline
from aiq import zoo
from tests.networks import IMAGE_NETWORKS, llama_70b, llama_tiny

Inputs = tuple[Tensor, ...]
IMAGE = (1, 3, 224, 224)


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


class Fn(nn.Module):
    """A function as a module without weights."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


class BufferConv(nn.Module):
    """A functional convolution whose weights are buffers, as quantized layers keep theirs."""

    weight: Tensor
    bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(6, 4, 3, 3))
        self.register_buffer("bias", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=1)


class Thrice(nn.Module):
    """One layer, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(self.layer(x)))


class SelfAttention(nn.Module):
    """Attention whose three inputs are one tensor object: without it eager does not take its fused path."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, x, x, need_weights=False)[0]


class TiedDecoder(nn.Module):
    """An embedding whose table is also the output matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(self.embed(tokens), self.embed.weight)


@dataclass(frozen=True)
class Row:
    """One operation, its inputs, and its multiply-accumulates by hand.

    Attributes:
        name: The test's id.
        build: Makes the module; ``torch.device`` decides where.
        inputs: Shapes of the positional inputs; ``dtype`` is theirs.
        macs: The closed form, its factors in the order of ``formula``.
        formula: The named axes of ``macs``.
        torch_misses: Why torch's counter may report 0; empty where it must agree.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: tuple[tuple[int, ...], ...]
    macs: int
    formula: str
    dtype: torch.dtype = torch.float32
    torch_misses: str = ""

    def make(self, device: str) -> tuple[nn.Module, Inputs]:
        torch.manual_seed(0)
        with torch.device(device):
            inputs = tuple(
                torch.rand(shape, dtype=self.dtype)
                if self.dtype.is_floating_point
                else torch.ones(shape).to(self.dtype)
                for shape in self.inputs
            )
            return self.build().eval(), inputs


def channels_last(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


def einsum(equation: str) -> Callable[[], nn.Module]:
    return lambda: Fn(lambda *operands: torch.einsum(equation, *operands))


def attention(**options: Any) -> Callable[[], nn.Module]:
    return lambda: Fn(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options))


NOT_REGISTERED = "torch.utils.flop_counter has no formula for aten.{}, so it reports 0"

CONVOLUTIONS = (
    Row("conv1d", lambda: nn.Conv1d(4, 6, 5), ((2, 4, 20),), 2 * 6 * 16 * 4 * 5, "N Cout L' Cin K"),
    Row("conv2d", lambda: nn.Conv2d(3, 8, 3), ((2, 3, 12, 10),), 2 * 8 * 10 * 8 * 3 * 3 * 3, "N Cout H' W' Cin K K"),
    Row(
        "conv2d_padding_counts_as_work",
        lambda: nn.Conv2d(3, 8, 3, padding=1),
        ((2, 3, 12, 10),),
        2 * 8 * 12 * 10 * 3 * 3 * 3,
        "N Cout H' W' Cin K K",
    ),
    Row(
        "conv2d_same_even_kernel",
        lambda: nn.Conv2d(3, 8, 4, padding="same"),
        ((1, 3, 10, 9),),
        8 * 10 * 9 * 3 * 4 * 4,
        "Cout H W Cin K K",
    ),
    Row(
        "conv2d_circular",
        lambda: nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"),
        ((1, 3, 10, 9),),
        8 * 10 * 9 * 3 * 3 * 3,
        "Cout H W Cin K K",
    ),
    Row("conv2d_unbatched", lambda: nn.Conv2d(3, 8, 3), ((3, 12, 10),), 8 * 10 * 8 * 3 * 3 * 3, "Cout H' W' Cin K K"),
    Row(
        "conv2d_strided",
        lambda: nn.Conv2d(3, 8, 3, stride=(2, 3), padding=1),
        ((2, 3, 11, 10),),
        2 * 8 * 6 * 4 * 3 * 3 * 3,
        "N Cout H' W' Cin K K",
    ),
    Row(
        "conv2d_dilated",
        lambda: nn.Conv2d(3, 8, 3, dilation=2),
        ((2, 3, 11, 10),),
        2 * 8 * 7 * 6 * 3 * 3 * 3,
        "N Cout H' W' Cin K K",
    ),
    Row(
        "conv2d_grouped",
        lambda: nn.Conv2d(6, 9, 3, groups=3),
        ((2, 6, 8, 7),),
        2 * 9 * 6 * 5 * 2 * 3 * 3,
        "N Cout H' W' Cin/G K K",
    ),
    Row(
        "conv2d_depthwise",
        lambda: nn.Conv2d(6, 6, 5, padding=2, groups=6),
        ((2, 6, 8, 7),),
        2 * 6 * 8 * 7 * 1 * 5 * 5,
        "N C H' W' 1 K K",
    ),
    Row(
        "conv2d_pointwise_no_bias",
        lambda: nn.Conv2d(6, 9, 1, bias=False),
        ((2, 6, 8, 7),),
        2 * 9 * 8 * 7 * 6,
        "N Cout H W Cin",
    ),
    Row(
        "conv2d_channels_last",
        lambda: channels_last(nn.Conv2d(3, 8, 3)),
        ((2, 3, 12, 10),),
        2 * 8 * 10 * 8 * 3 * 3 * 3,
        "N Cout H' W' Cin K K",
    ),
    Row(
        "conv3d",
        lambda: nn.Conv3d(2, 5, (3, 2, 1)),
        ((2, 2, 6, 5, 4),),
        2 * 5 * 4 * 4 * 4 * 2 * 3 * 2 * 1,
        "N Cout D' H' W' Cin Kd Kh Kw",
    ),
    # A transposed convolution spreads every *input* pixel over the kernel: input pixels count, not output pixels.
    Row(
        "conv_transpose1d",
        lambda: nn.ConvTranspose1d(4, 6, 3, stride=2),
        ((2, 4, 10),),
        2 * 10 * 4 * 6 * 3,
        "N L Cin Cout K",
    ),
    Row(
        "conv_transpose2d",
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
        ((2, 4, 8, 7),),
        2 * 8 * 7 * 4 * 6 * 3 * 3,
        "N H W Cin Cout K K",
    ),
    Row(
        "conv_transpose2d_grouped",
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2),
        ((2, 4, 8, 7),),
        2 * 8 * 7 * 4 * 3 * 3 * 3,
        "N H W Cin Cout/G K K",
    ),
    Row(
        "conv_transpose3d",
        lambda: nn.ConvTranspose3d(2, 3, 2, stride=2),
        ((1, 2, 4, 3, 5),),
        4 * 3 * 5 * 2 * 3 * 2 * 2 * 2,
        "D H W Cin Cout K K K",
    ),
    Row("conv2d_of_buffers", BufferConv, ((2, 4, 8, 7),), 2 * 6 * 8 * 7 * 4 * 3 * 3, "N Cout H W Cin K K"),
)

MATRICES = (
    Row("linear", lambda: nn.Linear(12, 5), ((4, 12),), 4 * 5 * 12, "M N K"),
    Row("linear_1d_input", lambda: nn.Linear(12, 5), ((12,),), 5 * 12, "N K"),
    Row("linear_3d_input", lambda: nn.Linear(12, 5), ((4, 7, 12),), 4 * 7 * 5 * 12, "B T N K"),
    Row("linear_no_bias", lambda: nn.Linear(12, 5, bias=False), ((4, 12),), 4 * 5 * 12, "M N K"),
    Row("linear_3d_no_bias", lambda: nn.Linear(12, 5, bias=False), ((4, 7, 12),), 4 * 7 * 5 * 12, "B T N K"),
    Row(
        "linear_bfloat16",
        lambda: nn.Linear(12, 5, dtype=torch.bfloat16),
        ((4, 12),),
        4 * 5 * 12,
        "M N K",
        torch.bfloat16,
    ),
    Row("linear_three_times", Thrice, ((4, 12),), 3 * 4 * 12 * 12, "calls M N K"),
    Row(
        "bilinear",
        lambda: nn.Bilinear(4, 5, 6),
        ((7, 4), (7, 5)),
        7 * 6 * (4 * 5 + 5),
        "N Cout (C1 C2 + C2): x1 @ W[o], then its inner product with x2; ATen's kernel runs these as two bmm",
        torch_misses=NOT_REGISTERED.format("_trilinear"),
    ),
    Row("mm", lambda: Fn(torch.mm), ((3, 4), (4, 5)), 3 * 5 * 4, "M N K"),
    Row("bmm", lambda: Fn(torch.bmm), ((2, 3, 4), (2, 4, 5)), 2 * 3 * 5 * 4, "B M N K"),
    Row("addmm", lambda: Fn(torch.addmm), ((5,), (3, 4), (4, 5)), 3 * 5 * 4, "M N K"),
    Row("baddbmm", lambda: Fn(torch.baddbmm), ((2, 3, 5), (2, 3, 4), (2, 4, 5)), 2 * 3 * 5 * 4, "B M N K"),
    Row(
        "addbmm",
        lambda: Fn(torch.addbmm),
        ((3, 5), (2, 3, 4), (2, 4, 5)),
        2 * 3 * 5 * 4,
        "B M N K",
        torch_misses=NOT_REGISTERED.format("addbmm"),
    ),
    Row("mv", lambda: Fn(torch.mv), ((3, 4), (4,)), 3 * 4, "M K", torch_misses=NOT_REGISTERED.format("mv")),
    Row(
        "addmv",
        lambda: Fn(torch.addmv),
        ((3,), (3, 4), (4,)),
        3 * 4,
        "M K",
        torch_misses=NOT_REGISTERED.format("addmv"),
    ),
    Row("dot", lambda: Fn(torch.dot), ((9,), (9,)), 9, "K", torch_misses=NOT_REGISTERED.format("dot")),
    Row(
        "matmul_matrix_vector",
        lambda: Fn(torch.matmul),
        ((2, 3, 4), (4,)),
        2 * 3 * 4,
        "B M K",
        torch_misses=NOT_REGISTERED.format("mv"),
    ),
    Row("matmul_broadcast", lambda: Fn(torch.matmul), ((2, 1, 3, 4), (6, 4, 5)), 2 * 6 * 3 * 5 * 4, "B1 B2 M N K"),
    Row("matmul_folds_batch", lambda: Fn(torch.matmul), ((2, 7, 3, 4), (4, 5)), 2 * 7 * 3 * 5 * 4, "B1 B2 M N K"),
    Row(
        "tensordot",
        lambda: Fn(lambda a, b: torch.tensordot(a, b, 2)),
        ((3, 4, 5), (4, 5, 6)),
        3 * 6 * 4 * 5,
        "M N K1 K2",
    ),
    Row("einsum_matrices", einsum("ij,jk->ik"), ((3, 4), (4, 5)), 3 * 5 * 4, "i k j"),
    Row("einsum_inner", einsum("i,i->"), ((9,), (9,)), 9, "i"),
    Row("einsum_scores", einsum("bqhd,bkhd->bhqk"), ((2, 3, 4, 5), (2, 6, 4, 5)), 2 * 4 * 3 * 6 * 5, "b h q k d"),
    # Left to right is also the cheapest order, so the count is the same with opt_einsum installed.
    Row("einsum_three", einsum("ij,jk,kl->il"), ((2, 3), (3, 4), (4, 5)), 2 * 3 * 4 + 2 * 4 * 5, "i j k + i k l"),
    Row("einsum_outer", einsum("i,j->ij"), ((4,), (5,)), 0, "nothing is accumulated: an element-wise product"),
    Row("einsum_trace", einsum("ii->"), ((4, 4),), 0, "a sum without products"),
    Row(
        "int_mm",
        lambda: Fn(torch._int_mm),
        ((32, 16), (16, 8)),
        32 * 8 * 16,
        "M N K",
        torch.int8,
        torch_misses=NOT_REGISTERED.format("_int_mm"),
    ),
)

# With S queries over T keys, width d: projections q and o take S d d each, k and v T d d each, the scores S T d, the
# weighted sum S T d.
ATTENTION = (
    Row("sdpa", attention(), ((2, 3, 8, 16),) * 3, 2 * 2 * 3 * 8 * 8 * 16, "2 B H S S D"),
    # The causal mask is not credited; torch's counter says the same of itself.
    Row(
        "sdpa_causal_counts_full",
        attention(is_causal=True),
        ((2, 3, 8, 16),) * 3,
        2 * 2 * 3 * 8 * 8 * 16,
        "2 B H S S D",
    ),
    Row(
        "sdpa_gqa",
        attention(enable_gqa=True),
        ((2, 4, 8, 16), (2, 2, 8, 16), (2, 2, 8, 16)),
        2 * 2 * 4 * 8 * 8 * 16,
        "2 B Hq S S D: every query head works, however few the key heads",
    ),
    Row(
        "sdpa_gqa_decode",
        attention(enable_gqa=True),
        ((2, 4, 1, 16), (2, 1, 9, 16), (2, 1, 9, 16)),
        2 * 2 * 4 * 1 * 9 * 16,
        "2 B Hq 1 T D",
    ),
    Row(
        "sdpa_cross_other_value_width",
        attention(),
        ((2, 3, 5, 16), (2, 3, 7, 16), (2, 3, 7, 12)),
        2 * 3 * 5 * 7 * (16 + 12),
        "B H S T (D + Dv)",
    ),
    Row(
        "multihead_self_attention",
        SelfAttention,
        ((2, 5, 16),),
        2 * (4 * 5 * 16 * 16 + 2 * 5 * 5 * 16),
        "B (4 S d d + 2 S S d)",
    ),
    Row(
        "multihead_attention_of_three_tensors",
        lambda: nn.MultiheadAttention(16, 4, batch_first=True),
        ((2, 5, 16),) * 3,
        2 * (4 * 5 * 16 * 16 + 2 * 5 * 5 * 16),
        "B (4 S d d + 2 S S d)",
    ),
    Row(
        "multihead_attention_cross",
        lambda: nn.MultiheadAttention(16, 4, kdim=12, vdim=10, batch_first=True),
        ((2, 5, 16), (2, 7, 12), (2, 7, 10)),
        2 * (2 * 5 * 16 * 16 + 7 * 12 * 16 + 7 * 10 * 16 + 2 * 5 * 7 * 16),
        "B (2 S d d + T dk d + T dv d + 2 S T d)",
    ),
    Row(
        "transformer_encoder_layer",
        lambda: nn.TransformerEncoderLayer(16, 4, 40, batch_first=True),
        ((2, 5, 16),),
        2 * (4 * 5 * 16 * 16 + 2 * 5 * 5 * 16 + 2 * 5 * 16 * 40),
        "B (4 S d d + 2 S S d + 2 S d f)",
    ),
    Row(
        "transformer_encoder_pre_norm_gelu",
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(16, 4, 40, activation="gelu", batch_first=True, norm_first=True),
            num_layers=3,
            enable_nested_tensor=False,
        ),
        ((2, 5, 16),),
        3 * 2 * (4 * 5 * 16 * 16 + 2 * 5 * 5 * 16 + 2 * 5 * 16 * 40),
        "layers B (4 S d d + 2 S S d + 2 S d f)",
    ),
    Row(
        "transformer_decoder_layer",
        lambda: nn.TransformerDecoderLayer(16, 4, 40, batch_first=True),
        ((2, 5, 16), (2, 7, 16)),
        2 * (4 * 5 * 16 * 16 + 2 * 5 * 5 * 16 + (2 * 5 + 2 * 7) * 16 * 16 + 2 * 5 * 7 * 16 + 2 * 5 * 16 * 40),
        "B (4 S d d + 2 S S d + (2 S + 2 T) d d + 2 S T d + 2 S d f)",
    ),
    Row(
        "llama_tiny",
        llama_tiny,
        ((3, 7),),
        3 * (2 * (7 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48) + 2 * 7 * 7 * 32) + 7 * 32 * 64),
        "B (layers (S (2 d d + 2 d kv + 3 d f) + 2 S S d) + S d vocab)",
        torch.int64,
    ),
)

# Every gate is one row block of [input weights | recurrent weights]: G h (x + h) per step and sequence.
RECURRENT = (
    Row("rnn", lambda: nn.RNN(8, 16), ((5, 3, 8),), 5 * 3 * 16 * (8 + 16), "T N h (x + h)"),
    Row("gru", lambda: nn.GRU(8, 16), ((5, 3, 8),), 5 * 3 * 3 * 16 * (8 + 16), "T N 3 h (x + h)"),
    Row(
        "gru_two_layers",
        lambda: nn.GRU(8, 16, 2, bidirectional=True),
        ((5, 3, 8),),
        5 * 3 * 2 * 3 * 16 * ((8 + 16) + (2 * 16 + 16)),
        "T N directions 3 h ((x + h) + (2 h + h))",
    ),
    Row("lstm", lambda: nn.LSTM(8, 16), ((5, 3, 8),), 5 * 3 * 4 * 16 * (8 + 16), "T N 4 h (x + h)"),
    Row("lstm_no_bias", lambda: nn.LSTM(8, 16, bias=False), ((5, 3, 8),), 5 * 3 * 4 * 16 * (8 + 16), "T N 4 h (x + h)"),
    Row(
        "lstm_two_layers_bidirectional",
        lambda: nn.LSTM(8, 16, 2, bidirectional=True, batch_first=True),
        ((3, 5, 8),),
        5 * 3 * 2 * 4 * 16 * ((8 + 16) + (2 * 16 + 16)),
        "T N directions 4 h ((x + h) + (2 h + h))",
    ),
    Row(
        "lstm_two_layers_bidirectional_projected",
        lambda: nn.LSTM(8, 16, 2, bidirectional=True, proj_size=6, batch_first=True),
        ((3, 5, 8),),
        5 * 3 * 2 * (4 * 16 * ((8 + 6) + (2 * 6 + 6)) + 2 * 16 * 6),
        "T N directions (4 h ((x + p) + (2 p + p)) + layers h p)",
    ),
    Row("rnn_cell", lambda: nn.RNNCell(8, 16), ((3, 8),), 3 * 16 * (8 + 16), "N h (x + h)"),
    Row("gru_cell", lambda: nn.GRUCell(8, 16), ((3, 8),), 3 * 3 * 16 * (8 + 16), "N 3 h (x + h)"),
    Row("lstm_cell", lambda: nn.LSTMCell(8, 16), ((3, 8),), 3 * 4 * 16 * (8 + 16), "N 4 h (x + h)"),
)

LOOKUPS = (
    Row("embedding", lambda: nn.Embedding(20, 8), ((3, 7),), 0, "a lookup multiplies nothing", torch.int64),
    Row(
        "tied_decoder", TiedDecoder, ((3, 7),), 3 * 7 * 20 * 8, "B T vocab d: the second use of the table", torch.int64
    ),
)

NO_PRODUCTS = "neither convolutions nor matrix products"

ELEMENTWISE = (
    Row("relu", nn.ReLU, ((2, 3, 8, 8),), 0, NO_PRODUCTS),
    Row(
        "activations",
        lambda: nn.Sequential(
            nn.GELU(),
            nn.SiLU(),
            nn.Hardswish(),
            nn.Sigmoid(),
            nn.Tanh(),
            nn.Softplus(),
            nn.ELU(),
            nn.LeakyReLU(),
            nn.PReLU(),
            nn.ReLU6(),
            nn.Hardsigmoid(),
            nn.Mish(),
        ),
        ((2, 8),),
        0,
        NO_PRODUCTS,
    ),
    Row(
        "norms_and_pools",
        lambda: nn.Sequential(
            nn.BatchNorm2d(4),
            nn.GroupNorm(2, 4),
            nn.InstanceNorm2d(4),
            nn.LayerNorm(8),
            nn.MaxPool2d(2),
            nn.AvgPool2d(2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Softmax(-1),
            nn.Dropout(),
            nn.Identity(),
        ),
        ((2, 4, 8, 8),),
        0,
        NO_PRODUCTS,
    ),
    Row(
        "arithmetic",
        lambda: Fn(lambda a, b: (a * b + a - b / 2).exp().clamp(max=1).sum(-1)),
        ((4, 5), (4, 5)),
        0,
        NO_PRODUCTS,
    ),
    Row(
        "moves",
        lambda: Fn(lambda a, b: torch.cat([a.transpose(0, 1).reshape(3, 4), b.permute(1, 0)[:3, :4]]).contiguous()),
        ((4, 3), (5, 4)),
        0,
        NO_PRODUCTS,
    ),
)

ROWS = (*CONVOLUTIONS, *MATRICES, *ATTENTION, *RECURRENT, *LOOKUPS, *ELEMENTWISE)
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


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
