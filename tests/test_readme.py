"""The README's examples print what the README says."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from pathlib import Path

import pytest

import cli
import hardware_specs
from tests.calibrated import CALIBRATED
from tests.commands import run
from tests.validating import deployment

README = Path(__file__).parents[1] / "README.md"


def blocks() -> list[tuple[str, str]]:
    """Return the fenced blocks of the README with their language."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", README.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def expected_after(start: str) -> str:
    found = blocks()
    index = next(i for i, (_, text) in enumerate(found) if start in text)
    return found[index + 1][1].rstrip("\n")


def python_example() -> str:
    return next(text for language, text in blocks() if language == "python")


def test_python_example_prints_what_follows_it() -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(python_example(), "README.md", "exec"), {})
    assert out.getvalue().rstrip("\n") == expected_after("import hardware_specs")


def test_plan_example_prints_what_follows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = next(text for _, text in blocks() if text.startswith("$ aiq")).removeprefix("$ ").strip()
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with contextlib.suppress(SystemExit):
        cli.main()
    assert capsys.readouterr().out.rstrip("\n") == expected_after("$ aiq plan")


def test_language_model_example_prints_what_follows_it() -> None:
    command = (
        next(text for _, text in blocks() if text.startswith("$ aiq roofline llama")).removeprefix("$ aiq").split()
    )
    ran = run(*command)
    assert ran.code == 0
    assert ran.out.rstrip("\n") == expected_after("$ aiq roofline llama")


def test_validate_example_is_accepted(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It plans the measurements on a machine that was made up; nothing is measured."""
    pytest.importorskip("openvino")
    monkeypatch.setattr("aiq._validate.Deployment", lambda _: deployment())
    (here / "machine.json").write_text(hardware_specs.to_json(CALIBRATED))
    command = next(text for _, text in blocks() if text.startswith("$ aiq validate")).removeprefix("$ aiq").split()
    code, out, err = run(*command, "--dry-run")
    assert (code, err) == (0, "")
    assert out.startswith("digits_cnn on openvino ")
    assert "30 schemes at batch 1 and 32, 15 samples of each" in out


def test_example_has_ten_lines() -> None:
    assert len(python_example().splitlines()) <= 10


def test_every_file_and_machine_it_names_exists() -> None:
    text = README.read_text("utf-8")
    linked = re.findall(r"\]\(([^)#]+)\)", text)
    assert linked
    for target in linked:
        assert (README.parent / target).exists(), target
