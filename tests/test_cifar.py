"""CIFAR-10 in each of its forms: the same splits, normalisation, damaged and hostile files, and the real data."""

from __future__ import annotations

import pickle
import re
import shutil
import tarfile
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aiq.data import CIFAR10, CIFAR10_JPEG, CIFAR10_NPZ, DataError, load_cifar10, split_names
from hardware_specs.errors import AIQError, UnknownNameError
from tests.cifar import (
    BATCHES,
    CLASSES,
    images,
    jpeg_report,
    python2_pickle,
    write_batches,
    write_folders,
    write_npz,
    write_tar,
)
from tests.real_data import real

TRAIN, TEST = images(50, seed=1), images(3, seed=2)
SIZES = {"train": 450, "calibration": 10, "search": 40, "report": 30}


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("cifar")
    folders = write_folders(root / "folders", TRAIN, TEST)
    return {
        "batches": write_batches(root / "original", TRAIN, TEST),
        "folders": folders,
        "tar": write_tar(root / "my_cifar_images.tar.xz", folders),
        "npz": write_npz(root / "npz", TRAIN, TEST),
    }


def refusal(path: Path, split: str = "report") -> str:
    with pytest.raises(AIQError) as caught:
        load_cifar10(path, split)
    text = str(caught.value)
    assert re.search(r"\. Next: [^\n]+\.$", text), text
    return text


