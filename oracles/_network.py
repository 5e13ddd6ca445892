"""What oracles that run the quantized network share: data, simulator, reuse of activations, fingerprint."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch

from aiq import zoo
from aiq._model import Model
from aiq.data import Split, load
from aiq.digest import code_digest, layers_digest, model_digest
from aiq.oracle import OracleContext, OracleError
from aiq.quantize import Evaluator, Simulator
from oracles import _outputs
from oracles._outputs import check_finite, divergences
from roofline import OpGraph, Scheme


class Network:
    """A network's outputs under any scheme, on one split of a data set.

    Args:
        context: Model, data and settings.

    Raises:
        OracleError: No data set is named and the model has none of its own.
        AIQError: The data set cannot be loaded.
    """

    def __init__(self, context: OracleContext) -> None:
        self.context = context
        self.data = context.data or _own_data(context.model)
        self.split: Split = load(self.data, context.split, limit=context.limit)
        self.inputs = torch.from_numpy(np.ascontiguousarray(self.split.x))

    @cached_property
    def simulator(self) -> Simulator:
        """The quantized network, calibrated on the data set's split of that name."""
        model = self.context.model
        return _simulator(model, self.context.graph, self.data, model_digest(model))

    @cached_property
    def evaluator(self) -> Evaluator:
        """Runs schemes on the split and reuses common prefixes."""
        return Evaluator(self.simulator, self.inputs, memory_bytes=self.context.memory_bytes)

    @cached_property
    def float_logits(self) -> torch.Tensor:
        """Outputs of the float model, [N, ..., C]."""
        logits, _ = self.evaluator.run(Scheme())
        check_finite(logits)
        return logits

    def run(self, scheme: Scheme, enough: Callable[[torch.Tensor], bool] | None = None) -> Outputs:
        """Return the outputs of a scheme.

        Args:
            scheme: Formats of the layers.
            enough: Given the outputs of each batch, says whether to stop there; by default all examples are run.

        Raises:
            OracleError: They hold NaN or infinity.
        """
        reference = self.float_logits
        started = time.perf_counter()
        logits, work = self.evaluator.run(scheme, enough)
        check_finite(logits, scheme)
        return Outputs(logits, divergences(reference[: len(logits)], logits), work, time.perf_counter() - started)

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Everything that the outputs depend on apart from the scheme."""
        return {
            "model": self.context.model.name,
            "network_code": code_digest(sys.modules[__name__], _outputs),
            **self.simulator.fingerprint,
            "layers": layers_digest(self.context.graph),
            "data": self.split.dataset.name,
            "split": self.split.name,
            "n": str(len(self.split)),
            "data_digest": self.split.digest(),
        }


class Outputs:
    """Logits of one scheme, its divergences from the float model, the share of work and the seconds they took."""

    def __init__(self, logits: torch.Tensor, divergence: Any, work: float, seconds: float) -> None:
        self.logits = logits
        self.divergence = divergence
        self.work = work
        self.seconds = seconds


@lru_cache(maxsize=2)
def _simulator(model: Model, graph: OpGraph, data: str, digest: str) -> Simulator:
    """Build a simulator once for all splits; ``digest`` tells a model whose weights were changed in place."""
    calibration = load(data, "calibration")
    return Simulator(model, graph, torch.from_numpy(np.ascontiguousarray(calibration.x)))


def _own_data(model: Model) -> str:
    data = zoo.ENTRIES[model.name].data if model.name in zoo.ENTRIES else None
    if data == "digits":
        return data
    hint = f"--data {data}:PATH" if data else "--data cifar10:PATH, npz:DIR or path/to/file.py:function"
    raise OracleError(f"{model.name} comes with no data to measure accuracy on. Next: give {hint}.")
