"""Experiment 4, the heuristics: does width or sensitivity decide which layers are quantized (Table I)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Any

from aiq import _paper
from aiq._driver import Run
from aiq._reproduce_figures import draw_ranking
from aiq._reproduce_lab import BITS, INT4, INT8, KEEP, NAMES, Lab, ReproduceSettings, Tell, find_weights
from aiq._reproduce_layers import Singles, measure_singles
from aiq._reproduce_measure import Correlation, Measured, rank_correlation, signed
from aiq._reproduce_page import Drawing, Outcome, Table
from aiq._reproduce_words import accounting, objective
from aiq.cache import EvaluationStore
from aiq.report import Column
from aiq.space import Choice

NETWORKS = tuple(_paper.TABLE_I)
_DECISIONS = {"bits": "final bit-width", "order": "order of quantization"}
_TRAITS = {
    "weights": "weights",
    "channels": "output channels",
    "depth": "depth",
    "change_4": "change at 4 bits",
    "divergence_4": "divergence at 4 bits",
}
_SURE = 0.05


@dataclass(frozen=True, eq=False)
class Decided:
    """What greedy search decided.

    Attributes:
        final: Option of each layer.
        order: When each layer was quantized, from 1; ``None`` where it was not.
        evaluations: How many it took.
    """

    final: Choice
    order: tuple[int | None, ...]
    evaluations: int

    @property
    def ranks(self) -> list[float]:
        """The order as ranks; layers left alone share the last one."""
        return [float(len(self.order) + 1 if place is None else place) for place in self.order]

    @property
    def bits(self) -> list[int]:
        """Bits of each layer's weights."""
        return [BITS[k] for k in self.final]


@dataclass(frozen=True, eq=False)
class Ranking:
    """One network: what each layer is like, and what was decided of it.

    Attributes:
        lab: The network.
        baseline: The float model on the report split.
        singles: Each layer alone, on the report split.
        greedy: What greedy search decided, by quantizer.
        correlations: By quantizer, decision and trait.
    """

    lab: Lab
    baseline: Measured
    singles: Singles
    greedy: dict[str, Decided]
    correlations: dict[tuple[str, str, str], Correlation] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Images of the report split."""
        return self.baseline.n

    def short(self, layer: str) -> str:
        """Return the paper's name of a layer, or its own."""
        return next((row.name for row in _paper.TABLE_I[self.lab.network] if row.layer == layer), layer)


def order_of_moves(run: Run) -> Decided:
    """Return what greedy search quantized, and when.

    Each of its iterations tries one further layer on top of those already quantized. What all schemes with m + 1
    quantized layers have in common is therefore what the first m moves made.
    """
    space = run.problem.space
    by_count: dict[int, list[Choice]] = {}
    for choice in run.evaluations:
        by_count.setdefault(sum(k != space.baseline for k in choice), []).append(choice)
    order: list[int | None] = [None] * len(space.units)
    final = run.best or space.start
    for moves in range(1, sum(k != space.baseline for k in final) + 1):
        tried = by_count.get(moves + 1)
        made = [all(c[u] == tried[0][u] != space.baseline for c in tried) for u in range(len(order))] if tried else None
        for unit, quantized in enumerate(made or [k != space.baseline for k in final]):
            if quantized and order[unit] is None:
                order[unit] = moves
    return Decided(final, tuple(order), len(run.evaluations))


def heuristics(settings: ReproduceSettings, store: EvaluationStore, tell: Tell) -> Outcome:
    """Run greedy search on both networks, and set what it decided against what each layer is like."""
    for network in NETWORKS:
        find_weights(network, settings)
    rankings = [_rank(Lab(network, settings, store, tell)) for network in NETWORKS]
    quantizers = settings.quantizers
    labs = [ranking.lab for ranking in rankings]
    notes = [accounting(lab, quantizers) for lab in labs]
    drawings = tuple(
        Drawing(
            f"table1_{r.lab.network}",
            f"{r.lab.network}: weights of each layer, coloured by the format that greedy search chose, with the order "
            f"in which it did; below, what INT4 in this layer alone changes, n = {r.n}",
            partial(draw_ranking, r),
        )
        for r in rankings
    )
    return Outcome(
        "heuristics",
        "Heuristics: width, depth and sensitivity (Table I)",
        _headline(rankings),
        (_layers(rankings), _hypotheses(rankings)),
        {"layers": _layer_records(rankings), "correlations": _correlation_records(rankings)},
        drawings,
        [sentence for r in rankings for sentence in _differences(r)],
        [*(own[0] for own in notes), *notes[0][1:], objective(), *_mapping()],
        {"networks": [lab.describe() for lab in labs]},
        sum(lab.measured for lab in labs),
        sum(lab.recalled for lab in labs),
    )


