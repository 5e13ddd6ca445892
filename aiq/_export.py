"""Export a quantized network to a file that another program runs, and check the file by loading it anew."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aiq import zoo
from aiq._export_files import Written, write_onnx, write_openvino
from aiq._export_packed import packable, write_compressed_tensors, write_torchao
from aiq.data import load
from aiq.quantize import Simulator
from aiq.quantize._simulate import first, tensors
from aiq.runtimes import DeployError, Deployment
from roofline import LayerPrecision, OpGraph, Scheme
from roofline.errors import AIQError, InputError, unknown_name
from roofline.estimate import resolve

if TYPE_CHECKING:
    from aiq._model import Model

SCHEMA_VERSION = 1
SCHEME_FILE, REPORT_FILE = "scheme.json", "export.json"
_CHECKED = 64
_MADE_UP = 16
_MOST_APART = 0.05
_SEED = 0


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of file.

    Attributes:
        write: Writes it into a folder.
        needs: Modules that must be installed.
        extra: The extra that brings them.
        weights_only: Whether it holds linear layers with quantized weights alone.
    """

    write: Callable[..., Written]
    needs: tuple[str, ...]
    extra: str
    weights_only: bool = False


TARGETS = {
    "compressed-tensors": Target(
        write_compressed_tensors, ("compressed_tensors",), "compressed-tensors", weights_only=True
    ),
    "onnx": Target(write_onnx, ("onnx", "onnxscript"), "onnx"),
    "openvino": Target(write_openvino, ("onnx", "onnxscript", "openvino"), "openvino"),
    "torchao": Target(write_torchao, ("torchao",), "torchao", weights_only=True),
}


@dataclass(frozen=True, slots=True)
class ReloadCheck:
    """What the files, loaded anew, give beside the simulation.

    Attributes:
        reader: Name and version of what loaded them.
        inputs: What they were run on.
        n: Predictions compared.
        agreeing: Those in which both choose the same class.
        largest_difference: Of all outputs.
        mean_difference: Mean of the absolute differences.
        scale: Standard deviation of the simulation's outputs.
    """

    reader: str
    inputs: str
    n: int
    agreeing: int
    largest_difference: float
    mean_difference: float
    scale: float

    @property
    def agreement(self) -> float:
        """Share of predictions that agree."""
        return self.agreeing / self.n


