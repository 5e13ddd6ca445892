"""Open an ONNX file and lay its nodes out flat: nothing but the file itself is read, and functions are written out."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofline.errors import InputError, ModelFileError

if TYPE_CHECKING:
    import onnx

MOST_BYTES = 2**31 - 1
OLDEST_OPSET = 11
_MOST_NODES = 200_000
_DEEPEST = 32
STANDARD = frozenset({"", "ai.onnx"})


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """A parsed file.

    Attributes:
        name: The file's name.
        model: The message; external data stay where they are.
        opsets: Version of each domain's operators; the standard domain is ``""``.
        nodes: Nodes of the main graph in order, those of the file's own functions written out.
    """

    name: str
    model: onnx.ModelProto
    opsets: Mapping[str, int]
    nodes: Sequence[onnx.NodeProto]


def open_onnx(path: str | Path) -> OnnxFile:
    """Read and parse a file.

    Raises:
        InputError: The package onnx is not installed.
        ModelFileError: The file cannot be read, is too large for protobuf, is no ONNX model, or its operators are older
            or newer than what can be read.
    """
    try:
        import onnx
    except ImportError:
        raise InputError(
            f"{str(path)!r} is read with onnx, which is not installed. Next: pip install 'aiq-roofline[onnx]'."
        ) from None

    name = Path(path).name
    content = _content(Path(path))
    try:
        model = onnx.ModelProto.FromString(content)
    except MemoryError:
        raise
    except Exception:  # protobuf's own, which onnx does not pass on
        raise ModelFileError(
            f"{name!r} is no ONNX model, or is cut short: its {len(content)} bytes are no protobuf message. "
            "Next: export or copy the file anew."
        ) from None
    if not model.HasField("graph") or not model.graph.node:
        raise ModelFileError(
            f"{name!r} holds no graph of operators, so it is no ONNX model. Next: give a file that "
            "torch.onnx.export or another exporter wrote."
        )
    opsets = {"" if o.domain in STANDARD else o.domain: o.version for o in model.opset_import}
    _check_opset(name, opsets.setdefault("", 1), onnx.defs.onnx_opset_version())
    functions = {(f.domain, f.name): f for f in model.functions}
    return OnnxFile(name, model, opsets, tuple(_flat(name, model.graph.node, functions)))


def _content(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError(f"{str(path)!r} is no ordinary file. Next: name an .onnx file.")
        if status.st_size > MOST_BYTES:
            raise ModelFileError(
                f"{path.name!r} has {status.st_size} bytes, and a protobuf message holds at most {MOST_BYTES} (2 GB). "
                "Next: export it with external data, which stay beside the file and are not read."
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelFileError(f"cannot read {str(path)!r}: {reason}. Next: check the path.") from None


def _check_opset(name: str, version: int, newest: int) -> None:
    if version < OLDEST_OPSET:
        raise ModelFileError(
            f"{name!r} uses operators of opset {version}: known are {OLDEST_OPSET} to {newest}. "
            "Next: convert it with onnx.version_converter, or export it anew."
        )
    if version > newest:
        raise ModelFileError(
            f"{name!r} uses operators of opset {version}, and the onnx that is installed knows up to {newest}. "
            "Next: pip install --upgrade onnx."
        )


def _flat(
    name: str, nodes: Sequence[onnx.NodeProto], functions: Mapping[tuple[str, str], onnx.FunctionProto]
) -> Iterator[onnx.NodeProto]:
    """Yield nodes in order, calls of the file's own functions as the nodes of their bodies."""
    left = _MOST_NODES

    def walk(nodes: Sequence[onnx.NodeProto], depth: int) -> Iterator[onnx.NodeProto]:
        nonlocal left
        if depth > _DEEPEST:
            raise ModelFileError(f"{name!r} has functions that call each other without end. Next: export it anew.")
        for node in nodes:
            left -= 1
            if left < 0:
                raise ModelFileError(f"{name!r} has more than {_MOST_NODES} nodes. Next: give a smaller model.")
            function = functions.get((node.domain, node.op_type))
            if function is None:
                yield node
            else:
                yield from walk(_body(node, function, left), depth + 1)

    yield from walk(nodes, 0)


def _body(call: onnx.NodeProto, function: onnx.FunctionProto, serial: int) -> list[onnx.NodeProto]:
    """Return the nodes of a function under the names and attributes that a call gives them."""
    import onnx

    names = dict(zip(function.input, [*call.input, *[""] * len(function.input)], strict=False))
    names.update(zip(function.output, call.output, strict=False))
    given = {a.name: a for a in function.attribute_proto} | {a.name: a for a in call.attribute}

    def renamed(name: str) -> str:
        if not name:
            return ""
        return names.setdefault(name, f"{call.name or call.op_type}/{serial}/{name}")

    nodes = []
    for template in function.node:
        node = onnx.NodeProto()
        node.CopyFrom(template)
        node.input[:] = [renamed(n) for n in template.input]
        node.output[:] = [renamed(n) for n in template.output]
        del node.attribute[:]
        for attribute in template.attribute:
            if not attribute.ref_attr_name:
                node.attribute.append(attribute)
            elif attribute.ref_attr_name in given:
                node.attribute.add().CopyFrom(given[attribute.ref_attr_name])
                node.attribute[-1].name = attribute.name
        node.name = f"{call.name}/{template.name or template.op_type}" if call.name else template.name
        if not node.metadata_props:
            node.metadata_props.extend(call.metadata_props)
        nodes.append(node)
    return nodes


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values; texts are decoded, tensors and graphs stay messages."""
    from onnx import helper

    found: dict[str, Any] = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        found[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return found
