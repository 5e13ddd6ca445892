"""A whole generation: the prompt, then one token after another, priced from a few lengths of the cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from aiq._model import Source
from aiq.report import Column, Report
from hardware_specs import HardwareSpec
from roofline import GraphEstimate, Scheme, estimate
from roofline.errors import InputError
from roofline.units import number, percent, si

MOST_NEW_TOKENS = 10**6
_POINTS = 9


@dataclass(frozen=True, eq=False)
class Generation:
    """What N new tokens of each sequence take.

    Attributes:
        source: The model.
        new_tokens: N; the prompt yields the first of them.
        prefill: Estimate of the prompt.
        steps: Estimates of single new tokens by the length of the cache, shortest first.
        latency_s: Seconds of all of it.
    """

    source: Source = field(repr=False)
    new_tokens: int
    prefill: GraphEstimate = field(repr=False)
    steps: dict[int, GraphEstimate] = field(repr=False)
    latency_s: float

    @property
    def tokens_per_s(self) -> float:
        """New tokens of all sequences over the seconds of all of it."""
        return self.prefill.batch * self.new_tokens / self.latency_s

    def to_dict(self) -> dict[str, Any]:
        """Return plain data in SI units: the JSON of ``aiq roofline --new-tokens``."""
        first = self.prefill
        return {
            "schema_version": 1,
            "model": self.source.name,
            "hardware": first.hardware.name,
            "rates": first.hardware.rates,
            "scheme": str(first.scheme),
            "scheme_digest": first.scheme.digest(),
            "batch": first.batch,
            "traffic": first.traffic,
            "new_tokens": self.new_tokens,
            "time_to_first_token_s": first.latency_s,
            "latency_s": self.latency_s,
            "tokens_per_s": self.tokens_per_s,
            "prefill": first.summary(),
            "decode": [{"context": past, **step.summary()} for past, step in self.steps.items()],
            "assumptions": list(first.assumptions),
        }


def generate(
    source: Source, hardware: HardwareSpec, scheme: Scheme | None, new_tokens: int, *, traffic: str = "fused"
) -> Generation:
    """Price a generation of N tokens: the prompt's pass yields the first, N − 1 passes of one token the rest.

    A token's time is linear in the length of the cache between points where a row's bound changes. It is computed at up
    to nine lengths, and in between taken on the straight line, which is never below the model's own value.

    Args:
        source: A model whose graph depends on phase and context.
        hardware: The machine.
        scheme: The scheme; ``None`` keeps the model's own formats.
        new_tokens: N, for each sequence.
        traffic: ``paper``, ``unfused`` or ``fused``.

    Raises:
        InputError: The model has no phases, or N is out of range.
        AIQError: See :func:`roofline.estimate`.
    """
    if not source.phased:
        raise InputError(
            f"model {source.name!r} is a network as it stands: it takes no --new-tokens. Next: leave it out, or give a "
            "configuration: hf:FOLDER or a name that 'aiq zoo' shows."
        )
    if source.workload.phase is not None:
        raise InputError("a generation has both phases, and --phase names one. Next: leave out --phase.")
    if not 1 <= new_tokens <= MOST_NEW_TOKENS:
        raise InputError(f"--new-tokens must be from 1 to {MOST_NEW_TOKENS}, got {new_tokens}. Next: choose one.")

    def priced(phase: str, context: int | None) -> GraphEstimate:
        graph = source.graph(context=context, phase=phase)
        return estimate(graph, hardware, scheme, traffic=traffic)

    prompt = source.graph(phase="prefill")
    first = estimate(prompt, hardware, scheme, traffic=traffic)
    start = next(t.shape[1] for op in prompt if op.kind == "embedding" for t in op.role("input"))
    last = start + max(new_tokens - 2, 0)
    count = min(_POINTS, last - start + 1)
    lengths = [start + (last - start) * i // max(count - 1, 1) for i in range(count)]
    steps = {past: priced("decode", past) for past in dict.fromkeys(lengths)} if new_tokens > 1 else {}
    times = {past: step.latency_s for past, step in steps.items()}
    return Generation(source, new_tokens, first, steps, first.latency_s + _summed(times))


def _summed(times: dict[int, float]) -> float:
    """Add a function over all whole numbers between its points, on straight lines between them."""
    points = list(times.items())
    total = sum(points[0][1:]) if points else 0.0
    for (left, before), (right, after) in pairwise(points):
        gap = right - left
        total += before * (gap - 1) / 2 + after * (gap + 1) / 2
    return total


def generation_report(found: Generation) -> Report:
    """Show a generation: the prompt, single tokens by length of the cache, and all of it."""
    first, data = found.prefill, found.to_dict()
    rows = [_row("prefill", None, first), *(_row("decode", past, step) for past, step in found.steps.items())]
    rows.append({"what": f"all {found.new_tokens}", "latency_s": found.latency_s, "tokens_per_s": found.tokens_per_s})
    after = list(found.steps.values())
    each = f", then {si(after[0].latency_s, 's')} to {si(after[-1].latency_s, 's')} a token" if after else ""
    headline = (
        f"{found.source.name}, {first.scheme}, batch {first.batch}, {first.traffic} traffic on {first.hardware.title}: "
        f"{found.new_tokens} new tokens in {si(found.latency_s, 's')} ({first.hardware.time_label}): the first after "
        f"{si(first.latency_s, 's')}{each}; {number(found.tokens_per_s)} tokens/s"
    )
    columns = (
        Column("what", "pass"),
        Column("context", "cached tokens", str, right=True),
        Column("latency_s", "latency", lambda v: si(v, "s"), right=True),
        Column("tokens_per_s", "tokens/s", number, right=True),
        Column("flops", "FLOPs", si, right=True, drop=2),
        Column("bytes", "bytes", lambda v: si(v, "B"), right=True, drop=3),
        Column("kv_bytes", "KV", lambda v: si(v, "B"), right=True, drop=4),
        Column("bound", "bound by", drop=1),
    )
    notes = ["times between the lengths shown are taken on straight lines", *first.assumptions]
    return Report(headline, columns, rows, notes, data)


def _row(what: str, past: int | None, step: GraphEstimate) -> dict[str, Any]:
    largest, seconds = next(iter(step.latency_by_bound.items()))
    return {
        "what": what,
        "context": past,
        "latency_s": step.latency_s,
        "tokens_per_s": step.batch / step.latency_s,
        "flops": step.flops,
        "bytes": step.bytes,
        "kv_bytes": step.kv_bytes,
        "bound": f"{largest} {percent(seconds / step.latency_s)}",
    }
