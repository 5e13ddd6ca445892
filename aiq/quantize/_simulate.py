"""Run a network as a scheme would: weights and activations on their grids, arithmetic in single precision."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

import aiq.quantize
from aiq._model import Model
from aiq.digest import code_digest, model_digest, tensor_digest
from aiq.oracle import OracleError
from aiq.quantize._activations import Rounding, activation_rounding
from aiq.quantize._fold import CONVOLUTIONS, fold_batch_norms
from aiq.quantize._intercept import Interceptor, Watcher, find_sites
from aiq.quantize._recipe import Recipe
from aiq.quantize._statistics import Calibration, calibrate
from aiq.quantize._weights import QuantizedWeight, quantize_weight
from roofline import LayerPrecision, OpGraph, Precision, Scheme
from roofline.errors import InputError
from roofline.estimate import resolve

log = logging.getLogger(__name__)

BATCH = 125
CALIBRATION_EXAMPLES = 512
_WITH_BIAS = (*CONVOLUTIONS, nn.Linear)


class Simulator:
    """Simulates quantized inference of one network.

    Batch norms are folded where they follow a convolution or linear layer. A layer's weights are put on the grid of its
    format once for each (layer, format, recipe) and kept. What a layer reads is put on the grid of the narrower of its
    own activation format and that of the layers that wrote it, with a static scale for the tensor from calibration; a
    tensor once quantized stays so for every later reader, a residual addition too. Accumulation, biases and
    element-wise operators stay in float32. The logits are not quantized.

    Args:
        model: The model in floating point, with its weights; it is copied and left alone.
        graph: Its operator graph.
        calibration: Inputs that ranges and moments are taken from: a tensor, tuple or dict of tensors, batch first.

    Raises:
        OracleError: The model has no weights to quantize, or does not run on the calibration inputs.
    """

    def __init__(self, model: Model, graph: OpGraph, calibration: Any) -> None:
        self.graph = graph
        self.model = model
        self.module = copy.deepcopy(model.module).eval().requires_grad_(False)
        if any(p.is_meta for p in self.module.parameters()):
            raise OracleError(f"{model.name} has its weights on meta: nothing can be run. Next: load its weights.")
        fold_batch_norms(self.module, graph)
        self.sites = find_sites(self.module, graph)
        self._tensors: dict[str, torch.Tensor] = dict(self.module.named_parameters(remove_duplicate=False))
        self._tensors.update(self.module.named_buffers(remove_duplicate=False))
        self._owned: dict[str, list[str]] = {}
        for layer, name in self.sites.weights.values():
            self._owned.setdefault(layer, []).append(name)
        self.biases = self._give_biases()
        if any(isinstance(m, nn.Conv2d) for m in self.module.modules()):
            self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._originals = {name: self._tensors[name].data for name in (*self._all_weights(), *self.biases.values())}
        self.calibration_inputs = first(calibration, CALIBRATION_EXAMPLES)
        self._weights: dict[tuple[str, Precision, Recipe], dict[str, QuantizedWeight]] = {}
        self._roundings: dict[tuple[str, int, Precision, Recipe], Rounding] = {}
        self._applied: dict[str, tuple[Precision | None, str]] = {}

    def _all_weights(self) -> list[str]:
        return [name for names in self._owned.values() for name in names]

    def _give_biases(self) -> dict[str, str]:
        """Give each plain layer without one a bias of zeros, so that it can be corrected; return biases by layer."""
        found = {}
        for layer, names in self._owned.items():
            if names != [f"{layer}.weight"] or layer in self.graph.aliases:
                continue
            module = self.module.get_submodule(layer)
            if not isinstance(module, _WITH_BIAS):
                continue
            channels = module.out_features if isinstance(module, nn.Linear) else module.out_channels
            if module.bias is None:
                module.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)
            self._tensors[f"{layer}.bias"] = module.bias
            found[layer] = f"{layer}.bias"
        return found

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers in order of execution."""
        return tuple(dict.fromkeys(self.calibration.calls))

    @cached_property
    def calibration(self) -> Calibration:
        """What the float model showed on the calibration inputs; computed on first use."""
        self.apply(Scheme())
        try:
            return calibrate(self.call, self.sites, batches(self.calibration_inputs, BATCH))
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise OracleError(
                f"{self.model.name} fails on its calibration inputs: {reason}. "
                "Next: check that the data set is the one that the model takes."
            ) from error

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Everything that the outputs depend on apart from scheme and inputs."""
        return {
            "weights": model_digest(self.model),
            "calibration": tensor_digest(*tensors(self.calibration_inputs)),
            "quantizer": code_digest(aiq.quantize),
            "versions": f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}",
        }

    def call(self, batch: Any) -> Any:
        """Call the network as it is applied now."""
        with operator_by_operator():
            if isinstance(batch, dict):
                return self.module(**batch)
            if isinstance(batch, tuple):
                return self.module(*batch)
            if batch.dim() == 4:
                batch = batch.contiguous(memory_format=torch.channels_last)
            return self.module(batch)

    def apply(self, scheme: Scheme) -> dict[str, LayerPrecision]:
        """Put the weights of a scheme in place; return the formats of every layer.

        Raises:
            UnknownNameError: The scheme names a layer that the graph has not.
            InputError: An unknown recipe, or a format of the key-value cache.
        """
        formats = resolve(self.graph, scheme)
        if cached := next((layer for layer, found in formats.items() if found.kv), None):
            raise InputError(
                f"formats of the key-value cache are priced and not simulated, got {formats[cached]} for {cached}. "
                "Next: leave out the format of the cache."
            )
        for layer in self._owned:
            wanted = formats[layer].weights, formats[layer].recipe
            if wanted[0] is None:
                wanted = None, ""
            if self._applied.get(layer, (None, "")) == wanted:
                continue
            for name, values in self._quantized(layer, *wanted).items():
                self._tensors[name].data = values
            self._applied[layer] = wanted
        return formats

    def _quantized(self, layer: str, precision: Precision | None, text: str) -> dict[str, torch.Tensor]:
        bias = self.biases.get(layer)
        found = {name: self._originals[name] for name in (*self._owned[layer], *([bias] if bias else []))}
        if precision is None:
            return found
        for name, quantized in self.weights(layer, precision, text).items():
            found[name] = quantized.values
            if bias and quantized.bias_shift is not None:
                found[bias] = self._originals[bias] + quantized.bias_shift
        return found

    def weights(self, layer: str, precision: Precision, recipe: str = "") -> dict[str, QuantizedWeight]:
        """Return a layer's weights on the grid of a format, by parameter name; each is computed once.

        Raises:
            InputError: An unknown recipe.
        """
        chosen = Recipe.parse(recipe, precision)
        key = layer, precision, chosen
        if key not in self._weights:
            found = {}
            for name in self._owned[layer]:
                original = self._originals[name]
                inputs, axis = self.calibration.inputs.get(name), self.calibration.axes.get(name, 0)
                quantized = quantize_weight(original, precision, chosen, inputs, axis=axis)
                values = torch.empty_like(original).copy_(quantized.values)
                found[name] = replace(quantized, values=values)
            self._weights[key] = found
            log.info("quantized %s to %s by %s", layer, precision, chosen)
        return self._weights[key]

    def original(self, name: str) -> torch.Tensor:
        """Return a quantizable parameter in floating point, with what was folded into it."""
        return self._originals[name]

    def interceptor(self, formats: dict[str, LayerPrecision]) -> Interceptor | None:
        """Return what quantizes the activations of one forward pass; ``None`` where they stay in floating point."""
        if all(f.activations is None for f in formats.values()):
            return None

        def read(site: str, operand: int, tensor: torch.Tensor) -> torch.Tensor | None:
            rounding = self.rounding(site, operand, formats)
            return None if rounding is None or not tensor.numel() else rounding(tensor)

        return Interceptor(self.sites, read)

    def rounding(self, site: str, operand: int, formats: Mapping[str, LayerPrecision]) -> Rounding | None:
        """Return what an operand of a layer or product goes through before it is read; ``None`` where it is left alone.

        Args:
            site: A layer, or ``product N`` (see :class:`aiq.quantize._intercept.Sites`).
            operand: Its position among the activations that the site reads.
            formats: Of every layer.
        """
        own = formats.get(self.sites.layer_of(site), LayerPrecision())
        writers = [formats[layer] for layer in self.sites.feeds.get(site, ()) if layer in formats]
        wanted = [f for f in (own, *writers) if f.activations is not None]
        if not wanted:
            return None
        narrowest = min(wanted, key=lambda f: f.activations.bits if f.activations else 0)
        precision = narrowest.activations
        assert precision is not None
        recipe = Recipe.parse(narrowest.recipe, narrowest.weights)
        key = site, operand, precision, recipe
        if key not in self._roundings:
            seen = self.calibration.ranges[site, operand]
            self._roundings[key] = activation_rounding(seen, precision, recipe)
        return self._roundings[key]

    def outputs(self, scheme: Scheme, inputs: Any) -> torch.Tensor:
        """Return the outputs of the quantized network, float32 [N, ...].

        Args:
            scheme: Formats of its layers.
            inputs: A tensor, tuple or dict of tensors, batch first.
        """
        formats = self.apply(scheme)
        return torch.cat([self.forward(batch, formats) for batch in batches(inputs, BATCH)])

    def forward(self, batch: Any, formats: dict[str, LayerPrecision]) -> torch.Tensor:
        """Run one batch with the weights in place and the activations of the formats that :meth:`apply` returned."""
        interceptor = self.interceptor(formats)
        with torch.inference_mode():
            if interceptor is None:
                found = self.call(batch)
            else:
                with interceptor:
                    found = self.call(batch)
        return as_tensor(found, self.model.name)

    def watched(self, batch: Any, watch: Watcher) -> torch.Tensor:
        """Run one batch with the weights in place, in floating-point activations, and call back at each layer."""
        with torch.inference_mode(), Interceptor(self.sites, lambda *_: None, watch):
            return as_tensor(self.call(batch), self.model.name)


@contextmanager
def operator_by_operator() -> Iterator[None]:
    """Keep PyTorch from running an encoder layer as one fused operator, inside which nothing can be rounded."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def as_tensor(output: Any, name: str) -> torch.Tensor:
    """Return the logits of what a model returned: a tensor, its ``logits``, or the first of a tuple.

    Raises:
        OracleError: There is no tensor to be found.
    """
    found = getattr(output, "logits", output)
    if isinstance(found, tuple | list) and found:
        found = found[0]
    if not isinstance(found, torch.Tensor):
        raise OracleError(
            f"{name} returns {type(output).__name__}, in which no logits are found. Next: return a tensor of logits."
        )
    return found.float()


def batches(inputs: Any, size: int) -> list[Any]:
    """Split inputs into batches along the first axis."""
    if isinstance(inputs, torch.Tensor):
        return list(inputs.split(size))
    if isinstance(inputs, dict):
        return [
            dict(zip(inputs, part, strict=True)) for part in zip(*(v.split(size) for v in inputs.values()), strict=True)
        ]
    return list(zip(*(v.split(size) for v in inputs), strict=True))


def first(inputs: Any, count: int) -> Any:
    """Return the first examples of inputs."""
    if isinstance(inputs, torch.Tensor):
        return inputs[:count]
    if isinstance(inputs, dict):
        return {name: value[:count] for name, value in inputs.items()}
    return tuple(value[:count] for value in inputs)


def tensors(inputs: Any) -> list[torch.Tensor]:
    """Return the tensors of inputs."""
    if isinstance(inputs, torch.Tensor):
        return [inputs]
    return list(inputs.values() if isinstance(inputs, dict) else inputs)
