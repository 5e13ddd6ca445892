"""Train a network of the zoo from scratch: ``python -m aiq.zoo.train digits_cnn --out digits_cnn.safetensors``."""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from aiq.data import DIGITS, Split, load_digits
from aiq.stats import wilson_interval
from aiq.zoo._resnet import digits_cnn
from hardware_specs.errors import AIQError

__all__ = ["DIGITS_RECIPE", "Recipe", "Trained", "correct_answers", "main", "state_digest", "train_digits"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of one training run: SGD with Nesterov momentum, one-cycle learning rate, random affine distortion.

    Attributes:
        epochs: Passes over the training split.
        batch: Images a step; the last, smaller batch of an epoch is left out.
        peak_rate: Highest learning rate of the cycle.
        momentum: Nesterov momentum.
        weight_decay: L2 penalty on every parameter.
        label_smoothing: Probability mass spread over all classes in the cross entropy.
        shift_pixels: Largest shift along each axis, in pixels.
        rotation_degrees: Largest rotation either way, in degrees.
        scale: Largest relative change of size.
    """

    epochs: int = 100
    batch: int = 64
    peak_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05
    shift_pixels: float = 0.6
    rotation_degrees: float = 10.0
    scale: float = 0.1

    def __str__(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.__slots__)


DIGITS_RECIPE = Recipe()


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A trained network and what is known about it.

    Attributes:
        state: Its state dict, float32.
        correct: Right answers on the report split.
        n: Images of the report split.
        metadata: Recipe, seed, accuracy, versions, data and ``state_sha256`` as text, as stored in the weights file.
    """

    state: dict[str, torch.Tensor]
    correct: int
    n: int
    metadata: dict[str, str]

    def __repr__(self) -> str:
        return f"Trained({self.correct}/{self.n} correct, sha256={state_digest(self.state)[:12]})"

    def save(self, path: str | Path) -> None:
        """Write the weights and the metadata as safetensors, making the folder if need be.

        Two runs give equal tensors, hence an equal ``state_sha256``, though safetensors orders the metadata at will.
        """
        from safetensors.torch import save

        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(save(self.state, metadata=self.metadata))


def state_digest(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 over the names and bytes of every tensor, in hexadecimal and independent of their order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def correct_answers(model: nn.Module, split: Split) -> int:
    """Count the examples of a split whose largest logit is the labelled class.

    Args:
        model: Maps ``[N, *split.dataset.input_shape]`` to logits ``[N, classes]``; used in the mode it is in.
        split: The examples.
    """
    with torch.inference_mode():
        answers = model(torch.from_numpy(split.x)).argmax(1).numpy()
    return int((answers == split.y).sum())


def train_digits(*, seed: int = 0, recipe: Recipe = DIGITS_RECIPE) -> Trained:
    """Train ``digits_cnn`` on the train split of the digits and measure it once on the report split.

    The same seed gives the same bytes on the same machine and PyTorch: it runs on one thread, draws every random number
    from the seed, and leaves PyTorch's global random state and thread count as they were.

    Args:
        seed: Seeds initial weights, order and distortion.
        recipe: Settings of the run.

    Raises:
        AIQError: scikit-learn is not installed, or an epoch would hold no whole batch.
    """
    data = load_digits("train")
    steps = len(data) // recipe.batch
    if steps < 1 or recipe.epochs < 1:
        raise AIQError(
            f"recipe: got {recipe.epochs} epochs of batches of {recipe.batch} for {len(data)} images. "
            f"Next: give at least 1 epoch and a batch of at most {len(data)}."
        )
    with _alone(seed):
        model = digits_cnn()
        _fit(model, data, recipe, steps, seed)
        report = load_digits("report")
        correct = correct_answers(model.eval(), report)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    metadata = _metadata(recipe, seed, correct, data, report) | {"state_sha256": state_digest(state)}
    return Trained(state, correct, len(report), metadata)


def _fit(model: nn.Module, data: Split, recipe: Recipe, steps: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.peak_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.peak_rate, total_steps=recipe.epochs * steps, cycle_momentum=False
    )
    model.train()
    for epoch in range(1, recipe.epochs + 1):
        order = torch.randperm(len(y), generator=random)
        total = 0.0
        for chosen in order[: steps * recipe.batch].split(recipe.batch):
            logits = model(_distort(x[chosen], recipe, random))
            loss = F.cross_entropy(logits, y[chosen], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        if epoch % 10 == 0 or epoch == recipe.epochs:
            log.info("epoch %d/%d: mean training loss %.4f", epoch, recipe.epochs, total / steps)


def _distort(images: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    """Rotate, scale and shift each image at random; what comes in from outside is background, the value -1."""
    count, side = len(images), images.shape[-1]
    draws = torch.rand(4, count, generator=random) * 2 - 1
    angle = torch.deg2rad(draws[0] * recipe.rotation_degrees)
    scale = 1 + draws[1] * recipe.scale
    shift = draws[2:] * (2 * recipe.shift_pixels / side)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.stack((cos, -sin, shift[0], sin, cos, shift[1]), dim=1).view(count, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


@contextmanager
def _alone(seed: int) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def _metadata(recipe: Recipe, seed: int, correct: int, data: Split, report: Split) -> dict[str, str]:
    n = len(report)
    low, high = wilson_interval(correct, n)
    return {
        "model": "digits_cnn",
        "recipe": str(recipe),
        "seed": str(seed),
        "accuracy": f"{correct / n:.4f}",
        "correct": str(correct),
        "n": str(n),
        "accuracy_interval_95": f"{low:.4f} {high:.4f} (Wilson)",
        "data": DIGITS.source,
        "data_licence": DIGITS.licence,
        "normalisation": DIGITS.normalisation,
        "train_sha256": data.digest(),
        "report_sha256": report.digest(),
        "versions": f"torch {torch.__version__}, numpy {np.__version__}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: train, write the weights, put one line of result on standard output.

    Args:
        arguments: The arguments after the command's name; those of the process where None.

    Returns:
        The exit status: 0, or 1 for an error that is then told on standard error.
    """
    parser = argparse.ArgumentParser(prog="python -m aiq.zoo.train", description="Train a network of the zoo.")
    parser.add_argument("model", choices=["digits_cnn"])
    parser.add_argument("--out", type=Path, default=Path("digits_cnn.safetensors"), help="file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=DIGITS_RECIPE.epochs)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        trained = train_digits(seed=options.seed, recipe=replace(DIGITS_RECIPE, epochs=options.epochs))
        trained.save(options.out)
    except (AIQError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    low, high = wilson_interval(trained.correct, trained.n)
    sys.stdout.write(
        f"{options.out}: {trained.correct} of {trained.n} report images right, "
        f"{trained.correct / trained.n:.2%} (95 % interval {low:.2%} to {high:.2%})\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
