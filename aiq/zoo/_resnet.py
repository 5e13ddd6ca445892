"""Residual networks of basic blocks for small images: ResNet-20 and its relatives.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (2015), section 4.2 and options A and B of
section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

Shortcut = Literal["projection", "padded"]


class Stage(NamedTuple):
    """A run of basic blocks of one width; the first of them has the stride."""

    channels: int
    blocks: int
    stride: int


class _Subsample(nn.Module):
    """Shortcut of option A: every stride-th pixel, new channels filled with zeros on both sides."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (channels_out - channels_in) // 2
        self.padding = (0, 0, 0, 0, before, channels_out - channels_in - before)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: ``relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))``.

    The shortcut is the identity where stride and channels stay the same.
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module
        if stride == 1 and channels_in == channels_out:
            self.shortcut = nn.Identity()
        elif shortcut == "padded":
            self.shortcut = _Subsample(channels_in, channels_out, stride)
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[N, C_in, H, W]`` to ``[N, C_out, H / stride, W / stride]``."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    """A 3x3 stem, three stages of basic blocks, global average pool and a linear head.

    Layers are named ``conv1``, ``layer{stage}.{block}.conv{1,2}``, ``layer{stage}.{block}.shortcut.0`` and ``linear``.

    Args:
        stem: Channels of the stem.
        stages: The three stages.
        shortcut: ``"projection"`` (option B: 1x1 convolution and batch norm) or ``"padded"`` (option A: no weights),
            wherever stride or channels change.
        channels_in: Channels of the image.
        classes: Number of classes.
    """

    def __init__(
        self,
        stem: int,
        stages: Sequence[Stage],
        *,
        shortcut: Shortcut = "projection",
        channels_in: int = 3,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        one, two, three = stages
        self.layer1 = _stage(stem, one, shortcut)
        self.layer2 = _stage(one.channels, two, shortcut)
        self.layer3 = _stage(two.channels, three, shortcut)
        self.linear = nn.Linear(three.channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``[N, channels, H, W]`` to logits ``[N, classes]``."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = torch.flatten(F.adaptive_avg_pool2d(out, 1), 1)
        return self.linear(out)


def _stage(channels_in: int, stage: Stage, shortcut: Shortcut) -> nn.Sequential:
    blocks = []
    for index in range(stage.blocks):
        stride = stage.stride if index == 0 else 1
        blocks.append(BasicBlock(channels_in, stage.channels, stride=stride, shortcut=shortcut))
        channels_in = stage.channels
    return nn.Sequential(*blocks)


def resnet20(*, shortcut: Shortcut = "projection") -> ResNet:
    """Build ResNet-20 for CIFAR-10: ``[N, 3, 32, 32]`` to ``[N, 10]``.

    With projection shortcuts it has 22 convolutional and linear layers, 40 813 184 multiply-accumulates an image,
    268 336 weights in the layers of the main path and 2 560 in the two shortcuts.
    """
    return ResNet(16, (Stage(16, 3, 1), Stage(32, 3, 2), Stage(64, 3, 2)), shortcut=shortcut)


def resnet20_padded() -> ResNet:
    """Build ResNet-20 with zero-padded shortcuts: 20 weighted layers, 40 551 040 multiply-accumulates an image."""
    return resnet20(shortcut="padded")


def heavy_early_resnet20() -> ResNet:
    """Build ResNet-20 with channel groups (64, 32, 16, 16): ``[N, 3, 32, 32]`` to ``[N, 10]``.

    The stem has 64 channels, the stages 32, 16 and 16 with strides 1, 2 and 2; every stage opens with a projection, as
    either its stride or its channels change. The source gives the groups; the strides are those of ResNet-20.
    23 convolutional and linear layers, 75 088 032 multiply-accumulates an image.

    Source: Singh, Rajan, Jain, "Arithmetic-Intensity-Aware Quantization", Table I.
    """
    return ResNet(64, (Stage(32, 3, 1), Stage(16, 3, 2), Stage(16, 3, 2)))


def digits_cnn() -> ResNet:
    """Build the digits network: ``[N, 1, 8, 8]`` to ``[N, 10]``.

    A stem of 16 channels and three blocks: 16 channels at 8x8, 32 at 4x4 (stride 2, projection shortcut), 32 at 4x4.
    Nine weighted layers of 144 to 9 216 weights, 828 736 multiply-accumulates an image.
    """
    return ResNet(16, (Stage(16, 1, 1), Stage(32, 1, 2), Stage(32, 1, 1)), channels_in=1)
