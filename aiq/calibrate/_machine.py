"""This machine: its name, and the specification that its measurements make."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from aiq.calibrate._bandwidth import Cache, ReadRate, memory_levels, stepped
from aiq.calibrate._rows import KernelRow, four_digits
from aiq.runtimes._torch import _threads as torch_threads
from hardware_specs import Ceiling, HardwareSpec, Rated
from roofline.graph import MATRIX_KINDS

NAME_FORM = re.compile(r"[a-z0-9][a-z0-9-]*")
_VENDORS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD", "ARM": "ARM"}
_SIDE, _PRODUCTS = 512, 20
_BEST = 3
_LEAST_OVERHEAD_S = 1e-7


def processor() -> tuple[str, str]:
    """Return vendor and model name of the processor, as far as the operating system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    vendor = facts.get("vendor_id") or ("Apple" if platform.system() == "Darwin" else "unknown vendor")
    model = facts.get("model name") or platform.processor() or platform.machine() or "unknown processor"
    return _VENDORS.get(vendor, vendor), " ".join(model.split())


def memory_bytes() -> float | None:
    """Return the capacity of memory; ``None`` where it is not told."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return None


def product_flops_per_s(threads: int) -> float:
    """Return the rate of a float32 product in PyTorch: what is known of compute where no runtime tells more."""
    left = torch.ones(_SIDE, _SIDE)
    seconds = []
    with torch_threads(threads):
        for _ in range(_PRODUCTS):
            started = time.perf_counter()
            left @ left
            seconds.append(time.perf_counter() - started)
    return 2.0 * _SIDE**3 / min(seconds)


def bare_machine(
    alone: Sequence[ReadRate],
    together: Sequence[ReadRate],
    known: Sequence[Cache],
    *,
    name: str,
    threads: int,
    date: str,
) -> HardwareSpec:
    """Return the machine as its memory and a product show it, before any runtime was measured."""
    vendor, model = processor()
    context = f"PyTorch {torch.__version__} and NumPy {np.__version__} on {model}, {date}"
    return HardwareSpec(
        name=name,
        title=f"{model}, {threads} thread{'s' * (threads > 1)} (calibrated on {date})",
        vendor=vendor,
        kind="cpu",
        threads=threads,
        architecture=re.sub(r"[^a-z0-9]+", "-", platform.machine().lower()).strip("-") or "unknown",
        compute={
            "fp32": Ceiling(
                value=four_digits(product_flops_per_s(threads)),
                kind="measured",
                source=f"fastest of {_PRODUCTS} float32 products of {_SIDE} x {_SIDE} matrices, {context}",
            )
        },
        memory=memory_levels(alone, together, known or stepped(together), context=context),
    )


def with_rates(bare: HardwareSpec, rows: Sequence[KernelRow], versions: Mapping[str, str], date: str) -> HardwareSpec:
    """Return the machine with the compute ceilings and the overhead that rows of probe networks reached.

    A ceiling is the third best rate of any layer in that format, whatever the runtime; fp32 is never below what a
    product in PyTorch reached.
    """
    ran = ", ".join(versions.values())
    matrix = [row for row in rows if row.op in MATRIX_KINDS and len(row.formats) == 1]
    compute = dict(bare.compute)
    for fmt in dict.fromkeys(row.formats[0] for row in matrix):
        own = sorted((row for row in matrix if row.formats == (fmt,)), key=_rate)[-_BEST:]
        best = own[0]
        value, before = _rate(best), compute.get(fmt)  # type: ignore[call-overload]
        if before is None or value > before.value:
            compute[fmt] = Ceiling(  # type: ignore[index]
                value=four_digits(value),
                kind="measured",
                source=f"{best.op} of {float(best.work.m):.0f} x {float(best.work.n):.0f} x {float(best.work.k):.0f} "
                f"by {best.runtime}, third best of {len(matrix)} layers in probe networks, spread of the best three "
                f"{_rate(own[-1]) / value - 1.0:.1%}; {ran}, {date}",
            )
    if not matrix:
        return bare
    shortest = float(np.quantile([row.seconds for row in matrix], 0.01))
    overhead = Rated(
        value=four_digits(max(shortest, _LEAST_OVERHEAD_S)),
        kind="measured",
        source=f"first percentile of the time of layers in probe networks, dispatch included; {ran}, {date}",
    )
    return bare.model_copy(update={"compute": compute, "launch_overhead_s": overhead})


def explained(machine: HardwareSpec) -> HardwareSpec:
    """Return the machine with a note on every model whose fitted rates lie above what was measured."""
    fastest = max(level.bandwidth_bytes_per_s.value for level in machine.memory)
    models = []
    for model in machine.kernels:
        form = model.form
        rate = (form.rate_flops_per_s or 0.0) * (1.0 + form.burst_gain)
        bandwidth = max(form.bandwidth_bytes_per_s, form.cache_bandwidth_bytes_per_s or 0.0)
        peaks = [machine.compute[fmt].value for fmt in model.formats if fmt in machine.compute]
        above = bandwidth > fastest or (peaks and rate > min(peaks))
        note = "rates are limits of a fit that no kernel reached: read the times it predicts, not the parameters"
        models.append(model.model_copy(update={"note": note}) if above else model)
    return machine.model_copy(update={"kernels": tuple(models)})


def _rate(row: KernelRow) -> float:
    return float(row.work.flops) / row.seconds
