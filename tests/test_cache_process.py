"""The cache under many processes, under kill -9, on a disk that is full; and that it loads nothing heavy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from aiq.cache import EvaluationStore, open_store
from aiq.oracle import fingerprint_digest
from tests.commands import ROOT
from tests.evaluations import FINGERPRINT, evaluation, record, same, scheme

DIGEST = fingerprint_digest(FINGERPRINT)
KILLS = 10

_WRITER = """
import sys
from aiq.cache import open_store
from tests.evaluations import record
with open_store(sys.argv[1]) as store:
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        store.put(record(number))
        print(number, flush=True)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def missing(store: EvaluationStore, numbers: list[int]) -> list[int]:
    """Return which of the numbers' evaluations are not in the store as they were written."""
    found = {number: store.get(DIGEST, scheme(number).digest()) for number in numbers}
    return [number for number, got in found.items() if got is None or not same(got, evaluation(number))]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 is POSIX's")
def test_a_kill_at_any_moment_loses_no_finished_evaluation(here: Path) -> None:
    rng = np.random.default_rng(0)
    url, finished = "sqlite:///a.db", []
    for _ in range(KILLS):
        process = start(_WRITER, url, len(finished), 10**6)
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(rng.integers(1, 60))]
        time.sleep(rng.uniform(0, 0.01))
        process.kill()
        lines += process.stdout
        _, problems = process.communicate()
        assert (process.returncode, problems) == (-signal.SIGKILL, "")
        finished += [int(line) for line in lines if line.endswith("\n")]
        with open_store(url) as store:
            assert missing(store, finished) == []
            assert store.stats().evaluations - len(finished) in (0, 1)
    assert finished == list(range(len(finished)))
    assert len(finished) > 10 * KILLS


def test_what_is_missing_is_noticed() -> None:
    with open_store("none") as store:
        store.put(record(0))
        store.put(record(2))
        store._connection.execute("UPDATE evaluations SET seconds = seconds + 1e-12 WHERE rowid = 2")
        assert missing(store, [0, 1, 2]) == [1, 2]


def test_many_processes_write_the_same_keys(here: Path) -> None:
    url = "sqlite:///a.db"
    ranges = [(0, 80), (20, 100), (40, 120), (0, 120)]
    processes = [start(_WRITER, url, *ends) for ends in ranges]
    for process, (low, high) in zip(processes, ranges, strict=True):
        out, problems = process.communicate()
        assert (process.returncode, problems) == (0, "")
        assert out.split() == [str(number) for number in range(low, high)]
    with open_store(url) as store:
        assert missing(store, list(range(120))) == []
        keys = [found.key for found in store.records()]
        assert (len(keys), len(set(keys))) == (120, 120)
        assert (store.stats().oracles, store.stats().evaluations) == (1, 120)


_FULL = """
import resource, sys
from aiq.cache import CachedOracle, CacheWriteError, open_store
from tests.evaluations import ToyOracle, evaluation, same, scheme
with open_store(sys.argv[1]) as store:
    oracle = CachedOracle(ToyOracle(*map(evaluation, range(1000))), store, lambda scheme: scheme)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    try:
        for number in range(1000):
            oracle.evaluate(scheme(number))
    except CacheWriteError as error:
        assert same(error.evaluation, evaluation(number))
        print(number, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file size are POSIX's")
def test_a_file_that_may_not_grow(here: Path) -> None:
    process = start(_FULL, "sqlite:///a.db")
    out, problems = process.communicate()
    assert (process.returncode, problems) == (0, "")
    stored, _, sentence = out.rstrip("\n").partition(" ")
    assert sentence == (
        "cannot write evaluation cache 'a.db': reading or writing the disk failed. "
        "Next: check the disk and its free space, or name another file with --cache sqlite:///FILE."
    )
    assert int(stored) > 10
    with open_store("sqlite:///a.db") as store:
        assert missing(store, list(range(int(stored)))) == []
        assert store.stats().evaluations == int(stored)
        assert store.put(record(int(stored)))


_LIGHT = """
import sys
import aiq._cache_views
print(*{"torch", "matplotlib", "scipy", "pandas"} & {name.partition(".")[0] for name in sys.modules})
"""


@pytest.mark.parametrize(("code", "loaded"), [(_LIGHT, ""), ("import scipy\n" + _LIGHT, "scipy")])
def test_imports_are_light(code: str, loaded: str) -> None:
    out, problems = start(code).communicate()
    assert (out.strip(), problems) == (loaded, "")
