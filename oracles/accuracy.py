"""Top-1 accuracy of the quantized network on a labelled split, evaluated in PyTorch."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from aiq import racing
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

    With a limit on the loss in the context, an evaluation ends after the batch that settles that its scheme loses more
    (:func:`aiq.racing.hopeless`): it is then of the first examples only, and its own drop on them is above the limit.
    Any other evaluation is the same as without a limit.
    """

    metric = Metric("accuracy", "points", higher_is_better=True, scale=100.0)
    races = True

    def __init__(self, argument: str, context: OracleContext) -> None:
        if argument:
            raise InputError(f"the oracle accuracy takes no argument, got {argument!r}. Next: write accuracy.")
        self.network = Network(context)
        self.race = context.race
        check_labels(self.network.split)

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """See :class:`aiq.oracle.Oracle`."""
        found = {"metric": "accuracy", "code": code_digest(sys.modules[__name__]), **self.network.fingerprint}
        if self.race is not None:
            found["race"] = f"loss above {self.race}, alpha {racing.ALPHA}, code {code_digest(racing)}"
        return found

    def evaluate(self, scheme: Scheme) -> Evaluation:
        """Run the split under a scheme, or as much of it as a race takes."""
        labels = check_labels(self.network.split, self.network.float_logits.shape[-1])
        outputs = self.network.run(scheme, self._judge(labels))
        right = _right(outputs.logits, labels)
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

    def _judge(self, labels: NDArray[np.int64]) -> Callable[[torch.Tensor], bool] | None:
        """Return what is given the logits of one batch after another and says whether the scheme is past hope."""
        if self.race is None:
            return None
        baseline = _right(self.network.float_logits, labels)
        allowed = racing.allowance(self.race.of(self.metric, float(baseline.mean()))) / self.metric.scale
        seen = np.zeros(0, dtype=np.bool_)

        def enough(logits: torch.Tensor) -> bool:
            nonlocal seen
            seen = np.concatenate([seen, _right(logits, labels[len(seen) :])])
            return racing.hopeless(baseline, seen, allowed)

        return enough


def _right(logits: torch.Tensor, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which of the first examples, [n], are right, by their logits [n, C]."""
    found: NDArray[np.bool_] = logits.argmax(-1).numpy() == labels[: len(logits)]
    return found
