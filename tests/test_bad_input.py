"""What people get wrong: one sentence on stderr with a next step, exit code 2, nothing on stdout, no traceback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import hardware_specs
from aiq import zoo
from tests.test_cli import ROOT, TOY_MACHINE, TWO_LAYERS, run, subprocess_run

PLAN = ("plan", "digits_cnn", "--probe", "0")
ROOFLINE = ("roofline", "digits_cnn")
DEEP = "[" * 100_000
LONG = "9" * 5000
GARBAGE = bytes(range(128, 256))

NETS = {
    "syntax": "def build(:\n",
    "imports": "import no_such_module\n",
    "no_callable": "x = 1\n",
    "raises": "def build():\n    raise ValueError('boom.\\nMore of it.')\n",
    "nothing": "def build():\n    return None\n",
    "wants": "def build(width):\n    return None\n",
    "forward": (
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n        raise RuntimeError('bad forward.\\nMore of it.')\n"
        "def build():\n    return Net(), torch.zeros(1, 3)\n"
    ),
    "no_input": "import torch\ndef build():\n    return torch.nn.Linear(3, 4)\n",
    "no_tensor": "import torch\ndef build():\n    return torch.nn.Linear(3, 4), 'x'\n",
    "no_weights": "import torch\ndef build():\n    return torch.nn.ReLU(), torch.zeros(1, 3)\n",
    "batch_zero": "import torch\ndef build():\n    return torch.nn.Linear(3, 4), torch.zeros(0, 3)\n",
    "on_meta": "import torch\ndef build():\n    return torch.nn.Linear(3, 4, device='meta'), torch.zeros(1, 3)\n",
    "not_a_number": (
        "import torch\ndef build():\n    net = torch.nn.Linear(3, 4)\n    net.weight.data[0, 0] = float('nan')\n"
        "    return net, torch.zeros(1, 3)\n"
    ),
    "leaves": "import sys\nsys.exit(0)\n",
    "not_utf8": b"# \xff\xfe\ndef build(): pass\n",
    "binary": GARBAGE,
    "empty": "",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(*arguments: str) -> str:
    """Run a command that must be refused and return its one sentence."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, ""), err
    assert re.fullmatch(r"aiq: [^\n]+\n", err), err
    assert "Traceback" not in err
    assert "Next: " in err
    echoed = re.sub(r"(\w)\1{50,}", "", err)
    assert len(echoed) < 700, f"{len(echoed)} characters are no sentence"
    return err.removeprefix("aiq: ").removesuffix("\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ("roofline", "resnet20", "--hardware", "h10"),
            "unknown hardware 'h10': did you mean 'h100' or 'v100' or 'h200'? "
            "Next: run 'aiq specs list', or give a path to a .toml file.",
        ),
        (
            (*ROOFLINE, "--scheme", "w8,conv11=keep"),
            "unknown layer 'conv11': did you mean 'conv1' or 'layer3.0.conv1' or 'layer2.0.conv1'? "
            "Next: run 'aiq graph MODEL' for the names.",
        ),
        (
            (*ROOFLINE, "--scheme", "w8,="),
            "scheme 'w8,=': '=' is not LAYER=PRECISION. Next: write for instance w4,conv1=keep.",
        ),
        ((*ROOFLINE, "--batch", "0"), "batch must be a whole number of at least 1, got 0. Next: choose one."),
        ((*ROOFLINE, "--batch", "-3"), "batch must be a whole number of at least 1, got -3. Next: choose one."),
        ((*PLAN, "--batch", "0"), "batch must be a whole number of at least 1, got 0. Next: choose one."),
        (
            (*ROOFLINE, "--traffic", "fusd"),
            "unknown traffic model 'fusd': known: paper, unfused, fused. Next: choose one.",
        ),
        ((*PLAN, "--traffic", "x"), "unknown traffic model 'x': known: paper, unfused, fused. Next: choose one."),
        ((*ROOFLINE, "--rates", "peak"), "unknown rates 'peak': known: datasheet, sustained. Next: choose one."),
        *(
            ((*command, "--format", "xml"), "unknown format 'xml': known: table, json, csv, md. Next: choose one.")
            for command in (("graph", "digits_cnn"), ROOFLINE, PLAN, ("specs", "list"), ("specs", "show", "t4"))
        ),
        ((*PLAN, "--target", "speed"), "unknown target 'speed': known: ai, latency, memory. Next: choose one."),
        (
            (*PLAN, "--normalise", "max"),
            "unknown normalisation 'max': known: raw, relative, minmax. Next: choose one.",
        ),
        *(
            (
                (*PLAN, "--lambda", lam),
                f"lambda must lie in [0, 1], got {lam}. Next: 0 weighs only accuracy, 1 only the gain.",
            )
            for lam in ("-0.1", "1.1", "nan", "inf", "-inf")
        ),
        ((*PLAN, "--samples", "0"), "samples must be a whole number from 1 to 1e12, got 0. Next: choose one."),
        (
            (*PLAN, "--proxy", "sqnr"),
            "unknown accuracy proxy 'sqnr': did you mean 'weight-sqnr'? "
            "Next: name one of these, or install its package.",
        ),
        (
            (*PLAN, "--proxy", "table"),
            "the proxy table needs a file. Next: write table:losses.json or table:losses.csv.",
        ),
        (
            (*PLAN, "--formats", "keep"),
            "the formats leave nothing to choose between: only 'keep' is given. Next: add one, for instance w8.",
        ),
        (
            (*PLAN, "--formats", "fp64"),
            "t4 states no fp64 ceiling and none that could stand in (no wider format): it has fp32, fp16, int8, int4. "
            "Next: choose one of these formats, or add [compute.fp64] with its source.",
        ),
        (
            ("graph", "digits_cnn", "--input", "1,1,8"),
            "digits_cnn raised in forward for input 1x1x8: ValueError: expected 4D input (got 3D input). "
            "Next: check the input shape (--input), or run the model by itself.",
        ),
        (
            ("specs", "show", "h10"),
            "unknown hardware 'h10': did you mean 'h100' or 'v100' or 'h200'? "
            "Next: run 'aiq specs list', or give a path to a .toml file.",
        ),
    ],
)
def test_the_whole_sentence(arguments: tuple[str, ...], text: str) -> None:
    assert refusal(*arguments) == text


