"""A 70-billion-parameter decoder, built on ``meta``, traced and estimated: seconds and peak memory of the process."""

from __future__ import annotations

import resource
import time

import torch

import hardware_specs
import roofline
from tests.networks import llama_70b


def main() -> None:
    started = time.perf_counter()
    with torch.device("meta"):
        model = llama_70b()
    built = time.perf_counter()
    graph = roofline.trace(model, torch.empty(1, 128, dtype=torch.int64, device="meta"), name="llama_70b")
    traced = time.perf_counter()
    result = roofline.estimate(graph, hardware_specs.load("h200"), "w4:g128")
    done = time.perf_counter()
    parameters = sum(elements for elements, _ in graph.parameters.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{graph}: {parameters / 1e9:.1f} billion values; {result}")
    print(f"built on meta {built - started:.2f} s, traced {traced - built:.2f} s, estimated {done - traced:.2f} s")
    print(f"traced and estimated in {done - built:.2f} s; peak memory of the process, PyTorch included, {peak:.2f} GB")


if __name__ == "__main__":
    main()
