"""Fold batch normalisation into the convolution or linear layer before it, as every deployment does."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from roofline import OpGraph

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_batch_norms(module: nn.Module, graph: OpGraph) -> tuple[str, ...]:
    """Fold in place each batch norm that alone reads the output of a convolution or linear layer called once.

    Args:
        module: In evaluation mode; changed in place.
        graph: Its operator graph, which says what reads what.

    Returns:
        Names of the batch norms that are now the identity.
    """
    modules = dict(module.named_modules(remove_duplicate=False))
    calls: dict[str, int] = {}
    for op in graph:
        if op.weighted:
            calls[op.layer] = calls.get(op.layer, 0) + 1
    folded = []
    for op in graph:
        norm = modules.get(op.layer) if op.kind == "batch_norm" else None
        producers = {p for t in op.role("input") for p in t.producers}
        if not isinstance(norm, _NORMS) or norm.running_mean is None or len(producers) != 1:
            continue
        (index,) = producers
        before = graph.ops[index]
        layer = modules.get(before.layer)
        alone = list(graph.nx.successors(index)) == [op.index] and index not in graph.outputs
        if not alone or calls.get(before.layer) != 1 or before.layer in graph.aliases:
            continue
        if isinstance(layer, CONVOLUTIONS) or type(layer) is nn.Linear:
            _fold(layer, norm)
            _replace(module, op.layer, nn.Identity())
            folded.append(op.layer)
    return tuple(folded)


def _fold(layer: nn.Module, norm: nn.Module) -> None:
    terms = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    with torch.no_grad():
        if isinstance(layer, nn.Linear):
            weight, bias = fuse_linear_bn_weights(layer.weight, layer.bias, *terms)  # type: ignore[arg-type]
        else:
            transposed = isinstance(layer, CONVOLUTIONS[3:])
            weight, bias = fuse_conv_bn_weights(layer.weight, layer.bias, *terms, transpose=transposed)  # type: ignore[arg-type]
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    layer.bias = nn.Parameter(bias.detach(), requires_grad=False)


def _replace(root: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, new)
