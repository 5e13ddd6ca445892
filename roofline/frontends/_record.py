"""What every frontend notes of one operator call, and how the calls become named ops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from roofline.graph import Extents, Op, TensorSpec


class Work(NamedTuple):
    """Cost of one call: op kind, multiply-accumulates, element-wise FLOPs, what a reader must know, and the shape."""

    kind: str
    macs: int = 0
    vector_flops: int = 0
    note: str = ""
    extents: Extents | None = None
    variant: str = ""


class Record(NamedTuple):
    """One operator call as seen; names are settled when the run is over.

    ``path`` is the module whose code ran it and ``leaf`` whether that has no children; ``owner`` is the layer of its
    weights and ``alias`` the name by which this use of them goes.
    """

    target: str
    base: str
    path: str
    leaf: bool
    owner: str
    alias: str
    work: Work
    tensors: tuple[TensorSpec, ...]
    batched: bool


def named(records: Sequence[Record]) -> Iterator[Op]:
    """Give every record its unique name: the owner of its weights, the leaf module, or module and operator."""
    owners = {name for record in records for name in (record.owner, record.alias)}
    kinds: dict[str, set[str]] = {}
    for record in records:
        if not record.owner and record.leaf:
            kinds.setdefault(record.path, set()).add(record.base)
    used: dict[str, int] = {}
    for index, record in enumerate(records):
        layer = record.owner or record.path
        alone = record.leaf and record.path and record.path not in owners
        if record.owner:
            name = record.alias
        elif alone and len(kinds[record.path]) == 1:
            name = layer
        else:
            name = f"{layer}.{record.base}" if layer else record.base
        used[name] = used.get(name, 0) + 1
        if used[name] > 1:
            name = f"{name}#{used[name]}"
        work = record.work
        yield Op(
            index,
            name,
            work.kind,
            layer,
            record.target,
            work.macs,
            work.vector_flops,
            record.tensors,
            record.batched,
            work.note,
            work.extents,
            work.variant,
        )
