"""Experiment 3, throughput: schemes of MobileNetV2 on real runtimes, beside FP32 and the paper's figures."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aiq import _paper, zoo
from aiq._driver import Run
from aiq._reproduce_lab import Lab, ReproduceSettings, Tell, ThroughputSettings
from aiq._reproduce_measure import Measured, signed
from aiq._reproduce_page import Drawing, Outcome, Record, Table
from aiq._reproduce_throughput_bench import Bench, Judge, Row
from aiq._reproduce_throughput_plot import draw_throughput
from aiq._reproduce_throughput_result import EAGER, Found
from aiq._reproduce_throughput_schemes import (
    BF16,
    FP32,
    RANDOM,
    Chosen,
    Pick,
    choose,
    latency_plan,
    planned,
)
from aiq._reproduce_throughput_words import counts, differences, headline, notes
from aiq.cache import EvaluationStore, canonical_scheme
from aiq.calibrate import calibrate
from aiq.calibrate._calibrate import DEFAULT_RUNTIMES
from aiq.data import load
from aiq.quantize import Simulator
from aiq.registry import load_runtime
from aiq.report import Column
from aiq.runtimes import DeployError, Deployment, Runtime
from hardware_specs import HardwareSpec, to_json
from roofline import Scheme
from roofline.errors import AIQError, InputError
from roofline.units import percent

MACHINE_FILE = "machine.json"
_HALF = Pick("BF16", BF16, Scheme.parse("bf16"))


def throughput(settings: ReproduceSettings, store: EvaluationStore, tell: Tell) -> Outcome:
    """Choose schemes on the search split, deploy them, time them in turn, and judge them on the report split.

    Greedy search comes first, since it takes longest; then the machine is calibrated, unless it is given, latency plans
    are made and all networks are timed. Evaluations go through the cache, times do not.

    Raises:
        InputError: No trained weights, no runtime, other data than the network's, or a machine file of another runtime.
        DeployError: A runtime does not run the float network.
        AIQError: Data, oracle, cache or calibration cannot be used.
        KeyboardInterrupt: Ctrl-C before anything was timed; after that, what was measured is returned.
    """
    t = settings.throughput
    runtimes = _runtimes(t)
    if t.hardware is not None:
        _check_machine(t.hardware, runtimes)
    lab = Lab(t.model, settings, store, tell, search_images=t.search_images)
    _check_data(lab)
    split = load(lab.data, "report", limit=settings.limit)
    calibration = torch.from_numpy(np.ascontiguousarray(load(lab.data, "calibration").x))
    deployment = Deployment(Simulator(lab.model, lab.graph, calibration))
    half = {runtime.name: _has_half(runtime, deployment, t.batch) for runtime in runtimes}
    chosen = choose(lab, t)
    lab.release()
    machine = t.hardware or _calibrated(settings, runtimes, tell)
    plans = {
        runtime.name: latency_plan(lab, machine, runtime.name, t, half=half[runtime.name] and BF16 in machine.compute)
        for runtime in runtimes
    }
    search = _on_search(lab, [*chosen.picks, *map(planned, plans.values()), *([_HALF] if any(half.values()) else [])])
    lab.release()
    eager = load_runtime(EAGER)
    bench = Bench(lab, deployment, t.batch, tell)
    for runtime in runtimes:
        bench.build(runtime, _in_order(chosen, plans[runtime.name]))
    bench.build(eager, [Pick("FP32, eager", FP32, Scheme(name="FP32"))])
    interrupted, stopped = _run(bench, Judge(lab, deployment, split, store), t.rounds)
    found = Found(
        lab,
        t,
        split.dataset,
        machine,
        t.hardware is None,
        {runtime.name: runtime.version() for runtime in (*runtimes, eager)},
        chosen,
        plans,
        search,
        bench.rows(machine),
        bench.refused,
        bench.stolen,
        interrupted,
        stopped,
    )
    return outcome(found)


def _runtimes(t: ThroughputSettings) -> list[Runtime]:
    found: list[Runtime] = []
    if t.runtimes:
        found = [load_runtime(each) if isinstance(each, str) else each for each in t.runtimes]
    else:
        for name in DEFAULT_RUNTIMES:
            with contextlib.suppress(AIQError):
                found.append(load_runtime(name))
    distinct = {runtime.name: runtime for runtime in found}
    if not distinct:
        raise InputError(
            f"no runtime is installed, known: {', '.join(DEFAULT_RUNTIMES)}. "
            "Next: pip install 'aiq-roofline[openvino]'."
        )
    if EAGER in distinct:
        raise InputError(
            "PyTorch eager FP32 is measured beside the others in any case. Next: leave out --runtime torch."
        )
    return list(distinct.values())


def _check_machine(machine: HardwareSpec, runtimes: Sequence[Runtime]) -> None:
    missing = next((runtime.name for runtime in runtimes if runtime.name not in machine.runtimes), None)
    if missing is not None:
        raise InputError(
            f"{machine.name} has no kernel models of {missing}, known: {', '.join(machine.runtimes) or 'none'}. "
            "Next: leave out --hardware, or give a file that 'aiq calibrate' wrote for it."
        )


def _check_data(lab: Lab) -> None:
    own, given = zoo.get(lab.network).data, str(lab.settings.data)
    if (own == "digits") != (given == "digits"):
        where = "digits" if own == "digits" else "the folder of CIFAR-10"
        raise InputError(f"{lab.network} is made for {own}, and the data are {given!r}. Next: give --data {where}.")


def _has_half(runtime: Runtime, deployment: Deployment, batch: int) -> bool:
    """Whether a runtime really computes in BF16; one that refuses the float network is refused here."""
    runtime.prepare(deployment, Scheme(), batch=batch)
    try:
        executed = runtime.prepare(deployment, _HALF.scheme, batch=batch).executed_precisions()
    except DeployError:
        return False
    return any(found.compute == BF16 for found in executed.values())


def _calibrated(settings: ReproduceSettings, runtimes: Sequence[Runtime], tell: Tell) -> HardwareSpec:
    """Calibrate this machine, and write its file into the output folder."""
    found = calibrate(runtimes, seed=settings.throughput.seed, progress=lambda line: tell(f"calibrating: {line}"))
    target = (settings.out or Path()) / MACHINE_FILE
    try:
        target.write_text(to_json(found.spec), "utf-8")
    except OSError as error:
        raise InputError(f"cannot write {str(target)!r}: {error.strerror}. Next: choose another --out.") from None
    tell(f"calibrated: {target}")
    return found.spec


def _on_search(lab: Lab, picks: Sequence[Pick]) -> dict[str, Measured]:
    """Measure what was chosen on the search split, by digest of the canonical scheme."""
    schemes = {scheme.digest(): scheme for scheme in (canonical_scheme(lab.graph, pick.scheme) for pick in picks)}
    measured = lab.measure("search", list(schemes.values()), f"{lab.network}: what was chosen, search split")
    return {key: Measured.of(measured[0], found) for key, found in zip(schemes, measured, strict=True)}


def _in_order(chosen: Chosen, plan: Run) -> list[Pick]:
    """Return the schemes of a runtime: uniform ones, greedy's, the plan, random ones."""
    picks = chosen.picks
    return [
        picks[0],
        _HALF,
        *(pick for pick in picks[1:] if pick.family != RANDOM),
        planned(plan),
        *(pick for pick in picks if pick.family == RANDOM),
    ]


