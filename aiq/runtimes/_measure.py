"""Timing: several prepared networks in turn, round after round, so that drift of the machine meets all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aiq.runtimes._protocol import Arrays, Prepared
from roofline.errors import InputError

SAMPLE_S = 0.01
_WARM_UP = 3
_MOST_UNTIMED = 5
_MOST_REPEATS = 10_000


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
    passes are to be timed as they run back to back.

    Args:
        networks: What to run, and on what.
        rounds: Samples of each, at least 3.
        sample_s: Least seconds of a sample.
        progress: Called after each round with its number and their count.

    Raises:
        InputError: Fewer than 3 rounds.
    """
    if rounds < 3:
        raise InputError(f"measuring takes at least 3 rounds, got {rounds}. Next: raise it.")
    repeats = [_repeats(network, inputs, sample_s) for network, inputs in networks]
    before = _processor_times()
    samples: list[list[float]] = [[] for _ in networks]
    count = len(networks)
    for number in range(rounds):
        for step in range(count):
            index = (step + number) % count
            network, inputs = networks[index]
            samples[index].append(_sample(network, inputs, repeats[index]))
        if progress:
            progress(number + 1, rounds)
    found = tuple(_summary(values, network.batch) for values, (network, _) in zip(samples, networks, strict=True))
    return Timing(found, _stolen(before, _processor_times()))


def _repeats(network: Prepared, inputs: Arrays, sample_s: float) -> int:
    for _ in range(_WARM_UP):
        network.run(inputs)
    once = min(_timed(network, inputs, 1) for _ in range(_WARM_UP))
    return int(np.clip(np.ceil(sample_s / max(once, 1e-7)), 1, _MOST_REPEATS))


def _sample(network: Prepared, inputs: Arrays, repeats: int) -> float:
    for _ in range(min(max(repeats // 2, 1), _MOST_UNTIMED)):
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
