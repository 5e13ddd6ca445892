"""The shipped contract test of runtimes: the built-in ones pass, and each rule catches one that breaks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from aiq.registry import load_runtime
from aiq.runtimes import Arrays, DeployError, Deployment, Executed, Runtime, Step
from aiq.runtimes._inputs import check_inputs
from aiq.runtimes._torch import Torch
from aiq.testing import ContractError, check_runtime, example_deployment
from roofline import Scheme


@cache
def digits() -> Deployment:
    return example_deployment()


@pytest.mark.parametrize("name", ["torch", "torch-channels-last", "torch-compile", "onnxruntime", "openvino"])
def test_built_in_runtimes_keep_their_contract(name: str) -> None:
    if name in ("onnxruntime", "openvino"):
        pytest.importorskip(name)
    if name == "torch-compile":
        if reason := Torch(compiled=True).available():
            pytest.skip(reason)
        from tests.deploying import deployed

        tiny = deployed(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()), torch.ones(8, 4).cumsum(0))
        check_runtime(load_runtime(name), deployment=tiny, schemes=[Scheme.parse("w4")], batch=4)
        return
    check_runtime(load_runtime(name), deployment=digits())


class Plain:
    """A runtime that keeps its contract: it is the simulation."""

    name = "plain"

    def available(self) -> str | None:
        return None

    def version(self) -> str:
        return "plain 1.0"

    def prepare(self, deployment: Deployment, scheme: Scheme, *, batch: int, threads: int | None = None) -> PlainNet:
        deployment.simulator.apply(scheme)
        return self.net(deployment, scheme, batch)

    def net(self, deployment: Deployment, scheme: Scheme, batch: int) -> PlainNet:
        return PlainNet(deployment, scheme, batch)


class PlainNet:
    def __init__(self, deployment: Deployment, scheme: Scheme, batch: int) -> None:
        self.deployment, self.scheme, self.batch = deployment, scheme, batch
        self.forms = deployment.inputs(batch)
        self.passes = 0

    def run(self, inputs: Arrays) -> NDArray[np.float32]:
        check_inputs(inputs, self.forms)
        self.passes += 1
        return self.deployment.simulator.outputs(self.scheme, torch.from_numpy(np.asarray(inputs[0]))).numpy()

    def executed_precisions(self) -> Mapping[str, Executed]:
        return {layer: Executed("fp32", "fp32") for layer in self.deployment.layers}

    def profile(self, inputs: Arrays, *, passes: int = 20) -> Sequence[Step]:
        return (Step("all", "all", (), "", 0.0),)


def varied(**parts: Any) -> type[Plain]:
    """Return the runtime whose networks have some parts replaced."""
    changed = type("Changed", (PlainNet,), parts)

    class Varied(Plain):
        def net(self, deployment: Deployment, scheme: Scheme, batch: int) -> PlainNet:
            return changed(deployment, scheme, batch)

    return Varied


class Nameless(Plain):
    name = ""


class Versionless(Plain):
    def version(self) -> str:
        return ""


class Absent(Plain):
    def available(self) -> str | None:
        return "plain is not installed"


class Quarrelsome(Plain):
    def prepare(self, deployment: Deployment, scheme: Scheme, *, batch: int, threads: int | None = None) -> PlainNet:
        if "8" in str(scheme) and "no_such" not in str(scheme):
            raise KeyError("w8a8")
        return super().prepare(deployment, scheme, batch=batch)


class Refusing(Plain):
    def prepare(self, deployment: Deployment, scheme: Scheme, *, batch: int, threads: int | None = None) -> PlainNet:
        found = super().prepare(deployment, scheme, batch=batch)
        if str(scheme) not in ("keep", ""):
            raise DeployError("no kernels. Next: keep everything.")
        return found


class IgnoresUnknownLayers(Plain):
    def prepare(self, deployment: Deployment, scheme: Scheme, *, batch: int, threads: int | None = None) -> PlainNet:
        known = Scheme() if "no_such_layer" in str(scheme) else scheme
        return super().prepare(deployment, known, batch=batch)


class TakesEmptyBatches(Plain):
    def net(self, deployment: Deployment, scheme: Scheme, batch: int) -> PlainNet:
        return PlainNet(deployment, scheme, max(batch, 1))


class ChangesTheModel(Plain):
    def net(self, deployment: Deployment, scheme: Scheme, batch: int) -> PlainNet:
        deployment.simulator.model.module.train()
        return super().net(deployment, scheme, batch)


def off_by(amount: float) -> Any:
    return lambda self, inputs: PlainNet.run(self, inputs) + np.float32(amount)


def drifting(self: PlainNet, inputs: Arrays) -> NDArray[np.float32]:
    return PlainNet.run(self, inputs) * np.float32(1 + 1e-5 * self.passes)


COUNT = iter(range(1000))


def born(self: PlainNet, inputs: Arrays) -> NDArray[np.float32]:
    if not hasattr(self, "number"):
        self.number = next(COUNT)
    return PlainNet.run(self, inputs) * np.float32(1 + 1e-6 * self.number)


def reusing(self: PlainNet, inputs: Arrays) -> NDArray[np.float32]:
    found = PlainNet.run(self, inputs)
    if not hasattr(self, "buffer"):
        self.buffer = np.empty_like(found)
    self.buffer[:] = found
    return self.buffer


def spoiling(self: PlainNet, inputs: Arrays) -> NDArray[np.float32]:
    found = PlainNet.run(self, inputs)
    if self.passes > 2:
        np.asarray(inputs[0])[:] += 1
    return found


def in_floating_point(self: PlainNet, inputs: Arrays) -> NDArray[np.float32]:
    check_inputs(inputs, self.forms)
    return self.deployment.simulator.outputs(Scheme(), torch.from_numpy(np.asarray(inputs[0]))).numpy()


def of_any_batch(self: PlainNet, inputs: Arrays) -> NDArray[np.float32]:
    return self.deployment.simulator.outputs(self.scheme, torch.from_numpy(np.asarray(inputs[0]))).numpy()


def forgetful(self: PlainNet) -> Mapping[str, Executed]:
    told = dict(PlainNet.executed_precisions(self))
    del told["conv1"], told["linear"]
    return told


@pytest.fixture
def restored() -> Any:
    yield
    digits().simulator.model.module.eval()


@pytest.mark.parametrize("runtime", [Plain, Refusing])
def test_a_good_runtime_passes(runtime: type[Plain]) -> None:
    made: Runtime = runtime()
    check_runtime(made, deployment=digits())


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(
    ("runtime", "text"),
    [
        (Nameless, "the name must be a text that is not empty, got ''"),
        (Versionless, "the version must be a text that is not empty, got ''"),
        (Absent, "it cannot be tried here: plain is not installed"),
        (varied(run=off_by(0.01)), "keep: the float network must give PyTorch's outputs within 0.001 of their spread"),
        (varied(run=lambda self, inputs: [1.0]), "keep: run must return an array, got list"),
        (varied(run=lambda self, inputs: np.zeros((3, 10))), "keep: run must return float32 [16, 10], got float64 [3"),
        (varied(run=off_by(np.nan)), "keep: outputs must be finite"),
        (varied(run=drifting), "the same inputs must give the same outputs again"),
        (varied(run=born), "another network prepared alike must give equal outputs"),
        (varied(run=reusing), "a later pass must not overwrite what an earlier one returned"),
        (varied(run=spoiling), "a pass must leave its inputs as they are"),
        (varied(run=of_any_batch), "inputs of another batch, 32, must be refused by an AIQError, got an answer"),
        (varied(batch=property(lambda self: 1, lambda self, value: None)), "batch must be the 16 that it was prepared"),
        (
            varied(executed_precisions=forgetful),
            "executed_precisions must tell of every layer, and misses conv1, linear",
        ),
        (
            varied(executed_precisions=lambda self: dict.fromkeys(self.deployment.layers, "int8")),
            "executed_precisions must map layers to Executed with formats, got 'conv1': 'int8'",
        ),
        (
            varied(profile=lambda self, inputs, passes: [Step("a", "Conv", ("conv9",), "", 1.0)]),
            "a profile must be of Steps with seconds and layers of the network, got Step(name='a'",
        ),
        (Quarrelsome, "w8a8 must be built or refused by an AIQError, got KeyError: 'w8a8'"),
        (varied(run=in_floating_point), "w8a8: outputs must come nearer to the simulation than three quarters of what"),
        (
            IgnoresUnknownLayers,
            "a scheme that names an unknown layer, keep,no_such_layer=w8, must be refused by an AIQ",
        ),
        (TakesEmptyBatches, "a batch of 0 must be refused by an AIQError, got an answer"),
        (ChangesTheModel, "it must leave the model's weights, structure and mode as they are"),
    ],
)
def test_a_runtime_that_breaks_a_rule_is_caught(runtime: type[Plain], text: str) -> None:
    with pytest.raises(ContractError) as caught:
        check_runtime(runtime(), deployment=digits())
    assert str(caught.value).startswith(text)
