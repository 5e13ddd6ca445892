"""Every machine of the catalogue at work: a layer by hand, a network, what it lacks, and figures that are wrong."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

import pytest
import torch
from torch import nn

import roofline
from hardware_specs import HardwareSpec, MissingCeilingError, SpecError, lint, load, names, parse
from tests.machines import named_graph, zoo_graph

# Of the formats that a scheme can name, narrowest first: each with the scheme and the bytes of one value.
SCHEMES = {
    "int4": ("w4a4", 0.5),
    "int8": ("w8a8", 1.0),
    "fp8": ("fp8_e4m3", 1.0),
    "fp16": ("fp16", 2.0),
    "bf16": ("bf16", 2.0),
    "fp32": ("fp32", 4.0),
}
ROWS, COLUMNS, REDUCTION = 64, 512, 1024
MACS = ROWS * COLUMNS * REDUCTION
VALUES = ROWS * REDUCTION + REDUCTION * COLUMNS + ROWS * COLUMNS
NO_FP32 = ("gaudi2", "gaudi3", "tpu-v3", "tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e", "tpu7x")
SOURCE = "cloud price list, https://example.org/prices, us-east, 2026-11-21"


@cache
def linear() -> roofline.OpGraph:
    return named_graph(lambda: nn.Linear(REDUCTION, COLUMNS, bias=False), (ROWS, REDUCTION), torch.float32)


@cache
def network() -> roofline.OpGraph:
    """ResNet-20 with no layer kept in FP32, so that machines without an FP32 rate can run all of it."""
    return replace(zoo_graph("resnet20"), keep_weights=())


def narrowest(spec: HardwareSpec) -> str:
    return next(fmt for fmt in SCHEMES if fmt in spec.compute)


def text_of(name: str) -> str:
    return files("hardware_specs").joinpath("catalog", f"{name}.toml").read_text("utf-8")


def test_the_catalogue_has_the_promised_breadth() -> None:
    specs = [load(name) for name in names()]
    assert len(specs) >= 45
    vendors = {spec.vendor for spec in specs}
    assert vendors >= {"NVIDIA", "AMD", "Google", "Apple", "Intel", "AWS", "Raspberry Pi"}
    assert {spec.kind for spec in specs} == {"gpu", "cpu", "tpu", "npu", "soc"}
    assert tuple(name for name in names() if "fp32" not in load(name).compute) == NO_FP32


@pytest.mark.parametrize("name", names())
def test_a_linear_layer_takes_the_slower_of_its_products_and_its_bytes(name: str) -> None:
    spec = load(name)
    fmt = narrowest(spec)
    scheme, width = SCHEMES[fmt]
    found = roofline.estimate(linear(), spec, scheme, traffic="paper")
    best = max(spec.ceiling(f) for f in (fmt, *_wider(fmt)) if f in spec.compute)
    by_hand = max(2 * MACS / best, VALUES * width / spec.bandwidth(), spec.overhead_s)
    assert found.latency_s == pytest.approx(by_hand, rel=1e-12)


def _wider(fmt: str) -> tuple[str, ...]:
    return {
        "int4": ("int8", "fp16", "bf16", "fp32"),
        "int8": ("fp16", "bf16", "fp32"),
        "fp8": ("fp16", "bf16", "fp32"),
        "fp16": ("fp32",),
        "bf16": ("fp32",),
        "fp32": (),
    }[fmt]


@pytest.mark.parametrize("name", [name for name in names() if name not in NO_FP32])
def test_a_network_is_never_slower_in_the_narrowest_format(name: str) -> None:
    spec = load(name)
    full = roofline.estimate(network(), spec, "fp32")
    narrow = roofline.estimate(network(), spec, SCHEMES[narrowest(spec)][0])
    assert 0 < narrow.latency_s <= full.latency_s
    assert narrow.bytes <= full.bytes
    assert narrow.flops == full.flops
    assert sum(layer.latency_s for layer in full.layers) == pytest.approx(full.latency_s, rel=1e-9)


@pytest.mark.parametrize("name", NO_FP32)
def test_a_machine_without_fp32_says_what_it_has(name: str) -> None:
    spec = load(name)
    with pytest.raises(MissingCeilingError) as caught:
        roofline.estimate(network(), spec, "fp32")
    assert str(caught.value) == (
        f"{name} states no fp32 ceiling and none that could stand in (no wider format): it has "
        f"{', '.join(spec.compute)}. Next: choose one of these formats, or add [compute.fp32] with its source."
    )
    assert roofline.estimate(network(), spec, "bf16").latency_s > 0


@pytest.mark.parametrize("name", names())
def test_more_bandwidth_never_slows_a_machine(name: str) -> None:
    spec = load(name)
    scheme = SCHEMES[narrowest(spec)][0]
    levels = [
        level.model_copy(
            update={
                "bandwidth_bytes_per_s": level.bandwidth_bytes_per_s.model_copy(
                    update={"value": 2 * level.bandwidth_bytes_per_s.value}
                )
            }
        )
        for level in spec.memory
    ]
    wider = spec.model_copy(update={"memory": tuple(levels)})
    assert roofline.estimate(network(), wider, scheme).latency_s <= roofline.estimate(network(), spec, scheme).latency_s


@pytest.mark.parametrize("name", names())
def test_what_a_file_leaves_out_is_explained_in_it(name: str) -> None:
    spec, comments = load(name), [line for line in text_of(name).splitlines() if line.startswith("#")]
    missing = [field for field in ("tdp_w", "launch_overhead_s") if getattr(spec, field) is None]
    missing += [fmt for fmt in ("fp32", "int8") if fmt not in spec.compute]
    for field in missing:
        assert any(field in comment and "left out" in comment for comment in comments), field


@pytest.mark.parametrize("name", names())
def test_rates_are_dense_and_derived_ones_follow_from_their_geometry(name: str) -> None:
    """Dense rates only: what a sheet prints with sparsity is halved, and says so by its factor."""
    spec = load(name)
    for fmt, ceiling in spec.compute.items():
        if spec.kind == "gpu" and spec.vendor == "NVIDIA" and spec.architecture in {"ampere", "ada", "hopper"}:
            assert (ceiling.sparsity_factor == 2.0) == (fmt != "fp32"), fmt
        if ceiling.units and ceiling.ops_per_clock and ceiling.clock_hz and ceiling.kind == "derived":
            assert ceiling.value == pytest.approx(ceiling.units * ceiling.ops_per_clock * ceiling.clock_hz, rel=1e-3)


def changed(name: str, field: str, value: float | None) -> HardwareSpec:
    """A shipped machine with one figure replaced: ``compute.fp16``, ``bandwidth``, ``capacity`` or ``clock.fp32``."""
    data: dict[str, Any] = load(name).model_dump()
    outer, *inner = data["memory"]
    kind, _, fmt = field.partition(".")
    if kind == "compute":
        known = data["compute"].get(fmt) or {**next(iter(data["compute"].values())), "units": None}
        rate = {**known, "value": value, "second": None}
        if known["units"] is None:
            rate |= {"ops_per_clock": None, "clock_hz": None}
        data["compute"] = {**data["compute"], fmt: rate}
    elif kind == "clock":
        data["compute"] = {**data["compute"], fmt: {**data["compute"][fmt], "clock_hz": value}}
    else:
        key = {"bandwidth": "bandwidth_bytes_per_s", "capacity": "capacity_bytes"}[kind]
        data["memory"] = [{**outer, key: {**outer[key], "value": value}}, *inner]
    return HardwareSpec.model_validate(data)


@pytest.mark.parametrize(
    ("name", "field", "value", "rule"),
    [
        pytest.param("a10g", "compute.fp16", 125e12, "peak", id="Lightning A10G has the A10's rate"),
        pytest.param("l40", "compute.fp16", 362e12, "peak", id="hmc-tech L40 FP16 is sparse"),
        pytest.param("rtx4090", "compute.bf16", 82.6e12, "ratio", id="Lightning RTX 4090 BF16 without tensor cores"),
        pytest.param("rtx5090", "compute.bf16", 419e12, "peak", id="aiconfigurator RTX 5090 BF16"),
        pytest.param("rtx5090", "bandwidth", 1.792e15, "range", id="torchao RTX 5090 bandwidth"),
        pytest.param("mi250x", "compute.bf16", 191.5e12, "peak", id="torchtitan MI250X is one die"),
        pytest.param("mi250x", "compute.int8", 766e12, "ratio", id="llm-analysis MI250X INT8"),
        pytest.param("mi300x", "bandwidth", 10.3e12, "second", id="TechPowerUp MI300X bandwidth"),
        pytest.param("mi300x", "compute.fp16", 653.7e12, "peak", id="TechPowerUp MI300X FP16"),
        pytest.param("mi325x", "capacity", 288e9, "capacity", id="TechPowerUp MI325X memory"),
        pytest.param("mi325x", "bandwidth", 10.3e12, "second", id="TechPowerUp MI325X bandwidth"),
        pytest.param("mi355x", "compute.bf16", 2300e12, "peak", id="MI350X rate called MI355X"),
        pytest.param("b200", "bandwidth", 4.1e12, "second", id="TechPowerUp B200 is one die"),
        pytest.param("p4", "clock.fp32", 1.114e9, "product", id="TechPowerUp P4 boost clock"),
        pytest.param("gaudi2", "compute.fp8", 1835e12, "ratio", id="Gaudi 3's FP8 rate on Gaudi 2"),
        pytest.param("tpu-v5p", "compute.fp8", 918e12, "format", id="TPU v5p FP8 path"),
        pytest.param("tpu-v5p", "bandwidth", 4.8e12, "second", id="ml-engineering TPU v5p"),
        pytest.param("apple-m1", "compute.int8", 11e12, "format", id="Neural Engine TOPS as the GPU's"),
        pytest.param("jetson-agx-orin", "compute.int8", 275e12, "ratio", id="AGX Orin sparse GPU and DLA"),
        pytest.param("raspberry-pi-5", "compute.fp16", 153.6e9, "ratio", id="A76 FP16 at the FP32 rate"),
    ],
)
def test_a_figure_that_some_table_has_wrong_is_found(name: str, field: str, value: float, rule: str) -> None:
    assert rule in {finding.rule for finding in lint(changed(name, field, value))}


@pytest.mark.parametrize("architecture", ["tpu-7x", "gaudi3", "xe2", "apple-g14", "cortex-a76", "neoverse-v2"])
@pytest.mark.parametrize("fmt", ["int4", "fp4"])
def test_new_architectures_refuse_formats_they_lack(architecture: str, fmt: str) -> None:
    name = next(name for name in names() if load(name).architecture == architecture)
    rules = {f.rule for f in lint(changed(name, f"compute.{fmt}", 1e13))}
    assert ("format" in rules) == ((architecture, fmt) != ("xe2", "int4"))


def test_a_price_is_a_sourced_quantity() -> None:
    price = f'\n[price_usd_per_hour]\nvalue = 0.526\nkind = "datasheet"\nsource = "{SOURCE}"\n'
    spec = parse(text_of("l4") + price, "l4.toml")
    assert spec.price_usd_per_hour is not None and spec.price_usd_per_hour.value == 0.526
    assert lint(spec) == []
    (finding,) = lint(parse(text_of("l4") + price.replace("0.526", "526000.0"), "l4.toml"))
    assert (finding.rule, finding.where) == ("range", "price_usd_per_hour")
    (finding,) = lint(parse(text_of("l4") + price.replace(SOURCE, "a price list"), "l4.toml"))
    assert (finding.rule, finding.where) == ("source", "price_usd_per_hour")
    with pytest.raises(SpecError, match=r"price_usd_per_hour\.value: Input should be greater than 0"):
        parse(text_of("l4") + price.replace("0.526", "0.0"), "l4.toml")
