"""Probe networks: small networks whose layers cover the shapes that a calibration is to speak of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from aiq._model import Model

_EXAMPLES = 4
_TOKENS = 256


@dataclass(frozen=True, eq=False)
class Probe:
    """A network that exists to be timed.

    Attributes:
        model: With seeded random weights.
        inputs: Examples, batch first, from which the ranges of activations are taken.
    """

    model: Model
    inputs: torch.Tensor


def probes(seed: int = 0) -> tuple[Probe, ...]:
    """Build the probe networks.

    Each is small enough for its weights to stay in the last cache between passes. Together they hold convolutions of
    1x1 to 7x7 at strides 1, 2 and 4, depthwise ones of 3x3 and 5x5, 16 to 1280 channels and 1 to 64 pixels a side,
    additions, poolings, products of 8 to 256 tokens with 32 to 1024 features, layer norms, GELU, softmax and
    attention in the three ways in which PyTorch writes it. None is a network of the zoo, but they have the shapes of
    ResNet-20 and MobileNetV2 among others.

    Args:
        seed: Of the weights and inputs; times do not depend on it.
    """
    built: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
        "probe-basic": (_Basic, (3, 64, 64)),
        "probe-mobile": (partial(_Mobile, 1), (3, 32, 32)),
        "probe-mobile-small": (partial(_Mobile, 4), (3, 32, 32)),
        "probe-encoder": (partial(_Encoder, wide=False), (3, 64, 64)),
        "probe-bottleneck": (_Bottleneck, (3, 64, 64)),
        "probe-encoder-wide": (partial(_Encoder, wide=True), (3, 64, 64)),
    }
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, (build, shape) in built.items():
            module = build().eval().requires_grad_(False)
            model = Model(name, module, torch.empty((1, *shape), device="meta"))
            found.append(Probe(model, torch.randn(_EXAMPLES, *shape)))
    return tuple(found)


def _conv(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, groups: int = 1, act: nn.Module | None = None
) -> nn.Sequential:
    """Return a convolution, its batch norm and, unless it ends a block, its activation."""
    parts: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*parts, *([act] if act else []))


class _Block(nn.Module):
    """A residual block around some convolutions; where the shape changes, with a 1x1 convolution beside them."""

    def __init__(self, inputs: int, outputs: int, stride: int, *body: nn.Module, act: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)
        same = inputs == outputs and stride == 1
        self.beside = nn.Identity() if same else _conv(inputs, outputs, 1, stride)
        self.act = nn.ReLU() if act else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.act(self.body(x) + self.beside(x))
        return found


def _basic(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return _Block(inputs, outputs, stride, _conv(inputs, outputs, 3, stride, act=nn.ReLU()), _conv(outputs, outputs))


def _bottleneck(inputs: int, width: int, outputs: int, stride: int = 1) -> nn.Module:
    body = (_conv(inputs, width, 1, act=nn.ReLU()), _conv(width, width, 3, stride, act=nn.ReLU()))
    return _Block(inputs, outputs, stride, *body, _conv(width, outputs, 1))


class _Basic(nn.Module):
    """Residual blocks of two convolutions, in two branches that are joined at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.shrink = nn.AvgPool2d(2)
        self.narrow = nn.Sequential(
            _conv(3, 16, act=nn.ReLU()),
            _basic(16, 16),
            _basic(16, 32, 2),
            _basic(32, 32),
            _basic(32, 64, 2),
            _basic(64, 64),
            _basic(64, 128, 2),
            _basic(128, 192, 2),
        )
        self.wide = nn.Sequential(
            _conv(3, 24, 3, 2, act=nn.ReLU()),
            _basic(24, 48, 2),
            _basic(48, 96, 2),
            _conv(96, 96, 5, 2, act=nn.ReLU()),
            nn.AvgPool2d(2),
        )
        self.head = nn.Linear(192 + 96, 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([self.narrow(self.shrink(x)), self.wide(x)], 1)
        found: torch.Tensor = self.head(joined.mean((2, 3)))
        return found


class _Bottleneck(nn.Module):
    """Residual blocks of three convolutions, and one large one of two at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _conv(3, 32, 7, 2, act=nn.ReLU()),
            nn.MaxPool2d(3, 2, 1),
            _bottleneck(32, 32, 128),
            _bottleneck(128, 64, 256, 2),
            _bottleneck(256, 64, 256),
            _bottleneck(256, 128, 512, 2),
            _conv(512, 128, 1, 2, act=nn.ReLU()),
            _basic(128, 256),
        )
        self.head = nn.Linear(256, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.features(x).mean((2, 3)))
        return found


def _inverted(inputs: int, outputs: int, stride: int, times: int, kernel: int = 3) -> nn.Module:
    inner = inputs * times
    body = [
        *([_conv(inputs, inner, 1, act=nn.ReLU6())] if times > 1 else []),
        _conv(inner, inner, kernel, stride, groups=inner, act=nn.ReLU6()),
        _conv(inner, outputs, 1),
    ]
    if inputs == outputs and stride == 1:
        return _Block(inputs, outputs, 1, *body, act=False)
    return nn.Sequential(*body)


# Inputs, outputs, stride, times and kernel: one of every block of MobileNetV2, and some with 5x5 windows.
_INVERTED = (
    (32, 16, 1, 1, 3),
    (16, 24, 1, 6, 3),
    (24, 24, 1, 6, 3),
    (24, 32, 2, 6, 3),
    (32, 32, 1, 6, 3),
    (32, 40, 1, 3, 5),
    (40, 64, 2, 6, 3),
    (64, 64, 1, 6, 3),
    (64, 96, 1, 6, 3),
    (96, 96, 1, 6, 3),
    (96, 112, 1, 4, 5),
    (112, 160, 2, 6, 3),
    (160, 160, 1, 6, 3),
    (160, 320, 1, 6, 3),
)


class _Mobile(nn.Module):
    """Inverted residual blocks: 1x1, depthwise, 1x1."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _conv(3, 32, 3, stride, act=nn.ReLU6()),
            *(_inverted(*block) for block in _INVERTED),
            _conv(320, 1280, 1, act=nn.ReLU6()),
            nn.AdaptiveAvgPool2d(1),
        )
        self.head = nn.Linear(1280, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.features(x).flatten(1))
        return found


