"""Data sets as named, disjoint, seeded splits of NumPy arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from hardware_specs.errors import AIQError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DIGITS", "Dataset", "Split", "load_digits"]

_SPLIT_SEED = 20240229


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


DIGITS = Dataset(
    name="digits",
    input_shape=(1, 8, 8),
    classes=10,
    splits=MappingProxyType({"train": 0.5, "calibration": 0.07, "search": 0.18, "report": 0.25}),
    normalisation="x / 8 - 1, from pixels 0 to 16 to the interval [-1, 1]",
    source="sklearn.datasets.load_digits: the test set of UCI Optical Recognition of Handwritten Digits (1998)",
    licence="CC BY 4.0, E. Alpaydin and C. Kaynak, https://doi.org/10.24432/C50P49",
)


def load_digits(split: str) -> Split:
    """Load one split of scikit-learn's 1 797 handwritten digits, 8x8 pixels, 10 classes.

    The splits are disjoint, stratified by class and always the same: ``train`` (half; fits weights), ``calibration``
    (7 %; fits ranges), ``search`` (18 %; compares schemes) and ``report`` (25 %; final figures only). Writers are not
    kept apart, as the source does not name them, so ``report`` measures new images of writers that may have been seen.

    Args:
        split: A key of ``DIGITS.splits``.

    Returns:
        The split, in shuffled order, so that its first n examples are a fair sample. ``x`` is float32 ``[N, 1, 8, 8]``
        in [-1, 1].

    Raises:
        UnknownNameError: No split has that name.
        AIQError: scikit-learn is not installed.
    """
    if split not in DIGITS.splits:
        raise unknown_name("split of digits", split, DIGITS.splits, "pick a key of aiq.data.DIGITS.splits")
    pixels, labels = _raw_digits()
    indices = _stratified(labels, DIGITS.splits, _SPLIT_SEED)[split]
    x = (pixels[indices] / 8.0 - 1.0).astype(np.float32).reshape(-1, *DIGITS.input_shape)
    return Split(dataset=DIGITS, name=split, x=x, y=labels[indices], indices=indices)


def _raw_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    try:
        from sklearn import datasets
    except ImportError:
        raise AIQError(
            "data set 'digits': scikit-learn, which holds it, is not installed. Next: pip install aiq-roofline[digits]."
        ) from None
    bunch = datasets.load_digits()
    return np.asarray(bunch.data, dtype=np.float64), np.asarray(bunch.target, dtype=np.int64)


def _stratified(labels: NDArray[np.int64], shares: Mapping[str, float], seed: int) -> dict[str, NDArray[np.int64]]:
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
