"""Turn what a user calls a model into a module, an example input and its name."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiq import zoo
from hardware_specs.errors import unknown_name
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

    location, _, attribute = name.rpartition(":")
    with _importing_from(location):
        target = namespace = _import(location, name)
        for part in attribute.split("."):
            known = [n for n in dir(target) if not n.startswith("_") and _own(getattr(target, n, None), namespace)]
            if not hasattr(target, part):
                step = "name a function or class that takes no argument"
                raise unknown_name(f"callable in {location}", attribute, known, step)
            target = getattr(target, part)
        try:
            built = target()
        except (Exception, SystemExit) as error:
            raise ModelError(
                f"model {name!r} raised while it was built: {_reason(error)} Next: call it by itself."
            ) from error
    module, example = built if isinstance(built, tuple) and len(built) == 2 else (built, None)
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"model {name!r} returned {type(module).__name__}, not a torch.nn.Module. "
            "Next: return a module, or a pair of module and example input."
        )
    return module, example


def _own(value: Any, namespace: Any) -> bool:
    return callable(value) and getattr(value, "__module__", None) == namespace.__name__


def _is_file(location: str) -> bool:
    return "/" in location or location.endswith(".py")


@contextmanager
def _importing_from(location: str) -> Iterator[None]:
    """Let imports see the file's folder, or the working directory, as running the file by itself would."""
    here = str(Path(location).resolve().parent if _is_file(location) else Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _import(location: str, name: str) -> Any:
    if _is_file(location) and not Path(location).is_file():
        raise ModelError(f"model {name!r}: there is no file {location!r}. Next: check the path.")
    try:
        if not _is_file(location):
            return importlib.import_module(location)
        spec = importlib.util.spec_from_file_location(f"aiq_model_{Path(location).stem}", location)
        if spec is None or spec.loader is None:
            raise ModelError(f"model {name!r}: {location!r} is no Python file. Next: give a .py file.")
        namespace = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = namespace
        spec.loader.exec_module(namespace)
        return namespace
    except AIQError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"model {name!r}: importing {location!r} failed: {_reason(error)} Next: import it by itself."
        ) from error


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.') if lines else 'no message'}."
