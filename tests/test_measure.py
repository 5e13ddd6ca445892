"""Timing interleaves: every round has one sample of each network, in an order that turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from aiq.runtimes import Arrays, Executed, Measurement, Step, measure, quiet_rounds
from aiq.runtimes import _measure as timing
from roofline.errors import InputError


class Recorded:
    """A prepared network that notes each pass, and takes the time that it is told on a made-up clock."""

    def __init__(self, name: str, log: list[str], seconds: float = 1.0) -> None:
        self.name, self.log, self.seconds = name, log, seconds
        self.batch = 4

    def run(self, inputs: Arrays) -> NDArray[np.float32]:
        self.log.append(self.name)
        CLOCK[0] += self.seconds
        return np.zeros((self.batch, 2), np.float32)

    def executed_precisions(self) -> Mapping[str, Executed]:
        return {}

    def profile(self, inputs: Arrays, *, passes: int = 20) -> Sequence[Step]:
        return ()


CLOCK = [0.0]


@pytest.fixture(autouse=True)
def made_up_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    CLOCK[0] = 0.0
    monkeypatch.setattr(timing.time, "perf_counter", lambda: CLOCK[0])


def test_rounds_take_all_networks_in_turn() -> None:
    log: list[str] = []
    rounds: list[tuple[int, int]] = []
    networks = [(Recorded(name, log), []) for name in "abc"]
    measure(networks, rounds=4, sample_s=1.0, progress=lambda *told: rounds.append(told))
    warm_up = 6
    assert log[: 3 * warm_up] == ["a"] * warm_up + ["b"] * warm_up + ["c"] * warm_up
    # One pass before each sample is not timed.
    assert "".join(log[3 * warm_up :]) == "aabbcc" + "bbccaa" + "ccaabb" + "aabbcc"
    assert rounds == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_sample_is_as_many_passes_as_fill_its_time() -> None:
    log: list[str] = []
    found = measure([(Recorded("slow", log, 2.0), []), (Recorded("fast", log, 0.5), [])], rounds=3, sample_s=2.0)
    assert log[12:].count("slow") == 3 * (1 + 1)
    assert log[12:].count("fast") == 3 * (2 + 4)
    assert [m.seconds for m in found.measurements] == [2.0, 0.5]
    assert [m.throughput for m in found.measurements] == [2.0, 8.0]


def test_median_and_spread_by_hand() -> None:
    """Of 1, 2, 3, 4 and 100 s: median 3, quartiles 2 and 4, spread 2/3."""
    found = timing._summary([3.0, 1.0, 100.0, 2.0, 4.0], batch=6)
    assert found == Measurement(3.0, pytest.approx(2 / 3), 5, 6, (3.0, 1.0, 100.0, 2.0, 4.0))
    assert found.throughput == 2.0


@pytest.mark.parametrize(
    ("before", "after", "stolen"),
    [((100, 5), (200, 30), 0.25), ((100, 5), (100, 5), None), (None, (200, 30), None), ((100, 5), None, None)],
)
def test_stolen_time(before: tuple[int, int] | None, after: tuple[int, int] | None, stolen: float | None) -> None:
    assert timing._stolen(before, after) == stolen


def test_too_few_rounds_are_refused() -> None:
    with pytest.raises(InputError, match=r"^measuring takes at least 3 rounds, got 2\. Next: raise it\.$"):
        measure([], rounds=2)


def test_rounds_in_which_all_ran_slower_are_told() -> None:
    random = np.random.default_rng(0)
    times = np.array([[1e-3], [2e-3], [5e-2]]) * (1 + 0.02 * random.standard_normal((3, 20)))
    assert quiet_rounds(times.tolist()).all()
    slow = times.copy()
    slow[:, 3:9] *= 1.4
    assert np.flatnonzero(~quiet_rounds(slow.tolist())).tolist() == [3, 4, 5, 6, 7, 8]
    alone = times.copy()
    alone[1, 3:9] *= 3.0
    assert quiet_rounds(alone.tolist()).all()
    assert quiet_rounds([[1.0, 2.0, 4.0]]).all()


@pytest.mark.parametrize(("taken", "planned"), [(0.002, (2, 5)), (0.009, (1, 2)), (0.04, (0, 1))])
def test_a_long_pass_has_none_before_it_that_is_not_timed(taken: float, planned: tuple[int, int]) -> None:
    assert timing._planned(Recorded("a", [], taken), [], 0.01) == planned
