"""The store of evaluations: one SQLite file that many processes read and write at once."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import RLock
from typing import Any, Self

from aiq._cache_errors import ELSEWHERE, CacheError, primary_code, worded
from aiq._cache_records import (
    Record,
    find_fault,
    metric_text,
    pack,
    read_metric,
    read_scheme,
    unpack,
)
from aiq.oracle import Evaluation, Metric, fingerprint_digest
from roofline.errors import InputError

SCHEMA_VERSION = 1
APPLICATION_ID = 0x41495131
BUSY_S = 60.0

_TABLES = (
    """CREATE TABLE oracles (
        fingerprint TEXT NOT NULL PRIMARY KEY, description TEXT NOT NULL, metric TEXT NOT NULL
    )""",
    """CREATE TABLE evaluations (
        fingerprint TEXT NOT NULL REFERENCES oracles, scheme TEXT NOT NULL, rules TEXT NOT NULL, value REAL NOT NULL,
        stderr REAL, n INTEGER NOT NULL, outcomes BLOB, kind TEXT, seconds REAL NOT NULL, work REAL NOT NULL,
        divergence REAL, created TEXT NOT NULL, PRIMARY KEY (fingerprint, scheme)
    )""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_RESULT = "value, stderr, n, outcomes, kind, seconds, work, divergence"


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store holds.

    Attributes:
        path: Its file; empty in memory.
        bytes: Size on disk, the write-ahead log included.
        oracles: Distinct fingerprints.
        evaluations: Evaluations of them.
        seconds: Wall-clock seconds that these evaluations took.
    """

    path: str
    bytes: int
    oracles: int
    evaluations: int
    seconds: float


@dataclass(frozen=True, eq=False)
class StoredOracle:
    """What a store holds of one oracle.

    Attributes:
        digest: Digest of its fingerprint.
        fingerprint: What its values depend on.
        metric: What its values mean.
        evaluations: How many schemes were evaluated.
        n: Most examples of one evaluation.
        best: Best value.
        seconds: Wall-clock seconds of all evaluations.
        last: When the last one was stored, UTC, ISO 8601.
    """

    digest: str
    fingerprint: dict[str, str]
    metric: Metric
    evaluations: int
    n: int
    best: float
    seconds: float
    last: str


class EvaluationStore:
    """Evaluations by oracle fingerprint and canonical scheme, in a SQLite file; use as a context manager, or close it.

    Any number of processes on one machine may read and write at once: the write-ahead log lets readers see the last
    commit while one writes, writers wait for each other for up to a minute, and the first finished evaluation of a
    key stays. A file on a network drive must be used by one machine at a time. Do not carry a store across ``fork``.

    A commit is handed to the operating system before :meth:`put` returns, so that killing the process at any moment
    loses no finished evaluation. ``synchronous`` is ``NORMAL``: commits do not wait for the disk, which makes storing a
    cheap evaluation over ten times faster than with ``FULL``. If the power fails, the file stays whole and only what
    the operating system had not yet written is lost, on Linux about the last half minute.

    Source: SQLite, Write-Ahead Logging, sqlite.org/wal.html, and PRAGMA synchronous, sqlite.org/pragma.html.
    """

    def __init__(self, path: Path | None, *, create: bool = True) -> None:
        """Open a file, or memory where there is none.

        Args:
            path: The file.
            create: Whether to make it where it does not exist.

        Raises:
            CacheError: It does not exist, cannot be opened, is damaged, or is not a cache of this version.
        """
        self.path = path
        self._lock = RLock()
        if path is not None and not create and not os.path.exists(path):
            raise CacheError(
                f"no evaluation cache {str(path)!r}. Next: run a search, which makes it, or check --cache."
            )
        with self._refused("open"):
            self._connection = self._connect("rwc" if create else "rw")
        try:
            with self._refused("open"):
                self._prepare()
        except BaseException:
            self.close()
            raise

    def _connect(self, mode: str) -> sqlite3.Connection:
        where = ":memory:" if self.path is None else f"{self.path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(where, BUSY_S, isolation_level=None, check_same_thread=False, uri=self.path is not None)

    def _prepare(self) -> None:
        """Make the tables where the database is empty; never touch a database that is anything else."""
        self._connection.execute("PRAGMA synchronous = NORMAL")
        if self._identity() == (0, 0, 0):
            self._set_journal()
            with self._transaction():
                if self._identity() == (0, 0, 0):
                    for statement in _TABLES:
                        self._connection.execute(statement)
        application, version, _ = self._identity()
        if application != APPLICATION_ID:
            raise CacheError(
                f"cannot open evaluation cache {self._name}: it is a database of another program. Next: {ELSEWHERE}."
            )
        if version != SCHEMA_VERSION:
            raise CacheError(
                f"cannot open evaluation cache {self._name}: it has format {version}, known: {SCHEMA_VERSION}. "
                f"Next: use the version of aiq that wrote it, or {ELSEWHERE}."
            )

    def _set_journal(self) -> None:
        """Switch to the write-ahead log; SQLite does not always wait here for others that open the same new file."""
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _identity(self) -> tuple[int, int, int]:
        """Return application id, schema version and number of tables, as of one moment."""
        (found,) = self._connection.execute(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master) "
            "FROM pragma_application_id, pragma_user_version"
        )
        return found[0], found[1], found[2]

    @property
    def _name(self) -> str:
        return "in memory" if self.path is None else repr(str(self.path))

    def _refused(self, verb: str) -> AbstractContextManager[None]:
        return worded(verb, self._name)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.rollback()
                raise

    def close(self) -> None:
        """Close the file."""
        with suppress(sqlite3.Error):
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def get(self, fingerprint: str, scheme: str) -> Evaluation | None:
        """Return the evaluation of two digests, or ``None``.

        Raises:
            CacheError: The file cannot be read.
        """
        with self._refused("read"), self._lock:
            row = self._connection.execute(
                f"SELECT {_RESULT} FROM evaluations WHERE fingerprint = ? AND scheme = ?", (fingerprint, scheme)
            ).fetchone()
            return None if row is None else _evaluation(row)

    def metric(self, fingerprint: str) -> Metric | None:
        """Return what the values of an oracle mean, or ``None`` where the store has none of it.

        Raises:
            CacheError: The file cannot be read.
        """
        with self._refused("read"), self._lock:
            row = self._connection.execute(
                "SELECT metric FROM oracles WHERE fingerprint = ?", (fingerprint,)
            ).fetchone()
            return None if row is None else read_metric(json.loads(row[0]))

    def put(self, record: Record) -> bool:
        """Store an evaluation unless its key is there already; when this returns, killing the process loses nothing.

        Returns:
            Whether it was stored.

        Raises:
            CacheError: The file cannot be written, or the fingerprint is there with another metric.
        """
        return bool(self.add([record])[0])

    def add(self, records: Iterable[Record]) -> tuple[int, int]:
        """Store all records or, where anything fails, none.

        Returns:
            How many were stored, and how many keys were there already.

        Raises:
            CacheError: As for :meth:`put`.
        """
        added = present = 0
        with self._refused("write"), self._transaction():
            for record in records:
                stored = self._insert(record)
                added, present = added + stored, present + (not stored)
        return added, present

    def _insert(self, record: Record) -> bool:
        digest, scheme_digest = record.key
        metric, execute = metric_text(record.metric), self._connection.execute
        execute(
            "INSERT INTO oracles VALUES (?, ?, ?) ON CONFLICT (fingerprint) DO NOTHING",
            (digest, _json(dict(record.fingerprint)), metric),
        )
        (stored,) = execute("SELECT metric FROM oracles WHERE fingerprint = ?", (digest,)).fetchone()
        if stored != metric:
            raise CacheError(
                f"cannot write evaluation cache {self._name}: it has fingerprint {digest[:12]} with metric {stored}, "
                f"got {metric}. Next: put the metric into the oracle's fingerprint."
            )
        e = record.evaluation
        numbers = e.value, e.stderr, e.n, *pack(e.outcomes), e.seconds, e.work, e.divergence
        done = execute(
            f"INSERT INTO evaluations VALUES ({', '.join('?' * 12)}) ON CONFLICT (fingerprint, scheme) DO NOTHING",
            (digest, scheme_digest, _json(record.scheme.to_dict()), *numbers, record.created),
        )
        return done.rowcount == 1

    def records(self) -> Iterator[Record]:
        """Yield every evaluation, oracle by oracle in the order they were stored, as of one moment.

        Raises:
            CacheError: The file cannot be read.
        """
        with self._refused("read"):
            rows = self._connection.execute(
                f"SELECT {_RESULT}, fingerprint, description, metric, scheme, rules, created FROM evaluations "
                "JOIN oracles USING (fingerprint) ORDER BY oracles.rowid, evaluations.rowid"
            )
            for row in rows:
                digest, description, metric, scheme_digest, rules, created = row[8:]
                scheme = read_scheme(json.loads(rules))
                if scheme.digest() != scheme_digest:
                    raise ValueError("a scheme that is not the one of its digest")
                fingerprint, meaning = _fingerprint(description, digest), read_metric(json.loads(metric))
                yield Record(fingerprint, meaning, scheme, _evaluation(row), created)

    def stats(self) -> StoreStats:
        """Return what the store holds.

        Raises:
            CacheError: The file cannot be read.
        """
        with self._refused("read"), self._lock:
            (row,) = self._connection.execute(
                "SELECT (SELECT count(*) FROM oracles), count(*), total(seconds) FROM evaluations"
            )
        path = "" if self.path is None else str(self.path)
        return StoreStats(path, sum(_size(path + suffix) for suffix in ("", "-wal")) if path else 0, *row)

    def oracles(self) -> list[StoredOracle]:
        """Return every oracle, the one that was used last first.

        Raises:
            CacheError: The file cannot be read.
        """
        with self._refused("read"), self._lock:
            rows = self._connection.execute(
                "SELECT fingerprint, description, metric, count(*), max(n), min(value), max(value), total(seconds), "
                "max(created) FROM evaluations JOIN oracles USING (fingerprint) GROUP BY fingerprint "
                "ORDER BY max(created) DESC, oracles.rowid DESC"
            )
            return [_stored_oracle(row) for row in rows]

    def prune(
        self, *, older_than_days: float | None = None, fingerprint: str | None = None, everything: bool = False
    ) -> int:
        """Remove evaluations, and oracles that have none left; exactly one argument says which.

        Args:
            older_than_days: Those that were stored longer ago than this.
            fingerprint: Those of the one oracle whose digest starts so.
            everything: All.

        Returns:
            How many evaluations were removed.

        Raises:
            InputError: Not exactly one argument, days below 0, or a prefix of no oracle or of several.
            CacheError: The file cannot be written.
        """
        if sum((older_than_days is not None, fingerprint is not None, everything)) != 1:
            raise InputError("say in exactly one way what to remove. Next: give --older-than, --fingerprint or --all.")
        values: tuple[str, ...] = ()
        if older_than_days is not None:
            condition, values = "created < ?", (_moment(older_than_days),)
        elif fingerprint is not None:
            condition, values = "fingerprint = ?", (self._one(fingerprint),)
        else:
            condition = "1"
        with self._refused("write"), self._transaction():
            removed = self._connection.execute(f"DELETE FROM evaluations WHERE {condition}", values).rowcount
            self._connection.execute(
                "DELETE FROM oracles WHERE fingerprint NOT IN (SELECT fingerprint FROM evaluations)"
            )
        return removed

    def _one(self, prefix: str) -> str:
        digests = [oracle.digest for oracle in self.oracles()]
        found = [digest for digest in digests if digest.startswith(prefix.lower())]
        if len(found) != 1:
            raise InputError(
                f"fingerprint {prefix!r} starts {len(found) or 'none'} of the {len(digests)} oracles in "
                f"{self._name}. Next: run 'aiq cache list' for their fingerprints, and give one's first characters."
            )
        return found[0]

    def compact(self) -> None:
        """Give the room of what was removed back to the disk.

        Raises:
            CacheError: The file cannot be written.
        """
        with self._refused("compact"), self._lock:
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _json(data: Any) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def _evaluation(row: Sequence[Any]) -> Evaluation:
    value, stderr, n, outcomes, kind, seconds, work, divergence = row[:8]
    evaluation = Evaluation(value, stderr, n, unpack(outcomes, kind, n), seconds, work, divergence)
    fault = find_fault(evaluation)
    if fault:
        raise ValueError(fault)
    return evaluation


def _fingerprint(text: str, digest: str) -> dict[str, str]:
    found = json.loads(text)
    if not isinstance(found, dict) or fingerprint_digest(found) != digest:
        raise ValueError("a fingerprint that is not the one of its digest")
    return found


def _stored_oracle(row: Sequence[Any]) -> StoredOracle:
    digest, description, metric, evaluations, n, low, high, seconds, last = row
    meaning = read_metric(json.loads(metric))
    best = high if meaning.higher_is_better else low
    return StoredOracle(digest, _fingerprint(description, digest), meaning, evaluations, n, best, seconds, last)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _moment(days: float) -> str:
    try:
        if days >= 0:
            return (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
    except OverflowError:
        pass
    raise InputError(f"an age of {days} days is out of range. Next: give a number of days, at least 0.")
