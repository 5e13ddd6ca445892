"""Training on the digits, and the statistics of accuracy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from aiq import zoo
from aiq.data import load_digits
from aiq.stats import wilson_interval
from aiq.zoo.train import DIGITS_RECIPE, Recipe, correct_answers, main, state_digest, train_digits
from hardware_specs.errors import AIQError

_SHORT = replace(DIGITS_RECIPE, epochs=2)


@pytest.fixture(autouse=True)
def _digits() -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def test_counting_answers_by_hand() -> None:
    report = load_digits("report")

    class Always(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.eye(10)[3].expand(len(x), 10)

    assert correct_answers(Always(), report) == int((report.y == 3).sum()) == 46


def test_two_short_runs_are_equal_and_leave_no_trace() -> None:
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    first = train_digits(recipe=_SHORT)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.rand(5)
    second = train_digits(recipe=_SHORT)
    assert state_digest(first.state) == state_digest(second.state)
    assert first.metadata == second.metadata
    assert torch.get_num_threads() == threads


def test_another_seed_gives_other_weights() -> None:
    once = replace(_SHORT, epochs=1)
    assert state_digest(train_digits(recipe=once).state) != state_digest(train_digits(seed=1, recipe=once).state)


def test_digest_sees_one_bit_and_no_order() -> None:
    state = {"a": torch.zeros(3), "b": torch.ones(2)}
    digest = state_digest(state)
    assert digest == state_digest(dict(reversed(list(state.items()))))
    state["a"][1] = torch.finfo(torch.float32).tiny
    assert digest != state_digest(state)


@pytest.mark.parametrize("recipe", [Recipe(epochs=0), Recipe(batch=899)])
def test_impossible_recipe(recipe: Recipe) -> None:
    with pytest.raises(AIQError) as caught:
        train_digits(recipe=recipe)
    assert str(caught.value) == (
        f"recipe: got {recipe.epochs} epochs of batches of {recipe.batch} for 898 images. "
        "Next: give at least 1 epoch and a batch of at most 898."
    )


def test_command_line_writes_weights_that_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made" / "w.safetensors"
    assert main(["digits_cnn", "--out", str(out), "--epochs", "2"]) == 0
    stated = _metadata(out)
    said = capsys.readouterr().out
    assert said.startswith(f"{out}: {stated['correct']} of 450 report images right, ")
    assert said.count("\n") == 1
    model = zoo.build("digits_cnn", pretrained=False)
    zoo.load_weights(model, out)
    assert state_digest(model.state_dict()) == stated["state_sha256"]
    assert correct_answers(model, load_digits("report")) == int(stated["correct"])


def test_command_line_tells_errors_and_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digits_cnn", "--out", str(tmp_path / "w.safetensors"), "--epochs", "0"]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err.count("error: recipe: got 0 epochs")) == ("", 1)
    with pytest.raises(SystemExit) as left:
        main(["resnet19"])
    assert left.value.code == 2
    capsys.readouterr()
    assert main(["resnet20", "--out", str(tmp_path / "w.safetensors")]) == 1
    assert "give --data PATH" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.27753),
        (10, 10, 0.72247, 1.0),
        (5, 10, 0.23659, 0.76341),
        (81, 263, 0.25529, 0.36621),
    ],
)
def test_wilson_interval(correct: int, n: int, low: float, high: float) -> None:
    """The last row is the worked example of Newcombe, Statistics in Medicine 17 (1998), Table I: 0.2553 to 0.3662."""
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=1e-5)


def test_wilson_interval_solves_its_equation() -> None:
    """Each bound b is a root of (p - b)² = z² b (1 - b) / n."""
    for bound in wilson_interval(447, 450):
        assert (447 / 450 - bound) ** 2 == pytest.approx(1.959963985**2 * bound * (1 - bound) / 450, rel=1e-6)


@pytest.mark.parametrize(("correct", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_interval_refuses_impossible_counts(correct: int, n: int) -> None:
    with pytest.raises(AIQError) as caught:
        wilson_interval(correct, n)
    assert str(caught.value) == (
        f"wilson_interval: got {correct} correct out of {n}. Next: give 0 <= correct <= n with n >= 1."
    )


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_wilson_interval_refuses_impossible_confidence(confidence: float) -> None:
    with pytest.raises(AIQError, match=f"got confidence {confidence!r}"):
        wilson_interval(1, 2, confidence=confidence)
