"""Sentences that the experiments share, each computed from the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiq import _paper
from aiq._reproduce_lab import NAMES, OBJECTIVE, QUANTIZERS, Lab, recipe
from aiq._reproduce_measure import Measured

_FORMATS = {8: "INT8", 4: "INT4"}


def float_model(
    lab: Lab, report: Measured, search: Measured | None = None, *, paper: float = _paper.FIGURE_4["FP32"].accuracy
) -> list[str]:
    """Compare the float model with the paper's, and its accuracy on the two splits."""
    inside = report.low <= paper <= report.high
    sentences = [
        f"our float network has {report.accuracy_text} % on {report.n} images, the paper's {paper:.2f} % on its test "
        f"set ({_paper.TEST_IMAGES} images): "
        + ("within our interval" if inside else "outside our interval, so the networks differ before any quantization")
    ]
    if search is not None and (search.low > report.high or search.high < report.low):
        gap = search.accuracy - report.accuracy
        sentences.append(
            f"the float model has {search.accuracy_text} % on the {search.n} images that the search looks at and "
            f"{report.accuracy:.2f} % on those reported, {abs(gap):.1f} points apart, more than chance explains: "
            + (
                "training seems to have seen the former, and losses on them understate those on new images"
                if gap > 0
                else "the former are harder, and losses on them are not those on the latter"
            )
        )
    return sentences


def accounting(lab: Lab, quantizers: Sequence[str]) -> list[str]:
    """Say what was counted, how values were quantized, and what was evaluated."""
    how = "; ".join(
        f"{NAMES[q]}: "
        + (
            both
            if (both := recipe(q, 8)) == recipe(q, 4)
            else ", ".join(f"{_FORMATS[bits]} {recipe(q, bits)}" for bits in (8, 4))
        )
        for q in quantizers
    )
    sentences = [
        f"{lab.network} with weights {lab.weights.name}; {_splits(lab)}",
        "paper traffic, batch 1: FLOPs and bytes of convolutions and linear layers, activations and shortcut weights "
        "FP32, no scales; only weights are quantized",
        f"quantizers: {how}",
    ]
    if "paper" in quantizers:
        sentences.append(
            "the paper does not describe its quantizer: "
            f"{QUANTIZERS['paper']} (nearest, one scale for a tensor from its largest value) is the plainest reading"
        )
    if lab.settings.limit is not None:
        sentences.append(f"a quick look: only the first {lab.settings.limit} images of each split were evaluated")
    sentences.append(
        "intervals are 95 % ones: Wilson's of an accuracy, Tango's of a change, paired image by image with the float "
        "model; a star marks a change whose interval excludes zero"
    )
    return sentences


def objective() -> str:
    """Say what the searches minimise."""
    o = OBJECTIVE
    return (
        f"searches minimise L = -{o.lam:g} * AI + {1 - o.lam:.1g} * loss in points, AI scaled by {o.normalise} (the "
        "paper names no scale); a gain in accuracy counts as no loss"
    )


def _splits(lab: Lab) -> str:
    uses = {"search": "searched on", "report": "reported on"}
    said = [
        f"{uses[split]} {known['n']} images of {known['data']} ({split})"
        for split, known in lab.fingerprints.items()
        if {"n", "data"} <= set(known)
    ]
    return ", ".join(said) or "no data named"


def range_text(values: Sequence[float], names: Sequence[str], show: Callable[[float], str]) -> str:
    """Say between which values, and at which names, a column lies."""
    pairs = list(zip(values, names, strict=True))
    (low, first), (high, last) = min(pairs), max(pairs)
    return f"from {show(low)} ({first}) to {show(high)} ({last})" if low < high else f"all {show(low)}"
