"""``aiq validate``: predict the time of many schemes, measure them on a real runtime, and say how far it was off."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import torch

from aiq import zoo
from aiq._deployed import Agreement, compare
from aiq._model import Model
from aiq._plan import make_options
from aiq._validate_layers import layer_times
from aiq._validate_result import FEWEST_ROUNDS, Prediction, Profile, Row, ValidateSettings, Validation
from aiq._validate_schemes import Pick, given, spread
from aiq.data import Split, load
from aiq.oracle import OracleContext
from aiq.quantize import Simulator
from aiq.registry import load_additive_oracle, load_runtime
from aiq.runtimes import (
    DeployError,
    Deployment,
    Executed,
    Measurement,
    Prepared,
    Runtime,
    has_one_float_format,
    measure,
    quiet_rounds,
)
from hardware_specs import HardwareSpec
from roofline import CostTable, GraphEstimate, LayerPrecision, OpGraph, Scheme, estimate
from roofline.errors import AIQError, InputError
from roofline.estimate import resolve

CALIBRATED, DATASHEET, SUSTAINED = "calibrated", "datasheet", "sustained"
_FORMATS = {"w8a8": None, "bf16": "bf16"}
_BLOCK_ROUNDS = 5
_RANDOM_EXAMPLES = 64

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Job:
    """All that a validation is to do, and nothing measured yet.

    Attributes:
        model: The model.
        graph: Its operator graph.
        hardware: The machine that predictions are for.
        costs: That machine under each cost model; the first is the one judged.
        runtime: What runs the schemes.
        deployment: What it builds them from.
        calibration: Where the ranges of activations come from.
        split: Data on which runtime and simulation are compared; ``None`` for none.
        picks: The schemes.
        settings: What was asked for.
    """

    model: Model
    graph: OpGraph
    hardware: HardwareSpec
    costs: Mapping[str, HardwareSpec]
    runtime: Runtime
    deployment: Deployment
    calibration: str
    split: Split | None
    picks: tuple[Pick, ...]
    settings: ValidateSettings

    def estimate(self, pick: Pick, batch: int, cost: str | None = None) -> GraphEstimate:
        """Return the estimate of a scheme by a cost model, by default the one judged."""
        machine = self.costs[cost or next(iter(self.costs))]
        return estimate(self.graph, machine, pick.scheme, batch=batch)


def validate(
    model: Model, hardware: HardwareSpec, settings: ValidateSettings, *, tell: Tell | None = None
) -> Validation:
    """Predict the time of many schemes, measure all of one batch size interleaved, and compare.

    Ctrl-C and errors keep what was measured by then, in blocks of at least five rounds; before the first of them they
    pass through.

    Args:
        model: From :func:`aiq.load_model`.
        hardware: The machine that this is; predictions use the kernel models calibrated for the runtime where it has
            some, and the plain roofline stands beside them.
        settings: What to predict and to measure.
        tell: Called with a line of progress now and then.

    Raises:
        UnknownNameError: An unknown runtime, or a scheme with a layer that the model has not.
        InputError: The runtime is not installed, or the machine is of another kind.
        DeployError: The runtime cannot run the network, or any of the schemes.
        AIQError: What the data, the estimate or the quantizer refuse.
    """
    started = time.perf_counter()
    say = tell or (lambda _: None)
    job = prepare(model, hardware, settings)
    measured = [_Batch(job, batch) for batch in dict.fromkeys(settings.batches)]
    refused: dict[str, str] = {}
    interrupted, stopped = False, None
    agreements: list[Agreement] = []
    try:
        for batch in measured:
            batch.run(refused, say)
        for pick in _compared(job, [row for batch in measured for row in batch.rows]):
            say(f"runtime against simulation: {pick.name}")
            agreements.append(_compare(job, pick))
    except KeyboardInterrupt:
        interrupted = True
        if not any(batch.rows for batch in measured):
            raise
    except AIQError as error:
        stopped = str(error)
        if not any(batch.rows for batch in measured):
            raise
    reasons: Counter[str] = Counter()
    for batch in measured:
        reasons.update(batch.reasons)
    return Validation(
        model.name,
        hardware,
        job.runtime.name,
        job.runtime.version(),
        settings,
        {name: machine.rates_label for name, machine in job.costs.items()},
        job.picks,
        tuple(row for batch in measured for row in batch.rows),
        refused,
        dict(reasons.most_common()),
        tuple(profile for batch in measured for profile in batch.profiles),
        tuple(agreements),
        {batch.size: batch.stolen for batch in measured if batch.stolen is not None},
        {batch.size: batch.disturbed for batch in measured if batch.disturbed},
        job.calibration,
        job.estimate(job.picks[0], settings.batches[0]).assumptions,
        interrupted,
        stopped,
        time.perf_counter() - started,
    )


def prepare(model: Model, hardware: HardwareSpec, settings: ValidateSettings) -> Job:
    """Find runtime, cost models and schemes; nothing is measured. Raises as :func:`validate` does."""
    runtime = load_runtime(settings.runtime) if isinstance(settings.runtime, str) else settings.runtime
    if (hardware.kind == "gpu") != (getattr(runtime, "device", "cpu") != "cpu"):
        raise InputError(
            f"{hardware.name} is a {hardware.kind}, and {runtime.name} runs on another kind of device. "
            "Next: give the machine that this is, for instance the file that 'aiq calibrate' writes."
        )
    graph = model.trace()
    own = given(settings.schemes, graph)
    split = None if settings.data is None else load(settings.data, "report", limit=settings.samples)
    inputs, calibration = _calibration(model, settings)
    deployment = Deployment(Simulator(model, graph, inputs))
    costs = _costs(hardware, runtime.name)
    picks = own or _spread(model, deployment, runtime, next(iter(costs.values())), settings)
    return Job(model, graph, hardware, costs, runtime, deployment, calibration, split, tuple(picks), settings)


def _costs(hardware: HardwareSpec, runtime: str) -> dict[str, HardwareSpec]:
    plain = hardware.model_copy(update={"rates": "datasheet", "runtime": ""})
    found = {CALIBRATED: hardware.calibrated(runtime)} if runtime in hardware.runtimes else {}
    found[DATASHEET] = plain
    if hardware.has_sustained():
        found[SUSTAINED] = plain.sustained()
    return found


def _spread(
    model: Model, deployment: Deployment, runtime: Runtime, machine: HardwareSpec, settings: ValidateSettings
) -> list[Pick]:
    graph = deployment.simulator.graph
    sizes = tuple(dict.fromkeys(settings.batches))
    formats = settings.formats
    if formats is None:
        runtime.prepare(deployment, Scheme(), batch=sizes[0], threads=machine.threads)
        formats = ["keep", *(text for text in _FORMATS if _runs(runtime, deployment, text, sizes[0]))]
    options = make_options(formats, machine)
    tables = {batch: CostTable(graph, machine, options, batch=batch) for batch in sizes}
    source = load_additive_oracle("weight-sqnr", OracleContext(model, graph))
    layer_options = {layer: tables[sizes[0]].layer_options(layer) for layer in graph.layers}
    losses = source.loss_table(layer_options).losses
    one_float = has_one_float_format(runtime)
    return spread(tables, losses, graph, count=settings.count, seed=settings.seed, one_float=one_float)


def _runs(runtime: Runtime, deployment: Deployment, text: str, batch: int) -> bool:
    """Whether a runtime runs one format everywhere; a 16-bit float only where some layer really computes in it."""
    try:
        prepared = runtime.prepare(deployment, Scheme.parse(text), batch=batch)
    except DeployError:
        return False
    wanted = _FORMATS[text]
    return wanted is None or any(found.compute == wanted for found in prepared.executed_precisions().values())


def _calibration(model: Model, settings: ValidateSettings) -> tuple[Any, str]:
    """Return inputs that ranges of activations are taken from, and a sentence on them."""
    own = zoo.ENTRIES[model.name].data if model.name in zoo.ENTRIES else None
    data = settings.data or (own if own == "digits" else None)
    if data is not None:
        return torch.from_numpy(np.ascontiguousarray(load(data, "calibration").x)), f"calibration split of {data}"
    made = _random(model.example, torch.Generator().manual_seed(settings.seed))
    return made, "random inputs: they serve for time, and not for accuracy"


def _random(example: Any, generator: torch.Generator) -> Any:
    if isinstance(example, dict):
        return {name: _random(value, generator) for name, value in example.items()}
    if isinstance(example, tuple):
        return tuple(_random(value, generator) for value in example)
    shape = (_RANDOM_EXAMPLES, *example.shape[1:])
    if example.is_floating_point():
        return torch.randn(shape, generator=generator).to(example.dtype)
    return torch.randint(0, 2, shape, generator=generator).to(example.dtype)


class _Batch:
    """The measurements of one batch size; what it has stays when it is interrupted."""

    def __init__(self, job: Job, size: int) -> None:
        self.job, self.size = job, size
        self.rows: list[Row] = []
        self.profiles: list[Profile] = []
        self.reasons: Counter[str] = Counter()
        self.stolen: float | None = None
        self.disturbed = 0

    def run(self, refused: dict[str, str], say: Tell) -> None:
        """Prepare, measure and profile; schemes that the runtime refuses go into ``refused``."""
        predictions = self._predictions()
        networks = self._prepared(refused, say)
        if not networks:
            raise DeployError(next(iter(refused.values())))
        inputs = self.job.deployment.example(self.size)
        samples: dict[str, list[float]] = {name: [] for name in networks}
        shares: list[tuple[int, float]] = []
        try:
            self._rounds(networks, inputs, samples, shares, say)
        finally:
            if all(samples.values()):
                self._summarise(networks, samples, predictions)
                weight = sum(count for count, _ in shares)
                self.stolen = sum(count * share for count, share in shares) / weight if weight else None
        for pick in self._profiled(networks):
            say(f"batch {self.size}: profile of {pick.name}")
            steps = networks[pick.name].profile(inputs)
            times = layer_times(self.job.estimate(pick, self.size), steps)
            self.profiles.append(Profile(pick.name, self.size, times))

    def _predictions(self) -> dict[str, dict[str, Prediction]]:
        found: dict[str, dict[str, Prediction]] = {}
        for pick in self.job.picks:
            for cost in self.job.costs:
                made = self.job.estimate(pick, self.size, cost)
                found.setdefault(pick.name, {})[cost] = Prediction(made.latency_s, made.latency_interval_s)
        return found

    def _prepared(self, refused: dict[str, str], say: Tell) -> dict[str, Prepared]:
        found: dict[str, Prepared] = {}
        for number, pick in enumerate(self.job.picks, start=1):
            if pick.name in refused:
                continue
            say(f"batch {self.size}: building scheme {number} of {len(self.job.picks)}, {pick.name}")
            try:
                found[pick.name] = self.job.runtime.prepare(
                    self.job.deployment, pick.scheme, batch=self.size, threads=self.job.hardware.threads
                )
            except DeployError as error:
                refused[pick.name] = str(error)
        return found

    def _rounds(
        self,
        networks: Mapping[str, Prepared],
        inputs: Any,
        samples: dict[str, list[float]],
        shares: list[tuple[int, float]],
        say: Tell,
    ) -> None:
        """Measure in blocks of rounds, so that an interruption loses one of them; again as often for disturbed ones."""
        total, done = self.job.settings.rounds, 0
        planned = blocks(total)
        while planned:
            rounds, goal = planned[0], done + sum(planned)
            del planned[0]

            def show(number: int, _: int, done: int = done, goal: int = goal) -> None:
                say(f"batch {self.size}: {len(networks)} schemes in turn, round {done + number} of {goal}")

            timing = measure([(network, inputs) for network in networks.values()], rounds=rounds, progress=show)
            for name, found in zip(samples, timing.measurements, strict=True):
                samples[name] += found.rounds
            if timing.stolen is not None:
                shares.append((rounds, timing.stolen))
            done += rounds
            if not planned and done + FEWEST_ROUNDS <= 2 * total:
                missing = total - int(quiet_rounds(list(samples.values())).sum())
                again = min(max(missing, FEWEST_ROUNDS), 2 * total - done)
                planned = blocks(again) if missing > 0 else []

    def _summarise(
        self,
        networks: Mapping[str, Prepared],
        samples: Mapping[str, Sequence[float]],
        predictions: Mapping[str, Mapping[str, Prediction]],
    ) -> None:
        quiet = quiet_rounds(list(samples.values()))
        self.disturbed = int((~quiet).sum())
        for pick in self.job.picks:
            if pick.name not in networks:
                continue
            executed = networks[pick.name].executed_precisions()
            self.reasons.update({found.reason for found in executed.values() if found.reason})
            self.rows.append(
                Row(
                    pick.name,
                    pick.family,
                    self.size,
                    predictions[pick.name],
                    merged(list(compress(samples[pick.name], quiet)), self.size),
                    _formats(executed),
                    sum(bool(found.reason) for found in executed.values()),
                )
            )

    def _profiled(self, networks: Mapping[str, Prepared]) -> list[Pick]:
        """Return the float model and the fastest scheme."""
        fastest = min(self.rows, key=lambda row: row.measurement.seconds).scheme
        chosen = [pick for pick in self.job.picks if pick.name in networks]
        return [pick for pick in chosen if _is_float(pick, self.job.graph) or pick.name == fastest]


def blocks(rounds: int) -> list[int]:
    """Divide rounds into blocks of at least five, as even as can be, so that an interruption loses one of them."""
    count = max(rounds // max(_BLOCK_ROUNDS, FEWEST_ROUNDS), 1)
    return [rounds // count + (place < rounds % count) for place in range(count)]


def merged(samples: Sequence[float], batch: int) -> Measurement:
    """Return the measurement that samples of all blocks together make."""
    low, median, high = np.percentile(samples, [25, 50, 75])
    return Measurement(float(median), float((high - low) / median), len(samples), batch, tuple(samples))


def _formats(executed: Mapping[str, Executed]) -> dict[str, int]:
    return dict(Counter(found.compute for found in executed.values()).most_common())


def _is_float(pick: Pick, graph: OpGraph) -> bool:
    return all(formats == LayerPrecision() for formats in resolve(graph, pick.scheme).values())


def _compared(job: Job, rows: Sequence[Row]) -> list[Pick]:
    """Return the quantized ones of uniform and given schemes, and the fastest, where there are data to compare on."""
    if job.split is None:
        return []
    largest = max(row.batch for row in rows)
    fastest = min((row for row in rows if row.batch == largest), key=lambda row: row.measurement.seconds).scheme
    measured = {row.scheme for row in rows}
    return [
        pick
        for pick in job.picks
        if pick.name == fastest
        or (pick.name in measured and pick.family in {"uniform", "given"} and not _is_float(pick, job.graph))
    ]


def _compare(job: Job, pick: Pick) -> Agreement:
    assert job.split is not None
    return compare(
        job.deployment,
        job.runtime,
        pick.scheme,
        job.split.x,
        job.split.y,
        locate=True if job.settings.locate else None,
    )
