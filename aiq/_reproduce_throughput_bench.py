"""Experiment 3, the bench: networks of all runtimes built, timed in turn, judged on images, and profiled."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray

import aiq.runtimes
from aiq._deployed import run_all
from aiq._reproduce_lab import Lab, Tell
from aiq._reproduce_measure import Measured
from aiq._reproduce_throughput_schemes import BF16, FP32, Pick, formats_of
from aiq._validate import blocks, merged
from aiq._validate_result import Prediction
from aiq._validate_stats import RESAMPLES, Figure
from aiq.cache import CachedOracle, EvaluationStore, canonical_scheme
from aiq.data import Split, check_labels
from aiq.digest import code_digest, layers_digest
from aiq.oracle import Evaluation, Metric
from aiq.runtimes import DeployError, Deployment, Executed, Measurement, Prepared, Runtime, Step, measure
from aiq.runtimes._threads import processors
from aiq.runtimes._torch import _threads as torch_threads
from hardware_specs import HardwareSpec
from roofline import LayerPrecision, Scheme, estimate
from roofline.estimate import resolve

CONVERSIONS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "FakeQuantize", "Reorder", "ReorderInput", "ReorderOutput", "Transpose",
     "Cast", "Convert"}
)  # fmt: skip
_ENDS = (2.5, 97.5)
Classes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Judged:
    """A deployed scheme on the report split, image by image.

    Attributes:
        deployed: Whether the runtime is right.
        simulated: Whether the simulation is.
        agreeing: Whether both choose the same class.
    """

    deployed: Evaluation
    simulated: Evaluation
    agreeing: Evaluation


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of a pass goes, by the runtime's own profile.

    Attributes:
        layers: Seconds of the kernels of each layer that has some of its own.
        conversions_s: Seconds of steps that change format or order of a tensor, weights included.
        others_s: Seconds of all other steps.
    """

    layers: Mapping[str, float]
    conversions_s: float
    others_s: float

    @property
    def layers_s(self) -> float:
        """Seconds of all layers."""
        return sum(self.layers.values())

    @property
    def total_s(self) -> float:
        """Seconds of all steps."""
        return self.layers_s + self.conversions_s + self.others_s

    @classmethod
    def of(cls, steps: Sequence[Step], layers: Sequence[str]) -> Profile:
        """Add up the steps of a profile; one counts for the first layer that it names."""
        own: dict[str, float] = {}
        conversions = others = 0.0
        for step in steps:
            if not math.isfinite(step.seconds):
                continue
            layer = step.layers[0] if step.layers and step.layers[0] in layers else None
            if step.kind in CONVERSIONS:
                conversions += step.seconds
            elif layer is None:
                others += step.seconds
            else:
                own[layer] = own.get(layer, 0.0) + step.seconds
        return cls(own, conversions, others)


@dataclass(frozen=True, eq=False)
class Row:
    """One scheme on one runtime.

    Attributes:
        runtime: The runtime's name.
        pick: The scheme.
        same_as: An earlier scheme of the same formats, whose measurements these are; empty where there is none.
        asked: Layers by the format that the scheme gives them.
        executed: What each layer really ran as.
        measurement: What the stopwatch said.
        predicted: By the kernel models of the machine; ``None`` where it has none of the runtime.
        judged: On the report split; ``None`` where that was not reached.
        profile: ``None`` where that was not reached, or the runtime tells none.
    """

    runtime: str
    pick: Pick
    same_as: str
    asked: Mapping[str, int]
    executed: Mapping[str, Executed] = field(repr=False)
    measurement: Measurement
    predicted: Prediction | None
    judged: Judged | None
    profile: Profile | None

    @property
    def ran(self) -> Mapping[str, int]:
        """Layers by the format that they really computed in."""
        return dict(Counter(found.compute for found in self.executed.values()))

    @property
    def reasons(self) -> Mapping[str, int]:
        """Why layers did not run as the scheme says, with how many each concerns."""
        return dict(Counter(found.reason for found in self.executed.values() if found.reason).most_common())

    def measured(self, base: Row) -> Measured | None:
        """Return the accuracy of what the runtime predicts, and its change against another scheme's."""
        if self.judged is None or base.judged is None:
            return None
        return Measured.of(base.judged.deployed, self.judged.deployed)


