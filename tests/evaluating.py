"""What tests of oracles share: a trained network, contexts, and losses by layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from aiq import Model, load_model
from aiq.additive import AdditiveOracle
from aiq.oracle import OracleContext
from roofline import LayerPrecision, OpGraph


@cache
def digits() -> tuple[Model, OpGraph]:
    model = load_model("digits_cnn")
    return model, model.trace()


def context(model: Model | None = None, **settings: Any) -> OracleContext:
    """Return the context of a model, by default of the trained network for digits."""
    if model is None:
        return OracleContext(*digits(), **settings)
    return OracleContext(model, model.trace(), **settings)


def options(graph: OpGraph, *texts: str) -> dict[str, tuple[LayerPrecision, ...]]:
    return dict.fromkeys(graph.layers, tuple(LayerPrecision.parse(text) for text in texts))


def linear(weight: torch.Tensor | None = None, *, device: str = "cpu") -> Model:
    module = torch.nn.Linear(3, 4, device=device)
    if weight is not None:
        module.weight.data = weight
    return Model("linear", module.eval(), torch.empty(1, 3, device="meta"))


def losses_of(oracle: AdditiveOracle, *texts: str, graph: OpGraph | None = None) -> dict[str, Sequence[float]]:
    """Return each layer's losses under some formats."""
    known = graph or digits()[1]
    table = oracle.loss_table(options(known, *texts))
    return {layer: row.tolist() for layer, row in zip(known.layers, table.losses, strict=True)}
