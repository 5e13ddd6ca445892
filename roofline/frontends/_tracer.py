"""The dispatch mode that watches a model run: every aten operator, its shapes, module path and tensor identity."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch._ops import OpOverload
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from roofline.frontends import _aten
from roofline.frontends._fused import ON_META, ON_REAL, FusedRun
from roofline.frontends._record import Record, Work
from roofline.frontends._shapes import SHAPE_RULES, ShapeRule
from roofline.graph import CONV_KINDS, Role, TensorSpec

_WEIGHT_KINDS = CONV_KINDS | {"linear", "matmul", "recurrent", "embedding"}
_DTYPES: dict[torch.dtype, tuple[str, int, bool]] = {
    torch.float64: ("fp64", 64, True),
    torch.float32: ("fp32", 32, True),
    torch.float16: ("fp16", 16, True),
    torch.bfloat16: ("bf16", 16, True),
    torch.float8_e4m3fn: ("fp8_e4m3", 8, True),
    torch.float8_e5m2: ("fp8_e5m2", 8, True),
}
_INT8 = (torch.int8, torch.uint8)
_MATERIALISE = frozenset({"arange", "zeros", "ones", "full", "empty", "rand", "randn"})


class _Constant(NamedTuple):
    """A parameter or buffer, or what is computed from such alone: names, kind, stored values.

    A buffer that ``forward`` writes (a key-value cache) is ``written``: state, and never a weight.
    """

    names: list[str]
    is_buffer: bool
    stored: int
    derived: bool = False
    written: bool = False


class _Handling(NamedTuple):
    """How calls of one operator are treated."""

    formula: _aten.Formula | None
    free: bool
    decompose: bool
    fused: FusedRun | None
    shape_rule: ShapeRule | None
    to_meta: bool
    materialises: bool


def _storage(tensor: torch.Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage._cdata, storage.nbytes()


def tensors_in(*groups: Any) -> Iterator[torch.Tensor]:
    """Yield every tensor in arguments or results, inside lists, tuples and dicts too."""
    for group in groups:
        if isinstance(group, torch.Tensor):
            yield group
        elif isinstance(group, list | tuple):
            yield from tensors_in(*group)
        elif isinstance(group, dict):
            yield from tensors_in(*group.values())


class Tracer(TorchDispatchMode):
    """Record every operator that runs while the mode is on.

    Without ``real``, every tensor and factory is moved to ``meta``: nothing is computed and no weight is read.
    """

    def __init__(self, model: torch.nn.Module, *, real: bool) -> None:
        super().__init__()
        self.real = real
        self.records: list[Record] = []
        self.free = 0
        self.parameters: dict[str, tuple[int, int]] = {}
        self._path: list[tuple[str, bool]] = [("", not any(True for _ in model.children()))]
        self._modules = {id(m): (name, not m._modules) for name, m in model.named_modules()}
        self._names: dict[int, list[str]] = {}
        self._is_buffer: set[int] = set()
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._names.setdefault(id(parameter), []).append(name)
        for name, buffer in model.named_buffers(remove_duplicate=False):
            self._names.setdefault(id(buffer), []).append(name)
            self._is_buffer.add(id(buffer))
        self._meta: dict[int, torch.Tensor] = {}
        self._alive: list[Any] = [model]
        self._constants: dict[int, _Constant] = {}
        self._identities: dict[Any, int] = {}
        self._writers: dict[int, tuple[int, ...]] = {}
        self._batched: set[int] = set()
        self._handlings: dict[OpOverload, _Handling] = {}
        self._thread = threading.get_ident()
        for tensor in (*model.parameters(), *model.buffers()):
            if real or tensor.is_meta:
                self._declare_constant(tensor, tensor)

    def _declare_constant(self, tensor: torch.Tensor, stand_in: torch.Tensor) -> None:
        key = id(tensor)
        constant = _Constant(self._names[key], key in self._is_buffer, tensor.numel())
        self._constants[_storage(stand_in)[0]] = constant

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record everything that runs inside, with module paths."""
        hooks = [
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module, always_call=True),
        ]
        try:
            with self:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter_module(self, module: torch.nn.Module, _args: Any) -> None:
        if threading.get_ident() == self._thread:
            self._path.append(self._modules.get(id(module), self._path[-1]))

    def _leave_module(self, _module: torch.nn.Module, _args: Any, _out: Any) -> None:
        if threading.get_ident() == self._thread:
            self._path.pop()

    def declare_inputs(self, inputs: Any, batch: int) -> None:
        """Mark the inputs whose first axis is the batch; masks and scalars do not grow with it."""
        for tensor in tensors_in(inputs):
            self._alive.append(tensor)
            if tensor.dim() and tensor.shape[0] == batch:
                self._batched.add(_storage(tensor)[0])

    def writers_of(self, outputs: Any) -> frozenset[int]:
        """Return the indices of the records that wrote the given tensors."""
        keys = [_storage(t)[0] for t in tensors_in(outputs)]
        return frozenset(w for key in keys for w in self._writers.get(key, ()))

    def to_meta(self, tensor: Any) -> Any:
        """Return the tensor's stand-in on ``meta``, the same one each time."""
        if not isinstance(tensor, torch.Tensor) or tensor.is_meta:
            return tensor
        key = id(tensor)
        found = self._meta.get(key)
        if found is None:
            # A view of a normal tensor must be a normal tensor, so its stand-in cannot be an inference tensor.
            with torch.inference_mode(False):
                found = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
            self._meta[key] = found
            self._alive.append(tensor)
            if key in self._names:
                self._declare_constant(tensor, found)
        return found

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        handling = self._handlings.get(func)
        if handling is None:
            handling = self._handlings[func] = self._handling(func)
        if not self.real and handling.to_meta:
            args, kwargs = self._on_meta(handling, args, kwargs)
        if handling.fused is not None:
            return handling.fused(self, func, args, kwargs)
        if handling.decompose:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = handling.shape_rule(args, kwargs) if handling.shape_rule else None
        if out is None:
            out = func(*args, **kwargs)
        if handling.free and (not func.is_view or self._only_aliases(args, out)):
            self.free += 1
        elif handling.free:
            cast = _aten.base_name(func) in _aten.CAST and out.dtype != args[0].dtype
            self._record(func, Work("elementwise" if cast else "copy"), args, kwargs, out)
        else:
            self.record_call(func, args, kwargs, out)
        return out

    def _handling(self, func: OpOverload) -> _Handling:
        name = _aten.base_name(func)
        free = _aten.is_free(func)
        formula = None if free else _aten.formula_of(func)
        fused = (ON_REAL if self.real else ON_META).get(name)
        return _Handling(
            formula,
            free,
            not free and formula is None and _aten.is_composite(func),
            fused,
            None if self.real else SHAPE_RULES.get(name),
            name != "_local_scalar_dense",
            name in _MATERIALISE,
        )

    def _on_meta(self, handling: _Handling, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if any(isinstance(a, list | tuple) for a in args) or kwargs:
            if any(not t.is_meta for t in tensors_in(args, kwargs)):
                args, kwargs = tree_map(self.to_meta, args), tree_map(self.to_meta, kwargs)
        else:
            args = tuple(map(self.to_meta, args))
        if handling.materialises or kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": torch.device("meta")}
        elif any(isinstance(a, torch.device) for a in args):
            args = tuple(torch.device("meta") if isinstance(a, torch.device) else a for a in args)
        return args, kwargs

    def link(self, out: Any, stand_in: Any) -> None:
        """Give ``out`` the history of ``stand_in``."""
        for real, meta in zip(tensors_in(out), tensors_in(stand_in), strict=False):
            self._alive += [real, meta]
            key, source = _storage(real)[0], _storage(meta)[0]
            self._writers[key] = self._writers.get(source, ())
            if source in self._batched:
                self._batched.add(key)

    def stand_in(self, tensor: Any) -> Any:
        """Return a ``meta`` twin of a real tensor that carries its history."""
        twin = self.to_meta(tensor)
        if isinstance(tensor, torch.Tensor) and twin is not tensor:
            self.link(twin, tensor)
            key = _storage(tensor)[0]
            if key in self._constants:
                self._constants[_storage(twin)[0]] = self._constants[key]
        return twin

    def _only_aliases(self, args: Any, out: Any) -> bool:
        outputs = list(tensors_in(out))
        if not outputs or not any(True for _ in tensors_in(args)):
            return True
        inputs = {_storage(t)[0] for t in tensors_in(args)}
        fresh = [t for t in outputs if _storage(t)[0] not in inputs]
        return not fresh or outputs[0].numel() == 0

    def record_call(self, func: OpOverload, args: Any, kwargs: Any, out: Any) -> None:
        """Record one call by its operator's formula."""
        formula = self._handlings[func].formula or _aten.UNKNOWN
        self._record(func, formula(args, kwargs, out), args, kwargs, out)

    def _record(self, func: OpOverload, work: Work, args: Any, kwargs: Any, out: Any) -> None:
        index = len(self.records)
        path, leaf = self._path[-1]
        base = _aten.base_name(func)
        specs: list[TensorSpec] = []
        constant: list[_Constant] = []
        owner, alias, batched, seen = "", "", False, set()
        touched = _touched(base, args, out)
        read = args[1:] if base in _aten.OVERWRITE or base in _aten.SCATTER else args
        for tensor in tensors_in(read, {k: v for k, v in kwargs.items() if k != "out"} if kwargs else ()):
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            key, _ = _storage(tensor)
            spec = self._input(tensor, work, args, out)
            if touched is not None and tensor is args[0]:
                spec = replace(spec, elements=min(spec.elements, touched))
            specs.append(spec)
            batched = batched or key in self._batched
            if spec.role != "input":
                constant.append(self._constants[key])
            if spec.role == "weight" and not owner:
                owner, alias = self._owner(constant[-1], path)
        for tensor in tensors_in(out):
            self._alive.append(tensor)
            key, nbytes = _storage(tensor)
            name, bits, is_float = _DTYPES.get(tensor.dtype) or _other(tensor.dtype)
            part = touched is not None and base not in _aten.GATHER
            elements = min(tensor.numel(), touched) if part and touched is not None else tensor.numel()
            spec = TensorSpec("output", tuple(tensor.shape), elements, name, bits, is_float, batched)
            specs.append(replace(spec, stored=nbytes // tensor.element_size(), storage=self._storage_of(key)))
            partial = part or tensor.numel() * tensor.element_size() < nbytes
            self._writers[key] = (*self._writers.get(key, ()), index) if partial else (index,)
            if batched:
                self._batched.add(key)
            known = self._constants.get(key)
            still_constant = bool(constant) and len(constant) == len(seen)
            if known is None and still_constant:
                self._constants[key] = constant[0]._replace(stored=tensor.numel(), derived=True)
            elif known is not None and not (known.derived and still_constant):
                self._constants[key] = known._replace(written=True)
        if work.kind == "matmul" and owner:
            work = work._replace(kind="linear")
        target = f"{func.namespace}.{base}.{func._overloadname}"
        self.records.append(Record(target, base.strip("_"), path, leaf, owner, alias, work, tuple(specs), batched))

    def _input(self, tensor: torch.Tensor, work: Work, args: Any, out: Any) -> TensorSpec:
        key, nbytes = _storage(tensor)
        name, bits, is_float = _DTYPES.get(tensor.dtype) or _other(tensor.dtype)
        shape, stride, elements = tuple(tensor.shape), tensor.stride(), tensor.numel()
        if elements > 1 and (0 in stride or elements * tensor.element_size() > nbytes):
            elements = _distinct(shape, stride)
        part = key, tensor.storage_offset(), shape, stride
        identity = self._identities.setdefault(part, len(self._identities))
        writers = self._writers.get(key, ())
        constant = self._constants.get(key)
        role: Role = "input"
        batched, channels, stored, label = key in self._batched, 1, 0, ""
        if constant is not None:
            stored, label = constant.stored, constant.names[0]
            if not constant.derived:
                self.parameters[label] = (stored, bits)
            role = "state" if constant.is_buffer or constant.written else "parameter"
            if not constant.written and _is_weight(tensor, work.kind, args):
                role = "weight"
                rows = next((t for t in tensors_in(args) if not t.dtype.is_floating_point), None)
                if work.kind == "embedding" and rows is not None:
                    elements, channels = rows.numel() * shape[-1], rows.numel()
                    batched = _storage(rows)[0] in self._batched
                else:
                    channels = _channels(tensor, elements, work.kind, args, out)
        if role == "input":
            stored = nbytes // tensor.element_size()
        spec = TensorSpec(
            role, shape, elements, name, bits, is_float, batched, channels, label, writers, stored, identity
        )
        return replace(spec, storage=self._storage_of(key))

    def _storage_of(self, key: int) -> int:
        return self._identities.setdefault(key, len(self._identities))

    @staticmethod
    def _owner(constant: _Constant, path: str) -> tuple[str, str]:
        """Return the layer that a weight belongs to, and the name by which this use of it goes.

        A tensor that several modules share is one layer, that of its first name; an op is named after its own module.
        """
        owners = [name.rpartition(".")[0] or name for name in constant.names]
        first = owners[0].partition(".parametrizations.")[0]
        return first, path if path in owners else first


def _is_weight(tensor: torch.Tensor, kind: str, args: Any) -> bool:
    """Tell whether a constant is what a scheme quantizes: a matrix operand, or the table of an embedding."""
    if kind == "embedding":
        return tensor is args[0]
    return kind in _WEIGHT_KINDS and tensor.dim() >= 2 and (tensor.is_floating_point() or tensor.dtype in _INT8)


def _touched(base: str, args: Any, out: Any) -> int | None:
    """Return how many values of its first operand a gather or scatter touches; ``None`` for any other operator."""
    if base in _aten.GATHER:
        return sum(t.numel() for t in tensors_in(out))
    if base in _aten.SCATTER or base in _aten.SCATTER_ADD:
        return max((t.numel() for t in tensors_in(args[1:])), default=0)
    return None


def _distinct(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Count the values that an expanded or overlapping view can reach."""
    product, extent = 1, 1
    for size, step in zip(shape, stride, strict=True):
        product *= size if step else 1
        extent += (size - 1) * step
    return min(product, extent)


def _channels(tensor: torch.Tensor, elements: int, kind: str, args: Any, out: Any) -> int:
    """Return how many output channels share out a weight's values."""
    shape = tensor.shape
    if kind == "conv_transpose":
        return int(out.shape[1 - len(shape)])
    if kind == "matmul":
        return elements // shape[-2 if tensor is not args[0] else -1]
    return shape[0]


def _other(dtype: torch.dtype) -> tuple[str, int, bool]:
    return str(dtype).removeprefix("torch."), dtype.itemsize * 8, False
