"""The linter against errors that shipped in published tables, and one planted fault for each rule.

Each row of the first table is a machine with its right geometry and one figure as somebody published it: the linter
must name that figure, and must be silent about the same machine with the right one.
"""

from __future__ import annotations

from typing import Any

import pytest

from hardware_specs import Finding, HardwareSpec, lint, load, names
from hardware_specs._lint import _RULES
from hardware_specs._lint_tables import FORMATS, PRODUCTS, RATIOS

SOURCE = "vendor sheet, https://example.org/sheet.pdf, accessed 2026-11-21"
T = 1e12
G = 1e9
MIB = 2**20


def number(value: float, **extra: Any) -> dict[str, Any]:
    return {"value": value, "kind": "datasheet", "source": SOURCE, **extra}


def ceiling(value: float, units: float, ops: float, clock: float, **extra: Any) -> dict[str, Any]:
    return number(value, units=units, ops_per_clock=ops, clock_hz=clock, **extra)


def dram(bandwidth: float, capacity: float | None = None, second: float | None = None, **extra: Any) -> dict[str, Any]:
    cross = {"second": {"value": second, "source": SOURCE}} if second else {}
    level: dict[str, Any] = {"name": "dram", "bandwidth_bytes_per_s": number(bandwidth, **cross), **extra}
    return level | ({"capacity_bytes": number(capacity)} if capacity else {})


def l2(capacity: float, bandwidth: float) -> dict[str, Any]:
    return {"name": "l2", "bandwidth_bytes_per_s": number(bandwidth), "capacity_bytes": number(capacity)}


def machine(
    title: str, architecture: str, compute: dict[str, Any], *memory: dict[str, Any], **extra: Any
) -> dict[str, Any]:
    return {
        "name": "box",
        "title": title,
        "vendor": "Somebody",
        "kind": "gpu",
        "architecture": architecture,
        "compute": compute,
        "memory": list(memory),
        **extra,
    }


def spec(data: dict[str, Any]) -> HardwareSpec:
    return HardwareSpec.model_validate(data)


def rtx5090(bandwidth: float = 1.792 * T, int8: float = 838 * T) -> dict[str, Any]:
    rates = {
        "fp32": ceiling(104.8 * T, 170, 256, 2.407 * G),
        "fp16": ceiling(209.5 * T, 170, 512, 2.407 * G),
        "int8": ceiling(int8, 170, 2048, 2.407 * G),
    }
    bus = dram(bandwidth, 32 * G, technology="gddr7", bus_bits=512, transfers_per_s=28 * G)
    return machine("NVIDIA GeForce RTX 5090 32 GB", "blackwell", rates, bus)


def a100_40(bandwidth: float = 1.555 * T) -> dict[str, Any]:
    rates = {"fp32": ceiling(19.49 * T, 108, 128, 1.41 * G), "fp16": ceiling(312 * T, 108, 2048, 1.41 * G)}
    bus = dram(bandwidth, 40 * G, technology="hbm2e", bus_bits=5120, transfers_per_s=2.43 * G)
    return machine("NVIDIA A100 PCIe 40 GB", "ampere", rates, bus, chip="GA100")


def a100_80_pcie(cache: float = 40 * MIB) -> dict[str, Any]:
    rates = {"fp16": ceiling(312 * T, 108, 2048, 1.41 * G)}
    bus = dram(1.935 * T, 80 * G, technology="hbm2e", bus_bits=5120, transfers_per_s=3.024 * G)
    return machine("NVIDIA A100 PCIe 80 GB", "ampere", rates, bus, l2(cache, 5 * T), chip="GA100")


def h100_pcie(fp16: float = 756.5 * T, int8: float = 1513 * T) -> dict[str, Any]:
    rates = {
        "fp32": ceiling(51.2 * T, 114, 256, 1.755 * G),
        "fp16": ceiling(fp16, 114, 4096, 1.62 * G),
        "int8": ceiling(int8, 114, 8192, 1.62 * G),
    }
    return machine("NVIDIA H100 PCIe 80 GB", "hopper", rates, dram(2.039 * T, 80 * G), chip="GH100")


