"""``aiq plan``: rank candidate schemes before any evaluation, and say what an evaluation would cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from aiq._model import Model, Source
from aiq._probe import Probe, probe
from aiq._recipes import check_recipes
from aiq._tradeoff import Tradeoff, tradeoffs
from aiq.additive import LossTable
from aiq.objective import Objective
from aiq.oracle import OracleContext
from aiq.registry import load_additive_oracle
from hardware_specs import HardwareSpec
from roofline import CostTable, GraphEstimate, LayerPrecision, OpGraph, estimate
from roofline.errors import AIQError, InputError

PLAN_SCHEMA_VERSION = 1
DEFAULT_FORMATS = ("keep", "w8", "w4", "w8a8", "w4a8")
_FRONTIER_POINTS = 5
_NEEDS_NO_WEIGHTS = "table"
_MOST_SAMPLES = 10**12


@dataclass(frozen=True, eq=False)
class Candidate:
    """One scheme of a plan.

    Attributes:
        name: ``w8a8`` for a uniform scheme; ``ai-60`` for the scheme of least proxy loss that reaches 60 % of the
            greatest saving in bytes moved.
        origin: ``uniform`` or the targets whose exact trade-off it lies on.
        estimate: Its estimate.
        loss: Its proxy loss.
        objective: L, the smaller the better.
        speedup: Baseline latency over its latency.
        supported: Whether a sweep over λ could reach it; ``None`` for uniform schemes.
        gap: Relative excess of its cost for the plan's target over a proved lower bound at the same loss.
    """

    name: str
    origin: str
    estimate: GraphEstimate = field(repr=False)
    loss: float
    objective: float
    speedup: float
    supported: bool | None
    gap: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        e = self.estimate
        return {
            "name": self.name,
            "origin": self.origin,
            "scheme": e.scheme.to_dict(),
            "scheme_digest": e.scheme.digest(),
            **e.summary(),
            "speedup": self.speedup,
            "transitions": len(e.transitions),
            "proxy_loss": self.loss,
            "objective": self.objective,
            "supported": self.supported,
            "gap": self.gap,
        }


@dataclass(frozen=True)
class EvaluationCost:
    """What evaluating would cost.

    Attributes:
        samples: Samples in one evaluation.
        calls: Strategy → oracle calls.
        probe: Timing of the float model, or the reason why there is none.
    """

    samples: int
    calls: dict[str, int]
    probe: Probe | str

    def seconds(self, calls: int) -> float | None:
        """Seconds of that many evaluations at the float model's speed; ``None`` without a timing."""
        return calls * self.samples / self.probe.samples_per_s if isinstance(self.probe, Probe) else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        timing = self.probe
        return {
            "samples": self.samples,
            "calls": self.calls,
            "seconds": {name: self.seconds(calls) for name, calls in self.calls.items()},
            "probe": vars(timing) if isinstance(timing, Probe) else {"reason": timing},
        }


