"""Experiment 3, its sentences: each says what the run found, and where the paper found something else, why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aiq import _paper
from aiq._deployed import ENOUGH
from aiq._reproduce_measure import Measured, signed
from aiq._reproduce_throughput_bench import Profile
from aiq._reproduce_throughput_result import Found
from aiq._reproduce_throughput_schemes import FIRST, FP32, GREEDY, INT8, PAPER_LAYERS, PLAN, RANDOM
from aiq._reproduce_words import float_model
from aiq._validate_stats import Figure
from roofline.units import number, percent, si

_PLAIN, _GREEDY, _RANDOM = _paper.THROUGHPUT
_GAIN = _GREEDY.images_per_s / _PLAIN.images_per_s
_NETWORK = "mobilenet_v2"
_WIDTHS = ("int8", "bf16", "fp32")
_KINDS = {"conv": "convolution", "depthwise_conv": "depthwise convolution", "linear": "linear layer"}


def headline(found: Found) -> str:
    """Say what the latency plan gains on each runtime, beside the paper."""
    what = f"{found.lab.network} at batch {found.settings.batch} on {found.machine.title}"
    if found.noisy:
        return f"{what}: {found.noise_text}"
    parts = []
    for runtime in found.runtimes:
        row = found.row(runtime, PLAN)
        if row is None:
            continue
        change = found.change(row)
        accuracy = f", accuracy {_change(change)}" if change else ""
        parts.append(
            f"{times(found.over(row, found.base(runtime)))} FP32 on {runtime} and "
            f"{times(found.over(row, found.eager))} PyTorch eager{accuracy}"
        )
    plans = f"runs at {'; '.join(parts)}" if parts else "runs on no runtime"
    return (
        f"{what}: AIQ's latency plan {plans}; the paper's {PAPER_LAYERS} INT8 layers at "
        f"{_GAIN:.2f}x, accuracy {signed(_GREEDY.accuracy - _PLAIN.accuracy)} points"
    )


def times(found: Figure) -> str:
    """Format a ratio of throughputs with its interval."""
    return f"{found.value:.2f}x ({found.low:.2f} to {found.high:.2f})"


def counts(layers: Mapping[str, int]) -> str:
    """Format how many layers have which format, the narrowest first."""
    order = sorted(layers, key=lambda name: (_WIDTHS.index(name) if name in _WIDTHS else len(_WIDTHS), name))
    return ", ".join(f"{layers[name]} {name.upper()}" for name in order)


def differences(found: Found) -> list[str]:
    """Say where this differs from the paper, and why, from the facts of the run."""
    base = found.base(found.runtimes[0])
    report, search = found.change(base), found.on_search(base)
    sentences = float_model(found.lab, report, search, paper=_PLAIN.accuracy) if report else []
    sentences += [*_setting(found), _float_speed(found), _greedy(found)]
    for runtime in found.runtimes:
        sentences += [
            _gains(found, runtime),
            *_random(found, runtime),
            *_plan(found, runtime),
            *_widened(found, runtime),
            *_balance(found, runtime),
            *_by_kind(found, runtime),
            *_refused(found, runtime),
        ]
    return [*sentences, *_losses(found), *_agreements(found)]


def _setting(found: Found) -> Iterator[str]:
    if not found.lab.network.startswith(_NETWORK):
        yield f"the network is {found.lab.network}, the paper's MobileNetV2"
    if found.dataset.name != "cifar10":
        yield f"the images are {found.dataset.name} ({found.dataset.source}), the paper's CIFAR-10's test images"


def _float_speed(found: Found) -> str:
    flops = _flops(found)
    mine, papers = found.eager.measurement.throughput, _PLAIN.images_per_s
    text = (
        f"PyTorch eager FP32 runs {_rate(mine)} here, {si(mine * flops, 'FLOP/s')} at {si(flops, 'FLOP')} an image; "
        f"the paper's {papers} images/s would be {si(papers * flops, 'FLOP/s')} of this network"
    )
    ceiling = found.machine.compute.get("fp32")
    if ceiling is not None and papers * flops > ceiling.value:
        text += (
            f", more than the {si(ceiling.value, 'FLOP/s')} of FP32 that this machine reaches: its network is "
            "smaller or its machine faster"
        )
    return text + "; it names 2 virtual CPUs of a Xeon, and neither strides, batch size nor kernels"


def _greedy(found: Found) -> str:
    chosen, space = found.chosen, found.chosen.space
    first, last = space.score([chosen.path[0], chosen.path[-1]]).arithmetic_intensity
    run = chosen.greedy
    loss = run.losses[run.index[chosen.path[-1]]]
    whole = "all " if len(chosen.path) - 1 == len(space.units) else ""
    text = (
        f"greedy search on AI takes {whole}{chosen.taken} layers to INT8, weights and activations, losing "
        f"{number(float(loss))} points on {run.problem.baseline.n} search images, of "
        f"{number(found.settings.max_loss)} allowed: AI from {first:.1f} to {last:.1f} FLOP/byte; the paper's ends at "
        f"{PAPER_LAYERS} layers"
    )
    if found.row(found.runtimes[0], FIRST):
        text += f", beside which its first {chosen.count} stand here"
    return text


def _gains(found: Found, runtime: str) -> str:
    base = found.base(runtime)
    parts = [
        f"{row.pick.config} {times(found.over(row, base))}"
        for row in found.of(runtime)
        if row.pick.family not in (FP32, RANDOM)
    ]
    return (
        f"{runtime}, against its own FP32: {', '.join(parts)}; the paper's gain of {_GAIN:.2f}x is over FP32 in "
        f"PyTorch, over which {runtime}'s FP32 alone has {times(found.over(base, found.eager))}"
    )


def _random(found: Found, runtime: str) -> Iterator[str]:
    row, mean, draws = found.matched(runtime), found.random_throughput(runtime), found.random(runtime)
    if row is None or mean is None:
        return
    speeds = sorted(found.over(draw, found.base(runtime)).value for draw in draws)
    papers = _GREEDY.images_per_s / _RANDOM.images_per_s
    yield (
        f"{runtime}: {row.pick.config} at {_rate(row.measurement.throughput)}, "
        f"{row.measurement.throughput / mean:.2f}x the mean of {len(draws)} draws of {found.chosen.count} random "
        f"layers, which run at {speeds[0]:.2f}x to {speeds[-1]:.2f}x FP32; the paper's choice runs at {papers:.2f}x "
        "its random one"
    )


def _plan(found: Found, runtime: str) -> Iterator[str]:
    row = found.row(runtime, PLAN)
    if row is None:
        return
    others = [found.best_uniform(runtime), found.row(runtime, GREEDY), found.row(runtime, FIRST)]
    names = ["the fastest uniform scheme within the loss, {}", "{}", "{}"]
    parts = []
    for name, other in zip(names, others, strict=True):
        if other is None:
            continue
        what = name.format(other.pick.config)
        same = (row.same_as or row.pick.config) == (other.same_as or other.pick.config)
        ratio = found.over(row, other)
        parts.append(f"the same as {what}" if same else f"{times(ratio)}, {_verdict(ratio)} {what}")
    error = ""
    if row.predicted:
        off = row.predicted.latency_s / row.measurement.seconds - 1.0
        error = f"; the prediction of its time is off by {signed(100 * off, 1)} %"
    yield f"{runtime}: the latency plan ({counts(row.asked)}) is {'; '.join(parts)}{error}"


def _verdict(ratio: Figure) -> str:
    if ratio.low > 1:
        return "faster than"
    return "slower than" if ratio.high < 1 else "not told apart from"


def _widened(found: Found, runtime: str) -> Iterator[str]:
    texts: dict[str, list[str]] = {}
    for row in found.of(runtime):
        if row.same_as or row.pick.family == RANDOM:
            continue
        for reason, count in row.reasons.items():
            texts.setdefault(reason, []).append(f"{count} of {len(row.executed)} layers of {row.pick.config}")
    for reason, where in texts.items():
        yield f"{runtime}, not run as asked: {', '.join(where)}: {reason}"


def _balance(found: Found, runtime: str) -> Iterator[str]:
    """Say what a scheme saves in its layers and pays between them, in shares of FP32's profile."""
    base = found.base(runtime).profile
    if base is None or not base.layers or not base.total_s:
        return
    parts = []
    for row in found.of(runtime):
        if row.profile is None or row.same_as or row.pick.family in (FP32, RANDOM):
            continue
        layers, conversions, others = (
            (mine - before) / base.total_s
            for mine, before in (
                (row.profile.layers_s, base.layers_s),
                (row.profile.conversions_s, base.conversions_s),
                (row.profile.others_s, base.others_s),
            )
        )
        parts.append(
            f"{row.pick.config} {signed(100 * layers, 1)} % in layers, {signed(100 * conversions, 1)} % in quantizing, "
            f"dequantizing and reordering tensors, {signed(100 * others, 1)} % elsewhere"
        )
    if parts:
        yield f"{runtime}, time in its own profile against FP32's whole: {'; '.join(parts)}"


