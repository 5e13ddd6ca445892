"""Memory of a calibrated machine: caches as the system tells of them or as the rates show them, levels in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiq.calibrate import _bandwidth
from aiq.calibrate._bandwidth import Cache, ReadRate, caches, largest_size, memory_levels, read_rates, sizes, stepped

KIB, MIB = 1024, 1024**2


def tell(root: Path, cpu: int, index: int, facts: str) -> None:
    folder = root / f"cpu{cpu}" / "cache" / f"index{index}"
    folder.mkdir(parents=True)
    for key, text in zip(("level", "type", "size", "shared_cpu_list"), facts.split(), strict=True):
        (folder / key).write_text(f"{text}\n")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two cores with 48 KiB and 1 MiB each, and 32 MiB together."""
    monkeypatch.setattr(_bandwidth, "_processors", lambda: [0, 1])
    for cpu in (0, 1):
        levels = (f"1 Data 48K {cpu}", f"1 Instruction 32K {cpu}", f"2 Unified 1024K {cpu}", "3 Unified 32M 0-1")
        for index, facts in enumerate(levels):
            tell(tmp_path, cpu, index, facts)
    return tmp_path


def rates(*found: float, threads: int = 2) -> list[ReadRate]:
    return [ReadRate(16 * KIB << power, threads, rate, 0.01) for power, rate in enumerate(found)]


def test_own_caches_add_up_and_a_shared_one_counts_once(system: Path) -> None:
    assert [(c.name, c.bytes) for c in caches(2, system)] == [("l1", 96 * KIB), ("l2", 2 * MIB), ("l3", 32 * MIB)]
    assert [(c.name, c.bytes) for c in caches(1, system)] == [("l1", 48 * KIB), ("l2", MIB), ("l3", 32 * MIB)]


def test_a_system_that_tells_nothing_has_no_caches(tmp_path: Path) -> None:
    assert caches(2, tmp_path) == ()


def test_a_cache_of_unreadable_size_is_left_out(system: Path) -> None:
    for cpu in (0, 1):
        (system / f"cpu{cpu}" / "cache" / "index2" / "size").write_text("many\n")
    assert [c.name for c in caches(2, system)] == ["l1", "l3"]


def test_sizes_double_up_to_four_times_the_last_cache() -> None:
    assert sizes(64 * KIB) == (16 * KIB, 32 * KIB, 64 * KIB)
    assert sizes(65 * KIB)[-1] == 128 * KIB
    assert largest_size([Cache("l3", 32 * MIB, "")]) == 128 * MIB
    assert largest_size([]) == 64 * MIB
    assert largest_size([Cache("l3", 900 * MIB, "")]) == 1024 * MIB


def test_reads_have_the_threads_and_sizes_that_were_asked_for() -> None:
    found = read_rates((16 * KIB, 32 * KIB), threads=2, repeats=3)
    assert [(rate.bytes, rate.threads) for rate in found] == [(16 * KIB, 2), (32 * KIB, 2)]
    assert all(rate.bytes_per_s > 1e6 and rate.spread >= 0 for rate in found)


def test_caches_end_where_the_rate_falls() -> None:
    found = stepped(rates(100, 102, 98, 50, 51, 49, 10, 10.5, 10))
    assert [(c.name, c.bytes) for c in found] == [("l1", 64 * KIB), ("l2", 512 * KIB)]
    assert stepped(rates(100, 90, 80, 75)) == ()


def test_levels_take_the_rate_of_sizes_that_only_they_hold() -> None:
    known = (Cache("l1", 96 * KIB, "told"), Cache("l2", 2 * MIB, "told"))
    together = rates(90, 100, 95, 60, 70, 65, 60, 40, 20, 10, 10.5)
    found = memory_levels(rates(50, 50), together, known, context="on a machine, 2026-11-21")
    assert [(level.name, level.bandwidth_bytes_per_s.value) for level in found] == [
        ("dram", 10.5),
        ("l2", 70.0),
        ("l1", 100.0),
    ]
    assert [level.capacity_bytes.value for level in found[1:] if level.capacity_bytes] == [2 * MIB, 96 * KIB]
    assert "one thread 50 B/s; on a machine, 2026-11-21" in found[0].bandwidth_bytes_per_s.source


def test_an_inner_level_is_never_slower_than_one_outside_it() -> None:
    known = (Cache("l1", 96 * KIB, "told"),)
    found = memory_levels(rates(5, 5), rates(5, 5, 5, 20, 20), known, context="2026-11-21")
    assert [level.bandwidth_bytes_per_s.value for level in found] == [20.0, 20.0]
