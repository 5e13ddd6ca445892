"""Seeded faults in machine files: the loader and the linter answer each with a sentence, never with a traceback."""

from __future__ import annotations

import random
import re
from importlib.resources import files

import pytest

from hardware_specs import Finding, SpecError, lint, names, parse

CASES = 300
BATCHES = 10
CATALOG = files("hardware_specs").joinpath("catalog")
VALUES = (
    "0", "-1", "nan", "inf", "-inf", "1e-320", "1e308", "9" * 400, "true", '""', '"x"', "[]", "{}", "[[1]]",
    "2026-11-21", "'''", "\x00", "0x", "1_000", "{value = 1}", '"' + "a" * 5000 + '"', "[" * 2000, "1e999",
)  # fmt: skip
LINES = (
    "[compute.fp32]", "[[memory]]", "[memory]", "[compute]", "[[kernels]]", "[[compute.fp32]]", 'name = "dram"',
    "rates = 'sustained'", "[price_usd_per_hour]", "[memory.bandwidth_bytes_per_s.second]", "value = 1e-320",
    "units = 1e-320", "clock_hz = 1e-320", "= 1", "]", '"', "\ufeff", "[a.b.c]", "key", "threads = 0",
)  # fmt: skip


def mutant(text: str, rng: random.Random) -> str:
    """Return ``text`` with one to three faults: lines lost, doubled or swapped, values and characters replaced."""
    lines = text.split("\n")
    for _ in range(rng.randint(1, 3)):
        index = rng.randrange(len(lines))
        match rng.randrange(7):
            case 0:
                del lines[index : index + rng.randint(1, 4)]
            case 1:
                lines.insert(index, rng.choice(lines))
            case 2:
                lines.insert(index, rng.choice(LINES))
            case 3:
                rng.shuffle(lines)
            case 4:
                given = [i for i, line in enumerate(lines) if re.match(r"[a-z_]+ = ", line)] or [index]
                at = rng.choice(given)
                lines[at] = lines[at].split(" = ")[0] + " = " + rng.choice(VALUES)
            case 5:
                at = rng.randrange(len(lines[index]) + 1)
                lines[index] = lines[index][:at] + chr(rng.randrange(1, 0x250)) + lines[index][at + rng.randint(0, 3) :]
            case _:
                lines = lines[: index + 1]
                lines[-1] = lines[-1][: rng.randrange(len(lines[-1]) + 1)]
        lines = lines or [""]
    return "\n".join(lines)


def mutants(batch: int) -> list[str]:
    rng = random.Random(f"machine files {batch}")
    texts = [CATALOG.joinpath(f"{name}.toml").read_text("utf-8") for name in names()]
    return [mutant(rng.choice(texts), rng) for _ in range(CASES // BATCHES)]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_broken_file_is_a_sentence(batch: int) -> None:
    for text in mutants(batch):
        try:
            findings = lint(parse(text, "box.toml"))
        except SpecError as error:
            assert re.fullmatch(
                r"box\.toml: .+\. Next: mend (these keys|the file at that place)\.", str(error), re.DOTALL
            )
        else:
            assert all(isinstance(finding, Finding) for finding in findings)


def test_the_faults_are_of_every_kind() -> None:
    """Malformed text, refused values, findings of the linter, and files that stay clean."""
    seen = set()
    for batch in range(BATCHES):
        for text in mutants(batch):
            try:
                seen.add("found" if lint(parse(text, "box.toml")) else "clean")
            except SpecError as error:
                seen.add("malformed" if "malformed TOML" in str(error) else "refused")
    assert seen == {"malformed", "refused", "found", "clean"}


FIELDS = ("value", "units", "ops_per_clock", "clock_hz", "bus_bits", "transfers_per_s")


@pytest.mark.parametrize(
    "fields", [*((f,) for f in FIELDS), ("units", "clock_hz"), ("bus_bits", "transfers_per_s"), FIELDS]
)
@pytest.mark.parametrize("number", ["5e-324", "1e308", "9" * 400])
def test_extreme_numbers_are_findings_or_refused(fields: tuple[str, ...], number: str) -> None:
    text = CATALOG.joinpath("l4.toml").read_text("utf-8")
    changed = re.sub(rf"^({'|'.join(fields)}) = .*$", rf"\1 = {number}", text, flags=re.MULTILINE)
    assert changed != text
    try:
        assert lint(parse(changed, "box.toml"))
    except SpecError as error:
        assert len(number) == 400 and "Next: mend" in str(error)


def test_nested_brackets_end_in_a_sentence() -> None:
    with pytest.raises(SpecError, match=r"^box\.toml: malformed TOML: .*Next: mend the file at that place\.$"):
        parse("name = " + "[" * 100_000, "box.toml")
