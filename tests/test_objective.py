"""The objective: merits, gains and L by hand, and the wording of refusals."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiq.objective import NORMALISATIONS, TARGETS, Objective
from roofline.errors import InputError


@pytest.mark.parametrize(("target", "merit"), [("ai", 30.0), ("latency", 500.0), ("memory", 1e-6)])
def test_merit_of_each_target(target: str, merit: float) -> None:
    objective = Objective(target)
    assert objective.merit(arithmetic_intensity=30.0, latency_s=2e-3, weight_bytes=1e6) == pytest.approx(
        merit, rel=1e-15
    )


# Merit 30 between a baseline of 20 and a best of 60, loss 2.
@pytest.mark.parametrize(
    ("normalise", "gain", "value"),
    [
        ("raw", 30.0, -0.75 * 30 + 0.25 * 2),
        ("relative", 1.5, -0.75 * 1.5 + 0.25 * 2),
        ("minmax", 0.25, -0.75 * 0.25 + 0.25 * 2),
    ],
)
def test_gain_and_value_by_hand(normalise: str, gain: float, value: float) -> None:
    objective = Objective("ai", 0.75, normalise)
    assert objective.gain(30.0, baseline=20.0, best=60.0) == gain
    assert objective.value(30.0, 2.0, baseline=20.0, best=60.0) == pytest.approx(value, rel=1e-15)


def test_defaults_are_the_documented_ones() -> None:
    assert Objective() == Objective(target="ai", lam=0.9, normalise="minmax")
    assert TARGETS == ("ai", "latency", "memory")
    assert NORMALISATIONS == ("raw", "relative", "minmax")


@pytest.mark.parametrize("best", [20.0, 19.0])
def test_nothing_to_gain_is_a_gain_of_zero(best: float) -> None:
    assert Objective(normalise="minmax").gain(20.0, baseline=20.0, best=best) == 0.0


@pytest.mark.parametrize("normalise", NORMALISATIONS)
@given(merit=st.floats(1, 1e6), loss=st.floats(0, 1e3))
def test_ends_of_lambda_weigh_one_side_only(normalise: str, merit: float, loss: float) -> None:
    assert Objective("ai", 0.0, normalise).value(merit, loss, baseline=1.0, best=1e6) == loss
    value = Objective("ai", 1.0, normalise).value(merit, loss, baseline=1.0, best=1e6)
    assert value == -Objective("ai", 1.0, normalise).gain(merit, baseline=1.0, best=1e6)


@pytest.mark.parametrize("normalise", NORMALISATIONS)
@given(lam=st.floats(0.01, 0.99), merits=st.tuples(st.floats(1, 1e3), st.floats(1, 1e3)), loss=st.floats(0, 100))
def test_more_merit_never_raises_l_and_more_loss_never_lowers_it(
    normalise: str, lam: float, merits: tuple[float, float], loss: float
) -> None:
    objective = Objective("ai", lam, normalise)
    low, high = sorted(merits)
    at = {"baseline": 1.0, "best": 1e3}
    assert objective.value(high, loss, **at) <= objective.value(low, loss, **at)
    assert objective.value(low, loss + 1, **at) > objective.value(low, loss, **at)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("AI",), "unknown target 'AI': known: ai, latency, memory. Next: choose one."),
        (("ai", 0.5, "max"), "unknown normalisation 'max': known: raw, relative, minmax. Next: choose one."),
        (("ai", 1.5), "lambda must lie in [0, 1], got 1.5. Next: 0 weighs only accuracy, 1 only the gain."),
        (("ai", -0.1), "lambda must lie in [0, 1], got -0.1. Next: 0 weighs only accuracy, 1 only the gain."),
        (("ai", float("nan")), "lambda must lie in [0, 1], got nan. Next: 0 weighs only accuracy, 1 only the gain."),
        (("ai", float("inf")), "lambda must lie in [0, 1], got inf. Next: 0 weighs only accuracy, 1 only the gain."),
    ],
)
def test_refusals(arguments: tuple[object, ...], text: str) -> None:
    with pytest.raises(InputError) as caught:
        Objective(*arguments)  # type: ignore[arg-type]
    assert str(caught.value) == text


def test_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Objective().lam = 0.5  # type: ignore[misc]
