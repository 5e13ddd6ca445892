"""A search killed twenty times ends as one that was left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
KILLS = 20
FREE_OF_HISTORY = ("cache_hits", "seconds", "work", "total_work", "report_evaluations")


def _run(*arguments: str) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "killing.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_twenty_kills_lose_nothing_and_change_no_answer(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")
    options = ("digits_cnn", "--formats", "w4,w3,w2", "--traffic", "paper", "--strategy", "greedy", "--format", "json")
    killed = str(tmp_path / "killed.sqlite3")
    found = _run(killed, str(KILLS), "0", *options, "--cache", f"sqlite:///{killed}")
    alone = str(tmp_path / "alone.sqlite3")
    expected = _run(alone, "0", "0", *options, "--cache", f"sqlite:///{alone}")
    assert found["landed"] == KILLS
    assert found["counts"] == sorted(found["counts"])
    assert 0 < found["counts"][-1] < found["final"]["evaluations"]
    assert (found["status"], expected["status"]) == (0, 0)
    for result in (found["final"], expected["final"]):
        for key in FREE_OF_HISTORY:
            result.pop(key, None)
    assert found["final"] == expected["final"]