def faster(row: Measurement, base: Measurement, *, seed: int = 0) -> Figure:
    """Return a throughput over another of the same run, with a 95 % interval from resampled rounds."""
    mine, others = np.array(row.rounds), np.array(base.rounds)
    drawn = np.random.default_rng(seed).integers(len(mine), size=(RESAMPLES, len(mine)))
    ratios = np.median(others[drawn], axis=1) / np.median(mine[drawn], axis=1)
    scale = row.batch / base.batch
    low, high = np.percentile(scale * ratios, _ENDS)
    return Figure(row.throughput / base.throughput, float(low), float(high), len(mine))


@dataclass(frozen=True, eq=False)
class _Counts:
    """An oracle of what is right or equal, example by example."""

    metric: Metric
    fingerprint: Mapping[str, str]
    outcomes: Callable[[Scheme], NDArray[np.bool_]]

    def evaluate(self, scheme: Scheme) -> Evaluation:
        """Count one scheme."""
        started = time.perf_counter()
        found = self.outcomes(scheme)
        n, value = len(found), float(found.mean())
        return Evaluation(value, math.sqrt(value * (1 - value) / n), n, found, time.perf_counter() - started)


class Judge:
    """Runs deployed schemes on the report split beside their simulation; what was counted once comes from the cache.

    Args:
        lab: The network, and the count of evaluations.
        deployment: What runtimes build from.
        split: The images.
        store: The cache.
    """

    def __init__(self, lab: Lab, deployment: Deployment, split: Split, store: EvaluationStore) -> None:
        self.lab, self.deployment, self.split, self.store = lab, deployment, split, store
        self.labels = check_labels(split)
        self._simulated: dict[str, Classes] = {}

    def judge(self, runtime: Runtime, prepared: Prepared, scheme: Scheme) -> Judged:
        """Judge one scheme.

        Raises:
            DeployError: The runtime fails, or gives NaN or infinity.
            CacheError: The cache cannot be read or written.
        """
        seen: dict[str, Classes] = {}

        def deployed(asked: Scheme) -> Classes:
            if not seen:
                logits = run_all(prepared, [np.ascontiguousarray(self.split.x)])
                if not np.isfinite(logits).all():
                    raise DeployError(
                        f"{runtime.name} gives NaN or infinity for {self.lab.network} with {asked.name or asked}. "
                        "Next: leave this runtime out."
                    )
                seen["classes"] = logits.argmax(-1)
            return seen["classes"]

        ran = {
            "runtime": f"{runtime.name}, {runtime.version()}, batch {prepared.batch}",
            "runtime_code": code_digest(aiq.runtimes, sys.modules[type(runtime).__module__]),
        }
        return Judged(
            self._count("accuracy", "deployed", ran, lambda s: deployed(s) == self.labels, scheme),
            self._count("accuracy", "simulated", {}, lambda s: self._classes(s) == self.labels, scheme),
            self._count("agreement", "deployed", ran, lambda s: deployed(s) == self._classes(s), scheme),
        )

    def _classes(self, scheme: Scheme) -> Classes:
        key = scheme.digest()
        if key not in self._simulated:
            inputs = torch.from_numpy(np.ascontiguousarray(self.split.x))
            self._simulated[key] = self.deployment.simulator.outputs(scheme, inputs).numpy().argmax(-1)
        return self._simulated[key]

    def _count(
        self,
        metric: str,
        of: str,
        ran: Mapping[str, str],
        outcomes: Callable[[Scheme], NDArray[np.bool_]],
        scheme: Scheme,
    ) -> Evaluation:
        known = {"metric": f"{metric} of classes, {of}", **ran, **self._base}
        counts = _Counts(Metric(metric, "points", scale=100.0), known, outcomes)
        oracle = CachedOracle(counts, self.store, partial(canonical_scheme, self.lab.graph))
        found: Evaluation = self.lab.counted(oracle, lambda: oracle.evaluate(scheme))
        return found

    @cached_property
    def _base(self) -> dict[str, str]:
        base = {
            "model": self.lab.network,
            "code": code_digest(sys.modules[__name__]),
            **self.deployment.simulator.fingerprint,
            "layers": layers_digest(self.lab.graph),
            "data": self.split.dataset.name,
            "split": self.split.name,
            "n": str(len(self.split)),
            "data_digest": self.split.digest(),
        }
        self.lab.fingerprints[self.split.name] = base
        return base


@dataclass(eq=False)
class _Network:
    runtime: Runtime
    pick: Pick
    prepared: Prepared
    executed: Mapping[str, Executed]
    others: list[Pick]
    samples: list[float]
    judged: Judged | None = None
    profile: Profile | None = None


