"""The estimate: FLOPs, bytes and the time of each resource for every row; the bound is the slowest resource."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from hardware_specs import HardwareSpec
from roofline.floats import common_half, in_half
from roofline.graph import OpGraph
from roofline.kernels import UNCALIBRATED_SHARE
from roofline.precision import LayerPrecision, Precision
from roofline.pricing import Pricing
from roofline.result import GraphEstimate, LayerEstimate, Transition
from roofline.scheme import Scheme
from roofline.traffic import Row, Traffic, build_rows
from roofline.units import percent


def estimate(
    graph: OpGraph,
    hardware: HardwareSpec,
    scheme: Scheme | str | None = None,
    *,
    batch: int | None = None,
    traffic: Traffic | str = "fused",
    runtime: str | None = None,
) -> GraphEstimate:
    """Predict bound and latency of every layer: time is the slowest of compute, each memory level, and launch overhead.

    ``t(row) = max(compute, bytes_m / bandwidth_m for each level m, overhead)``, with ``compute`` the larger of
    ``2 · MACs / ceiling`` and ``vector FLOPs / vector ceiling`` where a GPU's matrix units leave its vector units free,
    and their sum where both run on the same units (any CPU; FP32 on a GPU). The model's latency is the sum over rows:
    on datasheet rates a lower bound on the time of any execution with the same traffic in which rows do not overlap.
    On a calibrated machine a row takes the time of its kernel model instead (:func:`roofline.kernels.predict`), with a
    90 % interval; a row that no model speaks of keeps its bound, and the assumptions say how much of the time that is.
    Where its runtime computes all floating-point layers in one format (``hardware.one_float_format``), a scheme with
    16-bit floats anywhere times all of them so; their bytes stay those that the scheme says.

    Args:
        graph: From :func:`roofline.trace`.
        hardware: The machine; ``hardware.sustained()`` uses measured sustained rates where there are some.
        scheme: A scheme or its text; ``None`` keeps the model's own formats.
        batch: Samples at once; by default the traced batch. Tensors derived from the inputs scale with it.
        traffic: ``paper``, ``unfused`` or ``fused`` (see :mod:`roofline.traffic`).
        runtime: Price rows by the kernel models fitted for this runtime, as on ``hardware.calibrated(runtime)``;
            ``None`` leaves the rates of ``hardware`` in force, and no model is used unless they are calibrated.

    Raises:
        InputError: Batch below 1 or an unknown traffic model.
        UnknownNameError: The scheme names a layer that the graph has not.
        SpecError: The machine has no kernel models.
        MissingCeilingError: The machine states no ceiling that a layer could run on.

    Source: Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009; levels as in Ilic, Pratas and Sousa,
    Cache-aware Roofline model, IEEE CAL 13(1), 2014.
    """
    hardware = hardware if runtime is None else hardware.calibrated(runtime)
    chosen = Scheme.parse(scheme) if isinstance(scheme, str) else scheme or Scheme(name="as traced")
    size = graph.batch if batch is None else batch
    rows = build_rows(graph, traffic=traffic, batch=size)
    pricing = Pricing(graph, hardware, rows, traffic)
    formats = resolve(graph, chosen)
    row_formats = [format_of(row, formats, chosen) for row in rows]
    weight_bytes = sum(pricing.stored_bytes(layer, formats[layer]) for layer in graph.layers)
    level = pricing.weight_level(weight_bytes)
    half = common_half(formats.values()) if hardware.computes_in_one_float else None
    layers = tuple(pricing.price(row, fmt, level, half) for row, fmt in zip(rows, row_formats, strict=True))
    ran = row_formats if half is None else [in_half(fmt, half) for fmt in row_formats]
    transitions = tuple(pricing.transitions(ran))
    found = GraphEstimate(
        graph,
        hardware,
        chosen,
        size,
        traffic,
        layers,
        transitions,
        _total_latency(pricing, layers, transitions),
        weight_bytes,
        (),
    )
    return replace(found, assumptions=_assumptions(found, level, half))


def resolve(graph: OpGraph, scheme: Scheme) -> dict[str, LayerPrecision]:
    """Return the formats that a scheme gives each layer of a graph (see :meth:`Scheme.resolve`)."""
    known = [name for op in graph for name in (op.layer, op.name)]
    return scheme.resolve(graph.layers, keep_weights=graph.keep_weights, known=known, aliases=graph.aliases)


def format_of(row: Row, formats: dict[str, LayerPrecision], scheme: Scheme) -> LayerPrecision:
    """Return the formats of a row: those of a rule that names it, else of the layer that it follows."""
    if not row.weighted:
        for name in (row.name, row.layer):
            explicit = scheme.explicit(name) if name not in formats else None
            if explicit is not None:
                return explicit
    return formats.get(row.anchor, scheme.default)


def _total_latency(pricing: Pricing, layers: Sequence[LayerEstimate], transitions: Sequence[Transition]) -> float:
    """Add rows layer by layer, then transitions: the order in which a table of schemes adds them."""
    total = 0.0
    for indices in pricing.rows_by_anchor.values():
        part = 0.0
        for index in indices:
            part += layers[index].latency_s
        total += part
    for transition in transitions:
        total += transition.latency_s
    return total


def _assumptions(estimate: GraphEstimate, level: int, half: Precision | None) -> tuple[str, ...]:
    graph, hardware, traffic, batch = estimate.graph, estimate.hardware, estimate.traffic, estimate.batch
    sustained = hardware.rates == "sustained"
    kind = f"measured {hardware.rates_label} where there are some" if sustained else hardware.rates_label
    calibrated = tuple(_calibration(estimate, half)) if hardware.rates == "calibrated" else ()
    found = [
        *(calibrated or (f"time is a lower bound from {kind} of {hardware.title}, not a measurement",)),
        {
            "paper": "paper traffic: convolution and linear layers only, without bias, normalisation and scales",
            "unfused": f"unfused traffic: every op reads and writes {hardware.memory[0].name}",
            "fused": "fused traffic: element-wise tails and normalisations run inside their producer",
        }[traffic],
        "1 MAC = 2 FLOP",
    ]
    if traffic == "fused" and len(hardware.memory) > 1:
        name = hardware.memory[level].name
        found.append(
            f"back-to-back passes: weights are read from {name}, activations from the innermost level they fit"
        )
    if hardware.launch_overhead_s is None:
        found.append(f"no launch overhead is known for {hardware.name}: taken as 0")
    if batch != graph.batch:
        found.append(f"traced at batch {graph.batch}, scaled to {batch}")
    if traffic != "paper" and graph.unknown:
        found.append(f"{len(graph.unknown)} operators without a formula are priced by their bytes alone")
    return (*found, *graph.notes)


def _calibration(estimate: GraphEstimate, half: Precision | None) -> Iterator[str]:
    """Say which models made the figures, how far they are off, and what they do not cover."""
    hardware = estimate.hardware
    used = list({row.model.label: row.model for row in estimate.rows if row.model}.values())
    if used:
        dates = sorted({model.date for model in used})
        errors = ", ".join(f"{model.label} {percent(model.error.median_ape)}" for model in used)
        yield (
            f"time is predicted, not measured, by kernel models calibrated for {hardware.runtime} on {hardware.title} "
            f"({' to '.join(dict.fromkeys((dates[0], dates[-1])))}); median error on rows not fitted: {errors}"
        )
    if hardware.computes_in_one_float:
        what = f": those that the scheme leaves wider are timed in {half.name}, and keep their bytes" if half else ""
        yield f"{hardware.runtime} computes all floating-point layers of a network in one format{what}"
    if estimate.uncalibrated:
        parts = ", ".join(f"{what} {percent(share)}" for what, share in estimate.uncalibrated.items())
        yield f"no kernel model, priced by the bound from sustained or datasheet rates, of the total time: {parts}"
    far = [layer.name for layer in estimate.layers if layer.extrapolated]
    if far:
        yield (
            f"extrapolated beyond the sizes that were fitted: {len(far)} rows, {percent(estimate.extrapolated_share)} "
            "of time"
        )
    if estimate.latency_interval_s:
        share = percent(estimate.common_variance)
        yield f"90 % interval of the total: {share} of each row's variance is common to all rows, the rest independent"
    elif used:
        yield f"no interval of the total: more than {percent(UNCALIBRATED_SHARE)} of time has none"
    fused = {model.traffic for model in used} - {estimate.traffic}
    if fused:
        yield f"the kernels of {hardware.runtime} were measured as {' and '.join(sorted(fused))} traffic describes them"
