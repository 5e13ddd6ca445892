"""What stands in for accuracy before any evaluation: a loss for each layer and option that adds over layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from aiq._model import Model
from roofline import LayerPrecision, OpGraph


@dataclass(frozen=True, eq=False)
class LossTable:
    """An additive loss.

    Attributes:
        losses: Loss of option k in layer l, [L, K], at least 0.
        unit: What a loss of 1 means.
        caveat: One sentence on what the figures are not.
    """

    losses: NDArray[np.float64]
    unit: str
    caveat: str


@runtime_checkable
class AccuracyProxy(Protocol):
    """Estimates what each option costs in accuracy without evaluating the model.

    ``aiq plan`` calls :meth:`loss_table` once, after tracing and before solving. A proxy never sees the hardware.
    Register one under the entry-point group ``aiq.proxies``: a callable that takes the text after ``NAME:`` (empty
    where there is none) and returns a proxy.
    """

    name: str

    def loss_table(self, model: Model, graph: OpGraph, options: Mapping[str, Sequence[LayerPrecision]]) -> LossTable:
        """Return the loss of every layer under each of its options; the layers come in the order of ``options``."""
        ...
