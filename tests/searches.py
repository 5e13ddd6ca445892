"""Small search problems with hand-made costs and losses, and the shortest driver."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

import hardware_specs
from aiq import Model
from aiq.objective import Objective
from aiq.oracle import Evaluation, Metric
from aiq.problem import Constraints, Problem
from aiq.space import Choice, make_space
from aiq.strategy import Findings, Strategy
from roofline import CostTable, LayerPrecision, OpGraph

FORMATS = tuple(LayerPrecision.parse(text) for text in ("keep", "w8", "w4"))
POINTS = Metric("accuracy", "points", higher_is_better=True, scale=100.0)


@cache
def chain(layers: int) -> OpGraph:
    module = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(layers)))
    return Model("chain", module.eval(), torch.empty(1, 8, device="meta")).trace()


def table(costs: Sequence[Sequence[float]]) -> CostTable:
    """Return a table whose layers cost ``costs`` [L, 3] in bytes, weight bytes and seconds; 1200 FLOPs."""
    made = CostTable(chain(len(costs)), hardware_specs.load("t4"), FORMATS, traffic="paper")
    made.bytes, made.weight_bytes = np.array(costs, dtype=float), np.array(costs, dtype=float)
    made.latency_s = np.broadcast_to(made.bytes, made.latency_s.shape)
    made.flops = 1200
    return made


@dataclass(frozen=True, eq=False)
class Toy:
    """A problem and the loss in points of each of its choices."""

    problem: Problem
    loss: Callable[[Choice], float]
    divergence: Callable[[Choice], float | None] = lambda choice: None

    def measure(self, choice: Choice) -> Evaluation:
        return Evaluation(1.0 - self.loss(choice) / 100, divergence=self.divergence(choice))

    def value(self, choice: Choice) -> float:
        return float(self.problem.values([choice], [self.problem.loss(self.measure(choice))])[0])

    def best(self) -> float:
        return min(map(self.value, itertools.product(*(unit.options for unit in self.problem.space.units))))


def toy(
    costs: Sequence[Sequence[float]],
    loss: Callable[[Choice], float],
    objective: Objective | None = None,
    *,
    constraints: Constraints | None = None,
    divergence: Callable[[Choice], float | None] = lambda choice: None,
) -> Toy:
    space = make_space(table(costs))
    problem = Problem(space, objective or Objective(), constraints or Constraints(), POINTS, Evaluation(1.0))
    return Toy(problem, loss, divergence)


def additive(losses: Sequence[Sequence[float]]) -> Callable[[Choice], float]:
    return lambda choice: sum(row[k] for row, k in zip(losses, choice, strict=True))


def drive(
    strategy: Strategy,
    problem: Problem,
    measure: Callable[[Choice], Evaluation],
    known: Mapping[Choice, Evaluation] = {},
) -> tuple[dict[Choice, Evaluation], list[Choice], Findings]:
    """Return every evaluation in the order asked for, what was asked, repeats included, and the findings."""
    memo = {problem.space.start: problem.baseline, **known}
    asked: list[Choice] = []
    steps = strategy.steps(problem)
    answer = None
    while True:
        try:
            asked.append(steps.send(answer))
        except StopIteration as end:
            return memo, asked, end.value
        answer = memo.setdefault(asked[-1], memo.get(asked[-1]) or measure(asked[-1]))


def run(strategy: Strategy, made: Toy) -> tuple[list[Choice], Choice, float]:
    """Return the distinct choices, baseline first, and the best of them with its value."""
    memo, _, _ = drive(strategy, made.problem, made.measure)
    best = min(memo, key=made.value)
    return list(memo), best, made.value(best)
