"""What can go wrong with the cache of evaluations, one sentence each."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from aiq.oracle import Evaluation
from roofline.errors import AIQError

ELSEWHERE = "name another file with --cache sqlite:///FILE"
_REFUSALS = {
    sqlite3.SQLITE_FULL: ("the disk is full", f"free some space, or {ELSEWHERE}"),
    sqlite3.SQLITE_READONLY: ("the file or its folder is read-only", f"make both writable, or {ELSEWHERE}"),
    sqlite3.SQLITE_BUSY: ("another process keeps it locked", "wait for that process, or end it"),
    sqlite3.SQLITE_NOTADB: ("it is no SQLite database", f"move it away, or {ELSEWHERE}"),
    sqlite3.SQLITE_CORRUPT: ("it is damaged or truncated", f"restore or move it away, or {ELSEWHERE}"),
    sqlite3.SQLITE_IOERR: ("reading or writing the disk failed", f"check the disk and its free space, or {ELSEWHERE}"),
    sqlite3.SQLITE_CANTOPEN: (
        "it cannot be opened",
        f"check that its folder exists and is writable and that it is a file, or {ELSEWHERE}",
    ),
}


class CacheError(AIQError):
    """An evaluation cache that cannot be opened, read or written, or whose file is not one."""


class CacheWriteError(CacheError):
    """A finished evaluation that could not be stored.

    Attributes:
        evaluation: What was measured; it is lost unless the caller keeps it.
    """

    def __init__(self, text: str, evaluation: Evaluation) -> None:
        super().__init__(text)
        self.evaluation = evaluation


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's result code without its details; 0 where the error is not SQLite's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


@contextmanager
def worded(verb: str, name: str) -> Iterator[None]:
    """Turn what SQLite refuses, and rows that do not read back, into :class:`CacheError`.

    Args:
        verb: What is done.
        name: To which cache.
    """
    try:
        yield
    except sqlite3.Error as error:
        why, step = _REFUSALS.get(primary_code(error), (str(error).rstrip("."), ELSEWHERE))
        raise CacheError(f"cannot {verb} evaluation cache {name}: {why}. Next: {step}.") from error
    except (ValueError, RecursionError) as error:
        why, step = _REFUSALS[sqlite3.SQLITE_CORRUPT]
        raise CacheError(f"cannot {verb} evaluation cache {name}: {why} ({error}). Next: {step}.") from error
