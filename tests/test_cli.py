"""The command line: formats, streams, exit codes, names, and numbers that agree between formats."""

from __future__ import annotations

import csv
import io
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import hardware_specs
from roofline.errors import AIQError
from tests.commands import FORMATS, TOY_MACHINE, TWO_LAYERS, run

MODELS = ("digits_cnn", "resnet20")
COMMANDS = ("graph", "roofline", "plan")


@cache
def shown(command: str, model: str, fmt: str, *more: str) -> str:
    """Return what a successful run writes to stdout; nothing may be on stderr."""
    extra = ("--probe", "0") if command == "plan" else ()
    code, out, err = run(command, model, "--format", fmt, *extra, *more)
    assert (code, err) == (0, "")
    return out


def data(command: str, model: str, *more: str) -> dict[str, Any]:
    found = json.loads(shown(command, model, "json", *more), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert isinstance(found, dict)
    return found


def rows(command: str, model: str, *more: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(shown(command, model, "csv", *more))))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("fmt", FORMATS)
def test_every_command_in_every_format(command: str, model: str, fmt: str) -> None:
    out = shown(command, model, fmt)
    assert out.endswith("\n")
    assert not out.endswith("\n\n")
    assert "\x1b" not in out
    assert not re.search(r"[ \t]+$", out, re.MULTILINE)
    if fmt in ("table", "md"):
        assert out.startswith(f"{model},") or out.startswith(f"{model}:")
        assert "…" not in out
        assert "1 MAC = 2 FLOP" in out
    if fmt == "json":
        assert data(command, model)["schema_version"] == 1
        assert data(command, model)["model"] == model


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("model", MODELS)
def test_a_table_has_a_line_for_each_row(command: str, model: str) -> None:
    found = rows(command, model)
    lines = shown(command, model, "table").splitlines()
    rule = next(i for i, line in enumerate(lines) if set(line) == {"─"})
    body = lines[rule + 1 : rule + 1 + len(found)]
    for line, row in zip(body, found, strict=True):
        assert row["name"] in line.split()
    assert lines[rule + 1 + len(found)] == "" if len(lines) > rule + 1 + len(found) else True


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("model", MODELS)
def test_markdown_is_well_formed(command: str, model: str) -> None:
    table = [line for line in shown(command, model, "md").splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(rows(command, model))
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert re.fullmatch(r"\|(-{3,}:?\|)+", table[1])


def test_roofline_json_schema() -> None:
    found = data("roofline", "resnet20")
    assert set(found) >= {
        *("schema_version", "model", "hardware", "scheme", "batch", "traffic", "flops", "macs", "bytes"),
        *("arithmetic_intensity", "latency_s", "throughput_per_s", "coverage", "unknown_ops", "layers"),
    }
    assert isinstance(found["coverage"], dict)
    assert found["unknown_ops"] == {}
    for layer in found["layers"]:
        assert set(layer) >= {
            *("name", "kind", "flops", "bytes", "arithmetic_intensity", "bound", "level", "latency_s", "share"),
            *("precision", "reason"),
        }
        assert layer["bound"] in {"compute", "memory", "overhead"}
        assert (layer["level"] is not None) == (layer["bound"] == "memory")
        assert all(type(layer[key]) is int for key in ("flops", "bytes"))
    assert len({layer["name"] for layer in found["layers"]}) == len(found["layers"])


@pytest.mark.parametrize(("scheme", "intensity"), [("fp32", 29.850), ("w8", 42.303), ("w4", 45.464)])
def test_the_papers_figures(scheme: str, intensity: float) -> None:
    found = data("roofline", "resnet20", "--scheme", scheme, "--traffic", "paper")
    assert found["flops"] == 81_626_368
    assert found["macs"] * 2 == 81_626_368
    assert found["arithmetic_intensity"] == pytest.approx(intensity, abs=5e-4)
    assert found["scheme"] == scheme


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("traffic", ["paper", "unfused", "fused"])
@pytest.mark.parametrize("scheme", ["fp32", "w8a8,conv1=w4"])
@pytest.mark.parametrize("hardware", ["t4", "xeon-emr-2vcpu"])
def test_rows_add_up_to_totals(model: str, traffic: str, scheme: str, hardware: str) -> None:
    more = ("--traffic", traffic, "--scheme", scheme, "--hardware", hardware)
    found, table = data("roofline", model, *more), rows("roofline", model, *more)
    for layers in (table, found["layers"] + (found["transitions"] if traffic == "unfused" else [])):
        for key in ("flops", "bytes", "latency_s"):
            total = sum(float(row.get(key) or 0) for row in layers)
            assert total == pytest.approx(found[key], rel=1e-12), key
    assert sum(float(row["share"]) for row in table) == pytest.approx(1)
    assert sum(found["latency_s_by_bound"].values()) == pytest.approx(found["latency_s"], rel=1e-12)
    assert found["flops"] / found["bytes"] == pytest.approx(found["arithmetic_intensity"], rel=1e-12)
    assert found["batch"] / found["latency_s"] == pytest.approx(found["throughput_per_s"], rel=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_graph_rows_add_up_to_totals(model: str) -> None:
    found, table = data("graph", model), rows("graph", model)
    for key in ("macs", "flops"):
        assert sum(int(row[key]) for row in table) == found[key] == sum(op[key] for op in found["ops"])
    assert sum(int(row["bytes"]) for row in table) == sum(op["bytes"] for op in found["ops"])


def test_batch_scales_and_sustained_is_slower() -> None:
    one, eight = data("roofline", "resnet20"), data("roofline", "resnet20", "--batch", "8")
    assert (eight["batch"], eight["flops"]) == (8, 8 * one["flops"])
    assert eight["throughput_per_s"] > one["throughput_per_s"]
    assert data("roofline", "resnet20", "--input", "8,3,32,32")["flops"] == eight["flops"]
    sustained = data("roofline", "resnet20", "--batch", "8", "--rates", "sustained")
    assert sustained["rates"] == "sustained"
    assert sustained["latency_s"] > eight["latency_s"]


# Layer 0: 20000 weights, 100 in, 200 out at one byte, 200 biases at two = 20700 B = 207 µs; 40000 / 4e9 + 200 / 1e9 s.
# Layer 2: 2000 weights at one byte, 10 biases, 200 in and 10 out in FP32 = 2880 B = 28.8 µs; 2·2000 FLOPs in FP32.
GOLDEN_HEADER = (
    "name   kind     precision    FLOPs     bytes   FLOP/B   ridge   bound    level   latency    share   "
    "headroom   computes in"
)
GOLDEN_ROWS = """\
0      linear   int8/int8   40.2 k   20.7 kB     1.94    40.0   memory   dram     207 µs   87.8 %      20.3x   int8
2      linear   int8/keep   4.00 k   2.88 kB     1.39    10.0   memory   dram    28.8 µs   12.2 %      7.20x   fp32
"""
GOLDEN_CSV = """\
name,kind,precision,flops,bytes,arithmetic_intensity,ridge,bound,level,latency_s,share,headroom,computes_in
0,linear,int8/int8,40200,20700,1.9420289855072463,40.0,memory,dram,0.000207,0.8778625954198473,20.294117647058822,int8
2,linear,int8/keep,4000,2880,1.3888888888888888,10.0,memory,dram,2.88e-05,0.12213740458015267,7.2,fp32
"""


def test_golden_output(here: Path) -> None:
    (here / "toy.toml").write_text(TOY_MACHINE)
    (here / "golden_net.py").write_text(TWO_LAYERS)
    arguments = ("roofline", "golden_net.py:build", "--hardware", "toy.toml", "--scheme", "w8a8,2=w8")
    out = run(*arguments).out
    headline, _, table = out.partition("\n\n")
    assert table.startswith(f"{GOLDEN_HEADER}\n{'─' * len(GOLDEN_HEADER)}\n{GOLDEN_ROWS}")
    for part in ("golden_net.py:build, w8a8,2=w8, batch 1, fused traffic on Toy machine", "1.874 FLOP/byte", "236 µs"):
        assert part in headline
    for part in ("4.24 ksamples/s", "44.2 kFLOP (1 MAC = 2 FLOP)", "23.6 kB moved", "bound by dram 100 %"):
        assert part in headline
    assert "- weights int8 are widened to fp32, the other operand's format: 2\n" in out
    assert "- time is a lower bound from datasheet peaks of Toy machine, not a measurement\n" in out
    assert "- no launch overhead is known for toy: taken as 0\n" in out
    assert run(*arguments, "--format", "csv").out == GOLDEN_CSV
    found = json.loads(run(*arguments, "--format", "json").out)
    assert (found["flops"], found["bytes"], found["latency_s"]) == (44200, 23580, pytest.approx(235.8e-6, rel=1e-12))


def test_one_of_something_is_singular(here: Path) -> None:
    (here / "toy.toml").write_text(TOY_MACHINE)
    (here / "singular_net.py").write_text(TWO_LAYERS)
    out = run("roofline", "singular_net.py:build", "--hardware", "toy.toml", "--scheme", "w8a8,2=w8").out
    assert "1 tensor changes format between layers" in out


@pytest.mark.parametrize(
    "form", ["plain_net.py:build", "./plain_net.py:build", "plain_net:build", "nested.inner:build"]
)
def test_module_forms(here: Path, form: str) -> None:
    (here / "nested").mkdir()
    for name in ("plain_net.py", "nested/__init__.py", "nested/inner.py"):
        (here / name).write_text(TWO_LAYERS)
    code, out, err = run("graph", form, "--format", "json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["model"], found["macs"]) == (form, 22_000)


INPUTS_NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(50, 8)
        self.mix = torch.nn.Linear(8, 8)
    def forward(self, ids, image, scale=None):
        out = self.mix(self.embed(ids)) + image
        return out if scale is None else out * scale

def build():
    return Net()
"""


@pytest.mark.parametrize(
    "inputs",
    [
        ("2,5:int64", "2,5,8"),
        ("ids=2,5:int64", "image=2,5,8"),
        ("image=2,5,8", "ids=2,5:int64"),
        ("ids=2,5:int64", "image=2,5,8", "scale=2,5,8"),
    ],
)
def test_several_inputs(here: Path, inputs: tuple[str, ...]) -> None:
    (here / "inputs_net.py").write_text(INPUTS_NET)
    options = [part for text in inputs for part in ("--input", text)]
    for command in COMMANDS:
        code, out, err = run(command, "inputs_net.py:build", *options, "--format", "json")
        assert (code, err) == (0, "")
        found = json.loads(out)
        if command == "graph":
            assert (found["batch"], found["macs"]) == (2, 2 * 5 * 8 * 8)
            assert {op["kind"] for op in found["ops"]} == {"embedding", "linear", "elementwise"}


def test_built_in_names_never_look_at_the_working_directory(here: Path) -> None:
    before = run("roofline", "resnet20", "--scheme", "w8", "--hardware", "h100", "--format", "json")
    for name in ("resnet20", "h100", "w8", "weight-sqnr"):
        (here / name).mkdir()
        (here / f"{name}.py").write_text("raise SystemExit(7)\n")
        (here / f"{name}.toml").write_text("= =")
    for name in ("torch.py", "numpy.py", "json.py", "aiq.py", "roofline.py"):
        (here / name).write_text("raise SystemExit(7)\n")
    assert run("roofline", "resnet20", "--scheme", "w8", "--hardware", "h100", "--format", "json") == before
    assert before.code == 0


def test_what_a_model_prints_does_not_mix_with_the_data(here: Path) -> None:
    noisy = TWO_LAYERS.replace("return", "print('building')\n    return") + "\nprint('importing')\n"
    (here / "noisy_net.py").write_text(noisy)
    code, out, err = run("graph", "noisy_net.py:build", "--format", "json")
    assert code == 0
    assert json.loads(out)["macs"] == 22_000
    assert "importing" in err


def test_plot_writes_the_figure_and_says_so_on_stderr(here: Path) -> None:
    code, out, err = run("roofline", "digits_cnn", "--plot", "figure.svg", "--format", "json")
    assert code == 0
    assert err == "figure: figure.svg\n"
    assert (here / "figure.svg").read_text().lstrip().startswith("<?xml")
    assert json.loads(out)["model"] == "digits_cnn"


def test_every_library_error_becomes_exit_code_two(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AIQError("something is wrong. Next: mend it.")

    monkeypatch.setattr(hardware_specs, "load", refuse)
    assert run("specs", "check", "t4") == (2, "", "aiq: something is wrong. Next: mend it.\n")


def test_a_table_in_a_terminal_of_80_columns_still_names_scheme_and_speed() -> None:
    from aiq import load_model, plan
    from aiq._views import plan_report
    from aiq.report import render

    result = plan(load_model("digits_cnn"), hardware_specs.load("t4"), probe_seconds=0)
    text = render(plan_report(result), "table", terminal_width=80)
    assert max(map(len, text.splitlines())) <= 80
    for candidate in result.candidates:
        assert any(candidate.name in line.split() and f"{candidate.speedup:.2f}x" in line for line in text.splitlines())
