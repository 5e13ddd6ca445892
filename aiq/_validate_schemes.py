"""The schemes that a validation measures: a spread over what a planner may choose, and what nobody would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aiq._tradeoff import Losses, tradeoffs
from roofline import CostTable, LayerPrecision, OpGraph, Scheme, floats
from roofline.estimate import resolve

FAMILIES = ("uniform", "trade-off", "pattern", "random", "given")
_TARGETS = ("latency", "ai")
_STEPS = 5
_ATTEMPTS = 50

Choice = tuple[int, ...]
Options = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pick:
    """One scheme to measure.

    Attributes:
        scheme: With a name of its own.
        family: Where it comes from: one of ``FAMILIES``.
    """

    scheme: Scheme
    family: str

    @property
    def name(self) -> str:
        """The scheme's name."""
        return str(self.scheme)


def given(schemes: Sequence[Scheme], graph: OpGraph) -> list[Pick]:
    """Return the user's schemes, duplicates dropped, each under a name of its own.

    Raises:
        UnknownNameError: A scheme names a layer that the graph has not.
    """
    distinct: dict[tuple[LayerPrecision, ...], Scheme] = {}
    for scheme in schemes:
        distinct.setdefault(tuple(resolve(graph, scheme).values()), scheme)
    found: dict[str, Scheme] = {}
    for scheme in distinct.values():
        name, number = str(scheme), 1
        while name in found:
            number += 1
            name = f"{scheme} ({number})"
        found[name] = replace(scheme, name=name)
    return [Pick(scheme, "given") for scheme in found.values()]


def spread(
    tables: Mapping[int, CostTable],
    losses: Losses,
    graph: OpGraph,
    *,
    count: int,
    seed: int = 0,
    one_float: bool = False,
) -> list[Pick]:
    """Build schemes of every family, distinct in the formats that they give.

    Uniform schemes come first, then about a third each of points on the exact trade-offs between predicted latency (and
    bytes moved) and a proxy loss, of regular patterns, and of the layers of such schemes shuffled at random: as many
    layers of each format, in other places. Where a runtime computes all floating-point layers in one format, no scheme
    has several, and each has its share of trade-offs and patterns.

    Args:
        tables: Costs at each batch size; all over the same layers and options, ``keep`` first.
        losses: Proxy loss of each option of each layer, [L, K].
        graph: The network.
        count: How many schemes; fewer where there are no more.
        seed: Seeds the random ones.
        one_float: Whether the runtime is such a one, whatever the tables' machine says.
    """
    table = next(iter(tables.values()))
    together = floats.families(table.options) if one_float else table.families
    taken: dict[Choice, Pick] = {}

    def take(name: str, choice: Choice, family: str) -> bool:
        key = table.canonical(choice)
        if key in taken or len(taken) >= count:
            return False
        one = len(set(choice)) == 1 and family == "uniform"
        scheme = table.uniform(choice[0], name) if one else table.scheme(choice, name=name)
        taken[key] = Pick(scheme, family)
        return True

    for k, option in enumerate(table.options):
        take(option.label, (k,) * len(table.layers), "uniform")
    queues = {
        "trade-off": list(_trade_offs(tables, losses, together)),
        "pattern": list(_in_turn([list(_patterns(table, graph, options)) for options in together])),
    }
    mixed = [choice for queue in queues.values() for _, choice in queue if len(set(table.canonical(choice))) > 1]
    groups = [[choice for choice in mixed if set(choice) <= set(options)] for options in together]
    groups = [group for group in groups if group]
    share = -(-(count - len(taken)) // 3)
    spare: list[tuple[str, Choice, str]] = []
    for family, queue in queues.items():
        left = share
        for name, choice in queue:
            if left > 0:
                left -= take(name, choice, family)
            else:
                spare.append((name, choice, family))
    generator = np.random.default_rng(seed)
    number = 0
    for attempt in range(_ATTEMPTS * count if groups else 0):
        if len(taken) >= count:
            break
        turn, group = divmod(attempt, len(groups))
        shuffled = tuple(int(k) for k in generator.permutation(groups[group][turn % len(groups[group])]))
        number += take(f"random-{number + 1}", shuffled, "random")
    for name, choice, family in spare:
        take(name, choice, family)
    return list(taken.values())


def _trade_offs(
    tables: Mapping[int, CostTable], losses: Losses, together: Sequence[Options]
) -> Iterator[tuple[str, Choice]]:
    """Yield the scheme of least loss at equal steps of saving, the fastest of each batch size first."""
    found = {
        (batch, options): tradeoffs(table, losses, families=[options])
        for batch, table in tables.items()
        for options in together
    }
    for step in range(_STEPS, 0, -1):
        for target in _TARGETS:
            for (batch, options), by_target in found.items():
                frontier = by_target[target].frontier
                cheapest, dearest = frontier.costs[0], frontier.costs[-1]
                index = frontier.best_for(dearest - step / _STEPS * (dearest - cheapest))
                at = f" b{batch}" if len(tables) > 1 else ""
                name = f"{target}-{100 * step // _STEPS}{at}{_suffix(tables[batch], options)}"
                yield name, tuple(int(k) for k in frontier.choices[index])


def _in_turn(queues: Sequence[Sequence[tuple[str, Choice]]]) -> Iterator[tuple[str, Choice]]:
    """Yield each place of queues of one length, from the first of one queue and the second of the next; then others."""
    for turn in range(len(queues)):
        for place in range(len(queues[0])):
            yield queues[(place + turn) % len(queues)][place]


def _float(table: CostTable, options: Options) -> int:
    """Return the first of some options that has floating-point activations."""
    return next((k for k in options if floats.float_kind(table.options[k])), options[0])


def _suffix(table: CostTable, options: Options) -> str:
    """Return what tells the names of schemes over some options from those over ``keep`` and others."""
    plain = _float(table, options)
    return f" ({table.options[plain].label})" if plain else ""


def _patterns(table: CostTable, graph: OpGraph, options: Options) -> Iterator[tuple[str, Choice]]:
    """Yield schemes that quantize some of the layers to the first integer format, and give the others the float."""
    count = len(table.layers)
    narrow = next((k for k in options if _is_integer(table.options[k])), options[-1])
    plain, suffix = _float(table, options), _suffix(table, options)
    heaviest = np.argsort(-table.weight_bytes[:, 0], kind="stable").tolist()
    depthwise = {op.layer for op in graph if op.kind == "depthwise_conv"}
    order, half = range(count), count // 2
    chosen: dict[str, set[int]] = {
        "alternating": set(order[::2]),
        "first half": set(order[:half]),
        "last half": set(order[half:]),
        "only depthwise": {i for i, layer in enumerate(table.layers) if layer in depthwise},
        "all but depthwise": {i for i, layer in enumerate(table.layers) if layer not in depthwise},
        "largest half": set(heaviest[:half]),
        "smallest half": set(heaviest[half:]),
        "all but the ends": set(order[1:-1]),
        "largest quarter": set(heaviest[: -(-count // 4)]),
        "smallest quarter": set(heaviest[-(-count // 4) :]),
        "alternating, from the second": set(order[1::2]),
    }
    for name, layers in chosen.items():
        if layers:
            yield name + suffix, tuple(narrow if i in layers else plain for i in order)


def _is_integer(option: LayerPrecision) -> bool:
    return option.weights is not None and not option.weights.is_float
