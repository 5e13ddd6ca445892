"""Which module a node belongs to: by what PyTorch's exporter notes of it, by its name, or by its weights' names."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import onnx

_TORCH = "pkg.torch.onnx."
_LONGEST_NOTE = 20_000
_LONGEST = 1000
_MADE_UP = re.compile(r"(onnx::|val_|_val_|const|ortshared|/|graph_|tensor_)", re.IGNORECASE)
_TAILS = re.compile(
    r"(\.T|\.codes|\.packed|\.bf16|\.fp16|_quantized|_transposed|_DequantizeLinear(_Output)?|_Q[48](G\d+)?|_scales?|"
    r"\.MatMul)+$"
)
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Place(NamedTuple):
    """Where a node comes from.

    Attributes:
        path: The module whose code it is; empty for the whole network.
        label: The PyTorch operator that it is part of; empty if nothing says so.
        call: Equal for all nodes that one call of that operator became; empty without one.
        arguments: What the exporter notes of that call's arguments.
    """

    path: str
    label: str = ""
    call: str = ""
    arguments: str = ""


def place(node: onnx.NodeProto) -> Place:
    """Return where a node comes from."""
    notes = {p.key: p.value for p in node.metadata_props if p.key.startswith(_TORCH) and len(p.value) < _LONGEST_NOTE}
    scopes = _list(notes.get(f"{_TORCH}name_scopes", ""))
    classes = _list(notes.get(f"{_TORCH}class_hierarchy", ""))
    if len(scopes) > 1 and len(scopes[-2]) < _LONGEST and classes and classes[-1].startswith("aten."):
        label = classes[-1].split(".")[1]
        return Place(scopes[-2], label, "|".join(scopes), notes.get(f"{_TORCH}fx_node", ""))
    return Place(_path(node))


def _list(text: str) -> list[str]:
    try:
        found = ast.literal_eval(text) if text.startswith("[") else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return found if all(isinstance(part, str) for part in found) else []


def _path(node: onnx.NodeProto) -> str:
    """Read a node's name as a path: ``/blocks/blocks.0/mlp/MatMul`` is ``blocks.0.mlp``, as is ``blocks.0.mlp``."""
    if len(node.name) > _LONGEST:
        return ""
    if "/" not in node.name:
        return node.name if "." in node.name else ""
    parts: list[str] = []
    for part in node.name.split("/")[:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts[-1] = part
        elif part:
            parts.append(part)
    return ".".join(parts)


def operator(op_type: str) -> str:
    """Return an operator's name as PyTorch would write it: ``MaxPool`` is ``max_pool``."""
    return op_type.lower() if op_type.isupper() else _WORD.sub("_", op_type).lower()


def owner(parameter: str) -> str:
    """Return the module that a parameter's name speaks of; empty where an exporter made the name up, as ``val_7``."""
    name = _TAILS.sub("", parameter) if len(parameter) < _LONGEST else ""
    if _MADE_UP.match(name):
        return ""
    return name.rpartition(".")[0]
