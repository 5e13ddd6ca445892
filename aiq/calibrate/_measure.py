"""Time the probe networks on one runtime: rows in every format, and what changes of format cost beside them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from aiq.calibrate._attribution import attribute
from aiq.calibrate._rows import KernelRow, kernel_rows
from aiq.runtimes import DeployError, Deployment, Prepared, Runtime, Step, measure
from aiq.runtimes._measure import LONG
from aiq.runtimes._threads import processors
from hardware_specs import HardwareSpec
from roofline import GraphEstimate, LayerPrecision, Precision, Scheme, estimate
from roofline.estimate import resolve
from roofline.graph import CONV_KINDS, MATRIX_KINDS
from roofline.kernels import beside_of
from roofline.scheme import Rule
from roofline.traffic import Row, build_rows

# Codes and scales do not matter to the time: the recipe that is found fastest.
FORMATS: Mapping[str, str] = {"fp32": "keep", "int8": "w8a8@nearest+max+channel+nobias", "bf16": "bf16"}
BATCHES = (32, 1, 8)
LEAST_SECONDS = 1e-7
_ROUNDS = (3, 9)
_PASSES = (3, 20)
_PROFILE_S = 0.1
_SAMPLE_S = 0.008
_WARM_UP = 1
_FEWEST_PASSES = 3
# Share of a runtime's time in which networks are built.
_BUILDING = 0.5
# A step that stands for all that a profile does not tell apart: it is shared out like the rest of a pass.
_ELSEWHERE = "elsewhere"

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Probing:
    """A probe network on its way to runtimes.

    Attributes:
        deployment: What they build from.
        machine: Any machine; bytes do not depend on its rates.
    """

    deployment: Deployment
    machine: HardwareSpec

    def rows(self, batch: int) -> tuple[Row, ...]:
        """Return the rows of its estimates."""
        return build_rows(self.deployment.simulator.graph, traffic="fused", batch=batch)

    def estimate(self, scheme: Scheme, batch: int) -> GraphEstimate:
        """Return the estimate of a scheme, for its bytes and changes of format."""
        return estimate(self.deployment.simulator.graph, self.machine, scheme, batch=batch)


@dataclass(frozen=True, eq=False)
class Job:
    """One probe network in one scheme at one batch size.

    Attributes:
        probing: The network.
        label: ``fp32``, …; of a mixed scheme ``int8+fp32``.
        scheme: The scheme.
        batch: Samples in a pass.
    """

    probing: Probing
    label: str
    scheme: Scheme
    batch: int

    @property
    def name(self) -> str:
        """For progress and files."""
        return f"{self.probing.deployment.name} {self.label} batch {self.batch}"

    @cached_property
    def formats(self) -> dict[str, str]:
        """Format of each layer."""
        found = resolve(self.probing.deployment.simulator.graph, self.scheme)
        return {layer: f.activations.name if f.activations else "fp32" for layer, f in found.items()}


@dataclass(frozen=True, eq=False)
class Pass:
    """What was measured of a job.

    Attributes:
        job: The job.
        seconds: Wall-clock seconds of one pass, not profiled.
        spread: Interquartile range over the median.
        row_seconds: Seconds of each row, which add up to ``seconds``; ``None`` of a mixed scheme.
    """

    job: Job
    seconds: float
    spread: float
    row_seconds: NDArray[np.float64] | None


@dataclass(frozen=True, eq=False)
class RuntimeTimes:
    """What was measured on one runtime.

    Attributes:
        runtime: Its name.
        version: Name and version of its library.
        formats: Formats that it runs the probes in.
        passes: Measured jobs.
        refused: Why a format is missing, by format.
        left_out: Jobs for which there was no time.
        stolen: Share of processor time that went to other machines meanwhile; ``None`` where it is not told.
        named: Whether its profile tells layers apart; else there are no rows.
    """

    runtime: str
    version: str
    formats: tuple[str, ...]
    passes: tuple[Pass, ...]
    refused: Mapping[str, str]
    left_out: int
    stolen: float | None
    named: bool


def measure_runtime(
    runtime: Runtime,
    probings: Sequence[Probing],
    *,
    seconds: float,
    threads: int | None = None,
    seed: int = 0,
    tell: Tell | None = None,
) -> RuntimeTimes:
    """Prepare, profile and time as many jobs as fit into the time; the most telling ones first.

    Networks are built on all processors at once, and nothing is timed meanwhile. Uniform schemes are profiled once
    each; then all networks run in turn, without a profile. At least one job is done.

    Args:
        runtime: What runs them.
        probings: The probe networks.
        seconds: Time to take, seconds.
        threads: Of one pass; by default all processors.
        seed: Of the random mixed schemes.
        tell: Called with a line of progress.

    Raises:
        DeployError: The runtime runs none of the probes in floating point.
    """
    say = tell or (lambda _: None)
    end = time.perf_counter() + seconds
    formats, refused = _formats(runtime, probings[0], threads)
    jobs = list(_jobs(probings, formats, seed))
    say(f"{runtime.name}: building probe networks")
    built = _built(runtime, jobs, threads, until=time.perf_counter() + _BUILDING * (end - time.perf_counter()))
    prepared: dict[Job, Prepared] = {}
    profiles: dict[Job, NDArray[np.float64]] = {}
    named, later = True, 0.0
    for job, network in built.items():
        if prepared and time.perf_counter() + later > end:
            break
        say(f"{runtime.name}: {job.name}")
        inputs = job.probing.deployment.example(job.batch)
        once = _once(network, inputs)
        later += _round_s(once) * (_ROUNDS[0] + _WARM_UP)
        prepared[job] = network
        if "+" not in job.label:
            passes = int(np.clip(_PROFILE_S / max(once, 1e-6), *_PASSES))
            steps = network.profile(inputs, passes=passes)
            named = named and any(step.layers for step in steps)
            profiles[job] = _attributed(job, steps)
    left_out = len(jobs) - len(prepared)
    networks = [(network, job.probing.deployment.example(job.batch)) for job, network in prepared.items()]
    spare = (end - time.perf_counter()) / max(later / (_ROUNDS[0] + _WARM_UP), 1e-9) - _WARM_UP
    rounds = int(np.clip(spare, *_ROUNDS))
    say(f"{runtime.name}: {len(networks)} networks in turn, {rounds} rounds")
    timing = measure(networks, rounds=rounds, sample_s=_SAMPLE_S)
    walls = {job: taken.seconds for job, taken in zip(prepared, timing.measurements, strict=True)}
    each_s = overhead_s(list(profiles.values()), [walls[job] for job in profiles])
    found = []
    for job, taken in zip(prepared, timing.measurements, strict=True):
        rows = spread_over(profiles[job], taken.seconds, each_s) if job in profiles and named else None
        found.append(Pass(job, taken.seconds, taken.spread, rows))
    return RuntimeTimes(runtime.name, runtime.version(), formats, tuple(found), refused, left_out, timing.stolen, named)


def _built(runtime: Runtime, jobs: Sequence[Job], threads: int | None, *, until: float) -> dict[Job, Prepared]:
    """Build networks in this order on all processors until the time is over, at least one."""
    queue, found = iter(jobs), dict[Job, Prepared]()
    turn = Lock()

    def work() -> None:
        while True:
            with turn:
                job = next(queue, None) if not found or time.perf_counter() < until else None
            if job is None:
                return
            network = _prepared(runtime, job, threads)
            if "+" not in job.label:
                network.profile(job.probing.deployment.example(job.batch), passes=1)
            found[job] = network

    with ThreadPoolExecutor(processors()) as pool:
        for done in [pool.submit(work) for _ in range(processors())]:
            done.result()
    return {job: found[job] for job in jobs if job in found}


def _round_s(once: float) -> float:
    """Return what a round takes for a network, with the passes before a sample that are not timed."""
    return once if once >= LONG * _SAMPLE_S else 1.5 * max(once, _SAMPLE_S)


def _attributed(job: Job, steps: Sequence[Step]) -> NDArray[np.float64]:
    rows, priced = job.probing.rows(job.batch), job.probing.estimate(job.scheme, job.batch).layers
    shares = np.array([layer.latency_s for layer in priced])
    told = [step for step in steps if step.kind != _ELSEWHERE]
    return attribute(job.probing.deployment.simulator.graph, rows, told, shares)


def _formats(runtime: Runtime, probing: Probing, threads: int | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the formats that a runtime has kernels for, and why not the others."""
    found: list[str] = []
    refused: dict[str, str] = {}
    for name in FORMATS:
        job = Job(probing, name, _uniform(name), 1)
        try:
            network = _prepared(runtime, job, threads)
        except DeployError as error:
            if name == "fp32":
                raise
            refused[name] = str(error)
            continue
        executed = network.executed_precisions()
        ran = [each.compute for each in executed.values()]
        if name in {"fp32", "int8"} or ran.count(name) > len(ran) // 2:
            found.append(name)
        else:
            reasons = [each.reason for each in executed.values() if each.reason]
            refused[name] = max(reasons, key=reasons.count) if reasons else f"no {name} kernel ran"
    return tuple(found), refused


