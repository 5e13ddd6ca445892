"""Convolutions and matrix products as modules, each with its multiply-accumulates by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Inputs = tuple[Tensor, ...]


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


def channels_last(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


def einsum(equation: str) -> Callable[[], nn.Module]:
    return lambda: Fn(lambda *operands: torch.einsum(equation, *operands))


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
