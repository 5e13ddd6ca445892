"""Evaluations made from a number, the same in every process, a toy oracle, and how two evaluations are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np

from aiq.cache import Record
from aiq.oracle import Evaluation, Metric
from roofline import LayerPrecision, Rule, Scheme

ACCURACY = Metric("accuracy", "points", True, 100.0)
FINGERPRINT = {"model": "toy", "weights": "w1", "data": "digits", "data_digest": "d1", "split": "search", "n": "300"}
CREATED = "2025-01-02T03:04:05+00:00"
FORMATS = tuple(LayerPrecision.parse(text) for text in ("keep", "w8", "w4", "w8a8"))


def scheme(number: int) -> Scheme:
    """Return the number's own scheme: its digits in base 4 are the formats of eight layers."""
    digits = [number // 4**place % 4 for place in range(8)]
    return Scheme(LayerPrecision(), tuple(Rule(f"layer{place}", FORMATS[digit]) for place, digit in enumerate(digits)))


def evaluation(number: int, n: int = 300) -> Evaluation:
    """Return the number's own evaluation: bool outcomes where it is even, float32 where it is odd."""
    rng = np.random.default_rng(number)
    outcomes = rng.random(n) < 0.9 if number % 2 == 0 else rng.standard_normal(n).astype(np.float32)
    value, stderr, seconds, work, divergence = float(outcomes.mean(dtype=np.float64)), *rng.random(4).tolist()
    return Evaluation(value, stderr, n, outcomes, seconds, work, divergence)


def record(number: int, fingerprint: Mapping[str, str] = FINGERPRINT, created: str = CREATED) -> Record:
    """Return the record of the number's scheme and evaluation."""
    return Record(fingerprint, ACCURACY, scheme(number), evaluation(number), created)


def same(one: Evaluation, other: Evaluation) -> bool:
    """Tell whether two evaluations are equal to the last bit, in value and type."""
    return all(_same(getattr(one, f.name), getattr(other, f.name)) for f in fields(Evaluation))


def _same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return type(one) is type(other) and one == other


class ToyOracle:
    """Answers with one evaluation after another and remembers what it was asked."""

    metric = ACCURACY

    def __init__(self, *answers: Evaluation, fingerprint: Mapping[str, str] = FINGERPRINT) -> None:
        self.answers, self.fingerprint = list(answers), fingerprint
        self.asked: list[Scheme] = []

    def evaluate(self, scheme: Scheme) -> Evaluation:
        self.asked.append(scheme)
        return self.answers.pop(0)
