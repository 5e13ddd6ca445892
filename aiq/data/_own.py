"""The user's own data: ``.npz`` files, or a Python function that returns a split."""

from __future__ import annotations

import os.path
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from aiq._callable import find_callable, importing_from, reason
from aiq.data._core import SPLITS, DataError, Dataset, Split, normalise, stratified
from hardware_specs.errors import unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHARES = {"calibration": 0.2, "search": 0.4, "report": 0.4}
_SPLIT_SEED = 20240302
_ARRAYS = ("x", "y", "split", "mean", "std")
_AS_GIVEN = "used as given"
_LEAST_OF_A_CLASS = 5


def load_npz(path: str | Path, split: str) -> Split:
    """Load one split from ``.npz`` files.

    Args:
        path: A file that holds all splits, or a folder with ``calibration.npz``, ``search.npz`` and ``report.npz``. The
            arrays of a file are:

            * ``x`` [N, ...]: the network's inputs. Floats are used as they are, in float32; integers (token ids) in
              int64; uint8 are pixels [N, H, W, C], which need ``mean`` and ``std``.
            * ``y`` [N], optional: integer class labels.
            * ``mean`` and ``std`` [C], for uint8 ``x`` only: inputs are (x / 255 - mean) / std, as [N, C, H, W].
            * ``split`` [N], optional, in a file that holds all splits: the name of each example's split. Without it a
              fifth is for calibration and two fifths each for search and report, always the same examples; of every
              class, where each has five or more.
        split: ``calibration``, ``search`` or ``report``.

    Raises:
        UnknownNameError: No split has that name.
        DataError: The file is missing, damaged, or holds something else.
    """
    _check_split(split)
    place = Path(path)
    divided = os.path.isdir(path)  # unlike Path.is_dir, no error for a name that no file can have
    file = place / f"{split}.npz" if divided else place
    arrays = _read(file)
    whole = _checked(f"npz:{path}", split, arrays, str(file))
    if divided:
        return whole
    indices = _members(arrays.get("split"), whole, split, file)
    y = None if whole.y is None else whole.y[indices]
    return Split(whole.dataset, split, whole.x[indices], y, indices)


def load_function(text: str, split: str) -> Split:
    """Load one split from a Python function.

    Args:
        text: ``package.module:function`` or ``path/file.py:function``. The function takes a split's name and returns a
            pair of NumPy arrays or PyTorch tensors: ``x`` [N, ...], the network's inputs (float32, or integers as token
            ids), and ``y`` [N], integer class labels, or ``None``. Examples should come shuffled: a limit takes the
            first ones.
        split: ``calibration``, ``search`` or ``report``.

    Raises:
        UnknownNameError: No split or no function has that name.
        DataError: The function cannot be imported, raises, or returns something else.
    """
    _check_split(split)
    step = "name a function that takes a split's name and returns a pair of inputs and labels"
    function = find_callable(text, "data", error=DataError, step=step)
    with importing_from(text.rpartition(":")[0]):
        try:
            found = function(split)
        except (Exception, SystemExit) as error:
            raise DataError(
                f"data {text!r} raised for split {split!r}: {reason(error)} Next: call it by itself."
            ) from error
    x, y = found if isinstance(found, tuple) and len(found) == 2 else (None, None)
    inputs, labels = _as_array(x), _as_array(y)
    if inputs is None or (labels is None and y is not None):
        shown = ", ".join(type(value).__name__ for value in found) if isinstance(found, tuple) else ""
        raise DataError(
            f"data {text!r} returned {f'({shown})' if shown else type(found).__name__} for split {split!r}, not a pair "
            "of arrays or tensors. Next: return inputs [N, ...] and labels [N], or None in place of labels."
        )
    arrays = {"x": inputs} if labels is None else {"x": inputs, "y": labels}
    return _checked(text, split, arrays, f"data {text!r}, split {split!r}")


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS, f"pick one of {', '.join(SPLITS)}")


def _read(file: Path) -> dict[str, NDArray[Any]]:
    if not os.path.isfile(file):
        raise DataError(f"data: there is no file {str(file)!r}. Next: check the path.")
    try:
        with np.load(file, allow_pickle=False) as stored:
            names = list(stored.files)
            arrays = {name: stored[name] for name in _ARRAYS if name in names}
    except Exception as error:
        raise DataError(f"{file}: not readable as an .npz file: {reason(error)} Next: save it again.") from None
    if "x" not in arrays:
        held = ", ".join(names[:8]) or "nothing"
        raise DataError(f"{file}: holds {held}, but no x. Next: save the inputs as x and the labels as y.")
    return arrays


