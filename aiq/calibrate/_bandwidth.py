"""Memory bandwidth by working-set size, and the memory levels that it shows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import as_strided

from hardware_specs import MemoryLevel, Quantity, Rated

KIB, MIB = 1024, 1024**2
SMALLEST = 16 * KIB
_LEAST_LARGEST, _MOST_LARGEST = 64 * MIB, 1024 * MIB
_TIMES_CACHE = 4
_SAMPLE_S = 2e-3
_MOST_TURNS = 2**20
# Where a rate falls below this share of its plateau, a cache has ended.
_STEP = 0.7
_CACHES = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Cache:
    """A level of cache.

    Attributes:
        name: ``l1``, ``l2``, …
        bytes: Capacity of all that the threads use together.
        source: How it is known.
    """

    name: str
    bytes: float
    source: str


@dataclass(frozen=True, slots=True)
class ReadRate:
    """How fast a working set is read over and over.

    Attributes:
        bytes: Of the working set, all threads together.
        threads: Threads, each with a part of its own.
        bytes_per_s: Median over repeats, all threads together.
        spread: Interquartile range over the median.
    """

    bytes: int
    threads: int
    bytes_per_s: float
    spread: float


def caches(threads: int, root: Path = _CACHES) -> tuple[Cache, ...]:
    """Return the data caches that the operating system tells of, innermost first; none where it does not.

    A cache that each core has for itself counts once for each of the first ``threads`` processors.
    """
    found: dict[str, float] = {}
    shared: set[tuple[str, str]] = set()
    for cpu in _processors()[:threads]:
        for folder in sorted((root / f"cpu{cpu}" / "cache").glob("index*")):
            try:
                kind, level, size = ((folder / key).read_text().strip() for key in ("type", "level", "size"))
                siblings = (folder / "shared_cpu_list").read_text().strip()
                capacity = float(size.rstrip("KMG")) * {"K": KIB, "M": MIB, "G": KIB * MIB}.get(size[-1:], 1)
            except (OSError, ValueError):
                continue
            name = f"l{level}"
            if kind != "Instruction" and (name, siblings) not in shared:
                shared.add((name, siblings))
                found[name] = found.get(name, 0.0) + capacity
    source = f"as the processor tells the operating system, {root}/cpu*/cache, of {threads} threads"
    return tuple(Cache(name, capacity, source) for name, capacity in sorted(found.items()))


def _processors() -> list[int]:
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))


def sizes(largest: int) -> tuple[int, ...]:
    """Return working sets from 16 KiB up, each twice the one before, the last at least ``largest`` bytes."""
    count = max(int(np.ceil(np.log2(largest / SMALLEST))), 0)
    return tuple(SMALLEST << power for power in range(count + 1))


def largest_size(known: Sequence[Cache]) -> int:
    """Return a working set that no cache holds: four times the last of them, from 64 MiB to 1 GiB."""
    last = max((cache.bytes for cache in known), default=0.0)
    return int(np.clip(_TIMES_CACHE * last, _LEAST_LARGEST, _MOST_LARGEST))


def read_rates(working_sets: Sequence[int], *, threads: int, repeats: int = 5) -> tuple[ReadRate, ...]:
    """Read working sets of each size over and over, and time it.

    Each thread takes the largest value of a float32 buffer of its own, which numpy finds with vector instructions and
    without the interpreter's lock; one sample reads it as often as takes 2 ms.

    Args:
        working_sets: Bytes, all threads together.
        threads: Threads.
        repeats: Samples of each.
    """
    with ThreadPoolExecutor(threads) as pool:
        return tuple(_rate(pool, size, threads, repeats) for size in working_sets)


def _rate(pool: ThreadPoolExecutor, size: int, threads: int, repeats: int) -> ReadRate:
    values = max(size // threads // 4, 1)
    buffers = [np.ones(values, np.float32) for _ in range(threads)]
    turns = 1
    while (once := min(_pass(pool, buffers, turns) for _ in range(3))) < _SAMPLE_S and turns < _MOST_TURNS:
        turns *= int(np.clip(1.5 * _SAMPLE_S / once, 2, 64))
    seconds = [_pass(pool, buffers, turns) for _ in range(repeats)]
    low, median, high = np.percentile(seconds, [25, 50, 75])
    read = turns * sum(buffer.nbytes for buffer in buffers)
    return ReadRate(size, threads, float(read / median), float((high - low) / median))


def _pass(pool: ThreadPoolExecutor, buffers: Sequence[np.ndarray], turns: int) -> float:
    def read(buffer: np.ndarray) -> None:
        repeated = as_strided(buffer, (turns, len(buffer)), (0, buffer.itemsize), writeable=False)
        np.maximum.reduce(repeated, axis=1)

    started = time.perf_counter()
    if len(buffers) == 1:
        read(buffers[0])
    else:
        list(pool.map(read, buffers))
    return time.perf_counter() - started


def stepped(rates: Sequence[ReadRate]) -> tuple[Cache, ...]:
    """Find caches where nothing tells of them: one ends where the rate falls below 0.7 of its plateau.

    Args:
        rates: By rising size.
    """
    found: list[Cache] = []
    plateau: list[float] = []
    for before, rate in zip([None, *rates[:-1]], rates, strict=True):
        if before and plateau and rate.bytes_per_s < _STEP * float(np.median(plateau)):
            if len(plateau) > 1:
                found.append(Cache(f"l{len(found) + 1}", float(before.bytes), "where the measured read rate falls"))
            plateau = []
        plateau.append(rate.bytes_per_s)
    return tuple(found)


def memory_levels(
    alone: Sequence[ReadRate], together: Sequence[ReadRate], known: Sequence[Cache], *, context: str
) -> tuple[MemoryLevel, ...]:
    """Return the levels of memory, outermost first, each with the rate of the working sets that it alone holds.

    No level is stated slower than one outside it: where noise says so, it takes that one's rate.

    Args:
        alone: Read rates of one thread, by rising size.
        together: Those of all threads.
        known: Caches, innermost first.
        context: What ran it, on what, and when: the end of every source.
    """
    found: list[MemoryLevel] = []
    fastest = 0.0
    for cache, own, single in reversed(list(_plateaus(alone, together, known))):
        fastest = max(fastest, own.bytes_per_s)
        source = (
            f"median of repeated reads of {own.bytes / KIB:.0f} KiB by {own.threads} threads, each its own part "
            f"(numpy maximum of float32), spread {own.spread:.1%}; one thread {single.bytes_per_s:.3g} B/s; {context}"
        )
        found.append(
            MemoryLevel(
                name=cache.name if cache else "dram",
                bandwidth_bytes_per_s=Rated(value=_four(fastest), kind="measured", source=source),
                capacity_bytes=Quantity(value=cache.bytes, kind="datasheet", source=f"{cache.source}; {context}")
                if cache
                else None,
            )
        )
    return tuple(found)


def _plateaus(
    alone: Sequence[ReadRate], together: Sequence[ReadRate], known: Sequence[Cache]
) -> Iterator[tuple[Cache | None, ReadRate, ReadRate]]:
    """Yield each cache, then memory, with the rate of a size well inside it and well outside the one before."""
    inner = 0.0
    for cache in (*known, None):
        outer = cache.bytes if cache else float("inf")
        inside = [rate for rate in together if inner < rate.bytes <= 0.75 * outer]
        if cache is None:
            inside = list(together[-1:])
        if inside:
            own = max(inside, key=lambda rate: rate.bytes_per_s) if cache else inside[0]
            yield cache, own, min(alone, key=lambda rate: abs(rate.bytes - own.bytes))
            inner = outer


def _four(value: float) -> float:
    return float(f"{value:.4g}")
