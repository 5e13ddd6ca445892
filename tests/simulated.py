"""A simulated network: examples with margins, formats that add noise to them, and so outcomes that go together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

import hardware_specs
from aiq._model import load_model
from aiq.objective import Objective
from aiq.oracle import Evaluation, Metric
from aiq.problem import Constraints, Problem
from aiq.space import Choice, Space, make_space
from aiq.strategy import Findings, Strategy
from roofline import CostTable, LayerPrecision
from tests.searches import drive

ACCURACY = Metric("accuracy", "points", higher_is_better=True, scale=100.0)
FORMATS = ("keep", "w8a8", "w4a4")
_NOISE = (0.0, 0.07, 0.36)
_INTERACTION = 0.1
_CORRELATION = 0.08
_NEAR = 0.04
_CHUNK = 2187


@cache
def space_of(
    model: str = "digits_cnn",
    formats: Sequence[str] = FORMATS,
    groups: int | None = 9,
    hardware: str = "t4",
    traffic: str = "paper",
) -> Space:
    options = [LayerPrecision.parse(text) for text in formats]
    table = CostTable(load_model(model).trace(), hardware_specs.load(hardware), options, traffic=traffic)
    return make_space(table, groups=groups)


class Simulated:
    """Examples lie at margins from the decision boundary; formats add noise, and neighbours in sequence a little more.

    The outcome of an example is right while the noise does not exceed its margin; the divergence is that of logistic
    outputs. Noise of one option of a unit is the same wherever it is used, so that errors of similar schemes coincide.
    """

    def __init__(self, seed: int, *, n: int = 323, space: Space | None = None, strength: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.space = space or space_of()
        self.n = n
        units, options = len(self.space.units), len(self.space.options)
        self.margins = np.where(rng.random(n) < _NEAR, rng.normal(0.5, 1.0, n), rng.normal(6.0, 1.8, n))
        scale = np.resize(_NOISE, options) * np.exp(rng.normal(0.0, 0.6, (units, options))) * strength
        scale[:, self.space.baseline] = 0.0
        common = np.sqrt(_CORRELATION) * rng.normal(0.5, 1.0, n)
        own = np.sqrt(1 - _CORRELATION) * rng.normal(size=(units, options, n))
        self.noise = scale[..., None] * (common + own) * np.exp(rng.normal(0.0, 0.5, n))

    def shift(self, choices: Sequence[Choice] | NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the noise on each example, [S, N]."""
        chosen = np.asarray(choices)
        each = self.noise[np.arange(chosen.shape[1])[:, None], chosen.T]
        return each.sum(axis=0) + _INTERACTION * np.abs(each[:-1] * each[1:]).sum(axis=0)

    def divergences(self, shift: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean divergence of logistic outputs from those without noise, [S]."""
        before = 1 / (1 + np.exp(-self.margins))
        after = self.margins - shift
        each = np.logaddexp(0, after) - np.logaddexp(0, self.margins) + before * shift
        return np.maximum(each, 0.0).mean(axis=1)

    def measure(self, choice: Choice) -> Evaluation:
        shift = self.shift([choice])
        right = (self.margins > shift)[0]
        value = float(right.mean())
        stderr = float(np.sqrt(value * (1 - value) / self.n))
        return Evaluation(value, stderr, self.n, right, divergence=float(self.divergences(shift)[0]))

    def problem(self, objective: Objective | None = None, constraints: Constraints | None = None) -> Problem:
        baseline = self.measure(self.space.start)
        return Problem(self.space, objective or Objective(), constraints or Constraints(), ACCURACY, baseline)

    @cached_property
    def every(self) -> NDArray[np.int64]:
        """Every choice of the space, [S, U]."""
        return np.array(list(itertools.product(*(unit.options for unit in self.space.units))))

    @cached_property
    def every_loss(self) -> NDArray[np.float64]:
        """The loss of every choice, in points, at least 0, [S]."""
        parts = [self.every[start : start + _CHUNK] for start in range(0, len(self.every), _CHUNK)]
        right = np.concatenate([(self.margins > self.shift(part)).mean(axis=1) for part in parts])
        return np.maximum(100 * ((self.margins > 0).mean() - right), 0.0)


def follow(strategy: Strategy, problem: Problem, truth: Simulated) -> tuple[dict[Choice, Evaluation], Findings]:
    """Drive a strategy to its end; return everything measured, and its findings."""
    measured, _, findings = drive(strategy, problem, truth.measure)
    return measured, findings


def hypervolume(merits: NDArray[np.float64], losses: NDArray[np.float64], least: float, most: float) -> float:
    """Return the area that points dominate, between merit ``least`` and loss ``most``."""
    order = np.argsort(losses, kind="stable")
    losses, reached = losses[order], np.maximum.accumulate(np.maximum(merits[order], least)) - least
    ends = np.minimum(np.append(losses[1:], most), most)
    return float((np.maximum(ends - losses, 0) * reached).sum())
