"""Calibrate this machine: memory, compute and the kernels of each runtime, with the errors of what was fitted."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np

from aiq.calibrate._bandwidth import caches, largest_size, read_rates, sizes
from aiq.calibrate._machine import NAME_FORM, bare_machine, explained, memory_bytes, with_rates
from aiq.calibrate._measure import Probing, RuntimeTimes, measure_runtime
from aiq.calibrate._models import PassCheck, check_passes, kernel_models
from aiq.calibrate._probes import probes
from aiq.calibrate._rows import KernelRow
from aiq.calibrate._stability import Others, Reference, Stability
from aiq.quantize import Simulator
from aiq.registry import load_runtime
from aiq.runtimes import Deployment, Runtime, has_one_float_format
from aiq.runtimes._threads import processors
from aiq.runtimes._torch import _threads as torch_threads
from hardware_specs import Ceiling, HardwareSpec, KernelModel
from roofline import Scheme
from roofline.errors import AIQError, InputError

# PyTorch only where neither is installed.
DEFAULT_RUNTIMES = ("openvino", "onnxruntime")
# Measured before any other is imported: with ONNX Runtime 1.31 in the process, each op of OpenVINO 2026.4 takes 0.3 µs
# longer, which is a fifth of a small pass; the other way round nothing changes.
_FIRST = "openvino"
# Its share of the time, where another follows: it has three formats to measure where others have two.
_FIRST_SHARE = 0.55
# Of all the time, for the first build of each probe network, which exports it.
_BUILDING = 0.35
LEAST_SECONDS = 5.0
_MEASURING = 0.89
_NOMINAL = ("fp32", "bf16", "int8")

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Calibration:
    """A calibrated machine.

    Attributes:
        spec: What the file holds; ``spec.kernels[i].error`` is the error of each model on rows not fitted.
        rows: Measured times that the models were fitted to.
        checks: Whole passes of the probe networks, measured and predicted.
        stability: Whether the machine held still.
        notes: What was left out, and why.
        seconds: Wall-clock seconds that it took.
    """

    spec: HardwareSpec
    rows: tuple[KernelRow, ...]
    checks: tuple[PassCheck, ...]
    stability: Stability
    notes: tuple[str, ...]
    seconds: float


def calibrate(
    runtimes: Sequence[str | Runtime] | None = None,
    *,
    seconds: float = 60.0,
    threads: int | None = None,
    name: str = "local",
    seed: int = 0,
    progress: Tell | None = None,
) -> Calibration:
    """Measure this machine and fit the kernel models of its runtimes, without counters or compiler.

    Reads working sets from 16 KiB to four times the last cache; then runs small networks of many shapes through each
    runtime, in each of its formats and in mixtures of them, profiled and not; fits one kernel model for each class of
    ops and format, and scales them so that rows and changes of format add up to whole passes. What does not fit into
    the time is left out, the least telling first, and the notes say so.

    Args:
        runtimes: Names or runtimes, calibrated in this order but for ``openvino``, which goes first; by default
            ``openvino`` and ``onnxruntime`` as far as they are installed, else ``torch``.
        seconds: Time to take on a machine that does nothing else, at least 5.
        threads: Threads of memory reads and of each pass; by default all processors that this process may use.
        name: The machine's short name, for the file.
        seed: Of weights, inputs and random mixtures.
        progress: Called with a line now and then.

    Raises:
        UnknownNameError: An unknown runtime.
        InputError: A runtime is not installed, or a setting is out of range.
        DeployError: A runtime cannot run the probe networks.
    """
    started = time.perf_counter()
    say = progress or (lambda _: None)
    workers = _checked(seconds, threads, name)
    chosen = _runtimes(runtimes)
    date = datetime.date.today().isoformat()
    reference, others = Reference(workers), Others()
    reference.sample()
    say("memory: reading working sets by size")
    bare = _memory(name, workers, date)
    reference.sample()
    say("tracing the probe networks")
    measured: list[RuntimeTimes] = []
    # Tracing, ranges and export are small work, which several threads make slower; runtimes have their own.
    with torch_threads(1):
        probings = _probings(bare, seed)
        say("exporting the probe networks")
        _build(chosen[0], probings, workers, until=started + _BUILDING * seconds)
        for number, runtime in enumerate(chosen):
            left = max(started + _MEASURING * seconds - time.perf_counter(), 0.0)
            follow = len(chosen) - number - 1
            part = _FIRST_SHARE if follow == 1 and runtime.name == _FIRST else 1.0 / (follow + 1)
            measured.append(
                measure_runtime(runtime, probings, seconds=part * left, threads=workers, seed=seed, tell=say)
            )
            reference.sample()
    stability = _stability(reference, measured, others)
    one_float = {runtime.name for runtime in chosen if has_one_float_format(runtime)}
    spec, rows, notes = _fitted(bare, measured, one_float, date, say)
    checks = tuple(check for times in measured for check in check_passes(times, spec))
    taken = time.perf_counter() - started
    ran = ", ".join(times.version for times in measured)
    note = f"Calibrated on {date} in {taken:.0f} s with {ran}. {stability.sentence.capitalize()}."
    spec = HardwareSpec.model_validate({**spec.model_dump(), "note": " ".join([note, *(f"{n}." for n in notes)])})
    return Calibration(spec, tuple(rows), checks, stability, tuple(notes), taken)


def _checked(seconds: float, threads: int | None, name: str) -> int:
    if not seconds >= LEAST_SECONDS:
        raise InputError(f"a calibration takes at least {LEAST_SECONDS:.0f} s, got {seconds:g}. Next: raise --seconds.")
    if not NAME_FORM.fullmatch(name):
        raise InputError(
            f"a machine's name has small letters, digits and hyphens, got {name!r}. Next: write for instance local."
        )
    most = processors()
    if threads is not None and not 1 <= threads <= most:
        raise InputError(f"threads must be 1 to {most}, got {threads}. Next: choose a number of processors.")
    return threads or most


def _runtimes(given: Sequence[str | Runtime] | None) -> list[Runtime]:
    if given:
        loaded = [load_runtime(each) if isinstance(each, str) else each for each in given]
        named = {runtime.name: runtime for runtime in loaded}
        return sorted(named.values(), key=lambda runtime: runtime.name != _FIRST)
    found = []
    for each in DEFAULT_RUNTIMES:
        with contextlib.suppress(AIQError):
            found.append(load_runtime(each))
    return found or [load_runtime("torch")]


def _memory(name: str, threads: int, date: str) -> HardwareSpec:
    known = caches(threads)
    largest = largest_size(known)
    if (memory := memory_bytes()) is not None:
        largest = int(min(largest, memory / 8))
    working_sets = sizes(largest)
    together = read_rates(working_sets, threads=threads)
    alone = read_rates(working_sets, threads=1) if threads > 1 else together
    return bare_machine(alone, together, known, name=name, threads=threads, date=date)


def _probings(bare: HardwareSpec, seed: int) -> list[Probing]:
    """Return the probe networks, on a machine that has a ceiling of every format: their bytes are what counts."""
    rate = bare.compute["fp32"]
    nominal = bare.model_copy(update={"compute": {fmt: Ceiling(**rate.model_dump()) for fmt in _NOMINAL}})
    found = []
    for probe in probes(seed):
        simulator = Simulator(probe.model, probe.model.trace(), probe.inputs)
        found.append(Probing(Deployment(simulator), nominal))
    return found


def _build(runtime: Runtime, probings: Sequence[Probing], threads: int, *, until: float) -> None:
    """Build each probe network once, so that what is done only once is no part of any runtime's time."""
    for probing in probings:
        if time.perf_counter() > until:
            return
        with contextlib.suppress(AIQError):
            runtime.prepare(probing.deployment, Scheme(), batch=1, threads=threads)


