"""What people see of a search: headline, the best scheme layer by layer or the frontier, and what it all rests on."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from aiq._driver import Progress
from aiq._probe import Probe
from aiq._search import DryRun
from aiq._search_points import Figures, Point
from aiq._search_result import SearchResult
from aiq._views import duration
from aiq.oracle import Metric
from aiq.racing import ALPHA
from aiq.report import Column, Report
from roofline.units import number, percent, si

_COST_UNITS = {"ai": "B", "latency": "s", "memory": "B"}
_COSTS = {"ai": "bytes moved", "latency": "latency", "memory": "bytes of weights"}


def search_report(result: SearchResult, *, frontier: bool = False) -> Report:
    """Show a search: the best scheme by layer, or the frontier with the baseline and measured uniform schemes."""
    best = result.best
    columns, rows = _frontier(result) if frontier or best is None else _layers(result, best)
    return Report(_headline(result), columns, rows, _notes(result, frontier=frontier), result.to_dict())


def _headline(result: SearchResult) -> str:
    what = f"{result.model} on {result.hardware.title}, {result.estimate.traffic} traffic"
    best, metric = result.best, result.problem.metric
    if best is None:
        return f"{what}: {result.miss()}"
    if best.choice == result.problem.space.start:
        return f"{what}: no measured scheme is better than the float model for {_goal(result)}"
    return f"{what}: {best.label} {_loses(best.figures, metric)} for {_gain(result, best)}"


def _goal(result: SearchResult) -> str:
    goal, limits = result.problem.objective, result.problem.constraints
    return f"{goal.target} within the limits" if limits.bounds_loss else f"{goal.target} at lambda {goal.lam:g}"


def _gain(result: SearchResult, best: Point) -> str:
    start, target = result.baseline, result.problem.objective.target
    if target == "ai":
        after, before = (number(p.arithmetic_intensity, digits=4) for p in (best, start))
        ratio = best.arithmetic_intensity / start.arithmetic_intensity
        return f"{number(ratio)}x the arithmetic intensity, {after} against {before} FLOP/byte"
    if target == "latency":
        after, before = (si(p.latency_s, "s") for p in (best, start))
        kind = result.hardware.time_label
        return f"{number(start.latency_s / best.latency_s)}x the speed, {after} against {before} ({kind})"
    after, before = (si(p.weight_bytes, "B") for p in (best, start))
    return f"{number(start.weight_bytes / best.weight_bytes)}x smaller weights, {after} against {before}"


def _loses(figures: Figures, metric: Metric) -> str:
    verb = "loses" if figures.drop >= 0 else "gains"
    text = f"{verb} {number(abs(figures.drop))} {metric.unit} of {metric.name}"
    details = [f"{figures.split} split, n = {figures.n}"] if figures.n else []
    if figures.drop_interval is not None:
        low, high = figures.drop_interval
        details.insert(0, f"95 % interval of the loss {number(low)} to {number(high)}")
    return f"{text} ({'; '.join(details)})" if details else text


def value_text(value: float, metric: Metric) -> str:
    """Format a value of a metric: a fraction whose losses are in points as a percentage."""
    return f"{100 * value:.2f} %" if metric.unit == "points" and metric.scale == 100 else number(value, digits=4)


def _layers(result: SearchResult, best: Point) -> tuple[list[Column], list[dict[str, Any]]]:
    """Return one row for each unit of the best scheme, with the reason for its format where there is one."""
    space = result.problem.space
    reasons: list[Any] = [asdict(reason) for reason in result.why] or [{} for _ in space.units]
    rows = []
    for unit, k, reason in zip(space.units, best.choice, reasons, strict=True):
        layers = list(unit.layers)
        formats = dict.fromkeys(space.table.layer_options(space.table.layers[i])[k].label for i in layers)
        row = {
            "unit": unit.name,
            "option": " ".join(formats),
            "weight_bytes": float(space.table.weight_bytes[layers, k].sum()),
            "bytes": float(space.table.bytes[layers, k].sum()),
        }
        rows.append({**reason, **row})
    metric = result.problem.metric
    columns = [
        Column("unit", "layer"),
        Column("option", "format"),
        Column("weight_bytes", "weights", lambda v: si(v, "B"), right=True, drop=2),
        Column("bytes", "moved", lambda v: si(v, "B"), right=True, drop=1),
    ]
    if result.why:
        cost_unit = _COST_UNITS[result.problem.objective.target]
        bounded = result.problem.constraints.bounds_loss
        columns += [
            Column("loss", f"loss alone, {metric.unit}", number, right=True, drop=4),
            Column("next_option", "next best", drop=5),
            Column("margin", "margin", (lambda v: si(v, cost_unit)) if bounded else number, right=True, drop=3),
        ]
    return columns, rows


def _frontier(result: SearchResult) -> tuple[list[Column], list[dict[str, Any]]]:
    """Return one row for each point of the frontier, the float model and measured uniform schemes, by cost."""
    metric, best = result.problem.metric, result.best
    kinds = {True: "hull", False: "budget", None: "uniform"}
    points = {point.choice: point for point in (*result.uniform.values(), *result.frontier)}
    named = [(point, kinds[point.supported]) for point in points.values() if point.choice != result.baseline.choice]
    if best and best.choice not in (*points, result.baseline.choice):
        named.append((best, "measured"))
    named.append((result.baseline, "float model"))
    costs = result.problem.costs([point.choice for point, _ in named])
    rows = []
    for _, (point, kind) in sorted(zip(costs, named, strict=True), key=lambda item: float(item[0])):
        chosen = best is not None and point.choice == best.choice
        rows.append(
            {
                "kind": f"{kind}, best" if chosen else kind,
                "scheme": point.label,
                "value": point.figures.value,
                "interval": point.figures.interval,
                "drop": point.figures.drop,
                "drop_interval": point.figures.drop_interval,
                "split": point.figures.split,
                "arithmetic_intensity": point.arithmetic_intensity,
                "bytes": point.bytes,
                "weight_bytes": point.weight_bytes,
                "latency_s": point.latency_s,
                "flips": f"{point.flips.measured} + {point.flips.settled} of {point.flips.total}",
            }
        )
    columns = [
        Column("kind", "kind"),
        Column("scheme", "layers"),
        Column("value", metric.name, lambda v: value_text(v, metric), right=True, drop=7),
        Column("drop", f"loss, {metric.unit}", lambda v: f"{v:.2f}", right=True),
        Column("drop_interval", "95 % interval", lambda ends: f"{ends[0]:.2f} to {ends[1]:.2f}", drop=8),
        Column("split", "split", drop=2),
        Column("arithmetic_intensity", "FLOP/B", lambda v: number(v, digits=4), right=True, drop=6),
        Column("bytes", "moved", lambda v: si(v, "B"), right=True, drop=3),
        Column("weight_bytes", "weights", lambda v: si(v, "B"), right=True, drop=5),
        Column("latency_s", "latency", lambda v: si(v, "s"), right=True, drop=4),
        Column("flips", "flips", right=True, drop=1),
    ]
    gained = {"ai": "arithmetic_intensity", "latency": "latency_s", "memory": "weight_bytes"}
    of_target = gained[result.problem.objective.target]
    return [replace(column, drop=0) if column.key == of_target else column for column in columns], rows


def _notes(result: SearchResult, *, frontier: bool) -> list[str]:
    run, problem, metric = result.run, result.problem, result.problem.metric
    notes = [f"stopped: {result.stopped}"] if result.stopped else []
    notes += [_measured(result), _minimised(result)]
    if result.best and result.reported is None and result.best.figures.n:
        notes.append("figures are of the search split, which the scheme was chosen by: they flatter it")
    if result.best and not frontier:
        flips = result.best.flips
        notes.append(
            f"{flips.measured} of the {flips.total} schemes that differ in one unit were measured, "
            f"{flips.better} of them better; {flips.settled} more cannot be better whatever their accuracy"
            + (f", and {flips.open} were not measured" if flips.open else "")
        )
    if result.best and result.bound is not None and result.gap is not None:
        notes.append(
            f"no scheme of the space is below {_objective(result, result.bound)} under the strategy's model of "
            f"accuracy; the best, measured, is at {_objective(result, result.best.objective or 0.0)}, a gap of "
            f"{percent(result.gap)}"
        )
    if result.why and not frontier:
        notes.append(_why_note(result))
    if frontier:
        notes.append(
            "hull: in reach of a sweep over lambda; budget: only a limit finds it; flips: of the schemes that differ "
            "in one unit, those measured + those that cannot be better whatever their accuracy (than the best by what "
            "is minimised, than others at less cost without more loss)"
        )
    count, hits = len(run.evaluations), len(run.cached)
    notes.append(
        f"{count} evaluations of at most {problem.space.size} schemes, {hits} from the cache; arithmetic of "
        f"{number(run.work)} whole evaluations in this run and {number(run.total_work)} in all; "
        f"{duration(result.seconds)}"
    )
    if result.settings.race:
        notes.append(_race_note(result))
    if run.findings and run.findings.note:
        notes.append(run.findings.note)
    low, high = result.baseline.figures.interval or (None, None)
    if low is not None and high is not None:
        value = value_text(result.baseline.figures.value, metric)
        notes.append(
            f"float model: {value} (95 % interval {value_text(low, metric)} to {value_text(high, metric)}); "
            "losses are compared with it example by example"
        )
    return [*notes, *result.shared, *result.estimate.assumptions]


def _measured(result: SearchResult) -> str:
    """Say what measured the figures: oracle, data, splits, and how values were quantized."""
    known, n = result.fingerprint, result.problem.baseline.n
    if not n:
        return f"losses are those of the oracle {result.oracle}, which evaluates no examples"
    splits = f"{n} examples of search"
    if result.reported:
        most = max((found.n for found in result.reported.evaluations.values()), default=0)
        splits += f" and {most} of {result.reported.split}"
    data = f" ({known['data']})" if "data" in known else ""
    quantizer = f"; quantization is simulated (quantizer {known['quantizer'][:12]})" if "quantizer" in known else ""
    return f"measured by the oracle {result.oracle} on {splits}{data}{quantizer}"


def _minimised(result: SearchResult) -> str:
    problem, goal = result.problem, result.problem.objective
    unit = problem.metric.unit
    limits = {
        "max_weight_bytes": lambda v: f"weights at most {si(v, 'B')}",
        "min_intensity": lambda v: f"at least {number(v)} FLOP/byte",
        "max_latency_s": lambda v: f"at most {si(v, 's')} a pass",
    }
    words = [show(v) for key, show in limits.items() if (v := getattr(problem.constraints, key)) is not None]
    if problem.constraints.bounds_loss:
        what = _COSTS[goal.target]
        return f"minimised: {what}, {', '.join([f'loss at most {number(problem.max_loss)} {unit}', *words])}"
    text = f"minimised: L = -{goal.lam:g} * gain ({goal.target}, {goal.normalise}) + {1 - goal.lam:g} * loss in {unit}"
    return ", ".join([text, *words])


def _race_note(result: SearchResult) -> str:
    """Say how many evaluations were cut short, what that saved, and how sure it is."""
    limit = f"{number(result.problem.max_loss)} {result.problem.metric.unit}"
    share = result.saved_work / (result.run.total_work + result.saved_work)
    return (
        f"racing cut {len(result.raced)} of them short and saved about {percent(share)} of the arithmetic: these lost "
        f"more than {limit} on the examples run; one that loses no more on all of them is cut short with a probability "
        f"of at most {ALPHA:g}"
    )


def _objective(result: SearchResult, value: float) -> str:
    problem = result.problem
    return si(value, _COST_UNITS[problem.objective.target]) if problem.constraints.bounds_loss else number(value)


def _why_note(result: SearchResult) -> str:
    """Say what the reasons by layer mean, and what a unit of cost is worth."""
    problem = result.problem
    unit = _COST_UNITS[problem.objective.target]
    what = f"the {_COSTS[problem.objective.target]}" if problem.constraints.bounds_loss else "L"
    text = f"margin: by how much the next best format would worsen {what}, other layers as they are"
    price = result.why[0].shadow_price
    if price is None:
        return text
    per, scale = ("µs", 1e-6) if unit == "s" else ("kB", 1e3)
    return (
        f"{text} (negative: the model of accuracy expects better); a change pays where it adds less than "
        f"{number(price * scale)} {problem.metric.unit} for each {per} that it saves"
    )


def dry_run_report(plan: DryRun) -> Report:
    """Show what a search would take."""
    seconds = plan.seconds
    time = f", about {duration(seconds)}" if seconds is not None else ""
    headline = (
        f"{plan.model}: {plan.strategy} takes at most {plan.evaluations} evaluations of {plan.schemes} schemes, "
        f"{plan.cached} of them in the cache{time}; nothing was evaluated"
    )
    data = {
        "schema_version": 1,
        "model": plan.model,
        "strategy": plan.strategy,
        "schemes": plan.schemes,
        "evaluations": plan.evaluations,
        "cached": plan.cached,
        "samples": plan.samples,
        "seconds": seconds,
        "probe": vars(plan.probe) if isinstance(plan.probe, Probe) else {"reason": plan.probe},
    }
    columns = (Column("what", "what"), Column("value", "value", right=True))
    rows = [{"what": key, "value": data[key]} for key in ("strategy", "schemes", "evaluations", "cached", "samples")]
    speed = str(plan.probe) if isinstance(plan.probe, Probe) else f"not timed: {plan.probe}"
    notes = [
        "cached: evaluations that the cache answers before the first one is missing",
        f"speed of an evaluation, without reuse of activations: {speed}",
        "evaluations on the report split come on top: the float model, the best, and with --frontier points of it",
    ]
    if plan.samples is None:
        notes.append("the oracle does not say how many samples an evaluation takes")
    return Report(headline, columns, rows, notes, data)


def progress_text(progress: Progress) -> str:
    """Say in one line where a search stands."""
    best = (
        f"best so far {progress.best}, loss {number(progress.best_loss or 0.0)}" if progress.best else "none fits yet"
    )
    left = f", at most {duration(progress.seconds_left)} left" if progress.seconds_left is not None else ""
    return (
        f"{progress.evaluations} of at most {progress.limit} evaluations, {progress.cache_hits} from the cache; "
        f"{best}; {duration(progress.seconds)}{left}"
    )
