"""Turn what a user calls a model into a module with an example input, or into a source of operator graphs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiq import zoo
from aiq._callable import find_callable, importing_from, reason
from aiq._hub import cached_config
from roofline.errors import AIQError, InputError, unknown_name

if TYPE_CHECKING:
    import torch

    from roofline import OpGraph

_INPUT = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<dims>[0-9]{1,12}(?:,[0-9]{1,12})*)(?::(?P<dtype>\w+))?")
_NEXT = "run 'aiq zoo' for the names, or give path/to/file.py:callable, FILE.onnx or hf:FOLDER"
_DTYPES = ("float32", "float16", "bfloat16", "int64", "int32", "bool")


class ModelError(AIQError):
    """A model that cannot be found or built."""


@dataclass(frozen=True, eq=False)
class Model:
    """A module ready to be traced.

    Attributes:
        name: As the user wrote it.
        module: In evaluation mode.
        example: A tensor, tuple or dict of tensors on ``meta``; the first axis is the batch.
        keep_weights: Patterns of layers whose weights a scheme's default leaves alone.
    """

    name: str
    module: torch.nn.Module
    example: Any
    keep_weights: tuple[str, ...] = ()

    def trace(self) -> OpGraph:
        """Return the model's operator graph.

        Raises:
            TraceError: The model raises in ``forward``.
        """
        import roofline

        return roofline.trace(self.module, self.example, name=self.name, keep_weights=self.keep_weights)


def load_model(name: str, inputs: Sequence[str] = ()) -> Model:
    """Find and build a model.

    Args:
        name: A zoo name; ``path/to/file.py:callable``; or ``package.module:callable``. The callable takes nothing and
            returns a ``torch.nn.Module``, or a pair of module and example input.
        inputs: Shapes of the example, ``[NAME=]1,3,224,224[:dtype]`` each; by default what the zoo or the callable
            says.

    Raises:
        UnknownNameError: No such zoo name or callable; near matches are offered.
        ModelError: The file or module cannot be imported, or the callable raises or returns something else.
        InputError: A malformed shape, or no shape where one is needed.
    """
    shapes = [_parse_input(text) for text in inputs]
    _refuse_without_weights(name)
    if ":" in name:
        module, example = _from_callable(name)
        keep: tuple[str, ...] = ()
    elif "/" in name or name.endswith(".py"):
        raise ModelError(
            f"model {name!r} names a file but no callable. Next: write {name}:build, with your callable's name."
        )
    else:
        entry = zoo.get(name)
        module, example, keep = zoo.build(name), _on_meta([("", (1, *entry.input_shape), "float32")]), entry.keep
    if shapes:
        example = _on_meta(shapes)
    if example is None:
        raise InputError(
            f"model {name!r} states no example input. Next: give its shape, for instance --input 1,3,224,224."
        )
    return Model(name, module.eval(), example, keep)


@dataclass(frozen=True)
class Workload:
    """What of a model runs.

    Attributes:
        phase: ``prefill`` or ``decode``, of a model given as a configuration.
        batch: Samples or sequences at once; by default one, or the example's.
        context: Tokens of the prompt, or in the key-value cache at decode.
        every_logit: Whether a prefill computes logits of every token.
    """

    phase: str | None = None
    batch: int | None = None
    context: int | None = None
    every_logit: bool = False


@dataclass(frozen=True, eq=False)
class Source:
    """Where the operator graphs of a model come from: a module, an ONNX file, or a configuration.

    Attributes:
        name: As the user wrote it.
        workload: What runs, unless :meth:`graph` is asked for something else.
        build: Returns the graph of a workload.
        phased: Whether the model is a configuration, whose graph depends on the workload.
        model: The module, where there is one.
    """

    name: str
    workload: Workload
    build: Callable[[Workload], OpGraph] = field(repr=False)
    phased: bool = False
    model: Model | None = None

    def graph(self, batch: int | None = None, context: int | None = None, *, phase: str | None = None) -> OpGraph:
        """Return the graph at a batch, a context and a phase; by default the workload's.

        A configuration is built at the batch. A traced module or a file has one graph, which
        :func:`roofline.estimate` scales to a batch.

        Raises:
            AIQError: The model cannot be traced, read or built, or not so.
        """
        given = self.workload
        work = replace(
            given,
            phase=given.phase if phase is None else phase,
            batch=given.batch if batch is None else batch,
            context=given.context if context is None else context,
        )
        if not self.phased:
            _check_unphased(self.name, work)
        return self.build(work)


def load_source(name: str, inputs: Sequence[str] = (), workload: Workload | None = None) -> Source:
    """Find a model in any form: what :func:`load_model` takes, ``FILE.onnx``, a shipped configuration, or ``hf:…``.

    Args:
        name: Besides the names of :func:`load_model`: a file that ends in ``.onnx``; ``hf:`` and a folder with a
            ``config.json``, such a file, or a name in the local Hugging Face cache; or a configuration that ships with
            the package. Nothing is fetched from the network.
        inputs: Shapes of inputs, of modules and ONNX files.
        workload: What runs; phase and context only mean something to configurations.

    Raises:
        UnknownNameError: No such name; near matches are offered.
        ModelError: The model cannot be imported or built.
        ConfigError: The configuration cannot be read.
        InputError: A malformed shape, or an option that such a model does not take.
    """
    work = workload or Workload()
    config = _config_of(name)
    if config is not None:
        if inputs:
            raise InputError(
                f"model {name!r} is a configuration: it takes no --input. Next: give --batch and --context."
            )
        return Source(name, work, partial(_from_config, name, config), phased=True)
    _check_unphased(name, work)
    if name.endswith(".onnx"):
        return Source(name, work, _once(partial(_read_onnx, name, inputs)))
    if not re.search(r"[:/]|\.py$", name) and name not in zoo.ENTRIES:
        from roofline.frontends._shipped import shipped_names

        raise unknown_name("model", name, (*zoo.names(), *shipped_names()), _NEXT)
    model = load_model(name, inputs)
    return Source(name, work, _once(model.trace), model=model)


def _once(build: Callable[[], OpGraph]) -> Callable[[Workload], OpGraph]:
    """Return what builds the one graph of a model when it is first asked for."""
    kept = cache(build)
    return lambda _: kept()


def _from_config(name: str, config: Mapping[str, Any], work: Workload) -> OpGraph:
    from roofline.frontends.transformers import from_config

    batch = 1 if work.batch is None else work.batch
    return from_config(
        config, phase=work.phase, batch=batch, context=work.context, every_logit=work.every_logit, name=name
    )  # fmt: skip


def _config_of(name: str) -> Mapping[str, Any] | None:
    """Return the configuration that a name stands for, or ``None`` where it stands for something else."""
    from roofline.frontends._shipped import shipped, shipped_names

    if name in shipped_names():
        return shipped(name).config
    if not name.startswith("hf:"):
        return None
    from roofline.frontends.transformers import read_config

    where = name.removeprefix("hf:")
    found = cached_config(where) if where and not Path(where).expanduser().exists() else None
    return read_config(found or where or ".")


def _read_onnx(name: str, inputs: Sequence[str]) -> OpGraph:
    import roofline

    given = [_parse_input(text) for text in inputs]
    named = {label: dims for label, dims, _ in given if label}
    if named and len(named) != len(given):
        raise InputError(
            f"{name}: either every --input has a name of its own or none has. Next: name them all, or none."
        )
    return roofline.read_onnx(name, named or [dims for _, dims, _ in given], name=name)


def _check_unphased(name: str, work: Workload) -> None:
    given = {"--phase": work.phase, "--context": work.context, "--every-logit": work.every_logit or None}
    for option, value in given.items():
        if value is not None:
            raise InputError(
                f"model {name!r} is a network as it stands: it takes no {option}. Next: leave it out, or give a "
                "configuration: hf:FOLDER or a name that 'aiq zoo' shows."
            )


def _refuse_without_weights(name: str) -> None:
    """Refuse models that are graphs alone, where the network has to run."""
    from roofline.frontends._shipped import shipped_names

    what = "an ONNX file" if name.endswith(".onnx") else "a configuration without weights"
    if name.endswith(".onnx") or name.startswith("hf:") or name in shipped_names():
        raise ModelError(
            f"model {name!r} is {what}, and this needs a network that runs. Next: give path/to/file.py:callable; "
            "'aiq graph' and 'aiq roofline' take it as it is."
        )


def _parse_input(text: str) -> tuple[str, tuple[int, ...], str]:
    match = _INPUT.fullmatch(text.strip())
    dtype = match["dtype"] or "float32" if match else ""
    if not match or dtype not in _DTYPES:
        raise InputError(
            f"input {text!r} is not [NAME=]DIMS[:DTYPE] with DTYPE one of {', '.join(_DTYPES)}. "
            "Next: write for instance --input 1,3,224,224 or --input ids=1,128:int64."
        )
    dims = tuple(int(d) for d in match["dims"].split(","))
    if 0 in dims:
        raise InputError(f"input {text!r} has an axis of length 0. Next: give every axis at least 1.")
    return match["name"] or "", dims, dtype


def _on_meta(shapes: Sequence[tuple[str, tuple[int, ...], str]]) -> Any:
    import torch

    names = [name for name, _, _ in shapes if name]
    if names and (len(names) != len(shapes) or len(set(names)) != len(names)):
        given = ", ".join(map(repr, names))
        raise InputError(
            f"either every --input has a name of its own or none has, got {given} for {len(shapes)} inputs. "
            "Next: name them all, or none."
        )
    tensors = []
    for _, dims, dtype in shapes:
        try:
            tensors.append(torch.empty(dims, dtype=getattr(torch, dtype), device="meta"))
        except (RuntimeError, TypeError):
            size = "x".join(map(str, dims))
            raise InputError(f"input {size} is too large for any tensor. Next: give a smaller shape.") from None
    if names:
        return dict(zip(names, tensors, strict=True))
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


def _from_callable(name: str) -> tuple[torch.nn.Module, Any]:
    import torch

    step = "name a function or class that takes no argument"
    build = find_callable(name, "model", error=ModelError, step=step)
    with importing_from(name.rpartition(":")[0]):
        try:
            built = build()
        except (Exception, SystemExit) as error:
            raise ModelError(
                f"model {name!r} raised while it was built: {reason(error)} Next: call it by itself."
            ) from error
    module, example = built if isinstance(built, tuple) and len(built) == 2 else (built, None)
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"model {name!r} returned {type(module).__name__}, not a torch.nn.Module. "
            "Next: return a module, or a pair of module and example input."
        )
    return module, example
