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
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from aiq.data import Split, check_labels, load_cifar10, load_digits
from aiq.stats import wilson_interval
from aiq.zoo._resnet import digits_cnn
from aiq.zoo._train_cifar import RECIPES, CifarRecipe, train_cifar, whole_batches
from hardware_specs.errors import AIQError, unknown_name

__all__ = [
    "DIGITS_RECIPE",
    "Recipe",
    "Trained",
    "correct_answers",
    "main",
    "predictions",
    "state_digest",
    "train_digits",
    "train_on_cifar",
]

log = logging.getLogger(__name__)

_EVALUATION_BATCH = 250
_R = TypeVar("_R", "Recipe", CifarRecipe)


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
    return int((predictions(model, split) == check_labels(split)).sum())


def predictions(model: nn.Module, split: Split) -> NDArray[np.int64]:
    """Return the class of largest logit for every example, int64 [N]."""
    with torch.inference_mode():
        parts = [model(part).argmax(1) for part in torch.from_numpy(split.x).split(_EVALUATION_BATCH)]
    return torch.cat(parts).numpy()


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
    steps = whole_batches(recipe.epochs, recipe.batch, len(data))
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
    x, y = torch.from_numpy(data.x), torch.from_numpy(check_labels(data))
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


def train_on_cifar(
    name: str,
    data: str | Path,
    *,
    also: Sequence[str | Path] = (),
    seed: int = 0,
    recipe: CifarRecipe | None = None,
    start: str | Path | None = None,
    compile: bool = True,
) -> Trained:
    """Train a CIFAR-10 network of the zoo and measure it once on the report split.

    The tensors are stored in half precision where that changes no prediction on the report split.

    Args:
        name: A key of ``RECIPES``.
        data: Where CIFAR-10 is: see :func:`aiq.data.load_cifar10`.
        also: Further places whose report splits are measured.
        seed: Seeds initial weights, order, crops and flips.
        recipe: Settings of the run; by default those of ``RECIPES``.
        start: A ``.safetensors`` file to start from.
        compile: Compile the network before training.

    Raises:
        UnknownNameError: No recipe is for that network.
        AIQError: Data or ``start`` cannot be read, or an epoch would hold no whole batch.
    """
    if name not in RECIPES:
        raise unknown_name("network to train on CIFAR-10", name, RECIPES, "pick one of these")
    settings = recipe or RECIPES[name]
    train, report = load_cifar10(data, "train"), load_cifar10(data, "report")
    others = [load_cifar10(place, "report") for place in also]
    model = train_cifar(name, train, seed=seed, recipe=settings, start=start, compile=compile)
    wide = predictions(model, report)
    state = {key: t.detach().clone() for key, t in model.state_dict().items() if not key.endswith("_tracked")}
    half = {key: t.half() for key, t in state.items()}
    model.load_state_dict(half, strict=False)
    if (predictions(model, report) == wide).all():
        state = half
    else:
        model.load_state_dict(state, strict=False)
    correct = correct_answers(model, report)
    metadata = _metadata(settings, seed, correct, train, report) | {"state_sha256": state_digest(state), "model": name}
    if start is not None:
        metadata["start"] = Path(start).name
    for split in others:
        metadata[f"accuracy_{split.dataset.name}"] = _fraction(correct_answers(model, split), len(split))
    return Trained(state, correct, len(report), metadata)


def _fraction(correct: int, n: int) -> str:
    low, high = wilson_interval(correct, n)
    return f"{correct}/{n} = {correct / n:.4f}, 95 % {low:.4f} {high:.4f} (Wilson)"


def _metadata(recipe: Recipe | CifarRecipe, seed: int, correct: int, data: Split, report: Split) -> dict[str, str]:
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
        "data": data.dataset.source,
        "data_licence": data.dataset.licence,
        "normalisation": data.dataset.normalisation,
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
    parser.add_argument("model", choices=["digits_cnn", *RECIPES])
    parser.add_argument("--data", metavar="PATH", help="where CIFAR-10 is: a folder or a tar of image folders")
    parser.add_argument("--also", metavar="PATH", action="append", default=[], help="measure on this report split too")
    parser.add_argument("--out", type=Path, help="file to write; by default MODEL.safetensors")
    parser.add_argument("--start", metavar="FILE", help="weights to start from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="passes over the training split; by default the recipe's")
    options = parser.parse_args(arguments)
    out = options.out or Path(f"{options.model}.safetensors")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        trained = _trained(options)
        trained.save(out)
    except (AIQError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    low, high = wilson_interval(trained.correct, trained.n)
    sys.stdout.write(
        f"{out}: {trained.correct} of {trained.n} report images right, "
        f"{trained.correct / trained.n:.2%} (95 % interval {low:.2%} to {high:.2%})\n"
    )
    return 0


def _trained(options: argparse.Namespace) -> Trained:
    if options.model == "digits_cnn":
        return train_digits(seed=options.seed, recipe=_with_epochs(DIGITS_RECIPE, options.epochs))
    if options.data is None:
        raise AIQError(f"{options.model} is trained on CIFAR-10, which is not embedded. Next: give --data PATH.")
    recipe = _with_epochs(RECIPES[options.model], options.epochs)
    return train_on_cifar(
        options.model, options.data, also=options.also, seed=options.seed, recipe=recipe, start=options.start
    )


def _with_epochs(recipe: _R, epochs: int | None) -> _R:
    return recipe if epochs is None else replace(recipe, epochs=epochs)


if __name__ == "__main__":
    raise SystemExit(main())
