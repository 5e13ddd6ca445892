"""The contract of a runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from aiq.digest import model_digest
from aiq.testing._contract import ContractError, demand
from roofline.errors import AIQError
from roofline.scheme import Scheme

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aiq.runtimes import Arrays, Deployment, Prepared, Runtime

_BATCH = 16
_THREADS = 1
_NO_LAYER = "no_such_layer"
_FLOAT_TOLERANCE = 1e-3
_INTEGER_TOLERANCE = 0.75
_SCHEMES = ("w8a8", "w4", "w3a8")


def example_deployment() -> Deployment:
    """Return a network to try a runtime on: the trained ``digits_cnn``, calibrated on its own data."""
    import torch

    from aiq._model import load_model
    from aiq.data import load
    from aiq.quantize import Simulator
    from aiq.runtimes import Deployment

    model = load_model("digits_cnn")
    calibration = load("digits", "calibration", limit=64)
    return Deployment(Simulator(model, model.trace(), torch.from_numpy(np.ascontiguousarray(calibration.x))))


def check_runtime(
    runtime: Runtime,
    *,
    deployment: Deployment | None = None,
    schemes: Sequence[Scheme] | None = None,
    batch: int = _BATCH,
) -> None:
    """Check that a runtime keeps the contract of :class:`aiq.runtimes.Runtime`.

    It has a name and a version, and can be used here; its float network gives what PyTorch gives; a quantized one is
    refused by an :class:`AIQError`, or comes nearer to the simulation than three quarters of what quantization changes.
    It keeps to the batch that it was prepared for; answers the same again, by the same object and by another prepared
    alike; overwrites neither what it was given nor what it has returned; and tells of every layer what it ran as. It
    refuses a layer that the model has not, and a batch of 0, by an :class:`AIQError`; and leaves the model as it found
    it. All passes run on one thread.

    Args:
        runtime: What is checked.
        deployment: The network that it is tried on; by default :func:`example_deployment`.
        schemes: Quantized schemes that it is tried on; by default weights and activations in 8 bits, and narrower.
        batch: Samples in a pass.

    Raises:
        ContractError: It breaks a rule; the text says which.
    """
    for what, value in (("name", runtime.name), ("version", runtime.version())):
        demand(isinstance(value, str) and bool(value), f"the {what} must be a text that is not empty, got {value!r}")
    reason = runtime.available()
    demand(reason is None, f"it cannot be tried here: {reason}")
    deployment = example_deployment() if deployment is None else deployment
    before = _state(deployment)
    inputs = deployment.example(batch)
    exact = _simulated(deployment, Scheme(), inputs)
    prepared = runtime.prepare(deployment, Scheme(), batch=batch, threads=_THREADS)
    found = _run(prepared, inputs, exact.shape, "keep")
    largest = float(np.abs(found - exact).max() / (exact.std() or 1.0))
    demand(
        largest <= _FLOAT_TOLERANCE,
        f"keep: the float network must give PyTorch's outputs within {_FLOAT_TOLERANCE:g} of their spread, "
        f"got {largest:.3g}",
    )
    _check_passes(prepared, inputs, found)
    alike = runtime.prepare(deployment, Scheme(), batch=batch, threads=_THREADS)
    again = _run(alike, inputs, exact.shape, "keep")
    demand(np.array_equal(again, found), "another network prepared alike must give equal outputs")
    _check_told(prepared, inputs, deployment.layers)
    for tried in map(Scheme.parse, _SCHEMES) if schemes is None else schemes:
        _check_scheme(runtime, deployment, tried, inputs, exact)
    for what, scheme, size in (
        (f"a scheme that names an unknown layer, keep,{_NO_LAYER}=w8,", f"keep,{_NO_LAYER}=w8", batch),
        ("a batch of 0", "keep", 0),
    ):
        build = partial(runtime.prepare, deployment, Scheme.parse(scheme), batch=size, threads=_THREADS)
        _check_refused(what, build)
    demand(_state(deployment) == before, "it must leave the model's weights, structure and mode as they are")


def _simulated(deployment: Deployment, scheme: Scheme, inputs: Arrays) -> NDArray[np.float32]:
    import torch

    given: Any = [torch.from_numpy(np.asarray(array)) for array in inputs]
    calibration = deployment.simulator.calibration_inputs
    if isinstance(calibration, Mapping):
        given = dict(zip(calibration, given, strict=True))
    elif isinstance(calibration, torch.Tensor):
        (given,) = given
    else:
        given = tuple(given)
    found: NDArray[np.float32] = deployment.simulator.outputs(scheme, given).numpy()
    return found


def _run(prepared: Prepared, inputs: Arrays, shape: tuple[int, ...], scheme: str) -> NDArray[np.float32]:
    found: Any = prepared.run(inputs)
    demand(isinstance(found, np.ndarray), f"{scheme}: run must return an array, got {type(found).__name__}")
    demand(
        found.shape == shape and found.dtype == np.float32,
        f"{scheme}: run must return float32 {list(shape)}, got {found.dtype} {list(found.shape)}",
    )
    demand(bool(np.isfinite(found).all()), f"{scheme}: outputs must be finite")
    result: NDArray[np.float32] = found
    return result


def _check_passes(prepared: Prepared, inputs: Arrays, found: NDArray[np.float32]) -> None:
    """Check that passes keep to their batch, repeat themselves, and overwrite nothing."""
    batch = len(found)
    demand(prepared.batch == batch, f"batch must be the {batch} that it was prepared for, got {prepared.batch}")
    kept, given = found.copy(), [np.array(array) for array in inputs]
    prepared.run([np.ascontiguousarray(array[::-1]) for array in inputs])
    demand(np.array_equal(found, kept), "a later pass must not overwrite what an earlier one returned")
    demand(np.array_equal(prepared.run(inputs), kept), "the same inputs must give the same outputs again")
    untouched = all(map(np.array_equal, inputs, given))
    demand(untouched, "a pass must leave its inputs as they are")
    _check_refused(
        f"inputs of another batch, {2 * batch},", lambda: prepared.run([np.concatenate([a, a]) for a in inputs])
    )


def _check_told(prepared: Prepared, inputs: Arrays, layers: Sequence[str]) -> None:
    from aiq.runtimes import Executed, Step

    told: Any = prepared.executed_precisions()
    missing = [layer for layer in layers if layer not in told]
    demand(not missing, f"executed_precisions must tell of every layer, and misses {', '.join(missing)}")
    for layer, ran in told.items():
        known = layer in layers and isinstance(ran, Executed) and bool(ran.compute) and bool(ran.stored)
        demand(known, f"executed_precisions must map layers to Executed with formats, got {layer!r}: {ran!r}")
    steps: Any = prepared.profile(inputs, passes=1)
    for step in steps:
        sound = isinstance(step, Step) and 0 <= step.seconds < math.inf and set(step.layers) <= set(layers)
        demand(sound, f"a profile must be of Steps with seconds and layers of the network, got {step!r}")


def _check_scheme(
    runtime: Runtime, deployment: Deployment, scheme: Scheme, inputs: Arrays, exact: NDArray[np.float32]
) -> None:
    try:
        prepared = runtime.prepare(deployment, scheme, batch=len(exact), threads=_THREADS)
    except AIQError:
        return
    except Exception as error:
        raise ContractError(
            f"{scheme} must be built or refused by an AIQError, got {type(error).__name__}: {error}"
        ) from error
    expected = _simulated(deployment, scheme, inputs)
    found = _run(prepared, inputs, exact.shape, str(scheme))
    changed, apart = np.abs(exact - expected).mean(), np.abs(found - expected).mean()
    demand(
        bool(apart <= _INTEGER_TOLERANCE * changed),
        f"{scheme}: outputs must come nearer to the simulation than three quarters of what quantization changes, "
        f"on average {changed:.3g}, got {apart:.3g}",
    )
    _check_told(prepared, inputs, deployment.layers)


def _check_refused(what: str, act: Callable[[], Any]) -> None:
    rule = f"{what} must be refused by an AIQError, got "
    try:
        act()
    except AIQError:
        return
    except Exception as error:
        raise ContractError(f"{rule}{type(error).__name__}: {error}") from error
    raise ContractError(f"{rule}an answer")


def _state(deployment: Deployment) -> tuple[str, tuple[bool, ...]]:
    model = deployment.simulator.model
    return model_digest(model), tuple(module.training for module in model.module.modules())
