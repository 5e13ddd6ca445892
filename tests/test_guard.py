"""The shield around an oracle: every way to fail is one sentence, hanging included."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from aiq._guard import HUNG_THREAD, guarded
from aiq.oracle import Evaluation, Metric, OracleError
from roofline import Scheme
from roofline.errors import InputError, TraceError

GOOD = Evaluation(0.5, 0.1, 2, np.array([True, False]), divergence=0.0)


class Made:
    """An oracle of one function."""

    metric = Metric("accuracy", "points", scale=100.0)

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer
        self.fingerprint = {"oracle": "made up"}
        self.threads: list[threading.Thread] = []

    def evaluate(self, scheme: Scheme) -> Any:
        self.threads.append(threading.current_thread())
        return self.answer()


@pytest.fixture
def hanging() -> Iterator[Callable[[], Evaluation]]:
    """Return what hangs until the test is over."""
    over = threading.Event()

    def hang() -> Evaluation:
        over.wait()
        return GOOD

    yield hang
    over.set()
    for thread in threading.enumerate():
        if thread.name == HUNG_THREAD:
            thread.join()


def raising(error: BaseException) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


@pytest.mark.parametrize("timeout_s", [None, 60.0])
def test_a_good_answer_passes(timeout_s: float | None) -> None:
    made = Made(lambda: GOOD)
    oracle = guarded(made, timeout_s)
    assert [oracle.evaluate(Scheme()) for _ in range(3)] == [GOOD] * 3
    assert (oracle.metric, oracle.fingerprint) == (made.metric, made.fingerprint)
    own = {thread is threading.current_thread() for thread in made.threads}
    assert own == {timeout_s is None}
    assert len(set(made.threads)) == 1


@pytest.mark.parametrize("timeout_s", [None, 60.0])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no\nsuch thing."), "the oracle raised ValueError: no. Next: mend it."),
        (RuntimeError(), "the oracle raised RuntimeError: no message. Next: mend it."),
        (MemoryError("full"), "the oracle raised MemoryError: full. Next: mend it."),
        (SystemExit(3), "the oracle raised SystemExit: 3. Next: mend it."),
        (TraceError("net raised. Next: mend it."), "net raised. Next: mend it."),
        (OracleError("it broke. Next: mend it."), "it broke. Next: mend it."),
    ],
)
def test_whatever_is_raised_is_one_sentence(error: BaseException, message: str, timeout_s: float | None) -> None:
    with pytest.raises(OracleError) as caught:
        guarded(Made(raising(error)), timeout_s).evaluate(Scheme())
    assert str(caught.value) == message


@pytest.mark.parametrize("timeout_s", [None, 60.0])
def test_ctrl_c_passes(timeout_s: float | None) -> None:
    with pytest.raises(KeyboardInterrupt):
        guarded(Made(raising(KeyboardInterrupt())), timeout_s).evaluate(Scheme())


def test_an_oracle_that_hangs_is_given_up(hanging: Callable[[], Evaluation]) -> None:
    oracle = guarded(Made(hanging), 0.05)
    with pytest.raises(OracleError) as caught:
        oracle.evaluate(Scheme())
    assert str(caught.value) == (
        "the oracle took longer than 0.05 s and cannot be stopped. "
        "Next: end the process; raise the timeout, or see why it hangs."
    )
    with pytest.raises(OracleError) as caught:
        oracle.evaluate(Scheme())
    assert str(caught.value) == (
        "an earlier evaluation took too long and still runs. Next: end the process, then run again."
    )


def test_a_hanging_oracle_does_not_keep_the_process_alive(hanging: Callable[[], Evaluation]) -> None:
    made = Made(hanging)
    with pytest.raises(OracleError):
        guarded(made, 0.05).evaluate(Scheme())
    assert [thread.daemon for thread in made.threads] == [True]


def test_an_oracle_that_keeps_the_timeout_itself_gets_no_thread() -> None:
    made = Made(lambda: GOOD)
    made.keeps_timeout = True  # type: ignore[attr-defined]
    guarded(made, 60.0).evaluate(Scheme())
    assert made.threads == [threading.current_thread()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": math.nan}, "the oracle answered value = nan. "),
        ({"value": math.inf}, "the oracle answered value = inf. "),
        ({"stderr": math.nan}, "the oracle answered stderr = nan. "),
        ({"divergence": -math.inf}, "the oracle answered divergence = -inf. "),
        ({"n": 3}, "the oracle answered 2 outcomes for n = 3, or some that are not finite. "),
        (
            {"outcomes": np.array([1.0, math.nan], dtype=np.float32)},
            "the oracle answered 2 outcomes for n = 2, or some that are not finite. ",
        ),
    ],
)
def test_answers_that_are_no_numbers(change: dict[str, Any], message: str) -> None:
    with pytest.raises(OracleError) as caught:
        guarded(Made(lambda: replace(GOOD, **change))).evaluate(Scheme())
    assert str(caught.value).startswith(message)


def test_an_answer_of_another_type() -> None:
    with pytest.raises(OracleError) as caught:
        guarded(Made(lambda: 0.5)).evaluate(Scheme())
    assert str(caught.value) == "the oracle answered float, not an Evaluation. Next: mend it."


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, math.nan, math.inf])
def test_timeouts_that_are_none(timeout_s: float) -> None:
    with pytest.raises(InputError) as caught:
        guarded(Made(lambda: GOOD), timeout_s)
    assert str(caught.value) == (f"the timeout must be a number of seconds above 0, got {timeout_s}. Next: choose one.")