def h100(bandwidth: float = 3.35 * T, **rates: dict[str, Any]) -> dict[str, Any]:
    known = {"fp32": ceiling(66.9 * T, 132, 256, 1.98 * G), "int8": ceiling(1979 * T, 132, 8192, 1.83 * G)}
    bus = dram(bandwidth, 80 * G, technology="hbm3", bus_bits=5120, transfers_per_s=5.2344 * G)
    return machine("NVIDIA H100 SXM5 80 GB", "hopper", known | rates, bus)


def hopper_fp16(title: str, value: float) -> dict[str, Any]:
    rates = {"fp32": ceiling(66.9 * T, 132, 256, 1.98 * G), "fp16": ceiling(value, 132, 4096, 1.83 * G)}
    return machine(title, "hopper", rates, dram(4 * T))


def blackwell_fp16(title: str, value: float, clock: float) -> dict[str, Any]:
    return machine(title, "blackwell", {"fp16": ceiling(value, 148, 8192, clock)}, dram(8 * T))


def h20(bandwidth: float = 4 * T) -> dict[str, Any]:
    return machine("NVIDIA H20 96 GB", "hopper", {"fp16": number(148 * T)}, dram(bandwidth, 96 * G, second=4 * T))


def a10(capacity: float = 24 * G, fp16: float = 125 * T) -> dict[str, Any]:
    rates = {"fp32": ceiling(31.24 * T, 72, 256, 1.695 * G), "fp16": number(fp16)}
    bus = dram(600.2 * G, capacity, technology="gddr6", bus_bits=384, transfers_per_s=12.504 * G)
    return machine("NVIDIA A10", "ampere", rates, bus, chip="GA102")


def v100_16(capacity: float = 16 * G) -> dict[str, Any]:
    rates = {"fp32": ceiling(15.67 * T, 80, 128, 1.53 * G), "fp16": ceiling(125 * T, 80, 1024, 1.53 * G)}
    bus = dram(897 * G, capacity, technology="hbm2", bus_bits=4096, transfers_per_s=1.752 * G)
    return machine("NVIDIA V100 SXM2 16 GB", "volta", rates, bus)


def mi210(**rates: float) -> dict[str, Any]:
    known = {"fp16": ceiling(181 * T, 104, 1024, 1.7 * G)}
    return machine(
        "AMD MI210 64 GB", "cdna2", known | {f: number(v) for f, v in rates.items()}, dram(1.638 * T, 64 * G)
    )


def mi250(fp16: float = 362.1 * T) -> dict[str, Any]:
    return machine("AMD MI250 128 GB", "cdna2", {"fp16": ceiling(fp16, 208, 1024, 1.7 * G)}, dram(3.277 * T, 128 * G))


def mi300x(bandwidth: float = 5.3 * T) -> dict[str, Any]:
    bus = dram(bandwidth, 192 * G, technology="hbm3", bus_bits=8192, transfers_per_s=5.2 * G)
    return machine("AMD MI300X 192 GB", "cdna3", {"fp16": ceiling(1307.4 * T, 304, 2048, 2.1 * G)}, bus)


def l4(units: float = 58, fp32: float = 30.29 * T) -> dict[str, Any]:
    bus = dram(300 * G, 24 * G, technology="gddr6", bus_bits=192, transfers_per_s=12.5 * G)
    return machine("NVIDIA L4 24 GB", "ada", {"fp32": ceiling(fp32, units, 256, 2.04 * G)}, bus, chip="AD104")


def l40s(cache: float = 96 * MIB) -> dict[str, Any]:
    bus = dram(864 * G, 48 * G, technology="gddr6", bus_bits=384, transfers_per_s=18 * G)
    rates = {"fp32": ceiling(91.6 * T, 142, 256, 2.52 * G), "fp16": number(362 * T)}
    return machine("NVIDIA L40S 48 GB", "ada", rates, bus, l2(cache, 5.2 * T), chip="AD102")


def b200(bandwidth: float = 8 * T, capacity: float = 180 * G) -> dict[str, Any]:
    bus = dram(bandwidth, capacity, technology="hbm3e", bus_bits=8192, transfers_per_s=7.8125 * G)
    return machine("NVIDIA B200 180 GB", "blackwell", {"fp16": ceiling(2250 * T, 148, 8192, 1.85 * G)}, bus)


def tpu(generation: str, bandwidth: float, right: float, bf16: float) -> dict[str, Any]:
    rates = {"bf16": number(bf16), "int8": number(2 * bf16)}
    return machine(f"TPU {generation}", f"tpu-{generation}", rates, dram(bandwidth, second=right), kind="tpu")