def _run(bench: Bench, judge: Judge, rounds: int) -> tuple[bool, str]:
    """Time, judge and profile; return whether Ctrl-C cut it short, and the error that did."""
    try:
        bench.time(rounds)
        bench.profile()
        bench.judge(judge)
    except KeyboardInterrupt:
        if not bench.timed:
            raise
        return True, ""
    except AIQError as error:
        if not bench.timed:
            raise
        return False, str(error)
    return False, ""


def outcome(found: Found) -> Outcome:
    """Return the page, tables and figure of what was found."""
    lab = found.lab
    caption = (
        f"Images a second of each scheme of {lab.network} at batch {found.settings.batch}, by runtime; bars: median of "
        "rounds taken in turn, whiskers: their quartiles, marks: predicted"
    )
    return Outcome(
        "throughput",
        "Throughput of quantized networks on real runtimes (section III-D)",
        headline(found),
        (_table(found),),
        {"throughput": _records(found), "executed": _executed(found)},
        (Drawing("throughput", caption, partial(draw_throughput, found)),),
        differences(found),
        notes(found),
        {**found.describe(), **({"machine_file": MACHINE_FILE} if found.here else {})},
        lab.measured,
        lab.recalled,
        interrupted=found.interrupted,
        failure=found.failure,
    )


def _table(found: Found) -> Table:
    rows = [shown for runtime in found.versions for shown in _shown(found, runtime)]
    first = _paper.THROUGHPUT[0]
    for paper in _paper.THROUGHPUT:
        plain = paper is first
        rows.append(
            {
                "runtime": "paper",
                "scheme": paper.config,
                "asked": None if plain else f"{paper.eight} INT8",
                "accuracy": f"{paper.accuracy:.2f}",
                "change": None if plain else signed(paper.accuracy - first.accuracy),
                "rate": paper.images_per_s,
                "gain": paper.images_per_s / first.images_per_s,
            }
        )
    rate: dict[str, Any] = {"show": lambda v: f"{v:.1f}", "right": True}
    ratio: dict[str, Any] = {"show": lambda v: f"{v:.2f}x", "right": True}
    columns = [
        Column("runtime", "runtime"),
        Column("scheme", "scheme"),
        Column("asked", "layers", drop=5),
        Column("ran", "really ran", drop=4),
        Column("accuracy", "accuracy % (95 %)", right=True, drop=6),
        Column("change", "Δ points (95 %)", right=True),
        Column("agreement", "as the simulation", percent, right=True, drop=2),
        Column("rate", "images/s", **rate),
        Column("spread", "spread", percent, right=True, drop=3),
        Column("gain", "x FP32", **ratio),
        Column("eager", "x PyTorch eager", **ratio),
        Column("predicted", "predicted", drop=1, **rate),
    ]
    note = (
        "x FP32: on the same runtime. Accuracy on the report split, of what the runtime predicts. A scheme of the same "
        "formats as an earlier one shares its measurements. The paper's rows are as printed: PyTorch on 2 virtual CPUs "
        "of a Xeon."
    )
    return Table("Beside the paper", columns, rows, note)