@pytest.mark.parametrize("command", ["graph", "roofline", "plan"])
def test_unknown_model(command: str) -> None:
    text = refusal(command, "resnt20")
    assert text.startswith("unknown model 'resnt20': did you mean 'resnet20'")
    # a person at the command line cannot call a Python function
    assert "aiq.zoo" not in text
    assert "FILE.py:CALLABLE" in text or ".py:" in text


@pytest.mark.parametrize("precision", ["w99", "int1", "fp7", "wrong", "w8a", "int8:q", "int8:g0", "int4:g2:c"])
def test_unknown_precision(precision: str) -> None:
    for arguments in ((*ROOFLINE, "--scheme", precision), (*PLAN, "--formats", f"w8,{precision}")):
        text = refusal(*arguments)
        assert "precision" in text
    assert repr(precision) in refusal(*ROOFLINE, "--scheme", f"w8,conv1={precision}")


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ("1,3,8,8", "to have 1 channels, but got 3 channels instead"),
        ("1,1,8,8:int64", "input 1x1x8x8: RuntimeError: expected scalar type Long but found Float"),
        ("1", "digits_cnn raised in forward for input 1: "),
        ("1,1,1,1,1", "digits_cnn raised in forward for input 1x1x1x1x1: "),
    ],
)
@pytest.mark.parametrize("command", ["graph", "roofline", "plan"])
def test_wrong_input_shape(command: str, shape: str, part: str) -> None:
    text = refusal(command, "digits_cnn", "--input", shape)
    assert part in text
    assert text.endswith("Next: check the input shape (--input), or run the model by itself.")


@pytest.mark.parametrize("text", ["", "a", "1x3x8x8", "1,1,8,8:f32", "1;3", "1,-1,8,8", "1,1,8,8:"])
def test_malformed_input(text: str) -> None:
    assert refusal("graph", "digits_cnn", "--input", text) == (
        f"input {text!r} is not [NAME=]DIMS[:DTYPE] with DTYPE one of float32, float16, bfloat16, int64, int32, bool. "
        "Next: write for instance --input 1,3,224,224 or --input ids=1,128:int64."
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("graph", "digits_cnn", "--input", "1," + "9" * 30),
        ("graph", "digits_cnn", "--input", "1," + LONG),
        ("graph", "digits_cnn", "--input", "99999,99999,99999,99999"),
        (*ROOFLINE, "--batch", "1" + "0" * 400),
        (*PLAN, "--batch", "1" + "0" * 400),
        (*ROOFLINE, "--scheme", f"w4:g{LONG}"),
        (*ROOFLINE, "--scheme", f"int{LONG}"),
        (*ROOFLINE, "--scheme", f"w{LONG}"),
        (*ROOFLINE, "--scheme", "w8,re:a{99999999999}=keep"),
        (*PLAN, "--samples", "1" + "0" * 400, "--probe", "0.01"),
    ],
)
def test_huge_numbers(arguments: tuple[str, ...]) -> None:
    refusal(*arguments)


