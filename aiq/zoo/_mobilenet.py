"""MobileNetV2 for 32x32 images, with two sets of strides and one set of weights.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018), Table 2; the structure and the
names of the layers are those of torchvision's ``mobilenet_v2``.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

# Table 2 of the source: expansion, channels, blocks.
_STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
_ORIGINAL_STRIDES = (2, 1, 2, 2, 2, 1, 2, 1)
_CIFAR_STRIDES = (1, 1, 1, 2, 2, 1, 2, 1)


def _conv_bn(channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """Expand (1x1), filter each channel by itself (3x3), project (1x1, linear); add the input where shapes allow."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.adds = stride == 1 and channels_in == channels_out
        layers: list[nn.Module] = [] if expansion == 1 else [_conv_bn(channels_in, hidden, 1)]
        layers += [
            _conv_bn(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[N, C_in, H, W]`` to ``[N, C_out, H / stride, W / stride]``."""
        out = self.conv(x)
        return x + out if self.adds else out


class MobileNetV2(nn.Module):
    """MobileNetV2 at width 1.0: ``features.0`` to ``features.18``, global average pool, ``classifier``.

    Args:
        strides: The stride of the stem and of the first block of each of the seven stages. Strides change no weight.
        classes: Number of classes.
    """

    def __init__(self, strides: tuple[int, ...], *, classes: int = 10) -> None:
        super().__init__()
        stem_stride, *stage_strides = strides
        channels = 32
        features: list[nn.Module] = [_conv_bn(3, channels, 3, stride=stem_stride)]
        for (expansion, width, blocks), stage_stride in zip(_STAGES, stage_strides, strict=True):
            for index in range(blocks):
                stride = stage_stride if index == 0 else 1
                features.append(InvertedResidual(channels, width, stride=stride, expansion=expansion))
                channels = width
        features.append(_conv_bn(channels, 1280, 1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``[N, 3, H, W]`` to logits ``[N, classes]``."""
        out = F.adaptive_avg_pool2d(self.features(x), 1)
        return self.classifier(torch.flatten(out, 1))


def mobilenet_v2() -> MobileNetV2:
    """Build MobileNetV2 with its original strides, five of them 2: ``[N, 3, 32, 32]`` to ``[N, 10]``.

    53 convolutional and linear layers, 6 124 928 multiply-accumulates an image; the last features are 1x1.
    """
    return MobileNetV2(_ORIGINAL_STRIDES)


def mobilenet_v2_cifar() -> MobileNetV2:
    """Build MobileNetV2 with strides for 32x32 images: ``[N, 3, 32, 32]`` to ``[N, 10]``.

    The usual CIFAR variant: the stem and the 24-channel stage have stride 1 in place of 2, so the last features are
    4x4. 87 976 448 multiply-accumulates an image; the weights are those of :func:`mobilenet_v2`.
    """
    return MobileNetV2(_CIFAR_STRIDES)