def _by_kind(found: Found, runtime: str) -> Iterator[str]:
    """Say how much faster the layers of each kind are that uniform INT8 really ran in INT8."""
    row, base = found.row(runtime, INT8), found.base(runtime)
    if row is None or row.profile is None or base.profile is None:
        return
    kinds = found.kinds()
    parts = []
    for kind, name in _KINDS.items():
        layers = [layer for layer in _timed(row.profile, base.profile) if kinds.get(layer) == kind]
        ran = [layer for layer in layers if row.executed[layer].compute == "int8"]
        if ran:
            ratio = sum(base.profile.layers[layer] for layer in ran) / sum(row.profile.layers[layer] for layer in ran)
            parts.append(f"{len(ran)} {name}{'s' * (len(ran) > 1)} {ratio:.2f}x")
    if parts:
        yield f"{runtime}, layers that ran INT8 against FP32, by its own profile: {', '.join(parts)}"


def _timed(first: Profile, second: Profile) -> list[str]:
    return [layer for layer, seconds in first.layers.items() if seconds > 0 and second.layers.get(layer, 0) > 0]


def _refused(found: Found, runtime: str) -> Iterator[str]:
    for (name, config), reason in found.refused.items():
        if name == runtime:
            yield f"{runtime} has no {config}: {reason.rstrip('.')}"


