"""Fake against real: planted differences are found and named; real runtimes agree with the simulation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch

from aiq._deployed import Agreement, compare, find_partings
from aiq.data import load
from aiq.runtimes import DeployError, Deployment
from aiq.stats import paired_difference, wilson_interval
from roofline import Scheme
from roofline.estimate import resolve
from roofline.floats import float_kind
from tests.validating import ToyRuntime, deployment

W8A8 = Scheme.parse("w8a8")
N = 50


@cache
def examples() -> tuple[Any, Any]:
    split = load("digits", "report", limit=N)
    return split.x, split.y


def compared(planted: Mapping[str, float], **changes: Any) -> Agreement:
    return compare(deployment(), ToyRuntime(planted=planted), W8A8, *examples(), batch=16, **changes)


def test_a_runtime_that_does_as_the_simulation_agrees() -> None:
    found = compared({})
    assert (found.n, found.agreeing, found.share, found.interval) == (N, N, 1.0, wilson_interval(N, N))
    assert (found.largest_logit_difference, found.partings, found.located) == (0.0, (), False)
    assert found.deployed_accuracy == found.simulated_accuracy
    assert found.difference is not None
    assert found.difference.value == 0.0


def test_predictions_are_compared_image_by_image() -> None:
    """Where the first class gains 1000, the runtime says 0 for every image."""
    x, y = examples()
    found = compared({"conv1": 1000.0}, locate=False)
    simulated = deployment().simulator.outputs(W8A8, torch.from_numpy(x)).numpy()
    choices = simulated.argmax(-1)
    assert found.agreeing == int((choices == 0).sum())
    assert found.simulated_accuracy == float((choices == y).mean())
    assert found.deployed_accuracy == float((y == 0).mean())
    assert found.difference == paired_difference(y == 0, choices == y)
    assert found.largest_logit_difference == pytest.approx(1000.0, rel=1e-4)
    assert found.mean_logit_difference == pytest.approx(100.0, rel=1e-4)
    assert found.logit_scale == pytest.approx(simulated.std())


@pytest.mark.parametrize("layer", ["conv1", "layer2.0.conv1", "linear"])
def test_the_layer_at_which_they_part_is_named(layer: str) -> None:
    found = compared({layer: 1000.0})
    assert found.located
    assert [parting.layer for parting in found.partings] == [layer]
    scale = deployment().simulator.outputs(Scheme(), torch.from_numpy(examples()[0])).std().item()
    assert found.partings[0].deviation == pytest.approx(100.0 / scale, rel=1e-3)


def test_several_layers_are_named_worst_first() -> None:
    found = compared({"layer1.0.conv2": 200.0, "layer3.0.conv2": 500.0, "linear": 1.0})
    assert [parting.layer for parting in found.partings] == ["layer3.0.conv2", "layer1.0.conv2"]


def test_layers_are_named_on_request_too() -> None:
    assert not compared({"conv1": 1e-3}).located
    assert [parting.layer for parting in compared({"conv1": 1e-3}, locate=True).partings] == ["conv1"]


def test_without_labels_there_is_no_accuracy() -> None:
    found = compare(deployment(), ToyRuntime(), W8A8, examples()[0])
    assert (found.deployed_accuracy, found.simulated_accuracy, found.difference) == (None, None, None)
    assert found.share == 1.0


def test_a_runtime_that_cannot_run_a_part_names_no_layer() -> None:
    class Whole(ToyRuntime):
        def prepare(self, deployment: Deployment, scheme: Scheme, **given: Any) -> Any:
            if scheme.rules:
                raise DeployError("all layers or none. Next: choose one format.")
            return super().prepare(deployment, scheme, **given)

    assert find_partings(deployment(), Whole(planted={"conv1": 9.0}), W8A8, torch.from_numpy(examples()[0])) == ()


def test_layers_of_a_16_bit_network_are_named_where_all_floats_are_one() -> None:
    """From bf16 everywhere: with other layers in fp32 the runtime would refuse, and name none."""

    class OneFloat(ToyRuntime):
        one_float_format = True

        def prepare(self, deployment: Deployment, scheme: Scheme, **given: Any) -> Any:
            formats = resolve(deployment.simulator.graph, scheme).values()
            if {"wide", "bf16"} <= {float_kind(each) for each in formats}:
                raise DeployError("fp32 and bf16. Next: choose one.")
            return super().prepare(deployment, scheme, **given)

    runtime = OneFloat(planted={"conv1": 9.0, "layer3.0.conv2": 9.0})
    inputs = torch.from_numpy(examples()[0])
    for text, named in (("bf16,conv1=w8a8,linear=w8a8", "conv1"), ("w8a8,conv1=keep", "layer3.0.conv2")):
        found = find_partings(deployment(), runtime, Scheme.parse(text), inputs, batch=16)
        assert [parting.layer for parting in found] == [named]
    assert find_partings(deployment(), runtime, Scheme.parse("bf16"), inputs, batch=16) == ()


def test_nonsense_is_refused() -> None:
    with pytest.raises(DeployError, match="toyrun gives NaN or infinity for digits_cnn with w8a8"):
        compared({"conv1": float("nan")})
