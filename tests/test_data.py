"""The data sets: splits, normalisation, errors."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from aiq.data import DIGITS, Split, load_digits
from hardware_specs.errors import AIQError, UnknownNameError

_ROOT = Path(__file__).resolve().parent.parent
_SIZES = {"train": 898, "calibration": 126, "search": 323, "report": 450}


@pytest.fixture(scope="module")
def splits() -> dict[str, Split]:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")
    return {name: load_digits(name) for name in DIGITS.splits}


def test_sizes_and_types(splits: dict[str, Split]) -> None:
    assert {name: len(split) for name, split in splits.items()} == _SIZES
    for split in splits.values():
        assert split.x.shape == (len(split), *DIGITS.input_shape)
        assert (split.x.dtype, split.y.dtype, split.indices.dtype) == (np.float32, np.int64, np.int64)
        assert (split.x.min(), split.x.max()) == (-1.0, 1.0)


def test_splits_are_disjoint_and_cover_everything(splits: dict[str, Split]) -> None:
    for one, other in combinations(splits.values(), 2):
        assert not set(one.indices) & set(other.indices)
    assert sorted(np.concatenate([split.indices for split in splits.values()])) == list(range(1797))


def test_no_image_is_in_two_splits(splits: dict[str, Split]) -> None:
    seen = [{image.tobytes() for image in split.x} for split in splits.values()]
    assert not any(one & other for one, other in combinations(seen, 2))


def test_splits_are_stratified(splits: dict[str, Split]) -> None:
    total = sum(np.bincount(split.y, minlength=10) for split in splits.values())
    for name, split in splits.items():
        assert np.all(np.abs(np.bincount(split.y, minlength=10) - DIGITS.splits[name] * total) <= 1)


def test_splits_are_pinned(splits: dict[str, Split]) -> None:
    assert {name: split.digest()[:12] for name, split in splits.items()} == {
        "train": "e01bd17addec",
        "calibration": "2e96072a1839",
        "search": "899e88f9e83a",
        "report": "e189196bb5b2",
    }


def test_loading_again_gives_the_same_in_fresh_arrays(splits: dict[str, Split]) -> None:
    again = load_digits("search")
    assert again.digest() == splits["search"].digest()
    again.x[0] = 0
    assert again.digest() != splits["search"].digest() == load_digits("search").digest()


def test_examples_are_those_of_the_source(splits: dict[str, Split]) -> None:
    from sklearn.datasets import load_digits as source

    bunch = source()
    split = splits["report"]
    assert np.array_equal((split.x[:, 0] + 1) * 8, bunch.images[split.indices])
    assert np.array_equal(split.y, bunch.target[split.indices])


def test_shares_sum_to_one_and_cannot_be_changed() -> None:
    assert sum(DIGITS.splits.values()) == pytest.approx(1.0)
    with pytest.raises(TypeError):
        DIGITS.splits["train"] = 1.0  # type: ignore[index]


def test_repr_is_one_line(splits: dict[str, Split]) -> None:
    assert repr(splits["report"]) == "Split('digits', 'report', n=450, sha256=e189196bb5b2)"


def test_unknown_split_names_the_nearest_first() -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_digits("reports")
    assert str(caught.value) == (
        "unknown split of digits 'reports': did you mean 'report'? Next: pick a key of aiq.data.DIGITS.splits."
    )


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(AIQError) as caught:
        load_digits("train")
    assert str(caught.value) == (
        "data set 'digits': scikit-learn, which holds it, is not installed. Next: pip install aiq-roofline[digits]."
    )


def test_importing_data_imports_neither_torch_nor_scikit_learn() -> None:
    code = "import sys, aiq.data; print({'torch', 'sklearn'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"
