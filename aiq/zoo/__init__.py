"""The networks that the toolkit ships: names, input shapes, and how to build them.

Importing this package is light; PyTorch is imported when a network is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hardware_specs.errors import AIQError, unknown_name

if TYPE_CHECKING:
    import torch

__all__ = ["ENTRIES", "ZooEntry", "build", "get", "load_weights", "names", "weights_path"]

_INIT_SEED = 0
_WEIGHTS = Path(__file__).parent / "weights"
_CIFAR = (3, 32, 32)
_PROJECTIONS = ("layer*.shortcut.0",)


@dataclass(frozen=True, slots=True)
class ZooEntry:
    """One network of the zoo, as plain data.

    Attributes:
        name: The name that :func:`build` takes.
        build: Where the network is built, ``"module:function"``; the function takes no required argument.
        input_shape: The shape of one input without the batch, ``(channels, height, width)``.
        keep: Glob patterns (``fnmatch``, so ``*`` crosses dots) of layers whose weights stay in their native format
            unless a scheme names them.
        weights: The file of trained weights shipped beside the zoo, or None where the weights are random.
        data: The kind of data the network is made for, as :func:`aiq.data.load` names it: ``digits`` or ``cifar10``.
        summary: One line about the network.
    """

    name: str
    build: str
    input_shape: tuple[int, ...]
    keep: tuple[str, ...]
    weights: str | None
    data: str | None
    summary: str


ENTRIES: dict[str, ZooEntry] = {
    entry.name: entry
    for entry in (
        ZooEntry(
            "digits_cnn",
            "aiq.zoo._resnet:digits_cnn",
            (1, 8, 8),
            _PROJECTIONS,
            "digits_cnn.safetensors",
            "digits",
            "Small residual network for scikit-learn's handwritten digits, with trained weights.",
        ),
        ZooEntry(
            "heavy_early_resnet20",
            "aiq.zoo._resnet:heavy_early_resnet20",
            _CIFAR,
            _PROJECTIONS,
            "heavy_early_resnet20.safetensors",
            "cifar10",
            "ResNet-20 with its widths reversed: 64, 32, 16, 16 channels, wide layers first.",
        ),
        ZooEntry(
            "mobilenet_v2",
            "aiq.zoo._mobilenet:mobilenet_v2",
            _CIFAR,
            (),
            "mobilenet_v2.safetensors",
            "cifar10",
            "MobileNetV2, 10 classes, original strides: 32x32 input shrinks to 1x1.",
        ),
        ZooEntry(
            "mobilenet_v2_cifar",
            "aiq.zoo._mobilenet:mobilenet_v2_cifar",
            _CIFAR,
            (),
            "mobilenet_v2_cifar.safetensors",
            "cifar10",
            "MobileNetV2, 10 classes, strides for CIFAR: 32x32 input shrinks to 4x4.",
        ),
        ZooEntry(
            "plain_convnet20",
            "aiq.zoo._plain:plain_convnet20",
            _CIFAR,
            (),
            "plain_convnet20.safetensors",
            "cifar10",
            "Twenty convolutions of 64 channels in a row, without shortcuts.",
        ),
        ZooEntry(
            "resnet20",
            "aiq.zoo._resnet:resnet20",
            _CIFAR,
            _PROJECTIONS,
            "resnet20.safetensors",
            "cifar10",
            "ResNet-20 for CIFAR-10 with 1x1 projection shortcuts (option B).",
        ),
        ZooEntry(
            "resnet20_padded",
            "aiq.zoo._resnet:resnet20_padded",
            _CIFAR,
            (),
            None,
            "cifar10",
            "ResNet-20 for CIFAR-10 with zero-padded shortcuts (option A).",
        ),
    )
}


def names() -> tuple[str, ...]:
    """Return the names of every network of the zoo, sorted."""
    return tuple(sorted(ENTRIES))


def get(name: str) -> ZooEntry:
    """Return the entry of one network.

    Args:
        name: A name out of :func:`names`.

    Raises:
        UnknownNameError: No network of the zoo has that name; the nearest ones are named.
    """
    try:
        return ENTRIES[name]
    except KeyError:
        raise unknown_name(
            "model", name, ENTRIES, "run 'aiq zoo' for the names, or give path/to/file.py:callable"
        ) from None


def weights_path(name: str) -> Path | None:
    """Return the file of trained weights shipped for a network, or None where there is none.

    Raises:
        UnknownNameError: No network of the zoo has that name.
    """
    weights = get(name).weights
    return None if weights is None else _WEIGHTS / weights


def build(name: str, *, pretrained: bool = True, seed: int = _INIT_SEED) -> torch.nn.Module:
    """Build one network in float32 on the CPU, in evaluation mode.

    Random weights come from a fixed seed, so two calls give the same network; PyTorch's global random state is left as
    it was.

    Args:
        name: A name out of :func:`names`.
        seed: Seeds the random weights.
        pretrained: Load the shipped weights where the entry names a file. Without such a file the weights are random
            either way: see :attr:`ZooEntry.weights`.

    Raises:
        UnknownNameError: No network of the zoo has that name.
        AIQError: The shipped weights are missing or do not fit.
    """
    import torch

    entry = get(name)
    module, _, function = entry.build.partition(":")
    builder: Callable[[], torch.nn.Module] = getattr(importlib.import_module(module), function)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = builder()
    path = weights_path(name) if pretrained else None
    if path is not None:
        load_weights(model, path)
    return model.eval()


def load_weights(model: torch.nn.Module, path: str | Path) -> None:
    """Load a safetensors file into a network, in place and strictly: every tensor must be there and fit.

    Half-precision tensors are widened to the network's own format.

    Args:
        model: The network, for instance from :func:`build`.
        path: A ``.safetensors`` file whose keys are the network's ``state_dict`` keys; ``num_batches_tracked`` may be
            left out.

    Raises:
        AIQError: The file is missing or unreadable, or its tensors are not those of the network.
    """
    if not Path(path).is_file():
        reason = "is a directory" if Path(path).is_dir() else "no such file"
        raise AIQError(f"weights {str(path)!r}: {reason}. Next: give the path of a .safetensors file.")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise AIQError(f"weights {str(path)!r}: {error}. Next: give a readable .safetensors file.") from None
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = "; ".join(_shortened(line.strip().rstrip(".:")) for line in str(error).splitlines()[1:3])
        raise AIQError(
            f"weights {str(path)!r} do not fit {type(model).__name__}: {reason}. "
            "Next: give the weights of this very network."
        ) from None


def _shortened(text: str, length: int = 120) -> str:
    return text if len(text) <= length else f"{text[:length]}…"
