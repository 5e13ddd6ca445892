"""Running the command in this process or another, and what its runs are given: a toy machine, a two-layer model."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import cli

ROOT = Path(__file__).resolve().parent.parent
FORMATS = ("table", "json", "csv", "md")

TOY_MACHINE = """
name = "toy"
title = "Toy machine"
vendor = "nobody"
kind = "cpu"
architecture = "toy"

[compute.fp32]
value = 1e9
kind = "datasheet"
source = "made up for a test"

[compute.int8]
value = 4e9
kind = "datasheet"
source = "made up for a test"

[[memory]]
name = "dram"

[memory.bandwidth_bytes_per_s]
value = 1e8
kind = "datasheet"
source = "made up for a test"
"""

TWO_LAYERS = """
import torch

def build():
    layers = torch.nn.Linear(100, 200), torch.nn.ReLU(), torch.nn.Linear(200, 10)
    return torch.nn.Sequential(*layers), torch.zeros(1, 100)
"""


class Ran(NamedTuple):
    """Exit code and streams of one run of the command."""

    code: int
    out: str
    err: str


def run(*arguments: str) -> Ran:
    """Run the command in this process; an exception other than ``SystemExit`` is a traceback and passes through."""
    with (
        patch.object(sys, "argv", ["aiq", *arguments]),
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
    ):
        code: Any = 0
        try:
            cli.main()
        except SystemExit as leaving:
            code = leaving.code or 0
    return Ran(code, out.getvalue(), err.getvalue())


def subprocess_run(arguments: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    code = "import cli; cli.main()"
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True, check=False
    )
