"""One cached evaluation: what may be stored, how outcomes are packed, and the line of text that it exports to."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiq.oracle import Evaluation, Metric, OracleError, fingerprint_digest
from roofline import Scheme
from roofline.errors import AIQError

LINE_VERSION = 1
_MOST_EXAMPLES = 2**63
Outcomes = NDArray[np.bool_] | NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Record:
    """One evaluation with everything that its key is made of.

    Attributes:
        fingerprint: What the oracle's values depend on.
        metric: What the value means.
        scheme: The scheme in canonical form.
        evaluation: What was measured.
        created: When it was stored, UTC, ISO 8601.
    """

    fingerprint: Mapping[str, str]
    metric: Metric
    scheme: Scheme
    evaluation: Evaluation
    created: str

    @property
    def key(self) -> tuple[str, str]:
        """Digests of the fingerprint and of the scheme."""
        return fingerprint_digest(self.fingerprint), self.scheme.digest()


def now() -> str:
    """Return the time in UTC as ISO 8601 text to the second, which sorts by time."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def checked(evaluation: Evaluation) -> Evaluation:
    """Return what an oracle measured, in plain numbers.

    Raises:
        OracleError: It is not what an oracle may return, so that nothing is stored.
    """
    fault = find_fault(evaluation)
    if fault:
        raise OracleError(f"the oracle returned {fault}: nothing was stored. Next: mend the oracle, or its data.")
    return _plain(evaluation)


def _plain(given: Evaluation) -> Evaluation:
    return Evaluation(
        float(given.value),
        None if given.stderr is None else float(given.stderr),
        int(given.n),
        given.outcomes,
        float(given.seconds),
        float(given.work),
        None if given.divergence is None else float(given.divergence),
    )


def find_fault(given: object) -> str:
    """Say what no evaluation may hold; empty where there is nothing.

    Numbers must be finite, ``stderr``, ``seconds`` and ``work`` at least 0, outcomes [n] bool or float32, and the mean
    of bool outcomes the value.
    """
    if not isinstance(given, Evaluation):
        return f"{type(given).__name__} in place of an Evaluation"
    for name in ("value", "stderr", "seconds", "work", "divergence"):
        number = getattr(given, name)
        if number is None and name in ("stderr", "divergence"):
            continue
        if not _finite(number):
            return f"{name} {_short(number)}, which is no finite number"
        if number < 0 and name in ("stderr", "seconds", "work"):
            return f"{name} {number}, which is below 0"
    if not isinstance(given.n, Integral) or not 0 <= given.n < _MOST_EXAMPLES:
        return f"n {_short(given.n)}, which is no count"
    return "" if given.outcomes is None else _outcomes_fault(given.outcomes, int(given.n), float(given.value))


def _finite(number: object) -> bool:
    try:
        return isinstance(number, Real) and math.isfinite(number)
    except OverflowError:
        return False


def _short(value: object) -> str:
    text = str(value) if isinstance(value, Real) else repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _outcomes_fault(outcomes: object, n: int, value: float) -> str:
    if not isinstance(outcomes, np.ndarray) or outcomes.dtype not in (np.bool_, np.float32):
        got = outcomes.dtype if isinstance(outcomes, np.ndarray) else type(outcomes).__name__
        return f"outcomes of type {got}, known: arrays of bool or float32"
    if outcomes.shape != (n,) or not n:
        return f"outcomes of shape {list(outcomes.shape)} for n = {n} examples"
    if outcomes.dtype == np.float32 and not np.isfinite(outcomes).all():
        return "outcomes that are not all finite"
    if outcomes.dtype == np.bool_ and not math.isclose(np.mean(outcomes), value, rel_tol=1e-9):
        return f"value {value} with outcomes whose mean is {np.mean(outcomes)}"
    return ""


def pack(outcomes: Outcomes | None) -> tuple[bytes | None, str | None]:
    """Return outcomes as bytes (eight bools a byte, or little-endian float32) and the kind that reads them back."""
    if outcomes is None:
        return None, None
    if outcomes.dtype == np.bool_:
        return np.packbits(outcomes.astype(np.bool_)).tobytes(), "bool"
    return outcomes.astype("<f4").tobytes(), "float32"


