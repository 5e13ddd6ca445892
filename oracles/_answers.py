"""Oracles that are somebody else's code: a question goes out, a mapping comes back and is checked key by key."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from aiq.digest import layers_digest, model_digest
from aiq.oracle import Evaluation, Metric, OracleContext, OracleError
from oracles._outputs import scheme_label, standard_error
from roofline import OpGraph, Scheme
from roofline.estimate import resolve

_KEYS = ("value", "stderr", "n", "outcomes", "divergence", "metric", "unit", "higher_is_better")
_METRIC_KEYS = ("metric", "unit", "higher_is_better")
_KNOWN = {
    "accuracy": Metric("accuracy", "points", scale=100.0),
    "agreement": Metric("agreement", "points", scale=100.0),
    "kl": Metric("kl", "nats", higher_is_better=False),
    "perplexity": Metric("perplexity", "perplexity", higher_is_better=False),
}
_DEFAULT = Metric("value", "units")
_SAME_MEAN = 0.01


@dataclass(eq=False)
class Answering:
    """The oracle of whatever answers for a scheme with a mapping.

    The mapping holds ``value`` and, where known, ``stderr``, ``n``, ``outcomes`` (integers 0 and 1 for wrong and right,
    or floating-point numbers whose mean is the value; one an example, in one order for all schemes), ``divergence``,
    and the metric: ``metric`` (its name), ``unit``, ``higher_is_better`` (true unless it says otherwise). ``accuracy``
    and ``agreement`` are fractions whose losses are percentage points; ``kl`` and ``perplexity`` are better when lower.

    Attributes:
        source: What answers, for messages.
        ask: Returns the answer.
        describe: Returns the fingerprint.
        graph: The model's graph, on which schemes are resolved.
        declared: The metric, where it is known before any answer.
        keeps_timeout: Whether ``ask`` itself ends in time.
    """

    source: str
    ask: Callable[[Scheme], Mapping[str, Any]] = field(repr=False)
    describe: Callable[[], Mapping[str, str]] = field(repr=False)
    graph: OpGraph = field(repr=False)
    declared: Metric | None = None
    keeps_timeout: bool = False
    _float_model: Evaluation | None = field(default=None, init=False, repr=False)

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """See :class:`aiq.oracle.Oracle`."""
        return self.describe()

    @property
    def metric(self) -> Metric:
        """What its values mean; if nothing has said so yet, the float model is evaluated to know, once."""
        if self.declared is None:
            self._float_model = self._evaluate(Scheme())
        assert self.declared is not None
        return self.declared

    def evaluate(self, scheme: Scheme) -> Evaluation:
        """Ask and check the answer.

        Raises:
            OracleError: The answer is missing, malformed, or speaks of another metric than the one before.
        """
        formats = resolve(self.graph, scheme).values()
        if self._float_model is not None and all(f.weights is None and f.activations is None for f in formats):
            return self._float_model
        return self._evaluate(scheme)

    def _evaluate(self, scheme: Scheme) -> Evaluation:
        started = time.perf_counter()
        answer = self.ask(scheme)
        seconds = time.perf_counter() - started
        evaluation, metric = read_answer(answer, f"{self.source}, on {scheme_label(scheme)},", self.declared)
        if self.declared is None:
            self.declared = metric
        elif metric != self.declared:
            raise OracleError(
                f"{self.source} speaks of {metric.name} in {metric.unit} on {scheme_label(scheme)}, of "
                f"{self.declared.name} in {self.declared.unit} before. Next: give one metric for all schemes."
            )
        return replace(evaluation, seconds=seconds)


def read_answer(answer: Mapping[str, Any], source: str, declared: Metric | None = None) -> tuple[Evaluation, Metric]:
    """Return the evaluation and the metric in an answer; ``declared`` is the metric where it says nothing of it.

    Raises:
        OracleError: A key is missing, unknown or nonsense.
    """
    for key in answer:
        if key not in _KEYS:
            raise OracleError(f"{source} answered with the key {key!r}: known: {', '.join(_KEYS)}. Next: drop it.")
    if "value" not in answer:
        raise OracleError(f"{source} answered without a value. Next: answer at least {{'value': NUMBER}}.")
    value = _number(answer["value"], "value", source)
    outcomes = None if answer.get("outcomes") is None else _outcomes(answer["outcomes"], value, source)
    if outcomes is not None:
        value = float(outcomes.mean(dtype=np.float64))
    stderr, divergence = (
        None if answer.get(key) is None else _number(answer[key], key, source, least=0.0)
        for key in ("stderr", "divergence")
    )
    n = 0 if outcomes is None else len(outcomes)
    if answer.get("n") is not None:
        given = _number(answer["n"], "n", source, least=0.0)
        if given != int(given) or (outcomes is not None and given != n):
            what = "a whole number" if outcomes is None else f"the {n} of its outcomes"
            raise OracleError(f"{source} answered n = {answer['n']!r}, not {what}. Next: mend it.")
        n = int(given)
    if stderr is None and outcomes is not None:
        stderr = standard_error(outcomes)
    return Evaluation(value, stderr, n, outcomes, divergence=divergence), _metric(answer, value, source, declared)


def _metric(answer: Mapping[str, Any], value: float, source: str, declared: Metric | None) -> Metric:
    said = {key: answer[key] for key in _METRIC_KEYS if answer.get(key) is not None}
    for key in ("metric", "unit"):
        if not isinstance(said.get(key, ""), str):
            raise OracleError(f"{source} answered {key} = {said[key]!r}, not a text. Next: mend it.")
    if not isinstance(said.get("higher_is_better", True), bool):
        raise OracleError(
            f"{source} answered higher_is_better = {said['higher_is_better']!r}, neither true nor false. Next: mend it."
        )
    name = said.get("metric")
    base = (declared or _DEFAULT) if name is None else _KNOWN.get(name) or Metric(name, name)
    found = replace(
        base, unit=said.get("unit", base.unit), higher_is_better=said.get("higher_is_better", base.higher_is_better)
    )
    if found.scale != 1.0 and not 0 <= value <= 1:
        raise OracleError(
            f"{source} answered {found.name} = {value:g}: it is a fraction from 0 to 1. Next: divide percent by 100."
        )
    return found


def _number(given: Any, key: str, source: str, least: float = -math.inf) -> float:
    try:
        if isinstance(given, str | bytes):
            raise TypeError
        number = float(given)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if not math.isfinite(number) or number < least:
        kind = "a finite number" if least < 0 else "a finite number of at least 0"
        raise OracleError(f"{source} answered {key} = {_short(given)}, not {kind}. Next: mend it.")
    return number


def _outcomes(given: Any, value: float, source: str) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        array = np.array(None)
    if array.dtype.kind not in "biuf" or array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise OracleError(
            f"{source} answered outcomes that are no list of finite numbers. Next: give one number for each example."
        )
    mean = float(array.mean(dtype=np.float64))
    if abs(mean - value) > _SAME_MEAN * max(abs(mean), abs(value)):
        raise OracleError(
            f"{source} answered value = {value:g} and outcomes whose mean is {mean:g}. "
            "Next: give outcomes whose mean is the value, or none."
        )
    if array.dtype.kind != "f" and np.isin(array, (0, 1)).all():
        return array.astype(bool)
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _short(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 60 else f"{text[:57]}..."


def layer_formats(scheme: Scheme, context: OracleContext) -> dict[str, str]:
    """Return the format of every layer as text: ``keep`` or ``WEIGHTS/ACTIVATIONS[@RECIPE]``, as in ``int8/keep``."""
    return {layer: str(formats) for layer, formats in resolve(context.graph, scheme).items()}


def context_fingerprint(context: OracleContext) -> dict[str, str]:
    """Return what foreign code may make its values depend on: the model and what it is told."""
    return {
        "model": context.model.name,
        "weights": model_digest(context.model),
        "layers": layers_digest(context.graph),
        "data": repr(context.data),
        "split": context.split,
        "limit": repr(context.limit),
        "seed": str(context.seed),
    }