BANDWIDTH = "memory.dram.bandwidth_bytes_per_s"
CAPACITY = "memory.dram.capacity_bytes"
CACHE = "memory.l2.capacity_bytes"

SHIPPED = [
    ("torchao RTX 5090 bandwidth", rtx5090(bandwidth=1.792e15), rtx5090(), "range", BANDWIDTH),
    ("torchao RTX 5090 bandwidth, by its bus", rtx5090(bandwidth=1.792e15), rtx5090(), "bandwidth", BANDWIDTH),
    ("onnx-tool A100-40 bandwidth", a100_40(1.935 * T), a100_40(), "bandwidth", BANDWIDTH),
    ("onnx-tool H100 PCIe FP16", h100_pcie(fp16=1600 * T), h100_pcie(), "peak", "compute.fp16"),
    ("onnx-tool H100 PCIe INT8", h100_pcie(int8=3200 * T), h100_pcie(), "peak", "compute.int8"),
    ("onnx-tool H100 PCIe, both, by FP32", h100_pcie(1600 * T, 3200 * T), h100_pcie(), "ratio", "compute.fp16"),
    ("onnx-tool RTX 5090 INT8", rtx5090(int8=1676 * T), rtx5090(), "peak", "compute.int8"),
    ("onnx-tool RTX 5090 INT8, by FP16", rtx5090(int8=1676 * T), rtx5090(), "ratio", "compute.int8"),
    ("onnx-tool H20 bandwidth is NVLink", h20(900 * G), h20(), "second", BANDWIDTH),
    ("llm-analysis A10 memory", a10(capacity=28 * G), a10(), "channels", CAPACITY),
    ("llm-analysis V100 16 GB memory", v100_16(32 * G), v100_16(), "capacity", CAPACITY),
    ("llm-analysis H100 INT4", h100(int4=number(3958 * T)), h100(), "format", "compute.int4"),
    ("llm-analysis MI210 INT8", mi210(int8=362 * T), mi210(int8=181 * T), "ratio", "compute.int8"),
    ("llm-analysis MI210 INT4", mi210(int4=724 * T), mi210(), "format", "compute.int4"),
    ("GenZ GH200", hopper_fp16("GH200", 1979 * T), hopper_fp16("GH200", 989 * T), "peak", "compute.fp16"),
    ("GenZ GH200, by FP32", hopper_fp16("GH200", 1979 * T), hopper_fp16("GH200", 989 * T), "ratio", "compute.fp16"),
    (
        "GenZ B100",
        blackwell_fp16("B100", 3500 * T, 1.443 * G),
        blackwell_fp16("B100", 1750 * T, 1.443 * G),
        "peak",
        "compute.fp16",
    ),
    (
        "GenZ GB200",
        blackwell_fp16("GB200", 4500 * T, 2.06 * G),
        blackwell_fp16("GB200", 2500 * T, 2.06 * G),
        "peak",
        "compute.fp16",
    ),
    ("GenZ A100-40 bandwidth", a100_40(1.6 * T), a100_40(), "bandwidth", BANDWIDTH),
    ("GenZ H100 bandwidth", h100(3.4 * T), h100(), "bandwidth", BANDWIDTH),
    ("LLM-Viewer H100 bandwidth", h100(3.072 * T), h100(), "bandwidth", BANDWIDTH),
    ("NeuSight H100 bandwidth", h100(3.43 * T), h100(), "bandwidth", BANDWIDTH),
    ("NeuSight L4 units", l4(units=60, fp32=31.33 * T), l4(), "product", "compute.fp32.units"),
    ("NeuSight MI250 is one GCD", mi250(181 * T), mi250(), "peak", "compute.fp16"),
    (
        "ml-engineering TPU v5e",
        tpu("v5e", 1.6 * T, 819 * G, 197 * T),
        tpu("v5e", 819 * G, 819 * G, 197 * T),
        "second",
        BANDWIDTH,
    ),
    (
        "ml-engineering TPU v5p",
        tpu("v5p", 4.8 * T, 2.765 * T, 459 * T),
        tpu("v5p", 2.765 * T, 2.765 * T, 459 * T),
        "second",
        BANDWIDTH,
    ),
    ("TechPowerUp MI300X bandwidth", mi300x(10.3 * T), mi300x(), "bandwidth", BANDWIDTH),
    ("TechPowerUp A100-80 PCIe L2", a100_80_pcie(80 * MIB), a100_80_pcie(), "product", CACHE),
    ("TechPowerUp L40S L2", l40s(48 * MIB), l40s(), "product", CACHE),
    ("TechPowerUp B200 bandwidth of one die", b200(bandwidth=4.1 * T), b200(), "bandwidth", BANDWIDTH),
    ("TechPowerUp B200 memory of one die", b200(capacity=90 * G), b200(), "capacity", CAPACITY),
    ("TechPowerUp A10 half without tensor cores", a10(fp16=31.24 * T), a10(), "ratio", "compute.fp16"),
]


