"""Fixtures of several files of tests: an empty working directory, an empty cache, the estimates behind the figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import roofline
from aiq import zoo
from aiq.cache import EvaluationStore, open_store
from tests.drawing import t4


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store() -> Iterator[EvaluationStore]:
    with open_store("none") as opened:
        yield opened


@pytest.fixture(scope="module")
def graph() -> roofline.OpGraph:
    return roofline.trace(
        zoo.build("resnet20"), torch.empty(1, 3, 32, 32), name="resnet20", keep_weights=zoo.get("resnet20").keep
    )


@pytest.fixture(scope="module")
def paper(graph: roofline.OpGraph) -> roofline.GraphEstimate:
    return roofline.estimate(graph, t4(), "fp32", batch=1, traffic="paper")


@pytest.fixture(scope="module")
def fused(graph: roofline.OpGraph) -> roofline.GraphEstimate:
    return roofline.estimate(graph, t4(), "w8a8", batch=1, traffic="fused")