class Bench:
    """Networks of all runtimes; what was measured of them stays when the work is interrupted.

    Args:
        lab: The network.
        deployment: What runtimes build from.
        batch: Images in a pass.
        tell: Called with lines of progress.
    """

    def __init__(self, lab: Lab, deployment: Deployment, batch: int, tell: Tell) -> None:
        self.lab, self.deployment, self.batch, self.tell = lab, deployment, batch, tell
        self.refused: dict[tuple[str, str], str] = {}
        self.stolen: float | None = None
        self._networks: list[_Network] = []
        self._order: list[tuple[str, str]] = []

    def build(self, runtime: Runtime, picks: Sequence[Pick]) -> None:
        """Build the networks of a runtime, one for schemes of the same formats; what it refuses is kept as such.

        Raises:
            DeployError: It refuses the float network.
        """
        known: dict[tuple[LayerPrecision, ...], _Network] = {}
        self._order += [(runtime.name, pick.config) for pick in picks]
        for pick in picks:
            formats = tuple(resolve(self.lab.graph, pick.scheme).values())
            if formats in known:
                known[formats].others.append(pick)
                continue
            self.tell(f"{runtime.name}: building {pick.config}")
            try:
                prepared = runtime.prepare(self.deployment, pick.scheme, batch=self.batch)
            except DeployError as error:
                if pick.family == FP32:
                    raise
                self.refused[runtime.name, pick.config] = str(error)
                continue
            executed = prepared.executed_precisions()
            if pick.family == BF16 and not any(found.compute == BF16 for found in executed.values()):
                reason = next((found.reason for found in executed.values() if found.reason), "it runs another format")
                self.refused[runtime.name, pick.config] = f"{reason}."
                continue
            known[formats] = _Network(runtime, pick, prepared, executed, [], [])
        self._networks += known.values()

    @property
    def timed(self) -> bool:
        """Whether every network has a time."""
        return bool(self._networks) and all(network.samples for network in self._networks)

    def time(self, rounds: int) -> None:
        """Time all networks in turn, in blocks of rounds, so that an interruption loses one of these."""
        inputs = self.deployment.example(self.batch)
        pairs = [(network.prepared, inputs) for network in self._networks]
        done, shares = 0, 0.0
        for count in blocks(rounds):

            def show(number: int, _: int, done: int = done) -> None:
                self.tell(f"{len(pairs)} networks in turn, round {done + number} of {rounds}")

            with torch_threads(processors()):  # else PyTorch would change its threads at each of its passes
                timing = measure(pairs, rounds=count, progress=show)
            for network, found in zip(self._networks, timing.measurements, strict=True):
                network.samples += found.rounds
            done += count
            if timing.stolen is not None:
                shares += count * timing.stolen
                self.stolen = shares / done

    def judge(self, judge: Judge) -> None:
        """Run every network on the report split."""
        for place, network in enumerate(self._networks, 1):
            where = f"{network.runtime.name}: {network.pick.config} on {len(judge.split)} report images"
            self.tell(f"{where}: network {place} of {len(self._networks)}")
            network.judged = judge.judge(network.runtime, network.prepared, network.pick.scheme)

    def profile(self) -> None:
        """Profile every network."""
        inputs = self.deployment.example(self.batch)
        for network in self._networks:
            self.tell(f"{network.runtime.name}: profile of {network.pick.config}")
            steps = network.prepared.profile(inputs)
            network.profile = Profile.of(steps, self.lab.graph.layers) if steps else None

    def rows(self, machine: HardwareSpec) -> list[Row]:
        """Return what was measured so far, with predictions for a machine."""
        found = [
            Row(
                network.runtime.name,
                pick,
                "" if pick is network.pick else network.pick.config,
                formats_of(self.lab.graph, pick.scheme),
                network.executed,
                merged(network.samples, self.batch),
                self._predicted(machine, network.runtime.name, pick),
                network.judged,
                network.profile,
            )
            for network in self._networks
            for pick in (network.pick, *network.others)
        ]
        return sorted(found, key=lambda row: self._order.index((row.runtime, row.pick.config)))

    def _predicted(self, machine: HardwareSpec, runtime: str, pick: Pick) -> Prediction | None:
        if runtime not in machine.runtimes:
            return None
        made = estimate(self.lab.graph, machine, pick.scheme, batch=self.batch, runtime=runtime)
        return Prediction(made.latency_s, made.latency_interval_s)
