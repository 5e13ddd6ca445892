"""A network on its way to a runtime: simulator, float graph, and the networks built from schemes."""

from __future__ import annotations

from functools import cached_property

from aiq.quantize import Simulator
from aiq.quantize._simulate import tensors
from aiq.runtimes._float_graph import FloatGraph, export_float
from aiq.runtimes._inputs import InputForm, input_forms, repeated
from aiq.runtimes._protocol import Arrays
from aiq.runtimes._qdq import Built, write_scheme
from roofline import Scheme


class Deployment:
    """What runtimes build from: one network with its calibration.

    Args:
        simulator: The quantized network, calibrated.
    """

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator

    @property
    def name(self) -> str:
        """The model's name."""
        return self.simulator.model.name

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers in order of execution."""
        return self.simulator.layers

    @cached_property
    def float_graph(self) -> FloatGraph:
        """The float network in ONNX, exported on first use.

        Raises:
            DeployError: It cannot be exported.
        """
        return export_float(self.simulator)

    def onnx(self, scheme: Scheme, *, dialect: str = "onnx") -> Built:
        """Return the network that a scheme describes (see :func:`aiq.runtimes._qdq.write_scheme`)."""
        return write_scheme(self.float_graph, self.simulator, scheme, dialect=dialect)

    def example(self, batch: int) -> Arrays:
        """Return calibration inputs for one pass, repeated where there are fewer."""
        return [tensor.numpy() for tensor in tensors(repeated(self.simulator.calibration_inputs, batch))]

    def inputs(self, batch: int) -> tuple[InputForm, ...]:
        """Return what one pass takes.

        Raises:
            InputError: The batch is below 1.
        """
        return input_forms(self.simulator.calibration_inputs, batch)