@pytest.mark.parametrize("form", ["batches", "folders", "tar"])
def test_every_form_gives_the_same_splits(forms: dict[str, Path], form: str) -> None:
    splits = {name: load_cifar10(forms[form], name) for name in SIZES}
    assert {name: len(split) for name, split in splits.items()} == SIZES
    assert split_names(f"cifar10:{forms[form]}") == tuple(SIZES)
    for name, split in splits.items():
        assert (split.x.shape[1:], split.x.dtype, split.y.dtype) == ((3, 32, 32), np.float32, np.int64)
        assert split.digest() == load_cifar10(forms["batches"], name).digest()
        assert np.array_equal(split.y, (TEST if name == "report" else TRAIN).y[split.indices])
        assert np.bincount(split.y).tolist() == [SIZES[name] // 10] * 10
    for one, other in combinations(("train", "calibration", "search"), 2):
        assert not set(splits[one].indices) & set(splits[other].indices)
    assert splits["search"].dataset == (CIFAR10 if form == "batches" else CIFAR10_JPEG)


def test_npz_has_no_train_split_and_divides_all_training_images(forms: dict[str, Path]) -> None:
    splits = [load_cifar10(forms["npz"], name) for name in ("calibration", "search")]
    assert sorted(np.concatenate([split.indices for split in splits])) == list(range(500))
    assert load_cifar10(forms["npz"], "report").digest() == load_cifar10(forms["batches"], "report").digest()
    with pytest.raises(UnknownNameError) as caught:
        load_cifar10(forms["npz"], "train")
    assert str(caught.value) == (
        "unknown split of cifar10-npz 'train': did you mean 'calibration'? "
        "Next: pick one of calibration, search, report."
    )
    assert splits[0].dataset == CIFAR10_NPZ


def test_splits_are_shuffled_so_that_the_first_examples_are_a_fair_sample(forms: dict[str, Path]) -> None:
    assert len(set(load_cifar10(forms["batches"], "search").y[:10])) > 4


@pytest.mark.parametrize("form", ["folders", "tar"])
def test_the_order_of_files_does_not_matter(forms: dict[str, Path], form: str, tmp_path: Path) -> None:
    if form == "tar":
        other = write_tar(tmp_path / "other.tar.xz", forms["folders"], seed=9)
        with tarfile.open(other) as one, tarfile.open(forms["tar"]) as two:
            assert one.getnames() != two.getnames()
    else:
        other = tmp_path / "other"
        for file in sorted(forms["folders"].rglob("*.png"), reverse=True):
            target = other / file.relative_to(forms["folders"])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    assert load_cifar10(other, "search").digest() == load_cifar10(forms[form], "search").digest()


def test_places_that_are_found(forms: dict[str, Path]) -> None:
    digest = load_cifar10(forms["batches"], "report").digest()
    assert load_cifar10(forms["batches"] / BATCHES, "report").digest() == digest
    assert load_cifar10(str(forms["tar"].parent), "report").digest() == digest


def test_normalisation_by_hand(tmp_path: Path) -> None:
    """Red 0, green 255 and blue 51: (0 - 0.485) / 0.229, (1 - 0.456) / 0.224 and (0.2 - 0.406) / 0.225."""
    flat = np.broadcast_to(np.array([0, 255, 51], np.uint8), (10, 32, 32, 3)).copy()
    flat[:, 3, 5] = [102, 0, 0]
    labels = np.arange(10)
    split = load_cifar10(write_npz(tmp_path, type(TEST)(flat, labels), type(TEST)(flat, labels)), "report")
    expected = np.array([-0.485 / 0.229, 0.544 / 0.224, -0.206 / 0.225])
    assert split.x[:, :, 0, 0] == pytest.approx(np.tile(expected, (10, 1)), abs=1e-6)
    assert split.x[0, 0, 3, 5] == pytest.approx((0.4 - 0.485) / 0.229, abs=1e-6)
    assert split.x[0, 0, 5, 3] == pytest.approx(expected[0], abs=1e-6)


def test_hidden_files_beside_the_images_are_left_aside(forms: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(forms["folders"], tmp_path / "copy")
    (copy / "test" / "cat" / ".DS_Store").write_bytes(b"junk")
    (copy / "test" / "cat" / "._0009.png").write_bytes(b"junk")
    assert load_cifar10(copy, "report").digest() == load_cifar10(forms["folders"], "report").digest()


def test_a_batch_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.mkdir, (ran,)

    assert pickle.loads(pickle.dumps(Evil())) is None
    ran.rmdir()
    write_batches(tmp_path, TRAIN, TEST)
    (tmp_path / BATCHES / "test_batch").write_bytes(pickle.dumps({b"data": Evil(), b"labels": [0]}, protocol=2))
    assert "which no CIFAR-10 batch has" in refusal(tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize("name", ["numpy.load", "numpy.testing.runstring", "builtins.eval", "numpy.ndarray.tofile"])
def test_a_batch_reaches_no_function_but_what_arrays_need(tmp_path: Path, name: str) -> None:
    write_batches(tmp_path, TRAIN, TEST)
    module, _, function = name.rpartition(".")
    (tmp_path / BATCHES / "test_batch").write_bytes(b"\x80\x02c" + f"{module}\n{function}\n.".encode())
    assert refusal(tmp_path) == (
        f"{tmp_path / BATCHES}: not readable as the original batches: UnpicklingError: holds {name}, which no CIFAR-10 "
        "batch has. Next: fetch it again."
    )


def _batch(**changes: object) -> bytes:
    rows = TEST.x.transpose(0, 3, 1, 2).reshape(len(TEST.y), 3072)
    return python2_pickle({"labels": TEST.y.tolist(), "data": np.ascontiguousarray(rows)} | changes)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "EOFError: Ran out of input"),
        (b"<html>not found</html>", "UnpicklingError: "),
        (_batch()[:5000], "UnpicklingError: pickle data was truncated"),
        (python2_pickle([1, 2]), "TypeError: "),
        (python2_pickle({"labels": [1]}), "KeyError: b'data'"),
        (_batch(labels=[1, 2]), "ValueError: test_batch holds 30 images for 2 labels"),
        (_batch(data=np.zeros((30, 3000), np.uint8)), "ValueError: cannot reshape"),
        (_batch(labels=[10] * 30), "labels reach from 10 to 10, not 0 to 9"),
        (_batch(labels=[-1] * 30), "labels reach from -1 to -1, not 0 to 9"),
        (_batch(labels=[0.5] * 30), "labels are float64 [30], not integers [N]"),
    ],
)
def test_damaged_batches(tmp_path: Path, content: bytes, told: str) -> None:
    write_batches(tmp_path, TRAIN, TEST)
    (tmp_path / BATCHES / "test_batch").write_bytes(content)
    assert told in refusal(tmp_path)


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    write_batches(tmp_path, TRAIN, TEST)
    (tmp_path / BATCHES / "data_batch_4").unlink()
    assert "data_batch_4" in refusal(tmp_path, "search")
    assert len(load_cifar10(tmp_path, "report")) == 30


