"""See every operator that reads weights or multiplies activations, while a network runs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from roofline import OpGraph
from roofline.traffic import build_rows

_PRODUCTS = {
    torch.ops.aten.matmul.default: 2,
    torch.ops.aten.bmm.default: 2,
    torch.ops.aten.mm.default: 2,
    torch.ops.aten.scaled_dot_product_attention.default: 3,
}
_PRODUCT_KINDS = frozenset({"matmul", "attention"})


@dataclass(frozen=True, slots=True)
class Sites:
    """Where a network reads what a scheme quantizes.

    Attributes:
        weights: Layer and parameter name of each weight, by the ``id`` of the parameter.
        parameters: ``id`` of every parameter and buffer: what is no activation.
        products: The layer whose formats each product of two activations takes, in order of execution.
        feeds: The layers that wrote what a layer or product reads.
    """

    weights: Mapping[int, tuple[str, str]]
    parameters: frozenset[int]
    products: tuple[str, ...]
    feeds: Mapping[str, tuple[str, ...]]

    def layer_of(self, site: str) -> str:
        """Return the layer whose formats a site takes: itself, or the one that a product of activations follows."""
        prefix, _, position = site.partition(" ")
        return self.products[int(position)] if prefix == "product" else site


def find_sites(module: torch.nn.Module, graph: OpGraph) -> Sites:
    """Match the parameters of a module with the layers of its graph."""
    named: dict[str, torch.Tensor] = dict(module.named_parameters(remove_duplicate=False))
    named.update(module.named_buffers(remove_duplicate=False))
    weights = {
        id(named[name]): (layer, name)
        for layer, owned in graph.weight_elements().items()
        for name, spec in owned.items()
        if spec.is_float
    }
    rows = build_rows(graph, traffic="unfused", batch=graph.batch)
    feeds: dict[str, dict[str, None]] = {}
    products: list[str] = []
    for row in rows:
        if row.weighted:
            site = row.layer
        elif row.kind in _PRODUCT_KINDS:
            site = product_name(len(products))
            products.append(row.anchor)
        else:
            continue
        feeds.setdefault(site, {}).update((rows[s.row].anchor, None) for s in row.sources)
    return Sites(
        weights,
        frozenset(map(id, named.values())),
        tuple(products),
        {site: tuple(found) for site, found in feeds.items()},
    )


def product_name(position: int) -> str:
    """Return the name of a product of two activations by its position."""
    return f"product {position}"


Reader = Callable[[str, int, torch.Tensor], torch.Tensor | None]
"""Called with site, operand and the tensor about to be read; returns what is read in its place, or ``None``."""

Watcher = Callable[[str, str, Any, Sequence[Any]], None]
"""Called with layer, parameter name, operator and arguments of each operator that reads a weight."""


class Interceptor(TorchDispatchMode):
    """Calls back for each tensor that a weighted operator or a product of activations is about to read.

    A tensor that is replaced stays replaced for whatever reads it later (a residual addition): memory holds the
    quantized values. Runs under ``torch.inference_mode``, where composite operators arrive whole.
    """

    def __init__(self, sites: Sites, read: Reader, watch: Watcher | None = None) -> None:
        super().__init__()
        self.sites = sites
        self.read = read
        self.watch = watch
        self.product = 0
        self._stored: dict[int, tuple[weakref.ref[torch.Tensor], torch.Tensor]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator on the tensors as they are stored."""
        weight = self._weight(args)
        if self._stored:
            args = self._as_stored(func, args)
        if weight is not None:
            layer, name = weight
            if self.watch is not None:
                self.watch(layer, name, func, args)
            for position, value in enumerate(args):
                if self._is_activation(value):
                    args = self._replaced(args, position, layer, 0)
                    break
        elif self._is_product(func, args):
            site = product_name(self.product)
            self.product += 1
            for position in range(_PRODUCTS[func]):
                args = self._replaced(args, position, site, position)
        return func(*args, **(kwargs or {}))

    def _weight(self, args: tuple[Any, ...]) -> tuple[str, str] | None:
        for value in args:
            for tensor in value if isinstance(value, list | tuple) else (value,):
                if isinstance(tensor, torch.Tensor) and id(tensor) in self.sites.weights:
                    return self.sites.weights[id(tensor)]
        return None

    def _is_product(self, func: Any, args: tuple[Any, ...]) -> bool:
        if func not in _PRODUCTS or self.product >= len(self.sites.products):
            return False
        return not any(id(a) in self.sites.parameters for a in args[: _PRODUCTS[func]])

    def _is_activation(self, value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.is_floating_point() and id(value) not in self.sites.parameters

    def _replaced(self, args: tuple[Any, ...], position: int, site: str, operand: int) -> tuple[Any, ...]:
        original = args[position]
        new = self.read(site, operand, original)
        if new is None:
            return args
        key = id(original)
        self._stored[key] = (weakref.ref(original, lambda _: self._stored.pop(key, None)), new)
        return (*args[:position], new, *args[position + 1 :])

    def _as_stored(self, func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if func._schema.is_mutable:
            for value in args:
                if id(value) in self._stored:
                    value.copy_(self._stored.pop(id(value))[1])
            return args
        return tuple(self._found(value) for value in args)

    def _found(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._stored[id(value)][1] if id(value) in self._stored else value
        if isinstance(value, list | tuple) and any(id(v) in self._stored for v in value):
            return type(value)(self._found(v) for v in value)
        return value
