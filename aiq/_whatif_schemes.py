"""The best scheme for each machine at an accuracy that is acceptable, from what was paid for already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from aiq._cache_records import Record
from aiq._search_points import Figures
from aiq._tradeoff import tradeoffs
from aiq._whatif import Sweep
from aiq.cache import EvaluationStore, canonical_scheme
from aiq.digest import layers_digest
from aiq.oracle import Evaluation, Metric, OracleContext, fingerprint_digest
from aiq.racing import LossLimit, allowance
from aiq.registry import load_additive_oracle
from roofline import CostTable, LayerPrecision, Scheme
from roofline.errors import InputError, MissingCeilingError
from roofline.estimate import resolve

if TYPE_CHECKING:
    from aiq._model import Model
    from roofline import OpGraph


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Stored evaluations of one oracle on a model.

    Attributes:
        digest: Digest of the oracle's fingerprint.
        split: Split of its data; empty where it has none.
        metric: What its values mean.
        baseline: The float model's evaluation.
        records: Every other evaluated scheme.
        others: How many other oracles have evaluations of this model.
    """

    digest: str
    split: str
    metric: Metric
    baseline: Evaluation = field(repr=False)
    records: tuple[Record, ...] = field(repr=False)
    others: int = 0


@dataclass(frozen=True, eq=False)
class Chosen:
    """The fastest scheme within the limit on one machine, at one batch and context.

    Attributes:
        machine: Label of the machine.
        context: Tokens of context.
        batch: Samples at once.
        scheme: The scheme; ``None`` where none is within the limit and fits.
        label: How many layers have which format.
        latency_s: Seconds of a pass.
        speedup: Over the model in its own formats.
        loss: Accuracy loss in the metric's unit, below 0 a gain.
        figures: What the evaluation says, with intervals; ``None`` where the loss is a sum over layers.
    """

    machine: str
    context: int | None
    batch: int
    scheme: Scheme | None
    label: str = ""
    latency_s: float = 0.0
    speedup: float = 0.0
    loss: float = 0.0
    figures: Figures | None = None

    def to_dict(self, metric: Metric | None) -> dict[str, Any]:
        """Return plain data in SI units."""
        found = None if self.scheme is None else self.scheme.to_dict()
        return {
            "hardware": self.machine,
            "context": self.context,
            "batch": self.batch,
            "scheme": found,
            "label": self.label,
            "latency_s": self.latency_s if found else None,
            "speedup": self.speedup if found else None,
            "loss": self.loss if found else None,
            **(self.figures.to_dict(metric) if self.figures and metric else {}),
        }


@dataclass(frozen=True, eq=False)
class Choices:
    """The best scheme for each machine, and what that rests on.

    Attributes:
        evidence: One sentence: where the losses come from.
        unit: Unit of a loss.
        limit: Most loss that is accepted, in that unit.
        metric: What was measured; ``None`` where losses are sums over layers.
        schemes: How many schemes were measured; ``None`` for all that the formats allow.
        chosen: One for each machine, context and batch.
    """

    evidence: str
    unit: str
    limit: float
    metric: Metric | None
    schemes: int | None
    chosen: tuple[Chosen, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "evidence": self.evidence,
            "unit": self.unit,
            "limit": self.limit,
            "schemes": self.schemes,
            "chosen": [each.to_dict(self.metric) for each in self.chosen],
        }


def stored(graph: OpGraph, store: EvaluationStore, prefix: str = "") -> Evaluated:
    """Return what a store holds of a model: of the oracle with most evaluations, unless a fingerprint says which.

    An oracle is of a model where the digests of their layers and, without a fingerprint, their names agree.

    Args:
        graph: The model's graph.
        store: The store.
        prefix: First characters of the fingerprint's digest.

    Raises:
        InputError: No oracle, or none of that fingerprint, has evaluations of the model, the float model's among them.
        CacheError: The store cannot be read.
    """
    own = layers_digest(graph)
    oracles = [oracle for oracle in store.oracles() if oracle.fingerprint.get("layers") == own]
    named = [oracle for oracle in oracles if oracle.fingerprint.get("model", graph.model) == graph.model]
    fitting = [oracle for oracle in oracles if oracle.digest.startswith(prefix.lower())] if prefix else named
    if not fitting:
        what = f"with fingerprint {prefix!r} " if prefix else ""
        raise InputError(
            f"the cache holds no evaluation {what}of a model with the layers of {graph.model}. "
            "Next: run 'aiq search', or 'aiq cache list' for what there is."
        )
    best = max(fitting, key=lambda oracle: oracle.evaluations)
    records = [r for r in store.records() if fingerprint_digest(r.fingerprint) == best.digest]
    plain = canonical_scheme(graph, Scheme()).digest()
    baseline = next((record.evaluation for record in records if record.scheme.digest() == plain), None)
    if baseline is None:
        raise InputError(
            f"the cache holds no evaluation of {graph.model} in its own formats by oracle {best.digest[:12]}, which "
            "losses are measured from. Next: run 'aiq search', which measures it first."
        )
    rest = tuple(record for record in records if record.scheme.digest() != plain)
    split = best.fingerprint.get("split", "")
    return Evaluated(best.digest, split, best.metric, baseline, rest, len(oracles) - 1)


