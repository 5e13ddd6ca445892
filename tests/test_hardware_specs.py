"""The catalogue, its loader, and the texts of their errors."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from hardware_specs import (
    AIQError,
    HardwareSpec,
    MissingCeilingError,
    Quantity,
    SpecError,
    UnknownNameError,
    lint,
    load,
    names,
    parse,
    read,
)

CATALOG = files("hardware_specs").joinpath("catalog")
SOURCE = "vendor sheet, https://example.org/sheet.pdf, accessed 2026-11-21"
# A URL with the path inside the repository that it names; a path or a file's name anywhere else is on someone's disk.
PUBLIC_PLACE = re.compile(r"https?://[^\s,()]+(?: [\w.-]+(?:/[\w.-]+)+)?")
LOCAL_PATH = re.compile(
    r"(?<![\w/.])[~.]*/[A-Za-z]|[a-z_-]{3,}/|(?<![\w.])\.[a-z]|\w\.(?:md|toml|txt|ya?ml|json|csv|py)\b"
)

MINIMAL = f"""
name = "box"
title = "A box"
vendor = "Nobody"
kind = "gpu"
architecture = "unheard-of"

[compute.fp32]
value = 1.0e12
kind = "datasheet"
source = "{SOURCE}"

[compute.fp32.sustained]
value = 0.5e12
kind = "measured"
source = "{SOURCE}"

[compute.fp16]
value = 2.0e12
kind = "datasheet"
source = "{SOURCE}"

[[memory]]
name = "dram"

[memory.bandwidth_bytes_per_s]
value = 1.0e11
kind = "datasheet"
source = "{SOURCE}"

