"""Evaluate many schemes on the same inputs, each from the last point that an earlier one has already computed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from aiq.quantize._simulate import BATCH, Simulator, batches, first, tensors
from roofline import LayerPrecision, Scheme

_TRIAL_EXAMPLES = 3

Key = tuple[str, tuple[LayerPrecision, ...]]


@dataclass(frozen=True, slots=True)
class Boundary:
    """A module after which nothing but its output is needed to go on.

    Attributes:
        module: Its name.
        before: How many layer calls come before it ends.
    """

    module: str
    before: int


class Evaluator:
    """Runs schemes on fixed inputs and reuses activations of common prefixes; the outputs are those of a plain run.

    At a boundary the output of one module is all that the rest of the network needs. A scheme that agrees with an
    earlier one in every layer before a boundary goes on from the stored output: the network is called with no
    examples at all, which costs next to nothing, and the module at the boundary returns the stored output instead of
    its own. Boundaries are found by trying each module on a few examples; one that does not give bit-equal outputs is
    not used. A run that stops early leaves outputs of its first batches, from which later ones go on batch by batch.

    Args:
        simulator: The network.
        inputs: A tensor, tuple or dict of tensors, batch first.
        memory_bytes: Most memory for stored outputs; the least recently used go first.
    """

    def __init__(self, simulator: Simulator, inputs: Any, *, memory_bytes: int = 2 * 2**30, batch: int = BATCH) -> None:
        self.simulator = simulator
        self.inputs = inputs
        self.memory_bytes = memory_bytes
        self._batches = batches(inputs, batch)
        self._count = len(tensors(inputs)[0])
        self._empty = first(inputs, 0)
        self._modules = dict(simulator.module.named_modules())
        self._calls = simulator.calibration.calls
        self._macs = self._work_by_call()
        self.boundaries = self._find_boundaries()
        self._stored: OrderedDict[Key, list[torch.Tensor]] = OrderedDict()
        self._stored_bytes = 0

    def run(self, scheme: Scheme, enough: Callable[[torch.Tensor], bool] | None = None) -> tuple[torch.Tensor, float]:
        """Return the outputs of a scheme, float32 [n, ...], and the share of a whole run's arithmetic that was run.

        Args:
            scheme: Formats of the layers.
            enough: Given the outputs of each batch, says whether to stop there; by default n is the number of inputs.
        """
        formats = self.simulator.apply(scheme)
        keys = {b: self._key(b, formats) for b in self.boundaries}
        fresh: dict[Boundary, dict[int, torch.Tensor]] = {b: {} for b in self.boundaries}
        found, work = [], 0.0
        for index, batch in enumerate(self._batches):
            start = self._longest(keys, index)
            ahead = self.boundaries[self.boundaries.index(start) + 1 :] if start else self.boundaries
            hooks = [self._keep(b, fresh[b], index) for b in ahead]
            if start:
                hooks.append(self._insert(start, self._stored[keys[start]][index]))
            try:
                found.append(self.simulator.forward(self._empty if start else batch, formats))
            finally:
                for hook in hooks:
                    hook.remove()
            work += len(tensors(batch)[0]) * (1.0 - (sum(self._macs[: start.before]) if start else 0.0))
            if enough is not None and enough(found[-1]):
                break
        for boundary, values in fresh.items():
            self._store(keys[boundary], values)
        return torch.cat(found), work / self._count

    def _keep(self, boundary: Boundary, into: dict[int, torch.Tensor], index: int) -> Any:
        def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            into[index] = output

        return self._modules[boundary.module].register_forward_hook(hook)

    def _insert(self, boundary: Boundary, value: torch.Tensor) -> Any:
        def hook(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
            return value.view_as(value)

        return self._modules[boundary.module].register_forward_hook(hook)

    def _key(self, boundary: Boundary, formats: dict[str, LayerPrecision]) -> Key:
        return boundary.module, tuple(formats[layer] for layer in self._calls[: boundary.before])

    def _longest(self, keys: dict[Boundary, Key], index: int) -> Boundary | None:
        """Return the last boundary whose output for a batch is stored."""
        for boundary in reversed(self.boundaries):
            if index < len(self._stored.get(keys[boundary], ())):
                self._stored.move_to_end(keys[boundary])
                return boundary
        return None

    def _store(self, key: Key, values: dict[int, torch.Tensor]) -> None:
        """Add the outputs of batches, by index, to those stored, if they go on where those end."""
        known = self._stored.get(key, [])
        if not values or min(values) != len(known):
            return
        more = list(values.values())
        if _size(known) + _size(more) > self.memory_bytes:
            return
        self._stored[key] = known + more
        self._stored.move_to_end(key)
        self._stored_bytes += _size(more)
        while self._stored_bytes > self.memory_bytes:
            self._stored_bytes -= _size(self._stored.popitem(last=False)[1])

    def _work_by_call(self) -> list[float]:
        """Share of the multiply-accumulates of each layer call."""
        graph = self.simulator.graph
        macs: dict[str, int] = {}
        for op in graph:
            if op.weighted:
                macs[op.layer] = macs.get(op.layer, 0) + op.macs
        counts = {layer: self._calls.count(layer) for layer in set(self._calls)}
        total = sum(macs.values()) or 1
        return [macs.get(layer, 0) / counts[layer] / total for layer in self._calls]

    def _find_boundaries(self) -> tuple[Boundary, ...]:
        trial = first(self.inputs, _TRIAL_EXAMPLES)
        if len(tensors(trial)[0]) < _TRIAL_EXAMPLES:
            return ()
        formats = self.simulator.apply(Scheme())
        ends, plain = self._watched(trial, formats)
        found: dict[int, Boundary] = {}
        for name, (before, value) in ends.items():
            boundary = Boundary(name, before)
            if 0 < before < len(self._calls) and self._holds(boundary, value, plain, formats):
                found[before] = boundary  # of modules that end after the same layer the outermost ends last
        return tuple(found[before] for before in sorted(found))

    def _watched(
        self, trial: Any, formats: dict[str, LayerPrecision]
    ) -> tuple[dict[str, tuple[int, torch.Tensor]], torch.Tensor]:
        """Run a few examples; return where each module that was called once ended, and the outputs."""
        called: dict[str, int] = {}
        ended: dict[str, tuple[int, torch.Tensor]] = {}
        position = 0

        def watch(name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                called[name] = called.get(name, 0) + 1
                if isinstance(output, torch.Tensor) and output.is_floating_point():
                    ended[name] = position, output.clone()

            return hook

        def count(layer: str, name: str, func: Any, args: Sequence[Any]) -> None:
            nonlocal position
            position += 1

        hooks = [module.register_forward_hook(watch(name)) for name, module in self._modules.items() if name]
        try:
            plain = self.simulator.watched(trial, count)
        finally:
            for hook in hooks:
                hook.remove()
        return {name: end for name, end in ended.items() if called[name] == 1}, plain

    def _holds(
        self, boundary: Boundary, value: torch.Tensor, plain: torch.Tensor, formats: dict[str, LayerPrecision]
    ) -> bool:
        before = value.clone()
        hook = self._insert(boundary, value)
        try:
            same = torch.equal(self.simulator.forward(self._empty, formats), plain)
            return same and torch.equal(value, before)  # no later operator writes into it
        except Exception:
            return False  # a network that cannot be called with no examples
        finally:
            hook.remove()


def _size(values: Sequence[torch.Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in values)