def _jobs(probings: Sequence[Probing], formats: Sequence[str], seed: int) -> Iterator[Job]:
    """Yield jobs, the most telling first."""
    large, small, medium = BATCHES
    pairs = [("int8", other) for other in formats if other != "int8"] if "int8" in formats else []
    for batch in (large, small):
        for name in formats:
            yield from (Job(probing, name, _uniform(name), batch) for probing in probings)
    random = np.random.default_rng(seed)
    # Both batch sizes of a network in one go: large passes alone do not tell the number of changes from their bytes.
    # Those of one pixel a sample, whose changes may cost most, are first.
    ends = sorted(probings, key=_last_pixels)
    for half in (((large, None), (small, random)), ((large, random), (small, None))):
        for probing in ends:
            for pair in pairs:
                for batch, order in half:
                    yield Job(probing, "+".join(pair), _mixed(probing, pair, order), batch)
    for name in formats:
        yield from (Job(probing, name, _uniform(name), medium) for probing in probings)


def _last_pixels(probing: Probing) -> int:
    """Return the positions of a sample in the last convolution of a network."""
    extents = [row.extents for row in probing.rows(1) if row.kind in CONV_KINDS and row.extents]
    return extents[-1].m if extents else 0


def _uniform(name: str) -> Scheme:
    return Scheme(LayerPrecision.parse(FORMATS[name]), name=name)


