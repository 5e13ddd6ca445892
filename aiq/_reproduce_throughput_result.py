"""Experiment 3, what was found: rows by runtime and scheme, and the comparisons that table, words and figure share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from aiq._driver import Run
from aiq._reproduce_lab import Lab, ThroughputSettings
from aiq._reproduce_measure import Measured
from aiq._reproduce_throughput_bench import Row, faster
from aiq._reproduce_throughput_schemes import FIRST, FP32, GREEDY, RANDOM, UNIFORM, Chosen
from aiq._validate_stats import Figure
from aiq.cache import canonical_scheme
from aiq.data import Dataset
from hardware_specs import HardwareSpec
from roofline.units import percent

EAGER = "torch"


@dataclass(frozen=True, eq=False)
class Found:
    """What the experiment measured.

    Attributes:
        lab: The network.
        settings: What was asked for.
        dataset: What the images are.
        machine: The machine that predictions are for.
        here: Whether it was calibrated in this run.
        versions: Name and version of each runtime's library, PyTorch's last.
        chosen: Schemes that are the same for every runtime.
        plans: The search of the latency plan, by runtime.
        search: Accuracy on the search split, by digest of the canonical scheme.
        rows: What was measured, one runtime after the other, PyTorch eager last.
        refused: Schemes that a runtime does not run, with its reason, by runtime and scheme.
        stolen: Share of processor time that the hypervisor gave to others meanwhile.
        interrupted: Whether Ctrl-C cut it short.
        stopped: The error that cut it short; empty where none did.
    """

    lab: Lab
    settings: ThroughputSettings
    dataset: Dataset
    machine: HardwareSpec
    here: bool
    versions: Mapping[str, str]
    chosen: Chosen
    plans: Mapping[str, Run] = field(repr=False)
    search: Mapping[str, Measured] = field(repr=False)
    rows: Sequence[Row] = field(repr=False)
    refused: Mapping[tuple[str, str], str]
    stolen: float | None
    interrupted: bool
    stopped: str

    @property
    def runtimes(self) -> list[str]:
        """The runtimes apart from PyTorch eager."""
        return [runtime for runtime in self.versions if runtime != EAGER]

    @cached_property
    def eager(self) -> Row:
        """The float network in PyTorch eager."""
        return next(row for row in self.rows if row.runtime == EAGER)

    def of(self, runtime: str) -> list[Row]:
        """Return the rows of a runtime."""
        return [row for row in self.rows if row.runtime == runtime]

    def row(self, runtime: str, family: str) -> Row | None:
        """Return the one row of a family."""
        return next((row for row in self.of(runtime) if row.pick.family == family), None)

    def base(self, runtime: str) -> Row:
        """Return the float network on a runtime."""
        return next(row for row in self.of(runtime) if row.pick.family == FP32)

    def random(self, runtime: str) -> list[Row]:
        """Return the rows of random layers."""
        return [row for row in self.of(runtime) if row.pick.family == RANDOM]

    def matched(self, runtime: str) -> Row | None:
        """Return greedy's scheme of as many layers as the random ones have."""
        return self.row(runtime, FIRST if self.chosen.taken > self.chosen.count else GREEDY)

    def random_throughput(self, runtime: str) -> float | None:
        """Return the mean throughput of random layers."""
        rows = self.random(runtime)
        return float(np.mean([row.measurement.throughput for row in rows])) if rows else None

    def over(self, row: Row, base: Row) -> Figure:
        """Return a throughput over another, with its interval."""
        return faster(row.measurement, base.measurement, seed=self.settings.seed)

    def change(self, row: Row) -> Measured | None:
        """Return the accuracy on the report split, and its change against FP32 on the same runtime."""
        return row.measured(self.base(row.runtime))

    def on_search(self, row: Row) -> Measured | None:
        """Return the accuracy of the simulation on the search split."""
        return self.search.get(canonical_scheme(self.lab.graph, row.pick.scheme).digest())

    def allowed(self, row: Row) -> bool:
        """Tell whether a scheme keeps within the loss on the images that schemes are chosen on."""
        found = self.on_search(row)
        return found is not None and -found.change <= self.settings.max_loss + 1e-9

    def best_uniform(self, runtime: str) -> Row:
        """Return the fastest uniform scheme within the loss; FP32 always is."""
        rows = [row for row in self.of(runtime) if row.pick.family in UNIFORM]
        within = [row for row in rows if row.pick.family == FP32 or self.allowed(row)]
        return min(within, key=lambda row: row.measurement.seconds)

    @cached_property
    def median_spread(self) -> float:
        """Median over networks of the interquartile range over the median."""
        return float(np.median([row.measurement.spread for row in self.rows if not row.same_as]))

    @property
    def noisy(self) -> bool:
        """Whether the machine was too noisy for the times to say anything."""
        return self.median_spread > self.settings.max_spread

    @property
    def noise_text(self) -> str:
        """That the machine was too noisy."""
        return (
            f"machine too noisy: the median spread of a measurement is {percent(self.median_spread)}, above the limit "
            f"of {percent(self.settings.max_spread)}"
        )

    @property
    def failure(self) -> str:
        """Why the command fails although it shows figures; empty where it does not."""
        if self.stopped:
            return self.stopped
        if self.noisy and not self.interrupted:
            return f"{self.noise_text}. Next: stop other work, or raise --rounds or --max-spread."
        return ""

    def kinds(self) -> dict[str, str]:
        """Return the kind of op of each layer."""
        return {op.layer: op.kind for op in self.lab.graph if any(t.role == "weight" for t in op.tensors)}

    def describe(self) -> dict[str, Any]:
        """Return what the figures rest on, as plain data."""
        s = self.settings
        return {
            **self.lab.describe(),
            "machine": self.machine.name,
            "machine_title": self.machine.title,
            "calibrated_in_this_run": self.here,
            "versions": dict(self.versions),
            "batch": s.batch,
            "max_loss": s.max_loss,
            "rounds": s.rounds,
            "seed": s.seed,
            "median_spread": self.median_spread,
            "max_spread": s.max_spread,
            "noisy": self.noisy,
            "stolen_share": self.stolen,
            "interrupted": self.interrupted,
            "stopped": self.stopped or None,
            "schemes": [
                {"runtime": row.runtime, "scheme": row.pick.config, "digest": row.pick.scheme.digest(),
                 **row.pick.scheme.to_dict()}
                for row in self.rows
            ],
            "refused": [
                {"runtime": runtime, "scheme": config, "reason": reason}
                for (runtime, config), reason in self.refused.items()
            ],
        }  # fmt: skip