def _members(given: NDArray[Any] | None, whole: Split, split: str, file: Path) -> NDArray[np.int64]:
    if given is None:
        strata = np.zeros(len(whole), np.int64) if whole.y is None else whole.y
        if np.unique(strata, return_counts=True)[1].min() < _LEAST_OF_A_CLASS:
            strata = np.zeros_like(strata)
        return stratified(strata, _SHARES, _SPLIT_SEED)[split]
    if given.shape != (len(whole),) or given.dtype.kind != "U" or not set(np.unique(given).tolist()) <= set(SPLITS):
        shown = ", ".join(map(str, np.unique(given)[:4]))
        raise DataError(
            f"{file}: split is {given.dtype} {list(given.shape)} with {shown or 'nothing'} for {len(whole)} examples. "
            f"Next: name one of {', '.join(SPLITS)} for each example."
        )
    return np.flatnonzero(given == split).astype(np.int64)


def _checked(name: str, split: str, arrays: dict[str, NDArray[Any]], where: str) -> Split:
    """Make a split of raw arrays that meet the contract of :class:`Split`."""
    x, normalisation = _inputs(arrays, where)
    y = None if "y" not in arrays else _labels(arrays["y"], len(x), where)
    dataset = Dataset(
        name=name,
        input_shape=x.shape[1:],
        classes=None,
        splits=MappingProxyType({}),
        normalisation=normalisation,
        source="your own data",
        licence="",
        own=True,
    )
    return Split(dataset, split, x, y, np.arange(len(x), dtype=np.int64))


def _inputs(arrays: dict[str, NDArray[Any]], where: str) -> tuple[NDArray[Any], str]:
    x = arrays["x"]
    kind = f"{x.dtype} {list(x.shape)}"
    if x.ndim < 2 or x.dtype.kind not in "fiu":
        raise DataError(f"{where}: x is {kind}, not numbers [N, ...]. Next: give one input to a row.")
    if not x.size:
        raise DataError(f"{where}: x is {kind} and so holds nothing. Next: give at least one example.")
    if x.dtype == np.uint8:
        return _from_pixels(arrays, where)
    if {"mean", "std"} & arrays.keys():
        raise DataError(
            f"{where}: x is {kind}, but mean and std are for uint8 pixels. Next: leave them out, x is used as it is."
        )
    with np.errstate(over="ignore"):
        inputs = np.ascontiguousarray(x, dtype=np.float32 if x.dtype.kind == "f" else np.int64)
    bad = int((~np.isfinite(inputs)).reshape(len(inputs), -1).any(axis=1).sum())
    if bad:
        raise DataError(
            f"{where}: x holds NaN or infinity (in float32) in {bad} of {len(x)} examples. "
            "Next: mend them or leave them out."
        )
    return inputs, _AS_GIVEN


def _from_pixels(arrays: dict[str, NDArray[Any]], where: str) -> tuple[NDArray[np.float32], str]:
    x = arrays["x"]
    channels = x.shape[-1:]
    rule = [np.asarray(arrays.get(name, np.nan)) for name in ("mean", "std")]
    stated = all(values.shape == channels and values.dtype.kind == "f" and np.isfinite(values).all() for values in rule)
    if x.ndim != 4 or not stated or not (rule[1] > 0).all():
        raise DataError(
            f"{where}: x is uint8 {list(x.shape)} without a rule that makes inputs of pixels. "
            "Next: store x as float32 inputs, or in the .npz pixels [N, H, W, C] with float mean and std > 0, both "
            "[C]: (x / 255 - mean) / std."
        )
    mean, std = (values.astype(np.float32) for values in rule)
    shown = [" ".join(f"{value:g}" for value in values) for values in (mean, std)]
    return normalise(x, mean, std), f"(x / 255 - mean) / std with mean {shown[0]} and std {shown[1]}"


def _labels(y: NDArray[Any], n: int, where: str) -> NDArray[np.int64]:
    if y.shape != (n,) or y.dtype.kind not in "iu":
        raise DataError(
            f"{where}: y is {y.dtype} {list(y.shape)} for {n} examples. Next: give one integer label to each example."
        )
    if int(y.min()) < 0:
        raise DataError(f"{where}: y holds label {y.min()}. Next: give labels from 0 up.")
    return y.astype(np.int64)


def _as_array(value: Any) -> NDArray[Any] | None:
    """Return an array or tensor as a NumPy array, and ``None`` for anything else."""
    if value is None or isinstance(value, np.ndarray):
        return value
    import torch

    if not isinstance(value, torch.Tensor):
        return None
    try:
        plain = value.detach().cpu()
        array: NDArray[Any] = (plain.float() if plain.is_floating_point() else plain).numpy()
    except (RuntimeError, TypeError):  # sparse, quantized, on meta
        return None
    return array
