"""PyTorch itself: the float network eager, channels-last or compiled; the baseline that others are compared with."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aiq.quantize._simulate import as_tensor
from aiq.runtimes._deployment import Deployment
from aiq.runtimes._inputs import InputForm, check_inputs
from aiq.runtimes._protocol import Arrays, DeployError, Executed, Step
from aiq.runtimes._threads import processors
from roofline import LayerPrecision, Scheme

_BF16 = "bf16"


@dataclass(frozen=True)
class Torch:
    """The runtimes ``torch``, ``torch-channels-last`` and ``torch-compile``.

    Attributes:
        name: The runtime's name.
        channels_last: Whether images and kernels are stored with their channels innermost.
        compiled: Whether TorchInductor compiles the network.
    """

    name: str = "torch"
    channels_last: bool = False
    compiled: bool = False

    def available(self) -> str | None:
        """See :class:`aiq.runtimes.Runtime`."""
        if self.compiled and not _has_compiler():
            return "torch-compile needs a C++ compiler. Next: install g++ or clang"
        return None

    def version(self) -> str:
        """See :class:`aiq.runtimes.Runtime`."""
        return f"torch {torch.__version__}"

    def prepare(
        self, deployment: Deployment, scheme: Scheme, *, batch: int, threads: int | None = None
    ) -> TorchPrepared:
        """See :class:`aiq.runtimes.Runtime`; the float network runs as it was written, batch norms and all."""
        if reason := self.available():
            raise DeployError(f"{reason}.")
        inputs = deployment.inputs(batch)
        simulator = deployment.simulator
        formats = simulator.apply(scheme)
        half = _computes_in(formats)
        plain = all(f.weights is None for f in formats.values()) and not half
        module = copy.deepcopy(simulator.model.module if plain else simulator.module).eval()
        if half:
            module = module.to(torch.bfloat16)
        if self.channels_last:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        runner = torch.compile(module) if self.compiled else module
        found = TorchPrepared(
            runner,
            {layer: formats[layer] for layer in deployment.layers},
            inputs,
            threads or processors(),
            half=half,
            channels_last=self.channels_last,
            compiled=self.compiled,
            name=deployment.name,
        )
        if self.compiled:
            try:
                found.run(deployment.example(batch))
            except Exception as error:
                reason = " ".join(str(error).split())[:300]
                raise DeployError(
                    f"torch.compile fails on {deployment.name}: {reason}. Next: use the torch runtime."
                ) from error
        return found


def channels_last() -> Torch:
    """Return the runtime ``torch-channels-last``."""
    return Torch("torch-channels-last", channels_last=True)


def compiled() -> Torch:
    """Return the runtime ``torch-compile``."""
    return Torch("torch-compile", channels_last=True, compiled=True)


class TorchPrepared:
    """A module and the threads that it runs on."""

    def __init__(
        self,
        module: Any,
        formats: Mapping[str, LayerPrecision],
        inputs: Sequence[InputForm],
        threads: int,
        *,
        half: bool,
        channels_last: bool,
        compiled: bool,
        name: str,
    ) -> None:
        self.batch = inputs[0].shape[0]
        self._module, self._formats, self._inputs, self._threads = module, formats, inputs, threads
        self._half, self._channels_last, self._compiled, self._name = half, channels_last, compiled, name

    def run(self, inputs: Arrays) -> NDArray[np.float32]:
        """See :class:`aiq.runtimes.Prepared`."""
        check_inputs(inputs, self._inputs)
        with _threads(self._threads), torch.inference_mode():
            given = self._given(inputs)
            names = [form.name for form in self._inputs]
            output = self._module(**dict(zip(names, given, strict=True))) if all(names) else self._module(*given)
            found: NDArray[np.float32] = as_tensor(output, self._name).numpy()
            return found

    def _given(self, inputs: Arrays) -> list[torch.Tensor]:
        given = [torch.from_numpy(np.asarray(value)) for value in inputs]
        if self._half:
            given = [value.to(torch.bfloat16) if value.is_floating_point() else value for value in given]
        if self._channels_last:
            form = torch.channels_last
            given = [value.contiguous(memory_format=form) if value.dim() == 4 else value for value in given]
        return given

    def executed_precisions(self) -> Mapping[str, Executed]:
        """See :class:`aiq.runtimes.Prepared`."""
        compute = _BF16 if self._half else "fp32"
        return {
            layer: Executed(compute, compute, "", _widened(formats, compute))
            for layer, formats in self._formats.items()
        }

    def profile(self, inputs: Arrays, *, passes: int = 20) -> Sequence[Step]:
        """See :class:`aiq.runtimes.Prepared`; what runs outside of layers is one step, a compiled network has none."""
        if self._compiled:
            return ()
        spans = _Spans(self._module, self._formats)
        rows = []
        for _ in range(passes + 2):
            started = time.perf_counter()
            self.run(inputs)
            rows.append((*spans.taken(), time.perf_counter() - started))
        spans.remove()
        *seconds, whole = np.median(rows[2:], axis=0).tolist()
        kinds = [type(module).__name__ for module in spans.modules.values()]
        steps = [
            Step(layer, kind, (layer,), kind, taken)
            for layer, kind, taken in zip(spans.modules, kinds, seconds, strict=True)
        ]
        return (*steps, Step("elsewhere", "elsewhere", (), "", max(whole - sum(seconds), 0.0)))


class _Spans:
    """Seconds inside the modules that hold layers, without those of other layers inside them."""

    def __init__(self, module: torch.nn.Module, layers: Iterable[str]) -> None:
        named = dict(module.named_modules())
        self.modules = {layer: named[layer] for layer in layers if layer in named}
        self._seconds = dict.fromkeys(self.modules, 0.0)
        self._open: list[list[float]] = []
        self._hooks = [
            hook
            for layer, found in self.modules.items()
            for hook in (
                found.register_forward_pre_hook(lambda *_: self._open.append([time.perf_counter(), 0.0])),
                found.register_forward_hook(lambda *_, layer=layer: self._close(layer)),
            )
        ]

    def _close(self, layer: str) -> None:
        started, inside = self._open.pop()
        taken = time.perf_counter() - started
        self._seconds[layer] += taken - inside
        if self._open:
            self._open[-1][1] += taken

    def taken(self) -> list[float]:
        """Return the seconds of each module since the last call."""
        found = list(self._seconds.values())
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        return found

    def remove(self) -> None:
        """Take the hooks out."""
        for hook in self._hooks:
            hook.remove()


def _computes_in(formats: Mapping[str, LayerPrecision]) -> bool:
    """Whether the network runs in bfloat16: all of its layers do.

    Raises:
        DeployError: Some activations are quantized otherwise.
    """
    names = {None if f.activations is None else f.activations.name for f in formats.values()}
    if names == {_BF16}:
        return True
    other = sorted(name for name in names if name not in {None, "fp32"})
    if other:
        raise DeployError(
            f"PyTorch has no kernels for activations of {', '.join(other)} in a part of the layers: known: fp32, and "
            "bf16 for all. Next: choose --runtime openvino or onnxruntime."
        )
    return False


def _widened(formats: LayerPrecision, compute: str) -> str:
    if formats.weights is None or formats.weights.name == compute:
        return ""
    return f"PyTorch has no kernel with {formats.weights.name} weights: widened to {compute}"


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _has_compiler() -> bool:
    from shutil import which

    return any(map(which, ("g++", "clang++", "c++")))
