"""Data sets as named, disjoint, seeded splits of NumPy arrays."""

from aiq.data._cifar import CIFAR10, CIFAR10_JPEG, CIFAR10_NPZ, load_cifar10
from aiq.data._core import Dataset, Split
from aiq.data._digits import DIGITS, load_digits

__all__ = ["CIFAR10", "CIFAR10_JPEG", "CIFAR10_NPZ", "DIGITS", "Dataset", "Split", "load_cifar10", "load_digits"]