def _broken_tar(folder: Path, whole: bytes) -> Path:
    (folder / "cut.tar.xz").write_bytes(whole[: len(whole) // 2])
    return folder / "cut.tar.xz"


def _wrong_class(folder: Path) -> Path:
    (folder / "test" / "cat").rename(folder / "test" / "lion")
    return folder


def _wrong_size(folder: Path) -> Path:
    for file in (folder / "test").rglob("*.png"):
        Image.new("RGB", (16, 16)).save(file)
    return folder


def _no_image(folder: Path) -> Path:
    next((folder / "test" / "cat").iterdir()).write_text("not an image")
    return folder


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder / "test")
    (folder / "test").mkdir()
    return folder


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_wrong_class, f"ValueError: folder 'lion' is none of {', '.join(CLASSES)}. Next: fetch it again."),
        (_wrong_size, "holds uint8 [30, 16, 16, 3] for 30 labels instead of uint8 [N, 32, 32, 3]. Next: "),
        (_no_image, "not readable as image folders: UnidentifiedImageError: cannot identify image file"),
        (_empty, "not readable as image folders: ValueError: no image in it. Next: fetch it again."),
    ],
)
def test_damaged_folders(forms: dict[str, Path], tmp_path: Path, damage: Callable[[Path], Path], told: str) -> None:
    assert told in refusal(damage(shutil.copytree(forms["folders"], tmp_path / "copy")))


def test_damaged_tars(forms: dict[str, Path], tmp_path: Path) -> None:
    cut = _broken_tar(tmp_path, forms["tar"].read_bytes())
    assert refusal(cut).startswith(f"{cut}: not readable as a tar of image folders: ")
    page = tmp_path / "cifar.tar"
    page.write_text("<html>")
    assert refusal(page).startswith(f"{page}: not readable as a tar of image folders: ReadError: ")
    packed = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(forms["batches"] / BATCHES, BATCHES)
    assert refusal(packed) == f"{packed}: is the original archive. Next: unpack it and give the folder."


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"y": TEST.y}, "KeyError: "),
        ({"x": TEST.x, "y": TEST.y[:4]}, "ValueError: 30 images for 4 labels"),
        ({"x": TEST.x.astype(np.float32), "y": TEST.y}, "holds float32 [30, 32, 32, 3] for 30 labels instead of uint8"),
        ({"x": TEST.x, "y": TEST.y + 0.5}, "labels are float64 [30], not integers [N]"),
        ({"x": TEST.x, "y": np.array([None] * 30)}, "Object arrays cannot be loaded"),
        ({"x": TEST.x[:0], "y": TEST.y[:0]}, "labels are int64 [0], not integers [N]"),
    ],
)
def test_damaged_npz(tmp_path: Path, arrays: dict[str, np.ndarray], told: str) -> None:
    write_npz(tmp_path, TRAIN, TEST)
    np.savez(next(tmp_path.glob("cifar10_test_*.npz")), **arrays)
    assert told in refusal(tmp_path)


def test_an_npz_that_is_cut_off(tmp_path: Path) -> None:
    write_npz(tmp_path, TRAIN, TEST)
    file = next(tmp_path.glob("cifar10_test_*.npz"))
    file.write_bytes(file.read_bytes()[:9000])
    assert refusal(tmp_path) == (
        f"{tmp_path}: not readable as npz files: BadZipFile: File is not a zip file. Next: fetch it again."
    )


def test_too_few_images_for_a_split(tmp_path: Path) -> None:
    write_batches(tmp_path, images(2, seed=3), TEST)
    assert refusal(tmp_path, "calibration") == (
        f"{tmp_path / BATCHES}: 20 images are too few for a calibration. Next: give all of them."
    )


def test_no_cifar10_there(tmp_path: Path) -> None:
    known = (
        "known forms are cifar-10-batches-py, train/ and test/ folders of images, a tar of them, and "
        "cifar10_train_*.npz with cifar10_test_*.npz. Next: give one, or 'aiq data download cifar10'."
    )
    assert refusal(tmp_path) == f"data {str(tmp_path)!r} holds no CIFAR-10: {known}"
    assert refusal(tmp_path / "no") == f"data {str(tmp_path / 'no')!r} does not exist: {known}"
    with pytest.raises(DataError, match="does not exist"):
        split_names(f"cifar10:{tmp_path / 'no'}")


@pytest.mark.parametrize(
    ("split", "n", "digest"),
    [("calibration", 1001, "565b02078a39"), ("search", 2999, "f7a827f52923"), ("report", 1000, "11840139fdbc")],
)
def test_real_images_are_pinned(split: str, n: int, digest: str) -> None:
    found = load_cifar10(real("cifar10_test_1000.npz").parent, split)
    assert (len(found), found.digest()[:12], found.dataset) == (n, digest, CIFAR10_NPZ)


def test_real_jpeg_images_are_pinned() -> None:
    found = jpeg_report()
    assert (len(found), found.digest()[:12], found.dataset) == (10_000, "2a57990869f7", CIFAR10_JPEG)
    assert np.bincount(found.y).tolist() == [1000] * 10