def _stability(reference: Reference, measured: Sequence[RuntimeTimes], others: Others) -> Stability:
    spreads = [done.spread for times in measured for done in times.passes]
    stolen = [times.stolen for times in measured if times.stolen is not None]
    return Stability(reference.drift, float(np.median(spreads)), max(stolen) if stolen else None, others.share())


def _fitted(
    bare: HardwareSpec, measured: Sequence[RuntimeTimes], one_float: Set[str], date: str, say: Tell
) -> tuple[HardwareSpec, list[KernelRow], list[str]]:
    models: list[KernelModel] = []
    rows: list[KernelRow] = []
    notes: list[str] = []
    common: dict[str, float] = {}
    for times in measured:
        say(f"{times.runtime}: fitting kernel models")
        source = (
            f"profiles and passes of probe networks at {_batches(times)} by {times.version} on "
            f"{bare.title.partition(' (')[0]}, {date}"
        )
        found = kernel_models(times, bare, source=source, date=date, versions=_version(times))
        models += found.models
        rows += found.rows
        notes += _notes(times, found.short)
        if found.common_variance is not None:
            common[times.runtime] = found.common_variance
    versions = {times.runtime: times.version for times in measured}
    fitted = dict.fromkeys(model.runtime for model in models)
    facts = {
        "kernels": tuple(models),
        "one_float_format": tuple(name for name in fitted if name in one_float),
        "common_variance": {name: common[name] for name in fitted if name in common},
    }
    return explained(with_rates(bare, rows, versions, date).model_copy(update=facts)), rows, notes


def _batches(times: RuntimeTimes) -> str:
    found = sorted({done.job.batch for done in times.passes})
    return f"batch {', '.join(map(str, found))}"


def _version(times: RuntimeTimes) -> dict[str, str]:
    name, _, version = times.version.rpartition(" ")
    return {name or times.runtime: version}


def _notes(times: RuntimeTimes, short: Sequence[str]) -> list[str]:
    found = [f"{times.runtime} has no {fmt}: {reason.rstrip('.')}" for fmt, reason in times.refused.items()]
    if not times.named:
        found.append(f"{times.runtime} tells no layers apart in its profile: no kernel models")
    if times.left_out:
        found.append(f"{times.runtime}: {times.left_out} networks were left out for lack of time, raise --seconds")
    if short:
        found.append(f"{times.runtime}: too few rows for a model of {', '.join(sorted(set(short)))}")
    return found
