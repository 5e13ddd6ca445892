"""The specs commands: the catalogue listed, one machine shown, and findings with their exit code."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

import hardware_specs
from tests.commands import FORMATS, TOY_MACHINE, run


@pytest.mark.parametrize("fmt", FORMATS)
def test_specs_list(fmt: str) -> None:
    code, out, err = run("specs", "list", "--format", fmt)
    assert (code, err) == (0, "")
    machines = map(hardware_specs.load, hardware_specs.names())
    names = [m.name for m in sorted(machines, key=lambda m: (m.vendor.lower(), m.kind, m.name))]
    if fmt == "json":
        found = json.loads(out)
        assert found["schema_version"] == 1
        assert [machine["name"] for machine in found["machines"]] == names
    elif fmt == "csv":
        found = list(csv.DictReader(io.StringIO(out)))
        assert [row["name"] for row in found] == names
        assert [float(row["bandwidth_bytes_per_s"]) for row in found] == [
            hardware_specs.load(name).bandwidth() for name in names
        ]
    else:
        assert all(name in out for name in names)
        assert "…" not in out


@pytest.mark.parametrize("name", ["t4", "tesla-t4"])
def test_specs_show(name: str) -> None:
    spec = hardware_specs.load("t4")
    code, out, err = run("specs", "show", name)
    assert (code, err) == (0, "")
    assert out.startswith("t4: NVIDIA T4")
    for ceiling in spec.compute.values():
        assert ceiling.source in out
    found = json.loads(run("specs", "show", name, "--format", "json").out)
    assert found["schema_version"] == 1
    assert found["name"] == "t4"


def test_specs_show_csv_is_raw() -> None:
    spec = hardware_specs.load("t4")
    found = {
        row["field"]: row for row in csv.DictReader(io.StringIO(run("specs", "show", "t4", "--format", "csv").out))
    }
    assert float(found["compute.fp32"]["value"]) == spec.ceiling("fp32")
    assert float(found["memory.dram.bandwidth"]["value"]) == spec.bandwidth()
    assert found["compute.fp32"]["unit"] == "FLOP/s"


def test_specs_check_without_findings() -> None:
    assert run("specs", "check", "h100") == (0, "h100: no findings\n", "")


def test_specs_check_with_findings(here: Path) -> None:
    (here / "toy.toml").write_text(TOY_MACHINE)
    code, out, err = run("specs", "check", "toy.toml")
    assert code == 1
    findings = out.splitlines()
    assert all(re.fullmatch(r"[\w.]+: .+ \[[a-z-]+\]", line) for line in findings)
    assert err == f"toy: {len(findings)} findings\n"


def test_specs_check_of_the_whole_catalogue() -> None:
    assert run("specs", "check", "--all") == (0, f"{len(hardware_specs.names())} machines: no findings\n", "")


def test_specs_check_of_all_names_the_machines_with_findings(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "toy.toml").write_text(TOY_MACHINE)
    monkeypatch.setattr(hardware_specs, "names", lambda: ["t4", "./toy.toml"])
    code, out, err = run("specs", "check", "--all")
    assert (code, err) == (1, "1 of 2 machines have findings: ./toy.toml\n")
    assert all(re.fullmatch(r"\./toy\.toml: [\w.]+: .+ \[[a-z-]+\]", line) for line in out.splitlines())


@pytest.mark.parametrize(("arguments", "got"), [((), "neither"), (("t4", "--all"), "both")])
def test_specs_check_takes_a_file_or_all(arguments: tuple[str, ...], got: str) -> None:
    assert run("specs", "check", *arguments) == (
        2,
        "",
        f"aiq: specs check takes a file or --all, got {got}. Next: name one machine, or give --all alone.\n",
    )


def test_specs_show_prices_a_machine_that_has_one(here: Path) -> None:
    text = '[price_usd_per_hour]\nvalue = 0.5\nkind = "datasheet"\nsource = "made up for a test"\n'
    (here / "toy.toml").write_text(TOY_MACHINE + text)
    rows = csv.DictReader(io.StringIO(run("specs", "show", "toy.toml", "--format", "csv").out))
    found = {row["field"]: row for row in rows}
    assert (found["price"]["value"], found["price"]["unit"]) == ("0.5", "USD/h")
