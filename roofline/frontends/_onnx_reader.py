"""Walk an ONNX graph as an interpreter of shapes: every node's work, what it reads and writes, and what is free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from roofline.errors import ModelFileError
from roofline.frontends import _onnx_values as values
from roofline.frontends._onnx_file import STANDARD, OnnxFile, attributes
from roofline.frontends._onnx_fold import fold
from roofline.frontends._onnx_infer import Types, check_size
from roofline.frontends._onnx_names import Place, owner, place
from roofline.frontends._onnx_ops import FORMULAS, GATHER, MICROSOFT, MOVED, Call, UnknownShapeError, channels
from roofline.frontends._onnx_quantized import SPECIAL, weight_format
from roofline.frontends._onnx_values import TINY, Storage, Value, fresh
from roofline.frontends._onnx_views import VIEWS, view
from roofline.frontends._record import Work
from roofline.graph import CONV_KINDS, Role, TensorSpec
from roofline.precision import Precision

if TYPE_CHECKING:
    import onnx

_WEIGHT_KINDS = CONV_KINDS | {"linear", "matmul", "recurrent", "embedding"}
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
_NUMBERS = {
    "value_int": values.INT64,
    "value_ints": values.INT64,
    "value_float": values.FLOAT,
    "value_floats": values.FLOAT,
}
_GRAPH = 5
_DEEPEST = 16
_MOST_STEPS = 400_000


@dataclass(slots=True, eq=False)
class Draft:
    """One call as seen, before calls that one operator became are put together again."""

    ops: list[str]
    place: Place
    work: Work
    inputs: list[TensorSpec]
    outputs: list[tuple[Storage, TensorSpec]]
    owner: str = ""
    batched: bool = False


@dataclass(eq=False)
class Reader:
    """Reads one file; ``drafts`` are what it found.

    Attributes:
        free: Nodes that move nothing: views, constants, and what a runtime folds when it loads the file.
        parameters: Stored elements and bits of each initializer read.
        unknown: Names of results whose shape nothing says, with their operators.
    """

    file: OnnxFile
    types: Types
    batch: int
    drafts: list[Draft] = field(default_factory=list)
    free: int = 0
    parameters: dict[str, tuple[int, int]] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    _identities: dict[Any, int] = field(default_factory=dict)
    _memories: dict[int, int] = field(default_factory=dict)
    _only_cast: frozenset[str] = frozenset()
    _steps: int = 0
    _depth: int = 0

    def read(self) -> frozenset[int]:
        """Walk the main graph; return the positions of the drafts that wrote what the model returns."""
        for name, (shape, kind) in self.types.inputs.items():
            batched = bool(shape) and shape is not None and shape[0] == self.batch
            self.values[name] = fresh(shape, kind, Storage(int(np.prod(shape or (1,), dtype=object)), batched=batched))
        self._store(self.file.model.graph)
        readers = {n: True for node in self.file.nodes for n in node.input}
        readers.update((n, False) for node in self.file.nodes for n in node.input if node.op_type != "Cast")
        readers.update((v.name, False) for v in self.file.model.graph.output)
        self._only_cast = frozenset(name for name, only in readers.items() if only)
        self._walk(self.file.nodes)
        results = [self._get(v.name) for v in self.file.model.graph.output if v.name in self.values]
        for value in results:
            value.storage.read_as.add(None)
        return frozenset(writer for value in results for writer in value.storage.writers)

    def rounds(self, name: str) -> bool:
        """Tell whether nothing but casts reads a value."""
        return name in self._only_cast

    def _store(self, graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            self.values[tensor.name] = self.stored(tensor, tensor.name)
        for sparse in graph.sparse_initializer:
            shape = tuple(sparse.dims)
            check_size(self.file.name, sparse.values.name, shape)
            name = sparse.values.name
            self.values[name] = fresh(shape, sparse.values.data_type, Storage(len(sparse.indices.dims), "stored", name))

    def stored(self, tensor: onnx.TensorProto, name: str) -> Value:
        """Return an initializer; of its numbers only a few are taken, and none that lie in another file."""
        shape = tuple(tensor.dims)
        check_size(self.file.name, name, shape)
        value = fresh(shape, tensor.data_type, Storage(0, "stored", name))
        value.storage.elements = value.elements
        return replace(value, data=_numbers(tensor) if value.elements <= TINY else None)

    def _get(self, name: str) -> Value:
        if name not in self.values:
            raise ModelFileError(
                f"{self.file.name!r} reads {name!r} before anything writes it, so its nodes are not in order. "
                "Next: run onnx.checker.check_model on it, or export it anew."
            )
        return self.values[name]

    def _walk(self, nodes: Sequence[onnx.NodeProto]) -> None:
        for node in nodes:
            self._steps += 1
            if self._steps > _MOST_STEPS:
                raise ModelFileError(f"{self.file.name!r} has more nodes than can be read. Next: give a smaller model.")
            inputs = [self._get(name) if name else None for name in node.input]
            outputs = self._step(node, inputs)
            for name, value in zip(node.output, outputs, strict=False):
                if name:
                    self.values[name] = value

    def _step(self, node: onnx.NodeProto, inputs: list[Value | None]) -> Sequence[Value]:
        settings = attributes(node)
        standard = node.domain in STANDARD
        if standard and node.op_type == "Constant":
            self.free += 1
            return [self._constant(node, settings)]
        if standard and node.op_type == "If" and (chosen := self._branch(inputs[0], settings)) is not None:
            return chosen
        if any(a.type == _GRAPH for a in node.attribute):
            return self._unknown(node, [*inputs, *self._captured(node)], "its body is not counted")
        declared = self.types.of_results(node, inputs)
        if standard and node.op_type in SPECIAL:
            special = SPECIAL[node.op_type](self, node, settings, inputs, declared)
            if special is not None:
                self.free += 1
                return special
        fixed = node.op_type not in _RANDOM and not (node.op_type == "Gather" and place(node).label == "embedding")
        constant = fixed and all(v is None or v.constant for v in inputs)
        if constant and (found := self._folded(node, settings, inputs, declared)) is not None:
            self.free += 1
            return found
        if standard and node.op_type in VIEWS:
            return self._viewed(node, settings, inputs, declared)
        if node.domain not in {*STANDARD, MICROSOFT}:
            return self._unknown(node, inputs)
        return self._called(node, settings, inputs, declared)

    def _constant(self, node: onnx.NodeProto, settings: dict[str, Any]) -> Value:
        name, given = next(iter(settings.items()), ("", None))
        if name == "value" and given is not None:
            return self.stored(given, node.output[0] if given.dims else "")
        if name in _NUMBERS:
            kind = _NUMBERS[name]
            data = np.asarray(given, np.int64 if kind == values.INT64 else np.float32)
            return fresh(tuple(data.shape), kind, Storage(data.size, "stored"), data if values.small(data) else None)
        if name == "sparse_value" and given is not None:
            check_size(self.file.name, node.output[0], given.dims)
            return fresh(tuple(given.dims), given.values.data_type, Storage(len(given.indices.dims), "stored"))
        length = len(given) if isinstance(given, list) else 0
        return fresh((length,) if length else (), values.STRING, Storage(length or 1, "stored"))

    def _branch(self, condition: Value | None, settings: dict[str, Any]) -> list[Value] | None:
        """Run the branch of an ``If`` whose condition follows from shapes."""
        if condition is None or condition.data is None or self._depth > _DEEPEST:
            return None
        graph = settings["then_branch" if condition.data.all() else "else_branch"]
        self.free += 1
        self._depth += 1
        self._store(graph)
        self._walk(graph.node)
        self._depth -= 1
        return [self._get(value.name) for value in graph.output]

    def _captured(self, node: onnx.NodeProto) -> Iterator[Value]:
        """Yield values of the graph around that the bodies of a node read."""
        graphs = [(a.g, 0) for a in node.attribute if a.type == _GRAPH]
        seen: set[str] = set()
        while graphs:
            graph, depth = graphs.pop()
            for inner in graph.node:
                seen.update(name for name in inner.input if name)
                if depth < _DEEPEST:
                    graphs += [(a.g, depth + 1) for a in inner.attribute if a.type == _GRAPH]
        yield from (self.values[name] for name in sorted(seen) if name in self.values)

    def _folded(
        self, node: onnx.NodeProto, settings: dict[str, Any], inputs: Sequence[Value | None], declared: Any
    ) -> list[Value] | None:
        """Return the results of a node on constants; ``None`` where it makes a large tensor while the model runs."""
        given = [v for v in inputs if v is not None]
        stored = all(v.storage.origin == "stored" for v in given) and (bool(given) or node.op_type != "RandomNormal")
        data: Sequence[Any] | None = None
        if all(v.data is not None for v in given):
            ready = {**settings, "outputs": len(node.output)}
            if "to" in ready:
                ready["to"] = _numpy_type(ready["to"])
            if node.op_type == "ConstantOfShape" and "value" in ready:
                ready["value"] = _numbers(ready["value"])
            data = fold(node.op_type, [None if v is None else v.data for v in inputs], ready)
        if node.op_type in VIEWS and (found := view(node.op_type, settings, inputs, declared)):
            return [replace(value, data=d) for value, d in zip(found, data or [None] * len(found), strict=False)]
        source = inputs[0] if inputs else None
        weight = source is not None and source.storage.origin == "stored" and len(source.shape or ()) > 1
        if node.op_type == "Cast" and source is not None and (data is None or weight):
            return [replace(source, kind=declared[0][1], stored_as=_narrower(source, declared[0][1]), data=None)]
        results = []
        for position, (said, kind) in enumerate(declared):
            known = data[position] if data is not None and position < len(data) else None
            shape = tuple(known.shape) if known is not None else said
            elements = 0 if shape is None else int(np.prod(shape, dtype=object))
            if not stored and (shape is None or elements > TINY):
                return None
            storage = Storage(elements, "stored" if stored else "shapes", _name_of(given) if stored else "")
            results.append(fresh(shape, kind, storage, known))
        return results

    def _viewed(
        self, node: onnx.NodeProto, settings: dict[str, Any], inputs: Sequence[Value | None], declared: Any
    ) -> Sequence[Value]:
        found = view(node.op_type, settings, inputs, declared)
        if found is not None:
            self.free += 1
            return found
        if node.op_type in FORMULAS:
            return self._called(node, settings, list(inputs), declared)
        return self._record(node, Call(node.op_type, settings, inputs[:1], []), declared, Work("copy"))

    def _unknown(self, node: onnx.NodeProto, inputs: Sequence[Value | None], note: str = "") -> Sequence[Value]:
        declared = [self.types.declared(name) for name in node.output]
        return self._record(node, Call(node.op_type, {}, inputs, []), declared, Work("unknown", note=note))

    def _called(
        self, node: onnx.NodeProto, settings: dict[str, Any], inputs: list[Value | None], declared: Any
    ) -> Sequence[Value]:
        inputs = weight_format(node.op_type, settings, inputs)
        layout = _layout(inputs, declared) if node.op_type in FORMULAS else ()
        outputs = [fresh(shape, kind, Storage(0)) for shape, kind in declared]
        call = Call(node.op_type, settings, inputs, outputs)
        try:
            work = FORMULAS[node.op_type](call) if node.op_type in FORMULAS else Work("unknown")
        except (UnknownShapeError, IndexError, KeyError, ValueError, TypeError, ArithmeticError):
            work = Work("unknown", note="" if node.op_type not in FORMULAS else "its shapes are not known")
        return self._record(node, call, declared, work, layout if work.kind == "elementwise" else ())

    def _record(
        self, node: onnx.NodeProto, call: Call, declared: Any, work: Work, layout: tuple[int, ...] = ()
    ) -> Sequence[Value]:
        """Note one call and return its results."""
        index, source = len(self.drafts), place(node)
        moved = MOVED.get(node.op_type, range(len(call.inputs))) if work.kind != "unknown" else range(len(call.inputs))
        specs: list[TensorSpec] = []
        seen: set[int] = set()
        named, batched = "", False
        for position, value in enumerate(call.inputs):
            if value is None or id(value) in seen or value.format.name == "unknown":
                continue
            batched = batched or value.storage.batched
            if position not in moved or value.number:
                continue
            seen.add(id(value))
            spec = self._input(value, position, work, call, node.op_type)
            specs.append(spec)
            if spec.role == "weight" and not named:
                named = owner(spec.name) or source.path or node.name or f"{node.op_type}_{index}"
        if work.kind == "matmul" and named:
            work = work._replace(kind="linear")
        results, outputs = [], []
        for name, (shape, kind) in zip(node.output, declared, strict=False):
            storage = Storage(0, writers=(index,), batched=batched)
            value = fresh(shape, kind, storage)
            storage.elements = value.elements
            if layout and len(layout) == len(shape or ()):
                value = replace(value, strides=layout)
            if shape is None and name:
                self.unknown[name] = node.op_type
            results.append(value)
            if name:
                form = value.format
                held, memory = value.elements, self._memory(storage)
                spec = TensorSpec("output", shape or (), held, *form, batched, stored=held, storage=memory)
                outputs.append((storage, spec))
        target = f"{node.domain or 'onnx'}.{node.op_type}"
        self.drafts.append(Draft([target], source, work, specs, outputs, named, batched))
        return results

    def _input(self, value: Value, position: int, work: Work, call: Call, op: str) -> TensorSpec:
        storage = value.storage
        storage.read_as.add(value.stored_as)
        elements, shape = value.distinct, value.shape or ()
        if op in GATHER and position == 0 and call.outputs:
            elements = min(elements, call.outputs[0].elements)
        part = storage.serial, value.offset, shape, value.strides
        identity = self._identities.setdefault(part, len(self._identities))
        form = value.format if value.stored_as is None else _format(value.stored_as)
        role: Role = "state" if storage.origin == "shapes" else "input"
        batched, share, native = storage.batched, 1, None
        if storage.origin == "stored":
            if storage.name:
                self.parameters.setdefault(storage.name, (storage.elements, form.bits))
            role = "state" if op == "BatchNormalization" and position > 2 else "parameter"
            if elements and _is_weight(value, position, work.kind, form):
                role, native = "weight", _scaled(value.stored_as)
                form = form if form.is_float else form._replace(name=f"int{form.bits}")
                rows = call.inputs[1] if work.kind == "embedding" else None
                if rows is not None:
                    elements, share = rows.elements * shape[-1], rows.elements
                    batched = rows.storage.batched
                else:
                    share = max(channels(call, position, value, work.kind), 1)
        label, writers, held, memory = storage.name, storage.writers, storage.elements, self._memory(storage)
        return TensorSpec(role, shape, elements, *form, batched, share, label, writers, held, identity, native, memory)

    def _memory(self, storage: Storage) -> int:
        return self._memories.setdefault(storage.serial, len(self._memories))


def _is_weight(value: Value, position: int, kind: str, form: values.Format) -> bool:
    """Tell whether a constant is what a scheme quantizes: a matrix operand, or the table of an embedding."""
    if kind == "embedding":
        return position == 0
    narrow = form.is_float or form.bits <= 8
    return kind in _WEIGHT_KINDS and len(value.shape or ()) >= 2 and narrow


def _format(precision: Precision) -> values.Format:
    return values.Format(precision.name, precision.bits, precision.is_float)


def _scaled(precision: Precision | None) -> Precision | None:
    """Return the format where its name and width do not say it all."""
    return precision if precision is not None and (precision.group_size or precision.per_channel) else None


def _narrower(value: Value, kind: int) -> Precision | None:
    """Return the format that a constant is stored in, where it is cast to another."""
    if value.stored_as is not None or value.kind == kind:
        return value.stored_as
    form = value.format
    return Precision(form.name, form.bits) if form.is_float else None


def _name_of(given: Sequence[Value]) -> str:
    return next((v.storage.name for v in given if v.storage.name and not v.number), "")


def _layout(inputs: Sequence[Value | None], declared: Any) -> tuple[int, ...]:
    """Return the strides of an element-wise result: those of the first input of its shape that fills its memory."""
    shape = declared[0][0] if declared else None
    first = next((v for v in inputs if v is not None and v.shape == shape and not v.constant), None)
    return first.strides if first is not None and values.dense(first) else ()


def _numbers(tensor: onnx.TensorProto) -> Any:
    """Return the numbers of a tensor in the file itself; ``None`` if they are elsewhere, unsound or of rare format."""
    from onnx import TensorProto, numpy_helper

    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        return None
    try:
        data = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, RuntimeError, KeyError):
        return None
    return data if data.dtype.kind in "iufb" and tuple(data.shape) == tuple(tensor.dims) else None


def _numpy_type(kind: int) -> Any:
    from onnx import helper

    try:
        return helper.tensor_dtype_to_np_dtype(kind)
    except (KeyError, ValueError, TypeError):
        return None
