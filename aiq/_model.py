"""Turn what a user calls a model into a module, an example input and its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiq import zoo
from aiq._callable import find_callable, importing_from, reason
from roofline.errors import AIQError, InputError

if TYPE_CHECKING:
    import torch

    from roofline import OpGraph

_INPUT = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<dims>[0-9]{1,12}(?:,[0-9]{1,12})*)(?::(?P<dtype>\w+))?")
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
