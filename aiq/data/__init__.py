"""Data sets as named, disjoint, seeded splits of NumPy arrays."""

from aiq.data._check import check_disjoint, check_labels
from aiq.data._cifar import CIFAR10, CIFAR10_JPEG, CIFAR10_NPZ, load_cifar10
from aiq.data._core import SPLITS, DataError, Dataset, Split
from aiq.data._digits import DIGITS, load_digits
from aiq.data._download import download
from aiq.data._load import KINDS, load, split_names
from aiq.data._own import load_function, load_npz

__all__ = [
    "CIFAR10",
    "CIFAR10_JPEG",
    "CIFAR10_NPZ",
    "DIGITS",
    "KINDS",
    "SPLITS",
    "DataError",
    "Dataset",
    "Split",
    "check_disjoint",
    "check_labels",
    "download",
    "load",
    "load_cifar10",
    "load_digits",
    "load_function",
    "load_npz",
    "split_names",
]