def test_a_group_longer_than_any_row_is_no_failure() -> None:
    assert run(*PLAN, "--formats", "w4:g1000000000000").code in (0, 2)


@pytest.mark.parametrize("seconds", ["-1", "nan"])
def test_a_probe_of_no_length(seconds: str) -> None:
    assert "probe" in refusal("plan", "digits_cnn", "--probe", seconds)


@pytest.mark.parametrize("value", ["", " ", ","])
def test_empty_formats(value: str) -> None:
    assert "formats" in refusal(*PLAN, "--formats", value)


@pytest.mark.parametrize(
    "arguments",
    [(*ROOFLINE, "--scheme", ""), (*ROOFLINE, "--plot", ""), (*PLAN, "--weights", ""), (*ROOFLINE, "--hardware", "")],
)
def test_an_empty_value_is_not_taken_for_no_value(arguments: tuple[str, ...]) -> None:
    refusal(*arguments)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ((*ROOFLINE, "--batch", "x"), "--batch"),
        ((*ROOFLINE, "--batch", "1.5"), "--batch"),
        ((*PLAN, "--lambda", "x"), "--lambda"),
        ((*PLAN, "--samples", "many"), "--samples"),
    ],
)
def test_a_word_for_a_number_is_a_usage_error(arguments: tuple[str, ...], option: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert f"Invalid value for '{option}'" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("figure.pdf", "known suffixes: .svg, .png"),
        ("figure", "known suffixes: .svg, .png"),
        ("missing/figure.svg", "No such file or directory"),
        ("folder.svg", "Is a directory"),
        ("x" * 300 + ".svg", "File name too long"),
    ],
)
def test_a_plot_that_cannot_be_written_is_refused_before_any_work(here: Path, name: str, reason: str) -> None:
    (here / "folder.svg").mkdir()
    # the model's name is wrong too: the figure is spoken of first
    text = refusal("roofline", "no_such_model", "--plot", name)
    assert text.startswith(f"cannot write {name!r}: {reason}")


def test_a_refused_run_leaves_no_figure(here: Path) -> None:
    refusal("roofline", "no_such_model", "--plot", "figure.svg")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("net", "text"),
    [
        (
            "syntax",
            "model 'net_syntax.py:build': importing 'net_syntax.py' failed: "
            "SyntaxError: invalid syntax (net_syntax.py, line 1). Next: import it by itself.",
        ),
        (
            "imports",
            "model 'net_imports.py:build': importing 'net_imports.py' failed: "
            "ModuleNotFoundError: No module named 'no_such_module'. Next: import it by itself.",
        ),
        (
            "raises",
            "model 'net_raises.py:build' raised while it was built: ValueError: boom. Next: call it by itself.",
        ),
        (
            "nothing",
            "model 'net_nothing.py:build' returned NoneType, not a torch.nn.Module. "
            "Next: return a module, or a pair of module and example input.",
        ),
        (
            "wants",
            "model 'net_wants.py:build' raised while it was built: TypeError: build() missing 1 required positional "
            "argument: 'width'. Next: call it by itself.",
        ),
        (
            "forward",
            "net_forward.py:build raised in forward for input 1x3: RuntimeError: bad forward. "
            "Next: check the input shape (--input), or run the model by itself.",
        ),
        (
            "no_input",
            "model 'net_no_input.py:build' states no example input. "
            "Next: give its shape, for instance --input 1,3,224,224.",
        ),
        (
            "no_tensor",
            "net_no_tensor.py:build: the example input holds no tensor. "
            "Next: pass a tensor, a tuple or a dict of tensors.",
        ),
    ],
)
@pytest.mark.parametrize("command", ["graph", "roofline", "plan"])
def test_model_files(here: Path, command: str, net: str, text: str) -> None:
    write(here / f"net_{net}.py", NETS[net])
    assert refusal(command, f"net_{net}.py:build") == text


