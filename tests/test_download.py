"""Fetching a data set from a server of this process: whole, resumed, broken off, altered, hostile, out of reach."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from aiq.data import DataError, download
from aiq.data._download import ARCHIVES, Archive
from hardware_specs.errors import UnknownNameError
from tests.commands import run

FOLDER = "cifar-10-batches-py"


def packed(*members: str, seed: int = 1) -> bytes:
    out = io.BytesIO()
    content = hashlib.shake_128(bytes([seed])).digest(400_000)
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


WHOLE = packed(*(f"{FOLDER}/{name}" for name in ("test_batch", "data_batch_1", "readme.html")))


@dataclass
class Site:
    """What the server answers and what it was asked.

    ``stop_after`` is how many bytes it sends before it closes the connection, ``status`` an answer without content.
    """

    content: bytes = WHOLE
    ranges: bool = True
    stop_after: int | None = None
    status: int | None = None
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    state = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.asked.append(asked)
            if state.status is not None:
                self.send_error(state.status)
                return
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and state.ranges else 0
            rest = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: state.stop_after])

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    url = f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz"
    publish(monkeypatch, Archive(url, len(WHOLE), hashlib.sha256(WHOLE).hexdigest(), FOLDER))
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def publish(monkeypatch: pytest.MonkeyPatch, archive: Archive) -> None:
    monkeypatch.setitem(ARCHIVES, "cifar10", archive)


def refusal(to: Path) -> str:
    with pytest.raises(DataError) as caught:
        download("cifar10", to)
    text = str(caught.value)
    assert "\n" not in text
    return text


def held(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


FETCHED = [FOLDER, f"{FOLDER}/data_batch_1", f"{FOLDER}/readme.html", f"{FOLDER}/test_batch"]


def test_the_published_archive_is_pinned() -> None:
    assert ARCHIVES["cifar10"] == Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        170_498_071,
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        FOLDER,
    )


def test_a_whole_download(site: Site, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    place = tmp_path / "made" / "here"
    assert download("cifar10", place, progress=lambda done, total: told.append((done, total))) == place / FOLDER
    assert held(place) == FETCHED
    assert told[-1] == (len(WHOLE), len(WHOLE))
    assert told == sorted(told)
    assert site.asked == [None]
    assert download("cifar10", place) == place / FOLDER
    assert site.asked == [None]


def test_a_download_that_broke_off_goes_on(site: Site, tmp_path: Path) -> None:
    site.stop_after = 100_000
    assert refusal(tmp_path).endswith(
        f"cifar-10-python.tar.gz: broke off after 100000 of {len(WHOLE)} bytes. "
        "Next: run the same command again; it goes on from there."
    )
    assert held(tmp_path) == ["cifar-10-python.tar.gz.part"]
    site.stop_after = None
    download("cifar10", tmp_path)
    assert held(tmp_path) == FETCHED
    assert site.asked == [None, "bytes=100000-"]


def test_a_server_that_knows_no_ranges_starts_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz.part").write_bytes(b"something else")
    site.ranges = False
    download("cifar10", tmp_path)
    assert held(tmp_path) == FETCHED


def test_what_is_whole_but_not_unpacked_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz.part").write_bytes(WHOLE)
    download("cifar10", tmp_path)
    assert (held(tmp_path), site.asked) == (FETCHED, [])


@pytest.mark.parametrize("flaw", ["altered", "longer", "foreign part"])
def test_what_is_not_the_published_file_is_deleted(site: Site, tmp_path: Path, flaw: str) -> None:
    if flaw == "altered":
        site.content = WHOLE[:-9] + b"x" + WHOLE[-8:]
    elif flaw == "longer":
        site.content = WHOLE + b"x" * 3_000_000
    else:
        (tmp_path / "cifar-10-python.tar.gz.part").write_bytes(b"something else")
    text = refusal(tmp_path)
    assert text.startswith(f"{tmp_path / 'cifar-10-python.tar.gz.part'}: has SHA-256 ")
    assert text.endswith(
        f"… instead of {hashlib.sha256(WHOLE).hexdigest()[:12]}…, so it is damaged or not the file that "
        f"{ARCHIVES['cifar10'].url} is known for. Next: run the same command again; it starts afresh."
    )
    assert held(tmp_path) == []
    site.content = WHOLE
    download("cifar10", tmp_path)
    assert held(tmp_path) == FETCHED


def test_a_file_without_end_is_not_fetched_to_its_end(site: Site, tmp_path: Path) -> None:
    site.content = WHOLE + bytes(10_000_000)
    done: list[int] = []
    with pytest.raises(DataError):
        download("cifar10", tmp_path, progress=lambda here, _: done.append(here))
    assert len(WHOLE) < max(done) < len(WHOLE) + 3_000_000


def test_an_archive_put_there_by_hand_is_checked_and_unpacked(site: Site, tmp_path: Path) -> None:
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(WHOLE[:-1])
    text = refusal(tmp_path)
    assert text.startswith(f"{archive}: has SHA-256 ")
    assert text.endswith(" Next: delete it and run the same command again.")
    assert held(tmp_path) == [archive.name]
    archive.write_bytes(WHOLE)
    download("cifar10", tmp_path)
    assert (held(tmp_path), site.asked) == (FETCHED, [])


@pytest.mark.parametrize("status", [404, 503])
def test_a_server_that_refuses(site: Site, tmp_path: Path, status: int) -> None:
    site.status = status
    assert f": the site answers {status} " in refusal(tmp_path)
    assert refusal(tmp_path).endswith("Next: try again later, or fetch it by hand.")
    assert held(tmp_path) == []


def test_a_part_that_the_server_cannot_continue_is_dropped(site: Site, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz.part").write_bytes(WHOLE[:5000])
    site.status = 416
    refusal(tmp_path)
    assert held(tmp_path) == []


def test_a_server_that_falls_silent(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(self: HTTPResponse, _: int) -> bytes:
        raise TimeoutError("timed out")

    with monkeypatch.context() as patched:
        patched.setattr(HTTPResponse, "read", silent)
        assert ": cannot be reached: timed out. Next: check the network" in refusal(tmp_path)
    download("cifar10", tmp_path)
    assert held(tmp_path) == FETCHED


def test_no_network(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.tar.gz"
        publish(monkeypatch, replace(ARCHIVES["cifar10"], url=url))
        assert refusal(tmp_path) == (
            f"{url}: cannot be reached: Connection refused. Next: check the network and run the same command again."
        )
    monkeypatch.setattr(socket, "getaddrinfo", _no_name)
    publish(monkeypatch, replace(ARCHIVES["cifar10"], url="http://data.invalid/a.tar.gz"))
    assert refusal(tmp_path).startswith("http://data.invalid/a.tar.gz: cannot be reached: Name or service not known. ")


def _no_name(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk(site: Site, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz.part").symlink_to("/dev/full")
    assert refusal(tmp_path) == (
        f"cannot write to {str(tmp_path)!r}: No space left on device. "
        "Next: make room and run the same command again; it goes on from there."
    )


def test_a_disk_that_is_full_on_unpacking(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: tarfile.TarFile, path: Path, **_: object) -> None:
        (Path(path) / "half").write_bytes(b"x")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tarfile.TarFile, "extractall", fails)
        assert "No space left on device. Next: make room" in refusal(tmp_path)
    assert held(tmp_path) == ["cifar-10-python.tar.gz"]
    download("cifar10", tmp_path)
    assert (held(tmp_path), site.asked) == (FETCHED, [None])


def test_a_place_that_is_no_folder(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file") == (
        f"cannot write to {str(tmp_path / 'file')!r}: File exists. Next: name a folder of yours with --to."
    )
    assert site.asked == []


@pytest.mark.parametrize("member", ["../evil", f"{FOLDER}/../../evil", "/etc/../evil/../../../../evil"])
def test_an_archive_that_reaches_outside_is_not_unpacked(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str
) -> None:
    site.content = packed(f"{FOLDER}/test_batch", member)
    hostile = replace(ARCHIVES["cifar10"], size=len(site.content), sha256=hashlib.sha256(site.content).hexdigest())
    publish(monkeypatch, hostile)
    place = tmp_path / "a" / "b"
    assert refusal(place).startswith(f"{place / 'cifar-10-python.tar.gz'}: cannot be unpacked: ")
    assert held(tmp_path) == ["a", "a/b", "a/b/cifar-10-python.tar.gz"]


def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError) as caught:
        download("cifar", tmp_path)
    assert str(caught.value) == ("unknown data set to fetch 'cifar': did you mean 'cifar10'? Next: name one of these.")


def test_the_command(site: Site, tmp_path: Path) -> None:
    code, out, err = run("data", "download", "cifar10", "--to", str(tmp_path))
    assert (code, out) == (0, f"cifar10:{tmp_path / FOLDER}\n")
    assert err.endswith("cifar10: 1.20 MB of 1.20 MB\n")
    assert run("data", "download", "cifar10", "--to", str(tmp_path)) == (0, out, "")
    site.status = 503
    code, out, err = run("data", "download", "cifar10", "--to", str(tmp_path / "other"))
    assert (code, out) == (2, "")
    assert err.startswith("aiq: http://127.0.0.1:")
    assert err.count("\n") == 1
