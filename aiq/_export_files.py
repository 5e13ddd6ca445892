"""Write a deployed network as ONNX or OpenVINO IR, and read it back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiq.runtimes import Arrays, Built, DeployError, Deployment
from aiq.runtimes._float_graph import without_labels
from aiq.runtimes._openvino import precision_hint
from roofline import Scheme

Reader = Callable[[Arrays], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Written:
    """What a writer left in a folder.

    Attributes:
        stored: Format that each layer's weights are stored in.
        reasons: Why a layer is not stored as the scheme says; absent where it is.
        reload: Loads the files anew and returns what runs them on any number of examples.
        reader: Name and version of what reads them.
        notes: What somebody who loads them has to know.
    """

    stored: Mapping[str, str]
    reasons: Mapping[str, str]
    reload: Callable[[], Reader]
    reader: str
    notes: Sequence[str] = ()


def write_onnx(deployment: Deployment, scheme: Scheme, folder: Path, *, batch: int) -> Written:
    """Write ``model.onnx``, for any batch: integer weights, quantize–dequantize pairs where activations are rounded.

    Raises:
        DeployError: The network has no such form.
    """
    import onnx

    built = deployment.onnx(scheme)
    path = folder / "model.onnx"
    onnx.checker.check_model(built.model, full_check=True)
    onnx.save(built.model, str(path))
    installed = find_spec("onnxruntime") is not None
    read, reader = (_in_onnxruntime, "onnxruntime") if installed else (_in_reference, "onnx")
    return _written(built, lambda: read(path), reader)


def _in_onnxruntime(path: Path) -> Reader:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda inputs: np.asarray(session.run(None, dict(zip(names, inputs, strict=True)))[0])


def _in_reference(path: Path) -> Reader:
    from onnx.reference import ReferenceEvaluator

    evaluator: Any = ReferenceEvaluator(str(path))
    return lambda inputs: np.asarray(evaluator.run(None, dict(zip(evaluator.input_names, inputs, strict=True)))[0])


def write_openvino(deployment: Deployment, scheme: Scheme, folder: Path, *, batch: int) -> Written:
    """Write ``model.xml`` and ``model.bin``, for one batch: OpenVINO computes residual INT8 networks wrongly otherwise.

    Raises:
        DeployError: The network has no such form.
    """
    import openvino

    forms = deployment.inputs(batch)
    built = deployment.onnx(scheme, dialect="openvino")
    hint = precision_hint(built.formats)
    without_labels(built.model)
    path = folder / "model.xml"
    model = openvino.Core().read_model(built.model.SerializeToString())
    model.reshape({port: list(form.shape) for port, form in zip(model.inputs, forms, strict=True)})
    model.set_rt_info("0", ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
    openvino.save_model(model, str(path), compress_to_fp16=False)
    note = f"compile it with INFERENCE_PRECISION_HINT={hint}, or OpenVINO takes what it likes for what is not INT8"
    return _written(built, lambda: _in_openvino(path, hint, batch), "openvino", f"its batch is {batch}", note)


def _in_openvino(path: Path, hint: str, batch: int) -> Reader:
    import openvino

    compiled: Any = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": hint})

    def run(inputs: Arrays) -> NDArray[np.float32]:
        count = len(inputs[0])
        found = []
        for start in range(0, count, batch):
            parts: list[Any] = [array[start : start + batch] for array in inputs]
            filled = [np.resize(part, (batch, *part.shape[1:])) for part in parts]
            found.append(np.array(compiled(filled)[compiled.output(0)])[: len(parts[0])])
        return np.concatenate(found)

    return run


def _written(built: Built, load: Callable[[], Reader], package: str, *notes: str) -> Written:
    return Written(built.stored, built.reasons, checked(load, package), f"{package} {version(package)}", notes)


def checked(load: Callable[[], Reader], package: str) -> Callable[[], Reader]:
    """Return what loads and runs files as ``load`` does, and says so in one sentence where that fails.

    Raises:
        DeployError: By what is returned: the package does not load or run them.
    """

    def failed(error: Exception) -> DeployError:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        return DeployError(f"{package} does not run what was written: {reason}. Next: keep some layers.")

    def reload() -> Reader:
        try:
            read = load()
        except Exception as error:
            raise failed(error) from error

        def run(inputs: Arrays) -> NDArray[np.float32]:
            try:
                return read(inputs)
            except Exception as error:
                raise failed(error) from error

        return run

    return reload
