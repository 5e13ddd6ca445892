"""Put together again what an exporter took apart: nodes of one PyTorch operator, and patterns that runtimes fuse."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod

from roofline import ops
from roofline.frontends._onnx_patterns import ATTENTION, Group, patterns
from roofline.frontends._onnx_reader import Draft
from roofline.frontends._record import Work
from roofline.graph import MATRIX_KINDS, NORM_KINDS, Extents, TensorSpec
from roofline.precision import Precision

_NORMS = {
    "layer_norm": "layer_norm",
    "native_layer_norm": "layer_norm",
    "group_norm": "group_norm",
    "native_group_norm": "group_norm",
    "instance_norm": "group_norm",
    "rms_norm": "rms_norm",
    "_fused_rms_norm": "rms_norm",
}
_PLAIN = frozenset({"elementwise", "copy", "fill"})


def merged(drafts: Sequence[Draft], results: Collection[int]) -> tuple[list[Draft], frozenset[int]]:
    """Return the drafts with each group as one, and the positions of those that write the model's results.

    Args:
        drafts: In execution order; changed in place.
        results: Positions of those that write the model's results.
    """
    readers: dict[int, set[int]] = {index: set() for index in range(len(drafts))}
    for index, draft in enumerate(drafts):
        draft.outputs = [(storage, _as_read(spec, storage.read_as)) for storage, spec in draft.outputs]
        for producer in _producers(draft):
            readers[producer].add(index)
    last_of: dict[int, int] = {}
    whole: dict[int, Draft] = {}
    for label, members in (*_calls(drafts), *patterns(drafts, readers, results)):
        if not last_of.keys() & set(members) and _closed(members, readers):
            inside = frozenset(members)
            leaving = [i for i in members if i in results or not inside.issuperset(readers[i])]
            one = _one(label, [drafts[i] for i in members], members, leaving or members[-1:], drafts)
            if one is not None:
                whole[members[-1]] = one
                last_of.update(dict.fromkeys(members, members[-1]))
    kept = [i for i in range(len(drafts)) if last_of.get(i, i) == i]
    position = {old: new for new, old in enumerate(kept)}
    position.update({member: position[last] for member, last in last_of.items()})
    found = [whole.get(i, drafts[i]) for i in kept]
    for draft in found:
        draft.inputs = [_moved(spec, position) for spec in draft.inputs]
    return found, frozenset(position[i] for i in results)


def _producers(draft: Draft) -> set[int]:
    return {producer for spec in draft.inputs for producer in spec.producers}


def _moved(spec: TensorSpec, position: Mapping[int, int]) -> TensorSpec:
    if not spec.producers:
        return spec
    return replace(spec, producers=tuple(dict.fromkeys(position[p] for p in spec.producers)))


def _as_read(spec: TensorSpec, read_as: Collection[Precision | None]) -> TensorSpec:
    """Return a result in the format that all its readers read it in."""
    only = next(iter(read_as), None)
    if only is None or len(read_as) > 1:
        return spec
    return replace(spec, dtype=only.name, bits=only.bits, is_float=only.is_float)


def _calls(drafts: Sequence[Draft]) -> Iterator[Group]:
    """Yield what the exporter says was one call of a PyTorch operator."""
    found: dict[str, list[int]] = {}
    for index, draft in enumerate(drafts):
        if draft.place.call:
            found.setdefault(draft.place.call, []).append(index)
    yield from (Group(drafts[m[0]].place.label, tuple(m)) for m in found.values() if len(m) > 1)


def _closed(members: Sequence[int], readers: Mapping[int, Collection[int]]) -> bool:
    """Tell whether the members can run as one where the last of them stands: nobody else reads them before."""
    inside, last = frozenset(members), members[-1]
    return all(reader in inside or reader > last for member in members for reader in readers[member])


def _one(
    label: str, drafts: Sequence[Draft], members: Collection[int], leaving: Sequence[int], all_: Sequence[Draft]
) -> Draft | None:
    outputs = [pair for index in leaving for pair in all_[index].outputs]
    inside = frozenset(members)
    inputs: dict[tuple[int, tuple[int, ...]], TensorSpec] = {}
    for draft in drafts:
        for spec in draft.inputs:
            if not spec.producers or not inside.issuperset(spec.producers):
                inputs.setdefault((spec.identity, spec.producers), spec)
    work = _attention(drafts) if label == ATTENTION else _work(label, drafts, outputs[-1][1] if outputs else None)
    if work is None:
        return None
    place = drafts[-1].place._replace(label=label)
    read = list(inputs.values())
    if label == ATTENTION and ", None" in place.arguments:
        # The mask that the exporter wrote for a causal call, which has none.
        read = [spec for spec in read if spec.role == "input"]
    owner = next((draft.owner for draft in drafts if draft.owner), "")
    operators = list(dict.fromkeys(name for draft in drafts for name in draft.ops))
    return Draft(operators, place, work, read, outputs, owner, any(draft.batched for draft in drafts))


def _work(label: str, drafts: Sequence[Draft], output: TensorSpec | None) -> Work | None:
    """Return the work of one PyTorch operator from that of its parts; ``None`` where they are better left apart."""
    if output is None or any(draft.work.kind == "unknown" for draft in drafts):
        return None
    works = [draft.work for draft in drafts]
    kinds = {work.kind for work in works}
    matrices = [work for work in works if work.kind in MATRIX_KINDS]
    if len(matrices) == 1:
        return matrices[0]
    if matrices:
        return _added(matrices) if {work.kind for work in matrices} == {"recurrent"} else None
    norm = _NORMS.get(label) or next((kind for kind in NORM_KINDS if kind in kinds), None)
    if norm is not None:
        return Work(norm, 0, ops.norm_flops(norm, output.shape))
    rest = [work for work in works if work.kind not in _PLAIN]
    if len(rest) == 1 and rest[0].kind != "reduction":
        return rest[0]
    if "softmax" in label:
        return Work("softmax", 0, ops.softmax_flops(output.shape))
    if not rest:
        if "elementwise" not in kinds:
            return Work("copy" if "copy" in kinds else "fill")
        computes = any(work.vector_flops for work in works)
        return Work("elementwise", 0, ops.elementwise_flops(output.shape) if computes else 0)
    if {work.kind for work in rest} == {"reduction"}:
        return Work("reduction", 0, max(work.vector_flops for work in rest))
    return None


def _added(works: Sequence[Work]) -> Work:
    macs, flops = sum(work.macs for work in works), sum(work.vector_flops for work in works)
    return works[0]._replace(macs=macs, vector_flops=flops)


def _attention(drafts: Sequence[Draft]) -> Work | None:
    """Return the work of attention from its two products and what is between them."""
    products = [draft for draft in drafts if draft.work.kind == "matmul"]
    if len(products) != 2 or not all(p.work.extents and p.outputs for p in products):
        return None
    scores, weighted = products
    first, second = scores.work.extents, weighted.work.extents
    shape = scores.outputs[0][1].shape
    if first is None or second is None or (first.m, first.n) != (second.m, second.k) or len(shape) < 2:
        return None
    notes = ["scores stay on chip"]
    if ", None, 0.0, True" in drafts[0].place.arguments:
        notes.append("causal, counted in full")
    heads, shared = shape[-3] if len(shape) > 2 else 1, _repeats(drafts)
    if shared > 1 and heads % shared == 0:
        notes.append(f"grouped queries {heads}:{heads // shared}")
    extents = Extents(first.products, first.m, first.n, first.k + second.n, "products")
    flops = ops.attention_softmax_flops((*shape[:-1], 1), (*shape[:-2], shape[-1], 1))
    return Work("attention", scores.work.macs + weighted.work.macs, flops, ", ".join(notes), extents)


def _repeats(drafts: Sequence[Draft]) -> int:
    """Return how many query heads share a head of keys: what a copy writes for each value that it reads."""
    for draft in drafts:
        read = sum(spec.elements for spec in draft.inputs)
        if draft.work.kind == "copy" and read and draft.outputs:
            written = prod(draft.outputs[0][1].shape)
            if written > read:
                return written // read
    return 1
