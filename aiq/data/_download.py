"""Fetch a data set from its author's site: resumable, verified, unpacked safely."""

from __future__ import annotations

import errno
import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from aiq.data._core import DataError
from hardware_specs.errors import unknown_name

Progress = Callable[[int, int], None]
"""Told the bytes that are here and the bytes of the whole archive, once for each hundredth."""

_CHUNK = 2**20
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar archive of one folder on the web.

    Attributes:
        url: Where it is.
        size: Bytes.
        sha256: SHA-256 of its bytes, in hexadecimal.
        folder: The folder in it.
    """

    url: str
    size: int
    sha256: str
    folder: str


ARCHIVES: dict[str, Archive] = {
    # Its author publishes the MD5 c58f30108f718f92721af3d95e74349a, which a forger can match; SHA-256 of the same file.
    "cifar10": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        170_498_071,
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        "cifar-10-batches-py",
    )
}


def download(name: str, to: str | Path = ".", *, progress: Progress | None = None) -> Path:
    """Fetch a data set and unpack it, unless it is there already.

    What has come is kept in a ``.part`` file, so a run that was cut short goes on where it stopped. Nothing is unpacked
    before its checksum agrees, and the folder appears only when it is whole.

    Args:
        name: ``cifar10``.
        to: Folder to unpack into, made if need be.
        progress: Called while it comes.

    Returns:
        The folder of the data set.

    Raises:
        UnknownNameError: No data set of that name can be fetched.
        DataError: It cannot be reached, what came is not what was published, or it cannot be written.
    """
    archive = ARCHIVES.get(name)
    if archive is None:
        raise unknown_name("data set to fetch", name, ARCHIVES, "name one of these")
    place = Path(to)
    folder = place / archive.folder
    if folder.is_dir():
        return folder
    packed = place / archive.url.rpartition("/")[2]
    part = packed.with_name(f"{packed.name}.part")
    try:
        place.mkdir(parents=True, exist_ok=True)
        if packed.is_file():
            _verify(archive, packed, "delete it and run the same command again")
        else:
            _fetch(archive, part, progress or (lambda done, total: None))
            try:
                _verify(archive, part, "run the same command again; it starts afresh")
            except DataError:
                part.unlink()
                raise
            part.rename(packed)
        _unpack(packed, place, archive.folder)
        packed.unlink()
    except OSError as error:
        raise _unwritable(place, error) from None
    return folder


def _fetch(archive: Archive, part: Path, progress: Progress) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have >= archive.size:
        return
    with _ask(archive.url, part, have) as answer:
        resumed = answer.status == HTTPStatus.PARTIAL_CONTENT
        done = have if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            while done <= archive.size and (chunk := _next(answer, archive.url)):
                file.write(chunk)
                done, before = done + len(chunk), done
                if 100 * done // archive.size > 100 * before // archive.size:
                    progress(done, archive.size)
    if done < archive.size:
        raise DataError(
            f"{archive.url}: broke off after {done} of {archive.size} bytes. "
            "Next: run the same command again; it goes on from there."
        )


def _ask(url: str, part: Path, have: int) -> HTTPResponse:
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer: HTTPResponse = urlopen(request, timeout=_TIMEOUT_S)
    except HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
        raise DataError(
            f"{url}: the site answers {error.code} {error.reason}. Next: try again later, or fetch it by hand."
        ) from None
    except (OSError, HTTPException) as error:
        raise _unreachable(url, error) from None
    return answer


def _next(answer: HTTPResponse, url: str) -> bytes:
    try:
        return answer.read(_CHUNK)
    except (OSError, HTTPException) as error:
        raise _unreachable(url, error) from None


def _unreachable(url: str, error: Exception) -> DataError:
    cause = getattr(error, "reason", error)
    why = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return DataError(f"{url}: cannot be reached: {why}. Next: check the network and run the same command again.")


def _unwritable(place: Path, error: OSError) -> DataError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        step = "make room and run the same command again; it goes on from there"
    else:
        step = "name a folder of yours with --to"
    return DataError(f"cannot write to {str(place)!r}: {error.strerror or error}. Next: {step}.")


def _verify(archive: Archive, file: Path, step: str) -> None:
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != archive.sha256:
        raise DataError(
            f"{file}: has SHA-256 {found[:12]}… instead of {archive.sha256[:12]}…, so it is damaged or not the file "
            f"that {archive.url} is known for. Next: {step}."
        )


def _unpack(packed: Path, place: Path, folder: str) -> None:
    work = Path(tempfile.mkdtemp(prefix=f".{folder}-", dir=place))
    try:
        with tarfile.open(packed) as archive:
            archive.extractall(work, filter="data")
        (work / folder).rename(place / folder)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{packed}: cannot be unpacked: {error}. Next: delete it and run the same command again."
        ) from None
    finally:
        with suppress(OSError):
            shutil.rmtree(work)