@pytest.mark.parametrize("net", ["no_callable", "empty"])
def test_a_model_file_without_the_callable(here: Path, net: str) -> None:
    write(here / f"net_{net}.py", NETS[net])
    assert refusal("graph", f"net_{net}.py:build") == (
        f"unknown callable in net_{net}.py 'build': known: none. Next: name a function or class that takes no argument."
    )


@pytest.mark.parametrize("net", ["not_utf8", "binary", "leaves"])
def test_a_model_file_that_is_no_model(here: Path, net: str) -> None:
    write(here / f"net_{net}.py", NETS[net])
    assert refusal("graph", f"net_{net}.py:build").startswith(f"model 'net_{net}.py:build'")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("missing.py:build", "there is no file 'missing.py'"),
        ("folder:build", "folder"),
        ("./folder:build", "there is no file './folder'"),
        ("folder.py:build", "there is no file 'folder.py'"),
        ("two.py", "names a file but no callable. Next: write two.py:build"),
        ("no_such_package.inner:build", "No module named 'no_such_package'"),
        (":build", "build"),
        ("two.py:", "two.py"),
        ("two.py:biuld", "did you mean 'build'?"),
        ("notes.txt:build", "notes.txt"),
        ("..two:build", "..two"),
    ],
)
def test_a_model_that_cannot_be_found(here: Path, name: str, part: str) -> None:
    write(here / "two.py", TWO_LAYERS)
    (here / "folder").mkdir()
    (here / "folder.py").mkdir()
    write(here / "notes.txt", "hello")
    assert part in refusal("graph", name)


def test_a_model_without_weights_has_nothing_to_plan(here: Path) -> None:
    write(here / "net_no_weights.py", NETS["no_weights"])
    assert refusal("plan", "net_no_weights.py:build") == (
        "net_no_weights.py:build has no layer with weights: there is nothing to choose. Next: check the model."
    )
    assert run("roofline", "net_no_weights.py:build").code == 0


@pytest.mark.parametrize("more", [(), ("--batch", "4")])
@pytest.mark.parametrize("command", ["roofline", "plan"])
def test_an_example_of_batch_zero(here: Path, command: str, more: tuple[str, ...]) -> None:
    write(here / "net_batch_zero.py", NETS["batch_zero"])
    assert "batch" in refusal(command, "net_batch_zero.py:build", *more)


@pytest.mark.parametrize(
    ("net", "text"),
    [
        ("not_a_number", "weight 'weight' holds NaN or infinity. Next: check the checkpoint."),
        ("on_meta", "weight 'weight' is on meta: it has no values to measure. Next: build the model with its weights."),
    ],
)
def test_weights_that_cannot_be_measured(here: Path, net: str, text: str) -> None:
    write(here / f"net_{net}.py", NETS[net])
    assert refusal("plan", f"net_{net}.py:build", "--probe", "0") == text
    assert run("roofline", f"net_{net}.py:build").code == 0


def test_weights_of_another_model() -> None:
    path = zoo.weights_path("digits_cnn")
    text = refusal("plan", "resnet20", "--weights", str(path))
    assert text.startswith(f"weights {str(path)!r} do not fit ")
    assert "layer1.1.conv1.weight" in text


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("missing.safetensors", None, "no such file"),
        ("empty.safetensors", b"", "header"),
        ("garbage.safetensors", GARBAGE, "header"),
        ("text.safetensors", b"hello world, this is no checkpoint", "header"),
    ],
)
def test_weights_that_cannot_be_read(here: Path, name: str, content: bytes | None, part: str) -> None:
    if content is not None:
        write(here / name, content)
    text = refusal(*PLAN, "--weights", name)
    assert text.startswith(f"weights {name!r}: ")
    assert part in text


def test_a_folder_for_weights(here: Path) -> None:
    (here / "folder.safetensors").mkdir()
    assert "directory" in refusal(*PLAN, "--weights", "folder.safetensors").lower()


def test_nan_in_a_checkpoint(here: Path) -> None:
    state = zoo.build("digits_cnn").state_dict()
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file({k: v for k, v in state.items() if torch.is_tensor(v)}, here / "nan.safetensors")
    assert refusal(*PLAN, "--weights", "nan.safetensors") == (
        "weight 'conv1.weight' holds NaN or infinity. Next: check the checkpoint."
    )


