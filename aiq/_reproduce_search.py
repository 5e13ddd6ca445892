"""Experiment 2: greedy search and coordinate descent on ResNet-20 (Fig. 3a, Fig. 3b, Fig. 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from aiq import _paper
from aiq._driver import Run
from aiq._reproduce_figures import draw_plane, draw_scores
from aiq._reproduce_lab import BITS, INT4, INT8, KEEP, NAMES, OBJECTIVE, RESNET, Lab, ReproduceSettings, Tell
from aiq._reproduce_measure import Measured, signed
from aiq._reproduce_page import Drawing, Outcome, Table
from aiq._reproduce_words import accounting, float_model, objective
from aiq.cache import EvaluationStore
from aiq.objective import NORMALISATIONS, Objective
from aiq.oracle import Evaluation
from aiq.problem import Constraints, Problem
from aiq.report import Column
from aiq.space import Choice
from roofline.units import number

SEARCHES = {"greedy": ("greedy", "exact"), "coordinate": ("greedy", "coordinate", "exact")}
"""Strategies by experiment; ``exact`` is not the paper's."""
_TITLES = {
    "greedy": "Greedy search on ResNet-20 (Fig. 3a, Fig. 3b)",
    "coordinate": "Coordinate descent beside greedy search on ResNet-20 (Fig. 4)",
}
_UNIFORM = {"INT8": INT8, "INT4": INT4}


