"""Fit the T4's kernel models to public measurements, and state their error on the rows that were not fitted.

``python benchmarks/t4_profile.py FILE.csv [--write CATALOGUE_FILE]``

The file has the columns op, latency_s and shape: kernel times of NeuSight on a real T4, eager PyTorch, FP32. For each
class of ops 200 rows, drawn by a fixed seed, are fitted; all others are the test. With ``--write`` the ``[[kernels]]``
of the machine's file are replaced.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from aiq.calibrate import KernelRow, fit_kernels, held_out_error
from hardware_specs import KernelModel
from roofline.kernels import Work
from roofline.ops import elementwise_flops, norm_flops, softmax_flops

SEED = 20261121
FITTED = 200
DATE = "2026-11-21"
L2_BYTES = 4 * 2**20
CLASSES = {"linear": "linear", "bmm": "matmul", "conv": "conv", "softmax": "softmax", "layernorm": "norm"}
TENSORS = {"add": 3, "mul": 3}
CONV_NOTE = (
    "The rate is above the FP32 peak: cuDNN's Winograd kernels multiply less often than is counted (3x3, stride 1). "
    "Below 1 GFLOP measured times scatter between 0.07 and 0.6 ms at any size."
)
Split = tuple[list[KernelRow], list[KernelRow]]


def read_rows(path: Path) -> dict[str, list[KernelRow]]:
    """Return the measured rows by class of ops, in the order of the file; each tensor counts once."""
    found: dict[str, list[KernelRow]] = {}
    with path.open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            sizes = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line["shape"])}
            op = CLASSES.get(line["op"], "elementwise")
            variant = "3x3" if op == "conv" else ""
            row = KernelRow("eager", op, ("fp32",), _work(line["op"], sizes), float(line["latency_s"]), variant)
            found.setdefault(op, []).append(row)
    return found


def _work(op: str, sizes: dict[str, int]) -> Work:
    if op == "conv":
        m = sizes["B"] * sizes["in_size"] ** 2
        n, k = sizes["out_channels"], sizes["in_channels"] * sizes["kernel"] ** 2
        values = m * (sizes["in_channels"] + n) + n * k
        return Work(2 * m * n * k, 4 * values, 1, m, n, k)
    if op in {"linear", "bmm"}:
        count, m, n, k = (sizes[name] for name in "BMNK")
        return Work(2 * count * m * n * k, 4 * count * (m * k + k * n + m * n), count, m, n, k)
    shape = sizes["B"], sizes["H"]
    flops = {"softmax": softmax_flops(shape), "layernorm": norm_flops("layer_norm", shape)}
    values = TENSORS.get(op, 2) * shape[0] * shape[1]
    return Work(flops.get(op, elementwise_flops(shape)), 4 * values, 1, shape[0], 1, shape[1])


def split(rows: list[KernelRow]) -> Split:
    """Return the rows to fit and the rows to test on."""
    order = np.random.default_rng(SEED).permutation(len(rows))
    return [rows[i] for i in order[:FITTED]], [rows[i] for i in order[FITTED:]]


def fit_rows(fitted: list[KernelRow], test: list[KernelRow]) -> KernelModel:
    """Fit the model of one class, with the error on its test rows."""
    source = (
        f"{len(fitted)} of {len(fitted) + len(test)} rows drawn with seed {SEED}, error on the others; FP32 kernel "
        f"times on an NVIDIA T4 in NeuSight, https://github.com/sitar-lab/NeuSight, MIT, accessed {DATE}"
    )
    versions = {"torch": "2.1", "cuda": "12.1"}
    (model,) = fit_kernels(
        fitted, source=source, date=DATE, versions=versions, traffic="unfused", largest_cache_bytes=L2_BYTES
    )
    note = CONV_NOTE if model.op == "conv" else ""
    return model.model_copy(update={"error": held_out_error(model, test), "note": note})


def to_toml(model: KernelModel) -> Iterator[str]:
    """Write one model as a table of an array; fields at their defaults are left out."""
    data = model.model_dump(mode="json", exclude_defaults=True)
    tables = {key: value for key, value in data.items() if isinstance(value, dict)}
    yield "[[kernels]]"
    yield from (f"{key} = {_value(value)}" for key, value in data.items() if key not in tables)
    for key, table in tables.items():
        yield f"\n[kernels.{key}]"
        yield from (f"{name} = {_value(value)}" for name, value in table.items())


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float):
        return repr(float(f"{value:.6g}")) if 1e-3 <= value < 1e6 else f"{value:.6g}".replace("e+", "e")
    return f'"{value}"' if isinstance(value, str) else str(value)


def main(arguments: list[str]) -> None:
    path, *rest = arguments
    models = [fit_rows(*split(rows)) for rows in read_rows(Path(path)).values()]
    for model in models:
        error = model.error
        low, high = error.interval or (0.0, 0.0)
        print(
            f"{model.op:12} {model.rows} fitted, {error.rows} tested: mean {error.mean_ape:.1%}, "
            f"median {error.median_ape:.1%}, p90 {error.p90_ape:.1%}, interval {low:.2f}–{high:.2f} covers "
            f"{error.coverage or 0:.1%}"
        )
    if rest[:1] == ["--write"]:
        target = Path(rest[1])
        text = target.read_text("utf-8").partition("\n[[kernels]]")[0].rstrip("\n")
        tables = "\n\n".join("\n".join(to_toml(model)) for model in models)
        target.write_text(f"{text}\n\n{tables}\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
