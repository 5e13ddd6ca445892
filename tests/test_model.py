"""From what a user calls a model to a module, an example and a name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import aiq
from aiq import zoo
from aiq._model import ModelError, load_model
from roofline.errors import AIQError, InputError, TraceError, UnknownNameError

LINEAR = "import torch\ndef build():\n    return torch.nn.Linear(3, 4), torch.zeros(2, 3)\n"


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def refusal(kind: type[AIQError], name: str, *inputs: str) -> str:
    with pytest.raises(kind) as caught:
        load_model(name, inputs)
    text = str(caught.value)
    assert "\n" not in text
    assert "Next: " in text
    return text


@pytest.mark.parametrize("name", zoo.names())
def test_every_zoo_name_builds_and_traces(name: str) -> None:
    model = load_model(name)
    assert model.name == name
    assert not model.module.training
    assert model.example.shape == (1, *zoo.get(name).input_shape)
    assert model.example.is_meta
    graph = model.trace()
    assert (graph.model, graph.batch, graph.unknown) == (name, 1, {})
    assert graph.keep_weights == zoo.get(name).keep


@pytest.mark.parametrize(
    ("text", "shape", "dtype"),
    [
        ("2,1,8,8", (2, 1, 8, 8), torch.float32),
        (" 2,1,8,8 ", (2, 1, 8, 8), torch.float32),
        ("5,1,8,8:float16", (5, 1, 8, 8), torch.float16),
        ("5,1,8,8:bfloat16", (5, 1, 8, 8), torch.bfloat16),
        ("3,7:int64", (3, 7), torch.int64),
        ("3:bool", (3,), torch.bool),
    ],
)
def test_one_input(text: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    example = load_model("digits_cnn", [text]).example
    assert (tuple(example.shape), example.dtype, example.is_meta) == (shape, dtype, True)


def test_several_inputs_are_a_tuple_and_named_ones_a_dict() -> None:
    example = load_model("digits_cnn", ["1,3", "1,4:int64"]).example
    assert isinstance(example, tuple)
    assert [tuple(t.shape) for t in example] == [(1, 3), (1, 4)]
    named = load_model("digits_cnn", ["ids=1,3:int64", "mask=1,3:bool"]).example
    assert {k: (tuple(t.shape), t.dtype) for k, t in named.items()} == {
        "ids": ((1, 3), torch.int64),
        "mask": ((1, 3), torch.bool),
    }
    assert list(load_model("digits_cnn", ["x=1,1,8,8"]).example) == ["x"]


KNOWN_DTYPES = "float32, float16, bfloat16, int64, int32, bool"


@pytest.mark.parametrize(
    "text",
    ["", "a", "1x3x224x224", "1,,3", "1,3,", ",1", "1.5,3", "-1,3", "1,3:float", "1,3:", "=1,3", "1a=1,3", "1,3:INT64"],
)
def test_malformed_inputs(text: str) -> None:
    assert refusal(InputError, "digits_cnn", text) == (
        f"input {text!r} is not [NAME=]DIMS[:DTYPE] with DTYPE one of {KNOWN_DTYPES}. "
        "Next: write for instance --input 1,3,224,224 or --input ids=1,128:int64."
    )


def test_an_axis_of_length_zero() -> None:
    text = refusal(InputError, "digits_cnn", "1,0,8,8")
    assert text == "input '1,0,8,8' has an axis of length 0. Next: give every axis at least 1."


def test_some_names_or_a_name_twice() -> None:
    text = refusal(InputError, "digits_cnn", "x=1,1,8,8", "1,1,8,8")
    assert text == (
        "either every --input has a name of its own or none has, got 'x' for 2 inputs. Next: name them all, or none."
    )
    assert "'x'" in refusal(InputError, "digits_cnn", "x=1,1,8,8", "x=2,1,8,8")


@pytest.mark.parametrize("text", ["1," + "9" * 30, "1," + "9" * 5000, "99999,99999,99999,99999"])
def test_an_input_too_large_to_name(text: str) -> None:
    refusal(InputError, "digits_cnn", text)


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnt20", "'resnet20'"), ("mobilenetv2", "'mobilenet_v2'"), ("digits-cnn", "'digits_cnn'"), ("", "digits_cnn")],
)
def test_unknown_zoo_name(name: str, near: str) -> None:
    text = refusal(UnknownNameError, name)
    assert text.startswith(f"unknown model {name!r}: ")
    assert near in text


def test_file_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "networks_a.py", LINEAR + "class Tiny(torch.nn.ReLU): pass\nclass Box:\n    make = build\n")
    model = load_model(f"{path}:build")
    assert model.name == f"{path}:build"
    assert tuple(model.example.shape) == (2, 3)
    assert len(model.trace().layers) == 1
    assert isinstance(load_model(f"{path}:Tiny", ["1,3"]).module, torch.nn.ReLU)
    assert isinstance(load_model(f"{path}:Box.make").module, torch.nn.Linear)
    monkeypatch.chdir(tmp_path)
    for name in ("networks_a.py:build", "./networks_a.py:build", "networks_a:build"):
        assert isinstance(load_model(name).module, torch.nn.Linear)


def test_a_package_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "package_b/__init__.py", "")
    write(tmp_path, "package_b/inner.py", "from package_b.width import WIDTH\n" + LINEAR.replace("4", "WIDTH"))
    write(tmp_path, "package_b/width.py", "WIDTH = 9\n")
    monkeypatch.chdir(tmp_path)
    assert load_model("package_b.inner:build").module.out_features == 9


def test_a_file_may_import_its_neighbours_early_or_late(tmp_path: Path) -> None:
    write(tmp_path, "neighbour_c.py", "WIDTH = 7\n")
    write(tmp_path, "neighbour_d.py", "WIDTH = 8\n")
    early = write(tmp_path, "early_c.py", "from neighbour_c import WIDTH\n" + LINEAR.replace("4", "WIDTH"))
    late = write(
        tmp_path,
        "late_c.py",
        LINEAR.replace("    return", "    from neighbour_d import WIDTH\n    return").replace("4", "WIDTH"),
    )
    assert load_model(f"{early}:build").module.out_features == 7
    assert load_model(f"{late}:build").module.out_features == 8


def test_inputs_replace_the_callables_own(tmp_path: Path) -> None:
    path = write(tmp_path, "own_d.py", LINEAR)
    assert tuple(load_model(f"{path}:build", ["5,3"]).example.shape) == (5, 3)


def test_the_import_path_is_left_as_it_was(tmp_path: Path) -> None:
    before = list(sys.path)
    load_model(write(tmp_path, "path_e.py", LINEAR) + ":build")
    refusal(ModelError, write(tmp_path, "path_f.py", "raise ValueError('no')") + ":build")
    assert sys.path == before


def test_a_file_that_edits_the_import_path(tmp_path: Path) -> None:
    before = list(sys.path)
    path = write(tmp_path, "path_g.py", "import sys\nsys.path.pop(0)\n" + LINEAR)
    try:
        assert isinstance(load_model(f"{path}:build").module, torch.nn.Linear)
    finally:
        sys.path[:] = before


@pytest.mark.parametrize("stem", ["roofline", "aiq", "csv", "networkx"])
def test_a_file_never_replaces_a_module_of_the_same_name(tmp_path: Path, stem: str) -> None:
    import csv  # noqa: F401

    import networkx  # noqa: F401

    before = sys.modules[stem]
    path = write(tmp_path, f"{stem}.py", LINEAR)
    try:
        assert isinstance(load_model(f"{path}:build").module, torch.nn.Linear)
        assert sys.modules[stem] is before
    finally:
        sys.modules[stem] = before


def test_two_files_of_one_name_are_two_models(tmp_path: Path) -> None:
    first = write(tmp_path, "one/same_h.py", LINEAR)
    second = write(tmp_path, "two/same_h.py", LINEAR.replace("4", "5"))
    assert load_model(f"{first}:build").module.out_features == 4
    assert load_model(f"{second}:build").module.out_features == 5
    assert load_model(f"{first}:build").module.out_features == 4


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def build(:\n", "SyntaxError: invalid syntax (bad_i0.py, line 1)"),
        ("import no_such_module_i\n", "ModuleNotFoundError: No module named 'no_such_module_i'"),
        ("raise ValueError('first.\\nsecond')\n", "ValueError: first"),
        ("raise ValueError\n", "ValueError: no message"),
    ],
)
def test_a_file_that_does_not_import(tmp_path: Path, source: str, reason: str) -> None:
    path = write(tmp_path, "bad_i0.py", source)
    text = refusal(ModelError, f"{path}:build")
    assert text == f"model '{path}:build': importing {path!r} failed: {reason}. Next: import it by itself."


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ValueError('boom.')", "ValueError: boom"),
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("return build()", "RecursionError: maximum recursion depth exceeded"),
    ],
)
def test_a_callable_that_raises(tmp_path: Path, body: str, reason: str) -> None:
    path = write(tmp_path, "raises_j.py", f"def build():\n    {body}\n")
    text = refusal(ModelError, f"{path}:build")
    assert text.startswith(f"model '{path}:build' raised while it was built: {reason}")
    assert text.endswith(" Next: call it by itself.")


@pytest.mark.parametrize("where", ["import", "call"])
def test_a_file_that_leaves_the_program(tmp_path: Path, where: str) -> None:
    source = "import sys\nsys.exit(0)\n" if where == "import" else "import sys\ndef build():\n    sys.exit(0)\n"
    path = write(tmp_path, f"leaves_{where}.py", source)
    assert "SystemExit" in refusal(ModelError, f"{path}:build")


@pytest.mark.parametrize(
    ("value", "kind"), [("None", "NoneType"), ("(1, 2, 3)", "tuple"), ("{}", "dict"), ("(3, 4)", "int")]
)
def test_a_callable_that_returns_no_module(tmp_path: Path, value: str, kind: str) -> None:
    path = write(tmp_path, "none_k.py", f"def build():\n    return {value}\n")
    assert refusal(ModelError, f"{path}:build") == (
        f"model '{path}:build' returned {kind}, not a torch.nn.Module. "
        "Next: return a module, or a pair of module and example input."
    )


def test_a_callable_that_wants_arguments(tmp_path: Path) -> None:
    path = write(tmp_path, "wants_l.py", "def build(width): ...\n")
    assert "build() missing 1 required positional argument: 'width'" in refusal(ModelError, f"{path}:build")


def test_a_missing_callable_offers_the_near_ones(tmp_path: Path) -> None:
    path = write(tmp_path, "near_m.py", LINEAR)
    text = refusal(UnknownNameError, f"{path}:biuld")
    assert text.startswith(f"unknown callable in {path} 'biuld': did you mean 'build'?")


def test_a_missing_file_and_a_missing_callables_name(tmp_path: Path) -> None:
    path = str(tmp_path / "nowhere.py")
    text = refusal(ModelError, f"{path}:build")
    assert text == f"model '{path}:build': there is no file {path!r}. Next: check the path."
    text = refusal(ModelError, path)
    assert text == f"model {path!r} names a file but no callable. Next: write {path}:build, with your callable's name."
    assert "there is no file" in refusal(ModelError, f"{tmp_path}:build")


def test_no_example_and_none_given(tmp_path: Path) -> None:
    path = write(tmp_path, "bare_n.py", "import torch\ndef build():\n    return torch.nn.Linear(3, 4)\n")
    assert refusal(InputError, f"{path}:build") == (
        f"model '{path}:build' states no example input. Next: give its shape, for instance --input 1,3,224,224."
    )


def test_forward_that_raises(tmp_path: Path) -> None:
    path = write(tmp_path, "forward_o.py", LINEAR)
    with pytest.raises(TraceError) as caught:
        load_model(f"{path}:build", ["2,5"]).trace()
    text = str(caught.value)
    assert text.startswith(f"{path}:build raised in forward for input 2x5: RuntimeError: ")
    assert text.endswith(" Next: check the input shape (--input), or run the model by itself.")


def test_the_public_names_are_reachable() -> None:
    for name in aiq.__all__:
        assert getattr(aiq, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'aiq' has no attribute 'plane'"):
        aiq.plane  # noqa: B018
