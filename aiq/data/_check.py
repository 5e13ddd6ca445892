"""What must hold of splits before anything is measured on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from aiq.data._core import DataError, Split

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_labels(split: Split, classes: int | None = None) -> NDArray[np.int64]:
    """Return the labels of a split, int64 [N], if it has any and a network can be right on all of them.

    Args:
        split: The examples.
        classes: Width of the network's logits; ``None`` where it is not known yet.

    Raises:
        DataError: The split is not labelled, or a label is none of the classes.
    """
    if split.y is None:
        raise DataError(
            f"split {split.name!r} of {split.dataset.name} has no labels, which accuracy needs. "
            "Next: give labels, or compare with the float model: --oracle agreement."
        )
    if classes is not None and int(split.y.max()) >= classes:
        raise DataError(
            f"split {split.name!r} of {split.dataset.name}: labels reach {split.y.max()}, the network tells {classes} "
            f"classes apart, 0 to {classes - 1}. Next: give the labels that it was trained with."
        )
    return split.y


def check_disjoint(splits: Sequence[Split]) -> tuple[str, ...]:
    """Refuse the user's own data where an example of ``report`` is in another split too, whatever its label.

    Data sets of the toolkit are divided by it, so they are not looked at.

    Args:
        splits: Splits of one data set.

    Returns:
        One sentence for each other two splits that share examples: this only makes the search too hopeful.

    Raises:
        DataError: ``report`` shares an example with another split, so its figures would not be held out.
    """
    hashes = {split.name: _hashes(split) for split in splits if split.dataset.own}
    shared = []
    for first, second in combinations(sorted(hashes, key=lambda name: name != "report"), 2):
        others = set(hashes[second])
        count = sum(example in others for example in hashes[first])
        if count and first == "report":
            raise DataError(
                f"{count} of {len(hashes[first])} examples of split 'report' are in split {second!r} too, so its "
                "figures would not be held out. Next: take them out of one of the two."
            )
        if count:
            shared.append(f"{count} of {len(hashes[first])} examples of split {first!r} are in split {second!r} too")
    return tuple(shared)


def _hashes(split: Split) -> list[bytes]:
    return [hashlib.blake2b(example.tobytes(), digest_size=16).digest() for example in split.x]
