"""What a sweep is written as: machines, changes, prices, counts and schemes, and every refusal's sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hardware_specs
from aiq._whatif_machines import changed, find_machines, paths, read_counts, read_prices, read_schemes
from hardware_specs import HardwareSpec
from roofline.errors import AIQError, InputError
from tests.calibrated import CALIBRATED
from tests.machines import THREE_LEVELS

T4 = hardware_specs.load("t4")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8", (8,)),
        ("32,1, 8", (1, 8, 32)),
        ("1..256", (1, 2, 4, 8, 16, 32, 64, 128, 256)),
        ("3..50", (3, 6, 12, 24, 48, 50)),
        ("7..7", (7,)),
        ("1..8,3,4", (1, 2, 3, 4, 8)),
        ("1000000", (1_000_000,)),
    ],
)
def test_counts(text: str, expected: tuple[int, ...]) -> None:
    assert read_counts("--batch", text) == expected


@pytest.mark.parametrize("text", ["", "0", "1,,2", "8..1", "1...4", "a", "1.5", "-3", "1000001", "1..", "99999999999"])
def test_malformed_counts(text: str) -> None:
    part = next((part for part in text.split(",") if part in ("", text) or not part.isdigit()), text)
    with pytest.raises(InputError) as refused:
        read_counts("--batch", text)
    assert str(refused.value) == (
        f"--batch takes whole numbers from 1 to 1000000, or a range to double over, got {part.strip()!r}. "
        "Next: write for instance --batch 1,8,32 or --batch 1..256."
    )


def test_schemes_join_their_rules() -> None:
    found = read_schemes(["fp16,w4,conv1=keep,re:l.*=w8,w8a8", "w4:g128,fp16"])
    assert [str(scheme) for scheme in found] == ["fp16", "w4,conv1=keep,re:l.*=w8", "w8a8", "w4:g128"]
    assert [len(scheme.rules) for scheme in found] == [0, 2, 0, 0]


@pytest.mark.parametrize("text", ["fp17", "w4,=w8", "w4@nonsense", "a=w8"])
def test_malformed_schemes_are_refused(text: str) -> None:
    with pytest.raises(AIQError, match="Next: "):
        read_schemes([text])


def test_prices() -> None:
    assert read_prices(["l4=0.71,t4=.35", "h100 = 3"]) == {"l4": 0.71, "t4": 0.35, "h100": 3.0}


@pytest.mark.parametrize("text", ["l4", "l4=", "=3", "l4=0", "l4=-1", "l4=nan", "l4=inf", "l4=cheap"])
def test_malformed_prices(text: str) -> None:
    with pytest.raises(InputError) as refused:
        read_prices([text])
    assert str(refused.value) == f"--price takes NAME=USD an hour, got {text!r}. Next: write --price l4=0.71."


def test_a_price_is_given_once() -> None:
    with pytest.raises(InputError, match=r"--price names l4 twice\. Next: give one price for it\."):
        read_prices(["l4=1", "l4=2"])


def test_machines_by_name_pattern_file_and_all(tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text(hardware_specs.to_json(THREE_LEVELS))
    labels = [machine.label for machine in find_machines(f"l4,a100-??,t4,l4,{own}")]
    assert labels == ["l4", "a100-40", "a100-80", "t4", "three-levels"]
    assert [machine.label for machine in find_machines("all")] == hardware_specs.names()


def test_a_price_is_given_or_listed(tmp_path: Path) -> None:
    listed = THREE_LEVELS.model_copy(update={"price_usd_per_hour": T4.memory[0].capacity_bytes})
    own = tmp_path / "own.json"
    own.write_text(hardware_specs.to_json(listed))
    (first, second, changed_one) = find_machines(
        f"{own},t4", prices={"t4": 0.35}, changes=["memory.dram.bandwidth=2x"]
    )[:3]
    assert first.price_per_hour == listed.price_usd_per_hour.value  # type: ignore[union-attr]
    assert (second.price_per_hour, changed_one.price_per_hour) == (0.35, first.price_per_hour)
    (dearer,) = find_machines("t4", changes=["compute=2x"], prices={"t4": 1.0, "t4+compute x2": 1.5})[1:]
    assert (dearer.label, dearer.base, dearer.price_per_hour) == ("t4+compute x2", "t4", 1.5)


def sustained(name: str) -> HardwareSpec:
    spec = hardware_specs.load(name)
    if not spec.has_sustained():
        raise InputError(f"{name} has no measured sustained rate. Next: leave --rates at datasheet.")
    return spec.sustained()


def test_a_machine_without_the_rates_stays_with_the_reason() -> None:
    with_rates = next(n for n in hardware_specs.names() if hardware_specs.load(n).has_sustained())
    without = next(n for n in hardware_specs.names() if not hardware_specs.load(n).has_sustained())
    first, second = find_machines(f"{with_rates},{without}", load=sustained)
    assert (first.spec.rates, first.refused) == ("sustained", "")
    assert second.refused == f"{without} has no measured sustained rate"
    with pytest.raises(InputError, match="has no measured sustained rate"):
        find_machines(without, load=sustained)


@pytest.mark.parametrize(
    ("change", "read", "factor"),
    [
        ("memory.dram.bandwidth=2x", lambda s: s.bandwidth(0), 2.0),
        ("memory.dram.bandwidth=0.5x", lambda s: s.bandwidth(0), 0.5),
        ("memory.dram.bandwidth=640GB/s", lambda s: s.bandwidth(0), 2.0),
        ("memory.dram.bandwidth=6.4e11", lambda s: s.bandwidth(0), 2.0),
        ("memory.l2.bandwidth=3x", lambda s: s.bandwidth(1), 3.0),
        ("memory.dram.capacity=32GB", lambda s: s.memory[0].capacity_bytes.value, 2.0),
        ("compute.int8=4x", lambda s: s.ceiling("int8"), 4.0),
        ("compute=2x", lambda s: s.ceiling("fp16"), 2.0),
        ("launch_overhead=0.1x", lambda s: s.overhead_s, 0.1),
        ("launch_overhead=0.22us", lambda s: s.overhead_s, 0.1),
        ("compute=2x,memory.dram.bandwidth=4x", lambda s: s.ceiling("fp32") / s.bandwidth(0), 0.5),
    ],
)
def test_a_change_changes_one_figure(change: str, read: Callable[[Any], float], factor: float) -> None:
    base, hypothetical = find_machines("t4", changes=[change])
    assert read(hypothetical.spec) == pytest.approx(factor * read(base.spec))
    paths_changed = {part.partition("=")[0] for part in change.split(",")}
    for other in ("memory.dram.bandwidth", "memory.l2.bandwidth", "compute.fp32", "launch_overhead"):
        if other not in paths_changed and other.partition(".")[0] not in paths_changed:
            assert figure(hypothetical.spec, other) == figure(base.spec, other)


def figure(spec: HardwareSpec, path: str) -> float:
    return {
        "memory.dram.bandwidth": spec.bandwidth(0),
        "memory.l2.bandwidth": spec.bandwidth(1),
        "compute.fp32": spec.ceiling("fp32"),
        "launch_overhead": spec.overhead_s,
    }[path]


def test_a_change_scales_what_is_sustained_too() -> None:
    fast = changed(T4.sustained(), "compute.fp16", 2.0, is_factor=True)
    assert fast.ceiling("fp16") == 2 * T4.sustained().ceiling("fp16")
    exact = changed(T4.sustained(), "compute.fp16", 1e14, is_factor=False)
    assert exact.ceiling("fp16") == 1e14


def test_a_format_that_a_machine_lacks_can_be_given_it() -> None:
    assert "fp8" not in T4.compute
    _, hypothetical = find_machines("t4", changes=["compute.fp8=260TFLOP/s"])
    assert hypothetical.spec.ceiling("fp8") == 260e12
    assert hypothetical.label == "t4+compute.fp8 260 TFLOP/s"


def test_a_change_that_fits_some_machines_stays_with_the_reason_for_others() -> None:
    found = find_machines("t4,xeon-spr-2vcpu", changes=["memory.l3.bandwidth=2x"])
    refused = {machine.label: machine.refused for machine in found}
    assert refused["xeon-spr-2vcpu+l3.bandwidth x2"] == ""
    assert refused["t4+l3.bandwidth x2"].startswith("unknown figure of t4 'memory.l3.bandwidth': did you mean ")


def test_paths_are_those_that_a_change_may_name() -> None:
    known = paths(T4)
    assert known[0] == "compute"
    assert {"compute.fp16", "memory.dram.bandwidth", "memory.dram.capacity", "launch_overhead"} <= set(known)
    for path in known:
        assert changed(T4, path, 2.0, is_factor=True) != T4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("t5",), "unknown hardware 't5': did you mean "),
        (("zz*",), "no machine matches 'zz*'. Next: run 'aiq specs list' for their names."),
        ((" , ",), "no machine is named. Next: give --hardware t4,l4 or all; 'aiq specs list' shows them."),
        (("./none.toml",), "cannot read hardware file './none.toml': No such file or directory. Next: check the path."),
        (
            ("t4", "memory.drm.bandwidth=2x"),
            "unknown path in --set 'memory.drm.bandwidth': did you mean 'memory.dram.b",
        ),
        (
            ("t4", "compute.fp8=2x"),
            "--set 'compute.fp8=2x' fits none of the machines: unknown figure of t4 'compute.fp8'",
        ),
        (
            ("t4", "compute=1e12"),
            "--set 'compute=1e12' fits none of the machines: one amount for all ceilings says too",
        ),
        (("t4", ","), "--set takes PATH=VALUE with a factor or an amount, got ','. Next: write for instance --set "),
    ],
)
def test_refusals(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(AIQError) as refused:
        find_machines(arguments[0], changes=arguments[1:])
    assert str(refused.value).startswith(message)
    assert "Next: " in str(refused.value)


@pytest.mark.parametrize("value", ["", "2", "x", "0x", "-1x", "2 x x", "1e999", "2xx", "5 furlongs", "nan", "2GHz"])
def test_malformed_changes(value: str) -> None:
    if value == "2":  # an absolute number is a figure in SI units
        assert find_machines("t4", changes=["memory.dram.bandwidth=2"])[1].spec.bandwidth() == 2.0
        return
    text = f"memory.dram.bandwidth={value}"
    with pytest.raises(InputError) as refused:
        find_machines("t4", changes=[text])
    assert str(refused.value) == (
        f"--set takes PATH=VALUE with a factor or an amount, got {text!r}. "
        "Next: write for instance --set memory.dram.bandwidth=2x or --set memory.dram.capacity=48GB."
    )


def test_a_price_without_a_machine_is_refused() -> None:
    with pytest.raises(AIQError) as refused:
        find_machines("t4,l4", prices={"h100": 3.0})
    assert str(refused.value) == (
        "unknown machine with a price 'h100': known: l4, t4. Next: name a machine of --hardware."
    )


def test_kernel_models_do_not_follow_a_change() -> None:
    with pytest.raises(InputError, match=r"do not follow a change\. Next: leave --rates at datasheet\."):
        changed(CALIBRATED.calibrated(), "compute", 2.0, is_factor=True)
