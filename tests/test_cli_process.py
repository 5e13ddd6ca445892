"""The command as a program: version, help, usage, what it imports, and streams that fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT, run, subprocess_run


def test_version() -> None:
    from importlib.metadata import version

    assert run("--version") == (0, f"aiq {version('aiq-roofline')}\n", "")


@pytest.mark.parametrize(
    "command",
    [(), ("graph",), ("roofline",), ("plan",), ("specs",), ("specs", "list"), ("specs", "show"), ("specs", "check")],
)
def test_help(command: tuple[str, ...]) -> None:
    code, out, err = run(*command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: aiq {' '.join(command)}".rstrip())
    assert "\x1b" not in out


@pytest.mark.parametrize("command", [(), ("specs",)])
def test_without_arguments_the_help_is_shown(command: tuple[str, ...]) -> None:
    code, out, err = run(*command)
    assert code == 2
    assert "Usage: aiq" in out + err


@pytest.mark.parametrize("arguments", [("nope",), ("graph",), ("graph", "resnet20", "--nope"), ("graph", "a", "b")])
def test_usage_errors(arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: aiq")


_LOADED = """
import sys, cli
try:
    cli.main()
finally:
    print(*sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def loading(arguments: list[str], before: str = "") -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run the command in another process; return it and the packages that it loaded, the last line of its stderr."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", before + _LOADED, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "cli" in loaded
    return done, loaded


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "--help"], ["--version"], ["specs", "list"]])
def test_light_commands_load_nothing_heavy(arguments: list[str]) -> None:
    done, loaded = loading(arguments)
    assert done.returncode == 0
    assert not loaded & {"torch", "matplotlib", "scipy", "pandas", "sklearn"}


def test_a_scheme_is_refused_before_anything_heavy_loads() -> None:
    done, loaded = loading(["roofline", "digits_cnn", "--scheme", "w8@foo"])
    assert done.returncode == 2
    assert done.stderr.startswith("aiq: scheme 'w8@foo': recipe 'foo': unknown word 'foo': known: nearest, gptq, ")
    assert not loaded & {"torch", "matplotlib", "scipy"}


def test_the_light_check_can_fail() -> None:
    assert "scipy" in loading(["--help"], before="import scipy\n")[1]


def test_the_installed_command(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("aiq")
    if not command.exists():
        pytest.skip("the package is not installed in this environment")
    done = subprocess.run(
        [command, "specs", "check", "h100"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "h100: no findings\n", "")


def test_a_closed_pipe_is_no_traceback() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", "import cli; cli.main()", "specs", "list", "--format", "json"]
    done = subprocess.run(command, env=env, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.stderr == ""


def test_a_stream_that_is_not_utf8_is_no_traceback() -> None:
    done = subprocess_run(["specs", "list"], PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
