"""Small made-up CIFAR-10 in every form that it is kept in, and the report split of the real one."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from aiq.data import Split, load_cifar10
from tests.real_data import real

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = "cifar-10-batches-py"


class Images(NamedTuple):
    """Pixels uint8 [N, 32, 32, 3] and labels [N], ordered by label as the folders are."""

    x: np.ndarray
    y: np.ndarray


def images(per_class: int, seed: int) -> Images:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(10), per_class)
    return Images(random.integers(0, 256, (10 * per_class, 32, 32, 3), dtype=np.uint8), labels)


@cache
def jpeg_report() -> Split:
    """Return the report split of the real JPEG images: seconds of decoding, so once for all tests."""
    return load_cifar10(real("cifar10_jpeg.tar.xz"), "report")


def write_npz(folder: Path, train: Images, test: Images) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, (x, y) in (("train", train), ("test", test)):
        np.savez(folder / f"cifar10_{part}_{len(y)}.npz", x=x, y=y.astype(np.uint8))
    return folder


def write_batches(folder: Path, train: Images, test: Images) -> Path:
    """Write the original layout: pickles of Python 2 with rows of 1024 red, 1024 green and 1024 blue values."""
    place = folder / BATCHES
    place.mkdir(parents=True)
    parts = np.array_split(np.arange(len(train.y)), 5)
    chosen = {f"data_batch_{i}": Images(train.x[part], train.y[part]) for i, part in enumerate(parts, 1)}
    for name, (x, y) in (chosen | {"test_batch": test}).items():
        rows = np.ascontiguousarray(x.transpose(0, 3, 1, 2).reshape(len(y), 3072))
        batch = {"batch_label": name, "labels": y.tolist(), "data": rows, "filenames": ["a.png"] * len(y)}
        (place / name).write_bytes(python2_pickle(batch))
    return folder


def python2_pickle(value: object) -> bytes:
    """Pickle as Python 2 and its NumPy did: text as byte strings, and NumPy's functions under their old names."""

    class Old(pickle._Pickler):
        dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

        def save_text(self, text: str | bytes) -> None:
            raw = text.encode("latin-1") if isinstance(text, str) else text
            self.write(b"T" + struct.pack("<i", len(raw)) + raw)

        dispatch[str] = dispatch[bytes] = save_text

    out = io.BytesIO()
    Old(out, protocol=2).dump(value)
    return out.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def write_folders(folder: Path, train: Images, test: Images) -> Path:
    for part, (x, y) in (("train", train), ("test", test)):
        for i, (pixels, label) in enumerate(zip(x, y, strict=True)):
            file = folder / part / CLASSES[label] / f"{i:04}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file, compress_level=0)
    return folder


def write_tar(file: Path, folders: Path, *, seed: int = 0) -> Path:
    """Pack image folders in a random order, under a folder of their own."""
    members = sorted(path for path in folders.rglob("*") if path.is_file())
    np.random.default_rng(seed).shuffle(members)
    with tarfile.open(file, "w:xz", preset=0) as archive:
        for member in members:
            archive.add(member, Path("cifar") / member.relative_to(folders))
    return file
