"""Every file of trained weights that ships holds what its metadata say and reaches the accuracy that they state."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import sqrt
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from aiq import zoo
from aiq.data import CIFAR10_JPEG, CIFAR10_NPZ, DIGITS, load
from aiq.stats import wilson_interval
from aiq.zoo.train import DIGITS_RECIPE, RECIPES, correct_answers, state_digest
from tests.cifar import jpeg_report
from tests.real_data import real

SHIPPED = [entry.name for entry in zoo.ENTRIES.values() if entry.weights is not None]
ON_CIFAR10 = [name for name in SHIPPED if zoo.get(name).data == "cifar10"]
README = Path(zoo.__file__).parent / "weights" / "README.md"
ORIGINAL = f"accuracy_{CIFAR10_NPZ.name}"


def path(name: str) -> Path:
    found = zoo.weights_path(name)
    assert found is not None
    return found


@cache
def stated(name: str) -> dict[str, str]:
    with safe_open(path(name), "pt") as file:
        return dict(file.metadata())


def counts(name: str) -> tuple[int, int]:
    return int(stated(name)["correct"]), int(stated(name)["n"])


def test_every_file_belongs_to_a_network() -> None:
    assert {file.name for file in README.parent.glob("*.safetensors")} == {zoo.get(name).weights for name in SHIPPED}


@pytest.mark.parametrize("name", SHIPPED)
def test_metadata_describe_the_file(name: str) -> None:
    told, (correct, n) = stated(name), counts(name)
    low, high = wilson_interval(correct, n)
    dataset = DIGITS if zoo.get(name).data == "digits" else CIFAR10_JPEG
    assert told["accuracy"] == f"{correct / n:.4f}"
    assert told["accuracy_interval_95"] == f"{low:.4f} {high:.4f} (Wilson)"
    assert told["recipe"] == str(DIGITS_RECIPE if name == "digits_cnn" else RECIPES[name])
    assert (told["model"], told["seed"], told["normalisation"]) == (name, "0", dataset.normalisation)
    assert (told["data"], told["data_licence"]) == (dataset.source, dataset.licence)
    assert told["state_sha256"] == state_digest(load_file(path(name)))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_network_is_built_with_the_stored_tensors(name: str) -> None:
    stored, built = load_file(path(name)), zoo.build(name).state_dict()
    (kind,) = {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()}
    assert kind in (torch.float16, torch.float32)
    assert set(built) - set(stored) <= {key for key in built if key.endswith("num_batches_tracked")}
    for key, tensor in stored.items():
        assert torch.equal(built[key], tensor.to(built[key].dtype))


def test_the_readme_states_the_digits_network() -> None:
    correct, n = counts("digits_cnn")
    for fact in (f"{correct} of {n} = {100 * correct / n:.2f} %", stated("digits_cnn")["state_sha256"]):
        assert fact in README.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ON_CIFAR10)
def test_the_readme_states_the_networks_for_cifar10(name: str) -> None:
    original = stated(name)[ORIGINAL].partition(" ")[0].split("/")
    cells = []
    for correct, n in (counts(name), map(int, original)):
        low, high = wilson_interval(correct, n)
        cells.append((f"{100 * correct / n:.2f} %", f"({100 * low:.2f} to {100 * high:.2f})"))
    (jpeg, jpeg_bounds), (pixels, pixels_bounds) = cells
    row = f"| `{name}` | {RECIPES[name].epochs} | **{jpeg}** {jpeg_bounds} | {pixels} {pixels_bounds} |"
    assert row in README.read_text(encoding="utf-8").splitlines()


def test_the_digits_network_reaches_its_stated_accuracy() -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")
    report = load("digits", "report")
    assert stated("digits_cnn")["report_sha256"] == report.digest()
    assert stated("digits_cnn")["train_sha256"] == load("digits", "train").digest()
    assert (correct_answers(zoo.build("digits_cnn"), report), len(report)) == counts("digits_cnn")
    assert counts("digits_cnn")[0] / len(report) >= 0.985


@pytest.mark.parametrize("name", ON_CIFAR10)
def test_a_network_reaches_its_stated_accuracy_on_original_images(name: str) -> None:
    """Another processor may round two images across a boundary."""
    report = load(f"cifar10:{real('cifar10_test_1000.npz').parent}", "report")
    correct = int(stated(name)[ORIGINAL].partition("/")[0])
    low, high = wilson_interval(correct, len(report))
    assert stated(name)[ORIGINAL] == (
        f"{correct}/{len(report)} = {correct / len(report):.4f}, 95 % {low:.4f} {high:.4f} (Wilson)"
    )
    assert abs(correct_answers(zoo.build(name), report) - correct) <= 2


@pytest.mark.skipif("resnet20" not in ON_CIFAR10, reason="resnet20 ships without trained weights")
def test_resnet20_reaches_its_stated_accuracy_on_jpeg_images() -> None:
    """Over a thousand images, a fair sample, within four standard errors of what was counted over all of them."""
    report = jpeg_report()
    assert stated("resnet20")["report_sha256"] == report.digest()
    correct, n = counts("resnet20")
    sample = replace(report, x=report.x[:1000], y=report.y[:1000])
    right = correct_answers(zoo.build("resnet20"), sample) / len(sample)
    assert abs(right - correct / n) < 4 * sqrt(correct / n * (1 - correct / n) / len(sample))