@dataclass(frozen=True, eq=False)
class Candidate:
    """One scheme of the comparison.

    Attributes:
        config: ``FP32``, ``INT8``, ``INT4`` or the search that found it.
        quantizer: How values are rounded.
        choice: Options by layer.
        intensity: FLOP/byte.
        value: L on the search split.
        search: Accuracy on the search split.
        report: Accuracy on the report split.
        run: The search that found it.
    """

    config: str
    quantizer: str
    choice: Choice
    intensity: float
    value: float
    search: Measured
    report: Measured
    run: Run | None = field(repr=False)

    def count(self, option: int) -> int:
        """Return how many layers have an option."""
        return self.choice.count(option)

    @property
    def layers(self) -> str:
        """How many layers have 4, 8 and 32 bits."""
        return " ".join(f"{self.count(k)}×{BITS[k]}" for k in (INT4, INT8, KEEP) if self.count(k))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Every scheme of the table.

    Attributes:
        lab: The network.
        quantizers: Names of the quantizers.
        configs: Names of the schemes, in order.
        rows: The schemes.
        pools: Everything measured on the search split, by quantizer.
        outcomes: The report split's evaluations, by quantizer.
    """

    lab: Lab
    quantizers: tuple[str, ...]
    configs: list[str]
    rows: list[Candidate]
    pools: dict[str, tuple[Problem, dict[Choice, Evaluation]]] = field(repr=False)
    outcomes: dict[str, dict[Choice, Evaluation]] = field(repr=False)

    @property
    def n(self) -> int:
        """Images of the report split."""
        return self.rows[0].report.n

    def row(self, config: str, quantizer: str) -> Candidate:
        """Return one scheme."""
        return next(row for row in self.rows if (row.config, row.quantizer) == (config, quantizer))


def search_experiment(name: str) -> Callable[[ReproduceSettings, EvaluationStore, Tell], Outcome]:
    """Return the experiment of a name in ``SEARCHES``."""
    return partial(_run, name)


def _run(name: str, settings: ReproduceSettings, store: EvaluationStore, tell: Tell) -> Outcome:
    lab = Lab(RESNET, settings, store, tell)
    found = compare(lab, SEARCHES[name])
    caption = f"n = {found.n} images of the report split"
    drawings = (
        Drawing(
            "fig3a",
            f"Fig. 3a anew: intensity × accuracy of each scheme, the paper's and ours; {caption}.",
            partial(draw_scores, found),
        ),
        Drawing(
            "fig3b",
            f"Fig. 3b anew: accuracy against intensity, with the frontier of our schemes; {caption}.",
            partial(draw_plane, found),
        ),
    )
    base = found.rows[0]
    return Outcome(
        name,
        _TITLES[name],
        _headline(found, name),
        (_table(found), _formats(found)),
        {"schemes": _records(found), "formats": _format_records(found)},
        drawings,
        [*float_model(lab, base.report, base.search), *_differences(found)],
        [*accounting(lab, found.quantizers), objective()],
        lab.describe(),
        lab.measured,
        lab.recalled,
    )


def compare(lab: Lab, strategies: Sequence[str]) -> Comparison:
    """Search on the search split with each quantizer, then measure what was found on the report split."""
    quantizers, units = lab.settings.quantizers, len(lab.layers)
    uniform = {"FP32": lab.plain.start, **{config: (k,) * units for config, k in _UNIFORM.items()}}
    runs: dict[tuple[str, str], Run] = {}
    pools: dict[str, tuple[Problem, dict[Choice, Evaluation]]] = {}
    chosen: dict[str, dict[str, Choice]] = {}
    for quantizer in quantizers:
        pool = lab.evaluate("search", quantizer, uniform.values(), "uniform schemes")
        chosen[quantizer] = dict(uniform)
        for strategy in strategies:
            run = runs[strategy, quantizer] = lab.search(strategy, quantizer)
            pool |= run.evaluations
            chosen[quantizer][strategy] = run.best or run.problem.space.start
        pools[quantizer] = run.problem, pool
    outcomes = {
        quantizer: lab.evaluate("report", quantizer, chosen[quantizer].values(), "what was found")
        for quantizer in quantizers
    }
    rows = []
    for quantizer in quantizers:
        problem, pool = pools[quantizer]
        start = problem.space.start
        for config, choice in chosen[quantizer].items():
            value = float(problem.values([choice], [problem.loss(pool[choice])])[0])
            rows.append(
                Candidate(
                    config,
                    quantizer,
                    choice,
                    lab.intensities([choice])[0],
                    value,
                    Measured.of(pool[start], pool[choice]),
                    Measured.of(outcomes[quantizer][start], outcomes[quantizer][choice]),
                    runs.get((config, quantizer)),
                )
            )
    return Comparison(lab, quantizers, [*uniform, *strategies], rows, pools, outcomes)


def _headline(found: Comparison, name: str) -> str:
    parts = []
    for quantizer in found.quantizers:
        row = found.row(name, quantizer)
        m = row.report
        parts.append(
            f"{NAMES[quantizer]} quantizer: {row.layers} bit, AI {row.intensity:.2f}, accuracy {signed(m.change)} "
            f"({signed(m.change_low)} to {signed(m.change_high)}) points"
        )
    stated = _paper.FIGURE_4[name]
    return (
        f"{name} on {found.lab.network}, n = {found.n}: {'; '.join(parts)}; the paper: {stated.four}×4 "
        f"{stated.eight}×8 bit, AI {stated.intensity:.2f}, {signed(stated.change)} points"
    )


def _table(found: Comparison) -> Table:
    start = found.rows[0].intensity
    rows: list[dict[str, Any]] = []
    for config in found.configs:
        stated = _paper.FIGURE_4.get(config)
        for quantizer in found.quantizers[: 1 if config == "FP32" else None]:
            row = found.row(config, quantizer)
            rows.append(
                {
                    "config": config,
                    "quantizer": None if config == "FP32" else NAMES[quantizer],
                    "paper_layers": stated and f"{stated.four}×4 {stated.eight}×8" if config != "FP32" else None,
                    "layers": row.layers,
                    "paper_accuracy": stated and stated.accuracy,
                    "accuracy": row.report.accuracy_text,
                    "paper_change": stated.change if stated and config != "FP32" else None,
                    "change": row.report.change_text if config != "FP32" else None,
                    "paper_ai": stated and stated.intensity,
                    "ai": row.intensity,
                    "paper_gain": stated.intensity_change if stated and config != "FP32" else None,
                    "gain": 100 * (row.intensity / start - 1) if config != "FP32" else None,
                    "value": row.value,
                    "evaluations": len(row.run.evaluations) if row.run else None,
                }
            )
    two: dict[str, Any] = {"show": lambda v: f"{v:.2f}", "right": True}
    one: dict[str, Any] = {"show": lambda v: f"{v:+.1f} %", "right": True}
    columns = [
        Column("config", "config"),
        Column("quantizer", "quantizer"),
        Column("paper_layers", "layers × bit, paper", drop=3),
        Column("layers", "ours"),
        Column("paper_accuracy", "accuracy %, paper", drop=5, **two),
        Column("accuracy", "ours (95 %)", right=True, drop=4),
        Column("paper_change", "Δ points, paper", signed, right=True),
        Column("change", "ours (95 %)", right=True),
        Column("paper_ai", "AI, paper", **two),
        Column("ai", "ours", **two),
        Column("paper_gain", "ΔAI, paper", drop=1, **one),
        Column("gain", "ours", drop=1, **one),
        Column("value", "L, search split", lambda v: f"{v:.4f}", right=True, drop=2),
        Column("evaluations", "evaluations", right=True, drop=6),
    ]
    note = (
        f"Ours: {found.n} images of the report split, which no choice was made by; AI in FLOP/byte; evaluations on the "
        "search split. The exact search is not the paper's."
    )
    return Table("Beside the paper (Fig. 4)", columns, rows, note)


def _searched(found: Comparison) -> list[Candidate]:
    return [row for row in found.rows if row.run is not None]


def _format_records(found: Comparison) -> list[dict[str, Any]]:
    rows = []
    for unit, (layer, weights) in enumerate(zip(found.lab.layers, found.lab.layer_weights, strict=True)):
        bits = {f"{row.config}_{row.quantizer}": BITS[row.choice[unit]] for row in _searched(found)}
        rows.append({"layer": layer, "weights": weights, **bits})
    return rows


def _formats(found: Comparison) -> Table:
    columns = [
        Column("layer", "layer"),
        Column("weights", "weights", right=True),
        *(
            Column(f"{row.config}_{row.quantizer}", f"{row.config}, {NAMES[row.quantizer]}", right=True)
            for row in _searched(found)
        ),
    ]
    return Table("Bits of each layer's weights", columns, _format_records(found))


def _records(found: Comparison) -> list[dict[str, Any]]:
    records = []
    for row in found.rows:
        paper = _paper.FIGURE_4.get(row.config)
        records.append(
            {
                "config": row.config,
                "quantizer": row.quantizer,
                "four_bit_layers": row.count(INT4),
                "eight_bit_layers": row.count(INT8),
                "kept_layers": row.count(KEEP),
                "arithmetic_intensity": row.intensity,
                "objective": row.value,
                **row.report.to_dict(),
                **row.search.to_dict("search_"),
                "evaluations": len(row.run.evaluations) if row.run else None,
                "evaluations_work": row.run.total_work if row.run else None,
                **{
                    f"paper_{key}": getattr(paper, key, None)
                    for key in ("accuracy", "change", "intensity", "intensity_change", "four", "eight")
                },
            }
        )
    return records


def _differences(found: Comparison) -> list[str]:
    sentences = [_intensities(found), _image_worth(found)]
    for quantizer in found.quantizers:
        sentences += [_changes(found, quantizer), *_layer_counts(found, quantizer)]
    if len(found.quantizers) == 2:
        sentences += [_quantizers(found, config) for config in found.configs if config not in ("FP32", "exact")]
    for quantizer in found.quantizers:
        sentences += [_normalisations(found, quantizer), _searches(found, quantizer), _generalises(found, quantizer)]
    return sentences


def _intensities(found: Comparison) -> str:
    rows = [found.row(config, found.quantizers[0]) for config in ("FP32", *_UNIFORM)]
    off = [row for row in rows if f"{row.intensity:.2f}" != f"{_paper.FIGURE_4[row.config].intensity:.2f}"]
    values = ", ".join(f"{row.config} {row.intensity:.2f}" for row in rows)
    if not off:
        return f"the intensities of the uniform schemes are the paper's to two decimals: {values}"
    stated = ", ".join(f"{row.config} {_paper.FIGURE_4[row.config].intensity:.2f}" for row in rows)
    return f"the intensities of the uniform schemes are {values}, the paper's {stated}: another network or accounting"


def _changes(found: Comparison, quantizer: str) -> str:
    inside: list[str] = []
    outside: list[str] = []
    for config in found.configs:
        paper = _paper.FIGURE_4.get(config)
        if paper is not None and config != "FP32":
            m = found.row(config, quantizer).report
            text = f"{config} {signed(m.change)} (paper {signed(paper.change)})"
            (inside if m.covers(paper.change) else outside).append(text)
    parts = [f"within our interval: {', '.join(inside)}"] if inside else []
    parts += [f"outside it: {', '.join(outside)}"] if outside else []
    return f"changes of accuracy with the {NAMES[quantizer]} quantizer: {'; '.join(parts)}"


def _layer_counts(found: Comparison, quantizer: str) -> list[str]:
    sentences = []
    for row in _searched(found):
        paper = _paper.FIGURE_4.get(row.config)
        if paper is None or row.quantizer != quantizer:
            continue
        ours = {
            k: sum(w for w, option in zip(found.lab.layer_weights, row.choice, strict=True) if option == k)
            for k in (KEEP, INT8)
        }
        kept = f" and {ours[KEEP]:,} in those at FP32" if ours[KEEP] else ""
        sentences.append(
            f"{row.config} with the {NAMES[quantizer]} quantizer ends at {row.layers} bit and AI {row.intensity:.2f}, "
            f"with {ours[INT8]:,} weights in its 8-bit layers{kept}; the paper at {paper.four}×4 {paper.eight}×8 and "
            f"{paper.intensity:.2f}, which needs about {_weights_at_8(found, paper.intensity):,} in its 8-bit layers"
        )
    return sentences


def _weights_at_8(found: Comparison, intensity: float) -> int:
    """Return how many weights must have 8 bits, the others 4, for an intensity; to the next hundred."""
    flops, least = found.lab.plain.table.flops, found.row("INT4", found.quantizers[0]).intensity
    extra_bytes = flops / intensity - flops / least
    return 100 * round(8 * extra_bytes / (BITS[INT8] - BITS[INT4]) / 100)


def _image_worth(found: Comparison) -> str:
    problem, _ = found.pools[found.quantizers[0]]
    low, high = problem.ends
    n = found.rows[0].search.n
    points = 100 / n
    worth = points * (1 - OBJECTIVE.lam) / OBJECTIVE.lam * (high - low)
    return (
        f"with {n} search images one image more or less is {points:.3f} points, which L weighs like {worth:.2f} "
        "FLOP/byte: gains below that are decided by single images"
    )


def _quantizers(found: Comparison, config: str) -> str:
    plain, ours = (found.row(config, quantizer) for quantizer in ("paper", "aiq"))
    before, after = (found.outcomes[row.quantizer][row.choice] for row in (plain, ours))
    m = Measured.of(before, after)
    verdict = "more than noise" if m.distinct else "not told from noise"
    return (
        f"{config}: AIQ's quantizer against the paper-like one, image by image: {signed(m.change)} "
        f"({signed(m.change_low)} to {signed(m.change_high)}) points, {verdict}, at AI {ours.intensity:.2f} against "
        f"{plain.intensity:.2f}"
    )


def _normalisations(found: Comparison, quantizer: str) -> str:
    problem, pool = found.pools[quantizer]
    choices = list(pool)
    losses = [problem.loss(evaluation) for evaluation in pool.values()]
    best: dict[str, list[str]] = {}
    for name in NORMALISATIONS:
        goal = Objective("ai", OBJECTIVE.lam, name)
        values = Problem(problem.space, goal, Constraints(), problem.metric, problem.baseline).values(choices, losses)
        choice = choices[int(np.argmin(values))]
        counts = " ".join(f"{choice.count(k)}×{BITS[k]}" for k in (INT4, INT8, KEEP) if choice.count(k))
        text = f"{counts} bit (AI {found.lab.intensities([choice])[0]:.2f})"
        best.setdefault(text, []).append(name)
    parts = [f"{text} with {_listed(names)}" for text, names in best.items()]
    moral = "the scale, which the paper does not state, decides" if len(best) > 1 else "the scale changes nothing here"
    return (
        f"of the {len(pool)} schemes measured with the {NAMES[quantizer]} quantizer, L at lambda {OBJECTIVE.lam:g} is "
        f"least for {', '.join(parts)}: {moral}"
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _searches(found: Comparison, quantizer: str) -> str:
    rows = [row for row in _searched(found) if row.quantizer == quantizer]
    parts = [
        f"{row.config} {row.value:.4f} in {len(row.run.evaluations)} evaluations ({number(row.run.total_work)} whole "
        "ones by arithmetic)"
        for row in rows
        if row.run is not None
    ]
    uniform = min((found.row(config, quantizer) for config in _UNIFORM), key=lambda row: row.value)
    least = min(row.value for row in rows)
    return (
        f"L reached with the {NAMES[quantizer]} quantizer: {', '.join(parts)}; the better uniform scheme, "
        f"{uniform.config}, has {uniform.value:.4f}"
        + ("" if least < uniform.value else ", so on this split no search found better than a uniform scheme")
    )


def _generalises(found: Comparison, quantizer: str) -> str:
    parts = [
        f"{row.config} {signed(row.search.change)} and {signed(row.report.change)}"
        for row in _searched(found)
        if row.quantizer == quantizer
    ]
    return (
        f"change on the search split, which the scheme was chosen by, and on the report split, {NAMES[quantizer]} "
        f"quantizer: {'; '.join(parts)} points"
    )