def test_a_missing_ceiling(here: Path) -> None:
    bf16_only = re.sub(r"\[compute\.int8\][^\[]*", "", TOY_MACHINE).replace("compute.fp32", "compute.bf16")
    write(here / "bf16.toml", bf16_only)
    assert refusal(*ROOFLINE, "--hardware", "bf16.toml", "--scheme", "fp32") == (
        "toy states no fp32 ceiling and none that could stand in (no wider format): it has bf16. "
        "Next: choose one of these formats, or add [compute.fp32] with its source."
    )
    assert run(*ROOFLINE, "--hardware", "bf16.toml", "--scheme", "bf16,*shortcut*=bf16").code == 0


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a = = 3", ("malformed TOML", "line 1, column 5")),
        ("", ("name: Field required", "memory: Field required")),
        (GARBAGE, ("not UTF-8",)),
        (TOY_MACHINE.replace("vendor", "vendr"), ("vendor: Field required", "vendr")),
        ('colour = "red"\n' + TOY_MACHINE, ("colour",)),
        (TOY_MACHINE.replace("value = 1e9", "value = -1"), ("compute.fp32.value", "greater than 0")),
        (TOY_MACHINE.replace("value = 1e9", "value = 0"), ("compute.fp32.value", "greater than 0")),
        (TOY_MACHINE.replace("value = 1e9", "value = 1e999"), ("compute.fp32.value", "finite")),
        (TOY_MACHINE.replace("value = 1e9", "value = nan"), ("compute.fp32.value",)),
        (TOY_MACHINE.replace("value = 1e9", 'value = "fast"'), ("compute.fp32.value",)),
        (TOY_MACHINE.replace("compute.fp32", "compute.fp33"), ("compute.fp33", "fp32")),
        (TOY_MACHINE.split("[[memory]]", maxsplit=1)[0], ("memory: Field required",)),
        (TOY_MACHINE.replace("value = 1e9", f"value = {LONG}"), ()),
        (f"a = {DEEP}", ()),
    ],
)
@pytest.mark.parametrize("command", [(*ROOFLINE, "--hardware"), ("specs", "check"), ("specs", "show")])
def test_machine_files(here: Path, command: tuple[str, ...], text: str | bytes, parts: tuple[str, ...]) -> None:
    write(here / "machine.toml", text)
    message = refusal(*command, "machine.toml")
    for part in ("machine.toml", *parts):
        assert part in message


@pytest.mark.parametrize("command", [(*ROOFLINE, "--hardware"), (*PLAN, "--hardware"), ("specs", "check")])
def test_a_machine_file_that_cannot_be_read(here: Path, command: tuple[str, ...]) -> None:
    (here / "folder.toml").mkdir()
    for name, reason in (("missing.toml", "No such file or directory"), ("folder.toml", "Is a directory")):
        assert refusal(*command, name) == f"cannot read hardware file {name!r}: {reason}. Next: check the path."


def test_an_unknown_key_of_a_machine_names_the_near_one(here: Path) -> None:
    write(here / "machine.toml", TOY_MACHINE.replace("vendor", "vendr"))
    assert "'vendor'" in refusal("specs", "check", "machine.toml")


def test_rates_that_nobody_measured(here: Path) -> None:
    write(here / "toy.toml", TOY_MACHINE)
    assert refusal(*ROOFLINE, "--hardware", "toy.toml", "--rates", "sustained") == (
        "toy has no measured sustained rate. Next: leave --rates at datasheet."
    )


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("a.toml", "default = ", ("malformed TOML", "end of document")),
        ("b.json", "{", ("malformed JSON",)),
        ("c.json", "", ("malformed JSON",)),
        ("d.toml", GARBAGE, ()),
        ("e.json", GARBAGE, ()),
        ("f.json", "[]", ("holds no table",)),
        ("g.toml", 'defualt = "w8"', ("unknown key 'defualt': known: version, default, rules",)),
        ("h.toml", "default = 8", ("default: precision 8 is no text",)),
        ("i.toml", 'default = "w99"', ("default", "unknown precision")),
        ("j.toml", "version = 2", ("version 2, known: 1",)),
        ("k.toml", "rules = 3", ("rules must be a list of tables",)),
        ("l.toml", '[[rules]]\nlayer = "conv1"\nprecision = "w8"', ("rules[0]", "layers and precision")),
        ("m.toml", '[[rules]]\nlayers = "re:("\nprecision = "w8"', ("is no regular expression",)),
        ("n.json", DEEP, ()),
        ("o.toml", f"a = {DEEP}", ()),
        ("p.json", f'{{"version": {LONG}}}', ()),
        ("q.toml", '[[rules]]\nlayers = "re:a{99999999999}"\nprecision = "w8"', ("is no regular expression",)),
        ("r.toml", f'default = "w4:g{LONG}"', ()),
    ],
)
def test_scheme_files(here: Path, name: str, text: str | bytes, parts: tuple[str, ...]) -> None:
    write(here / name, text)
    message = refusal(*ROOFLINE, "--scheme", name)
    for part in (name, *parts):
        assert part in message


