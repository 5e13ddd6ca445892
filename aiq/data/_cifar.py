"""CIFAR-10 in every form it is passed around: the original batches, image folders, a tar of them, or npz files."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from aiq.data._core import Dataset, Split, stratified
from hardware_specs.errors import AIQError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Images = tuple[NDArray[np.uint8], NDArray[np.int64]]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_SPLIT_SEED = 20240301
_BATCHES = "cifar-10-batches-py"
_TEST_NPZ, _TRAIN_NPZ = "cifar10_test_*.npz", "cifar10_train_*.npz"

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

    def images(self, *, test: bool) -> Images:
        return _READERS[self.kind](self.path, test)


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
        AIQError: Nothing of the kind is at ``path``, or it is damaged.
    """
    source = _find(Path(path))
    shares = source.dataset.splits
    if split not in shares:
        raise unknown_name(f"split of {source.dataset.name}", split, shares, "pick one of these")
    try:
        pixels, labels = source.images(test=split == "report")
    except (OSError, ValueError, KeyError, EOFError, tarfile.TarError, pickle.UnpicklingError) as error:
        raise AIQError(f"{source.path}: not readable as {source.kind}: {error}. Next: fetch it again.") from None
    _check(pixels, labels, source)
    parts = {"report": 1.0} if split == "report" else {k: v for k, v in shares.items() if k != "report"}
    indices = stratified(labels, parts, _SPLIT_SEED)[split]
    return Split(source.dataset, split, normalise(pixels[indices]), labels[indices], indices)


def normalise(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn pixels uint8 [N, H, W, 3] into network inputs, float32 [N, 3, H, W]."""
    scaled = (pixels.astype(np.float32) / np.float32(255) - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _find(path: Path) -> _Source:
    if path.is_file():
        return _Source(CIFAR10_JPEG, path, "a tar of image folders")
    if any(path.glob(_TEST_NPZ)) and any(path.glob(_TRAIN_NPZ)):
        return _Source(CIFAR10_NPZ, path, "npz files")
    for folder in (path / _BATCHES, path):
        if (folder / "test_batch").is_file():
            return _Source(CIFAR10, folder, "the original batches")
    if (path / "train").is_dir() and (path / "test").is_dir():
        return _Source(CIFAR10_JPEG, path, "image folders")
    archives = sorted(p for p in path.glob("*cifar*.tar*") if p.is_file())
    if archives:
        return _Source(CIFAR10_JPEG, archives[0], "a tar of image folders")
    state = "holds no CIFAR-10" if path.is_dir() else "does not exist"
    raise AIQError(
        f"data {str(path)!r} {state}: known forms are cifar-10-batches-py, train/ and test/ folders of images, a tar "
        "of them, and cifar10_train_*.npz with cifar10_test_*.npz. Next: give one, or 'aiq data download cifar10'."
    )


def _check(pixels: NDArray[np.uint8], labels: NDArray[np.int64], source: _Source) -> None:
    if len(labels) == 0 or pixels.shape != (len(labels), 32, 32, 3) or pixels.dtype != np.uint8:
        raise AIQError(
            f"{source.path}: holds {pixels.dtype} {list(pixels.shape)} for {len(labels)} labels instead of "
            "uint8 [N, 32, 32, 3]. Next: fetch it again."
        )
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise AIQError(f"{source.path}: labels reach from {labels.min()} to {labels.max()}, not 0 to 9. Next: mend it.")


def _from_npz(path: Path, test: bool) -> Images:
    with np.load(sorted(path.glob(_TEST_NPZ if test else _TRAIN_NPZ))[0], allow_pickle=False) as stored:
        return stored["x"], stored["y"].astype(np.int64)


class _PlainUnpickler(pickle.Unpickler):
    """Loads nothing but NumPy arrays: a batch file cannot run code."""

    _ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype"})

    def find_class(self, module: str, name: str) -> Any:
        if name in self._ALLOWED and module.partition(".")[0] == "numpy":
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"holds {module}.{name}, which no CIFAR-10 batch has")


def _from_batches(path: Path, test: bool) -> Images:
    names = ["test_batch"] if test else [f"data_batch_{i}" for i in range(1, 6)]
    pixels, labels = [], []
    for name in names:
        with (path / name).open("rb") as file:
            batch: Mapping[bytes, Any] = _PlainUnpickler(file, encoding="bytes").load()
        pixels.append(np.asarray(batch[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(np.asarray(batch[b"labels"], dtype=np.int64))
    return np.concatenate(pixels), np.concatenate(labels)


def _from_folders(path: Path, test: bool) -> Images:
    root = path / ("test" if test else "train")
    files = ((f.parent.name, f.name, f.read_bytes()) for f in root.glob("*/*") if f.is_file())
    return _decoded(files)


def _from_tar(path: Path, test: bool) -> Images:
    return _decoded(_members(path, "test" if test else "train"))


def _members(path: Path, part: str) -> Iterator[tuple[str, str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            place = Path(member.name).parts[-3:]
            if member.isfile() and len(place) == 3 and place[0] == part:
                content = archive.extractfile(member)
                if content is not None:
                    yield place[1], place[2], content.read()


def _decoded(files: Iterator[tuple[str, str, bytes]]) -> Images:
    """Decode images of (class, file name, bytes), ordered by class and name whatever the order they come in."""
    from PIL import Image

    found = []
    for label, name, content in files:
        if label not in CLASSES:
            raise ValueError(f"folder {label!r} is none of {', '.join(CLASSES)}")
        with Image.open(io.BytesIO(content)) as image:
            found.append((CLASSES.index(label), name, np.asarray(image.convert("RGB"))))
    if not found:
        raise ValueError("no image in it")
    found.sort(key=lambda item: item[:2])
    return np.stack([pixels for _, _, pixels in found]), np.array([label for label, _, _ in found], dtype=np.int64)


_READERS = {
    "npz files": _from_npz,
    "the original batches": _from_batches,
    "image folders": _from_folders,
    "a tar of image folders": _from_tar,
}
