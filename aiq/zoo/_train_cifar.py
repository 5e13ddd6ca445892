"""Train the zoo's CIFAR-10 networks from scratch: bf16, compiled, on two cores or a GPU."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from aiq import zoo
from aiq.data import Split, check_labels
from hardware_specs.errors import AIQError

log = logging.getLogger(__name__)

_PAD = 4


@dataclass(frozen=True, slots=True)
class CifarRecipe:
    """Settings of one training run: SGD with Nesterov momentum, one-cycle learning rate, random crops and flips.

    Forward and backward run in bfloat16 under autocast, the parameters stay float32.

    Attributes:
        epochs: Passes over the training split.
        batch: Images a step; the last, smaller batch of an epoch is left out.
        peak_rate: Highest learning rate of the cycle.
        warm_up: Share of the steps in which the rate rises.
        momentum: Nesterov momentum.
        weight_decay: L2 penalty on weights, not on batch norm and biases.
        label_smoothing: Probability mass spread over all classes in the cross entropy.
    """

    epochs: int = 30
    batch: int = 256
    peak_rate: float = 0.4
    warm_up: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0

    def __str__(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.__slots__)


RECIPES: dict[str, CifarRecipe] = {
    "resnet20": CifarRecipe(),
    "heavy_early_resnet20": CifarRecipe(epochs=24),
    "plain_convnet20": CifarRecipe(epochs=12, peak_rate=0.1),
    "mobilenet_v2": CifarRecipe(epochs=20, peak_rate=0.2),
    "mobilenet_v2_cifar": CifarRecipe(epochs=3, peak_rate=0.05),
}


def train_cifar(
    name: str,
    data: Split,
    *,
    seed: int = 0,
    recipe: CifarRecipe | None = None,
    start: str | Path | None = None,
    compile: bool = True,
) -> nn.Module:
    """Train a network of the zoo on CIFAR-10; two runs agree in accuracy but not bit for bit.

    Args:
        name: A key of ``RECIPES``.
        data: The training split; x float32 [N, 3, 32, 32].
        seed: Seeds initial weights, order, crops and flips.
        recipe: Settings; by default those of ``RECIPES``.
        start: A ``.safetensors`` file to start from.
        compile: Compile the network first: it takes most of a minute and makes every epoch faster.

    Returns:
        The network, float32 on the CPU, in evaluation mode.

    Raises:
        AIQError: ``start`` does not fit, or an epoch would hold no whole batch.
    """
    settings = recipe or RECIPES[name]
    steps = whole_batches(settings.epochs, settings.batch, len(data))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = zoo.build(name, pretrained=False, seed=seed)
    if start is not None:
        zoo.load_weights(model, start)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = torch.compile(model) if compile else model
    _fit(model.train(), forward, data, settings, steps=steps, seed=seed)
    return model.to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


def whole_batches(epochs: int, batch: int, images: int) -> int:
    """Return how many whole batches an epoch over the images holds.

    Raises:
        AIQError: It holds none, or there is no epoch.
    """
    if epochs < 1 or not 1 <= batch <= images:
        raise AIQError(
            f"recipe: got {epochs} epochs of batches of {batch} for {images} images. "
            f"Next: give at least 1 epoch and a batch of at most {images}."
        )
    return images // batch


def _fit(
    model: nn.Module,
    forward: Callable[[torch.Tensor], torch.Tensor],
    data: Split,
    recipe: CifarRecipe,
    *,
    steps: int,
    seed: int,
) -> None:
    device = next(model.parameters()).device
    random = torch.Generator().manual_seed(seed)
    x = F.pad(torch.from_numpy(data.x), (_PAD,) * 4).permute(0, 2, 3, 1).contiguous().to(device, torch.bfloat16)
    y = torch.from_numpy(check_labels(data)).to(device)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.peak_rate,
        momentum=recipe.momentum,
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=recipe.peak_rate,
        total_steps=recipe.epochs * steps,
        pct_start=recipe.warm_up,
        cycle_momentum=False,
    )
    for epoch in range(1, recipe.epochs + 1):
        began, total = time.perf_counter(), torch.zeros((), device=device)
        order = torch.randperm(len(y), generator=random)
        for chosen in order[: steps * recipe.batch].split(recipe.batch):
            images = _augmented(x, chosen.to(device), random)
            with torch.autocast(device.type, torch.bfloat16):
                logits = forward(images)
            loss = F.cross_entropy(logits.float(), y[chosen.to(device)], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        seconds = time.perf_counter() - began
        log.info("epoch %d/%d: mean training loss %.4f, %.0f s", epoch, recipe.epochs, total.item() / steps, seconds)


def _augmented(padded: torch.Tensor, chosen: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Crop each chosen image [H + 8, W + 8, C] at random and flip half of them, in one gather; return [N, C, H, W]."""
    count, side = len(chosen), padded.shape[1] - 2 * _PAD
    top, left = torch.randint(0, 2 * _PAD + 1, (2, count, 1), generator=random).to(padded.device)
    steps = torch.arange(side, device=padded.device)
    flipped = torch.rand(count, 1, generator=random).to(padded.device) < 0.5
    columns = left + torch.where(flipped, side - 1 - steps, steps)
    cut = padded[chosen[:, None, None], (top + steps)[:, :, None], columns[:, None, :]]
    return cut.permute(0, 3, 1, 2)
