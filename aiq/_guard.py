"""A shield around an oracle: whatever it raises or answers, and however long it takes, the caller gets one sentence."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from aiq._callable import reason
from aiq.oracle import Evaluation, Metric, Oracle, OracleError
from roofline.errors import AIQError, InputError

if TYPE_CHECKING:
    from roofline import Scheme

HUNG_THREAD = "aiq-oracle-hangs"
"""Name of a thread whose evaluation was given up: while it runs, the interpreter cannot end in good order."""


def guarded(oracle: Oracle, timeout_s: float | None = None) -> Oracle:
    """Return an oracle that evaluates as the given one does and fails with nothing but :class:`OracleError`.

    Any exception of the oracle becomes one sentence; ``KeyboardInterrupt`` passes. A value, standard error or outcome
    that is not finite is refused. With a timeout, evaluations run in one daemon thread. A thread cannot be stopped:
    after a timeout the oracle goes on in the background, every later evaluation is refused at once, and the process
    should end. An oracle that ends in time by itself says so with an attribute ``keeps_timeout = True`` and gets no
    thread.

    Args:
        oracle: What measures.
        timeout_s: Longest that one evaluation may take, seconds; ``None`` for as long as it takes.

    Raises:
        InputError: The timeout is no number above 0.
    """
    if timeout_s is not None and not 0 < timeout_s < math.inf:
        raise InputError(f"the timeout must be a number of seconds above 0, got {timeout_s}. Next: choose one.")
    return _Guarded(oracle, None if getattr(oracle, "keeps_timeout", False) else timeout_s)


class _Guarded:
    def __init__(self, oracle: Oracle, timeout_s: float | None) -> None:
        self.oracle, self.timeout_s = oracle, timeout_s
        self._hangs = False
        self._worker: threading.Thread | None = None
        self._questions: queue.SimpleQueue[Scheme] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Evaluation | BaseException] = queue.SimpleQueue()

    @property
    def metric(self) -> Metric:
        return self.oracle.metric

    @property
    def fingerprint(self) -> Mapping[str, str]:
        return self.oracle.fingerprint

    def evaluate(self, scheme: Scheme) -> Evaluation:
        found = self._attempt(scheme) if self.timeout_s is None else self._in_time(scheme, self.timeout_s)
        if isinstance(found, KeyboardInterrupt | OracleError):
            raise found
        if isinstance(found, BaseException):
            text = str(found) if isinstance(found, AIQError) else f"the oracle raised {reason(found)} Next: mend it."
            raise OracleError(text) from found
        _check(found)
        return found

    def _attempt(self, scheme: Scheme) -> Evaluation | BaseException:
        try:
            return self.oracle.evaluate(scheme)
        except BaseException as error:
            return error

    def _in_time(self, scheme: Scheme, timeout_s: float) -> Evaluation | BaseException:
        if self._hangs:
            raise OracleError(
                "an earlier evaluation took too long and still runs. Next: end the process, then run again."
            )
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="aiq-oracle", daemon=True)
            self._worker.start()
        self._questions.put(scheme)
        try:
            return self._answers.get(timeout=timeout_s)
        except queue.Empty:
            self._give_up()
            raise OracleError(
                f"the oracle took longer than {timeout_s:g} s and cannot be stopped. "
                "Next: end the process; raise the timeout, or see why it hangs."
            ) from None
        except KeyboardInterrupt:
            self._give_up()
            raise

    def _give_up(self) -> None:
        self._hangs = True
        if self._worker is not None:
            self._worker.name = HUNG_THREAD

    def _work(self) -> None:
        while not self._hangs:
            self._answers.put(self._attempt(self._questions.get()))


def _check(found: Evaluation) -> None:
    if not isinstance(found, Evaluation):
        raise OracleError(f"the oracle answered {type(found).__name__}, not an Evaluation. Next: mend it.")
    for name in ("value", "stderr", "divergence"):
        value = getattr(found, name)
        if value is not None and not math.isfinite(value):
            raise OracleError(
                f"the oracle answered {name} = {value}. "
                "Next: check the model's outputs, or leave out the formats that break them."
            )
    if found.outcomes is not None and (len(found.outcomes) != found.n or not np.isfinite(found.outcomes).all()):
        raise OracleError(
            f"the oracle answered {len(found.outcomes)} outcomes for n = {found.n}, or some that are not finite. "
            "Next: give one finite outcome for each example."
        )
