"""A second-order estimate of what each layer's formats cost, from one backward pass over calibration data."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from aiq.additive import Cell, LayerLosses, additive
from aiq.digest import code_digest
from aiq.oracle import Metric, OracleContext, OracleError
from aiq.quantize import Simulator
from aiq.quantize._simulate import as_tensor
from oracles import activation_sqnr
from oracles._network import Network
from oracles._outputs import check_finite
from oracles.activation_sqnr import on_calibration, only
from roofline import Scheme
from roofline.errors import InputError

log = logging.getLogger(__name__)

METRIC = Metric("fisher", "nats", higher_is_better=False)
_BATCH = 8


@additive
def fisher(argument: str, context: OracleContext) -> LayerLosses:
    """Return the Fisher-weighted quantization error as an additive oracle, in nats.

    The loss of a layer is ½ Σ_w F_w (w − q(w))² + ½ mean_i Σ_a g_a² (a − q(a))² over its weights w and what it reads,
    a, of up to 512 calibration examples i. F is the diagonal of the Fisher information of the model's own predictions,
    so the loss is the second-order estimate of the mean Kullback–Leibler divergence from the float model; labels are
    not needed. Expectations over classes are taken by one random vector an example, Σ_c ±√p_c (e_c − p) at the logits,
    whose gradient g has E[g²] = F exactly: one backward pass serves all weights and formats.

    It leaves out correlations: within a layer (which GPTQ and bias correction exploit), and between layers.

    Args:
        argument: Must be empty.
        context: The model with its weights, data with a calibration split, and ``seed``, which draws the signs.

    Raises:
        InputError: There is an argument.
        AIQError: The data or the model cannot be used; or, on evaluation, outputs are not finite or cannot be
            differentiated.

    Source: Dong et al., HAWQ, ICCV 2019, arXiv 1905.03696; Zandonati et al., FIT, ICLR 2023, arXiv 2210.08502; random
    signs: Bekas, Kokiopoulou and Saad, An estimator for the diagonal of a matrix, Appl. Numer. Math. 57 (2007).
    """
    if argument:
        raise InputError(f"the oracle fisher takes no argument, got {argument!r}. Next: write fisher.")
    network = on_calibration(context)
    found = _Fisher(network, context.seed)

    def describe() -> Mapping[str, str]:
        code = code_digest(sys.modules[__name__], activation_sqnr)
        return {"metric": METRIC.name, "code": code, "seed": str(context.seed), **network.fingerprint}

    n = len(network.inputs)
    caveat = (
        f"second-order estimate of the divergence from the float model on {n} calibration examples, added over weights "
        "and layers as if errors were independent: it orders schemes and is not an accuracy"
    )
    return LayerLosses(METRIC, caveat, context.graph, found.losses, describe, n)


class _Fisher:
    def __init__(self, network: Network, seed: int) -> None:
        self.network, self.seed = network, seed
        self.simulator = simulator = network.simulator
        tensors: dict[str, torch.Tensor] = dict(simulator.module.named_parameters(remove_duplicate=False))
        tensors.update(simulator.module.named_buffers(remove_duplicate=False))
        self.weights: dict[str, list[torch.Tensor]] = {}
        for layer, name in simulator.sites.weights.values():
            self.weights.setdefault(layer, []).append(tensors[name])
        self.information: dict[str, list[torch.Tensor]] | None = None

    def losses(self, cells: Sequence[Cell]) -> list[float]:
        of_activations = [0.0] * len(cells)
        reading = [i for i, (_, option) in enumerate(cells) if option.activations is not None]
        if reading or self.information is None:
            of_activations = self._backward(cells, reading)
        assert self.information is not None
        found = []
        for (layer, option), loss in zip(cells, of_activations, strict=True):
            self.simulator.apply(Scheme())
            exact = [w.detach() for w in self.weights.get(layer, ())]
            self.simulator.apply(only((layer, option)))
            rounded = [w.detach() for w in self.weights.get(layer, ())]
            terms = zip(self.information.get(layer, ()), exact, rounded, strict=True)
            found.append(loss + 0.5 * sum((f * (w - q).double().square()).sum().item() for f, w, q in terms))
        self.simulator.apply(Scheme())
        return found

    def _backward(self, cells: Sequence[Cell], reading: Sequence[int]) -> list[float]:
        """Run every example forwards and backwards once; keep F, return each cell's loss by what its layer reads."""
        simulator, inputs = self.simulator, self.network.inputs
        of_layer: dict[str, list[tuple[int, Any]]] = {}
        for index in reading:
            interceptor = simulator.interceptor(simulator.apply(only(cells[index])))
            assert interceptor is not None
            of_layer.setdefault(cells[index][0], []).append((index, interceptor.read))
        information = {
            layer: [torch.zeros(w.shape, dtype=torch.float64) for w in ws] for layer, ws in self.weights.items()
        }
        losses = [0.0] * len(cells)
        generator = torch.Generator().manual_seed(self.seed)
        simulator.apply(Scheme())
        with _differentiable([w for ws in self.weights.values() for w in ws]):
            for start in range(0, len(inputs), _BATCH):
                reads = _Reads(simulator)
                batch = inputs[start : start + _BATCH].clone()
                self._gradients(batch, reads, generator)
                for layer, weights in self.weights.items():
                    for total, weight in zip(information[layer], weights, strict=True):
                        if weight.grad is not None:
                            total.add_(weight.grad.double().square())
                            weight.grad = None
                for layer, read in reads.found:
                    for index, rounding in of_layer.get(layer, ()):
                        rounded = rounding(layer, 0, read.detach())
                        if rounded is not None and read.grad is not None:
                            error = (read.grad * (rounded - read.detach())).double()
                            losses[index] += 0.5 * error.square().sum().item() / len(inputs)
                log.info("fisher: %d of %d examples", min(start + _BATCH, len(inputs)), len(inputs))
        self.information = {layer: [f / len(inputs) for f in found] for layer, found in information.items()}
        return losses

    def _gradients(self, batch: torch.Tensor, reads: _Reads, generator: torch.Generator) -> None:
        if batch.is_floating_point():
            batch.requires_grad_()
        with torch.enable_grad(), reads:
            logits = as_tensor(self.simulator.call(batch), self.simulator.model.name)
        check_finite(logits.detach())
        if not logits.requires_grad:
            raise OracleError(
                f"the outputs of {self.simulator.model.name} cannot be differentiated by its weights. "
                "Next: choose another oracle, for instance activation-sqnr."
            )
        p = logits.detach().softmax(-1)
        signs = torch.randint(0, 2, p.shape, generator=generator).to(p.dtype) * 2 - 1
        drawn = signs * p.sqrt()
        positions = max(1, math.prod(logits.shape[1:-1]))
        logits.backward((drawn - p * drawn.sum(-1, keepdim=True)) / math.sqrt(positions))


class _Reads(TorchFunctionMode):
    """Collects what each layer reads: the first activation beside its weight in a call, its gradient kept."""

    def __init__(self, simulator: Simulator) -> None:
        super().__init__()
        self.sites = simulator.sites
        self.found: list[tuple[str, torch.Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [value for value in (*args, *(kwargs or {}).values()) if isinstance(value, torch.Tensor)]
        layer = next((self.sites.weights[id(t)][0] for t in given if id(t) in self.sites.weights), None)
        if layer is not None:
            read = next((t for t in given if id(t) not in self.sites.parameters and t.requires_grad), None)
            if read is not None:
                read.retain_grad()
                self.found.append((layer, read))
        return func(*args, **(kwargs or {}))


@contextmanager
def _differentiable(weights: Sequence[torch.Tensor]) -> Iterator[None]:
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(False)
            weight.grad = None
