"""Reference networks in plain torch, equal to torchvision's in shape; build them under ``torch.device("meta")``."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _conv_bn(c_in: int, c_out: int, k: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(c_in, c_out, k, stride, padding=k // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(c_out)]


class _Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def _resnet(depths: tuple[int, ...], *, bottleneck: bool) -> nn.Module:
    expansion = 4 if bottleneck else 1
    layers: list[nn.Module] = [*_conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    c_in = 64
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        for i in range(depth):
            stride = 2 if stage and i == 0 else 1
            c_out = width * expansion
            if bottleneck:  # v1.5: the stride sits in the 3x3
                body = nn.Sequential(
                    *_conv_bn(c_in, width, 1),
                    nn.ReLU(),
                    *_conv_bn(width, width, 3, stride),
                    nn.ReLU(),
                    *_conv_bn(width, c_out, 1),
                )
            else:
                body = nn.Sequential(*_conv_bn(c_in, width, 3, stride), nn.ReLU(), *_conv_bn(width, width, 3))
            same = stride == 1 and c_in == c_out
            shortcut = nn.Identity() if same else nn.Sequential(*_conv_bn(c_in, c_out, 1, stride))
            layers.append(_Residual(body, shortcut))
            c_in = c_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, 1000)).eval()


def resnet18() -> nn.Module:
    return _resnet((2, 2, 2, 2), bottleneck=False)


def resnet50() -> nn.Module:
    return _resnet((3, 4, 6, 3), bottleneck=True)


def resnet152() -> nn.Module:
    return _resnet((3, 8, 36, 3), bottleneck=True)


class _InvertedResidual(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = c_in * expand
        widen = [*_conv_bn(c_in, hidden, 1), nn.ReLU6()] if expand != 1 else []
        depthwise = [*_conv_bn(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6()]
        self.body = nn.Sequential(*widen, *depthwise, *_conv_bn(hidden, c_out, 1))
        self.skip = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.skip else self.body(x)


def mobilenet_v2() -> nn.Module:
    layers: list[nn.Module] = [*_conv_bn(3, 32, 3, 2), nn.ReLU6()]
    c_in = 32
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expand, c_out, repeats, stride in table:
        for i in range(repeats):
            layers.append(_InvertedResidual(c_in, c_out, stride if i == 0 else 1, expand))
            c_in = c_out
    head = [*_conv_bn(c_in, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, *head, nn.Linear(1280, 1000)).eval()


def _classifier(c_in: int, *, dropout_first: bool) -> list[nn.Module]:
    drop, first, second = nn.Dropout(), nn.Linear(c_in, 4096), nn.Linear(4096, 4096)
    if dropout_first:
        return [drop, first, nn.ReLU(), nn.Dropout(), second, nn.ReLU(), nn.Linear(4096, 1000)]
    return [first, nn.ReLU(), drop, second, nn.ReLU(), nn.Dropout(), nn.Linear(4096, 1000)]


def vgg16() -> nn.Module:
    layers: list[nn.Module] = []
    c_in = 3
    for c_out, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU()]
            c_in = c_out
        layers.append(nn.MaxPool2d(2))
    head = _classifier(512 * 7 * 7, dropout_first=False)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *head).eval()


def alexnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d(6),
        nn.Flatten(),
        *_classifier(256 * 6 * 6, dropout_first=True),
    ).eval()


class _EncoderBlock(nn.Module):
    def __init__(self, width: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, mlp), nn.GELU(), nn.Linear(mlp, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class _ViT(nn.Module):
    def __init__(self, *, image: int, patch: int, width: int, depth: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, (image // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(_EncoderBlock(width, heads, mlp) for _ in range(depth)))
        self.ln, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        return self.head(self.ln(self.blocks(x))[:, 0])


def vit_b_16() -> nn.Module:
    return _ViT(image=224, patch=16, width=768, depth=12, heads=12, mlp=3072).eval()


class _RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin


class _DecoderBlock(nn.Module):
    def __init__(self, width: int, heads: int, kv_heads: int, ffn: int) -> None:
        super().__init__()
        self.head_dim = width // heads
        kv = kv_heads * self.head_dim
        self.norm_1, self.norm_2 = _RMSNorm(width), _RMSNorm(width)
        self.q, self.k = nn.Linear(width, width, bias=False), nn.Linear(width, kv, bias=False)
        self.v, self.o = nn.Linear(width, kv, bias=False), nn.Linear(width, width, bias=False)
        self.gate, self.up = nn.Linear(width, ffn, bias=False), nn.Linear(width, ffn, bias=False)
        self.down = nn.Linear(ffn, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        y = self.norm_1(x)
        q, k, v = (proj(y).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for proj in (self.q, self.k, self.v))
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        y = self.norm_2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class _Decoder(nn.Module):
    def __init__(self, *, vocab: int, width: int, depth: int, heads: int, kv_heads: int, ffn: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(_DecoderBlock(width, heads, kv_heads, ffn) for _ in range(depth))
        self.norm, self.head = _RMSNorm(width), nn.Linear(width, vocab, bias=False)
        self.head_dim = width // heads

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        time = torch.arange(tokens.shape[1], device=x.device, dtype=torch.float32)
        rate = 10000.0 ** (-torch.arange(0, self.head_dim, 2, device=x.device) / self.head_dim)
        # A broadcast product, not torch.outer: rotary angles are element-wise work, no matrix product.
        angle = (time[:, None] * rate).repeat(1, 2)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.head(self.norm(x))


def llama_70b() -> nn.Module:
    """Llama-2-70b in shape: 68 976 648 192 parameters, so on meta only; takes int64 tokens ``[B, S]``."""
    return _Decoder(vocab=32000, width=8192, depth=80, heads=64, kv_heads=8, ffn=28672).eval()


def llama_tiny() -> nn.Module:
    """The same decoder small enough to run."""
    return _Decoder(vocab=64, width=32, depth=2, heads=4, kv_heads=2, ffn=48).eval()


# Multiply-accumulates of one 1x3x224x224 image: the published counts of torchvision's definitions, biases not counted.
IMAGE_NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (resnet18, 1_814_073_344),
    "resnet50": (resnet50, 4_089_184_256),
    "resnet152": (resnet152, 11_513_626_624),
    "mobilenet_v2": (mobilenet_v2, 300_774_272),
    "vgg16": (vgg16, 15_470_264_320),
    "alexnet": (alexnet, 714_188_480),
    "vit_b_16": (vit_b_16, 17_563_828_224),
}