def _mixed(probing: Probing, pair: Sequence[str], random: np.random.Generator | None) -> Scheme:
    """Return a scheme of two formats in turn, or at random."""
    first, second = (LayerPrecision.parse(FORMATS[name]) for name in pair)
    layers = probing.deployment.simulator.graph.layers
    chosen = [number % 2 == 1 if random is None else bool(random.random() < 0.5) for number in range(len(layers))]
    rules = tuple(Rule(layer, second) for layer, other in zip(layers, chosen, strict=True) if other)
    return Scheme(first, rules, name="+".join(pair))


def _prepared(runtime: Runtime, job: Job, threads: int | None) -> Prepared:
    return runtime.prepare(job.probing.deployment, job.scheme, batch=job.batch, threads=threads)


def _once(network: Prepared, inputs: Sequence[NDArray[np.generic]]) -> float:
    network.run(inputs)
    started = time.perf_counter()
    network.run(inputs)
    return time.perf_counter() - started


def overhead_s(profiles: Sequence[NDArray[np.float64]], walls_s: Sequence[float]) -> float:
    """Return what a row takes beyond its steps of the profile: calling it, or, below 0, what taking its time costs.

    ``wall = a · Σ steps + overhead · rows`` in least squares over passes, each weighted by its wall, with ``a`` between
    a half and twice.

    Args:
        profiles: Seconds of rows from the profile, one array a pass.
        walls_s: Of the same passes without a profile.
    """
    if len(profiles) < _FEWEST_PASSES:
        return 0.0
    steps, rows = np.array([(each.sum(), (each > 0).sum()) for each in profiles]).T
    walls = np.array(walls_s)
    terms = np.stack([steps, rows], axis=1) / walls[:, None]
    scale = float(np.clip(np.linalg.lstsq(terms, np.ones(len(walls)))[0][0], 0.5, 2.0))
    weights = rows / walls
    return float(weights @ (1.0 - scale * steps / walls) / (weights @ weights))