@dataclass(frozen=True, eq=False)
class Plan:
    """Candidates, best first, and what the figures rest on."""

    graph: OpGraph = field(repr=False)
    hardware: HardwareSpec = field(repr=False)
    batch: int
    traffic: str
    objective: Objective
    ends: dict[str, float]
    proxy: str
    losses: LossTable = field(repr=False)
    baseline: GraphEstimate = field(repr=False)
    candidates: tuple[Candidate, ...] = field(repr=False)
    cost: EvaluationCost = field(repr=False)

    @property
    def frontier_gap(self) -> float:
        """Greatest gap on the target's own trade-off; 0 where all of its schemes are proved optimal."""
        return max((c.gap for c in self.candidates if self.objective.target in c.origin.split(", ")), default=0.0)

    @property
    def best(self) -> Candidate:
        """The candidate with the smallest objective."""
        return self.candidates[0]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data in SI units: the JSON of ``aiq plan``."""
        base = self.baseline
        return {
            "schema_version": PLAN_SCHEMA_VERSION,
            "model": self.graph.model,
            "hardware": self.hardware.name,
            "rates": self.hardware.rates_option,
            "batch": self.batch,
            "traffic": self.traffic,
            "objective": {
                "target": self.objective.target,
                "lambda": self.objective.lam,
                "normalise": self.objective.normalise,
                **self.ends,
            },
            "proxy": {"name": self.proxy, "unit": self.losses.unit, "caveat": self.losses.caveat},
            "baseline": base.summary(),
            "candidates": [{"rank": i + 1, **c.to_dict()} for i, c in enumerate(self.candidates)],
            "frontier_gap": self.frontier_gap,
            "evaluation_cost": self.cost.to_dict(),
            "coverage": base.coverage,
            "unknown_ops": self.graph.unknown,
            "assumptions": list(base.assumptions),
        }

    def __repr__(self) -> str:
        name, count = self.graph.model, len(self.candidates)
        return f"Plan({name!r} on {self.hardware.name}: {count} candidates, best {self.best.name})"


def plan(
    model: Model | Source,
    hardware: HardwareSpec,
    *,
    formats: Sequence[str] | None = None,
    batch: int | None = None,
    traffic: str = "fused",
    objective: Objective | None = None,
    proxy: str = "weight-sqnr",
    data: str | None = None,
    samples: int = 1000,
    probe_seconds: float = 1.0,
) -> Plan:
    """Rank uniform schemes and those on the exact memory, intensity and latency trade-offs under an accuracy proxy.

    Nothing is evaluated. For each target (weight bytes, bytes moved, latency) the whole non-dominated set of
    (cost, proxy loss) over all K^L schemes is computed, and the schemes of least loss at equal steps of saving are
    taken.

    Args:
        model: From :func:`aiq.load_model` or :func:`aiq.load_source`; without weights the proxy must be ``table:FILE``.
        hardware: The machine.
        formats: Formats a layer may take, as in a scheme; by default ``keep, w8, w4, w8a8, w4a8`` and the machine's
            16-bit float.
        batch: Samples at once; by default the example's.
        traffic: ``paper``, ``unfused`` or ``fused``.
        objective: What ranks the candidates; by default AI at λ = 0.9, min–max.
        proxy: Additive oracle that stands in for accuracy, ``NAME`` or ``NAME:ARGUMENT``.
        data: Data set for the proxies that need one (see :func:`aiq.data.load`).
        samples: Samples that one evaluation would take.
        probe_seconds: Seconds for timing the float model; 0 to skip.

    Raises:
        AIQError: See :func:`roofline.trace`, :func:`roofline.estimate` and the proxy.
    """
    goal = objective or Objective()
    if not 1 <= samples <= _MOST_SAMPLES:
        raise InputError(f"samples must be a whole number from 1 to 1e12, got {samples}. Next: choose one.")
    if not 0 <= probe_seconds < math.inf:
        raise InputError(f"the probe takes a number of seconds of at least 0, got {probe_seconds}. Next: choose one.")
    options = make_options(formats, hardware)
    name, network = proxy.partition(":")[0], model.model if isinstance(model, Source) else model
    if network is None and name != _NEEDS_NO_WEIGHTS:
        raise InputError(
            f"model {model.name!r} comes without weights, which the proxy {name!r} reads. "
            f"Next: give --proxy {_NEEDS_NO_WEIGHTS}:FILE with losses measured elsewhere, or a network with weights."
        )
    graph = model.graph(batch) if isinstance(model, Source) else model.trace()
    source = load_additive_oracle(proxy, OracleContext(cast("Model", network), graph, data=data))
    size = graph.batch if batch is None else batch
    table = CostTable(graph, hardware, options, batch=size, traffic=traffic)
    losses = source.loss_table({layer: table.layer_options(layer) for layer in graph.layers})
    _check_losses(losses.losses, table.bytes.shape, name)
    baseline = estimate(graph, hardware, batch=size, traffic=traffic)
    if not baseline.layers or not baseline.latency_s:
        raise InputError(f"{traffic} traffic prices no op of {graph.model}. Next: choose --traffic fused or unfused.")
    found = tradeoffs(table, losses.losses)
    picks = _merge({**_uniform(table), **_on_frontiers(found)}, table)
    candidates, ends = _rank(picks, table, losses.losses, goal=goal, baseline=baseline, found=found)
    timing: Probe | str = "there are no weights to run" if network is None else "switched off"
    if network is not None and probe_seconds:
        timing = probe(network, seconds=probe_seconds)
    cost = EvaluationCost(samples, _calls(table, len(candidates)), timing)
    return Plan(graph, hardware, size, traffic, goal, ends, name, losses, baseline, tuple(candidates), cost)


def make_options(formats: Sequence[str] | None, hardware: HardwareSpec) -> list[LayerPrecision]:
    """Return what a layer may take, ``keep`` first; by default the usual formats and the machine's 16-bit float.

    Raises:
        InputError: Only ``keep`` is left, or a recipe that cannot be read.
        PrecisionError: A format that cannot be read.
    """
    texts = list(formats or ())
    if formats is None:
        half = next((f for f in ("bf16", "fp16") if f in hardware.compute), None)
        texts = [*DEFAULT_FORMATS, *([half] if half else [])]
    options = list(dict.fromkeys([LayerPrecision(), *(LayerPrecision.parse(text) for text in texts)]))
    check_recipes(options)
    if len(options) < 2:
        raise InputError(
            "the formats leave nothing to choose between: only 'keep' is given. Next: add one, for instance w8."
        )
    return options


def _check_losses(losses: NDArray[np.float64], shape: tuple[int, ...], proxy: str) -> None:
    found = np.shape(losses)
    if found != shape or not np.isfinite(losses).all() or (losses < 0).any():
        raise AIQError(
            f"oracle {proxy!r} gave losses of shape {list(found)} instead of {list(shape)}, or one that is "
            "negative or not finite. Next: return one loss of at least 0 for each layer and option."
        )


@dataclass
class _Pick:
    """A choice of options with where it came from."""

    choice: tuple[int, ...]
    origins: list[str]
    supported: bool | None = None


def _uniform(table: CostTable) -> dict[str, _Pick]:
    return {o.label: _Pick((k,) * len(table.layers), ["uniform"]) for k, o in enumerate(table.options)}


def _on_frontiers(found: dict[str, Tradeoff]) -> dict[str, _Pick]:
    """Take the scheme of least loss at equal steps of saving along each trade-off."""
    picks: dict[str, _Pick] = {}
    for target, tradeoff in found.items():
        frontier = tradeoff.frontier
        cheapest, dearest = frontier.costs[0], frontier.costs[-1]
        for step in range(1, _FRONTIER_POINTS + 1):
            saving = step / _FRONTIER_POINTS
            index = frontier.best_for(dearest - saving * (dearest - cheapest))
            choice = tuple(int(k) for k in frontier.choices[index])
            picks[f"{target}-{round(100 * saving)}"] = _Pick(choice, [target], bool(frontier.supported[index]))
    return picks


def _merge(picks: dict[str, _Pick], table: CostTable) -> dict[str, _Pick]:
    """Join picks that stand for the same formats under the first name."""
    merged: dict[tuple[int, ...], str] = {}
    kept: dict[str, _Pick] = {}
    for name, pick in picks.items():
        first = merged.setdefault(table.canonical(pick.choice), name)
        if first == name:
            kept[name] = pick
            continue
        kept[first].origins.extend(o for o in pick.origins if o not in kept[first].origins)
        if kept[first].supported is None:
            kept[first].supported = pick.supported
    return kept


def _rank(
    picks: dict[str, _Pick],
    table: CostTable,
    losses: NDArray[np.float64],
    *,
    goal: Objective,
    baseline: GraphEstimate,
    found: dict[str, Tradeoff],
) -> tuple[list[Candidate], dict[str, float]]:
    """Price the picks and order them by the objective; return them with the ends of its normalisation."""
    priced = []
    for name, pick in picks.items():
        uniform = "uniform" in pick.origins
        scheme = table.uniform(pick.choice[0], name) if uniform else table.scheme(pick.choice, name=name)
        result = estimate(baseline.graph, baseline.hardware, scheme, batch=baseline.batch, traffic=baseline.traffic)
        loss = float(losses[np.arange(len(pick.choice)), pick.choice].sum())
        priced.append((name, pick, result, loss))
    ends = {"baseline": _merit(goal, baseline), "best": max(_merit(goal, result) for _, _, result, _ in priced)}
    candidates = [
        Candidate(
            name,
            ", ".join(pick.origins),
            result,
            loss,
            goal.value(_merit(goal, result), loss, baseline=ends["baseline"], best=ends["best"]),
            baseline.latency_s / result.latency_s if result.latency_s else 1.0,
            pick.supported,
            found[goal.target].gap(_cost(goal, result), loss),
        )
        for name, pick, result, loss in priced
    ]
    return sorted(candidates, key=lambda c: (c.objective, c.loss, c.name)), ends


def _merit(goal: Objective, result: GraphEstimate) -> float:
    return goal.merit(
        arithmetic_intensity=result.arithmetic_intensity, latency_s=result.latency_s, weight_bytes=result.weight_bytes
    )


def _cost(goal: Objective, result: GraphEstimate) -> float:
    return goal.cost(moved_bytes=result.bytes, latency_s=result.latency_s, weight_bytes=result.weight_bytes)


def _calls(table: CostTable, candidates: int) -> dict[str, int]:
    """Count oracle calls: options that a declared keep makes equal count once."""
    free = sorted(len(set(table.layer_options(layer))) - 1 for layer in table.layers)
    return {
        "one layer at a time (exact search)": sum(free) + 1,
        "greedy as in the paper, at most": sum(n * position for position, n in enumerate(free, start=1)) + 1,
        "this plan's candidates": candidates,
    }