def best_stored(sweep: Sweep, evaluated: Evaluated, limit: LossLimit) -> Choices:
    """Return for each machine the fastest of the evaluated schemes that lose no more than the limit, and fit.

    Nothing is evaluated. The loss is the one measured, on the examples that the oracle ran.

    Args:
        sweep: Machines, contexts and batches.
        evaluated: From :func:`stored`.
        limit: Largest accuracy loss.
    """
    metric, baseline = evaluated.metric, evaluated.baseline
    schemes = [Scheme(), *(record.scheme for record in evaluated.records)]
    figures = [Figures.of(evaluated.split, metric, baseline, baseline)]
    figures += [Figures.of(evaluated.split, metric, baseline, record.evaluation) for record in evaluated.records]
    allowed = limit.of(metric, baseline.value)
    losses = np.array([found.drop for found in figures])
    kept = np.flatnonzero(np.maximum(losses, 0.0) <= allowance(allowed))
    graph = sweep.graphs.grid(sweep.contexts[0]).graph
    options = list(dict.fromkeys(p for scheme in (Scheme(), *schemes) for p in resolve(graph, scheme).values()))
    chosen, priced = [], 0
    for h, c, b, table in _tables(sweep, [LayerPrecision(), *(o for o in options if o != LayerPrecision())]):
        if isinstance(table, str):
            chosen.append(Chosen(sweep.machines[h].label, sweep.contexts[c], sweep.batches[b], None, table))
            continue
        found = {int(i): choice for i in kept if (choice := _choice(table, graph, schemes[i])) is not None}
        priced = max(priced, len(found))
        indices, choices = list(found), np.array(list(found.values()), dtype=np.intp).reshape(len(found), -1)
        best = _fastest(sweep, (h, c, b), table, choices)
        own = None if best is None else figures[indices[best]]
        choice = None if best is None else choices[best].tolist()
        chosen.append(_chosen(sweep, (h, c, b), table, choice, loss=own.drop if own else 0.0, figures=own))
    others = f"; {evaluated.others} other oracles have evaluations of it" if evaluated.others else ""
    if left := len(kept) - priced if priced else 0:
        others += f"; {left} of those within the limit are left out, as a table of layers cannot hold their rules"
    evidence = (
        f"{len(schemes)} schemes measured before ({metric.name}, oracle {evaluated.digest[:12]}"
        f"{', split ' + evaluated.split if evaluated.split else ''}, n = {baseline.n}){others}"
    )
    return Choices(evidence, metric.unit, allowed, metric, len(schemes), tuple(chosen))


