"""Timing: several prepared networks in turn, round after round, so that drift of the machine meets all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aiq.runtimes._protocol import Arrays, Prepared
from roofline.errors import InputError

SAMPLE_S = 0.01
_WARM_UP = 3
# A pass of so many samples' time gains nothing worth its time from one before it.
LONG = 4.0
_MOST_UNTIMED = 5
_MOST_REPEATS = 10_000
_DISTURBED = 1.15
_FEWEST = 3


@dataclass(frozen=True, slots=True)
class Measurement:
    """The time of one pass.

    Attributes:
        seconds: Median over samples.
        spread: Interquartile range over the median.
        samples: Number of samples.
        batch: Examples in a pass.
        rounds: Every sample, seconds, in the order of rounds.
    """

    seconds: float
    spread: float
    samples: int
    batch: int
    rounds: tuple[float, ...]

    @property
    def throughput(self) -> float:
        """Examples a second."""
        return self.batch / self.seconds


@dataclass(frozen=True, slots=True)
class Timing:
    """Measurements of several networks, taken together.

    Attributes:
        measurements: One a network.
        stolen: Share of processor time that the hypervisor gave to others meanwhile; ``None`` where it is not told.
    """

    measurements: tuple[Measurement, ...]
    stolen: float | None


def measure(
    networks: Sequence[tuple[Prepared, Arrays]],
    *,
    rounds: int = 15,
    sample_s: float = SAMPLE_S,
    progress: Callable[[int, int], None] | None = None,
) -> Timing:
    """Time networks interleaved: one sample of each in every round, in an order that turns round by round.

    A sample is the mean of as many passes as take about ``sample_s`` seconds. Half as many, one to five, run before it
    and are not timed: the network before has left nothing of this one in the caches and has other threads awake, and
    passes are to be timed as they run back to back. One that takes four times ``sample_s`` or longer does without.

    Args:
        networks: What to run, and on what.
        rounds: Samples of each, at least 3.
        sample_s: Least seconds of a sample.
        progress: Called after each round with its number and their count.

    Raises:
        InputError: Fewer than 3 rounds.
    """
    if rounds < _FEWEST:
        raise InputError(f"measuring takes at least {_FEWEST} rounds, got {rounds}. Next: raise it.")
    plans = [_planned(network, inputs, sample_s) for network, inputs in networks]
    before = _processor_times()
    samples: list[list[float]] = [[] for _ in networks]
    count = len(networks)
    for number in range(rounds):
        for step in range(count):
            index = (step + number) % count
            network, inputs = networks[index]
            samples[index].append(_sample(network, inputs, *plans[index]))
        if progress:
            progress(number + 1, rounds)
    found = tuple(_summary(values, network.batch) for values, (network, _) in zip(samples, networks, strict=True))
    return Timing(found, _stolen(before, _processor_times()))


def quiet_rounds(samples: Sequence[Sequence[float]]) -> NDArray[np.bool_]:
    """Tell the rounds in which the machine was as fast as it is most of the time from those in which all ran slower.

    A round's slowness is the median, over networks, of its sample over that network's median; a round is disturbed
    where this is more than 15 % above the lower quartile of all rounds. What slows one network alone does not count.

    Args:
        samples: Seconds of each network in each round, [networks, rounds].

    Returns:
        Whether each round is quiet, [rounds]: at least a quarter of them are, and at least three.
    """
    values = np.asarray(samples, dtype=float)
    slowness = np.median(values / np.median(values, axis=1, keepdims=True), axis=0)
    found: NDArray[np.bool_] = slowness <= _DISTURBED * np.quantile(slowness, 0.25)
    found[np.argsort(slowness, kind="stable")[:_FEWEST]] = True
    return found


def _planned(network: Prepared, inputs: Arrays, sample_s: float) -> tuple[int, int]:
    """Return how many passes of a sample run before it and are not timed, and how many are."""
    network.run(inputs)
    once = _timed(network, inputs, 1)
    if once >= LONG * sample_s:
        return 0, 1
    for _ in range(_WARM_UP - 1):
        network.run(inputs)
    once = min(once, *(_timed(network, inputs, 1) for _ in range(_WARM_UP - 1)))
    repeats = int(np.clip(np.ceil(sample_s / max(once, 1e-7)), 1, _MOST_REPEATS))
    return min(max(repeats // 2, 1), _MOST_UNTIMED), repeats


def _sample(network: Prepared, inputs: Arrays, untimed: int, repeats: int) -> float:
    for _ in range(untimed):
        network.run(inputs)
    return _timed(network, inputs, repeats)


def _timed(network: Prepared, inputs: Arrays, repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        network.run(inputs)
    return (time.perf_counter() - started) / repeats


def _summary(values: Sequence[float], batch: int) -> Measurement:
    low, median, high = np.percentile(values, [25, 50, 75])
    return Measurement(float(median), float((high - low) / median), len(values), batch, tuple(values))


def _processor_times() -> tuple[int, int] | None:
    """Return the ticks of all processors together and those stolen, from Linux's ``/proc/stat``."""
    try:
        fields = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    return (sum(fields), fields[7]) if len(fields) == 8 else None


def _stolen(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    if before is None or after is None or after[0] <= before[0]:
        return None
    return (after[1] - before[1]) / (after[0] - before[0])