def unpack(data: bytes | None, kind: str | None, n: int) -> Outcomes | None:
    """Undo :func:`pack`.

    Raises:
        ValueError: The bytes are not those of n outcomes of that kind.
    """
    if data is None and kind is None:
        return None
    sizes = {"bool": -(-n // 8), "float32": 4 * n} if isinstance(n, int) else {}
    if not isinstance(data, bytes) or sizes.get(str(kind)) != len(data):
        raise ValueError(f"outcomes that are not {n} of kind {kind}")
    if kind == "bool":
        return np.unpackbits(np.frombuffer(data, np.uint8), count=n).astype(np.bool_)
    return np.frombuffer(data, "<f4").astype(np.float32)


def metric_text(metric: Metric) -> str:
    """Return a metric as canonical JSON."""
    return json.dumps({**asdict(metric), "scale": float(metric.scale)}, sort_keys=True, separators=(",", ":"))


def read_metric(data: Any) -> Metric:
    """Build a metric from plain data.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(data, dict) or set(data) != {"name", "unit", "higher_is_better", "scale"}:
        raise ValueError("a metric without exactly name, unit, higher_is_better, scale")
    texts = isinstance(data["name"], str) and isinstance(data["unit"], str)
    if not texts or not isinstance(data["higher_is_better"], bool) or not _finite(data["scale"]):
        raise ValueError("a metric with a value of another type")
    return Metric(data["name"], data["unit"], data["higher_is_better"], float(data["scale"]))


def to_line(record: Record) -> str:
    """Return a record as one line of JSON that :func:`from_line` reads back exactly."""
    evaluation = record.evaluation
    blob, kind = pack(evaluation.outcomes)
    data = {
        "schema_version": LINE_VERSION,
        "fingerprint": dict(record.fingerprint),
        "metric": asdict(record.metric),
        "scheme": record.scheme.to_dict(),
        "value": evaluation.value,
        "stderr": evaluation.stderr,
        "n": evaluation.n,
        "outcomes": None if blob is None else base64.b64encode(blob).decode(),
        "outcome_kind": kind,
        "seconds": evaluation.seconds,
        "work": evaluation.work,
        "divergence": evaluation.divergence,
        "created": record.created,
    }
    return json.dumps(data, sort_keys=True, allow_nan=False)


_KEYS = {
    *("schema_version", "fingerprint", "metric", "scheme", "value", "stderr", "n", "outcomes", "outcome_kind"),
    *("seconds", "work", "divergence", "created"),
}


def from_line(line: str | bytes) -> Record:
    """Read one exported line.

    Raises:
        ValueError: It is no evaluation; the text says what it is instead.
    """
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("text that is no JSON") from None
    if not isinstance(data, dict) or set(data) != _KEYS:
        odd = sorted(_KEYS ^ set(data), key=lambda k: (k not in _KEYS, k)) if isinstance(data, dict) else []
        raise ValueError(f"an object with {odd[0]!r} missing or unknown" if odd else "JSON that is no object")
    if data["schema_version"] != LINE_VERSION:
        raise ValueError(f"schema_version {_short(data['schema_version'])}, known: {LINE_VERSION}")
    fingerprint = data["fingerprint"]
    if not isinstance(fingerprint, dict) or not all(isinstance(v, str) for v in fingerprint.values()):
        raise ValueError("a fingerprint that is no object of texts")
    evaluation = Evaluation(
        data["value"],
        data["stderr"],
        data["n"],
        _decoded(data["outcomes"], data["outcome_kind"], data["n"]),
        data["seconds"],
        data["work"],
        data["divergence"],
    )
    fault = find_fault(evaluation)
    if fault:
        raise ValueError(fault)
    return Record(
        fingerprint, read_metric(data["metric"]), read_scheme(data["scheme"]), _plain(evaluation), _time(data)
    )


def read_scheme(data: Any) -> Scheme:
    """Build a scheme from plain data.

    Raises:
        ValueError: It is none, or not written as :meth:`Scheme.to_dict` writes it.
    """
    if not isinstance(data, dict):
        raise ValueError("a scheme that is no object")
    try:
        scheme = Scheme.from_dict(data)
    except AIQError as error:
        raise ValueError(f"a {error}".partition(". Next: ")[0]) from None
    if scheme.to_dict() != data:
        raise ValueError("a scheme that is not in canonical form")
    return scheme


def _decoded(text: Any, kind: Any, n: Any) -> Outcomes | None:
    try:
        data = None if text is None else base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        raise ValueError("outcomes that are no base64 text") from None
    return unpack(data, kind, n)


def _time(data: Mapping[str, Any]) -> str:
    try:
        moment = datetime.fromisoformat(data["created"])
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC).isoformat(timespec="seconds")
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"created {_short(data['created'])}, which is no time with its zone") from None
