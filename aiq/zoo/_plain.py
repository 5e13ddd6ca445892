"""A plain convolutional network of equally wide layers, without shortcuts.

Source: PlainConvNet20 of Singh, Rajan, Jain, "Arithmetic-Intensity-Aware Quantization", Table I.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

_DEPTH = 20
_CHANNELS = 64


class PlainConvNet(nn.Module):
    """Twenty (convolution, batch norm, ReLU) triples of 64 channels, global average pool and the linear head ``cls``.

    The convolutions are ``features.0``, ``features.3``, ..., ``features.57``.

    Args:
        strided: Which convolutions, counted from 0, have stride 2; the others have stride 1.
        classes: Number of classes.
    """

    def __init__(self, *, strided: tuple[int, ...] = (7, 14), classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(_DEPTH):
            stride = 2 if index in strided else 1
            channels_in = 3 if index == 0 else _CHANNELS
            layers += [
                nn.Conv2d(channels_in, _CHANNELS, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(_CHANNELS),
                nn.ReLU(inplace=True),
            ]
        self.features = nn.Sequential(*layers)
        self.cls = nn.Linear(_CHANNELS, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``[N, 3, H, W]`` to logits ``[N, classes]``."""
        out = F.adaptive_avg_pool2d(self.features(x), 1)
        return self.cls(torch.flatten(out, 1))


def plain_convnet20(*, strided: tuple[int, ...] = (7, 14)) -> PlainConvNet:
    """Build PlainConvNet20 for CIFAR-10: ``[N, 3, 32, 32]`` to ``[N, 10]``.

    The source does not state its strides. Stride 2 at convolutions 7 and 14 is a choice made here: it keeps ResNet-20's
    three resolutions (32, 16, 8) over nearly equal thirds of the depth. 21 layers and 308 478 592 multiply-accumulates
    an image.

    Args:
        strided: Which convolutions, counted from 0, have stride 2.
    """
    return PlainConvNet(strided=strided)
