"""The cache's file: where it is, and one sentence for each file that is no cache or cannot be written."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Timer

import numpy as np
import pytest

from aiq import _cache_store
from aiq.cache import (
    CachedOracle,
    CacheError,
    CacheWriteError,
    EvaluationStore,
    cache_path,
    export_lines,
    open_store,
)
from roofline.errors import InputError
from tests.commands import ROOT
from tests.evaluations import ToyOracle, evaluation, record, same, scheme

ELSEWHERE = "name another file with --cache sqlite:///FILE."


@pytest.fixture
def filled(here: Path) -> Path:
    path = here / "a.db"
    with open_store("sqlite:///a.db") as store:
        store.add(record(number) for number in range(200))
    return path


def refused(url: str, *, create: bool = True) -> str:
    with pytest.raises(CacheError) as caught:
        open_store(url, create=create)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.db", "with space.db", "a?mode=ro.db", "50%20#.db", "ü.db", ":memory:x", "none"])
def test_any_path_is_usable(name: str, here: Path) -> None:
    for url in (f"sqlite:///{name}", f"sqlite:///{here / name}", f"sqlite:///./{name}"):
        with open_store(url) as store:
            store.put(record(0))
            assert store.stats().evaluations == 1
    assert [path.name for path in here.iterdir()] == [name]


def test_the_home_directory_is_found(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("USERPROFILE", str(here))
    open_store("sqlite:///~/a.db").close()
    assert (here / "a.db").exists()


@pytest.mark.parametrize("url", ["none", "sqlite://", "sqlite:///:memory:"])
def test_nothing_on_disk(url: str, here: Path) -> None:
    with open_store(url) as store:
        store.put(record(0))
        assert (store.stats().path, store.stats().bytes, store.stats().evaluations) == ("", 0, 1)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("url", ["a.db", "", "sqlite:///", "sqlite:a.db", "sqlite://a.db", "redis://x", "sqlite:///\0"])
def test_unknown_address(url: str, here: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_store(url)
    assert str(caught.value) == (
        f"unknown cache {url!r}: known: sqlite:///relative.db, sqlite:////abs/path.db, none. Next: write one."
    )
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("environ", "platform", "folder"),
    [
        ({"AIQ_CACHE_DIR": "/own", "XDG_CACHE_HOME": "/xdg"}, "linux", "/own"),
        ({"AIQ_CACHE_DIR": "", "XDG_CACHE_HOME": "/xdg"}, "linux", "/xdg/aiq"),
        ({"XDG_CACHE_HOME": "relative"}, "linux", "HOME/.cache/aiq"),
        ({}, "linux", "HOME/.cache/aiq"),
        ({"LOCALAPPDATA": "/local"}, "linux", "HOME/.cache/aiq"),
        ({}, "darwin", "HOME/Library/Caches/aiq"),
        ({"LOCALAPPDATA": "/local"}, "win32", "/local/aiq"),
        ({}, "win32", "HOME/AppData/Local/aiq"),
    ],
)
def test_the_users_cache(environ: dict[str, str], platform: str, folder: str) -> None:
    assert cache_path(environ, platform) == Path(folder.replace("HOME", str(Path.home()))) / "evaluations.sqlite3"


def test_the_users_cache_is_made_where_it_is_needed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIQ_CACHE_DIR", str(here / "deep" / "cache"))
    with pytest.raises(CacheError, match=r"no evaluation cache '.*deep.*'\. Next: run a search, which makes it"):
        open_store(create=False)
    assert list(here.iterdir()) == []
    with open_store() as store:
        store.put(record(0))
    with open_store(create=False) as store:
        assert store.stats().evaluations == 1
        assert store.stats().path == str(here / "deep" / "cache" / "evaluations.sqlite3")
        assert store.stats().bytes >= (here / "deep" / "cache" / "evaluations.sqlite3").stat().st_size


def test_a_users_cache_below_a_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "file").write_text("")
    monkeypatch.setenv("AIQ_CACHE_DIR", str(here / "file" / "cache"))
    with pytest.raises(CacheError) as caught:
        open_store()
    assert str(caught.value) == (
        f"cannot make the folder of the evaluation cache, {str(here / 'file' / 'cache')!r}: Not a directory. "
        "Next: set AIQ_CACHE_DIR to a folder of yours, or name a file with --cache sqlite:///FILE."
    )


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(CacheError, match=r"^no home directory to keep evaluations in\. Next: set AIQ_CACHE_DIR to a"):
        cache_path({}, "linux")


def _sql(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


OPENED = "it cannot be opened. Next: check that its folder exists and is writable and that it is a file, or"
DAMAGED = "it is damaged or truncated. Next: restore or move it away, or"
READ_ONLY = "the file or its folder is read-only. Next: make both writable, or"
FOREIGN = "it is a database of another program. Next:"


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (lambda path: path.write_bytes(b"x" * 5000), "it is no SQLite database. Next: move it away, or"),
        (lambda path: path.write_bytes(b"no"), "it is no SQLite database. Next: move it away, or"),
        (lambda path: _sql(path, "CREATE TABLE theirs (a)"), FOREIGN),
        (lambda path: _sql(path, "CREATE TABLE theirs (a)", "PRAGMA user_version = 1"), FOREIGN),
        (lambda path: _sql(path, "PRAGMA application_id = 7", "CREATE TABLE theirs (a)"), FOREIGN),
        (lambda path: path.mkdir(), OPENED),
    ],
    ids=["text", "short", "tables", "version", "application", "folder"],
)
def test_files_that_are_no_cache(prepare: Callable[[Path], None], why: str, here: Path) -> None:
    path = here / "b.db"
    prepare(path)
    before = path.read_bytes() if path.is_file() else b""
    assert refused("sqlite:///b.db") == f"cannot open evaluation cache 'b.db': {why} {ELSEWHERE}"
    assert [found.name for found in here.iterdir()] == ["b.db"]
    assert not before or path.read_bytes() == before


@pytest.mark.parametrize("url", ["missing/a.db", "file/a.db", f"{'a' * 300}.db"])
def test_folders_that_are_none(url: str, here: Path) -> None:
    (here / "file").write_text("")
    assert refused(f"sqlite:///{url}") == f"cannot open evaluation cache {url!r}: {OPENED} {ELSEWHERE}"
    assert [found.name for found in here.iterdir()] == ["file"]
    missing = f"no evaluation cache {url!r}. Next: run a search, which makes it, or check --cache."
    assert refused(f"sqlite:///{url}", create=False) == missing


@pytest.mark.parametrize("version", [0, 2])
def test_another_version(version: int, filled: Path) -> None:
    _sql(filled, f"PRAGMA user_version = {version}")
    before = filled.read_bytes()
    assert refused("sqlite:///a.db") == (
        f"cannot open evaluation cache 'a.db': it has format {version}, known: 1. "
        f"Next: use the version of aiq that wrote it, or {ELSEWHERE}"
    )
    assert filled.read_bytes() == before


@pytest.mark.parametrize("kept", [1000, 4096, 4096 * 10, 4096 * 40 + 17, -4096])
def test_truncated(kept: int, filled: Path) -> None:
    whole = filled.read_bytes()
    filled.write_bytes(whole[:kept])
    assert refused("sqlite:///a.db") in (
        f"cannot open evaluation cache 'a.db': {DAMAGED} {ELSEWHERE}",
        f"cannot open evaluation cache 'a.db': it is no SQLite database. Next: move it away, or {ELSEWHERE}",
    )
    assert filled.read_bytes() == whole[:kept]


def test_an_empty_file_becomes_a_cache(here: Path) -> None:
    (here / "a.db").touch()
    with open_store("sqlite:///a.db") as store:
        assert store.put(record(0))


def _use(path: str) -> list[str]:
    """Read a cache in every way; return what was refused."""
    sentences = []
    try:
        with open_store(path) as store:
            uses: list[Callable[[], object]] = [
                store.stats,
                store.oracles,
                lambda: list(export_lines(store)),
                *(partial(store.get, *record(number).key) for number in range(0, 200, 7)),
            ]
            for use in uses:
                try:
                    use()
                except CacheError as error:
                    sentences.append(str(error))
    except CacheError as error:
        sentences.append(str(error))
    return sentences


def test_damage_anywhere_is_one_sentence(filled: Path) -> None:
    whole, rng = filled.read_bytes(), np.random.default_rng(0)
    said = 0
    assert _use("sqlite:///a.db") == []
    for _ in range(40):
        start, size = int(rng.integers(len(whole))), int(rng.choice([1, 16, 600, 5000]))
        garbage = rng.bytes(size)[: len(whole) - start]
        damaged = whole[:start] + garbage + whole[start + len(garbage) :]
        filled.write_bytes(damaged)
        sentences = _use("sqlite:///a.db")
        said += bool(sentences)
        assert all("evaluation cache 'a.db': " in text and "Next: " in text for text in sentences), sentences
        assert filled.read_bytes() == damaged
    assert said > 10


@pytest.mark.parametrize(
    ("column", "value"),
    [("n", "301"), ("n", "'x'"), ("outcomes", "x'00'"), ("kind", "'float32'"), ("value", "0.125"), ("value", "'x'")],
)
def test_a_row_that_does_not_read_back(column: str, value: str, filled: Path) -> None:
    _sql(filled, f"UPDATE evaluations SET {column} = {value}")
    with open_store("sqlite:///a.db") as store:
        for read in (lambda: store.get(*record(0).key), lambda: list(export_lines(store))):
            with pytest.raises(CacheError) as caught:
                read()
            assert str(caught.value).startswith("cannot read evaluation cache 'a.db': it is damaged or truncated (")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE oracles SET description = '{}'",
        "UPDATE oracles SET description = '[1'",
        "UPDATE oracles SET description = '3'",
        "UPDATE oracles SET metric = '{}'",
        "DROP TABLE oracles",
    ],
)
def test_an_oracle_that_does_not_read_back(statement: str, filled: Path) -> None:
    _sql(filled, statement)
    with open_store("sqlite:///a.db") as store:
        for read in (store.oracles, lambda: list(export_lines(store))):
            with pytest.raises(CacheError, match=r"^cannot read evaluation cache 'a\.db': .*Next: "):
                read()


def test_a_scheme_that_does_not_read_back(filled: Path) -> None:
    _sql(filled, """UPDATE evaluations SET rules = '{"version":1,"default":"keep","rules":[]}'""")
    with open_store("sqlite:///a.db") as store, pytest.raises(CacheError, match="a scheme that is not the one of its"):
        list(export_lines(store))


@pytest.fixture
def store(filled: Path) -> Iterator[EvaluationStore]:
    with open_store("sqlite:///a.db") as opened:
        yield opened


def _unwritten(store: EvaluationStore) -> str:
    """Measure where nothing can be written: the caller still gets the evaluation, hits still work."""
    oracle = CachedOracle(ToyOracle(evaluation(300)), store, lambda scheme: scheme)
    assert same(oracle.evaluate(scheme(7)), evaluation(7))
    with pytest.raises(CacheWriteError) as caught:
        oracle.evaluate(scheme(300))
    assert same(caught.value.evaluation, evaluation(300))
    assert (oracle.hits, oracle.misses) == (1, 1)
    assert oracle.lookup(scheme(300)) is None
    return str(caught.value)


def test_a_full_disk(store: EvaluationStore) -> None:
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(CacheError, match="the disk is full"):
        store.add(record(number) for number in range(300, 400))
    assert store.stats().evaluations == 200
    while True:
        try:
            store.put(record(1000 + 2 * store.stats().evaluations))
        except CacheError:
            break
    kept = store.stats().evaluations
    assert _unwritten(store) == (
        f"cannot write evaluation cache 'a.db': the disk is full. Next: free some space, or {ELSEWHERE}"
    )
    store._connection.execute("PRAGMA max_page_count = 1000000")
    assert store.put(record(300))
    assert store.stats().evaluations == kept + 1


def test_a_read_only_database(store: EvaluationStore) -> None:
    store._connection.execute("PRAGMA query_only = ON")
    assert _unwritten(store) == f"cannot write evaluation cache 'a.db': {READ_ONLY} {ELSEWHERE}"


def test_a_lock_that_stays(store: EvaluationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _cache_store.BUSY_S >= 30
    (timeout,) = store._connection.execute("PRAGMA busy_timeout").fetchone()
    assert timeout == 1000 * _cache_store.BUSY_S
    monkeypatch.setattr(_cache_store, "BUSY_S", 0.05)
    store._connection.execute("BEGIN IMMEDIATE")
    with open_store("sqlite:///a.db") as other:
        assert _unwritten(other) == (
            "cannot write evaluation cache 'a.db': another process keeps it locked. "
            "Next: wait for that process, or end it."
        )
        store._connection.execute("COMMIT")
        assert other.put(record(300))


def test_opening_waits_for_another_process_that_makes_the_file(here: Path) -> None:
    other = sqlite3.connect(here / "a.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = Timer(0.1, other.execute, ["ROLLBACK"])
    release.start()
    with open_store("sqlite:///a.db") as store:
        assert store.put(record(0))
    release.join()
    other.close()


_AS_NOBODY = """
import os, sys
from pathlib import Path
from aiq.cache import CachedOracle, CacheError, CacheWriteError, open_store
from tests.evaluations import ToyOracle, evaluation, same, scheme
import encodings.idna, encodings.utf_8
os.chdir(sys.argv[1])
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
for folder in ("folder", "file"):
    try:
        with open_store(f"sqlite:///{folder}/a.db") as store:
            oracle = CachedOracle(ToyOracle(evaluation(9)), store, lambda scheme: scheme)
            assert same(oracle.evaluate(scheme(0)), evaluation(0))
            oracle.evaluate(scheme(9))
    except CacheWriteError as error:
        assert same(error.evaluation, evaluation(9))
        print("write", error)
    except CacheError as error:
        print("open", error)
try:
    open_store("sqlite:///folder/new.db")
except CacheError as error:
    print("new", error)
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="permissions are POSIX's")
def test_permissions() -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        for folder in ("folder", "file"):
            (base / folder).mkdir()
            with EvaluationStore(base / folder / "a.db") as store:
                store.put(record(0))
        (base / "file" / "a.db").chmod(0o444)
        (base / "file").chmod(0o777)
        (base / "folder" / "a.db").chmod(0o666)
        (base / "folder").chmod(0o555)
        command = [sys.executable, "-c", _AS_NOBODY, name]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        (base / "folder").chmod(0o755)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"open cannot open evaluation cache 'folder/a.db': {READ_ONLY} {ELSEWHERE}",
        f"write cannot write evaluation cache 'file/a.db': {READ_ONLY} {ELSEWHERE}",
        f"new cannot open evaluation cache 'folder/new.db': {OPENED} {ELSEWHERE}",
    ]
