"""Training on CIFAR-10: a tiny run, what is stored and how, where it starts from, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aiq import zoo
from aiq.data import CIFAR10, Split, load_cifar10
from aiq.stats import wilson_interval
from aiq.zoo import train as training
from aiq.zoo._train_cifar import RECIPES, CifarRecipe, _augmented
from aiq.zoo.train import Trained, correct_answers, main, predictions, state_digest, train_on_cifar
from hardware_specs.errors import AIQError, UnknownNameError
from tests.cifar import images, write_batches, write_npz

TINY = CifarRecipe(epochs=1, batch=30)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_batches(tmp_path_factory.mktemp("train"), images(10, seed=1), images(3, seed=2))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_npz(tmp_path_factory.mktemp("also"), images(4, seed=3), images(2, seed=4))


@pytest.fixture(scope="module")
def trained(place: Path, other: Path) -> Trained:
    return train_on_cifar("resnet20", place, also=[other], recipe=TINY, compile=False)


def test_a_run_tells_what_it_did(trained: Trained, place: Path, other: Path) -> None:
    train, report, also = load_cifar10(place, "train"), load_cifar10(place, "report"), load_cifar10(other, "report")
    model = zoo.build("resnet20", pretrained=False)
    model.load_state_dict(trained.state, strict=False)
    correct = correct_answers(model, report)
    low, high = wilson_interval(correct, 30)
    right = correct_answers(model, also)
    bounds = wilson_interval(right, 20)
    versions = trained.metadata["versions"]
    assert versions.startswith(f"torch {torch.__version__}, numpy ")
    assert trained.metadata == {
        "model": "resnet20",
        "recipe": "epochs=1, batch=30, peak_rate=0.4, warm_up=0.2, momentum=0.9, weight_decay=0.0005, "
        "label_smoothing=0.0",
        "seed": "0",
        "accuracy": f"{correct / 30:.4f}",
        "correct": str(correct),
        "n": "30",
        "accuracy_interval_95": f"{low:.4f} {high:.4f} (Wilson)",
        "data": CIFAR10.source,
        "data_licence": CIFAR10.licence,
        "normalisation": CIFAR10.normalisation,
        "train_sha256": train.digest(),
        "report_sha256": report.digest(),
        "versions": versions,
        "state_sha256": state_digest(trained.state),
        "accuracy_cifar10-npz": f"{right}/20 = {right / 20:.4f}, 95 % {bounds[0]:.4f} {bounds[1]:.4f} (Wilson)",
    }
    assert (trained.correct, trained.n) == (correct, 30)


def test_a_run_changes_every_weight_and_keeps_no_counter(trained: Trained) -> None:
    before = zoo.build("resnet20", pretrained=False).state_dict()
    assert set(trained.state) == {name for name in before if not name.endswith("num_batches_tracked")}
    same = [name for name, tensor in trained.state.items() if torch.equal(tensor.float(), before[name].half().float())]
    assert same == []


def test_half_precision_is_stored_exactly_where_no_prediction_changes(
    trained: Trained, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {tensor.dtype for tensor in trained.state.values()} == {torch.float16}

    def sensitive(model: torch.nn.Module, split: Split) -> object:
        """Answer as the model does, and otherwise once its first weight is no more than a half-precision value."""
        rounded = bool((model.conv1.weight == model.conv1.weight.half().float()).all())
        return predictions(model, split) + int(rounded)

    monkeypatch.setattr(training, "predictions", sensitive)
    wide = train_on_cifar("resnet20", place, recipe=TINY, compile=False)
    assert {tensor.dtype for tensor in wide.state.values()} == {torch.float32}
    assert not torch.equal(wide.state["conv1.weight"], wide.state["conv1.weight"].half().float())


def test_a_run_starts_from_given_weights(trained: Trained, place: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.safetensors"
    trained.save(first)
    still = CifarRecipe(epochs=1, batch=30, peak_rate=0.0, weight_decay=0.0)
    again = train_on_cifar("resnet20", place, recipe=still, start=first, compile=False)
    assert again.metadata["start"] == "first.safetensors"
    learned = [name for name in trained.state if "running" not in name]
    assert all(torch.equal(again.state[name], trained.state[name]) for name in learned)
    assert "start" not in trained.metadata


def test_augmentation_crops_and_flips_by_hand() -> None:
    """With four pixels of padding a crop starts at 0 to 8 along either axis; values tell where each pixel was."""
    side = 40
    grid = torch.arange(side * side, dtype=torch.float32).view(1, side, side, 1)
    random = torch.Generator().manual_seed(3)
    seen = set()
    for cut in _augmented(grid, torch.zeros(400, dtype=torch.int64), random)[:, 0]:
        rows, columns = cut // side, cut % side
        top, flipped = int(rows[0, 0]), bool(columns[0, 0] > columns[0, 1])
        line = columns[0].flip(0) if flipped else columns[0]
        left = int(line[0])
        assert torch.equal(rows, (top + torch.arange(32.0))[:, None].expand(32, 32))
        assert torch.equal(line, left + torch.arange(32.0))
        assert (columns == columns[0]).all()
        seen.add((top, left, flipped))
    tops, lefts, flips = (set(values) for values in zip(*seen, strict=True))
    assert (tops, lefts, flips) == (set(range(9)), set(range(9)), {False, True})


def test_every_recipe_is_for_a_network_on_cifar10() -> None:
    assert {zoo.get(name).data for name in RECIPES} == {"cifar10"}


@pytest.mark.parametrize("recipe", [CifarRecipe(epochs=0), CifarRecipe(batch=91), CifarRecipe(batch=0)])
def test_impossible_recipe(place: Path, recipe: CifarRecipe) -> None:
    with pytest.raises(AIQError) as caught:
        train_on_cifar("resnet20", place, recipe=recipe, compile=False)
    assert str(caught.value) == (
        f"recipe: got {recipe.epochs} epochs of batches of {recipe.batch} for 90 images. "
        "Next: give at least 1 epoch and a batch of at most 90."
    )


def test_refusals(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownNameError, match="unknown network to train on CIFAR-10 'resnet2': did you mean"):
        train_on_cifar("resnet2", place)
    with pytest.raises(AIQError, match=r"weights 'no\.safetensors': no such file"):
        train_on_cifar("resnet20", place, recipe=TINY, start="no.safetensors", compile=False)
    out = str(tmp_path / "w.safetensors")
    for arguments, told in (
        (["--data", str(tmp_path)], "holds no CIFAR-10: known forms are "),
        (["--data", str(place)], "recipe: got 30 epochs of batches of 256 for 90 images."),
    ):
        assert main(["resnet20", "--out", out, *arguments]) == 1
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert said.err.startswith("error: ")
        assert told in said.err
    assert not Path(out).exists()


def test_stored_weights_load_into_the_network(trained: Trained, tmp_path: Path) -> None:
    trained.save(tmp_path / "w.safetensors")
    model = zoo.build("resnet20", pretrained=False)
    zoo.load_weights(model, tmp_path / "w.safetensors")
    for name, tensor in load_file(tmp_path / "w.safetensors").items():
        assert torch.equal(model.state_dict()[name], tensor.float())
