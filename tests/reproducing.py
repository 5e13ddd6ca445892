"""A made-up oracle for the paper's experiments, files of untrained weights, and runs that no test has to wait for."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from aiq import zoo
from aiq._reproduce import Reproduction, reproduce
from aiq._reproduce_lab import ReproduceSettings
from aiq.oracle import Evaluation, Metric, OracleContext, OracleError
from roofline import Scheme

IMAGES = {"search": 300, "report": 200}


class FakeOracle:
    """Margins of made-up images, shifted by each layer's bits and recipe; ``fails_after`` calls it raises."""

    metric = Metric("accuracy", "points", scale=100.0)
    calls = 0

    def __init__(self, split: str, fails_after: int | None = None) -> None:
        self.split, self.fails_after = split, fails_after

    @property
    def fingerprint(self) -> Mapping[str, str]:
        return {"oracle": "fake", "split": self.split, "data": "made-up", "n": str(IMAGES[self.split])}

    def evaluate(self, scheme: Scheme) -> Evaluation:
        if self.fails_after is not None and FakeOracle.calls >= self.fails_after:
            raise OracleError("the lights went out. Next: wait.")
        FakeOracle.calls += 1
        n = IMAGES[self.split]
        clean = seeded(self.split).normal(2.2, 1.2, n)
        margins = clean.copy()
        for rule in scheme.rules:
            if rule.precision.weights is not None:
                coarse = 1.0 if "tensor" in rule.precision.recipe else 0.4
                shift = coarse * 2.0 ** -(rule.precision.weights.bits - 2)
                weak = 2.0 * seeded(rule.pattern).uniform()
                margins -= shift * seeded(self.split, str(rule)).normal(weak, 1.0, n)
        right = margins > 0
        return Evaluation(float(right.mean()), 0.01, n, right, divergence=float(np.square(margins - clean).mean()) / 50)


def seeded(*texts: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32("\0".join(texts).encode()))


def fake(argument: str, context: OracleContext) -> FakeOracle:
    return FakeOracle(context.split)


def failing(after: int) -> Callable[[str, OracleContext], FakeOracle]:
    FakeOracle.calls = 0
    return lambda argument, context: FakeOracle(context.split, after)


@cache
def untrained(network: str) -> bytes:
    from safetensors.torch import save

    return save(zoo.build(network, pretrained=False).state_dict())


def weights(folder: Path, *networks: str) -> dict[str, Path]:
    """Write files of untrained weights, and return them by network."""
    files = {network: folder / f"{network}.safetensors" for network in networks}
    for network, file in files.items():
        file.write_bytes(untrained(network))
    return files


def run(experiment: str, folder: Path, *networks: str, **changes: Any) -> Reproduction:
    """Reproduce an experiment with the made-up oracle, into ``folder/out``."""
    given = {
        "data": folder,
        "out": folder / "out",
        "weights": weights(folder, *(networks or ("resnet20",))),
        "cache": "none",
        "oracle": fake,
        **changes,
    }
    return reproduce(experiment, ReproduceSettings(**given))
