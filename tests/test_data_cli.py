"""The data commands: what is known, what some data hold, in every format."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from aiq.data import CIFAR10, CIFAR10_JPEG, CIFAR10_NPZ, DIGITS, load
from tests.cifar import images, write_npz
from tests.commands import FORMATS, run
from tests.refusals import refusal

KNOWN = (DIGITS, CIFAR10, CIFAR10_JPEG, CIFAR10_NPZ)


@pytest.mark.parametrize("fmt", FORMATS)
def test_list(fmt: str) -> None:
    code, out, err = run("data", "list", "--format", fmt)
    assert (code, err) == (0, "")
    if fmt == "json":
        found = json.loads(out)
        assert found["schema_version"] == 1
        assert [each["splits"] for each in found["datasets"]] == [dict(dataset.splits) for dataset in KNOWN]
        assert [each["input_shape"] for each in found["datasets"]] == [list(dataset.input_shape) for dataset in KNOWN]
    elif fmt == "csv":
        rows = list(csv.DictReader(io.StringIO(out)))
        assert [row["name"] for row in rows] == [dataset.name for dataset in KNOWN]
    else:
        for dataset in KNOWN:
            assert all(text in out for text in (dataset.name, dataset.source, dataset.licence))
        assert "train 50.0 %, calibration 7.0 %, search 18.0 %, report 25.0 %" in out
        assert "…" not in out


def test_show_in_words_and_in_json(tmp_path: Path) -> None:
    write_npz(tmp_path, images(8, seed=1), images(2, seed=2))
    text = f"cifar10:{tmp_path}"
    out = run("data", "show", text).out
    assert out.startswith("cifar10-npz: 100 examples in 3 splits; part of CIFAR-10: ")
    report = next(line for line in out.splitlines() if line.startswith("report"))
    assert report.split()[:7] == ["report", "20", "float32", "[N,", "3,", "32,", "32]"]
    assert report.endswith("   " + ", ".join(f"{label}: 2" for label in range(10)))
    assert load(text, "report").digest()[:12] in report
    assert f"- inputs: {CIFAR10.normalisation}" in out
    found = json.loads(run("data", "show", text, "--format", "json").out)
    assert [split["n"] for split in found["splits"]] == [20, 60, 20]
    assert [split["sha256"] for split in found["splits"]] == [
        load(text, name).digest() for name in ("calibration", "search", "report")
    ]
    assert found["splits"][1]["labels"] == {str(label): 6 for label in range(10)}


def test_show_own_data_without_labels_and_with_many_classes(tmp_path: Path) -> None:
    x = np.arange(120, dtype=np.float32).reshape(60, 2)
    np.savez(tmp_path / "plain.npz", x=x)
    np.savez(tmp_path / "many.npz", x=x, y=np.arange(60) + 10**12)
    plain = run("data", "show", f"npz:{tmp_path / 'plain.npz'}").out
    assert plain.startswith(f"npz:{tmp_path / 'plain.npz'}: 60 examples in 3 splits; your own data\n")
    assert [line.split()[-1] for line in plain.splitlines() if line.startswith(("search", "report"))] == ["–", "–"]
    assert plain.endswith("\n\n- inputs: used as given\n")
    many = run("data", "show", f"npz:{tmp_path / 'many.npz'}").out
    rows = [line for line in many.splitlines() if line.startswith(("search", "report"))]
    assert [row.split()[1] for row in rows] == ["24", "24"]
    assert all(row.endswith("   1 to 1 in 24 classes") for row in rows)
    counts = json.loads(run("data", "show", f"npz:{tmp_path / 'many.npz'}", "--format", "json").out)
    assert all(int(label) >= 10**12 for split in counts["splits"] for label in split["labels"])
    assert sum(sum(split["labels"].values()) for split in counts["splits"]) == 60


def test_show_keeps_what_a_function_prints_off_standard_output(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\n\ndef data(split):\n    print('loading')\n"
        "    return np.full((4, 2), ord(split[0]) + np.arange(4)[:, None] / 8), np.arange(4)\n"
    )
    code, out, err = run("data", "show", f"{tmp_path / 'mine.py'}:data", "--format", "json")
    assert (code, err) == (0, "loading\n" * 3)
    assert json.loads(out)["splits"][0]["labels"] == {"0": 1, "1": 1, "2": 1, "3": 1}


def test_show_tells_overlaps(tmp_path: Path) -> None:
    x = np.arange(40, dtype=np.float32).reshape(20, 2)
    for name, part in (("calibration", x[:6]), ("search", x[5:12]), ("report", x[12:])):
        np.savez(tmp_path / f"{name}.npz", x=part)
    text = f"npz:{tmp_path}"
    assert "- 1 of 6 examples of split 'calibration' are in split 'search' too" in run("data", "show", text).out
    np.savez(tmp_path / "report.npz", x=x[11:])
    assert refusal("data", "show", text) == (
        "1 of 9 examples of split 'report' are in split 'search' too, so its figures would not be held out. "
        "Next: take them out of one of the two."
    )


def test_refusals() -> None:
    assert refusal("data", "show", "digit").startswith("unknown data 'digit': did you mean 'digits'? Next: write ")
    assert refusal("data", "show", "digits", "--format", "xml").startswith("unknown format 'xml'")
    assert refusal("data", "list", "--format", "xml").startswith("unknown format 'xml'")
    assert refusal("data", "download", "digits").startswith("unknown data set to fetch 'digits': known: cifar10. ")
