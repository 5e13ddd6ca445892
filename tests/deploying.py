"""Small networks that differ in what a runtime has to get right, calibrated and ready to be deployed."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from aiq._model import Model, load_model
from aiq.data import load
from aiq.quantize import Simulator
from aiq.registry import load_runtime
from aiq.runtimes import Deployment, Prepared
from roofline import Scheme

BATCH = 16


class Residual(nn.Module):
    """Batch norm, a layer called twice, and a tensor that two layers and an addition read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.short, self.fc = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.b(F.relu(self.a(x))) + self.short(x))
        return self.fc(F.relu(x + self.a(x)).mean((2, 3)))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point, self.fc = nn.Conv2d(16, 16, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem(x))
        x = x + self.point(F.relu6(self.depth(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, 8)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Products(nn.Module):
    """Attention written out: two products of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.q(x) @ self.k(x).transpose(1, 2) / 4, -1) @ self.v(x)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.fc = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer(x).mean(1))


class Tied(nn.Module):
    """An embedding whose table is the weight of the last layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.a, self.head = nn.Embedding(20, 16), nn.Linear(16, 16), nn.Linear(16, 20, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.a(self.table(ids))))


class Up(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c, self.up, self.o = nn.Conv2d(3, 8, 3, padding=1), nn.ConvTranspose2d(8, 6, 2, 2), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(F.relu(self.up(F.relu(self.c(x)))))


class Signal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 8, 3, padding=1), nn.Conv1d(8, 8, 5, padding=2, groups=2)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.gelu(self.b(F.relu(self.a(x)))).mean(2))


class TwoReaders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 64), nn.Linear(64, 8, bias=False), nn.Linear(64, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        return torch.cat([self.b(h), self.c(h)], 1)


class Named(nn.Module):
    """Two inputs by name, and logits that are not alone."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = nn.Linear(16, 3), nn.Linear(16, 3)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.f(left)
        return seen - 2 * self.g(right), seen


IMAGE, SEQUENCE, FLAT = (3, 8, 8), (5, 16), (16,)
NETWORKS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, IMAGE),
    "depthwise": (Depthwise, IMAGE),
    "attention": (Attention, SEQUENCE),
    "products": (Products, SEQUENCE),
    "encoder": (Encoder, SEQUENCE),
    "tied": (Tied, (7,)),
    "up": (Up, IMAGE),
    "signal": (Signal, (4, 12)),
    "two_readers": (TwoReaders, FLAT),
    "named": (Named, FLAT),
}


@cache
def deployment(name: str) -> Deployment:
    """Return a network of the table, or ``digits_cnn`` with its own weights and data."""
    if name == "digits_cnn":
        model = load_model(name)
        calibration = torch.from_numpy(load("digits", "calibration").x)
        return Deployment(Simulator(model, model.trace(), calibration))
    kind, shape = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = kind().eval()
    return deployed(module, made_up(name, shape), name)


def deployed(module: nn.Module, inputs: Any, name: str = "made_up") -> Deployment:
    """Return any module, calibrated on inputs."""
    if isinstance(inputs, dict):
        example: Any = {key: value[:1].to("meta") for key, value in inputs.items()}
    else:
        example = inputs[:1].to("meta")
    model = Model(name, module.eval(), example)
    return Deployment(Simulator(model, model.trace(), inputs))


def made_up(name: str, shape: tuple[int, ...], count: int = 64) -> Any:
    generator = torch.Generator().manual_seed(1)
    if name == "tied":
        return torch.randint(0, 20, (count, *shape), generator=generator)
    drawn = torch.randn(count, *shape, generator=generator)
    return {"right": drawn, "left": drawn.flip(0)} if name == "named" else drawn


def prepare(runtime: str, network: str, scheme: str, batch: int = BATCH) -> Prepared:
    return load_runtime(runtime).prepare(deployment(network), Scheme.parse(scheme), batch=batch, threads=1)


def simulated(network: str, scheme: str, batch: int = BATCH) -> NDArray[np.float32]:
    simulator = deployment(network).simulator
    inputs = simulator.calibration_inputs
    some = {key: value[:batch] for key, value in inputs.items()} if isinstance(inputs, dict) else inputs[:batch]
    return simulator.outputs(Scheme.parse(scheme), some).numpy()


def apart(runtime: str, network: str, scheme: str, batch: int = BATCH) -> NDArray[np.float64]:
    """Return the largest difference from the simulation in each example, in standard deviations of the outputs, [N]."""
    expected = simulated(network, scheme, batch)
    found = prepare(runtime, network, scheme, batch).run(deployment(network).example(batch))
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    return np.abs(found - expected).reshape(batch, -1).max(1) / expected.std()
