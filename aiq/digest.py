"""Digests of what an oracle's value depends on: a model's weights, files, arrays."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from roofline.errors import InputError

if TYPE_CHECKING:
    import torch

    from aiq._model import Model
    from roofline import OpGraph


def model_digest(model: Model) -> str:
    """Return the SHA-256 of a model's parameters and buffers, in hexadecimal.

    It covers names, types, shapes and bytes of all parameters and buffers, shared ones under each of their names, and
    the module's printed structure (strides, paddings, epsilons). It does not cover what ``forward`` does beyond it, nor
    the values of weights on ``meta``, which have none.
    """
    module = model.module
    state = hashlib.sha256(repr(module).encode())
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in sorted(named, key=lambda item: item[0]):
        state.update(f"\0{name} ".encode())
        _add_tensor(state, tensor)
    return state.hexdigest()


def layers_digest(graph: OpGraph) -> str:
    """Return the SHA-256 of what decides the formats that a scheme gives to a graph's layers, in hexadecimal."""
    state = hashlib.sha256(repr((graph.layers, graph.keep_weights, sorted(graph.aliases.items()))).encode())
    return state.hexdigest()


def tensor_digest(*tensors: torch.Tensor) -> str:
    """Return the SHA-256 of tensors (types, shapes and bytes, in order), in hexadecimal."""
    state = hashlib.sha256()
    for tensor in tensors:
        _add_tensor(state, tensor)
    return state.hexdigest()


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}. Next: check the path.") from None


def code_digest(*modules: ModuleType) -> str:
    """Return the SHA-256 of the source of modules, and of every file in packages, in hexadecimal."""
    state = hashlib.sha256()
    for module in modules:
        if module.__file__ is None:
            continue
        path = Path(module.__file__)
        files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
        for file in files:
            state.update(f"\0{module.__name__} {file.name}\0".encode())
            state.update(file.read_bytes())
    return state.hexdigest()


def _add_tensor(state: hashlib._Hash, tensor: torch.Tensor) -> None:
    import torch

    state.update(f"{tensor.dtype} {list(tensor.shape)}\0".encode())
    if tensor.is_meta:
        return
    values = tensor.detach().cpu().contiguous().reshape(-1)
    state.update(values.view(torch.uint8).numpy().data if values.numel() else b"")