def best_additive(sweep: Sweep, losses: str, model: Model | None, limit: LossLimit) -> Choices:
    """Return for each machine the fastest scheme whose losses, added over layers, are within the limit, and that fits.

    Layers choose among the sweep's schemes without rules, and the model's own formats.

    Args:
        sweep: Machines, contexts, batches, and schemes to choose formats from.
        losses: Additive oracle, ``table:FILE`` or another.
        model: The module, for oracles that read its weights.
        limit: Largest loss, in the oracle's unit.

    Raises:
        InputError: A limit relative to a value that a table does not hold, or no format to choose from.
        AIQError: The oracle refuses its argument, or lacks a layer or format.
    """
    if limit.points is None:
        raise InputError("losses of single layers have no value to take a share of. Next: give --max-loss in points.")
    options = list(dict.fromkeys([LayerPrecision(), *(s.default for s in sweep.schemes if not s.rules)]))
    if len(options) < 2:
        raise InputError("there is no format to choose from. Next: name some, for instance --scheme w8,w8a8.")
    if model is None and losses.partition(":")[0] != "table":
        raise InputError(
            f"{sweep.model} comes without weights, which the oracle {losses.partition(':')[0]!r} reads. "
            "Next: give --losses table:FILE."
        )
    graph = sweep.graphs.grid(sweep.contexts[0]).graph
    oracle = load_additive_oracle(losses, OracleContext(cast("Model", model), graph))
    chosen, caveat, unit = [], "", ""
    for h, c, b, table in _tables(sweep, options):
        if isinstance(table, str):
            chosen.append(Chosen(sweep.machines[h].label, sweep.contexts[c], sweep.batches[b], None, table))
            continue
        known = oracle.loss_table({layer: table.layer_options(layer) for layer in graph.layers})
        caveat, unit = known.caveat, known.unit
        frontier = tradeoffs(table, known.losses)["latency"].frontier
        within = np.flatnonzero(frontier.losses <= allowance(limit.points))
        choices = frontier.choices[within].astype(np.intp)
        best = _fastest(sweep, (h, c, b), table, choices)
        loss = 0.0 if best is None else float(frontier.losses[within[best]])
        choice = None if best is None else choices[best].tolist()
        chosen.append(_chosen(sweep, (h, c, b), table, choice, loss=loss))
    return Choices(caveat, unit, limit.points, None, None, tuple(chosen))


def _tables(sweep: Sweep, options: Sequence[LayerPrecision]) -> Iterator[tuple[int, int, int, CostTable | str]]:
    """Yield machine, context and batch with a table of costs, or why there is none."""
    for h, machine in enumerate(sweep.machines):
        for c, context in enumerate(sweep.contexts):
            for b, batch in enumerate(sweep.batches):
                grid = sweep.graphs.grid(context, batch)
                if machine.refused:
                    yield h, c, b, machine.refused
                    continue
                try:
                    yield h, c, b, CostTable(grid.graph, machine.spec, options, batch=batch, traffic=sweep.traffic)
                except MissingCeilingError as error:
                    yield h, c, b, str(error).partition(": it has")[0]


def _choice(table: CostTable, graph: OpGraph, scheme: Scheme) -> list[int] | None:
    """Return a scheme as option indices, or ``None`` where a table of layers cannot hold it."""
    resolved = resolve(graph, scheme)
    if len(scheme.rules) > len(resolved):
        return None
    found = []
    for layer in table.layers:
        options = table.layer_options(layer)
        if resolved[layer] not in options:
            return None
        found.append(options.index(resolved[layer]))
    return found


def _fastest(sweep: Sweep, place: tuple[int, int, int], table: CostTable, choices: NDArray[np.intp]) -> int | None:
    """Return which of the choices is fastest among those that run as they are written and fit the memory."""
    h, c, b = place
    if not len(choices):
        return None
    seconds = np.where(table.runnable(choices), table.score(choices).latency_s, np.inf)
    room = sweep.capacity_bytes[h]
    loads = sweep.graphs.grid(sweep.contexts[c], sweep.batches[b]).at([sweep.batches[b]])
    for index in np.argsort(seconds, kind="stable").tolist():
        if not np.isfinite(seconds[index]):
            return None
        if np.isnan(room) or loads.under(table.scheme(choices[index].tolist())).memory[0][0] <= room:
            return int(index)
    return None


def _chosen(
    sweep: Sweep,
    place: tuple[int, int, int],
    table: CostTable,
    choice: list[int] | None,
    *,
    loss: float,
    figures: Figures | None = None,
) -> Chosen:
    h, c, b = place
    where = sweep.machines[h].label, sweep.contexts[c], sweep.batches[b]
    if choice is None:
        return Chosen(*where, None, "no scheme is within the limit and fits")
    before, seconds = table.score(np.array([[0] * len(choice), choice])).latency_s.tolist()
    counts: dict[str, int] = {}
    for layer, k in zip(table.layers, choice, strict=True):
        label = table.layer_options(layer)[k].label
        counts[label] = counts.get(label, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    words = ", ".join(f"{count} {label}" for label, count in ordered)
    return Chosen(*where, table.scheme(choice), words, seconds, before / seconds if seconds else 1.0, loss, figures)
