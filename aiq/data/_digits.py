"""Scikit-learn's handwritten digits: embedded, no download."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from aiq.data._core import Dataset, Split, stratified
from hardware_specs.errors import AIQError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SPLIT_SEED = 20240229

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
    indices = stratified(labels, DIGITS.splits, _SPLIT_SEED)[split]
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
