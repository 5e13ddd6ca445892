"""A made-up oracle over ``digits_cnn`` and short-cuts of searches, so that no test evaluates a network."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

import hardware_specs
from aiq._driver import Budget
from aiq._model import Model, load_model
from aiq._search import SearchSettings, search
from aiq._search_result import SearchResult
from aiq.objective import Objective
from aiq.oracle import Evaluation, Metric, OracleContext
from aiq.problem import Constraints
from aiq.space import Space, make_space
from aiq.strategy import Findings
from roofline import CostTable, LayerPrecision, Scheme

ACCURACY = Metric("accuracy", "points", scale=100.0)
FORMATS = ("keep", "w8", "w4", "w4a8")
_STRENGTH = {"keep": 0.0, "int8/keep": 0.1, "int4/keep": 0.5, "int8/int8": 0.15, "int4/int8": 0.6, "keep/int8": 0.1}


class FakeOracle:
    """Margins of made-up examples, shifted by each layer's format; ``broken`` is asked before each evaluation."""

    metric = ACCURACY

    def __init__(
        self, split: str = "search", n: int = 400, broken: Callable[[int], Evaluation | None] | None = None
    ) -> None:
        self.split, self.n, self.broken = split, n, broken
        self.calls = 0

    @property
    def fingerprint(self) -> Mapping[str, str]:
        return {"oracle": "fake", "split": self.split, "n": str(self.n), "data_digest": f"digest of {self.split}"}

    def evaluate(self, scheme: Scheme) -> Evaluation:
        self.calls += 1
        if self.broken and (given := self.broken(self.calls)):
            return given
        margins = seeded(self.split).normal(2.2, 1.2, self.n)
        for rule in scheme.rules:
            margins -= _STRENGTH[str(rule.precision)] * seeded(self.split, str(rule)).normal(0.05, 0.6, self.n)
        right = margins > 0
        value = float(right.mean())
        return Evaluation(value, float(np.sqrt(value * (1 - value) / self.n)), self.n, right, seconds=0.5, work=0.5)


def seeded(*texts: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32("\0".join(texts).encode()))


def fake(argument: str, context: OracleContext) -> FakeOracle:
    """Build one as an entry point does; its size does not depend on ``context``."""
    return FakeOracle(context.split, context.limit or 400)


class Listed:
    """Asks for given choices, one after another."""

    name = "listed"

    def __init__(self, choices: list[tuple[int, ...]], findings: Findings | None = None) -> None:
        self.choices, self.findings = choices, findings or Findings()

    def steps(self, problem: Any) -> Any:
        for choice in self.choices:  # a list cannot be sent what 'yield from' would pass on
            _ = yield choice
        return self.findings

    def most_evaluations(self, problem: Any) -> int:
        return len(set(self.choices) | {problem.space.start})


@cache
def digits() -> Model:
    return load_model("digits_cnn")


@cache
def digits_space(groups: int | None = 4, hardware: str = "t4") -> Space:
    options = [LayerPrecision.parse(text) for text in FORMATS]
    table = CostTable(digits().trace(), hardware_specs.load(hardware), options)
    return make_space(table, groups=groups)


def settings(**changes: Any) -> SearchSettings:
    """Return settings of a search that no test has to wait for; nothing is kept."""
    return SearchSettings(
        **{
            "formats": FORMATS,
            "oracle": fake,
            "strategy": "coordinate",
            "groups": 4,
            "cache": "none",
            "objective": Objective("ai", 0.5),
            "constraints": Constraints(),
            "budget": Budget(),
            **changes,
        }
    )


def found(hardware: str = "t4", **changes: Any) -> SearchResult:
    return search(digits(), hardware_specs.load(hardware), settings(**changes))


class Counting:
    """Builds fake oracles and counts what each split is asked."""

    def __init__(self) -> None:
        self.made: dict[str, FakeOracle] = {}

    def __call__(self, argument: str, context: OracleContext) -> FakeOracle:
        self.made[context.split] = fake(argument, context)
        return self.made[context.split]

    @property
    def calls(self) -> dict[str, int]:
        return {split: oracle.calls for split, oracle in self.made.items()}
