"""Attention, recurrent, lookup and element-wise layers, each with its multiply-accumulates by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.networks import llama_tiny
from tests.operations import Fn, Row


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


def attention(**options: Any) -> Callable[[], nn.Module]:
    return lambda: Fn(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options))


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