@dataclass(frozen=True, eq=False)
class Export:
    """A network that was written.

    Attributes:
        model: The model's name.
        scheme: What it was quantized by; what the target leaves out is taken out.
        target: The kind of file.
        folder: Where it is.
        files: Names of the files in it, and their sizes in bytes.
        formats: Formats of each layer.
        stored: Format that each layer's weights are stored in.
        reasons: Why a layer is not stored as the scheme says; absent where it is.
        check: The reload check.
        versions: Of the packages that had a part in it.
        notes: What somebody who loads it has to know.
    """

    model: str
    scheme: Scheme
    target: str
    folder: Path
    files: Mapping[str, int]
    formats: Mapping[str, LayerPrecision]
    stored: Mapping[str, str]
    reasons: Mapping[str, str]
    check: ReloadCheck
    versions: Mapping[str, str]
    notes: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, as ``export.json`` holds it."""
        check = self.check
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "target": self.target,
            "scheme": str(self.scheme),
            "scheme_digest": self.scheme.digest(),
            "files": dict(self.files),
            "reload_check": {
                "reader": check.reader,
                "inputs": check.inputs,
                "n": check.n,
                "agreement": check.agreement,
                "largest_difference": check.largest_difference,
                "mean_difference": check.mean_difference,
                "scale": check.scale,
            },
            "layers": [
                {
                    "layer": layer,
                    "format": self.formats[layer].label,
                    "stored": stored,
                    "reason": self.reasons.get(layer, ""),
                }
                for layer, stored in self.stored.items()
            ],
            "versions": dict(self.versions),
            "notes": list(self.notes),
        }


def export(
    model: Model,
    scheme: Scheme,
    target: str,
    folder: str | Path,
    *,
    data: str | None = None,
    batch: int = 1,
    force: bool = False,
) -> Export:
    """Write a quantized network, load it anew, and compare its outputs with the simulation's.

    Args:
        model: The model with its weights.
        scheme: Formats of its layers.
        target: ``onnx``, ``openvino``, ``compressed-tensors`` or ``torchao``.
        folder: Where to write: a new or an empty folder.
        data: Data set whose calibration split ranges are taken from; by default the network's own. Without any, weights
            are rounded to nearest, and activations cannot be quantized.
        batch: Samples in a pass, for ``openvino``.
        force: Whether files in a folder that is not empty may be overwritten.

    Raises:
        UnknownNameError: No such target, or the scheme names a layer that the model has not.
        InputError: The folder is not empty, a package is not installed, or data are wanted.
        DeployError: The target has no form for the network, or the files give other outputs than the simulation.
        OracleError: The network has no weights, or does not run on the data.
    """
    kind, place = _target(target), _place(folder, force=force)
    graph = model.trace()
    resolve(graph, scheme)
    simulator, inputs, notes = _calibrated(model, graph, scheme, data)
    if kind.weights_only:
        scheme = packable(simulator, scheme, target)
    deployment = Deployment(simulator)
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        written = _write(kind, deployment, scheme, made, target, batch=batch)
        check = _check(simulator, scheme, written, inputs)
        packages = ("aiq-roofline", "torch", *kind.needs)
        versions = {package: version(package.replace("_", "-")) for package in packages}
        (made / SCHEME_FILE).write_text(f"{json.dumps(scheme.to_dict(), indent=2)}\n", "utf-8")
        found = Export(
            model.name,
            scheme,
            target,
            place,
            {path.name: path.stat().st_size for path in sorted(made.iterdir())},
            resolve(graph, scheme),
            written.stored,
            written.reasons,
            check,
            versions,
            (*written.notes, *notes),
        )
        (made / REPORT_FILE).write_text(f"{json.dumps(found.to_dict(), indent=2)}\n", "utf-8")
        _move(made, place)
    return found


def _write(kind: Target, deployment: Deployment, scheme: Scheme, folder: Path, target: str, *, batch: int) -> Written:
    try:
        return kind.write(deployment, scheme, folder, batch=batch)
    except AIQError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(".")
        raise DeployError(
            f"{deployment.name} cannot be written for {target}: {reason}. Next: choose another target."
        ) from error


def _target(name: str) -> Target:
    if name not in TARGETS:
        raise unknown_name("target", name, TARGETS, "choose one of these")
    found = TARGETS[name]
    for module in found.needs:
        if find_spec(module) is None:
            package = module.replace("_", "-")
            raise InputError(
                f"--to {name} needs {package}, which is not installed. Next: pip install 'aiq-roofline[{found.extra}]'."
            )
    return found


def _place(folder: str | Path, *, force: bool) -> Path:
    place = Path(folder).expanduser()
    try:
        full = place.is_dir() and any(place.iterdir())
    except OSError as error:
        raise InputError(f"cannot read {str(place)!r}: {error.strerror}. Next: choose another folder.") from None
    if place.exists() and not place.is_dir():
        raise InputError(f"{str(place)!r} is a file. Next: name a folder.")
    if full and not force:
        raise InputError(f"folder {str(place)!r} is not empty. Next: choose another, or overwrite with --force.")
    return place


def _move(made: Path, place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
        for path in made.iterdir():
            shutil.copyfile(path, place / path.name)
    except OSError as error:
        raise InputError(f"cannot write to {str(place)!r}: {error.strerror}. Next: choose another folder.") from None


def _calibrated(model: Model, graph: OpGraph, scheme: Scheme, data: str | None) -> tuple[Simulator, str, Sequence[str]]:
    """Return the network with its calibration, what it was calibrated on, and what that means."""
    own = zoo.ENTRIES[model.name].data if model.name in zoo.ENTRIES else None
    name = data or ("digits" if own == "digits" else None)
    if name is not None:
        split = load(name, "calibration")
        given = torch.from_numpy(np.ascontiguousarray(split.x))
        return Simulator(model, graph, given), f"the calibration split of {split.dataset.name}", ()
    if any(formats.activations is not None for formats in resolve(graph, scheme).values()):
        hint = f"--data {own}:PATH" if own else "--data cifar10:PATH, npz:DIR or path/to/file.py:function"
        raise InputError(
            f"{model.name} comes with no data, and {scheme} quantizes activations, whose ranges are taken from some. "
            f"Next: give {hint}."
        )
    simulator = Simulator(model, graph, _made_up(model.example))
    simulator.calibration = replace(simulator.calibration, inputs={})
    note = "without data, weights are rounded to nearest and biases are not corrected"
    return simulator, "random inputs", (note,)


def _made_up(example: Any) -> Any:
    """Return random inputs of the form of an example: normal numbers, or zeros and ones."""
    generator = torch.Generator().manual_seed(_SEED)

    def drawn(tensor: torch.Tensor) -> torch.Tensor:
        shape = (_MADE_UP, *tensor.shape[1:])
        if tensor.is_floating_point():
            return torch.randn(shape, generator=generator).to(tensor.dtype)
        return torch.randint(0, 2, shape, generator=generator).to(tensor.dtype)

    if isinstance(example, torch.Tensor):
        return drawn(example)
    if isinstance(example, Mapping):
        return {name: drawn(tensor) for name, tensor in example.items()}
    return tuple(map(drawn, example))


def _check(simulator: Simulator, scheme: Scheme, written: Written, where: str) -> ReloadCheck:
    inputs = first(simulator.calibration_inputs, _CHECKED)
    found = written.reload()([tensor.numpy() for tensor in tensors(inputs)])
    expected = simulator.outputs(scheme, inputs).numpy()
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise DeployError(
            f"what was written gives {list(found.shape)} outputs, or some that are not finite, where the simulation "
            f"gives {list(expected.shape)}. Next: choose another target."
        )
    apart = np.abs(found - expected)
    width = expected.shape[-1]
    same = found.reshape(-1, width).argmax(-1) == expected.reshape(-1, width).argmax(-1)
    check = ReloadCheck(
        written.reader,
        where,
        len(same),
        int(same.sum()),
        float(apart.max()),
        float(apart.mean()),
        float(expected.std()),
    )
    if check.mean_difference > _MOST_APART * check.scale:
        raise DeployError(
            f"what was written gives, in {written.reader}, outputs that differ from the simulation's by "
            f"{check.mean_difference:.3g} on average, more than {_MOST_APART:.0%} of their spread of "
            f"{check.scale:.3g}: nothing is kept. Next: keep some layers, or choose another target."
        )
    return check
