"""The paper's greedy done naively against ours: the same network, images, options, quantized weights and objective.

``naive``: for every candidate a full forward pass of the network as it comes (batch norms apart, default memory layout,
eager) over all images, nothing remembered. ``greedy``: the same decisions through the driver, with activations of
common prefixes reused and no scheme measured twice. ``exact``: AIQ's own search. Quantizing weights and calibration are
left out of the naive time and counted in ours. Then images per second of the oracle's forward pass against the plain
eager loop, interleaved.

    python benchmarks/search_speed.py [--data DIR] [--samples N]

DIR holds CIFAR-10; with ``resnet20_cifar10.safetensors`` beside it those weights are taken, else the zoo's.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from _timing import interleaved, report

import hardware_specs
from aiq import load_model
from aiq._driver import drive
from aiq.objective import Objective
from aiq.oracle import Evaluation, OracleContext
from aiq.quantize import Simulator
from aiq.registry import load_oracle, load_strategy
from aiq.space import make_space
from aiq.strategy import Strategy
from aiq.zoo import load_weights
from roofline import CostTable, LayerPrecision, Scheme

FORMATS = ("keep", "w8", "w4")
WEIGHTS = "resnet20_cifar10.safetensors"
BATCH = 125
ROUNDS = 9


class NaiveOracle:
    """A plain evaluation loop: the network as it comes with quantized weights put in, every image, every time."""

    def __init__(self, context: OracleContext, x: torch.Tensor, y: torch.Tensor, calibration: torch.Tensor) -> None:
        self.metric = load_oracle("accuracy", context).metric
        self.fingerprint = {"oracle": "naive"}
        self.simulator = Simulator(context.model, context.graph, calibration)
        self.module = load_model(context.model.name).module
        self.module.load_state_dict(context.model.module.state_dict())
        self.x, self.y = x, y
        self.scales = self._scales_of_batch_norms()

    def _scales_of_batch_norms(self) -> dict[str, torch.Tensor]:
        """Ratio of folded to plain weights of each layer, to put quantized weights back before their batch norm."""
        found = {}
        for layer in self.simulator.graph.layers:
            plain = self.module.get_submodule(layer).weight
            folded = self.simulator.module.get_submodule(layer).weight
            ratio = (folded.flatten(1) * plain.flatten(1)).sum(1) / plain.flatten(1).square().sum(1)
            found[layer] = ratio.reshape(-1, *(1,) * (plain.dim() - 1))
        return found

    def evaluate(self, scheme: Scheme) -> Evaluation:
        """Run every image; the time of putting quantized weights in place is not counted."""
        self.simulator.apply(scheme)
        with torch.no_grad():
            for layer, ratio in self.scales.items():
                quantized = self.simulator.module.get_submodule(layer).weight
                self.module.get_submodule(layer).weight.copy_(quantized / ratio)
        started = time.perf_counter()
        right = plain(self.module, self.x).argmax(1) == self.y
        seconds = time.perf_counter() - started
        return Evaluation(float(right.float().mean()), n=len(right), outcomes=right.numpy(), seconds=seconds)


def plain(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([module(part) for part in x.split(BATCH)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--samples", type=int, default=1000)
    options = parser.parse_args()
    model = load_model("resnet20")
    weights = Path(options.data) / WEIGHTS
    if weights.is_file():
        load_weights(model.module, weights)
    graph = model.trace()
    context = OracleContext(model, graph, f"cifar10:{options.data}", "search", options.samples)
    table = CostTable(graph, hardware_specs.load("t4"), [LayerPrecision.parse(f) for f in FORMATS], traffic="paper")
    space = make_space(table)
    goal = Objective("ai", 0.9, "minmax")

    started = time.perf_counter()
    oracle = load_oracle("accuracy", context)
    oracle.evaluate(Scheme())
    print(f"loading, calibration and the first evaluation: {time.perf_counter() - started:.1f} s")
    split = oracle.network.split
    x, y = torch.from_numpy(split.x), torch.from_numpy(split.y)
    naive_oracle = NaiveOracle(context, x, y, oracle.network.simulator.calibration_inputs)

    runs = {}
    for name, strategy, judge in (
        ("exact", load_strategy("exact:frontier=false"), oracle),
        ("greedy", load_strategy("greedy"), load_oracle("accuracy", context)),
        ("naive", load_strategy("greedy"), naive_oracle),
    ):
        runs[name] = timed(name, strategy, space, judge, goal)
    for name in ("greedy", "exact"):
        print(f"naive greedy / {name}: {runs['naive'] / runs[name]:.1f}x in wall time")

    simulator = oracle.network.simulator
    folded = simulator.apply(Scheme())
    work = {
        "plain eager loop": lambda: plain(naive_oracle.module, x),
        "the oracle's forward pass": lambda: [simulator.forward(part, folded) for part in x.split(BATCH)],
    }
    times = interleaved(work, rounds=ROUNDS, warm_up=1)
    report(times, reference="plain eager loop")
    for name, seconds in times.items():
        print(f"{name:52}{len(x) / sorted(seconds)[len(seconds) // 2]:9.0f} images/s")


def timed(name: str, strategy: Strategy, space: object, oracle: object, goal: Objective) -> float:
    started = time.perf_counter()
    run = drive(strategy, space, oracle, objective=goal)  # type: ignore[arg-type]
    elapsed = time.perf_counter() - started
    seconds = sum(e.seconds for e in run.evaluations.values()) if name == "naive" else elapsed
    best = run.best
    assert best is not None
    index = run.index[best]
    print(
        f"{name:8} {len(run.evaluations):4} evaluations, {run.total_work:6.1f} full passes, {seconds:8.1f} s: "
        f"L = {run.values[index]:.4f} at {run.losses[index]:.2f} points, "
        f"{run.problem.merits([best])[0]:.3f} flop/byte, {run.problem.space.label(best)}"
    )
    return seconds


if __name__ == "__main__":
    main()