@pytest.mark.parametrize(("wrong", "right", "rule", "where"), [r[1:] for r in SHIPPED], ids=[r[0] for r in SHIPPED])
def test_a_published_error_is_found(wrong: dict[str, Any], right: dict[str, Any], rule: str, where: str) -> None:
    assert (rule, where) in [(f.rule, f.where) for f in lint(spec(wrong))]
    assert [str(f) for f in lint(spec(right))] == []


def test_rounding_is_no_error() -> None:
    """aiconfigurator rounds the H100's INT8 to 1978."""
    assert lint(spec(h100(int8=ceiling(1978 * T, 132, 8192, 1.83 * G)))) == []


@pytest.mark.parametrize(
    ("data", "rule", "words"),
    [
        (h100_pcie(1600 * T, 3200 * T), "ratio", "looks like the sparse figure"),
        (rtx5090(int8=1676 * T), "peak", "twice the dense rate looks like the sparse figure"),
        (mi250(181 * T), "peak", "half the rate looks like one of two dies"),
        (a10(fp16=31.24 * T), "ratio", "looks like the rate without tensor cores"),
        (mi210(int8=362 * T), "ratio", "CDNA 2 runs INT8 at the FP16 matrix rate"),
        (h100(int4=number(3958 * T)), "format", "Hopper dropped the INT4 tensor path"),
        (rtx5090(bandwidth=1.792e15), "range", "off by a power of ten"),
    ],
)
def test_a_message_says_what_the_figure_looks_like(data: dict[str, Any], rule: str, words: str) -> None:
    assert any(f.rule == rule and words in f.message for f in lint(spec(data)))


def test_a_message_is_one_plain_sentence() -> None:
    (finding,) = lint(spec(a100_40(1.935 * T)))
    assert finding == Finding(
        "bandwidth",
        BANDWIDTH,
        "got 1.935e+12 B/s, expected 1.555e+12 = 5120 bit × 2.43e+09 transfers/s / 8: "
        "the bandwidth is of another part, or the bus is.",
    )
    assert str(finding).startswith(f"{BANDWIDTH}: got 1.935e+12 B/s, expected") and str(finding).endswith("[bandwidth]")


@pytest.mark.parametrize("row", SHIPPED, ids=[r[0] for r in SHIPPED])
def test_every_message_says_got_expected_and_why(row: tuple[Any, ...]) -> None:
    for finding in lint(spec(row[1])):
        assert finding.message.startswith("got ") and ", expected " in finding.message and ": " in finding.message
        assert finding.message.endswith(".") and "\n" not in finding.message


def clean() -> dict[str, Any]:
    """A machine that trips no rule and gives every rule something to look at."""
    rates = {
        "fp32": ceiling(30.29 * T, 58, 256, 2.04 * G),
        "fp16": ceiling(121 * T, 58, 1024, 2.04 * G, sparsity_factor=2.0),
        "int8": ceiling(242 * T, 58, 2048, 2.04 * G, sparsity_factor=2.0),
    }
    rates["fp32"]["sustained"] = number(20 * T)
    rates["fp32"]["second"] = {"value": 30.3 * T, "source": SOURCE}
    bus = dram(300 * G, 24 * G, technology="gddr6", bus_bits=192, transfers_per_s=12.5 * G)
    extra = {"launch_overhead_s": {**number(2e-6), "sustained": number(2e-5)}, "tdp_w": number(72.0)}
    extra["kernels"] = [kernels()]
    return machine("NVIDIA L4 24 GB", "ada", rates, bus, l2(48 * MIB, 2 * T), chip="AD104", **extra)


