"""How long one evaluation would take: a short timing of the float model on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from aiq._model import Model

PROBE_BATCH = 32
_MIN_RUNS, _MAX_RUNS = 3, 50


@dataclass(frozen=True)
class Probe:
    """A timing of the float model.

    Attributes:
        samples_per_s: Batch over the median seconds of a run.
        batch: Samples in a run.
        runs: Timed runs, after one that is not counted.
        spread: Interquartile range over median.
        threads: CPU threads in use.
    """

    samples_per_s: float
    batch: int
    runs: int
    spread: float
    threads: int

    def __str__(self) -> str:
        return (
            f"{self.samples_per_s:.0f} samples/s (float model on this machine's CPU, batch {self.batch}, "
            f"{self.threads} threads, median of {self.runs}, spread {100 * self.spread:.0f} %)"
        )


def probe(model: Model, *, seconds: float = 1.0) -> Probe | str:
    """Time forward passes on random inputs for about ``seconds``; return the reason where that cannot be done.

    A first pass of one sample sets the batch: as many samples, up to 32, as let several passes fit the time.
    """
    import torch

    if any(p.is_meta for p in model.module.parameters()):
        return "its weights are on meta"
    batch = 1
    example = _random_inputs(model.example, batch)
    if example is None:
        return "random inputs can only be made for floating-point images and vectors"
    times: list[float] = []
    try:
        with torch.inference_mode():
            one = _timed(model, example)
            batch = int(min(max(seconds / (_MIN_RUNS * one), 1), PROBE_BATCH))
            example = _random_inputs(model.example, batch) or example
            started = time.perf_counter()
            if batch > 1:
                model.module(*example)
            while len(times) < _MIN_RUNS or (time.perf_counter() - started < seconds and len(times) < _MAX_RUNS):
                times.append(_timed(model, example))
    except Exception as error:
        return f"forward raised {type(error).__name__} on random input at batch {batch}"
    low, _, high = quantiles(times, n=4)
    middle = median(times)
    return Probe(batch / middle, batch, len(times), (high - low) / middle, torch.get_num_threads())


def _timed(model: Model, example: tuple[Any, ...]) -> float:
    before = time.perf_counter()
    model.module(*example)
    return time.perf_counter() - before


def _random_inputs(example: Any, batch: int) -> tuple[Any, ...] | None:
    import torch

    tensors = example if isinstance(example, tuple) else (example,)
    if not all(isinstance(t, torch.Tensor) and t.is_floating_point() and t.dim() for t in tensors):
        return None
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn((batch, *t.shape[1:]), generator=generator).to(t.dtype) for t in tensors)
