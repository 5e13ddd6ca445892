"""The files that CIFAR-10 is passed around in: the original batches, image folders, a tar of them, or npz files."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from aiq.data._core import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TEST_NPZ, TRAIN_NPZ = "cifar10_test_*.npz", "cifar10_train_*.npz"


@dataclass(frozen=True)
class Images:
    """Labels of all images, and the pixels of those that are asked for.

    Attributes:
        labels: [N], as stored.
        pixels: From indices [K] to pixels [K, 32, 32, 3].
    """

    labels: NDArray[Any]
    pixels: Callable[[NDArray[np.int64]], NDArray[Any]]


def _from_npz(path: Path, test: bool) -> Images:
    with np.load(sorted(path.glob(TEST_NPZ if test else TRAIN_NPZ))[0], allow_pickle=False) as stored:
        x, y = stored["x"], stored["y"]
    if len(x) != len(y):
        raise ValueError(f"{len(x)} images for {len(y)} labels")
    return Images(y, x.__getitem__)


class _PlainUnpickler(pickle.Unpickler):
    """Loads nothing but NumPy arrays and imports nothing: a batch file cannot run code."""

    _ALLOWED: ClassVar[Mapping[str, Any]] = {
        "numpy.core.multiarray._reconstruct": np.empty(0).__reduce__()[0],
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        found = self._ALLOWED.get(f"{module}.{name}")
        if found is None:
            raise pickle.UnpicklingError(f"holds {module}.{name}, which no CIFAR-10 batch has")
        return found


def _from_batches(path: Path, test: bool) -> Images:
    names = ["test_batch"] if test else [f"data_batch_{i}" for i in range(1, 6)]
    pixels, labels = [], []
    for name in names:
        with (path / name).open("rb") as file:
            batch: Mapping[bytes, Any] = _PlainUnpickler(file, encoding="bytes").load()
        images = np.asarray(batch[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        if len(images) != len(batch[b"labels"]):
            raise ValueError(f"{name} holds {len(images)} images for {len(batch[b'labels'])} labels")
        pixels.append(images.transpose(0, 2, 3, 1))
        labels.append(np.asarray(batch[b"labels"]))
    return Images(np.concatenate(labels), np.concatenate(pixels).__getitem__)


def _from_folders(path: Path, test: bool) -> Images:
    root = path / ("test" if test else "train")
    return _images((f.parent.name, f.name, f) for f in root.glob("*/*") if f.is_file())


def _from_tar(path: Path, test: bool) -> Images:
    part = "test" if test else "train"
    found = []
    with tarfile.open(path) as archive:
        for member in archive:
            place = member.name.split("/")[-3:]
            if place[-1] == "test_batch":
                raise DataError(f"{path}: is the original archive. Next: unpack it and give the folder.")
            content = archive.extractfile(member) if len(place) == 3 and place[0] == part else None
            if content is not None:
                found.append((place[1], place[2], io.BytesIO(content.read())))
    return _images(found)


def _images(files: Iterable[tuple[str, str, Path | io.BytesIO]]) -> Images:
    """Order image files of (class, file name, content) by class and name, whatever the order they come in."""
    found = sorted((f for f in files if not f[1].startswith(".")), key=lambda file: file[:2])
    if not found:
        raise ValueError("no image in it")
    for label, _, _ in found:
        if label not in CLASSES:
            raise ValueError(f"folder {label!r} is none of {', '.join(CLASSES)}")
    labels = np.array([CLASSES.index(label) for label, _, _ in found])
    return Images(labels, lambda indices: np.stack([_decoded(found[i][2]) for i in indices.tolist()]))


def _decoded(file: Path | io.BytesIO) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


READERS: Mapping[str, Callable[[Path, bool], Images]] = {
    "npz files": _from_npz,
    "the original batches": _from_batches,
    "image folders": _from_folders,
    "a tar of image folders": _from_tar,
}
"""From the form of a data set to what reads its training images, or its test images where the flag is set."""
