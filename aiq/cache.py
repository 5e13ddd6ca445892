"""The evaluation cache: an oracle that never measures a scheme twice, on this machine or in any process of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from aiq._cache_errors import CacheError, CacheWriteError
from aiq._cache_records import Record, checked, from_line, now, to_line
from aiq._cache_store import EvaluationStore, StoredOracle, StoreStats
from aiq.oracle import Evaluation, Metric, Oracle, OracleError, fingerprint_digest
from aiq.report import check_writable
from roofline import LayerPrecision, Rule, Scheme
from roofline.errors import InputError
from roofline.estimate import resolve

if TYPE_CHECKING:
    from roofline import OpGraph

__all__ = [
    "CacheError",
    "CacheWriteError",
    "CachedOracle",
    "EvaluationStore",
    "Record",
    "StoreStats",
    "StoredOracle",
    "cache_path",
    "canonical_scheme",
    "export_evaluations",
    "export_lines",
    "import_evaluations",
    "open_store",
]

_FILE = "evaluations.sqlite3"
_IN_MEMORY = ("none", "sqlite://", "sqlite:///:memory:")


def open_store(url: str | None = None, *, create: bool = True) -> EvaluationStore:
    """Open the cache of evaluations.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////abs/path.db``, or ``none`` (also ``sqlite://``) for a store in
            memory that keeps nothing; ``None`` for a file in the user's cache directory (see :func:`cache_path`).
        create: Whether to make the file where it does not exist.

    Raises:
        InputError: Another form of address.
        CacheError: The file cannot be opened, or is not a cache of this version.
    """
    if url in _IN_MEMORY:
        return EvaluationStore(None)
    if url is not None:
        return EvaluationStore(_path(url), create=create)
    path = cache_path(os.environ, sys.platform)
    if create:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(
                f"cannot make the folder of the evaluation cache, {str(path.parent)!r}: {error.strerror}. "
                "Next: set AIQ_CACHE_DIR to a folder of yours, or name a file with --cache sqlite:///FILE."
            ) from None
    return EvaluationStore(path, create=create)


def _path(url: str) -> Path:
    prefix, text = url[: len("sqlite:///")], url[len("sqlite:///") :]
    if prefix != "sqlite:///" or not text or "\0" in text:
        raise InputError(
            f"unknown cache {url!r}: known: sqlite:///relative.db, sqlite:////abs/path.db, none. Next: write one."
        )
    return Path(os.path.expanduser(text))


def cache_path(environ: Mapping[str, str], platform: str) -> Path:
    """Return the file of the user's own cache.

    In ``$AIQ_CACHE_DIR``, else ``$XDG_CACHE_HOME/aiq``, else where the platform keeps caches: ``~/Library/Caches/aiq``
    on macOS, ``%LOCALAPPDATA%\\aiq`` on Windows, ``~/.cache/aiq`` elsewhere.

    Args:
        environ: Environment variables.
        platform: As ``sys.platform``.

    Raises:
        CacheError: The user has no home directory.

    Source: XDG Base Directory Specification 0.8; Apple, File System Programming Guide.
    """
    own, shared, local = (environ.get(name) for name in ("AIQ_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"))
    if own:
        return Path(own) / _FILE
    if shared and os.path.isabs(shared):
        return Path(shared) / "aiq" / _FILE
    if platform == "win32" and local:
        return Path(local) / "aiq" / _FILE
    try:
        home = Path.home()
    except RuntimeError:
        raise CacheError("no home directory to keep evaluations in. Next: set AIQ_CACHE_DIR to a folder.") from None
    kept = {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(platform, ".cache")
    return home / kept / "aiq" / _FILE


def canonical_scheme(graph: OpGraph, scheme: Scheme) -> Scheme:
    """Return the one form of all schemes that give the layers of a graph the same formats.

    One rule for each layer in graph order, ``keep`` written out, and ``keep`` as the default: what
    :meth:`roofline.CostTable.scheme` returns. A layer without floating-point weights takes only an option's
    activations. Rules that speak of no layer with weights stay behind these, as they are.

    Raises:
        UnknownNameError: The scheme names a layer that the graph has not.
        SchemeError: It names a module whose layers have names of their own.
    """
    owned = graph.weight_elements()
    rules = tuple(
        Rule(layer, _effective(formats, any(tensor.is_float for tensor in owned[layer].values())))
        for layer, formats in resolve(graph, scheme).items()
    )
    names = {*graph.layers, *(name for aliases in graph.aliases.values() for name in aliases)}
    others = tuple(rule for rule in scheme.rules if not any(map(rule.matches, names)))
    return Scheme(LayerPrecision(), rules + others, scheme.name)


def _effective(formats: LayerPrecision, has_floats: bool) -> LayerPrecision:
    weights = formats.weights if has_floats else None
    if weights is None and formats.activations is None and formats.kv is None:
        return LayerPrecision()
    return replace(formats, weights=weights)


class CachedOracle:
    """An oracle whose evaluations are kept: what was measured once, by any process, is read from the store.

    The oracle is always given the canonical scheme, so that what is stored under a key was measured for exactly that
    key. Where two processes measure one scheme at the same time, both return the evaluation that was stored first.

    Attributes:
        metric: The oracle's.
        fingerprint: The oracle's, as it was when the wrapper was made.
        hits: Calls of :meth:`evaluate` that the store answered.
        misses: Calls of :meth:`evaluate` that the oracle measured.
    """

    def __init__(self, oracle: Oracle, store: EvaluationStore, canonical: Callable[[Scheme], Scheme]) -> None:
        """Wrap an oracle.

        Args:
            oracle: What measures.
            store: Where evaluations are kept.
            canonical: Returns the one form of all schemes that mean the same, for instance
                ``functools.partial(canonical_scheme, graph)``.

        Raises:
            OracleError: The fingerprint is no mapping of texts, or the store has it with another metric.
            CacheError: The store cannot be read.
        """
        self._oracle, self._store, self._canonical = oracle, store, canonical
        self.metric: Metric = oracle.metric
        self.fingerprint: dict[str, str] = _texts(oracle.fingerprint)
        self._digest = fingerprint_digest(self.fingerprint)
        self.hits = self.misses = 0
        stored = store.metric(self._digest)
        if stored not in (None, self.metric):
            raise OracleError(
                f"the store has fingerprint {self._digest[:12]} with {stored}, the oracle has {self.metric}. "
                "Next: put the metric into the oracle's fingerprint."
            )

    def lookup(self, scheme: Scheme) -> Evaluation | None:
        """Return the stored evaluation of a scheme, or ``None``; measures and counts nothing.

        Raises:
            CacheError: The store cannot be read.
        """
        return self._store.get(self._digest, self._canonical(scheme).digest())

    def evaluate(self, scheme: Scheme) -> Evaluation:
        """Return the stored evaluation of a scheme, or measure and store it.

        Raises:
            OracleError: The scheme cannot be measured, or the oracle returned what no evaluation may hold.
            CacheError: The store cannot be read.
            CacheWriteError: It was measured and could not be stored; the error carries it.
        """
        canonical = self._canonical(scheme)
        key = canonical.digest()
        found = self._store.get(self._digest, key)
        if found is not None:
            self.hits += 1
            return found
        evaluation = checked(self._oracle.evaluate(canonical))
        self.misses += 1
        try:
            if self._store.put(Record(self.fingerprint, self.metric, canonical, evaluation, now())):
                return evaluation
            return self._store.get(self._digest, key) or evaluation
        except CacheError as error:
            raise CacheWriteError(str(error), evaluation) from error


def _texts(fingerprint: Mapping[str, str]) -> dict[str, str]:
    found = dict(fingerprint)
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise OracleError(f"the oracle's fingerprint has {key!r}: {value!r}, known: texts. Next: write it as text.")
    return found


def export_lines(store: EvaluationStore) -> Iterator[str]:
    """Yield every evaluation of a store as one line of JSON, outcomes in base64, without line ends.

    Raises:
        CacheError: The store cannot be read.
    """
    return map(to_line, store.records())


def export_evaluations(store: EvaluationStore, path: str | Path) -> int:
    """Write every evaluation of a store to a ``.jsonl`` file and return how many there are.

    Raises:
        InputError: The file has another suffix, or cannot be written.
        CacheError: The store cannot be read, or the disk is full.
    """
    target = check_writable(path, (".jsonl",))
    count = 0
    try:
        with target.open("w", encoding="utf-8", newline="\n") as file:
            for line in export_lines(store):
                file.write(line + "\n")
                count += 1
    except OSError as error:
        raise CacheError(
            f"cannot write {str(path)!r}: {error.strerror}; what is there is incomplete. Next: choose another file."
        ) from None
    return count


def import_evaluations(store: EvaluationStore, path: str | Path) -> tuple[int, int]:
    """Add the evaluations of an exported file; where one line is bad, none.

    Args:
        store: What they are added to.
        path: What :func:`export_evaluations` wrote; empty lines are skipped.

    Returns:
        How many were added, and how many keys the store had already, whose evaluations stay as they are.

    Raises:
        CacheError: The file cannot be read, a line is no evaluation, or the store cannot be written.
    """
    return store.add(_read(Path(path)))


def _read(path: Path) -> Iterator[Record]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield from_line(line)
                    except ValueError as error:
                        raise CacheError(
                            f"{path}: line {number}: {error}: nothing was imported. Next: mend or remove that line."
                        ) from None
    except OSError as error:
        raise CacheError(f"cannot read {str(path)!r}: {error.strerror}. Next: check the path.") from None