def _shown(found: Found, runtime: str) -> list[dict[str, Any]]:
    """Return what people see of one runtime, the mean of random layers last."""
    rows = []
    for row in found.of(runtime):
        change = found.change(row)
        rows.append(
            {
                "runtime": runtime,
                "scheme": f"{row.pick.config} (as {row.same_as})" if row.same_as else row.pick.config,
                "asked": counts(row.asked),
                "ran": counts(row.ran),
                "accuracy": change and change.accuracy_text,
                "change": change.change_text if change and row.pick.family != FP32 else None,
                "agreement": row.judged and row.judged.agreeing.value,
                "rate": row.measurement.throughput,
                "spread": row.measurement.spread,
                "gain": found.over(row, found.base(runtime)).value,
                "eager": found.over(row, found.eager).value,
                "predicted": row.predicted and row.measurement.batch / row.predicted.latency_s,
            }
        )
    if mean := _mean(found, runtime):
        rows.append(mean)
    return rows


def _mean(found: Found, runtime: str) -> dict[str, Any] | None:
    draws, rate = found.random(runtime), found.random_throughput(runtime)
    if rate is None:
        return None
    changes = [change for draw in draws if (change := found.change(draw)) is not None]
    whole = len(changes) == len(draws)
    return {
        "runtime": runtime,
        "scheme": f"{found.chosen.count} random layers, mean of {len(draws)}",
        "accuracy": f"{np.mean([change.accuracy for change in changes]):.2f}" if whole else None,
        "change": signed(float(np.mean([change.change for change in changes]))) if whole else None,
        "rate": rate,
        "gain": rate / found.base(runtime).measurement.throughput,
        "eager": rate / found.eager.measurement.throughput,
    }


def _records(found: Found) -> list[Record]:
    return [_record(found, row) for row in found.rows] + [
        {
            **dict.fromkeys(_record(found, found.rows[0])),
            "runtime": "paper",
            "scheme": paper.config,
            "family": "paper",
            "asked_int8": paper.eight,
            "accuracy": paper.accuracy,
            "change": paper.accuracy - _paper.THROUGHPUT[0].accuracy,
            "images_per_s": paper.images_per_s,
            "over_fp32": paper.images_per_s / _paper.THROUGHPUT[0].images_per_s,
        }
        for paper in _paper.THROUGHPUT
    ]


def _record(found: Found, row: Row) -> dict[str, Any]:
    change, search = found.change(row), found.on_search(row)
    gain, eager = found.over(row, found.base(row.runtime)), found.over(row, found.eager)
    ends = row.predicted.interval_s if row.predicted else None
    batch = row.measurement.batch
    return {
        "runtime": row.runtime,
        "scheme": row.pick.config,
        "family": row.pick.family,
        "same_as": row.same_as or None,
        **{f"asked_{fmt}": row.asked.get(fmt, 0) for fmt in ("int8", "bf16", "fp32")},
        **{f"ran_{fmt}": row.ran.get(fmt, 0) for fmt in ("int8", "bf16", "fp32")},
        "not_as_asked": sum(row.reasons.values()),
        "images_per_s": row.measurement.throughput,
        "latency_s": row.measurement.seconds,
        "spread": row.measurement.spread,
        "samples": row.measurement.samples,
        "over_fp32": gain.value,
        "over_fp32_low": gain.low,
        "over_fp32_high": gain.high,
        "over_eager": eager.value,
        "over_eager_low": eager.low,
        "over_eager_high": eager.high,
        "predicted_images_per_s": row.predicted and batch / row.predicted.latency_s,
        "predicted_low": ends and batch / ends[1],
        "predicted_high": batch / ends[0] if ends and ends[0] > 0 else None,
        **{name: change and getattr(change, name) for name in Measured.__slots__ if name != "divergence"},
        "simulated_accuracy": row.judged and 100 * row.judged.simulated.value,
        "agreement": row.judged and row.judged.agreeing.value,
        "search_change": search and search.change,
        "search_n": search and search.n,
        "profile_layers_s": row.profile and row.profile.layers_s,
        "profile_conversions_s": row.profile and row.profile.conversions_s,
        "profile_others_s": row.profile and row.profile.others_s,
    }


def _executed(found: Found) -> list[Record]:
    """Return what each layer really ran as, and its time in the profile."""
    kinds: Mapping[str, str] = found.kinds()
    return [
        {
            "runtime": row.runtime,
            "scheme": row.pick.config,
            "layer": layer,
            "kind": kinds.get(layer),
            "compute": ran.compute,
            "stored": ran.stored,
            "kernel": ran.kernel,
            "reason": ran.reason,
            "profile_s": row.profile and row.profile.layers.get(layer),
        }
        for row in found.rows
        if not row.same_as
        for layer, ran in row.executed.items()
    ]
