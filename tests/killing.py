"""Run a search again and again and kill it: ``python killing.py CACHE KILLS SEED ARGUMENTS...``; prints JSON.

The searches are forked from a process that has imported everything and computed nothing, so that a start is cheap.
Each is killed by SIGKILL a random moment after a random number of further evaluations have reached the cache.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

Rows = dict[tuple[str, str], tuple[Any, ...]]
_LONGEST_S = 120.0


def rows(cache: str) -> Rows:
    """Return every evaluation in the cache by its key, straight from the file."""
    if not Path(cache).exists():
        return {}
    with sqlite3.connect(f"file:{cache}?mode=ro", uri=True, timeout=30) as database:
        try:
            found = database.execute("SELECT * FROM evaluations").fetchall()
        except sqlite3.OperationalError:
            return {}
    return {(row[0], row[1]): row for row in found}


def search(arguments: list[str], out: str) -> int:
    """Fork a search; return its process."""
    process = os.fork()
    if process:
        return process
    import cli

    sink = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(sink, 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.argv = ["aiq", "search", *arguments]
    try:
        cli.main()
    except SystemExit as leaving:
        sys.stdout.flush()
        os._exit(int(leaving.code or 0))
    sys.stdout.flush()
    os._exit(0)


def _ended(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def main() -> None:
    import sklearn.datasets
    import torch

    import oracles.accuracy

    assert torch and sklearn.datasets and oracles.accuracy
    cache, kills, seed, arguments = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    draw, out = random.Random(seed), f"{cache}.json"
    seen: Rows = {}
    landed, counts = 0, []
    for _ in range(kills):
        process, enough, started = search(arguments, out), len(seen) + draw.randint(0, 4), time.monotonic()
        while len(rows(cache)) < enough and time.monotonic() - started < _LONGEST_S and not _ended(process):
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, 0.05))
        before = rows(cache)
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        landed += os.WIFSIGNALED(status)
        after = rows(cache)
        for known in (seen, before):
            missing = [key for key, row in known.items() if after.get(key) != row]
            if missing:
                raise SystemExit(f"{len(missing)} evaluations were lost or changed")
        seen = after
        counts.append(len(after))
    _, status = os.waitpid(search(arguments, out), 0)
    final = json.loads(Path(out).read_text("utf-8"))
    sys.stdout.write(json.dumps({"landed": landed, "counts": counts, "status": status, "final": final}))


if __name__ == "__main__":
    main()