def spread_over(row_seconds: NDArray[np.float64], wall_s: float, each_s: float) -> NDArray[np.float64]:
    """Make rows add up to the time of a whole pass: each that ran takes its overhead, then all are scaled.

    Args:
        row_seconds: From the profile, [rows].
        wall_s: Of a pass that is not profiled.
        each_s: Overhead of a row; one below 0 leaves a row a quarter of its time at least.
    """
    taken = np.where(row_seconds > 0, np.maximum(row_seconds + each_s, 0.25 * row_seconds), 0.0)
    total = float(taken.sum())
    return taken * (wall_s / total) if total > 0 else taken


@dataclass(frozen=True, slots=True)
class Changes:
    """What the changes of format of one mixed pass take together.

    Attributes:
        formats: The two formats.
        counts: Transitions of the estimate by what lies beside them (:func:`roofline.kernels.beside_of`).
        bytes: That these read and write.
        seconds: What the pass takes beyond its rows as they ran in uniform schemes; below 0 where noise is larger.
        pass_s: What the pass takes: the noise grows with it.
    """

    formats: tuple[str, str]
    counts: Mapping[str, int]
    bytes: Mapping[str, float]
    seconds: float
    pass_s: float


def measured_rows(times: RuntimeTimes) -> list[KernelRow]:
    """Return the rows of uniform schemes; rows that do matrix work and took no time ran inside others."""
    found = (
        _uniform_rows(times.runtime, done.job, done.row_seconds)
        for done in times.passes
        if done.row_seconds is not None
    )
    return [row for rows in found for row in rows]


def measured_changes(times: RuntimeTimes) -> list[Changes]:
    """Return what changes of format took in each mixed pass whose formats were measured by themselves."""
    uniform = {_key(done.job, done.job.label): done.row_seconds for done in times.passes}
    found = (_changes(done, uniform) for done in times.passes if "+" in done.job.label)
    return [each for each in found if each]


def _key(job: Job, label: str) -> tuple[str, int, str]:
    return job.probing.deployment.name, job.batch, label


def _uniform_rows(runtime: str, job: Job, row_seconds: NDArray[np.float64]) -> list[KernelRow]:
    probing = job.probing
    seconds = {
        row.name: max(taken, LEAST_SECONDS)
        for row, taken in zip(probing.rows(job.batch), row_seconds.tolist(), strict=True)
        if row.moved and (taken > 0 or row.kind not in MATRIX_KINDS)
    }
    graph = probing.deployment.simulator.graph
    found = kernel_rows(graph, probing.machine, job.scheme, seconds, runtime=runtime, batch=job.batch)
    return [replace(row, run=job.name) for row in found]


def _changes(done: Pass, uniform: Mapping[tuple[str, int, str], NDArray[np.float64] | None]) -> Changes | None:
    job = done.job
    first, second = job.label.split("+")
    parts = {name: uniform.get(_key(job, name)) for name in (first, second)}
    transitions = job.probing.estimate(job.scheme, job.batch).transitions
    if not transitions:
        return None
    plain = 0.0
    rows = job.probing.rows(job.batch)
    for index, row in enumerate(rows):
        part = parts[job.formats[row.anchor]]
        if part is None:
            return None
        plain += float(part[index])
    named = {row.name: row for row in rows}
    counts, moved = Counter[str](), Counter[str]()
    for change in transitions:
        source, target = Precision.parse(change.source).bits, Precision.parse(change.target).bits
        beside = beside_of(named[change.producer], named[change.consumer], narrows=target < source)
        counts[beside] += 1
        moved[beside] += change.elements * (source + target) // 8
    return Changes((first, second), counts, moved, done.seconds - plain, done.seconds)


def with_enough(rows: Sequence[KernelRow], fewest: int, apart: int) -> tuple[list[KernelRow], list[str]]:
    """Return rows of which every class and format has enough to fit, and the classes that have not.

    Formats of a class are taken together where one of them has fewer than ``apart`` rows; a class that has fewer than
    ``fewest`` in all is left out.
    """
    kept: list[KernelRow] = []
    short: list[str] = []
    classes: dict[str, list[KernelRow]] = {}
    for row in rows:
        classes.setdefault(row.op, []).append(row)
    for op, group in classes.items():
        formats = dict.fromkeys(row.formats for row in group)
        joined = tuple(dict.fromkeys(name for each in formats for name in each))
        if len(group) < fewest:
            short.append(op)
        elif min(sum(row.formats == each for row in group) for each in formats) >= apart:
            kept += group
        else:
            kept += [replace(row, formats=joined) for row in group]
    return kept, short
