"""The rooms and the arrows between them, what an import may load, and what the wheel holds."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("hardware_specs", "roofline", "aiq", "oracles", "cli")
MAY_IMPORT = {
    "hardware_specs": {"hardware_specs"},
    "roofline": {"roofline", "hardware_specs"},
    "aiq": {"aiq", "roofline", "hardware_specs"},
    "oracles": {"oracles", "aiq", "roofline", "hardware_specs"},
    "cli": {"cli", "aiq", "roofline", "hardware_specs"},
}
THIRD_PARTY = {"hardware_specs": {"pydantic"}, "roofline": {"numpy", "networkx"}}
FRAMEWORKS = {"torch", "onnx", "transformers"}
HEAVY = ("torch", "matplotlib", "scipy.optimize")
LONGEST_FILE = 450


class Import(NamedTuple):
    module: str
    line: int
    lazy: bool


def sources(root: Path) -> Iterator[tuple[str, Path]]:
    for room in ROOMS:
        found = [root / "cli.py"] if room == "cli" else sorted((root / room).rglob("*.py"))
        yield from ((room, path) for path in found if path.exists())


def imports(path: Path) -> Iterator[Import]:
    """Yield what a file imports by absolute name, ``import_module("...")`` included; relative ones stay in the room."""
    tree = ast.parse(path.read_text("utf-8"))
    lazy = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(outer, ast.If) and ast.unparse(outer.test).endswith("TYPE_CHECKING"))
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        inside = id(node) in lazy
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield Import(node.module, node.lineno, inside)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield Import(node.args[0].value, node.lineno, True)


def allowed(room: str, path: Path, found: Import) -> bool:
    top = found.module.partition(".")[0]
    if top in ROOMS:
        return top in MAY_IMPORT[room]
    if top in sys.stdlib_module_names or room not in THIRD_PARTY or top in THIRD_PARTY[room]:
        return True
    if room == "roofline" and top in FRAMEWORKS:
        return "frontends" in path.parts
    if room == "roofline" and top == "matplotlib":
        return path.stem.lstrip("_").startswith("plot") and found.lazy
    return False


def forbidden_arrows(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}:{found.line} imports {found.module}"
        for room, path in sources(root)
        for found in imports(path)
        if not allowed(room, path, found)
    ]


def test_arrows() -> None:
    assert {room for room, _ in sources(ROOT)} == set(ROOMS)
    assert forbidden_arrows(ROOT) == []


@pytest.mark.parametrize(
    ("path", "text", "bad"),
    [
        ("hardware_specs/a.py", "import roofline", True),
        ("hardware_specs/a.py", "import numpy as np", True),
        ("hardware_specs/a.py", "from pydantic import BaseModel\nimport tomllib", False),
        ("roofline/a.py", "from aiq import zoo", True),
        ("roofline/a.py", "import os, torch", True),
        ("roofline/a.py", "def f():\n    import torch", True),
        ("roofline/a.py", "import scipy.optimize", True),
        ("roofline/a.py", "from roofline.frontends._trace import trace\nimport numpy, networkx", False),
        ("roofline/frontends/a.py", "import torch.nn as nn\nfrom transformers import AutoConfig\nimport onnx", False),
        ("roofline/frontends/a.py", "import matplotlib", True),
        ("roofline/plot.py", "import matplotlib.pyplot as plt", True),
        ("roofline/plot.py", "def f():\n    import matplotlib.pyplot as plt", False),
        ("roofline/plot.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import matplotlib", False),
        ("roofline/_plot_axes.py", "def f():\n    from matplotlib.axes import Axes", False),
        ("roofline/table.py", "def f():\n    import matplotlib", True),
        ("aiq/a.py", "from oracles.table import LossTable", True),
        ("aiq/a.py", "if True:\n    import cli", True),
        ("aiq/a.py", "import importlib\nimportlib.import_module('oracles.table')", True),
        ("aiq/deep/a.py", "def f():\n    from oracles import table", True),
        ("aiq/a.py", "import torch, roofline\nfrom hardware_specs import load\nfrom . import zoo", False),
        ("oracles/a.py", "import aiq, roofline, hardware_specs, torch", False),
        ("oracles/a.py", "from cli import main", True),
        ("cli.py", "import aiq, roofline, hardware_specs, typer", False),
        ("cli.py", "def f():\n    import oracles", True),
    ],
)
def test_the_arrow_test_can_fail(tmp_path: Path, path: str, text: str, bad: bool) -> None:
    planted = tmp_path / path
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(text)
    assert bool(forbidden_arrows(tmp_path)) is bad


def heavy_modules_after(code: str) -> set[str]:
    """Run ``code`` in a fresh interpreter; return which of the heavy modules it has loaded."""
    report = f"import sys; print('LOADED', *[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    script = f"import atexit\natexit.register(lambda: exec({report!r}, {{}}))\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stderr.splitlines() if line.startswith("LOADED"))
    return set(line.split()[1:])


HELP = "import sys; sys.argv = ['aiq', '--help']; from cli import main; main()"


@pytest.mark.parametrize(
    "code",
    ["import roofline, aiq, hardware_specs", "import hardware_specs; hardware_specs.load('t4')", HELP],
    ids=["import", "catalogue", "help"],
)
def test_imports_are_light(code: str) -> None:
    assert heavy_modules_after(code) == set()


@pytest.mark.parametrize(
    ("code", "loaded"),
    [("import roofline; roofline.trace", "torch"), ("import matplotlib", "matplotlib"), ("import json", None)],
)
def test_the_import_test_can_fail(code: str, loaded: str | None) -> None:
    found = heavy_modules_after(code)
    assert (loaded in found) if loaded else not found


def lengths(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): len(path.read_text("utf-8").splitlines()) for _, path in sources(root)}


def test_files_are_short() -> None:
    assert {path: n for path, n in lengths(ROOT).items() if n >= LONGEST_FILE} == {}


def undocumented(path: Path) -> list[str]:
    """Return public modules, classes, functions and methods of a file that have no docstring."""
    tree = ast.parse(path.read_text("utf-8"))
    found = [] if ast.get_docstring(tree) else [path.name]

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                overload = any(getattr(d, "id", "") == "overload" for d in child.decorator_list)
                if not child.name.startswith("_"):
                    if not ast.get_docstring(child) and not overload:
                        found.append(f"{path.name}: {prefix}{child.name}")
                    if isinstance(child, ast.ClassDef):
                        visit(child, f"{prefix}{child.name}.")

    visit(tree, "")
    return found


def test_public_functions_have_docstrings() -> None:
    assert [name for _, path in sources(ROOT) for name in undocumented(path)] == []


def test_the_docstring_test_can_fail(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text('"""Doc."""\ndef f(): pass\ndef _g(): pass\nclass C:\n    """Doc."""\n    def m(self): pass\n')
    assert undocumented(path) == ["a.py: f", "a.py: C.m"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    from hatchling.builders.wheel import WheelBuilder

    target = tmp_path_factory.mktemp("wheel")
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(target), versions=["standard"])
    return zipfile.ZipFile(built)


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_wheel_top_level_names(wheel: zipfile.ZipFile) -> None:
    metadata = f"{str(project()['name']).replace('-', '_')}-{project()['version']}.dist-info"
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"aiq", "cli.py", "hardware_specs", "oracles", "roofline", metadata}


@pytest.mark.parametrize("pattern", ["hardware_specs/catalog/*.toml", "aiq/zoo/weights/*.safetensors", "*/py.typed"])
def test_wheel_holds_the_data(wheel: zipfile.ZipFile, pattern: str) -> None:
    expected = {str(p.relative_to(ROOT)) for room in ROOMS[:-1] for p in (ROOT / room).rglob("*") if p.is_file()}
    here = {path for path in expected if Path(path).match(pattern)}
    assert len(here) >= (4 if "py.typed" in pattern else 1)
    assert here <= set(wheel.namelist())


def test_wheel_holds_every_module_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {str(path.relative_to(ROOT)) for _, path in sources(ROOT)} == {n for n in packed if n.endswith(".py")}
    assert not [name for name in packed if "__pycache__" in name or name.endswith((".pyc", ".db", ".sqlite"))]


def test_wheel_entry_points(wheel: zipfile.ZipFile) -> None:
    name = next(n for n in wheel.namelist() if n.endswith("entry_points.txt"))
    found = configparser.ConfigParser(delimiters=("=",))
    found.read_string(wheel.read(name).decode())
    declared = project()
    assert {"aiq.oracles", "aiq.strategies"} < set(found.sections())
    assert {g: dict(found[g]) for g in found.sections()} == {
        "console_scripts": declared["scripts"],
        **declared["entry-points"],
    }
    for group in found.sections():
        for key, value in found[group].items():
            assert f"{value.partition(':')[0].replace('.', '/')}.py" in wheel.namelist()
            assert callable(EntryPoint(key, value, group).load())
