"""What a validation returns: rows measured, and how far predictions were off. Statistics are derived, never stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from aiq._validate_layers import LayerTime
from aiq._validate_schemes import Pick
from aiq._validate_stats import Errors, Regret, errors, regret
from aiq.runtimes import Measurement
from hardware_specs import HardwareSpec
from roofline.errors import InputError

if TYPE_CHECKING:
    from aiq._deployed import Agreement
    from aiq.runtimes import Runtime
    from roofline import Scheme

SCHEMA_VERSION = 1
FEWEST_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class ValidateSettings:
    """What to predict and to measure.

    Attributes:
        runtime: What runs the schemes, or its name.
        schemes: Schemes to measure; empty for a spread of them.
        formats: Formats that the layers of the spread take; by default ``keep``, ``w8a8`` and ``bf16``, those of them
            that the runtime runs.
        count: Schemes in the spread.
        batches: Batch sizes.
        rounds: Samples of each scheme, at least 3.
        max_spread: Largest median of the spreads (interquartile range over median) with which measurements say
            anything.
        tolerance: Largest median absolute percentage error, as a share; ``None`` for none.
        data: Data set to compare predictions with the simulation on, and to calibrate with; by default the model's own
            for calibration, or random inputs.
        samples: Use only the first so many samples of its report split.
        locate: Name the layers where runtime and simulation part however well they agree.
        seed: Seeds random schemes, random inputs and resampling.
    """

    runtime: str | Runtime
    schemes: Sequence[Scheme] = ()
    formats: Sequence[str] | None = None
    count: int = 30
    batches: Sequence[int] = (1, 32)
    rounds: int = 15
    max_spread: float = 0.2
    tolerance: float | None = None
    data: str | None = None
    samples: int | None = None
    locate: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for what, value, least in (
            ("the number of schemes", self.count, 2),
            ("rounds", self.rounds, FEWEST_ROUNDS),
            ("samples", self.samples, 1),
            *(("a batch size", batch, 1) for batch in self.batches),
        ):
            if value is not None and value < least:
                raise InputError(f"{what} must be at least {least}, got {value}. Next: raise it.")
        if not self.batches:
            raise InputError("no batch size is given. Next: give one, for instance --batch 32.")
        if not 0 < self.max_spread < float("inf"):
            raise InputError(f"the largest spread must be a number above 0, got {self.max_spread}. Next: give one.")
        if self.tolerance is not None and not 0 <= self.tolerance < float("inf"):
            raise InputError(
                f"the tolerance must be a share of at least 0, got {self.tolerance}. Next: give for instance 0.1."
            )
        if self.data is None and (self.locate or self.samples is not None):
            raise InputError(
                "runtime and simulation are compared only on data, and none are named. Next: give for instance "
                "--data digits."
            )


@dataclass(frozen=True, slots=True)
class Prediction:
    """The predicted time of one pass.

    Attributes:
        latency_s: Seconds.
        interval_s: Where 90 % of measured times should lie; ``None`` where the cost model cannot tell.
    """

    latency_s: float
    interval_s: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Row:
    """One scheme at one batch size.

    Attributes:
        scheme: The scheme's name.
        family: Where it comes from.
        batch: Samples in a pass.
        predictions: By cost model, the one that is judged first.
        measurement: What the stopwatch said.
        ran: Number of layers by the format that they really computed in.
        not_as_asked: Layers that did not run as the scheme says: widened to another format, or narrowed.
    """

    scheme: str
    family: str
    batch: int
    predictions: Mapping[str, Prediction]
    measurement: Measurement
    ran: Mapping[str, int]
    not_as_asked: int

    @property
    def predicted(self) -> Prediction:
        """By the cost model that is judged."""
        return next(iter(self.predictions.values()))

    @property
    def error(self) -> float:
        """Predicted over measured time, less 1."""
        return self.predicted.latency_s / self.measurement.seconds - 1.0

    def throughput_interval(self, cost: str) -> tuple[float, float] | None:
        """Return the predicted interval of samples a second by a cost model."""
        ends = self.predictions[cost].interval_s
        return None if ends is None or ends[0] <= 0 else (self.batch / ends[1], self.batch / ends[0])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        first, *others = self.predictions
        return {
            "scheme": self.scheme,
            "family": self.family,
            "batch": self.batch,
            "predicted_throughput": self.batch / self.predicted.latency_s,
            "interval": self.throughput_interval(first),
            "measured_throughput": self.measurement.throughput,
            "spread": self.measurement.spread,
            "samples": self.measurement.samples,
            "predicted_latency_s": self.predicted.latency_s,
            "measured_latency_s": self.measurement.seconds,
            "error": self.error,
            "cost_model": first,
            "other_predictions": {name: self.batch / self.predictions[name].latency_s for name in others},
            "ran": dict(self.ran),
            "not_as_asked": self.not_as_asked,
        }


@dataclass(frozen=True, slots=True)
class Profile:
    """One scheme's time by layer at one batch size."""

    scheme: str
    batch: int
    layers: tuple[LayerTime, ...]


