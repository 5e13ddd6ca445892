"""The oracle: what measures a scheme's accuracy. A protocol, the result it returns, and the metric it speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from roofline.errors import AIQError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aiq._model import Model
    from aiq.racing import LossLimit
    from roofline import OpGraph, Scheme


class OracleError(AIQError):
    """An oracle that cannot be built, failed, took too long or answered nonsense."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What an oracle's value means.

    Attributes:
        name: For instance ``accuracy``.
        unit: Unit of a loss, for instance ``points``.
        higher_is_better: Direction.
        scale: Factor from a difference of values to a loss in ``unit``: 100 from a fraction to percentage points.
    """

    name: str
    unit: str
    higher_is_better: bool = True
    scale: float = 1.0

    def drop(self, baseline: float, value: float) -> float:
        """Return how much worse ``value`` is than the baseline's, in ``unit``; negative where it is better."""
        return self.scale * (baseline - value if self.higher_is_better else value - baseline)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What an oracle measured of one scheme.

    Attributes:
        value: The metric, in its own unit (accuracy as a fraction).
        stderr: Standard error of ``value`` over examples; ``None`` where the oracle cannot know.
        n: Examples; 0 where there are none (a data-free oracle); fewer than the baseline's where racing cut it short,
            then the first so many.
        outcomes: One entry for each example, always in the same order, [n]: bool for right and wrong, or the float32
            contributions whose mean is ``value``. They pair any two schemes. ``None`` where the oracle has none.
        seconds: Wall-clock seconds of the evaluation.
        work: Share of one plain evaluation's arithmetic that was run; below 1 where results were reused.
        divergence: How far the outputs stray from the float model's in the mean, in nats (Kullback–Leibler) or as
            1 − cosine of embeddings: a smooth companion of a counted metric, by which searches rank schemes that the
            count cannot tell apart.
    """

    value: float
    stderr: float | None = None
    n: int = 0
    outcomes: NDArray[np.bool_] | NDArray[np.float32] | None = field(default=None, repr=False)
    seconds: float = 0.0
    work: float = 1.0
    divergence: float | None = None

    def first(self, n: int) -> Evaluation:
        """Return what it says of its first n examples alone; itself where that is all that it has, or can tell."""
        if self.outcomes is None or not 0 < n < self.n:
            return self
        outcomes = self.outcomes[:n]
        return Evaluation(float(outcomes.mean(dtype=np.float64)), n=n, outcomes=outcomes)


@runtime_checkable
class Oracle(Protocol):
    """Measures schemes. An oracle never sees the hardware, so what it measured serves every machine.

    The driver of a search calls :meth:`evaluate` once for each distinct scheme, from one thread; the cache wrapper asks
    for :attr:`fingerprint` once.
    """

    @property
    def metric(self) -> Metric:
        """What its values mean."""
        ...

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """Everything that a value depends on apart from the scheme, as text: digests of weights, data and quantizer
        code, settings, versions. Two oracles with equal fingerprints give equal values."""
        ...

    def evaluate(self, scheme: Scheme) -> Evaluation:
        """Measure one scheme.

        Raises:
            OracleError: It cannot be measured; the message says what, why and the next step.
        """
        ...


@dataclass(frozen=True, eq=False)
class OracleContext:
    """What an oracle is built from.

    Attributes:
        model: The model in floating point, with its weights.
        graph: Its operator graph.
        data: Data set, as the user wrote it (``digits``, ``cifar10:PATH``); ``None`` for the model's own.
        split: Split that is evaluated.
        limit: Evaluate only the first so many examples of the split; they are a fair sample.
        memory_bytes: Most memory for reused activations.
        timeout_s: Longest one evaluation may take, where the oracle can stop it.
        seed: Seeds whatever the oracle draws.
        race: Limit on the loss beyond which an evaluation may stop early (see :func:`aiq.racing.hopeless`); ``None``
            for whole evaluations. An oracle that honours it has an attribute ``races = True``, and the limit in its
            fingerprint where there is one.
    """

    model: Model
    graph: OpGraph
    data: str | None = None
    split: str = "search"
    limit: int | None = None
    memory_bytes: int = 2 * 2**30
    timeout_s: float | None = None
    seed: int = 0
    race: LossLimit | None = None


class OracleFactory(Protocol):
    """Builds an oracle; what an entry point of the group ``aiq.oracles`` names."""

    def __call__(self, argument: str, context: OracleContext) -> Oracle:
        """Return the oracle.

        Args:
            argument: The text after ``NAME:``; empty where there is none.
            context: Model, data and settings.
        """
        ...


def fingerprint_digest(fingerprint: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a fingerprint in canonical JSON, in hexadecimal."""
    import hashlib
    import json

    text = json.dumps(dict(fingerprint), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