def _rank(lab: Lab) -> Ranking:
    greedy = {quantizer: order_of_moves(lab.search("greedy", quantizer)) for quantizer in lab.settings.quantizers}
    singles: Singles = {}
    for quantizer in lab.settings.quantizers:
        baseline, found = measure_singles(lab, "report", quantizer)
        singles |= {(quantizer, k): own for k, own in found.items()}
    ranking = Ranking(lab, baseline, singles, greedy)
    lab.release()
    for quantizer, decided in greedy.items():
        traits = _traits(lab, singles[quantizer, INT4])
        for decision, column in (("bits", decided.bits), ("order", decided.ranks)):
            for trait, values in traits.items():
                ranking.correlations[quantizer, decision, trait] = rank_correlation(column, values)
    return ranking


def _traits(lab: Lab, four: Sequence[Measured]) -> dict[str, list[float]]:
    return {
        "weights": [float(v) for v in lab.layer_weights],
        "channels": [float(v) for v in lab.layer_channels],
        "depth": [float(v) for v in range(len(lab.layers))],
        "change_4": [m.change for m in four],
        "divergence_4": [m.divergence or 0.0 for m in four],
    }


def papers_correlation(lab: Lab, trait: str) -> Correlation | None:
    """Return the rank correlation of the paper's own final bit-widths with a trait, over the layers of its table."""
    rows = _paper.TABLE_I[lab.network]
    places = [lab.layers.index(row.layer) for row in rows]
    columns = {
        "weights": [float(lab.layer_weights[place]) for place in places],
        "channels": [float(lab.layer_channels[place]) for place in places],
        "depth": [float(place) for place in places],
        "change_4": [row.four for row in rows],
    }
    return rank_correlation([row.bits for row in rows], columns[trait]) if trait in columns else None


def _headline(rankings: Sequence[Ranking]) -> str:
    parts = []
    for trait, words in (("weights", "the layers' weights"), ("change_4", "their change at 4 bits")):
        found = [
            f"{r.lab.network} {r.correlations[quantizer, 'order', trait].text} ({NAMES[quantizer]} quantizer)"
            for r in rankings
            for quantizer in r.greedy
        ]
        parts.append(f"with {words}: {', '.join(found)}")
    return f"Rank correlation of greedy's order of quantization {'; '.join(parts)}"


def _layer_records(rankings: Sequence[Ranking]) -> list[dict[str, Any]]:
    records = []
    for r in rankings:
        stated = {row.layer: row for row in _paper.TABLE_I[r.lab.network]}
        for quantizer, decided in r.greedy.items():
            for depth, layer in enumerate(r.lab.layers):
                paper = stated.get(layer)
                records.append(
                    {
                        "network": r.lab.network,
                        "quantizer": quantizer,
                        "depth": depth,
                        "layer": layer,
                        "paper_layer": paper and paper.name,
                        "weights": r.lab.layer_weights[depth],
                        "channels": r.lab.layer_channels[depth],
                        **r.singles[quantizer, INT8][depth].to_dict("int8_"),
                        **r.singles[quantizer, INT4][depth].to_dict("int4_"),
                        "bits": decided.bits[depth],
                        "order": decided.order[depth],
                        "paper_int8": paper and paper.eight,
                        "paper_int4": paper and paper.four,
                        "paper_bits": paper and paper.bits,
                    }
                )
    return records


def _layers(rankings: Sequence[Ranking]) -> Table:
    rows = _layer_records(rankings)
    measured = [
        {k: r.singles[quantizer, k][depth] for k in (INT8, INT4)}
        for r in rankings
        for quantizer in r.greedy
        for depth in range(len(r.lab.layers))
    ]
    for row, found in zip(rows, measured, strict=True):
        row |= {"quantizer": NAMES[row["quantizer"]], "eight": found[INT8].change_text, "four": found[INT4].change_text}
    small: dict[str, Any] = {"show": lambda v: f"{v:.2e}", "right": True}
    columns = [
        Column("network", "network"),
        Column("quantizer", "quantizer"),
        Column("paper_layer", "paper's layer"),
        Column("layer", "layer"),
        Column("weights", "weights", lambda v: f"{v:,}".replace(",", " "), right=True, drop=6),
        Column("channels", "channels", right=True, drop=2),
        Column("paper_int8", "8 bit, paper", signed, right=True, drop=5),
        Column("eight", "ours, points (95 %)", right=True, drop=4),
        Column("int8_divergence", "nats", drop=1, **small),
        Column("paper_int4", "4 bit, paper", signed, right=True),
        Column("four", "ours, points (95 %)", right=True),
        Column("int4_divergence", "nats", drop=3, **small),
        Column("paper_bits", "bits, paper", right=True),
        Column("bits", "ours", right=True),
        Column("order", "order", right=True),
    ]
    note = (
        f"Changes of accuracy when only this layer is quantized, report split, n = "
        f"{' and '.join(str(r.n) for r in rankings)}; nats: mean divergence from the float model's outputs; bits and "
        "order by greedy search on the search split."
    )
    return Table("Beside the paper (Table I)", columns, rows, note)


def _correlation_records(rankings: Sequence[Ranking]) -> list[dict[str, Any]]:
    records = []
    for r in rankings:
        for (quantizer, decision, trait), found in r.correlations.items():
            paper = papers_correlation(r.lab, trait) if decision == "bits" else None
            records.append(
                {
                    "network": r.lab.network,
                    "quantizer": quantizer,
                    "decision": decision,
                    "trait": trait,
                    "rho": found.rho,
                    "p_value": found.p_value,
                    "n": found.n,
                    "paper_rho": paper and paper.rho,
                    "paper_p_value": paper and paper.p_value,
                    "paper_n": paper and paper.n,
                }
            )
    return records


