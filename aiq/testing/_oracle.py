"""The contract of an accuracy oracle."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aiq.digest import model_digest
from aiq.oracle import Evaluation, Metric, OracleContext, OracleFactory
from aiq.testing._contract import ContractError, demand
from roofline.errors import AIQError
from roofline.scheme import Scheme

if TYPE_CHECKING:
    from aiq.oracle import Oracle

_NO_LAYER = "no_such_layer"
_ZERO_NATS = 1e-9


def example_context(*, limit: int = 64) -> OracleContext:
    """Return a context to try an oracle on: the trained ``digits_cnn`` and its own data.

    Args:
        limit: Examples, so that an evaluation takes moments.
    """
    from aiq._model import load_model

    model = load_model("digits_cnn")
    return OracleContext(model, model.trace(), limit=limit)


def check_oracle(
    make: OracleFactory,
    argument: str = "",
    *,
    context: OracleContext | None = None,
    schemes: Sequence[Scheme] | None = None,
) -> None:
    """Check that an oracle keeps the contract of :class:`aiq.oracle.Oracle`.

    It has a metric; answers finite values with outcomes that agree with them; answers the same again, after other
    schemes, by the same object and by another built alike; says that the float model does not diverge from itself; has
    a fingerprint of texts that stays as it is; refuses a layer that the model has not by an :class:`AIQError`; and
    leaves the model as it found it.

    Args:
        make: Builds the oracle; called twice.
        argument: What follows ``NAME:``.
        context: What it is built from; by default :func:`example_context`.
        schemes: What it is asked to evaluate beside the float model; by default uniform and mixed weights in 8 and 4
            bits.

    Raises:
        ContractError: It breaks a rule; the text says which.
    """
    context = example_context() if context is None else context
    first_layer = context.graph.layers[0]
    texts = ("w8", "w4", f"w4,{first_layer}=keep")
    tried = [Scheme(), *(map(Scheme.parse, texts) if schemes is None else schemes)]
    before = _state(context)
    oracle = make(argument, context)
    _check_metric(oracle)
    fingerprint = _fingerprint(oracle)
    found = [_evaluate(oracle, scheme) for scheme in tried]
    for scheme, evaluation in zip(tried, found, strict=True):
        _check_evaluation(evaluation, str(scheme))
    nats = found[0].divergence
    demand(
        nats is None or abs(nats) <= _ZERO_NATS,
        f"the float model must have divergence 0 from itself or None, got {nats}",
    )
    for scheme, evaluation in zip(reversed(tried), reversed(found), strict=True):
        demand(_equal(evaluation, _evaluate(oracle, scheme)), f"{scheme} evaluated again must give an equal evaluation")
    demand(_fingerprint(oracle) == fingerprint, "evaluating must not change the fingerprint")
    other = make(argument, context)
    demand(_fingerprint(other) == fingerprint, "two oracles built alike must have equal fingerprints")
    for scheme, evaluation in zip(tried, found, strict=True):
        demand(_equal(evaluation, _evaluate(other, scheme)), f"another oracle built alike must answer {scheme} equally")
    _check_unknown_layer(oracle)
    demand(_state(context) == before, "evaluating must leave the model's weights, structure and mode as they are")


def _check_metric(oracle: Oracle) -> None:
    metric = oracle.metric
    demand(isinstance(metric, Metric), f"metric must be a Metric, got {type(metric).__name__}")
    demand(bool(metric.name), "the metric needs a name")
    demand(0 < metric.scale < math.inf, f"the metric's scale must be a number above 0, got {metric.scale}")


def _fingerprint(oracle: Oracle) -> dict[str, str]:
    found: Any = oracle.fingerprint
    demand(
        isinstance(found, Mapping) and bool(found), f"fingerprint must be a mapping that is not empty, got {found!r}"
    )
    for key, value in found.items():
        texts = isinstance(key, str) and isinstance(value, str)
        demand(texts, f"fingerprint must map text to text, got {key!r}: {value!r}")
    again = dict(oracle.fingerprint)
    demand(json.dumps(dict(found), sort_keys=True) == json.dumps(again, sort_keys=True), "fingerprint must be stable")
    return again


def _evaluate(oracle: Oracle, scheme: Scheme) -> Evaluation:
    found: Any = oracle.evaluate(scheme)
    demand(isinstance(found, Evaluation), f"evaluate must return an Evaluation, got {type(found).__name__}")
    return found


def _check_evaluation(found: Evaluation, scheme: str) -> None:
    demand(math.isfinite(found.value), f"{scheme}: the value must be finite, got {found.value}")
    demand(found.n >= 0, f"{scheme}: n must be at least 0, got {found.n}")
    for name in ("stderr", "divergence"):
        value = getattr(found, name)
        demand(
            value is None or 0 <= value < math.inf or (name == "divergence" and abs(value) <= _ZERO_NATS),
            f"{scheme}: {name} must be None or a number of at least 0, got {value}",
        )
    outcomes = found.outcomes
    if outcomes is None:
        return
    demand(
        outcomes.shape == (found.n,) and outcomes.dtype in (np.dtype(bool), np.dtype(np.float32)),
        f"{scheme}: outcomes must be bool or float32 of shape [{found.n}], got {outcomes.dtype} {list(outcomes.shape)}",
    )
    mean = float(outcomes.mean(dtype=np.float64))
    close = math.isclose(mean, found.value, rel_tol=1e-12 if outcomes.dtype == bool else 1e-4, abs_tol=1e-6)
    demand(close, f"{scheme}: the mean of the outcomes must be the value, got {mean} and {found.value}")


def _check_unknown_layer(oracle: Oracle) -> None:
    rule = f"a scheme that names an unknown layer must raise an AIQError, {{}} for {_NO_LAYER}=w8"
    try:
        found = oracle.evaluate(Scheme.parse(f"keep,{_NO_LAYER}=w8"))
    except AIQError:
        return
    except Exception as error:
        raise ContractError(rule.format(f"got {type(error).__name__}: {error}")) from error
    raise ContractError(rule.format(f"got {found!r}"))


def _equal(a: Evaluation, b: Evaluation) -> bool:
    """Tell whether two evaluations agree on everything but how long they took."""
    figures = [(e.value, e.stderr, e.n, e.divergence) for e in (a, b)]
    if a.outcomes is None or b.outcomes is None:
        return figures[0] == figures[1] and a.outcomes is b.outcomes
    same_type = a.outcomes.dtype == b.outcomes.dtype
    return figures[0] == figures[1] and same_type and np.array_equal(a.outcomes, b.outcomes)


def _state(context: OracleContext) -> tuple[str, tuple[bool, ...]]:
    return model_digest(context.model), tuple(module.training for module in context.model.module.modules())
