"""Top-1 accuracy of the quantized network on a labelled split, evaluated in PyTorch."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

import numpy as np

from aiq.data import check_labels
from aiq.digest import code_digest
from aiq.oracle import Evaluation, Metric, OracleContext
from oracles._network import Network
from roofline import Scheme
from roofline.errors import InputError


class Accuracy:
    """Share of examples whose largest logit is the labelled class.

    A scheme that agrees with an earlier one in its first layers goes on from that one's stored activations; the
    outcomes equal those of a plain evaluation, example by example.
    """

    metric = Metric("accuracy", "points", higher_is_better=True, scale=100.0)

    def __init__(self, argument: str, context: OracleContext) -> None:
        if argument:
            raise InputError(f"the oracle accuracy takes no argument, got {argument!r}. Next: write accuracy.")
        self.network = Network(context)
        check_labels(self.network.split)

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """See :class:`aiq.oracle.Oracle`."""
        return {"metric": "accuracy", "code": code_digest(sys.modules[__name__]), **self.network.fingerprint}

    def evaluate(self, scheme: Scheme) -> Evaluation:
        """Run the split under a scheme."""
        classes = self.network.float_logits.shape[-1]
        check_labels(self.network.split, classes)
        outputs = self.network.run(scheme)
        right = outputs.logits.argmax(-1).numpy() == self.network.split.y
        n = len(right)
        value = float(right.sum()) / n
        return Evaluation(
            value,
            math.sqrt(value * (1 - value) / n),
            n,
            right,
            outputs.seconds,
            outputs.work,
            float(np.mean(outputs.divergence, dtype=np.float64)),
        )
