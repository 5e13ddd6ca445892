"""``trace``: run a PyTorch module once on ``meta`` tensors and return its operator graph."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._pytree import tree_map

from roofline.errors import TraceError
from roofline.frontends._record import named
from roofline.frontends._tracer import Tracer, tensors_in
from roofline.graph import OpGraph

_CONTAINERS = (list, dict, set, OrderedDict)


def trace(
    model: torch.nn.Module,
    example_input: Any,
    *,
    name: str | None = None,
    keep_weights: Iterable[str] = (),
    real: bool = False,
) -> OpGraph:
    """Record every aten operator that eager PyTorch runs for one forward pass in evaluation mode.

    Nothing is computed: parameters, inputs and factories are replaced by ``meta`` tensors as they meet an operator, so
    that a model of any size, with weights in memory or on ``meta``, costs shapes only. Where ``forward`` asks for
    values (a branch on data), the real tensors are run instead (an example on ``meta`` counts as zeros) and
    ``OpGraph.notes`` says so.

    Args:
        model: The module; its attributes, containers and buffers are put back afterwards.
        example_input: A tensor, a tuple of positional arguments or a dict of keyword arguments. The first axis of the
            first tensor is the batch; inputs whose first axis has that length grow with it.
        name: Name of the model in reports; the class name by default.
        keep_weights: Patterns of layers whose weights a scheme's default leaves alone.
        real: Run the real tensors from the start (eager's fused fast paths then appear, recorded as what they fuse).

    Raises:
        TraceError: The model raises in ``forward`` or is TorchScript, or the example holds no tensor or an empty batch.
    """
    title = name or type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        raise TraceError(f"{title} is TorchScript, whose modules cannot be watched. Next: give the eager module.")
    first = next(tensors_in(_arguments(example_input)), None)
    if first is None:
        raise TraceError(
            f"{title}: the example input holds no tensor. Next: pass a tensor, a tuple or a dict of tensors."
        )
    if 0 in first.shape[:1]:
        raise TraceError(f"{title}: the example input has an empty batch. Next: give at least one sample.")
    batch = first.shape[0] if first.dim() else 1
    notes: tuple[str, ...] = ()
    tracer = outputs = None
    if not real:
        try:
            tracer, outputs = _run(model, example_input, batch, real=False)
        except Exception as error:
            if any(p.is_meta for p in model.parameters()):
                raise _refusal(title, example_input, error) from error
            notes = (f"ran on real tensors: on meta tensors forward raised {_reason(error)}",)
    if tracer is None:
        try:
            tracer, outputs = _run(model, example_input, batch, real=True)
        except Exception as error:
            raise _refusal(title, example_input, error) from error
    return OpGraph(
        model=title,
        ops=tuple(named(tracer.records)),
        batch=batch,
        outputs=tracer.writers_of(outputs),
        parameters=dict(tracer.parameters),
        keep_weights=tuple(keep_weights),
        free_ops=tracer.free,
        notes=notes,
    )


def _arguments(example: Any) -> Any:
    return list(example.values()) if isinstance(example, dict) else example


def _run(model: torch.nn.Module, example: Any, batch: int, *, real: bool) -> tuple[Tracer, Any]:
    with _untouched(model, real=real), torch.inference_mode():
        tracer = Tracer(model, real=real)
        inputs = tree_map(_with_values if real else tracer.to_meta, example)
        tracer.declare_inputs(_arguments(inputs), batch)
        with tracer.watching():
            if isinstance(inputs, dict):
                out = model(**inputs)
            elif isinstance(inputs, tuple | list):
                out = model(*inputs)
            else:
                out = model(inputs)
    return tracer, _plain(out)


def _with_values(value: Any) -> Any:
    """Give a tensor that has no values zeros, for a run on real tensors."""
    return torch.zeros_like(value, device="cpu") if isinstance(value, torch.Tensor) and value.is_meta else value


def _plain(out: Any) -> Any:
    """Turn a model's output object into lists and tensors."""
    if isinstance(out, torch.Tensor | list | tuple | dict):
        return out
    if dataclasses.is_dataclass(out):
        return [getattr(out, field.name) for field in dataclasses.fields(out)]
    return list(vars(out).values()) if hasattr(out, "__dict__") else out


@contextmanager
def _untouched(model: torch.nn.Module, *, real: bool) -> Iterator[None]:
    """Run in evaluation mode, then put back the attributes, buffers and random state that ``forward`` changed."""
    modules = [(module, dict(module.__dict__)) for module in model.modules()]
    for module, _ in modules:
        module.training = False
    containers = [(v, copy.copy(v)) for _, a in modules for v in a.values() if type(v) in _CONTAINERS]
    values = [(buffer, buffer.clone()) for buffer in model.buffers()] if real else []
    try:
        with torch.random.fork_rng(devices=[], enabled=real):
            yield
    finally:
        for module, attributes in modules:
            module.__dict__.clear()
            module.__dict__.update(attributes)
        for container, content in containers:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)
        for buffer, value in values:
            buffer.copy_(value)


def _refusal(title: str, example: Any, error: Exception) -> TraceError:
    shapes = ", ".join("x".join(map(str, t.shape)) or "scalar" for t in tensors_in(_arguments(example)))
    return TraceError(
        f"{title} raised in forward for input {shapes}: {_reason(error)}. "
        "Next: check the input shape (--input), or run the model by itself."
    )


def _reason(error: Exception) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    return f"{type(error).__name__}: {first.rstrip('.')}"
