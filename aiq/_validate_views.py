"""What people see of a validation: headline, one row a scheme or a layer, and what it all rests on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aiq._validate_result import SCHEMA_VERSION, Profile, Row, Validation
from aiq._validate_stats import Errors, Figure, Regret
from aiq._views import duration
from aiq.report import Column, Report
from roofline.units import number, percent, si

if TYPE_CHECKING:
    from aiq._deployed import Agreement
    from aiq._validate import Job

_SHOWN = 3


def validation_report(result: Validation, *, layers: bool = False) -> Report:
    """Show a validation: one row for each scheme and batch size, or for each layer of the profiled schemes."""
    columns = _LAYER_COLUMNS if layers else _columns(result)
    by_layer = [row for profile in result.profiles for row in _layers(profile)]
    rows = by_layer if layers else [_row(row) for row in _ordered(result)]
    return Report(_headline(result), columns, rows, list(_notes(result, layers=layers)), result.to_dict())


def _headline(result: Validation) -> str:
    what = f"{result.model} on {result.version}, {result.hardware.title}"
    if result.noisy:
        return f"{what}: {noise_text(result)}"
    own = result.errors[result.judged]
    worst = max(result.regrets[result.judged], key=lambda found: found.value)
    ranks = f"Spearman {own.spearman.value:.2f}, " if own.spearman else ""
    against = f"{percent(worst.value)} slower than the fastest" if worst.value else "the fastest"
    return (
        f"{what}: predicted times are off by {percent(own.median_ape.value)} in the median (bias "
        f"{_signed(own.bias.value)}), {ranks}and the scheme picked by prediction is {against} of {worst.n} (batch "
        f"{worst.batch})"
    )


def noise_text(result: Validation) -> str:
    """Say that the machine was too noisy."""
    return (
        f"machine too noisy: the median spread of a measurement is {percent(result.median_spread)}, above the limit of "
        f"{percent(result.settings.max_spread)}"
    )


def tolerance_text(result: Validation) -> str:
    """Say how the median error stands to the tolerance."""
    limit = result.settings.tolerance or 0.0
    return f"the median error is {percent(result.errors[result.judged].median_ape.value)}, above {percent(limit)}"


def _signed(share: float) -> str:
    return f"{100 * share:+.1f} %"


def _ordered(result: Validation) -> list[Row]:
    return sorted(result.rows, key=lambda row: (result.batches.index(row.batch), row.measurement.seconds))


def _row(row: Row) -> dict[str, Any]:
    ran = ", ".join(f"{count} {name}" for name, count in row.ran.items())
    return {
        **row.to_dict(),
        "ran": ran,
        **{f"by_{cost}": row.batch / p.latency_s for cost, p in row.predictions.items()},
    }


def _columns(result: Validation) -> tuple[Column, ...]:
    others = [cost for cost in result.costs if cost != result.judged]
    return (
        Column("scheme", "scheme"),
        Column("family", "family", drop=2),
        Column("batch", "batch", right=True),
        Column("measured_throughput", "measured", _rate, right=True),
        Column("spread", "spread", percent, right=True, drop=5),
        Column("predicted_throughput", f"predicted ({result.judged})", _rate, right=True),
        Column("interval", "90 % interval", lambda ends: f"{_rate(ends[0])} to {_rate(ends[1])}", drop=4),
        Column("error", "error of time", _signed, right=True),
        *(Column(f"by_{cost}", cost, _rate, right=True, drop=3) for cost in others),
        Column("ran", "layers really ran", drop=1),
        Column("not_as_asked", "not as asked", right=True, drop=1),
    )


def _rate(value: float) -> str:
    return si(value, "/s")


_LAYER_COLUMNS: tuple[Column, ...] = (
    Column("scheme", "scheme"),
    Column("batch", "batch", right=True),
    Column("layer", "layer"),
    Column("predicted_s", "predicted", lambda v: si(v, "s"), right=True),
    Column("measured_s", "in the profile", lambda v: si(v, "s"), right=True),
    Column("ratio", "predicted / profile", number, right=True),
    Column("kernels", "kernel", drop=1),
)


def _layers(profile: Profile) -> list[dict[str, Any]]:
    return [
        {
            "scheme": profile.scheme,
            "batch": profile.batch,
            "layer": time.layer,
            "predicted_s": time.predicted_s,
            "measured_s": time.measured_s,
            "ratio": time.predicted_s / time.measured_s if time.measured_s else None,
            "kernels": _kernels(time.kernels),
        }
        for time in profile.layers
    ]


def _kernels(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN
    return " ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _notes(result: Validation, *, layers: bool) -> Iterator[str]:
    if result.noisy:
        yield f"{noise_text(result)}; the figures below say little"
    if result.interrupted:
        yield "interrupted by Ctrl-C: what was measured by then is shown"
    if result.stopped:
        yield f"stopped: {result.stopped}"
    if result.hardware.runtimes and result.runtime not in result.hardware.runtimes:
        known = ", ".join(result.hardware.runtimes)
        yield f"{result.hardware.name} has kernel models of {known} and none of {result.runtime}: its bounds are judged"
    for cost, label in result.costs.items():
        yield f"{cost} ({label}): {_errors_text(result.errors[cost])}"
    for cost in result.costs:
        for found in result.regrets[cost]:
            yield f"batch {found.batch}, picked by {cost}: {_regret_text(found)}"
    if layers:
        yield "profile: the runtime's own; it slows a pass down, and its parts add up to more than the measured time"
        if not any(time.measured_s for profile in result.profiles for time in profile.layers[:-1]):
            yield f"the profile of {result.runtime} does not tell layers apart"
    for reason in dict.fromkeys(result.refused.values()):
        names = [name for name, why in result.refused.items() if why == reason]
        yield f"not measured: {', '.join(names)}: {reason}"
    for reason, count in result.reasons.items():
        yield f"in {count} of {len(result.rows)} networks: {reason}"
    for agreement in result.agreements:
        yield _agreement_text(agreement)
    yield _measured_text(result)
    yield f"ranges of activations: {result.calibration}"
    yield "error of time: predicted / measured - 1, negative where the prediction is too fast; intervals are 95 %"
    yield from result.assumptions


def _errors_text(found: Errors) -> str:
    parts = [
        f"median error {percent(found.median_ape.value)} ({_ends(found.median_ape)})",
        f"90th percentile {percent(found.p90_ape.value)} ({_ends(found.p90_ape)})",
        f"bias {_signed(found.bias.value)} ({_ends(found.bias)})",
    ]
    if found.spearman:
        low, high = found.spearman.low, found.spearman.high
        parts.append(f"Spearman {found.spearman.value:.3f} ({low:.3f} to {high:.3f}, mean over batch sizes)")
    parts.append(f"n = {found.median_ape.n}")
    if found.coverage:
        parts.append(
            f"{percent(found.coverage.value)} of {found.coverage.n} inside the 90 % interval ({_ends(found.coverage)})"
        )
    return ", ".join(parts)


def _ends(found: Figure) -> str:
    return f"{100 * found.low:.1f} to {100 * found.high:.1f} %"


def _regret_text(found: Regret) -> str:
    if found.picked == found.fastest:
        return f"{found.picked} is the fastest of {found.n}"
    noise = (
        f"{percent(found.beyond_noise)} slower than the fastest of the {found.faster} that are faster beyond the noise"
        if found.faster
        else "none is faster beyond the noise"
    )
    return (
        f"{found.picked} is {percent(found.value)} ({100 * found.low:.1f} to {100 * found.high:.1f} %) slower than "
        f"{found.fastest}, the fastest of {found.n}; {noise}"
    )


def _agreement_text(found: Agreement) -> str:
    low, high = found.interval
    text = (
        f"{found.scheme} on {found.runtime} against its simulation: {found.agreeing} of {found.n} predictions agree "
        f"({percent(found.share)}, {100 * low:.2f} to {100 * high:.2f} %)"
    )
    if found.difference and found.deployed_accuracy is not None and found.simulated_accuracy is not None:
        change = found.difference
        text += (
            f"; accuracy {100 * found.deployed_accuracy:.2f} % against {100 * found.simulated_accuracy:.2f} %, a "
            f"difference of {100 * change.value:.2f} points ({100 * change.low:.2f} to {100 * change.high:.2f})"
        )
    text += (
        f"; logits differ by {number(found.mean_logit_difference)} in the mean and "
        f"{number(found.largest_logit_difference)} at most, of a standard deviation of {number(found.logit_scale)}"
    )
    if found.partings:
        named = ", ".join(f"{parting.layer} (adds {number(parting.deviation)})" for parting in found.partings)
        text += f"; they part most at {named}, in standard deviations of the float model's logits"
    elif found.located:
        text += "; no single layer adds a tenth of that"
    return text


def _measured_text(result: Validation) -> str:
    samples = min(row.measurement.samples for row in result.rows)
    text = (
        f"measured in turn, {samples} samples of each scheme; median spread {percent(result.median_spread)} "
        f"(interquartile range over median); {duration(result.seconds)}"
    )
    if result.stolen:
        shares = ", ".join(f"{percent(share)} at batch {batch}" for batch, share in result.stolen.items())
        text += f"; processor time stolen by the hypervisor: {shares}"
    if result.disturbed:
        counts = ", ".join(f"{count} at batch {batch}" for batch, count in result.disturbed.items())
        text += f"; set aside, since all schemes ran slower in them than in others: rounds, {counts}"
    return text


def job_report(job: Job) -> Report:
    """Show what would be measured."""
    settings = job.settings
    rows = []
    for batch in dict.fromkeys(settings.batches):
        for pick in job.picks:
            found = job.estimate(pick, batch)
            rows.append(
                {
                    "scheme": pick.name,
                    "family": pick.family,
                    "batch": batch,
                    "predicted_throughput": found.throughput_per_s,
                    "predicted_latency_s": found.latency_s,
                }
            )
    columns = (
        Column("scheme", "scheme"),
        Column("family", "family"),
        Column("batch", "batch", right=True),
        Column("predicted_throughput", "predicted", _rate, right=True),
        Column("predicted_latency_s", "pass", lambda v: si(v, "s"), right=True),
    )
    sizes = " and ".join(map(str, dict.fromkeys(settings.batches)))
    headline = (
        f"{job.model.name} on {job.runtime.version()}: {len(job.picks)} schemes at batch {sizes}, {settings.rounds} "
        "samples of each, in turn; nothing was measured"
    )
    first = next(iter(job.costs))
    notes = [
        f"predicted: {first} ({job.costs[first].rates_label} of {job.hardware.title})",
        f"ranges of activations: {job.calibration}",
    ]
    if job.split is not None:
        notes.append(f"runtime and simulation are compared on {len(job.split)} samples of {settings.data}")
    data = {
        "schema_version": SCHEMA_VERSION,
        "model": job.model.name,
        "machine": job.hardware.name,
        "runtime": job.runtime.name,
        "cost_model": first,
        "rounds": settings.rounds,
        "rows": rows,
        "schemes": {pick.name: {"digest": pick.scheme.digest(), **pick.scheme.to_dict()} for pick in job.picks},
    }
    return Report(headline, columns, rows, notes, data)
