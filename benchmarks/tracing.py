"""Tracing and estimating ResNet-50 against fvcore's FlopCountAnalysis and PyTorch's FlopCounterMode.

All three count the same network at 1x3x224x224 and must agree on its MACs. Each is given what suits it best: PyTorch's
counter and ours run on ``meta`` weights, and PyTorch's counter is also timed on real tensors.
"""

from __future__ import annotations

import logging

import torch
from _timing import interleaved, report
from fvcore.nn import FlopCountAnalysis
from torch.utils.flop_counter import FlopCounterMode

import hardware_specs
import roofline
from tests.networks import IMAGE_NETWORKS

ROUNDS = 15


def main() -> None:
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    build, macs = IMAGE_NETWORKS["resnet50"]
    real = build().eval()
    with torch.device("meta"):
        meta = build().eval()
    real_input, meta_input = torch.empty(1, 3, 224, 224), torch.empty(1, 3, 224, 224, device="meta")
    hardware = hardware_specs.load("t4")

    def ours(model: torch.nn.Module) -> int:
        graph = roofline.trace(model, meta_input)
        roofline.estimate(graph, hardware, "w8a8")
        return graph.macs

    def torch_counter(model: torch.nn.Module, x: torch.Tensor) -> int:
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            model(x)
        return counter.get_total_flops() // 2

    def fvcore() -> int:
        counts = FlopCountAnalysis(real, real_input).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return int(counts.by_operator()["conv"] + counts.by_operator()["linear"])

    work = {
        "aiq: trace + estimate (weights on meta)": lambda: ours(meta),
        "aiq: trace + estimate (weights in memory)": lambda: ours(real),
        "torch FlopCounterMode (meta)": lambda: torch_counter(meta, meta_input),
        "torch FlopCounterMode (real tensors)": lambda: torch_counter(real, real_input),
        "fvcore FlopCountAnalysis": fvcore,
    }
    for name, call in work.items():
        counted = call()
        assert counted == macs, f"{name} counts {counted}, not {macs}"
    print(f"ResNet-50, {macs} MACs counted by all; one thread; ratio to the faster counter's own time, pair by pair")
    report(interleaved(work, rounds=ROUNDS), reference="torch FlopCounterMode (meta)")


if __name__ == "__main__":
    main()
