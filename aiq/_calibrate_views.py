"""What people see of a calibration: one row a memory level, ceiling and kernel model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from aiq.report import Column, Report
from roofline.units import percent, si

if TYPE_CHECKING:
    from aiq.calibrate import Calibration
    from hardware_specs import KernelModel

SCHEMA_VERSION = 1
_COLUMNS = (
    Column("what", "what"),
    Column("runtime", "runtime", lambda v: v or ""),
    Column("value", "rate", str, right=True),
    Column("bandwidth", "bandwidth", lambda v: si(v, "B/s"), right=True),
    Column("size", "capacity", lambda v: si(v, "B"), right=True, drop=3),
    Column("start", "overhead", lambda v: si(v, "s"), right=True, drop=2),
    Column("rows", "rows", right=True),
    Column("median", "median error", percent, right=True),
    Column("p90", "90 % of errors", percent, right=True, drop=1),
    Column("method", "on rows left out by", drop=4),
)


def calibration_report(result: Calibration) -> Report:
    """Show a calibration."""
    spec = result.spec
    rates = ", ".join(f"{fmt} {si(ceiling.value, 'FLOP/s')}" for fmt, ceiling in spec.compute.items())
    models = len(spec.kernels)
    headline = (
        f"{spec.title}: {rates}, memory {si(spec.bandwidth(), 'B/s')}, {models} kernel model{'s' * (models != 1)} for "
        f"{', '.join(spec.runtimes) or 'no runtime'}; {result.stability.sentence}"
    )
    rows = [*_levels(result), *_ceilings(result), *map(_model, spec.kernels)]
    return Report(headline, _COLUMNS, rows, list(_notes(result)), _data(result))


def next_command(result: Calibration, path: str) -> str:
    """Return a command that uses the file."""
    runtimes = result.spec.runtimes
    rates = f" --rates calibrated:{runtimes[-1]}" if runtimes else ""
    return f"aiq plan MODEL --hardware {path if '/' in path or path.endswith('.json') else f'./{path}'}{rates}"


def _levels(result: Calibration) -> Iterator[dict[str, Any]]:
    for level in result.spec.memory:
        capacity = level.capacity_bytes
        yield {
            "what": f"memory {level.name}",
            "bandwidth": level.bandwidth_bytes_per_s.value,
            "size": capacity.value if capacity else None,
        }


def _ceilings(result: Calibration) -> Iterator[dict[str, Any]]:
    for fmt, ceiling in result.spec.compute.items():
        yield {"what": f"compute {fmt}", "value": si(ceiling.value, "FLOP/s")}


def _model(model: KernelModel) -> dict[str, Any]:
    form = model.form
    return {
        "what": model.label,
        "runtime": model.runtime,
        "value": si(form.rate_flops_per_s, "FLOP/s") if form.rate_flops_per_s else None,
        "bandwidth": form.bandwidth_bytes_per_s,
        "start": max(form.dispatch_s, form.start_s),
        "rows": model.rows,
        "median": model.error.median_ape,
        "p90": model.error.p90_ape,
        "method": model.error.method,
    }


def _notes(result: Calibration) -> Iterator[str]:
    for runtime in result.spec.runtimes:
        errors = np.array([check.error for check in result.checks if check.runtime == runtime])
        yield (
            f"{runtime}: rows and changes of format add up to the measured time of {len(errors)} probe passes within "
            f"{percent(float(np.median(np.abs(errors))))} in the median, bias {100 * float(np.median(errors)):+.1f} %; "
            "these are the networks that it was fitted on"
        )
    yield f"took {result.seconds:.0f} s"
    yield from result.notes


def _data(result: Calibration) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "seconds": result.seconds,
        "stable": result.stability.stable,
        "stability": asdict(result.stability),
        "checks": [{**asdict(check), "error": check.error} for check in result.checks],
        "notes": list(result.notes),
        "machine": result.spec.model_dump(mode="json", exclude_defaults=True),
    }
