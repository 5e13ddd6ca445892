"""Data sets as named, disjoint, seeded splits of NumPy arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a data set is and how it is divided, as plain data.

    Attributes:
        name: Its name.
        input_shape: The shape of one input without the batch, ``(channels, height, width)``.
        classes: Number of classes.
        splits: Share of every class in each split; the shares sum to 1 and the splits are disjoint.
        normalisation: How the inputs of a split come from the stored values.
        source: Where the data come from.
        licence: Under which terms they may be used.
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    splits: Mapping[str, float]
    normalisation: str
    source: str
    licence: str


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One split of a data set.

    Attributes:
        dataset: The data set that it belongs to.
        name: Its name, a key of ``dataset.splits``.
        x: Normalised inputs, float32 ``[N, C, H, W]``.
        y: Class labels, int64 ``[N]``.
        indices: Where each example stands in the source, int64 ``[N]``.
    """

    dataset: Dataset
    name: str
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of examples, N."""
        return len(self.y)

    def __repr__(self) -> str:
        return f"Split({self.dataset.name!r}, {self.name!r}, n={len(self)}, sha256={self.digest()[:12]})"

    def digest(self) -> str:
        """Return the SHA-256 of inputs and labels, in hexadecimal: equal exactly for equal data in equal order."""
        state = hashlib.sha256(np.ascontiguousarray(self.x, dtype="<f4").tobytes())
        state.update(np.ascontiguousarray(self.y, dtype="<i8").tobytes())
        return state.hexdigest()


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