class _Attention(nn.Module):
    """Attention written out, or left to PyTorch's own operator."""

    def __init__(self, width: int, heads: int, *, written: bool) -> None:
        super().__init__()
        self.heads, self.written = heads, written
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, tokens, width = x.shape
        parts = self.qkv(x).reshape(count, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        if self.written:
            mixed = ((q @ k.transpose(-2, -1)) * (width // self.heads) ** -0.5).softmax(-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        found: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(count, tokens, width))
        return found


class _EncoderLayer(nn.Module):
    """An encoder layer that normalises first."""

    def __init__(self, width: int, heads: int, inner: int, *, written: bool) -> None:
        super().__init__()
        self.attention = _Attention(width, heads, written=written)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.grow, self.shrink = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.first(x))
        found: torch.Tensor = x + self.shrink(F.gelu(self.grow(self.second(x))))
        return found


class _Stage(nn.Module):
    """Some encoder layers of one width, after a projection, on every so many tokens."""

    def __init__(self, inputs: int, width: int, every: int, *layers: nn.Module) -> None:
        super().__init__()
        self.every = every
        self.enter, self.layers = nn.Linear(inputs, width), nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(self.enter(x[:, :: self.every]))
        return found


def _encoder_layer(width: int, heads: int, inner: int) -> nn.Module:
    return nn.TransformerEncoderLayer(width, heads, inner, dropout=0.0, batch_first=True)


class _Encoder(nn.Module):
    """Encoder layers of several widths on 256 tokens down to 8, normalising before or after."""

    def __init__(self, *, wide: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 48, 4, 4)
        self.places = nn.Parameter(torch.randn(1, _TOKENS, 48))
        narrow_stages = (
            _Stage(48, 64, 1, _EncoderLayer(64, 2, 128, written=True)),
            _Stage(64, 128, 4, _encoder_layer(128, 4, 256)),
            _Stage(128, 256, 2, _EncoderLayer(256, 4, 512, written=True)),
            _Stage(256, 32, 2, _EncoderLayer(32, 2, 64, written=True)),
        )
        wide_stages = (
            _Stage(48, 256, 4, _encoder_layer(256, 8, 1024)),
            _Stage(256, 384, 4, _EncoderLayer(384, 6, 1024, written=False)),
            _Stage(384, 32, 2, _EncoderLayer(32, 2, 64, written=True)),
        )
        self.stages = nn.Sequential(*(wide_stages if wide else narrow_stages))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        found: torch.Tensor = self.head(self.norm(self.stages(x)).mean(1))
        return found
