"""Seconds for about 10 000 combinations of machine, batch, context and scheme, and for the answers to them.

Each run builds everything anew from the source: operators, rows, what they move, times and memory. A network has one
graph; of a language model one is built for each context, and of a mixture of experts one for each batch too.
"""

from __future__ import annotations

import math

import torch
from _timing import interleaved, report

import hardware_specs
from aiq import Workload, load_source
from aiq._whatif import Source, whatif
from aiq._whatif_answers import answer
from aiq._whatif_machines import find_machines, read_schemes

ROUNDS = 9
COMBINATIONS = 10_000
CONTEXTS = (512, 2048, 4096, 8192)


def main() -> None:
    torch.set_num_threads(1)
    machines = find_machines("all")
    schemes = read_schemes(["fp16,w8,w8a8,w4:g128,w4a8"])
    sources: dict[str, tuple[Source, tuple[int, ...] | None]] = {
        "resnet20, graph traced before": (load_source("resnet20"), None),
        "mobilenet_v2, graph traced before": (load_source("mobilenet_v2"), None),
        "llama-3-70b, decode, four contexts": (load_source("llama-3-70b", (), Workload("decode")), CONTEXTS),
        "mixtral-8x7b, decode, four contexts": (load_source("mixtral-8x7b", (), Workload("decode")), CONTEXTS),
    }
    work = {}
    print(f"{len(machines)} of {len(hardware_specs.names())} machines, {len(schemes)} schemes, one thread")
    for name, (source, contexts) in sources.items():
        count = len(contexts or (None,))
        batches = tuple(range(1, 1 + math.ceil(COMBINATIONS / (len(machines) * len(schemes) * count))))
        source.graph(batch=None, context=contexts[0] if contexts else None)
        combinations = len(machines) * len(schemes) * count * len(batches)
        swept = whatif(source, machines, schemes, batches=batches, contexts=contexts)
        work[f"{name}: {combinations}"] = lambda s=source, b=batches, c=contexts: whatif(
            s, machines, schemes, batches=b, contexts=c
        )
        work[f"{name}: answers"] = lambda found=swept: answer(found)
    times = interleaved(work, rounds=ROUNDS, warm_up=1)
    report(times, reference=next(iter(work)))


if __name__ == "__main__":
    main()
