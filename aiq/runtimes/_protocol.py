"""The runtime: what executes a quantized network for real. A protocol, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from roofline.errors import AIQError

if TYPE_CHECKING:
    from aiq.runtimes._deployment import Deployment
    from roofline import Scheme

UNTOLD = "?"
Arrays = Sequence[NDArray[np.generic]]


class DeployError(AIQError):
    """A network that a runtime cannot build, load or run, or a runtime that is not installed."""


def has_one_float_format(runtime: Runtime) -> bool:
    """Return whether a runtime says that it computes all floating-point layers of a network in one format."""
    return bool(getattr(runtime, "one_float_format", False))


def missing(extra: str, *modules: str) -> str | None:
    """Return a sentence on the first of some modules that is not installed, without its full stop, or ``None``."""
    absent = next((module for module in modules if find_spec(module) is None), None)
    return None if absent is None else f"{absent} is not installed. Next: pip install 'aiq-roofline[{extra}]'"


@dataclass(frozen=True, slots=True)
class Executed:
    """What a layer really ran as.

    Attributes:
        compute: Format its kernel multiplied in: ``fp32``, ``bf16``, ``int8``; ``?`` where the runtime does not tell.
        stored: Format its weights are stored in.
        kernel: The runtime's own name of the kernel; empty where it tells none.
        reason: Why it is not what the scheme says; empty where it is.
    """

    compute: str
    stored: str
    kernel: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One operator in a runtime's own profile.

    Attributes:
        name: The runtime's name of it.
        kind: The runtime's kind of it.
        layers: Layers of the model that run inside it.
        kernel: The kernel it ran.
        seconds: Wall-clock seconds of one pass.
    """

    name: str
    kind: str
    layers: tuple[str, ...]
    kernel: str
    seconds: float


class Prepared(Protocol):
    """A network ready to run at one batch size."""

    @property
    def batch(self) -> int:
        """Samples in one pass."""
        ...

    def run(self, inputs: Arrays) -> NDArray[np.float32]:
        """Return the logits of one batch, [batch, ...].

        Args:
            inputs: One array an input of the network, in its order, first axis ``batch``.

        Raises:
            DeployError: The runtime fails.
        """
        ...

    def executed_precisions(self) -> Mapping[str, Executed]:
        """Return what every layer of the network really ran as, read back from the runtime."""
        ...

    def profile(self, inputs: Arrays, *, passes: int = 20) -> Sequence[Step]:
        """Return the runtime's own time of each operator, the median of some passes; empty where it has none."""
        ...


@runtime_checkable
class Runtime(Protocol):
    """Builds and runs really quantized networks.

    One that computes all floating-point layers of a network in one format, the narrowest that any of them has, may say
    so in an attribute ``one_float_format = True``: then no scheme with several floats is planned for it or tried on it.
    """

    @property
    def name(self) -> str:
        """For instance ``openvino``."""
        ...

    def available(self) -> str | None:
        """Return why it cannot be used here, or ``None`` if it can."""
        ...

    def version(self) -> str:
        """Return the name and version of the library."""
        ...

    def prepare(self, deployment: Deployment, scheme: Scheme, *, batch: int, threads: int | None = None) -> Prepared:
        """Build the network that a scheme describes, with the scales, zero points and rounding of the simulation.

        Args:
            deployment: The network.
            scheme: Formats of its layers.
            batch: Samples in one pass.
            threads: Threads of one pass; by default all processors that this process may use.

        Raises:
            DeployError: The runtime is not installed, or cannot build it.
        """
        ...
