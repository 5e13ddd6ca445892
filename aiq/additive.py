"""Additive oracles: a loss for each layer and format that adds over layers, which exact optimisation can use directly.

``aiq plan`` ranks schemes by one before any evaluation; a search may use one like any other oracle.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import numpy as np

from aiq.digest import layers_digest
from aiq.oracle import Evaluation, Metric, Oracle
from roofline import LayerPrecision
from roofline.estimate import resolve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from roofline import OpGraph, Scheme

Cell = tuple[str, LayerPrecision]
"""A layer and the formats that it may take."""

Factory = TypeVar("Factory")


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
class AdditiveOracle(Oracle, Protocol):
    """An oracle whose value is a sum over layers; its metric is a loss, 0 for the float model.

    ``aiq plan --proxy NAME`` calls :meth:`loss_table` once, after tracing and before solving. Its factory says so with
    the attribute ``additive = True`` (see :func:`additive`), so that a command can list such oracles without building
    them.
    """

    def loss_table(self, options: Mapping[str, Sequence[LayerPrecision]]) -> LossTable:
        """Return the loss of every layer under each of its options; the layers come in the order of ``options``."""
        ...


def additive(factory: Factory) -> Factory:
    """Mark a factory in ``aiq.oracles`` as one that builds an additive oracle."""
    vars(factory)["additive"] = True
    return factory


@dataclass(frozen=True, eq=False)
class LayerLosses:
    """The additive oracle of a function from layers and formats to losses; it is asked about each pair once.

    Attributes:
        metric: What a loss means.
        caveat: One sentence on what the losses are not.
        graph: The model's graph, on which schemes are resolved.
        measure: Returns the losses of (layer, formats) pairs, at least 0; never asked about ``keep``, which costs
            nothing.
        describe: Returns the fingerprint; called when it is asked for, since digests take time.
        n: Examples that the losses rest on; 0 without data.
    """

    metric: Metric
    caveat: str
    graph: OpGraph = field(repr=False)
    measure: Callable[[Sequence[Cell]], Sequence[float]] = field(repr=False)
    describe: Callable[[], Mapping[str, str]] = field(repr=False)
    n: int = 0
    _known: dict[Cell, float] = field(default_factory=dict, init=False, repr=False)

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """See :class:`aiq.oracle.Oracle`."""
        return {**self.describe(), "layers": layers_digest(self.graph)}

    def loss_table(self, options: Mapping[str, Sequence[LayerPrecision]]) -> LossTable:
        """See :class:`AdditiveOracle`."""
        cells = [(layer, option) for layer, choices in options.items() for option in choices]
        found = self._losses(cells)
        losses = np.zeros((len(options), max(map(len, options.values()), default=0)))
        for row, (layer, choices) in enumerate(options.items()):
            losses[row, : len(choices)] = [found[layer, option] for option in choices]
        return LossTable(losses, self.metric.unit, self.caveat)

    def evaluate(self, scheme: Scheme) -> Evaluation:
        """Return the sum of the layers' losses."""
        started = time.perf_counter()
        total = sum(self._losses(list(resolve(self.graph, scheme).items())).values())
        return Evaluation(float(total), n=self.n, seconds=time.perf_counter() - started)

    def _losses(self, cells: Sequence[Cell]) -> dict[Cell, float]:
        costly = (cell for cell in cells if cell[1].weights is not None or cell[1].activations is not None)
        unknown = [cell for cell in dict.fromkeys(costly) if cell not in self._known]
        if unknown:
            self._known.update(zip(unknown, self.measure(unknown), strict=True))
        return {cell: self._known.get(cell, 0.0) for cell in cells}