[memory.bandwidth_bytes_per_s.sustained]
value = 0.8e11
kind = "measured"
source = "{SOURCE}"
"""


def quantities(node: object) -> list[Quantity]:
    if isinstance(node, Quantity):
        return [node, *(q for value in dict(node).values() for q in quantities(value))]
    if isinstance(node, HardwareSpec) or hasattr(node, "model_fields_set"):
        return [q for _, value in node for q in quantities(value)]  # type: ignore[attr-defined]
    if isinstance(node, dict):
        return [q for value in node.values() for q in quantities(value)]
    if isinstance(node, tuple):
        return [q for value in node for q in quantities(value)]
    return []


@pytest.mark.parametrize("name", names())
def test_catalogue_file_lints_clean(name: str) -> None:
    assert [str(finding) for finding in lint(load(name))] == []


@pytest.mark.parametrize("name", names())
def test_catalogue_file_is_named_after_its_machine(name: str) -> None:
    assert tomllib.loads(CATALOG.joinpath(f"{name}.toml").read_text("utf-8"))["name"] == name


@pytest.mark.parametrize("name", names())
def test_every_number_has_a_public_source(name: str) -> None:
    found = quantities(load(name))
    assert len(found) >= 3
    for quantity in found:
        assert re.search(r"20\d\d-\d\d-\d\d", quantity.source), quantity.source
        assert not LOCAL_PATH.search(PUBLIC_PLACE.sub("", quantity.source)), quantity.source
        if quantity.kind == "derived":
            assert quantity.source.startswith("derived"), quantity.source


def test_every_toml_file_is_found() -> None:
    shipped = {entry.name.removesuffix(".toml") for entry in CATALOG.iterdir() if entry.name.endswith(".toml")}
    assert shipped == set(names())


def test_names_and_aliases_are_unique() -> None:
    every = [n for name in names() for n in (name, *load(name).aliases)]
    assert len(every) == len(set(every))
    assert sorted(every) == names(aliases=True)


@pytest.mark.parametrize(
    "name",
    [
        "t4",
        "v100",
        "a100-40",
        "a100-80",
        "l4",
        "h100",
        "h200",
        "rtx4090",
        "xeon-skylake-2vcpu",
        "xeon-cascadelake-2vcpu",
        "xeon-2vcpu",
        "xeon-icelake-2vcpu",
        "xeon-spr-2vcpu",
        "xeon-emr-2vcpu",
        "epyc-milan-2vcpu",
        "epyc-genoa-2vcpu",
        "graviton3-2vcpu",
        "a10g",
        "mi300x",
        "apple-m1",
        "jetson-orin-nano",
        "raspberry-pi-5",
    ],
)
def test_promised_names_load(name: str) -> None:
    assert name in names(aliases=True)
    assert load(name).compute["fp32"].value > 0


def test_an_alias_loads_the_machine_it_stands_for() -> None:
    assert load("xeon-2vcpu") is load("xeon-cascadelake-2vcpu")


@pytest.mark.parametrize(
    ("name", "fmt", "expected"),
    [
        ("t4", "fp32", 8.141e12),
        ("t4", "int8", 130e12),
        ("t4", "int4", 260e12),
        ("v100", "fp16", 125e12),
        ("a100-40", "int8", 623.7e12),
        ("a100-80", "tf32", 155.9e12),
        ("l4", "fp32", 30.29e12),
        ("h100", "bf16", 989.4e12),
        ("rtx4090", "int8", 660.6e12),
        ("xeon-2vcpu", "int8", 691.2e9),
        ("xeon-spr-2vcpu", "bf16", 2.765e12),
        ("graviton3-2vcpu", "fp32", 166.4e9),
        ("p4", "int8", 21.77e12),
        ("p100", "fp16", 19.05e12),
        ("a10", "int8", 250e12),
        ("a10g", "fp16", 70e12),
        ("a30", "bf16", 165.15e12),
        ("l40", "fp16", 181e12),
        ("l40s", "fp8", 733e12),
        ("h100-pcie", "bf16", 756.5e12),
        ("b200", "fp4", 9000e12),
        ("rtx3090", "int8", 284e12),
        ("rtx5090", "bf16", 209.5e12),
        ("jetson-agx-orin", "int8", 85.2e12),
        ("mi210", "int8", 181e12),
        ("mi250x", "fp16", 383e12),
        ("mi300x", "fp8", 2614.9e12),
        ("tpu-v5e", "int8", 393e12),
        ("tpu-v6e", "bf16", 918e12),
        ("apple-m2", "fp32", 3.58e12),
        ("raspberry-pi-5", "int8", 614.4e9),
        ("gaudi3", "bf16", 1835e12),
    ],
)
def test_pinned_ceilings(name: str, fmt: str, expected: float) -> None:
    assert load(name).ceiling(fmt) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("t4", 320e9),
        ("v100", 897e9),
        ("a100-40", 1555e9),
        ("a100-80", 2039e9),
        ("h100", 3350e9),
        ("h200", 4800e9),
        ("p4", 192.3e9),
        ("a100-80-pcie", 1935e9),
        ("b200", 8000e9),
        ("rtx5090", 1792e9),
        ("jetson-orin-nano", 68.22e9),
        ("mi300x", 5300e9),
        ("mi325x", 6000e9),
        ("tpu-v5e", 819e9),
        ("tpu-v5p", 2765e9),
        ("apple-m1", 68.256e9),
    ],
)
def test_pinned_bandwidths(name: str, expected: float) -> None:
    assert load(name).bandwidth() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["h100", "h200", "xeon-spr-2vcpu", "epyc-genoa-2vcpu", "graviton3-2vcpu"])
def test_no_int4_where_the_hardware_has_none(name: str) -> None:
    assert "int4" not in load(name).compute


@pytest.mark.parametrize("name", [n for n in names() if n.endswith("2vcpu")])
def test_a_cpu_slice_never_has_the_bandwidth_of_its_socket(name: str) -> None:
    assert load(name).bandwidth() < 80e9


def test_sustained_switches_the_rates_that_were_measured() -> None:
    datasheet, sustained = load("t4"), load("t4").sustained()
    assert (datasheet.rates, sustained.rates) == ("datasheet", "sustained")
    assert sustained.ceiling("fp32") == 4.17e12 < datasheet.ceiling("fp32")
    assert sustained.bandwidth() == 2.413e11 < datasheet.bandwidth()
    assert sustained.ceiling("int8") == datasheet.ceiling("int8")
    assert datasheet.has_sustained() and not load("rtx4090").has_sustained()


def test_overhead_is_the_floor_or_what_eager_execution_pays_and_zero_where_unknown() -> None:
    assert load("t4").overhead_s == pytest.approx(2.2e-6)
    assert load("t4").sustained().overhead_s == pytest.approx(25.3e-6)
    assert load("epyc-milan-2vcpu").overhead_s == 0.0


def test_missing_ceiling_lists_those_there_are() -> None:
    with pytest.raises(MissingCeilingError) as caught:
        load("h100").ceiling("int4")
    assert str(caught.value) == (
        "h100 states no int4 ceiling: it has fp32, tf32, bf16, fp16, fp8, int8. "
        "Next: choose one of these formats, or add [compute.int4] with its source to the specification."
    )


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        load("tesla-t5")
    assert str(caught.value) == (
        "unknown hardware 'tesla-t5': did you mean 'tesla-t4' or 'tesla-p4' or 'tesla-p40'? "
        "Next: run 'aiq specs list', or give a path to a .toml or .json file."
    )


def test_unknown_name_without_a_near_match_lists_what_is_known() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown hardware 'zzzzzz': known: a10, .* and \d+ more\. Next: run"):
        load("zzzzzz")


def test_a_name_never_reads_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "box").write_text(MINIMAL, "utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError):
        load("box")


def test_a_path_is_read(tmp_path: Path) -> None:
    path = tmp_path / "box.toml"
    path.write_text(MINIMAL, "utf-8")
    assert load(str(path)) == read(path) == parse(MINIMAL, "box")


def test_unreadable_path(tmp_path: Path) -> None:
    path = tmp_path / "absent.toml"
    with pytest.raises(SpecError) as caught:
        load(str(path))
    assert str(caught.value) == (
        f"cannot read hardware file {str(path)!r}: No such file or directory. Next: check the path."
    )
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match=r"it is not UTF-8 text\. Next: check the path\.$"):
        read(path)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            'name = "box"',
            "name = ",
            "box.toml: malformed TOML: Invalid value (at line 2, column 8). Next: mend the file",
        ),
        (
            'vendor = "Nobody"',
            'vender = "Nobody"',
            "box.toml: vendor: Field required; vender: unknown key, did you mean 'vendor'?",
        ),
        ("value = 1.0e12\n", "", "box.toml: compute.fp32.value: Field required. Next: mend these keys."),
        ("value = 1.0e12", "value = -1.0e12", "box.toml: compute.fp32.value: Input should be greater than 0. Next: m"),
        ("value = 1.0e12", "value = inf", "box.toml: compute.fp32.value: Input should be a finite number. Next: mend"),
        ("value = 1.0e12", 'value = "fast"', "box.toml: compute.fp32.value: Input should be a valid number"),
        ("[compute.fp16]", "[compute.fp17]", "box.toml: compute.fp17.[key]: Input should be 'fp64', 'fp32', 'tf32'"),
        ("[compute.fp16]", "sparsity_factor = 0.5\n[compute.fp16]", "box.toml: compute.fp32.sustained.sparsity_factor"),
        (f'source = "{SOURCE}"', 'source = "web"', "box.toml: compute.fp32.source: String should have at least 8 char"),
        ('name = "dram"', 'name = "L 2"', "box.toml: memory.0.name: String should match pattern"),
        ('name = "box"', 'name = "Box 1"', "box.toml: name: String should match pattern"),
    ],
)
def test_faults_are_named_by_file_and_key(old: str, new: str, text: str) -> None:
    assert old in MINIMAL
    with pytest.raises(SpecError) as caught:
        parse(MINIMAL.replace(old, new, 1), "box.toml")
    assert str(caught.value).startswith(text)
    assert "Next: mend" in str(caught.value)


def test_memory_needs_distinct_levels_and_inner_capacities() -> None:
    bandwidth = f'value = 1e12\nkind = "derived"\nsource = "{SOURCE}"'
    level = f'\n[[memory]]\nname = "dram"\n[memory.bandwidth_bytes_per_s]\n{bandwidth}'
    with pytest.raises(SpecError, match=r"memory levels must have distinct names, got dram, dram"):
        parse(MINIMAL + level, "box.toml")
    with pytest.raises(SpecError, match=r"memory level 'l2' needs capacity_bytes: only the outermost may omit it"):
        parse(MINIMAL + level.replace('"dram"', '"l2"'), "box.toml")


def test_errors_share_one_root() -> None:
    assert all(issubclass(error, AIQError) for error in (SpecError, UnknownNameError, MissingCeilingError))


def test_a_specification_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load("t4").name = "t5"  # type: ignore[misc]
