"""Runs that must be refused, and the hostile values that several of their tests share."""

from __future__ import annotations

import re
from pathlib import Path

from tests.commands import run

PLAN = ("plan", "digits_cnn", "--probe", "0")
ROOFLINE = ("roofline", "digits_cnn")
DEEP = "[" * 100_000
LONG = "9" * 5000
GARBAGE = bytes(range(128, 256))


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