def _losses(found: Found) -> Iterator[str]:
    """Say which schemes lose more on the report split than was allowed on the search split."""
    limit = found.settings.max_loss
    for row in found.rows:
        change = found.change(row)
        if change is None or row.same_as or -change.change <= limit:
            continue
        before = found.on_search(row)
        chosen = f", and {_change(before)} on {before.n} search images" if before else ""
        yield (
            f"{row.runtime}: {row.pick.config} changes the accuracy by {_change(change)} on {change.n} report images, "
            f"beyond the {number(limit)} points of the search{chosen}"
        )


def _agreements(found: Found) -> Iterator[str]:
    judged = [(row, row.judged) for row in found.rows if row.judged is not None and not row.same_as]
    if not judged:
        return
    row, least = min(judged, key=lambda pair: pair[1].agreeing.value)
    yield (
        f"runtime and simulation choose the same class on at least {percent(least.agreeing.value)} of "
        f"{least.agreeing.n} images ({row.pick.config} on {row.runtime})"
    )
    for row, counted in judged:
        if counted.agreeing.value < ENOUGH:
            yield (
                f"{row.runtime} and the simulation agree on {percent(counted.agreeing.value)} of images for "
                f"{row.pick.config}, with an accuracy of {percent(counted.deployed.value)} against "
                f"{percent(counted.simulated.value)}: 'aiq validate {found.lab.network} --runtime {row.runtime} "
                "--locate' names the layers"
            )


def notes(found: Found) -> list[str]:
    """Say what the figures rest on."""
    s, lab = found.settings, found.lab
    sentences = [
        f"{lab.network} with weights {lab.weights.name}; calibrated, searched and reported on different images of "
        f"{found.dataset.name}: {', '.join(_splits(found))}",
        f"versions: {', '.join(found.versions.values())}; PyTorch eager is the paper's kind of baseline",
        f"all networks of all runtimes timed in turn at batch {s.batch}, {_samples(found)} samples of each, median; "
        f"spread: interquartile range over median, {percent(found.median_spread)} in the median"
        + (f"; processor time stolen by the hypervisor: {percent(found.stolen)}" if found.stolen is not None else ""),
        "accuracy is that of what the runtime predicts; changes are against FP32 on the same runtime, image by image",
        "intervals are 95 % ones: Wilson's of an accuracy, Tango's of a change, of a ratio of throughputs by "
        "resampling rounds; a star marks a change whose interval excludes zero",
        f"schemes chosen within {number(s.max_loss)} points of loss in simulation: greedy on AI in the paper's "
        "accounting, of FP32 and INT8 (w8a8); the latency plan by exact search on predicted time, changes of format "
        "included",
        f"machine: {found.machine.title}, {'calibrated in this run' if found.here else 'from a machine file'}"
        + (f". {found.machine.note.rstrip('.')}" if found.machine.note else ""),
    ]
    sentences += [
        f"the latency plan of {runtime}: {run.findings.note}" for runtime, run in found.plans.items() if run.findings
    ]
    if lab.settings.limit is not None:
        sentences.append(f"a quick look: only the first {lab.settings.limit} images of each split were evaluated")
    if found.interrupted:
        sentences.append("interrupted by Ctrl-C: what was measured by then is shown")
    if found.stopped:
        sentences.append(f"stopped: {found.stopped.rstrip('.')}")
    return sentences


def _splits(found: Found) -> Iterator[str]:
    for split, known in found.lab.fingerprints.items():
        if "n" in known:
            yield f"{known['n']} of {split}"


def _samples(found: Found) -> int:
    return min(row.measurement.samples for row in found.rows)


def _flops(found: Found) -> float:
    return float(sum(2 * op.macs for op in found.lab.graph)) / found.lab.graph.batch


def _change(m: Measured) -> str:
    return f"{signed(m.change)} ({signed(m.change_low)} to {signed(m.change_high)}) points"


def _rate(value: float) -> str:
    return f"{value:.1f} images/s"
