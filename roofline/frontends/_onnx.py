"""``read_onnx``: an ONNX file becomes the operator graph that tracing the network would give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from roofline.errors import AIQError, ModelFileError
from roofline.frontends._onnx_file import open_onnx
from roofline.frontends._onnx_infer import Shapes, Types
from roofline.frontends._onnx_merge import merged
from roofline.frontends._onnx_names import operator
from roofline.frontends._onnx_reader import Draft, Reader
from roofline.frontends._record import Record, named
from roofline.graph import OpGraph


def read_onnx(
    path: str | Path, shapes: Shapes = (), *, name: str | None = None, keep_weights: Iterable[str] = ()
) -> OpGraph:
    """Read an ONNX file as an operator graph, with the kinds and formulas of :func:`roofline.trace`.

    Only shapes are needed: no other file is opened, whatever the model names as external data. Shapes follow node by
    node from those of the inputs; what a runtime folds when it loads the file (constants, and the chains that compute
    shapes) is free. Nodes that PyTorch's exporter made of one operator count as that operator again, and so do the
    usual patterns of attention, layer normalisation, GELU and the like in other files. Quantize and dequantize nodes
    are no work: they say in which formats tensors are stored, written and read.

    Args:
        path: An ``.onnx`` file, opset 11 or newer.
        shapes: Shapes of inputs by name, or in order; of those left out, a first axis that is open becomes 1. The first
            axis of the first input is the batch; inputs whose first axis has that length grow with it.
        name: Name of the model in reports; the file's by default.
        keep_weights: Patterns of layers whose weights a scheme's default leaves alone.

    Raises:
        ModelFileError: The file cannot be read, or is no sound ONNX model.
        InputError: A shape is missing or does not fit, or the package onnx is not installed.
        UnknownNameError: The model has no such input.

    Source: ONNX operator specification, https://onnx.ai/onnx/operators.
    """
    try:
        file = open_onnx(path)
        types = Types(file, shapes)
        first = next((shape for shape, _ in types.inputs.values() if shape), (1,))
        reader = Reader(file, types, first[0])
        results = reader.read()
        drafts, outputs = merged(reader.drafts, results)
        ops = tuple(named(list(_records(drafts))))
    except AIQError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError, RecursionError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(".")
        raise ModelFileError(
            f"{Path(path).name!r} is no sound ONNX model: {reason}. "
            "Next: run onnx.checker.check_model on it, or export it anew."
        ) from error
    return OpGraph(
        model=name or Path(path).stem,
        ops=ops,
        batch=first[0],
        outputs=outputs,
        parameters=reader.parameters,
        keep_weights=tuple(keep_weights),
        free_ops=reader.free,
        notes=tuple(_notes(reader)),
    )


def _notes(reader: Reader) -> Iterator[str]:
    if reader.unknown:
        name, op = next(iter(reader.unknown.items()))
        yield f"the shapes of {len(reader.unknown)} results are not known, first {name} of {op}: they count as empty"


def _records(drafts: Sequence[Draft]) -> Iterator[Record]:
    """Name the modules as tracing does: a tensor that several modules share is one layer, that of its name."""
    readers: dict[str, int] = {}
    for draft in drafts:
        readers[draft.owner] = readers.get(draft.owner, 0) + 1
    inner = {parent for draft in drafts for path in (draft.place.path, draft.owner) for parent in _parents(path)}
    for draft in drafts:
        path = draft.place.path
        shared = draft.owner and readers[draft.owner] > 1 and path and not draft.owner.startswith(f"{path}.")
        base = (draft.place.label or operator(draft.ops[-1].partition(".")[2].rpartition(".")[2])).strip("_")
        domains = [op.rpartition(".") for op in draft.ops]
        target = f"{domains[0][0]}.{'+'.join(op for _, _, op in domains)}"
        tensors = (*draft.inputs, *(spec for _, spec in draft.outputs))
        alias = path if shared else draft.owner
        yield Record(target, base, path, path not in inner, draft.owner, alias, draft.work, tensors, draft.batched)


def _parents(path: str) -> Iterator[str]:
    while "." in path:
        path = path.rpartition(".")[0]
        yield path
    yield ""