def test_a_scheme_file_that_speaks_of_an_unknown_layer(here: Path) -> None:
    write(here / "s.json", json.dumps({"default": "w8", "rules": [{"layers": "convl", "precision": "keep"}]}))
    assert refusal(*ROOFLINE, "--scheme", "s.json").startswith("unknown layer 'convl': did you mean 'conv1'")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.toml", "No such file or directory"),
        ("folder.json", "Is a directory"),
        ("./schemes/mine", "No such file or directory"),  # a slash makes it a path
    ],
)
def test_a_scheme_file_that_cannot_be_read(here: Path, name: str, reason: str) -> None:
    (here / "folder.json").mkdir()
    assert refusal(*ROOFLINE, "--scheme", name) == f"cannot read scheme file {name!r}: {reason}. Next: check the path."


def test_an_unknown_layer_lists_no_empty_name() -> None:
    text = refusal(*ROOFLINE, "--scheme", "w8,zzzzzz=keep")
    assert text.startswith("unknown layer 'zzzzzz': known: ")
    assert "known: ," not in text


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("a.json", "", "not a loss table"),
        ("b.json", GARBAGE, "not a loss table"),
        ("c.csv", GARBAGE, "not a loss table"),
        ("d.json", '{"losses": {"conv1": {"w8": 1}}}', "no loss for layer 'layer1.0.conv1' as "),
        ("e.csv", "layer,format,loss\nconv1,w8,1\n", "no loss for layer 'layer1.0.conv1' as "),
        ("f.json", '{"losses": {"conv11": {"w8": 1}}}', "'conv11': did you mean 'conv1'"),
        ("g.json", '{"losses": {"conv1": {"w8": NaN}}}', "the loss of 'conv1' as w8 is nan"),
        ("h.json", '{"losses": {"conv1": {"w8": ' + "9" * 400 + "}}}", "h.json"),
        ("i.json", DEEP, "i.json"),
        ("j.csv", "layer,format,loss\nconv1,w8," + "1" * 200_000, "j.csv"),
    ],
)
def test_loss_tables(here: Path, name: str, text: str | bytes, part: str) -> None:
    write(here / name, text)
    message = refusal(*PLAN, "--formats", "w8", "--proxy", f"table:{name}")
    assert name in message
    assert part in message


def test_a_missing_loss_is_named_as_the_user_writes_it(here: Path) -> None:
    write(here / "d.json", '{"losses": {"conv1": {"w8": 1}}}')
    assert " as w8." in refusal(*PLAN, "--formats", "w8", "--proxy", "table:d.json")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["specs", "show", "h10"], "did you mean 'h100'"),
        (["roofline", "resnt20"], "did you mean 'resnet20'"),
        (["roofline", "resnet20", "--plot", "x.pdf"], "known suffixes"),
        (["specs", "check", "missing.toml"], "No such file or directory"),
        (["specs", "list", "--format", "yaml"], "known: table, json, csv, md"),
    ],
)
def test_in_a_process_of_its_own(arguments: list[str], part: str) -> None:
    done = subprocess_run(arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"aiq: [^\n]+\n", done.stderr)
    assert part in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="file names are bytes on POSIX only")
def test_a_name_that_is_not_utf8() -> None:
    command = [sys.executable, "-c", "import cli; cli.main()", "specs", "show", b"\xff\xfe"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"aiq: unknown hardware ")
    assert b"Traceback" not in done.stderr


def test_a_model_file_called_like_the_tools_own_packages(here: Path) -> None:
    write(here / "roofline.py", TWO_LAYERS)
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.append({str(ROOT)!r}); import cli; cli.main()"]
    done = subprocess.run(
        [*command, "roofline", "./roofline.py:build", "--format", "csv"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_catalogue_has_the_machines_that_these_tests_name() -> None:
    assert {"h100", "t4"} <= set(hardware_specs.names())
