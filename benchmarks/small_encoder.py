"""A small transformer encoder for images, which no calibration has seen: for ``aiq validate``."""

from __future__ import annotations

import torch
from torch import nn

_WIDTH, _HEADS, _INNER, _LAYERS, _PATCH, _CLASSES = 192, 3, 768, 6, 4, 10


class SmallEncoder(nn.Module):
    """A vision transformer of 2.7 million weights on 64 patches of a 32x32 image, normalising first."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, _WIDTH, _PATCH, _PATCH)
        self.places = nn.Parameter(torch.randn(1, (32 // _PATCH) ** 2, _WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(
            _WIDTH, _HEADS, _INNER, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, _CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, [N, 10], of images, [N, 3, 32, 32]."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        found: torch.Tensor = self.head(self.norm(self.layers(tokens)).mean(1))
        return found


def encoder() -> tuple[nn.Module, torch.Tensor]:
    """Return the network with seeded random weights, and an example input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SmallEncoder().eval(), torch.zeros(1, 3, 32, 32)