def kernels() -> dict[str, Any]:
    form = {"rate_flops_per_s": 20 * T, "bandwidth_bytes_per_s": 250 * G, "burst_gain": 0.5, "burst_s": 1e-3}
    error = {"method": "k-fold", "rows": 100, "mean_ape": 0.1, "median_ape": 0.1, "p90_ape": 0.2, "coverage": 0.9}
    model = {"runtime": "eager", "op": "conv", "formats": ["fp32"], "form": form, "error": error, "rows": 100}
    return {**model, "span": [1e6, 1e12], "source": SOURCE, "date": "2026-11-21", "note": ""}


PLANTED: list[tuple[str, str, Any, str]] = [
    ("range", "launch_overhead_s.value", 2.0, "launch_overhead_s"),
    ("range", "tdp_w.value", 7.2e4, "tdp_w"),
    ("range", "compute.fp32.value", 30.29, "compute.fp32"),
    ("range", "compute.fp32.clock_hz", 2040.0, "compute.fp32.clock_hz"),
    ("range", "memory.0.capacity_bytes.value", 24.0, CAPACITY),
    ("range", "memory.1.bandwidth_bytes_per_s.value", 2e15, "memory.l2.bandwidth_bytes_per_s"),
    ("source", "compute.fp16.source", "NVIDIA datasheet", "compute.fp16"),
    ("source", "tdp_w.source", "NVIDIA L4 Tensor Core GPU datasheet, undated copy", "tdp_w"),
    ("source", "compute.fp32.sustained.source", "somebody measured it", "compute.fp32.sustained"),
    ("format", "architecture", "tpu-v4", "compute.fp16"),
    ("ratio", "compute.int8", number(121 * T), "compute.int8"),
    ("sparsity", "architecture", "turing", "compute.fp16.sparsity_factor"),
    ("peak", "compute.int8.value", 484 * T, "compute.int8"),
    ("peak", "compute.int8.units", None, "compute.int8"),
    ("bandwidth", "memory.0.bandwidth_bytes_per_s.value", 310 * G, BANDWIDTH),
    ("pins", "memory.0.transfers_per_s", 6.25 * G, "memory.dram.transfers_per_s"),
    ("channels", "memory.0.capacity_bytes.value", 28 * G, CAPACITY),
    ("capacity", "title", "NVIDIA L4 48 GB", CAPACITY),
    ("capacity", "title", "NVIDIA L4 24 GiB", CAPACITY),
    ("order", "memory.1.bandwidth_bytes_per_s.value", 200 * G, "memory.l2.bandwidth_bytes_per_s"),
    ("order", "memory.1.capacity_bytes.value", 1e9 * 30, CACHE),
    ("product", "compute.fp16.units", 60, "compute.fp16.units"),
    ("product", "compute.fp16.clock_hz", 2.52 * G, "compute.fp16.clock_hz"),
    ("product", "memory.1.capacity_bytes.value", 96 * MIB, CACHE),
    ("second", "compute.fp32.second.value", 31.33 * T, "compute.fp32"),
    ("sustained", "compute.fp32.sustained.value", 40 * T, "compute.fp32.sustained"),
    ("sustained", "launch_overhead_s.sustained.value", 1e-6, "launch_overhead_s.sustained"),
    ("range", "launch_overhead_s.sustained.value", 2.0, "launch_overhead_s.sustained"),
    ("source", "kernels.0.source", "measured by hand", "kernels.0"),
    ("kernels", "kernels.0.form.rate_flops_per_s", 22 * T, "kernels.0.form.rate_flops_per_s"),
    ("kernels", "kernels.0.form.bandwidth_bytes_per_s", 2.2 * T, "kernels.0.form.bandwidth_bytes_per_s"),
    ("kernels", "kernels.0.error.coverage", 0.7, "kernels.0.error.coverage"),
]


def planted(path: str, value: Any) -> HardwareSpec:
    data: Any = clean()
    node: Any = data
    *parents, last = path.split(".")
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node[key]
    assert last in node, path
    node[last] = value
    return spec(data)


def test_the_machine_without_a_fault_is_clean() -> None:
    assert [str(f) for f in lint(spec(clean()))] == []


def test_a_note_explains_a_rate_above_the_peak() -> None:
    data = clean()
    data["kernels"][0]["form"]["rate_flops_per_s"] = 40 * T
    assert [f.where for f in lint(spec(data))] == ["kernels.0.form.rate_flops_per_s"]
    data["kernels"][0]["note"] = "Winograd kernels multiply less often than is counted"
    assert lint(spec(data)) == []