@dataclass(frozen=True, eq=False)
class Validation:
    """Predictions and measurements of many schemes on one runtime.

    Attributes:
        model: The model's name.
        hardware: The machine that predictions are for.
        runtime: The runtime's name.
        version: Name and version of its library.
        settings: What was asked for.
        costs: What each cost model rests on, by its name; the first is the one judged.
        picks: The schemes.
        rows: What was measured.
        refused: Schemes that the runtime cannot run, with its reason.
        reasons: Why layers did not run as their scheme says, with how many networks each reason was met in.
        profiles: Times by layer of the float model and the fastest scheme.
        agreements: Runtime against simulation, on data.
        stolen: Share of processor time that the hypervisor gave to others, by batch size, where it is told.
        disturbed: Rounds in which all schemes ran slower than else, by batch size: they are set aside.
        calibration: Where the ranges of activations come from.
        assumptions: Of the predictions.
        interrupted: Whether Ctrl-C cut it short.
        stopped: The error that cut it short, if one did.
        seconds: What it all took.
    """

    model: str
    hardware: HardwareSpec = field(repr=False)
    runtime: str
    version: str
    settings: ValidateSettings = field(repr=False)
    costs: Mapping[str, str] = field(repr=False)
    picks: tuple[Pick, ...] = field(repr=False)
    rows: tuple[Row, ...] = field(repr=False)
    refused: Mapping[str, str] = field(repr=False)
    reasons: Mapping[str, int] = field(repr=False)
    profiles: tuple[Profile, ...] = field(repr=False)
    agreements: tuple[Agreement, ...] = field(repr=False)
    stolen: Mapping[int, float] = field(repr=False)
    disturbed: Mapping[int, int] = field(repr=False)
    calibration: str = field(repr=False)
    assumptions: tuple[str, ...] = field(repr=False)
    interrupted: bool
    stopped: str | None
    seconds: float = field(repr=False)

    @property
    def judged(self) -> str:
        """Name of the cost model that the headline, the tolerance and the figure speak of."""
        return next(iter(self.costs))

    @cached_property
    def errors(self) -> dict[str, Errors]:
        """How far each cost model's times are off."""
        measured = np.array([row.measurement.seconds for row in self.rows])
        return {
            cost: errors(
                np.array([row.predictions[cost].latency_s for row in self.rows]),
                measured,
                schemes=[row.scheme for row in self.rows],
                batches=[row.batch for row in self.rows],
                intervals=[row.predictions[cost].interval_s for row in self.rows],
                seed=self.settings.seed,
            )
            for cost in self.costs
        }

    @cached_property
    def regrets(self) -> dict[str, tuple[Regret, ...]]:
        """What it costs to decide by each cost model, one for each batch size."""
        return {cost: tuple(self._regret(cost, batch) for batch in self.batches) for cost in self.costs}

    def _regret(self, cost: str, batch: int) -> Regret:
        rows = [row for row in self.rows if row.batch == batch]
        return regret(
            [row.scheme for row in rows],
            np.array([row.predictions[cost].latency_s for row in rows]),
            np.array([row.measurement.rounds for row in rows]),
            batch=batch,
            seed=self.settings.seed,
        )

    @property
    def batches(self) -> list[int]:
        """Batch sizes that were measured."""
        return list(dict.fromkeys(row.batch for row in self.rows))

    @property
    def median_spread(self) -> float:
        """Median over rows of the interquartile range over the median, at the batch size where it is largest."""
        spreads = [[row.measurement.spread for row in self.rows if row.batch == batch] for batch in self.batches]
        return max(float(np.median(found)) for found in spreads)

    @property
    def noisy(self) -> bool:
        """Whether the machine was too noisy for the measurements to say anything."""
        return self.median_spread > self.settings.max_spread

    @property
    def within_tolerance(self) -> bool | None:
        """Whether the median error is within the tolerance; ``None`` without one, or where the machine is too noisy."""
        limit = self.settings.tolerance
        return None if limit is None or self.noisy else self.errors[self.judged].median_ape.value <= limit

    def to_dict(self) -> dict[str, Any]:
        """Return plain data in SI units: the JSON of ``aiq validate``."""
        own, decided = self.errors[self.judged], self.regrets[self.judged]
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "machine": self.hardware.name,
            "runtime": self.runtime,
            "version": self.version,
            "cost_model": self.judged,
            "median_ape": own.median_ape.value,
            "p90_ape": own.p90_ape.value,
            "bias": own.bias.value,
            "spearman": own.spearman.value if own.spearman else None,
            "coverage": own.coverage.value if own.coverage else None,
            "regret": max(found.value for found in decided),
            "statistics": {
                cost: {**asdict(self.errors[cost]), "regrets": [asdict(found) for found in self.regrets[cost]]}
                for cost in self.costs
            },
            "tolerance": self.settings.tolerance,
            "within_tolerance": self.within_tolerance,
            "median_spread": self.median_spread,
            "max_spread": self.settings.max_spread,
            "noisy": self.noisy,
            "stolen_share": {str(batch): share for batch, share in self.stolen.items()},
            "rounds": self.settings.rounds,
            "disturbed_rounds": {str(batch): count for batch, count in self.disturbed.items()},
            "interrupted": self.interrupted,
            "stopped": self.stopped,
            "seconds": self.seconds,
            "rows": [row.to_dict() for row in self.rows],
            "schemes": {pick.name: {"digest": pick.scheme.digest(), **pick.scheme.to_dict()} for pick in self.picks},
            "refused": dict(self.refused),
            "reasons": dict(self.reasons),
            "profiles": [asdict(profile) for profile in self.profiles],
            "agreements": [asdict(found) for found in self.agreements],
            "calibration": self.calibration,
            "assumptions": list(self.assumptions),
        }

    def __repr__(self) -> str:
        error = self.errors[self.judged].median_ape.value
        what = f"{self.model!r} by {self.runtime} on {self.hardware.name}: {len(self.rows)} rows"
        return f"Validation({what}, median error {100 * error:.1f} %)"
