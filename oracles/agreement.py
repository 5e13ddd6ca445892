"""How far a quantized network strays from the float model on inputs that need no labels."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from aiq.digest import code_digest
from aiq.oracle import Evaluation, Metric, OracleContext
from oracles import _outputs
from oracles._network import Network
from oracles._outputs import agreements, standard_error
from roofline import Scheme
from roofline.errors import InputError

AGREEMENT = Metric("agreement", "points", higher_is_better=True, scale=100.0)
KL = Metric("kl", "nats", higher_is_better=False)


@dataclass(frozen=True, eq=False)
class FloatComparison:
    """Compares the outputs of quantized networks with the float model's; built by :func:`agreement` and :func:`kl`.

    Attributes:
        metric: ``agreement`` or ``kl``.
        network: Runs the network as a scheme would.
    """

    metric: Metric
    network: Network = field(repr=False)

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """See :class:`aiq.oracle.Oracle`."""
        code = code_digest(sys.modules[__name__], _outputs)
        return {"metric": self.metric.name, "code": code, **self.network.fingerprint}

    def evaluate(self, scheme: Scheme) -> Evaluation:
        """Run the network as the scheme says and compare.

        Raises:
            OracleError: Outputs are not finite, or the network fails.
        """
        found = self.network.run(scheme)
        each = found.divergence
        outcomes = agreements(self.network.float_logits, found.logits) if self.metric is AGREEMENT else each
        return Evaluation(
            float(outcomes.mean(dtype=np.float64)),
            standard_error(outcomes),
            len(outcomes),
            outcomes,
            found.seconds,
            found.work,
            float(each.mean(dtype=np.float64)),
        )


def agreement(argument: str, context: OracleContext) -> FloatComparison:
    """Return the share of inputs on which the quantized network's top-1 class is the float model's.

    Needs no labels. Agreement bounds the change in accuracy from both sides: |Δ accuracy| ≤ 1 − agreement.

    Args:
        argument: Must be empty.
        context: Model, data and split.

    Raises:
        InputError: There is an argument.
        AIQError: The data or the model cannot be used.
    """
    return _comparison("agreement", AGREEMENT, argument, context)


def kl(argument: str, context: OracleContext) -> FloatComparison:
    """Return the mean Kullback–Leibler divergence of the quantized network's softmax from the float model's, in nats.

    Needs no labels, and tells schemes apart that no counted metric can.

    Args:
        argument: Must be empty.
        context: Model, data and split.

    Raises:
        InputError: There is an argument.
        AIQError: The data or the model cannot be used.
    """
    return _comparison("kl", KL, argument, context)


def _comparison(name: str, metric: Metric, argument: str, context: OracleContext) -> FloatComparison:
    if argument:
        raise InputError(f"the oracle {name} takes no argument, got {argument!r}. Next: write {name}.")
    return FloatComparison(metric, Network(context))
