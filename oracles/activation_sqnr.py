"""How much noise each layer's formats add to its own output, measured on calibration data."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from aiq.additive import Cell, LayerLosses, additive
from aiq.digest import code_digest
from aiq.oracle import Metric, OracleContext, OracleError
from oracles._network import Network
from roofline import Rule, Scheme
from roofline.errors import InputError

METRIC = Metric("output noise", "% of signal power", higher_is_better=False)
_MOST_EXAMPLES = 512
_BATCH = 64


@additive
def activation_sqnr(argument: str, context: OracleContext) -> LayerLosses:
    """Return the noise-to-signal ratio of layer outputs as an additive oracle.

    The loss of a layer is 100 · ‖y − ŷ‖² / ‖y‖² over up to 512 calibration examples: y is its output in the float
    model, ŷ the same with its weights, and what it reads, in the layer's formats; all other layers stay in floating
    point. One pass over the examples measures every layer and format. It knows the data, and not what later layers make
    of the noise. Products of two activations, as in attention, are not in it.

    Args:
        argument: Must be empty.
        context: The model with its weights, and data with a calibration split.

    Raises:
        InputError: There is an argument.
        AIQError: The data or the model cannot be used; or, on evaluation, an output is not finite.
    """
    if argument:
        raise InputError(
            f"the oracle activation-sqnr takes no argument, got {argument!r}. Next: write activation-sqnr."
        )
    network = on_calibration(context)

    def describe() -> Mapping[str, str]:
        return {"metric": METRIC.name, "code": code_digest(sys.modules[__name__]), **network.fingerprint}

    n = len(network.inputs)
    caveat = (
        f"noise in each layer's output on {n} calibration examples, one layer at a time, added over layers: it orders "
        "schemes and is not an accuracy"
    )
    return LayerLosses(METRIC, caveat, context.graph, lambda cells: _noise(network, cells), describe, n)


def on_calibration(context: OracleContext) -> Network:
    """Return the network on up to 512 calibration examples."""
    return Network(replace(context, split="calibration", limit=_MOST_EXAMPLES))


def only(cell: Cell) -> Scheme:
    """Return the scheme that gives one layer its formats and keeps all others."""
    layer, option = cell
    return Scheme(rules=(Rule(layer, option),))


def _noise(network: Network, cells: Sequence[Cell]) -> list[float]:
    simulator = network.simulator
    of_layer: dict[str, list[int]] = {}
    for index, cell in enumerate(cells):
        of_layer.setdefault(cell[0], []).append(index)
        simulator.apply(only(cell))  # quantizes the weights once, before the pass
    noise, signal = np.zeros(len(cells)), dict.fromkeys(of_layer, 0.0)

    def watch(layer: str, name: str, operator: Any, arguments: Sequence[Any]) -> None:
        if layer not in of_layer:
            return
        exact = _floats(operator(*arguments))
        signal[layer] += sum(y.double().square().sum().item() for y in exact)
        for index in of_layer[layer]:
            formats = simulator.apply(only(cells[index]))
            with simulator.interceptor(formats) or nullcontext():
                rounded = _floats(operator(*arguments))
            pairs = zip(exact, rounded, strict=True)
            noise[index] += sum((y - z).double().square().sum().item() for y, z in pairs)
        simulator.apply(Scheme())

    simulator.apply(Scheme())
    for batch in network.inputs.split(_BATCH):
        simulator.watched(batch, watch)
    for (layer, option), power in zip(cells, noise, strict=True):
        if not np.isfinite(power) or not np.isfinite(signal[layer]):
            raise OracleError(
                f"the output of layer {layer!r} as {option.label} holds NaN or infinity. "
                "Next: leave the format out, or check the weights."
            )
    return [
        100.0 * power / signal[layer] if signal[layer] else 0.0
        for (layer, _), power in zip(cells, noise.tolist(), strict=True)
    ]


def _floats(output: Any) -> list[torch.Tensor]:
    found = output if isinstance(output, tuple | list) else (output,)
    return [y for y in found if isinstance(y, torch.Tensor) and y.is_floating_point()]
