"""Kernel models with round numbers, machines that hold them, and measured rows made up from a known form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from aiq.calibrate import KernelRow
from hardware_specs import FitError, HardwareSpec, KernelForm, KernelModel
from roofline.kernels import Work, predict
from tests.machines import machine

SOURCE = "made up for a test, on no machine at all, 2026-11-21"
DATE = "2026-11-21"


def fit_error(**changes: Any) -> FitError:
    given = {"method": "held-out", "rows": 100, "mean_ape": 0.1, "median_ape": 0.08, "p90_ape": 0.2}
    return FitError.model_validate({**given, "interval": (0.8, 1.25), "coverage": 0.9, **changes})


def kernel(
    op: str,
    *formats: str,
    variants: Iterable[str] = (),
    span: tuple[float, float] = (0.0, 1e18),
    error: FitError | None = None,
    runtime: str = "toyrun",
    traffic: str = "fused",
    **form: float,
) -> KernelModel:
    """Build a model; without a form it moves 1e10 B/s and issues a kernel in 1 µs."""
    parameters = {"bandwidth_bytes_per_s": 1e10, "dispatch_s": 1e-6} | form
    return KernelModel.model_validate(
        {
            "runtime": runtime,
            "op": op,
            "formats": formats or ("fp32",),
            "variants": tuple(variants),
            "traffic": traffic,
            "form": KernelForm.model_validate(parameters),
            "rows": 100,
            "span": span,
            "error": error or fit_error(),
            "source": SOURCE,
            "date": DATE,
        }
    )


def with_kernels(spec: HardwareSpec, *models: KernelModel) -> HardwareSpec:
    return HardwareSpec.model_validate({**spec.model_dump(), "kernels": [m.model_dump() for m in models]})


def profile(*formats: str, transitions: bool = True) -> tuple[KernelModel, ...]:
    """Every class that the networks of the tests have, each format slower than the next by a little."""
    matrix = ("conv", "depthwise_conv", "linear", "matmul", "attention")
    found = [
        kernel(op, fmt, rate_flops_per_s=(1 + i) * 1e11, half_k=8.0, half_m=4.0, start_s=2e-6, overlap=0.5)
        for op in matrix
        for i, fmt in enumerate(formats)
    ]
    found += [kernel(op, *formats) for op in ("elementwise", "softmax", "norm", "pool", "copy", "reduction")]
    if transitions:
        found.append(kernel("transition", *formats, bandwidth_bytes_per_s=5e9))
    return tuple(found)


CALIBRATED = with_kernels(
    machine(
        {"fp32": 2e11, "bf16": 4e11, "int8": 8e11},
        (("dram", 1e10, None), ("l2", 8e10, 2e6)),
        overhead=5e-7,
        name="calibrated",
    ),
    *profile("fp32", "bf16", "int8"),
)


def in_one_float(spec: HardwareSpec) -> HardwareSpec:
    """Return a calibrated machine whose runtime computes all floating-point layers in one format."""
    return HardwareSpec.model_validate({**spec.model_dump(), "one_float_format": ("toyrun",)}).calibrated()


ONE_FLOAT = in_one_float(CALIBRATED)


def matrix_work(random: np.random.Generator, count: int, *, products: bool = False) -> Work:
    m, n, k = (np.exp(random.uniform(np.log(4), np.log(4096), count)).round() for _ in range(3))
    batch = random.integers(2, 64, count).astype(float) if products else np.ones(count)
    return Work(2 * batch * m * n * k, 4 * batch * (m * k + k * n + m * n), batch, m, n, k)


def row_work(random: np.random.Generator, count: int) -> Work:
    m, k = (np.exp(random.uniform(np.log(16), np.log(8192), count)).round() for _ in range(2))
    return Work(m * k, 8 * m * k, np.ones(count), m, np.ones(count), k)


def measured(
    form: KernelForm,
    work: Work,
    random: np.random.Generator,
    *,
    noise: float = 0.0,
    op: str = "linear",
    formats: tuple[str, ...] = ("fp32",),
    variant: str = "",
) -> list[KernelRow]:
    """Return rows whose times are the form's, with log-normal noise."""
    seconds = np.asarray(predict(form, work).total)
    seconds = seconds * np.exp(noise * random.standard_normal(len(seconds)))
    columns = zip(*(np.broadcast_to(column, seconds.shape).tolist() for column in work), strict=True)
    return [
        KernelRow("toyrun", op, formats, Work(*values), second, variant)
        for values, second in zip(columns, seconds.tolist(), strict=True)
    ]
