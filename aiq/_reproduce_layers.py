"""Experiment 1, the case study: one layer of ResNet-20 at a time in INT8 and INT4 (Fig. 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiq import _paper
from aiq._reproduce_figures import draw_case_study
from aiq._reproduce_lab import BITS, INT4, INT8, KEEP, NAMES, RESNET, Lab, ReproduceSettings, Tell
from aiq._reproduce_measure import Measured, holm, rank_correlation, signed
from aiq._reproduce_page import Drawing, Outcome, Table
from aiq._reproduce_words import accounting, float_model, range_text
from aiq.cache import EvaluationStore
from aiq.report import Column
from aiq.space import Choice

LABELS = {INT8: "INT8", INT4: "INT4"}
Singles = dict[tuple[str, int], list[Measured]]
"""By quantizer and option: each layer alone."""


@dataclass(frozen=True, eq=False)
class CaseStudy:
    """What one layer at a time does.

    Attributes:
        lab: The network.
        start: Arithmetic intensity of the float model, FLOP/byte.
        intensities: By option: of each layer alone.
        baseline: The float model's accuracy.
        singles: Accuracies with each layer alone.
    """

    lab: Lab
    start: float
    intensities: dict[int, list[float]]
    baseline: Measured
    singles: Singles


def single(units: int, unit: int, option: int) -> Choice:
    """Return the choice that quantizes one unit only."""
    return tuple(option if other == unit else KEEP for other in range(units))


def measure_singles(lab: Lab, split: str, quantizer: str) -> tuple[Measured, dict[int, list[Measured]]]:
    """Measure the float model and each layer alone at each option, on a split."""
    units = len(lab.layers)
    choices = {k: [single(units, unit, k) for unit in range(units)] for k in LABELS}
    start = lab.plain.start
    found = lab.evaluate(split, quantizer, [start, *choices[INT8], *choices[INT4]], "one layer at a time")
    before = found[start]
    return Measured.of(before, before), {
        k: [Measured.of(before, found[choice]) for choice in own] for k, own in choices.items()
    }


def case_study(settings: ReproduceSettings, store: EvaluationStore, tell: Tell) -> Outcome:
    """Run the case study on the report split."""
    lab = Lab(RESNET, settings, store, tell)
    units = len(lab.layers)
    singles: Singles = {}
    for quantizer in settings.quantizers:
        baseline, found = measure_singles(lab, "report", quantizer)
        singles |= {(quantizer, k): own for k, own in found.items()}
    intensities = {k: lab.intensities([single(units, unit, k) for unit in range(units)]) for k in LABELS}
    study = CaseStudy(lab, lab.intensities([lab.plain.start])[0], intensities, baseline, singles)
    caption = (
        f"Fig. 2 anew: arithmetic intensity and accuracy of {lab.network} with one layer quantized, against that "
        f"layer. n = {baseline.n} images; bars are paired 95 % intervals of the change; filled marks exclude zero"
    )
    return Outcome(
        "case-study",
        "Case study: one layer of ResNet-20 at a time (Fig. 2)",
        _headline(study),
        (_layers(study), _claims(study)),
        {"layers": _records(study)},
        (Drawing("fig2", caption, partial(draw_case_study, study)),),
        [*float_model(lab, baseline), *_differences(study)],
        accounting(lab, settings.quantizers),
        lab.describe(),
        lab.measured,
        lab.recalled,
    )


def _headline(study: CaseStudy) -> str:
    top = max(study.intensities[INT4]) / study.start - 1
    parts = [f"One layer in INT4 raises the intensity of {study.lab.network} by at most {100 * top:.1f} %"]
    for (quantizer, k), found in study.singles.items():
        if k == INT4:
            distinct = sum(m.distinct for m in found)
            parts.append(
                f"{distinct} of {len(found)} changes in accuracy exclude zero with the {NAMES[quantizer]} quantizer"
            )
    return "; ".join(parts)


def _layers(study: CaseStudy) -> Table:
    lab = study.lab
    columns = [
        Column("layer", "layer"),
        Column("weights", "weights", lambda v: f"{v:,}".replace(",", " "), right=True, drop=1),
        *(Column(f"ai{k}", f"AI {LABELS[k]}", lambda v: f"{v:.2f}", right=True, drop=2) for k in LABELS),
    ]
    rows: list[dict[str, Any]] = [
        {"layer": layer, "weights": weights, **{f"ai{k}": study.intensities[k][unit] for k in LABELS}}
        for unit, (layer, weights) in enumerate(zip(lab.layers, lab.layer_weights, strict=True))
    ]
    for (quantizer, k), found in study.singles.items():
        key = f"{quantizer}{k}"
        columns.append(Column(key, f"Δ {LABELS[k]}, {NAMES[quantizer]}", right=True, drop=3 if k == INT8 else 0))
        for row, measured in zip(rows, found, strict=True):
            row[key] = measured.change_text
    note = (
        f"AI in FLOP/byte (FP32: {study.start:.2f}); Δ: change of the accuracy in points with its paired 95 % "
        f"interval, n = {study.baseline.n}. Fig. 2 prints no values to set beside these."
    )
    return Table("Layer by layer", columns, rows, note)


def _claims(study: CaseStudy) -> Table:
    paper = _paper.FIGURE_4["FP32"]
    weights = study.lab.layer_weights
    rows: list[dict[str, str | None]] = [
        {"what": "AI of FP32", "paper": f"{paper.intensity:.2f}", "ours": f"{study.start:.2f}"},
        {"what": "accuracy of FP32, %", "paper": f"{paper.accuracy:.2f}", "ours": study.baseline.accuracy_text},
        {
            "what": "effect of one layer on AI",
            "paper": "“clear theoretical effect”",
            "ours": f"ρ with the layer's weights {rank_correlation(study.intensities[INT4], weights).text}",
        },
    ]
    for (quantizer, k), found in study.singles.items():
        rho = rank_correlation([m.change for m in found], weights)
        distinct = sum(m.distinct for m in found)
        rows.append(
            {
                "what": f"effect of one layer on accuracy, {LABELS[k]}, {NAMES[quantizer]}",
                "paper": "“unpredictable empirical effect”" if k == INT4 else None,
                "ours": f"ρ with its weights {rho.text}; {distinct} of {len(found)} intervals exclude zero",
            }
        )
    columns = [Column("what", "what"), Column("paper", "paper"), Column("ours", "ours")]
    return Table("Beside the paper", columns, rows, "ρ: Spearman's rank correlation over layers.")


def _records(study: CaseStudy) -> list[dict[str, Any]]:
    lab = study.lab
    return [
        {
            "quantizer": quantizer,
            "format": LABELS[k],
            "depth": depth,
            "layer": layer,
            "weights": lab.layer_weights[depth],
            "arithmetic_intensity": study.intensities[k][depth],
            "float_arithmetic_intensity": study.start,
            **measured.to_dict(),
            "distinct": measured.distinct,
        }
        for (quantizer, k), found in study.singles.items()
        for depth, (layer, measured) in enumerate(zip(lab.layers, found, strict=True))
    ]


def _differences(study: CaseStudy) -> list[str]:
    lab, singles = study.lab, study.singles
    gains = [100 * (value / study.start - 1) for value in study.intensities[INT4]]
    rho = rank_correlation(gains, lab.layer_weights)
    sentences = [
        f"INT4 in one layer raises AI {range_text(gains, lab.layers, '{:.2f} %'.format)}, in the order of the layers' "
        f"weights (rank correlation {rho.text}), of which {BITS[KEEP]} bits become {BITS[INT4]}",
        *(_distinct(lab, f"{LABELS[k]}, {NAMES[quantizer]}", found) for (quantizer, k), found in singles.items()),
        _width(next(found for (_, k), found in singles.items() if k == INT4)),
    ]
    if {("paper", INT4), ("aiq", INT4)} <= set(singles):
        plain, ours = (sum(m.change for m in singles[q, INT4]) for q in ("paper", "aiq"))
        sentences.append(
            f"the INT4 changes of all layers add up to {signed(plain)} points with the paper-like quantizer and "
            f"{signed(ours)} with AIQ's: how values are rounded is a choice beside which layers are"
        )
    return sentences


def _distinct(lab: Lab, what: str, found: Sequence[Measured]) -> str:
    changes = [m.change for m in found]
    rho = rank_correlation(changes, lab.layer_weights)
    sure = holm([m.p_value for m in found])
    return (
        f"{what}: changes {range_text(changes, lab.layers, signed)} points; {sum(m.distinct for m in found)} of "
        f"{len(found)} intervals exclude zero, of which one in twenty would by chance, and {sure} after Holm's "
        f"correction; rank correlation with the layer's weights {rho.text}"
    )


def _width(found: Sequence[Measured]) -> str:
    half = sorted((m.change_high - m.change_low) / 2 for m in found)[len(found) // 2]
    n = found[0].n
    then = half * math.sqrt(n / _paper.TEST_IMAGES)
    return (
        f"with n = {n} the paired interval of one layer is ± {half:.2f} points wide (median), and would be about "
        f"± {then:.2f} with the paper's {_paper.TEST_IMAGES}; the paper gives none, so which of its changes are more "
        "than noise cannot be told"
    )
