"""Exported networks: what is written, that it is loaded anew and compared, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aiq import Model, export, load_model
from aiq._export import Export
from aiq._export import export as exported
from aiq.quantize import Simulator
from aiq.runtimes import DeployError, Deployment
from roofline import Scheme
from roofline.errors import InputError
from tests.commands import TWO_LAYERS, run

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[1]
PACKED = ("compressed-tensors", "torchao")


class Linears(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(64, 48), nn.Linear(48, 32, bias=False), nn.Linear(32, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


def linears() -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Linears().eval()
    return Model("linears", module, torch.empty(1, 64, device="meta"))


DATA = """
import numpy as np
def data(split):
    rng = np.random.default_rng(len(split))
    return rng.standard_normal((32, 64)).astype(np.float32), rng.integers(0, 12, 32)
"""


@pytest.fixture
def data(tmp_path: Path) -> str:
    (tmp_path / "numbers.py").write_text(DATA)
    return f"{tmp_path / 'numbers.py'}:data"


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "export.json").read_text("utf-8"))
    return found


@pytest.mark.parametrize(
    ("target", "files"), [("onnx", {"model.onnx"}), ("openvino", {"model.bin", "model.xml"})], ids=["onnx", "openvino"]
)
def test_digits_are_written_and_loaded_anew(target: str, files: set[str], tmp_path: Path) -> None:
    pytest.importorskip(target)
    scheme = Scheme.parse("w8a8,linear=w4a8")
    found = exported(load_model("digits_cnn"), scheme, target, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*files, "scheme.json", "export.json"}
    assert (found.check.agreement, found.check.n, found.check.inputs) == (1.0, 64, "the calibration split of digits")
    assert 0 < found.check.mean_difference < 0.02 * found.check.scale
    assert found.check.largest_difference < 0.1 * found.check.scale
    assert Scheme.parse(str(tmp_path / "out" / "scheme.json")).digest() == scheme.digest()
    written = report_of(tmp_path / "out")
    assert written == found.to_dict()
    assert (written["scheme_digest"], written["model"], written["target"]) == (scheme.digest(), "digits_cnn", target)
    assert written["versions"]["torch"] == torch.__version__
    assert {layer["stored"] for layer in written["layers"]} >= {"int8", "fp32"}
    assert all((tmp_path / "out" / name).stat().st_size == size for name, size in written["files"].items())


def test_another_program_gets_what_the_simulation_gives(tmp_path: Path) -> None:
    """The ONNX file, at another batch than any before, in a session of its own."""
    import onnxruntime

    from aiq.data import load

    model, scheme = load_model("digits_cnn"), Scheme.parse("w4:z")
    exported(model, scheme, "onnx", tmp_path)
    images = load("digits", "report", limit=37).x
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images})
    calibration = torch.from_numpy(load("digits", "calibration").x)
    expected = Simulator(model, model.trace(), calibration).outputs(scheme, torch.from_numpy(images)).numpy()
    assert np.abs(found - expected).mean() < 0.02 * expected.std()
    assert (found.argmax(1) == expected.argmax(1)).all()


def test_without_onnxruntime_the_reference_evaluator_loads_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("aiq._export_files.find_spec", lambda name: None if name == "onnxruntime" else find_spec(name))
    found = exported(linears(), Scheme.parse("w4:z"), "onnx", tmp_path)
    assert found.check.reader.startswith("onnx 1.")
    assert found.check.largest_difference < 1e-5


def test_openvino_is_written_for_one_batch_and_says_how_to_compile_it(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    found = exported(linears(), Scheme.parse("w4"), "openvino", tmp_path, batch=5)
    model = openvino.Core().read_model(str(tmp_path / "model.xml"))
    assert list(model.inputs[0].shape) == [5, 64]
    assert found.notes[:2] == (
        "its batch is 5",
        "compile it with INFERENCE_PRECISION_HINT=f32, or OpenVINO takes what it likes for what is not INT8",
    )


def test_openvino_is_not_written_in_several_floats(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(DeployError, match="in one format, got bf16 for conv1 and fp32 for linear: what runs would not"):
        export(load_model("digits_cnn"), Scheme.parse("bf16,linear=keep"), "openvino", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scheme", ["w4:g16", "w8", "w4:z", "w3", "w4:g16:z,b=keep", "w4@gptq"])
@pytest.mark.parametrize("target", PACKED)
def test_linear_layers_are_packed_bit_for_bit(target: str, scheme: str, data: str, tmp_path: Path) -> None:
    pytest.importorskip(target.replace("-", "_"))
    found = exported(linears(), Scheme.parse(scheme), target, tmp_path / "out", data=data)
    assert found.check.largest_difference < 1e-6
    assert found.check.reader.startswith(target)
    kept = {"b"} if "b=keep" in scheme else set()
    assert {layer for layer, stored in found.stored.items() if stored == "fp32"} == kept
    biases = {layer: found.formats[layer].recipe.endswith("nobias") for layer in ("a", "b", "c")}
    assert biases == {"a": False, "b": not kept, "c": False}


def test_the_vocabulary_of_compressed_tensors(data: str, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    from safetensors.torch import load_file

    exported(linears(), Scheme.parse("w4:g16:z,c=w8"), "compressed-tensors", tmp_path / "out", data=data)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert (config["quant_method"], config["format"]) == ("compressed-tensors", "pack-quantized")
    groups = config["config_groups"].values()
    assert [
        (g["targets"], g["weights"]["num_bits"], g["weights"]["strategy"], g["weights"]["symmetric"]) for g in groups
    ] == [
        (["a", "b"], 4, "group", False),
        (["c"], 8, "channel", True),
    ]
    state = load_file(tmp_path / "out" / "model.safetensors")
    assert {name: list(tensor.shape) for name, tensor in state.items() if name.startswith("a.")} == {
        "a.bias": [48],
        "a.weight_packed": [48, 8],
        "a.weight_scale": [48, 4],
        "a.weight_shape": [2],
        "a.weight_zero_point": [6, 4],
    }


def test_without_data_weights_are_rounded_to_nearest(tmp_path: Path) -> None:
    found = exported(linears(), Scheme.parse("w4"), "onnx", tmp_path / "out")
    assert found.check.inputs == "random inputs"
    assert "without data, weights are rounded to nearest and biases are not corrected" in found.notes
    from onnx import load, numpy_helper

    values = {t.name: numpy_helper.to_array(t) for t in load(tmp_path / "out" / "model.onnx").graph.initializer}
    assert np.array_equal(values["a.bias"], linears().module.a.bias.detach().numpy())  # type: ignore[union-attr]


def test_a_file_that_gives_other_outputs_is_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = Deployment.onnx
    monkeypatch.setattr(Deployment, "onnx", lambda self, scheme, **settings: plain(self, Scheme(), **settings))
    with pytest.raises(DeployError) as caught:
        exported(linears(), Scheme.parse("w2"), "onnx", tmp_path / "out")
    assert re.fullmatch(
        r"what was written gives, in onnxruntime [\d.]+, outputs that differ from the simulation's by [\d.]+ on "
        r"average, more than 5% of their spread of [\d.]+: nothing is kept\. Next: keep some layers, or choose another "
        r"target\.",
        str(caught.value),
    )
    assert not (tmp_path / "out").exists()


def test_a_writer_that_fails_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*given: Any, **settings: Any) -> None:
        raise ValueError("no\nroom.")

    monkeypatch.setattr("onnx.checker.check_model", fail)
    with pytest.raises(DeployError) as caught:
        exported(linears(), Scheme.parse("w8"), "onnx", tmp_path / "out")
    assert str(caught.value) == (
        "linears cannot be written for onnx: ValueError: no room. Next: choose another target."
    )


def test_a_file_that_does_not_load_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("aiq._export_files._in_onnxruntime", lambda path: path / "nothing\nhere.")
    with pytest.raises(DeployError) as caught:
        exported(linears(), Scheme.parse("w8"), "onnx", tmp_path / "out")
    assert str(caught.value) == (
        "onnxruntime does not run what was written: 'PosixPath' object is not callable. Next: keep some layers."
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("target", "scheme", "text"),
    [
        ("onxn", "w8", "unknown target 'onxn': did you mean 'onnx' or 'openvino'? Next: choose one of these."),
        (
            "onnx",
            "w8,conv1=w4",
            "unknown layer 'conv1': known: a, b, c, relu, relu#2. Next: run 'aiq graph MODEL' for the names.",
        ),
        (
            "onnx",
            "w8a8",
            "linears comes with no data, and w8a8 quantizes activations, whose ranges are taken from some. "
            "Next: give --data cifar10:PATH, npz:DIR or path/to/file.py:function.",
        ),
    ],
)
def test_mistakes_are_refused(target: str, scheme: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError if target == "onnx" and scheme == "w8a8" else Exception) as caught:
        export(linears(), Scheme.parse(scheme), target, tmp_path)
    assert str(caught.value) == text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "scheme", "text"),
    [
        (
            "digits_cnn",
            "w4",
            "{} has a form for linear layers alone, got conv1 (Conv2d) in int4. "
            "Next: keep it, conv1=keep, or choose --to onnx.",
        ),
        (
            "digits_cnn",
            "keep,linear=w8a8",
            "{} is written with weights alone, got activations of int8 in linear. "
            "Next: choose a scheme such as w4:g32, or --to onnx.",
        ),
        (
            "linears",
            "w4:g48",
            "{} takes groups that divide a layer's 64 inputs, got 48 in a. Next: choose another group size.",
        ),
        (
            "linears",
            "bf16/keep",
            "{} has a form for integers of at most 8 bits alone, got a (Linear) in bf16. "
            "Next: keep it, a=keep, or choose --to onnx.",
        ),
    ],
)
@pytest.mark.parametrize("target", PACKED)
def test_what_has_no_packed_form_is_refused(target: str, model: str, scheme: str, text: str, tmp_path: Path) -> None:
    pytest.importorskip(target.replace("-", "_"))
    built = linears() if model == "linears" else load_model(model)
    with pytest.raises(DeployError) as caught:
        export(built, Scheme.parse(scheme), target, tmp_path)
    assert str(caught.value) == text.format(target)


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("aiq._export.find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        export(linears(), Scheme.parse("w8"), "compressed-tensors", tmp_path)
    assert str(caught.value) == (
        "--to compressed-tensors needs compressed-tensors, which is not installed. "
        "Next: pip install 'aiq-roofline[compressed-tensors]'."
    )


@pytest.fixture
def two_layers(tmp_path: Path) -> str:
    (tmp_path / "two.py").write_text(TWO_LAYERS)
    return f"{tmp_path / 'two.py'}:build"


def test_the_command_keeps_to_an_empty_folder_unless_forced(two_layers: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ("export", two_layers, str(out), "--scheme", "w8", "--to", "onnx")
    done = run(*asked, "--format", "json")
    assert (done.code, json.loads(done.out)) == (0, report_of(out))
    refused = run(*asked)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (f"aiq: folder {str(out)!r} is not empty. Next: choose another, or overwrite with --force.\n")
    (out / "own.txt").write_text("mine")
    forced = run(*asked, "--force")
    assert forced.code == 0
    assert re.match(
        r"\S+two\.py:build as w8 written to \S+out \(onnx, [\d.]+ kB\); loaded anew by onnxruntime [\d.]+, \d+ of 16 "
        r"predictions are the simulation's, largest difference \S+ at a spread of \S+\n",
        forced.out,
    )
    assert (out / "own.txt").read_text() == "mine"


@pytest.mark.parametrize("fmt", ["csv", "md", "table"])
def test_every_format_lists_the_layers(two_layers: str, fmt: str, tmp_path: Path) -> None:
    done = run("export", two_layers, str(tmp_path / "out"), "--scheme", "w4,2=w8", "--to", "onnx", "--format", fmt)
    assert done.code == 0
    rows = [re.split(r"[,|\s]+", line.strip("| ")) for line in done.out.splitlines()]
    assert [row[:3] for row in rows if row[0] in ("0", "2")] == [["0", "w4", "int4"], ["2", "w8", "int8"]]


def test_a_place_that_cannot_be_written_to_is_refused(two_layers: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("export", two_layers, str(tmp_path / "file"), "--scheme", "w8", "--to", "onnx")
    assert (done.code, done.err) == (2, f"aiq: {str(tmp_path / 'file')!r} is a file. Next: name a folder.\n")


def test_the_example_of_the_readme_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocks = re.findall(r"^```\n(\$ aiq export.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    (command,) = blocks
    monkeypatch.chdir(tmp_path)
    done = run(*shlex.split(command.removeprefix("$ "))[1:])
    assert done.code == 0, done.err
    folder = next(path for path in tmp_path.rglob("*") if path.name == "export.json").parent
    assert {"model.onnx", "scheme.json", "export.json"} == {path.name for path in folder.iterdir()}


def test_the_result_is_public() -> None:
    import aiq

    assert aiq.Export is Export
