"""CIFAR-10: its splits, wherever and in whatever form it is kept."""

from __future__ import annotations

import os.path
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from aiq._callable import reason
from aiq.data._cifar_files import CLASSES, READERS, TEST_NPZ, TRAIN_NPZ
from aiq.data._core import DataError, Dataset, Split, normalise, stratified
from hardware_specs.errors import unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_SPLIT_SEED = 20240301
_BATCHES = "cifar-10-batches-py"

CIFAR10 = Dataset(
    name="cifar10",
    input_shape=(3, 32, 32),
    classes=10,
    splits=MappingProxyType({"train": 0.9, "calibration": 0.02, "search": 0.08, "report": 1.0}),
    normalisation="(x / 255 - mean) / std with mean 0.485 0.456 0.406 and std 0.229 0.224 0.225",
    source="CIFAR-10: train, calibration and search divide its training images, report holds its test images",
    licence="Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009), free for research",
)
CIFAR10_JPEG = replace(CIFAR10, name="cifar10-jpeg", source=f"{CIFAR10.source}; as JPEG, not the original pixels")
CIFAR10_NPZ = replace(
    CIFAR10,
    name="cifar10-npz",
    splits=MappingProxyType({"calibration": 0.25, "search": 0.75, "report": 1.0}),
    source="part of CIFAR-10: calibration and search divide training images, report holds test images",
)


@dataclass(frozen=True)
class _Source:
    dataset: Dataset
    path: Path
    kind: str


def load_cifar10(path: str | Path, split: str) -> Split:
    """Load one split of CIFAR-10.

    ``train``, ``calibration`` and ``search`` are disjoint, stratified, always the same parts of the training images;
    ``report`` is the test set.

    Args:
        path: A folder that holds (in this order of preference) ``cifar10_test_*.npz`` and ``cifar10_train_*.npz`` with
            ``x`` uint8 [N, 32, 32, 3] and ``y`` [N]; the original ``cifar-10-batches-py`` (or that folder itself);
            ``train/CLASS/*`` and ``test/CLASS/*`` images; or the one tar file of such folders. Or that tar itself.
        split: A key of the data set's ``splits``.

    Returns:
        The split, in shuffled order. ``x`` is float32 [N, 3, 32, 32].

    Raises:
        UnknownNameError: No split has that name.
        DataError: Nothing of the kind is at ``path``, or it is damaged.
    """
    source = _find(Path(path))
    shares = source.dataset.splits
    if split not in shares:
        raise unknown_name(f"split of {source.dataset.name}", split, shares, f"pick one of {', '.join(shares)}")
    test = split == "report"
    parts = {"report": 1.0} if test else {name: share for name, share in shares.items() if name != "report"}
    try:
        images = READERS[source.kind](source.path, test)
        labels = _labels(images.labels, source)
        indices = stratified(labels, parts, _SPLIT_SEED)[split]
        if not len(indices):
            raise DataError(f"{source.path}: {len(labels)} images are too few for a {split}. Next: give all of them.")
        pixels = images.pixels(indices)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{source.path}: not readable as {source.kind}: {reason(error)} Next: fetch it again."
        ) from None
    if pixels.shape != (len(indices), 32, 32, 3) or pixels.dtype != np.uint8:
        raise DataError(
            f"{source.path}: holds {pixels.dtype} {list(pixels.shape)} for {len(indices)} labels instead of "
            "uint8 [N, 32, 32, 3]. Next: fetch it again."
        )
    x = normalise(pixels, np.array(_MEAN, np.float32), np.array(_STD, np.float32))
    return Split(source.dataset, split, x, labels[indices], indices)


def cifar10_splits(path: str | Path) -> tuple[str, ...]:
    """Return the names of the splits that are at a path.

    Raises:
        DataError: There is no CIFAR-10.
    """
    return tuple(_find(Path(path)).dataset.splits)


def _find(path: Path) -> _Source:
    if os.path.isfile(path):  # unlike Path.is_file, no error for a name that no file can have
        return _Source(CIFAR10_JPEG, path, "a tar of image folders")
    is_folder = os.path.isdir(path)
    source = _find_in(path) if is_folder else None
    if source is None:
        state = "holds no CIFAR-10" if is_folder else "does not exist"
        raise DataError(
            f"data {str(path)!r} {state}: known forms are cifar-10-batches-py, train/ and test/ folders of images, a "
            "tar of them, and cifar10_train_*.npz with cifar10_test_*.npz. "
            "Next: give one, or 'aiq data download cifar10'."
        )
    return source


def _find_in(folder: Path) -> _Source | None:
    if any(folder.glob(TEST_NPZ)) and any(folder.glob(TRAIN_NPZ)):
        return _Source(CIFAR10_NPZ, folder, "npz files")
    for place in (folder / _BATCHES, folder):
        if (place / "test_batch").is_file():
            return _Source(CIFAR10, place, "the original batches")
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return _Source(CIFAR10_JPEG, folder, "image folders")
    archives = sorted(p for p in folder.glob("*cifar*.tar*") if p.is_file() and p.suffix != ".part")
    return _Source(CIFAR10_JPEG, archives[0], "a tar of image folders") if archives else None


def _labels(labels: NDArray[Any], source: _Source) -> NDArray[np.int64]:
    if labels.ndim != 1 or not len(labels) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{source.path}: labels are {labels.dtype} {list(labels.shape)}, not integers [N]. Next: fetch it again."
        )
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise DataError(
            f"{source.path}: labels reach from {labels.min()} to {labels.max()}, not 0 to 9. Next: mend it."
        )
    return labels.astype(np.int64)
