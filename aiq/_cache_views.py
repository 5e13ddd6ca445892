"""What people see of the cache of evaluations."""

from __future__ import annotations

from collections.abc import Sequence

from aiq.cache import StoredOracle, StoreStats
from aiq.report import Column, Report
from roofline.units import number, si

_SHOWN = ("model", "data", "split")


def _bytes(value: float) -> str:
    return si(value, "B")


def _duration(value: float) -> str:
    return si(value, "s") if value < 600 else f"{number(value / 3600)} h"


def _counted(count: int, one: str) -> str:
    return f"{count} {one}{'' if count == 1 else 's'}"


def stats_report(stats: StoreStats) -> Report:
    """Show what a cache holds: one row."""
    row = {
        "path": stats.path or None,
        "bytes": stats.bytes,
        "oracles": stats.oracles,
        "evaluations": stats.evaluations,
        "seconds": stats.seconds,
    }
    headline = (
        f"{_counted(stats.evaluations, 'evaluation')} of {_counted(stats.oracles, 'oracle')}, which took "
        f"{_duration(stats.seconds)} to measure"
    )
    columns = (
        Column("path", "file"),
        Column("bytes", "size", _bytes, right=True),
        Column("oracles", "oracles", right=True),
        Column("evaluations", "evaluations", right=True),
        Column("seconds", "measured in", _duration, right=True),
    )
    return Report(headline, columns, [row], [], {"schema_version": 1, **row})


def oracles_report(oracles: Sequence[StoredOracle]) -> Report:
    """Show the oracles of a cache: one row for each, the one that was used last first."""
    rows = [
        {
            "fingerprint": oracle.digest,
            **{key: oracle.fingerprint.get(key) for key in _SHOWN},
            "metric": oracle.metric.name,
            "n": oracle.n,
            "evaluations": oracle.evaluations,
            "best": oracle.best,
            "seconds": oracle.seconds,
            "last": oracle.last,
        }
        for oracle in oracles
    ]
    columns = (
        Column("fingerprint", "fingerprint", lambda digest: str(digest)[:12]),
        Column("model", "model"),
        Column("metric", "metric"),
        Column("data", "data", drop=4),
        Column("split", "split", drop=3),
        Column("n", "n", right=True, drop=5),
        Column("evaluations", "evaluations", right=True),
        Column("best", "best value", lambda value: number(value, digits=4), right=True),
        Column("seconds", "measured in", _duration, right=True, drop=2),
        Column("last", "last stored (UTC)", lambda text: str(text)[:16].replace("T", " "), drop=1),
    )
    count = sum(oracle.evaluations for oracle in oracles)
    headline = f"{_counted(len(oracles), 'oracle')} with {_counted(count, 'evaluation')}, last stored first"
    data = [{**row, "description": oracle.fingerprint} for row, oracle in zip(rows, oracles, strict=True)]
    return Report(headline, columns, rows, [], {"schema_version": 1, "oracles": data})