def _hypotheses(rankings: Sequence[Ranking]) -> Table:
    columns = [Column("decision", "decision"), Column("trait", "against the layer's")]
    rows: dict[tuple[str, str], dict[str, Any]] = {
        (d, t): {"decision": _DECISIONS[d], "trait": _TRAITS[t]} for d in _DECISIONS for t in _TRAITS
    }
    for r in rankings:
        columns.append(Column(f"{r.lab.network}_stated", f"{r.lab.network}: paper's table"))
        columns += [Column(f"{r.lab.network}_{q}", f"ours, {NAMES[q]}") for q in r.greedy]
        for (quantizer, decision, trait), found in r.correlations.items():
            rows[decision, trait][f"{r.lab.network}_{quantizer}"] = found.text
            if decision == "bits" and (paper := papers_correlation(r.lab, trait)):
                rows[decision, trait][f"{r.lab.network}_stated"] = f"{paper.text}, {paper.n} layers"
    note = (
        "Spearman's ρ over layers. A final bit-width or order that falls as weights grow (ρ < 0) is “wide layers "
        "first”; one that falls as the change at 4 bits grows, a change below zero being a loss, is “insensitive "
        "layers first”. The paper's column is computed from its own table; it prints no order."
    )
    return Table("The two hypotheses", columns, list(rows.values()), note)


def _differences(r: Ranking) -> list[str]:
    sentences = []
    rows = _paper.TABLE_I[r.lab.network]
    for quantizer, decided in r.greedy.items():
        what = f"{r.lab.network}, {NAMES[quantizer]} quantizer"
        counts = ", ".join(f"{decided.final.count(k)} at {BITS[k]} bit" for k in (INT4, INT8, KEEP))
        same = sum(decided.bits[r.lab.layers.index(row.layer)] == row.bits for row in rows)
        sentences.append(
            f"{what}: greedy ends with {counts} in {decided.evaluations} evaluations; {same} of the {len(rows)} layers "
            "in Table I get the paper's width"
        )
        sentences += [_verdict(r, quantizer, what), _by_size(r, decided, what), _noise(r, quantizer, what)]
    stated = [
        f"{words} {paper.text}" for trait, words in _TRAITS.items() if (paper := papers_correlation(r.lab, trait))
    ]
    sentences.append(
        f"{r.lab.network}: rank correlation of the paper's own final widths over the {len(rows)} layers that it lists: "
        f"{', '.join(stated)}"
    )
    return sentences


def _by_size(r: Ranking, decided: Decided, what: str) -> str:
    pairs = [
        (first > second) == (earlier < later)
        for (first, earlier), (second, later) in combinations(zip(r.lab.layer_weights, decided.ranks, strict=True), 2)
        if first != second and earlier != later
    ]
    return (
        f"{what}: of {len(pairs)} pairs of layers of different size, {100 * sum(pairs) / max(len(pairs), 1):.0f} % are "
        "quantized the larger first, as all would be if none cost accuracy: AI gains by the number of weights"
    )


def _verdict(r: Ranking, quantizer: str, what: str) -> str:
    def says(trait: str, sign: int) -> str:
        found = r.correlations[quantizer, "order", trait]
        if found.rho is None or found.p_value is None or found.p_value > _SURE:
            verdict = "is not shown"
        else:
            verdict = "holds" if sign * found.rho > 0 else "is contradicted"
        return f"{verdict} by the {_TRAITS[trait]}, {found.text}"

    return (
        f"{what}, order of quantization: “wide layers first” {says('weights', -1)}, and {says('channels', -1)}; “late "
        f"layers first” {says('depth', -1)}; “insensitive layers first” {says('change_4', -1)}, and "
        f"{says('divergence_4', 1)}"
    )


def _noise(r: Ranking, quantizer: str, what: str) -> str:
    found = r.singles[quantizer, INT4]
    largest = max(abs(row.four) for row in _paper.TABLE_I[r.lab.network])
    half = sorted((m.change_high - m.change_low) / 2 for m in found)[len(found) // 2]
    return (
        f"{what}: {sum(m.distinct for m in found)} of {len(found)} changes at 4 bits exclude zero with n = {r.n}, "
        f"where an interval is ± {half:.2f} points wide (median); the paper's largest is {largest:.2f} and it gives no "
        "intervals"
    )


def _mapping() -> list[str]:
    listed = {network: len(rows) for network, rows in _paper.TABLE_I.items()}
    return [
        "Table I's names are read as: c1 conv1, 1.0e1 layer1.0.conv1, lin linear; f3 features.3, cls cls. It lists "
        + " and ".join(f"{count} layers of {network}" for network, count in listed.items()),
        "Table I states neither unit nor sign of its sensitivities; they are shown as printed, beside our changes in "
        "percentage points, negative for a loss",
    ]
