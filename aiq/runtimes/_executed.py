"""What layers really ran as, from the kernels that a runtime names, and why that is not what the scheme says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiq.runtimes._protocol import UNTOLD, Executed
from aiq.runtimes._qdq import Built

_BITS = {"int8": 8, "bf16": 16, "fp16": 16, "fp32": 32}


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that read the weights of a layer.

    Attributes:
        compute: Format it multiplied in.
        name: The runtime's name of it.
        looks_up: Whether it only picks rows, as an embedding does.
    """

    compute: str
    name: str
    looks_up: bool = False


def executed(built: Built, ran: Mapping[str, Sequence[Kernel]], where: str) -> dict[str, Executed]:
    """Return what every layer ran as: of several kernels the widest; one that only looks up rows has nothing to widen.

    Args:
        built: The network.
        ran: Kernels of each layer.
        where: The runtime, as it is called in reasons.
    """
    found = {}
    for layer, stored in built.stored.items():
        kernels = [kernel for kernel in ran.get(layer, ()) if not kernel.looks_up]
        if not kernels:
            looked_up = next(iter(ran.get(layer, ())), None)
            told = looked_up is not None
            reason = built.reasons.get(layer, "") if told else f"{where} does not tell"
            found[layer] = Executed("fp32" if told else UNTOLD, stored, looked_up.name if looked_up else "", reason)
            continue
        widest = max(kernels, key=lambda kernel: _BITS.get(kernel.compute, 0))
        names = ", ".join(dict.fromkeys(kernel.name for kernel in kernels))
        found[layer] = Executed(widest.compute, stored, names, widened(built, layer, widest.compute, where))
    return found


def widened(built: Built, layer: str, compute: str, where: str) -> str:
    """Say why a layer does not compute as its formats say; empty where it does."""
    formats = built.formats[layer]
    if layer in built.reasons:
        return built.reasons[layer]
    activations, weights = formats.activations, formats.weights
    if weights is not None and activations is not None and not weights.is_float and not activations.is_float:
        if compute != "int8":
            return f"no INT8 kernel took it: {where} ran {compute}"
        if min(weights.bits, activations.bits) < 8:
            return f"{where} has no kernel below 8 bits: widened to int8"
        return ""
    if weights is not None and weights.bits < 16 and activations is None:
        return f"weights alone are narrow: widened to {compute}"
    wanted = activations.name if activations is not None and activations.is_float else "fp32"
    return "" if compute == wanted else f"{where} ran {compute} where {wanted} was asked for"
