"""Files people get wrong: models, weights, machines, schemes and loss tables, each refused in one sentence."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aiq import zoo
from tests.commands import ROOT, TOY_MACHINE, TWO_LAYERS, run
from tests.refusals import DEEP, GARBAGE, LONG, PLAN, ROOFLINE, refusal, write

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
        ("s.toml", 'default = "w4@foo"', ("recipe 'foo': unknown word 'foo': known: nearest, gptq, max",)),
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


def test_a_model_file_called_like_the_tools_own_packages(here: Path) -> None:
    write(here / "roofline.py", TWO_LAYERS)
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.append({str(ROOT)!r}); import cli; cli.main()"]
    done = subprocess.run(
        [*command, "roofline", "./roofline.py:build", "--format", "csv"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
