"""Data by name: kinds, npz files, Python functions, limits, labels, overlaps, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aiq import zoo
from aiq.data import DataError, Split, check_disjoint, check_labels, load, load_cifar10, load_digits, split_names
from hardware_specs.errors import AIQError, UnknownNameError
from roofline.errors import InputError
from tests.cifar import images, write_npz

NAMES = ("calibration", "search", "report")
KNOWN = "write digits, cifar10:PATH, npz:FILE.npz, npz:DIR, package.module:function or path/file.py:function"
RANDOM = np.random.default_rng(7)
X = RANDOM.normal(size=(50, 3, 4)).astype(np.float32)
Y = np.arange(50) % 5


def refusal(text: str, split: str = "search", **settings: Any) -> str:
    with pytest.raises(AIQError) as caught:
        load(text, split, **settings)
    said = str(caught.value)
    assert re.search(r"[.?] Next: [^\n]+\.$", said), said
    return said


def saved(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "own.npz", **arrays)
    return f"npz:{folder / 'own.npz'}"


def function(folder: Path, body: str) -> str:
    (folder / "mine.py").write_text(f"import numpy as np, torch\n\n\ndef data(split):\n    {body}\n")
    return f"{folder / 'mine.py'}:data"


def test_digits_and_cifar10_are_those_of_their_loaders(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")
    write_npz(tmp_path, images(4, seed=1), images(2, seed=2))
    assert load("digits", "search").digest() == load_digits("search").digest()
    assert load(f"cifar10:{tmp_path}", "report").digest() == load_cifar10(tmp_path, "report").digest()
    assert split_names("digits") == ("train", *NAMES)
    assert split_names(f"cifar10:{tmp_path}") == NAMES


def test_a_limit_takes_the_first_examples() -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")
    whole, few = load("digits", "search"), load("digits", "search", limit=7)
    assert len(few) == 7
    assert np.array_equal(few.x, whole.x[:7])
    assert np.array_equal(few.y, whole.y[:7])
    assert np.array_equal(few.indices, whole.indices[:7])
    assert few.digest() != whole.digest() == load("digits", "search", limit=10**9).digest()
    assert refusal("digits", limit=0) == "the limit on examples must be at least 1, got 0. Next: choose how many."
    with pytest.raises(InputError):
        load("digits", "search", limit=-1)


def test_an_npz_file_is_divided_by_class_always_the_same_way(tmp_path: Path) -> None:
    text = saved(tmp_path, x=X, y=Y)
    splits = {name: load(text, name) for name in NAMES}
    assert [len(split) for split in splits.values()] == [10, 20, 20]
    assert sorted(np.concatenate([split.indices for split in splits.values()])) == list(range(50))
    for split in splits.values():
        assert np.array_equal(split.x, X[split.indices])
        assert np.array_equal(split.y, Y[split.indices])
        assert len(set(np.bincount(split.y))) == 1
    assert splits["search"].indices[:4].tolist() == load(text, "search").indices[:4].tolist() == [2, 45, 17, 33]
    assert split_names(text) == NAMES
    assert splits["search"].dataset.own
    assert splits["search"].dataset.input_shape == (3, 4)


def test_an_npz_file_says_which_example_is_in_which_split(tmp_path: Path) -> None:
    where = np.array(["search", "report", "calibration", "search", "search"] * 10)
    split = load(saved(tmp_path, x=X, y=Y, split=where), "search")
    assert split.indices.tolist() == np.flatnonzero(where == "search").tolist()
    assert np.array_equal(split.x, X[where == "search"])
    assert refusal(saved(tmp_path, x=X, split=np.full(50, "search")), "report") == (
        f"split 'report' of npz:{tmp_path / 'own.npz'} holds no example. Next: give more data."
    )


def test_a_folder_of_npz_files_has_a_file_for_each_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "search.npz", x=X[:8], y=Y[:8])
    np.savez(tmp_path / "report.npz", x=X[8:])
    search, report = load(f"npz:{tmp_path}", "search"), load(f"npz:{tmp_path}", "report")
    assert np.array_equal(search.x, X[:8])
    assert np.array_equal(search.y, Y[:8])
    assert (len(report), report.y) == (42, None)
    assert refusal(f"npz:{tmp_path}", "calibration") == (
        f"data: there is no file {str(tmp_path / 'calibration.npz')!r}. Next: check the path."
    )


def test_uint8_pixels_need_a_rule_and_follow_it(tmp_path: Path) -> None:
    pixels = np.full((5, 2, 2, 3), [0, 51, 255], np.uint8)
    pixels[0, 0, 1] = [255, 255, 0]
    rule = {"mean": np.array([0.5, 0.2, 0.0]), "std": np.array([0.5, 0.1, 2.0])}
    np.savez(tmp_path / "search.npz", x=pixels, **rule)
    split = load(f"npz:{tmp_path}", "search")
    assert (split.x.shape, split.x.dtype) == ((5, 3, 2, 2), np.float32)
    assert split.x[1, :, 0, 0] == pytest.approx([-1.0, 0.0, 0.5], abs=1e-6)
    assert split.x[0, :, 0, 1] == pytest.approx([1.0, 8.0, 0.0], abs=1e-6)
    assert split.dataset.normalisation == "(x / 255 - mean) / std with mean 0.5 0.2 0 and std 0.5 0.1 2"


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"mean": np.zeros(3)},
        {"mean": np.zeros(3), "std": np.zeros(3)},
        {"mean": np.zeros(3), "std": np.array([1.0, np.nan, 1.0])},
        {"mean": np.zeros(1), "std": np.ones(1)},
        {"mean": np.zeros(3, np.uint8), "std": np.ones(3)},
    ],
)
def test_uint8_pixels_without_a_sound_rule(tmp_path: Path, rule: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "search.npz", x=np.zeros((5, 2, 2, 3), np.uint8), **rule)
    assert refusal(f"npz:{tmp_path}") == (
        f"{tmp_path / 'search.npz'}: x is uint8 [5, 2, 2, 3] without a rule that makes inputs of pixels. Next: store x "
        "as float32 inputs, or in the .npz pixels [N, H, W, C] with float mean and std > 0, both [C]: "
        "(x / 255 - mean) / std."
    )


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"y": Y}, "holds y, but no x. Next: save the inputs as x and the labels as y."),
        ({"x": X, "mean": np.zeros(4)}, "x is float32 [50, 3, 4], but mean and std are for uint8 pixels. Next: "),
        ({"x": X[0, 0]}, "x is float32 [4], not numbers [N, ...]. Next: give one input to a row."),
        ({"x": X > 0}, "x is bool [50, 3, 4], not numbers [N, ...]. Next: give one input to a row."),
        ({"x": X.astype(str)}, "], not numbers [N, ...]. Next: give one input to a row."),
        ({"x": X * 1j}, "x is complex64 [50, 3, 4], not numbers [N, ...]. Next: give one input to a row."),
        ({"x": X[:0]}, "x is float32 [0, 3, 4] and so holds nothing. Next: give at least one example."),
        ({"x": X.astype(np.float64) * 1e300}, "x holds NaN or infinity (in float32) in 50 of 50 examples. Next: "),
        ({"x": X, "y": Y[:9]}, "y is int64 [9] for 50 examples. Next: give one integer label to each example."),
        ({"x": X, "y": Y[:, None]}, "y is int64 [50, 1] for 50 examples. Next: give one integer label"),
        ({"x": X, "y": Y + 0.0}, "y is float64 [50] for 50 examples. Next: give one integer label to each example."),
        ({"x": X, "y": Y - 2}, "y holds label -2. Next: give labels from 0 up."),
        ({"x": X, "y": Y, "split": Y}, "split is int64 [50] with 0, 1, 2, 3 for 50 examples. Next: name one of "),
        ({"x": X, "split": np.array(["a"] * 50)}, "split is <U1 [50] with a for 50 examples. Next: name one of "),
        ({"x": np.array([None, {}])}, "not readable as an .npz file: ValueError: Object arrays cannot be loaded"),
    ],
)
def test_npz_files_with_something_else(tmp_path: Path, arrays: dict[str, np.ndarray], told: str) -> None:
    text = saved(tmp_path, **arrays)
    assert f"{text.removeprefix('npz:')}: " in refusal(text)
    assert told in refusal(text)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_input_that_is_not_finite(tmp_path: Path, value: float) -> None:
    x = X.copy()
    x[3, 1, 2] = value
    assert "x holds NaN or infinity (in float32) in 1 of 50 examples. Next: mend them" in refusal(saved(tmp_path, x=x))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04junk", b"<html>"])
def test_damaged_npz_files(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "own.npz"
    file.write_bytes(content)
    assert refusal(f"npz:{file}").startswith(f"{file}: not readable as an .npz file: ")
    np.save(tmp_path / "own.npy", X)
    assert "not readable as an .npz file: " in refusal(f"npz:{tmp_path / 'own.npy'}")


@pytest.mark.parametrize(
    ("body", "dtype", "labelled"),
    [
        ("return np.ones((6, 2)) * len(split), np.arange(6)", np.float32, True),
        ("return np.ones((6, 2), np.float16), None", np.float32, False),
        ("return torch.ones(6, 2, requires_grad=True), torch.arange(6)", np.float32, True),
        ("return torch.ones(6, 2, dtype=torch.bfloat16), torch.arange(6, dtype=torch.uint8)", np.float32, True),
        ("return torch.arange(12).reshape(6, 2), None", np.int64, False),
        ("return np.arange(12, dtype=np.int32).reshape(6, 2), None", np.int64, False),
    ],
)
def test_functions(tmp_path: Path, body: str, dtype: type, labelled: bool) -> None:
    split = load(function(tmp_path, body), "search")
    assert (split.x.shape, split.x.dtype, split.name) == ((6, 2), dtype, "search")
    assert (None if split.y is None else split.y.tolist()) == ([0, 1, 2, 3, 4, 5] if labelled else None)
    torch.from_numpy(split.x)


def test_a_function_is_told_the_split_and_sees_its_folder(tmp_path: Path) -> None:
    (tmp_path / "beside_mine.py").write_text("SIZES = {'calibration': 1, 'search': 2, 'report': 3}")
    text = function(tmp_path, "import beside_mine; return np.ones((beside_mine.SIZES[split], 2)), None")
    assert [len(load(text, name)) for name in NAMES] == [1, 2, 3]
    assert split_names(text) == NAMES


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise KeyError('disk')", "raised for split 'search': KeyError: 'disk'. Next: call it by itself."),
        ("raise SystemExit(3)", "raised for split 'search': SystemExit: 3. Next: call it by itself."),
        ("return np.ones((6, 2))", "returned ndarray for split 'search', not a pair of arrays or tensors. Next: "),
        ("return None", "returned NoneType for split 'search', not a pair of arrays or tensors. Next: "),
        ("return None, None", "returned (NoneType, NoneType) for split 'search', not a pair of arrays"),
        ("return [1.0], [0]", "returned (list, list) for split 'search', not a pair of arrays or tensors. Next: "),
        ("return np.ones((6, 2)), [0] * 6", "returned (ndarray, list) for split 'search', not a pair of arrays"),
        ("return np.ones((6, 2)), np.arange(6), 1", "returned (ndarray, ndarray, int) for split 'search', not a pair"),
        ("return torch.ones(6, 2, device='meta'), None", "returned (Tensor, NoneType) for split 'search', not a pair"),
        ("return np.ones((6, 2)), np.arange(5)", ", split 'search': y is int64 [5] for 6 examples. Next: "),
        ("return np.ones((6, 2, 2, 3), np.uint8), None", "x is uint8 [6, 2, 2, 3] without a rule that makes inputs"),
        ("return np.ones((0, 2)), None", "x is float64 [0, 2] and so holds nothing. Next: give at least one example."),
    ],
)
def test_functions_that_fail(tmp_path: Path, body: str, told: str) -> None:
    text = function(tmp_path, body)
    assert refusal(text).startswith(f"data {text!r}")
    assert told in refusal(text)


def test_functions_that_cannot_be_found(tmp_path: Path) -> None:
    text = function(tmp_path, "return None")
    assert refusal(f"{text}s") == (
        f"unknown callable in {tmp_path / 'mine.py'} 'datas': did you mean 'data'? Next: name a function that takes a "
        "split's name and returns a pair of inputs and labels."
    )
    assert refusal("no/such.py:data") == "data 'no/such.py:data': there is no file 'no/such.py'. Next: check the path."
    (tmp_path / "bad.py").write_text("import nothing_like_it")
    assert "failed: ModuleNotFoundError: No module named 'nothing_like_it'." in refusal(f"{tmp_path / 'bad.py'}:f")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("digit", f"unknown data 'digit': did you mean 'digits'? Next: {KNOWN}."),
        ("cifar:/data", f"unknown data 'cifar': did you mean 'cifar10'? Next: {KNOWN}."),
        ("", f"unknown data '': known: cifar10, digits, npz. Next: {KNOWN}."),
        ("no_such_module_:f", "unknown data 'no_such_module_': "),
        ("a..b:f", "unknown data 'a..b': "),
        ("digits:x", "data 'digits:x': the digits are embedded and take no path. Next: write digits."),
        ("npz:", "data 'npz:' name no place. Next: write npz:PATH."),
        (
            "cifar10",
            "data 'cifar10' name no place. Next: write cifar10:PATH (fetch it with 'aiq data download cifar10').",
        ),
        ("a/b.npz", "data 'a/b.npz' name a path but not what is there. Next: write npz:a/b.npz."),
        ("mine.py", "data 'mine.py' name a path but not what is there. Next: write mine.py:function."),
        ("a/folder", f"data 'a/folder' name a path but not what is there. Next: {KNOWN}."),
        ("npz:no.npz", "data: there is no file 'no.npz'. Next: check the path."),
    ],
)
def test_unknown_kinds(text: str, told: str) -> None:
    assert refusal(text).startswith(told)


@pytest.mark.parametrize("kind", ["npz:", "cifar10:", ""])
@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "a/" + "y" * 300])
def test_names_that_no_file_can_have(kind: str, name: str) -> None:
    refusal(kind + name)
    assert "there is no file" in refusal(f"{'z' * 300}.py:data")


@pytest.mark.parametrize("make", [lambda folder: saved(folder, x=X), lambda folder: function(folder, "return 1")])
def test_unknown_splits(tmp_path: Path, make: Callable[[Path], str]) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load(make(tmp_path), "train")
    assert str(caught.value) == (
        "unknown split 'train': did you mean 'calibration'? Next: pick one of calibration, search, report."
    )


def own(folder: Path, split: str, x: np.ndarray, y: np.ndarray | None = None) -> Split:
    np.savez(folder / f"{split}.npz", x=x, **({} if y is None else {"y": y}))
    return load(f"npz:{folder}", split)


def test_labels_are_checked_against_the_network(tmp_path: Path) -> None:
    split = own(tmp_path, "search", X, Y)
    assert check_labels(split) is check_labels(split, 5) is split.y
    with pytest.raises(DataError) as caught:
        check_labels(split, 4)
    assert str(caught.value) == (
        f"split 'search' of npz:{tmp_path}: labels reach 4, the network tells 4 classes apart, 0 to 3. "
        "Next: give the labels that it was trained with."
    )
    with pytest.raises(DataError) as caught:
        check_labels(own(tmp_path, "report", X))
    assert str(caught.value) == (
        f"split 'report' of npz:{tmp_path} has no labels, which accuracy needs. "
        "Next: give labels, or compare with the float model: --oracle agreement."
    )


def test_an_example_of_report_in_another_split_is_refused(tmp_path: Path) -> None:
    report, search = own(tmp_path, "report", X[:20], Y[:20]), own(tmp_path, "search", X[18:40], Y[18:40] + 1)
    assert check_disjoint([own(tmp_path, "calibration", X[40:]), search]) == ()
    for order in ([report, search], [search, report]):
        with pytest.raises(DataError) as caught:
            check_disjoint(order)
        assert str(caught.value) == (
            "2 of 20 examples of split 'report' are in split 'search' too, so its figures would not be held out. "
            "Next: take them out of one of the two."
        )


def test_other_splits_that_overlap_are_told(tmp_path: Path) -> None:
    calibration, search = own(tmp_path, "calibration", X[:10]), own(tmp_path, "search", X[7:20])
    report = own(tmp_path, "report", X[20:])
    assert check_disjoint([calibration, search, report]) == (
        "3 of 10 examples of split 'calibration' are in split 'search' too",
    )


def test_splits_of_the_toolkit_are_not_looked_at(tmp_path: Path) -> None:
    same = images(4, seed=1)
    write_npz(tmp_path, same, same)
    assert check_disjoint([load(f"cifar10:{tmp_path}", name) for name in NAMES]) == ()


def test_a_digest_covers_form_values_and_labels(tmp_path: Path) -> None:
    forms = {
        "as it is": own(tmp_path, "search", X, Y),
        "other shape": own(tmp_path, "search", X.reshape(50, 4, 3), Y),
        "other type": own(tmp_path, "search", X.view(np.int32), Y),
        "no labels": own(tmp_path, "search", X),
        "other labels": own(tmp_path, "search", X, Y + 1),
        "other order": own(tmp_path, "search", X[::-1], Y[::-1]),
    }
    assert len({split.digest() for split in forms.values()}) == len(forms)
    again = load(function(tmp_path, f"z = np.load({str(tmp_path / 'search.npz')!r}); return z['x'], z['y']"), "search")
    assert again.digest() == forms["other order"].digest()


def test_every_network_of_the_zoo_names_data_of_its_input_shape() -> None:
    shapes = {"digits": (1, 8, 8), "cifar10": (3, 32, 32)}
    assert all(entry.input_shape == shapes[entry.data] for entry in zoo.ENTRIES.values())
