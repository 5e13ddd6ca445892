"""OpenVINO on CPU: the network is compiled for one batch size, in float32 or, where the scheme says so, bfloat16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiq.runtimes._deployment import Deployment
from aiq.runtimes._executed import Kernel, executed
from aiq.runtimes._float_graph import layers_in
from aiq.runtimes._inputs import InputForm, check_inputs
from aiq.runtimes._protocol import Arrays, DeployError, Executed, Step, missing
from aiq.runtimes._qdq import Built
from aiq.runtimes._threads import processors
from roofline import Scheme

_WARM_UP = 2
_COMPUTE = {"I8": "int8", "u8": "int8", "i8": "int8", "f32": "fp32", "bf16": "bf16", "f16": "fp16"}
_LOOKING_UP = ("Gather", "Embedding")
_WEIGHTED = ("Convolution", "GroupConvolution", "Deconvolution", "FullyConnected", "MatMul", *_LOOKING_UP)


class OpenVINO:
    """The runtime ``openvino``."""

    name = "openvino"

    def available(self) -> str | None:
        """See :class:`aiq.runtimes.Runtime`."""
        return missing("openvino", "onnx", "onnxscript", "openvino")

    def version(self) -> str:
        """See :class:`aiq.runtimes.Runtime`."""
        import openvino

        return f"openvino {openvino.__version__.partition('-')[0]}"

    def prepare(
        self, deployment: Deployment, scheme: Scheme, *, batch: int, threads: int | None = None
    ) -> OpenVINOPrepared:
        """See :class:`aiq.runtimes.Runtime`; a scheme with bfloat16 anywhere computes in it wherever it is not INT8."""
        if reason := self.available():
            raise DeployError(f"{reason}.")
        import openvino

        inputs = deployment.inputs(batch)
        built = deployment.onnx(scheme, dialect="openvino")
        half = any(f.activations is not None and f.activations.name == "bf16" for f in built.formats.values())
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "INFERENCE_NUM_THREADS": threads or processors(),
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        }
        try:
            core = openvino.Core()
            model = core.read_model(built.model.SerializeToString())
            # With a dynamic batch, OpenVINO 2026.4 computes residual INT8 networks wrongly.
            model.reshape({port: list(form.shape) for port, form in zip(model.inputs, inputs, strict=True)})
            return OpenVINOPrepared(core, model, settings, built, inputs)
        except Exception as error:
            raise DeployError(
                f"OpenVINO does not compile {deployment.name}: {_short(error)}. Next: keep the layers that it names."
            ) from error


class OpenVINOPrepared:
    """A compiled network; its profile comes from a second copy, so that counting slows nothing that is timed."""

    def __init__(
        self, core: Any, model: Any, settings: dict[str, Any], built: Built, inputs: Sequence[InputForm]
    ) -> None:
        self.batch = inputs[0].shape[0]
        self._inputs = inputs
        self._core, self._model, self._settings, self._built = core, model, settings, built
        self._compiled = core.compile_model(model, "CPU", settings)
        self._request = self._compiled.create_infer_request()

    def run(self, inputs: Arrays) -> NDArray[np.float32]:
        """See :class:`aiq.runtimes.Prepared`."""
        check_inputs(inputs, self._inputs)
        try:
            self._request.infer(list(inputs), share_inputs=True)
        except RuntimeError as error:
            raise DeployError(f"OpenVINO fails: {_short(error)}. Next: check the inputs.") from error
        found: NDArray[np.float32] = self._request.get_output_tensor(0).data.copy()
        return found

    def executed_precisions(self) -> Mapping[str, Executed]:
        """See :class:`aiq.runtimes.Prepared`."""
        ran: dict[str, list[Kernel]] = {}
        for op in self._compiled.get_runtime_model().get_ordered_ops():
            if _kind(op) not in _WEIGHTED:
                continue
            info = op.get_rt_info()
            precision, name = _text(info["runtimePrecision"]), _text(info["primitiveType"])
            kernel = Kernel(_computed(name, precision), name, looks_up=_kind(op) in _LOOKING_UP)
            for layer in layers_in(_names(op)):
                ran.setdefault(layer, []).append(kernel)
        return executed(self._built, ran, "OpenVINO on CPU")

    @cached_property
    def _counting(self) -> Any:
        return self._core.compile_model(self._model, "CPU", {**self._settings, "PERF_COUNT": True})

    def profile(self, inputs: Arrays, *, passes: int = 20) -> Sequence[Step]:
        """See :class:`aiq.runtimes.Prepared`."""
        check_inputs(inputs, self._inputs)
        names = {
            op.get_friendly_name(): _names(op) if _kind(op) in _WEIGHTED else ""
            for op in self._counting.get_runtime_model().get_ordered_ops()
        }
        request = self._counting.create_infer_request()
        seconds: dict[str, list[float]] = {}
        facts: dict[str, tuple[str, str]] = {}
        for number in range(passes + _WARM_UP):
            request.infer(list(inputs), share_inputs=True)
            for info in request.profiling_info if number >= _WARM_UP else ():
                # What took less than a microsecond is told as not run.
                if str(info.status).endswith("EXECUTED"):
                    seconds.setdefault(info.node_name, []).append(info.real_time.total_seconds())
                    facts[info.node_name] = info.node_type, info.exec_type
        return tuple(
            Step(
                name,
                facts[name][0],
                layers_in(names.get(name, name)),
                facts[name][1],
                float(np.median([*times, *[0.0] * (passes - len(times))])),
            )
            for name, times in seconds.items()
        )


def _computed(kernel: str, precision: str) -> str:
    """Return the format that a kernel multiplies in: its name ends with it; what it reads may be narrower."""
    return _COMPUTE.get(kernel.rpartition("_")[2]) or _COMPUTE.get(precision, precision)


def _kind(op: Any) -> str:
    return _text(op.get_rt_info()["layerType"])


def _names(op: Any) -> str:
    """Return OpenVINO's names of what runs inside an operator, or of the weights that it reads."""
    found, position = op, 1
    while True:
        names = f"{_text(found.get_rt_info()['originalLayersNames'])},{found.get_friendly_name()}"
        if layers_in(names) or len(found.inputs()) <= position:
            return names
        found, position = found.input_value(position).get_node(), 0


def _text(value: Any) -> str:
    held = getattr(value, "value", value)
    return held if isinstance(held, str) else str(getattr(value, "astype", lambda _: value)(str))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[-300:].rstrip(".")
