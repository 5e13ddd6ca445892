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
from roofline import LayerPrecision, Scheme
from roofline.floats import float_kind

_WARM_UP = 3
# Counters drop what is less than a microsecond, and tell an operator that takes less as not run.
_HALF_A_TICK_S = 0.5e-6
_COMPUTE = {"I8": "int8", "u8": "int8", "i8": "int8", "f32": "fp32", "bf16": "bf16", "f16": "fp16"}
_LOOKING_UP = ("Gather", "Embedding")
_WEIGHTED = ("Convolution", "GroupConvolution", "Deconvolution", "FullyConnected", "MatMul", *_LOOKING_UP)


class OpenVINO:
    """The runtime ``openvino``."""

    name = "openvino"
    one_float_format = True

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
        """See :class:`aiq.runtimes.Runtime`; what is not INT8 computes in bfloat16 or all in float32."""
        if reason := self.available():
            raise DeployError(f"{reason}.")
        import openvino

        inputs = deployment.inputs(batch)
        built = deployment.onnx(scheme, dialect="openvino")
        settings = {
            "INFERENCE_PRECISION_HINT": precision_hint(built.formats),
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
        self._counted = 0

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
        before: dict[str, float] = {}
        for count in (_WARM_UP, passes):
            for _ in range(count):
                request.infer(list(inputs), share_inputs=True)
            self._counted += count
            infos = [info for info in request.profiling_info if names.get(info.node_name) or _executed(info)]
            # The counters are means over all passes so far.
            totals = {info.node_name: info.real_time.total_seconds() * self._counted for info in infos}
            seconds = {name: max(total - before.get(name, 0.0), 0.0) / count for name, total in totals.items()}
            before = totals
        return tuple(
            Step(
                info.node_name,
                info.node_type,
                layers_in(names.get(info.node_name, info.node_name)),
                info.exec_type,
                seconds[info.node_name] + _HALF_A_TICK_S,
            )
            for info in infos
        )


def _executed(info: Any) -> bool:
    return str(info.status).endswith("EXECUTED")


def precision_hint(formats: Mapping[str, LayerPrecision]) -> str:
    """Return OpenVINO's name of the format that a network computes in wherever it is not INT8.

    Raises:
        DeployError: Some layers have bfloat16 activations, and others some other float.
    """
    kinds = {layer: float_kind(given) for layer, given in formats.items()}
    half = next((layer for layer, kind in kinds.items() if kind == "bf16"), None)
    if half is None:
        return "f32"
    for layer, kind in kinds.items():
        if kind not in {"", "bf16"}:
            activations = formats[layer].activations
            other = "fp32" if activations is None else activations.name
            raise DeployError(
                f"OpenVINO computes all floating-point layers of a network in one format, got bf16 for {half} and "
                f"{other} for {layer}: what runs would not be what was simulated. "
                "Next: give both bf16, or neither."
            )
    return "bf16"


def _computed(kernel: str, precision: str) -> str:
    """Return the format that a kernel multiplies in: its name ends with it; what it reads may be narrower."""
    return _COMPUTE.get(kernel.rpartition("_")[2]) or _COMPUTE.get(precision, precision)


def _kind(op: Any) -> str:
    return _text(op.get_rt_info()["layerType"])


def _names(op: Any) -> str:
    """Return OpenVINO's names of what runs inside an operator, or of the weights that it reads.

    What a product of two activations reads comes from another layer, and is no name of its own.
    """
    own = names = _named(op)
    found, position = op, 1
    while not layers_in(names) and len(found.inputs()) > position:
        found, position = found.input_value(position).get_node(), 0
        if _kind(found) in _WEIGHTED:
            return own
        names = _named(found)
    return names


def _named(op: Any) -> str:
    return f"{_text(op.get_rt_info()['originalLayersNames'])},{op.get_friendly_name()}"


def _text(value: Any) -> str:
    held = getattr(value, "value", value)
    return held if isinstance(held, str) else str(getattr(value, "astype", lambda _: value)(str))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[-300:].rstrip(".")
