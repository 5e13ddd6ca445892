"""ONNX Runtime on CPU: quantize–dequantize pairs become integer kernels where it has them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiq.runtimes._deployment import Deployment
from aiq.runtimes._executed import Kernel, executed
from aiq.runtimes._float_graph import layers_in
from aiq.runtimes._inputs import InputForm, check_inputs
from aiq.runtimes._integer_products import use_integer_products
from aiq.runtimes._protocol import Arrays, DeployError, Executed, Step, missing
from aiq.runtimes._qdq import Built
from aiq.runtimes._threads import processors
from roofline import Scheme

_LOOKING_UP = "Gather"
_INTEGER = frozenset({"QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QGemm",
                      "DynamicQuantizeMatMul"})  # fmt: skip
_WEIGHTED = _INTEGER | {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "MatMulNBits", _LOOKING_UP,
                        "ConvTranspose"}  # fmt: skip


class ONNXRuntime:
    """The runtime ``onnxruntime``."""

    name = "onnxruntime"

    def available(self) -> str | None:
        """See :class:`aiq.runtimes.Runtime`."""
        return missing("onnxruntime", "onnx", "onnxscript", "onnxruntime")

    def version(self) -> str:
        """See :class:`aiq.runtimes.Runtime`."""
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}"

    def prepare(
        self, deployment: Deployment, scheme: Scheme, *, batch: int, threads: int | None = None
    ) -> ONNXRuntimePrepared:
        """See :class:`aiq.runtimes.Runtime`."""
        if reason := self.available():
            raise DeployError(f"{reason}.")
        inputs = deployment.inputs(batch)
        built = deployment.onnx(scheme, dialect="onnxruntime")
        use_integer_products(built.model)
        try:
            return ONNXRuntimePrepared(built, inputs, threads or processors())
        except Exception as error:
            raise DeployError(
                f"ONNX Runtime does not load {deployment.name}: {_short(error)}. Next: keep the layers that it names."
            ) from error


class ONNXRuntimePrepared:
    """A session."""

    def __init__(self, built: Built, inputs: Sequence[InputForm], threads: int) -> None:
        self.batch = inputs[0].shape[0]
        self._built, self._inputs, self._threads = built, inputs, threads
        for value in built.model.graph.input:
            value.type.tensor_type.shape.dim[0].dim_value = self.batch
        self._session = self._started(self._options())
        self._names = [value.name for value in self._session.get_inputs()]

    def _options(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Else threads of one session go on spinning while another one runs: two to three times slower, and unsteady.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
        return options

    def _started(self, options: Any) -> Any:
        import onnxruntime

        # WeightBiasQuantization would round weights to int8 that the scheme keeps in floating point.
        return onnxruntime.InferenceSession(
            self._built.model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["WeightBiasQuantization"],
        )

    def run(self, inputs: Arrays) -> NDArray[np.float32]:
        """See :class:`aiq.runtimes.Prepared`."""
        check_inputs(inputs, self._inputs)
        try:
            found: NDArray[np.float32] = self._session.run(None, dict(zip(self._names, inputs, strict=True)))[0]
        except Exception as error:
            raise DeployError(f"ONNX Runtime fails: {_short(error)}. Next: check the inputs.") from error
        return found

    def executed_precisions(self) -> Mapping[str, Executed]:
        """See :class:`aiq.runtimes.Prepared`."""
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            options = self._options()
            options.optimized_model_filepath = str(Path(folder, "optimised.onnx"))
            self._started(options)
            nodes = onnx.load(options.optimized_model_filepath).graph.node
        ran: dict[str, list[Kernel]] = {}
        for node in nodes:
            if node.op_type in _WEIGHTED:
                compute = "int8" if node.op_type in _INTEGER else "fp32"
                kernel = Kernel(compute, node.op_type, looks_up=node.op_type == _LOOKING_UP)
                for layer in layers_in(node.name):
                    ran.setdefault(layer, []).append(kernel)
        return executed(self._built, ran, "ONNX Runtime on CPU")

    def profile(self, inputs: Arrays, *, passes: int = 20) -> Sequence[Step]:
        """See :class:`aiq.runtimes.Prepared`."""
        check_inputs(inputs, self._inputs)
        feed = dict(zip(self._names, inputs, strict=True))
        with tempfile.TemporaryDirectory() as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder, "profile"))
            session = self._started(options)
            for _ in range(passes + 2):
                session.run(None, feed)
            events = json.loads(Path(session.end_profiling()).read_text())
        seconds: dict[str, list[float]] = {}
        kinds: dict[str, str] = {}
        for event in events:
            name = event.get("name", "")
            if event.get("cat") == "Node" and name.endswith("_kernel_time"):
                node = name.removesuffix("_kernel_time")
                seconds.setdefault(node, []).append(event["dur"] / 1e6)
                kinds[node] = event["args"].get("op_name", "")
        return tuple(
            Step(node, kinds[node], layers_in(node), kinds[node], float(np.median(times[2:])))
            for node, times in seconds.items()
        )


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
