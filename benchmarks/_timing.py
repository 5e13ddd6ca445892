"""Interleaved timing: A B C A B C …, medians and spread, so that a drifting machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles


def interleaved(work: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Return the seconds of each piece of work, by name, ``rounds`` of each."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(warm_up + rounds):
        for name, call in work.items():
            started = time.perf_counter()
            call()
            if turn >= warm_up:
                times[name].append(time.perf_counter() - started)
    return times


def report(times: Mapping[str, list[float]], *, reference: str) -> None:
    """Print median, interquartile range and the median of the paired ratios to the reference."""
    print(f"{'':52}{'median':>12}{'IQR':>12}{'ratio':>10}   n")
    for name, seconds in times.items():
        low, _, high = quantiles(seconds, n=4)
        ratio = median(a / b for a, b in zip(seconds, times[reference], strict=True))
        print(f"{name:52}{1e3 * median(seconds):9.2f} ms{1e3 * (high - low):9.2f} ms{ratio:10.3f}   {len(seconds)}")