@pytest.mark.parametrize(("rule", "path", "value", "where"), PLANTED)
def test_a_planted_fault_is_found(rule: str, path: str, value: Any, where: str) -> None:
    assert (rule, where) in [(f.rule, f.where) for f in lint(planted(path, value))]


def test_every_rule_has_a_planted_fault() -> None:
    rules = {"_bus": "bandwidth", "_pins": "pins", "_title_size": "capacity"}
    assert {rules.get(r.__name__, r.__name__.strip("_")) for r in _RULES} == {p[0] for p in PLANTED}


@pytest.mark.parametrize(
    ("architecture", "fmt"),
    [
        ("hopper", "int4"),
        ("hopper", "fp4"),
        ("turing", "bf16"),
        ("turing", "tf32"),
        ("turing", "fp8"),
        ("volta", "bf16"),
        ("volta", "tf32"),
        ("volta", "int4"),
        ("ampere", "fp8"),
        ("ada", "fp4"),
        ("cdna2", "fp8"),
        ("skylake-sp", "bf16"),
        ("cascade-lake", "bf16"),
        ("ice-lake-sp", "bf16"),
        ("zen3", "bf16"),
        *((cpu, "int4") for cpu in ("skylake-sp", "cascade-lake", "ice-lake-sp", "sapphire-rapids", "emerald-rapids")),
        *((cpu, "int4") for cpu in ("zen3", "zen4", "neoverse-v1")),
    ],
)
def test_a_format_the_architecture_lacks_is_found(architecture: str, fmt: str) -> None:
    (finding,) = lint(spec(machine("A box", architecture, {fmt: number(T)}, dram(100 * G))))
    assert (finding.rule, finding.where) == ("format", f"compute.{fmt}")
    assert f"expected none on {architecture}" in finding.message


def test_volta_int8_is_allowed_at_four_times_fp32_only() -> None:
    def volta(int8: float) -> list[str]:
        rates = {"fp32": number(15.67 * T), "int8": number(int8)}
        return [f.rule for f in lint(spec(machine("A box", "volta", rates, dram(900 * G))))]

    assert volta(62.68 * T) == []
    assert volta(250 * T) == ["ratio"]


def test_a_chip_is_stricter_than_its_architecture() -> None:
    rates = {"fp16": number(312 * T), "int8": number(1248 * T)}
    sparse = machine("A box", "ampere", rates, dram(1.5 * T))
    assert lint(spec(sparse)) == []
    (finding,) = lint(spec(sparse | {"chip": "GA100"}))
    assert finding.rule == "ratio" and finding.message.endswith("; it looks like the sparse figure.")


def test_an_unknown_architecture_is_held_to_the_general_rules_only() -> None:
    assert lint(spec(machine("A box", "tomorrow", {"fp4": number(T)}, dram(100 * G)))) == []


@pytest.mark.parametrize("name", names())
def test_every_shipped_machine_is_of_a_known_architecture(name: str) -> None:
    machine_ = load(name)
    assert machine_.architecture in FORMATS
    assert machine_.architecture in RATIOS


@pytest.mark.parametrize("name", [n for n in names() if load(n).kind == "gpu"])
@pytest.mark.parametrize("factor", [0.5, 1.9, 2.0, 1000.0])
def test_a_wrong_ceiling_is_found_in_every_shipped_gpu(name: str, factor: float) -> None:
    """Every ceiling and every DRAM bandwidth that a file restates by geometry is really held by it."""
    data = load(name).model_dump()
    for fmt, rate in data["compute"].items():
        bad = data | {"compute": data["compute"] | {fmt: rate | {"value": rate["value"] * factor}}}
        assert f"compute.{fmt}" in {f.where for f in lint(spec(bad))}
    outer = data["memory"][0]
    if outer["bus_bits"]:
        rate = outer["bandwidth_bytes_per_s"]
        wrong = outer | {"bandwidth_bytes_per_s": rate | {"value": rate["value"] * factor}}
        assert BANDWIDTH in {f.where for f in lint(spec(data | {"memory": [wrong, *data["memory"][1:]]}))}


def test_product_facts_carry_their_source() -> None:
    assert all("https://" in p.source and "accessed 2026-11-21" in p.source for p in PRODUCTS)
