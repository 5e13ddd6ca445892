"""The plug point of searches: a strategy is a generator that asks for evaluations and learns from the answers."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from aiq.oracle import Evaluation
from aiq.problem import Problem
from aiq.space import Choice


@dataclass(frozen=True, eq=False)
class Findings:
    """What a strategy knows at its end beyond the evaluations themselves.

    Attributes:
        finished: Whether it came to its own end (a strategy that is cut short by a budget yields no findings).
        note: One sentence on why it stopped.
        predicted: Predicted loss of option k in unit u, [U, K], NaN where unknown; ``None`` for strategies without a
            model of accuracy.
        bound: Lower bound on the objective's value over the whole space under that model; ``None`` without one.
        path: Choices that it went through one after the other, the baseline first; empty where it does not walk.
    """

    finished: bool = True
    note: str = ""
    predicted: NDArray[np.float64] | None = field(default=None, repr=False)
    bound: float | None = None
    path: tuple[Choice, ...] = ()


Steps = Generator[Choice, Evaluation, Findings]


@runtime_checkable
class Strategy(Protocol):
    """Decides which schemes to evaluate.

    The driver owns the oracle, the cache, the budget, progress and Ctrl-C, and keeps every evaluation; it has evaluated
    the baseline, ``problem.space.start``, before it starts a strategy. A strategy must be deterministic given its
    arguments and the evaluations it is sent: replaying cached evaluations is how a search resumes. Asking again for a
    scheme costs nothing. It may be closed at any ``yield``.

    Attributes:
        name: As in ``--strategy NAME`` and in the entry-point group ``aiq.strategies``.
    """

    name: str

    def steps(self, problem: Problem) -> Steps:
        """Yield choices, receive their evaluations, return findings."""
        ...

    def most_evaluations(self, problem: Problem) -> int:
        """Return how many distinct evaluations it takes at most, the baseline included: the answer to ``--dry-run``."""
        ...
