"""Reports on data sets: which there are, and what one holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from aiq.data import (
    CIFAR10,
    CIFAR10_JPEG,
    CIFAR10_NPZ,
    DIGITS,
    KINDS,
    Dataset,
    Split,
    check_disjoint,
    load,
    split_names,
)
from aiq.report import Column, Report
from roofline.units import percent

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORMS = {
    DIGITS.name: ("digits", "embedded in scikit-learn"),
    CIFAR10.name: ("cifar10:PATH", "a folder with cifar-10-batches-py; 'aiq data download cifar10' fetches it"),
    CIFAR10_JPEG.name: ("cifar10:PATH", "train/CLASS/ and test/CLASS/ folders of images, or a tar of them"),
    CIFAR10_NPZ.name: ("cifar10:PATH", "a folder with cifar10_train_N.npz and cifar10_test_N.npz"),
}


def datasets_report() -> Report:
    """Show the data sets that the toolkit knows: one row each."""
    rows = [_dataset_row(dataset) for dataset in (DIGITS, CIFAR10, CIFAR10_JPEG, CIFAR10_NPZ)]
    columns = (
        Column("name", "name"),
        Column("write", "write"),
        Column("form", "kept as", drop=3),
        Column("input_shape", "input", lambda shape: ",".join(map(str, shape))),
        Column("classes", "classes", right=True, drop=4),
        Column("splits", "share of each split", _shares),
        Column("source", "source", drop=1),
        Column("licence", "licence", drop=2),
    )
    headline = f"{len(rows)} data sets; your own: {', '.join(k for k in KINDS if ':' in k and 'cifar' not in k)}"
    notes = [
        "calibration fits ranges, search compares schemes, report is for final figures only, train fits weights",
        "shares are of all examples (digits), else of the training images; report is then the test images",
    ]
    return Report(headline, columns, rows, notes, {"schema_version": 1, "datasets": rows})


def _dataset_row(dataset: Dataset) -> dict[str, Any]:
    write, form = _FORMS[dataset.name]
    return {
        "name": dataset.name,
        "write": write,
        "form": form,
        "input_shape": list(dataset.input_shape),
        "classes": dataset.classes,
        "splits": dict(dataset.splits),
        "normalisation": dataset.normalisation,
        "source": dataset.source,
        "licence": dataset.licence,
    }


def _shares(splits: dict[str, float]) -> str:
    return ", ".join(f"{name} {percent(share)}" for name, share in splits.items())


def data_report(text: str) -> Report:
    """Show what each split of some data holds.

    Args:
        text: As :func:`aiq.data.load` takes it.

    Raises:
        AIQError: The data cannot be loaded, or an example of ``report`` is in another split too.
    """
    rows, own = [], []
    for name in split_names(text):
        split = load(text, name)
        rows.append(_split_row(split))
        if split.dataset.own:
            own.append(split)
    dataset = split.dataset
    columns = (
        Column("split", "split"),
        Column("n", "examples", right=True),
        Column("inputs", "inputs", drop=1),
        Column("sha256", "SHA-256", lambda digest: digest[:12]),
        Column("labels", "examples of each class", _histogram),
    )
    licence = [f"licence: {dataset.licence}"] if dataset.licence else []
    notes = [f"inputs: {dataset.normalisation}", *licence, *check_disjoint(own)]
    headline = f"{dataset.name}: {sum(row['n'] for row in rows)} examples in {len(rows)} splits; {dataset.source}"
    data = {
        "schema_version": 1,
        "data": text,
        "name": dataset.name,
        "normalisation": dataset.normalisation,
        "source": dataset.source,
        "licence": dataset.licence,
        "splits": rows,
    }
    return Report(headline, columns, rows, notes, data)


def _split_row(split: Split) -> dict[str, Any]:
    return {
        "split": split.name,
        "n": len(split),
        "inputs": f"{split.x.dtype.name} [N, {', '.join(map(str, split.x.shape[1:]))}]",
        "sha256": split.digest(),
        "labels": None if split.y is None else _counts(split.y),
    }


def _counts(labels: NDArray[np.int64]) -> dict[str, int]:
    found, counts = np.unique(labels, return_counts=True)
    return dict(zip(map(str, found.tolist()), counts.tolist(), strict=True))


def _histogram(counts: dict[str, int]) -> str:
    """Return the count of each class, or their range where there are many."""
    if len(counts) <= 20:
        return ", ".join(f"{label}: {count}" for label, count in counts.items())
    return f"{min(counts.values())} to {max(counts.values())} in {len(counts)} classes"
