"""What a data set and one of its splits are, and how examples are divided."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hardware_specs.errors import AIQError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPLITS = ("calibration", "search", "report")
"""Splits that every data set has: for fitting ranges, for comparing schemes, and for final figures only."""


class DataError(AIQError):
    """Data that cannot be found, read or used."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a data set is and how it is divided, as plain data.

    Attributes:
        name: Its name.
        input_shape: The shape of one input without the batch, ``(channels, height, width)`` of images.
        classes: Number of classes; ``None`` where only the model knows.
        splits: Share of every class in each split; empty where the data come divided.
        normalisation: How the inputs of a split come from the stored values.
        source: Where the data come from.
        licence: Under which terms they may be used; empty where the user knows.
        own: Whether the data are the user's own; those of the toolkit are disjoint by construction.
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int | None
    splits: Mapping[str, float]
    normalisation: str
    source: str
    licence: str
    own: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One split of a data set.

    Attributes:
        dataset: The data set that it belongs to.
        name: Its name, for instance ``search``.
        x: The network's inputs: float32 ``[N, C, H, W]`` for images, float32 ``[N, ...]`` or int64 ``[N, ...]`` (token
            ids) for the user's own.
        y: Class labels, int64 ``[N]``; ``None`` where the examples have none. :func:`aiq.data.check_labels` returns
            them or says so.
        indices: Where each example stands in the source, int64 ``[N]``.
    """

    dataset: Dataset
    name: str
    x: NDArray[np.float32] | NDArray[np.int64]
    y: NDArray[np.int64] | None
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of examples, N."""
        return len(self.x)

    def __repr__(self) -> str:
        return f"Split({self.dataset.name!r}, {self.name!r}, n={len(self)}, sha256={self.digest()[:12]})"

    def digest(self) -> str:
        """Return the SHA-256 of inputs and labels, in hexadecimal: equal exactly for equal data in equal order.

        It covers their bytes, and for the user's own data, whose inputs may have any form, their type and shape too.
        """
        x = np.ascontiguousarray(self.x, dtype=self.x.dtype.newbyteorder("<"))
        state = hashlib.sha256(x.tobytes())
        if self.y is not None:
            state.update(np.ascontiguousarray(self.y, dtype="<i8").tobytes())
        if self.dataset.own:
            state.update(f"{self.x.dtype.name} {self.x.shape}".encode())
        return state.hexdigest()


def normalise(pixels: NDArray[np.uint8], mean: NDArray[np.float32], std: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn pixels uint8 [N, H, W, C] into inputs (x / 255 - mean) / std, float32 [N, C, H, W]."""
    scaled = pixels.astype(np.float32)
    scaled /= np.float32(255)
    scaled -= mean
    scaled /= std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def stratified(labels: NDArray[np.int64], shares: Mapping[str, float], seed: int) -> dict[str, NDArray[np.int64]]:
    """Divide examples at random into parts with the given shares of every class."""
    # RandomState, not Generator: NumPy freezes its stream, so a later NumPy cannot move training images into `report`.
    random = np.random.RandomState(seed)
    ends = np.cumsum(list(shares.values()))
    parts: dict[str, list[NDArray[np.int64]]] = {name: [] for name in shares}
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        cuts = np.rint(ends[:-1] * len(members)).astype(int)
        for name, part in zip(shares, np.split(members, cuts), strict=True):
            parts[name].append(part)
    return {name: random.permutation(np.concatenate(part)).astype(np.int64) for name, part in parts.items()}
