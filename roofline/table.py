"""Score many schemes at once: an array of option indices in, bytes, intensity and latency out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hardware_specs import HardwareSpec
from roofline.errors import InputError
from roofline.floats import HALVES, common_half, families, float_kind, in_half
from roofline.graph import OpGraph
from roofline.precision import FLOAT_BITS, LayerPrecision, Precision
from roofline.pricing import Pricing
from roofline.scheme import Rule, Scheme, matches
from roofline.traffic import Traffic, build_rows

_CHUNK = 8192

Edge = tuple[int, int, NDArray[np.float64], NDArray[np.float64]]
"""Positions of two layers, and the bytes and seconds of converting between them by their options, [K, K]."""


@dataclass(frozen=True, eq=False)
class SchemeScores:
    """Scores of S schemes.

    Attributes:
        bytes: Bytes moved, [S].
        weight_bytes: Bytes that the weights take in memory, [S].
        latency_s: Seconds, [S].
        flops: FLOPs, the same for every scheme.
    """

    bytes: NDArray[np.float64]
    weight_bytes: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    flops: int

    @property
    def arithmetic_intensity(self) -> NDArray[np.float64]:
        """FLOP/byte, [S]."""
        intensity: NDArray[np.float64] = self.flops / self.bytes
        return intensity


class CostTable:
    """What every option of every layer costs, additive over layers: the input of exact optimisation.

    ``score`` agrees with :func:`roofline.estimate` to the last bit: both price rows with the same code and add them in
    the same order. On a calibrated machine, or with ``runtime``, rows take the times of its kernel models.

    Where that runtime computes all floating-point layers in one format (``hardware.one_float_format``), the time of an
    option depends on the others: one scheme of several floats does not run as it is written (:meth:`runnable`).
    ``families`` tells which options go together; times are additive within each, and ``score`` prices all schemes as
    they run.

    Attributes:
        layers: Names of the L quantizable layers.
        options: The K formats that each may take; a layer whose weights the model declares as kept takes only the
            activations' side of an option.
        bytes: Bytes moved by a layer and the rows that follow it, [L, K].
        weight_bytes: Bytes that a layer's weights take in memory, [L, K].
        latency_s: Seconds of a layer and the rows that follow it, [M, L, K]: one table for each memory level that may
            keep the weights between passes (outermost first).
        families: Positions of options that one scheme may hold together and run as it is written; all of them, but on
            such a machine.
        flops: FLOPs of the model.
    """

    def __init__(
        self,
        graph: OpGraph,
        hardware: HardwareSpec,
        options: Sequence[LayerPrecision],
        *,
        batch: int | None = None,
        traffic: Traffic | str = "fused",
        runtime: str | None = None,
    ) -> None:
        if not graph.layers:
            raise InputError(
                f"{graph.model} has no layer with weights: there is nothing to choose. Next: check the model."
            )
        if not options:
            raise InputError("a cost table needs at least one option. Next: give for instance keep and w8.")
        hardware = hardware if runtime is None else hardware.calibrated(runtime)
        rows = build_rows(graph, traffic=traffic, batch=graph.batch if batch is None else batch)
        self.pricing = Pricing(graph, hardware, rows, traffic)
        self.layers = graph.layers
        self.options = tuple(options)
        floats = {name for name, owned in graph.weight_elements().items() if any(t.is_float for t in owned.values())}
        self._layer_options = {
            layer: tuple(map(_activations_only, self.options))
            if layer not in floats or any(matches(p, layer) for p in graph.keep_weights)
            else self.options
            for layer in self.layers
        }
        self.flops = sum(2 * row.macs + row.vector_flops for row in rows)
        shape = (len(self.layers), len(self.options))
        self.bytes = np.zeros(shape)
        self.weight_bytes = np.zeros(shape)
        self.latency_s = np.zeros((len(hardware.memory), *shape))
        self._one_float = hardware.computes_in_one_float
        for index, layer in enumerate(self.layers):
            followers = [rows[r] for r in self.pricing.rows_by_anchor[layer]]
            for k, option in enumerate(self.layer_options(layer)):
                self.weight_bytes[index, k] = self.pricing.stored_bytes(layer, option)
                half = self._half([option])
                for level in range(len(hardware.memory)):
                    priced = [self.pricing.price(row, option, level, half) for row in followers]
                    self.latency_s[level, index, k] = _in_order(p.latency_s for p in priced)
                    self.bytes[index, k] = sum(p.bytes for p in priced)
        self._edges = self._edge_tables() if self.pricing.prices_transitions else []
        self.levels = self._levels_reached()
        self.families = families(self.options) if self._one_float else (tuple(range(len(self.options))),)
        kinds = [float_kind(option) if self._one_float else "" for option in self.options]
        halves = [name for name in HALVES if name in kinds]
        self._place = np.array([halves.index(kind) + 1 if kind in halves else 0 for kind in kinds])
        self._in_half = [self._timed_in(Precision(name, FLOAT_BITS[name])) for name in halves]

    def _levels_reached(self) -> list[int]:
        """Levels that some scheme's weights are kept in."""
        low, high = self.weight_bytes.min(axis=1).sum(), self.weight_bytes.max(axis=1).sum()
        return list(range(self.pricing.weight_level(high), self.pricing.weight_level(low) + 1))

    def _half(self, formats: Sequence[LayerPrecision]) -> Precision | None:
        """The 16-bit float that a network with these formats computes in, where it has one for all."""
        return common_half(formats) if self._one_float else None

    def _timed_in(self, half: Precision) -> tuple[NDArray[np.float64], list[Edge]]:
        """Return ``latency_s`` and transitions of schemes that compute in a 16-bit float: other floats become it."""
        seconds = self.latency_s.copy()
        for index, layer in enumerate(self.layers):
            followers = [self.pricing.rows[r] for r in self.pricing.rows_by_anchor[layer]]
            for k, option in enumerate(self.layer_options(layer)):
                for level in range(len(seconds)) if float_kind(option) not in {"", half.name} else ():
                    priced = (self.pricing.price(row, option, level, half) for row in followers)
                    seconds[level, index, k] = _in_order(p.latency_s for p in priced)
        return seconds, self._edge_tables(half) if self.pricing.prices_transitions else []

    def _edge_tables(self, half: Precision | None = None) -> list[Edge]:
        """Bytes and seconds of each transition by the options at its two ends, [K, K]; equal formats cost nothing."""
        order = {layer: i for i, layer in enumerate(self.layers)}
        rows, pricing, found = self.pricing.rows, self.pricing, []
        size = len(self.options)
        for source, consumer in pricing.edges:
            producer = source.row
            ends = order[rows[producer].anchor], order[rows[consumer].anchor]
            moved, seconds = np.zeros((size, size)), np.zeros((size, size))
            for a, first in enumerate(self.layer_options(rows[producer].anchor)):
                for b, second in enumerate(self.layer_options(rows[consumer].anchor)):
                    one = half or self._half((first, second))
                    formats = (first, second) if one is None else (in_half(first, one), in_half(second, one))
                    cost = pricing.transition(source, consumer, *formats)
                    if cost is not None:
                        moved[a, b], seconds[a, b] = cost.bytes, cost.latency_s
            if moved.any() or seconds.any():
                found.append((*ends, moved, seconds))
        return found

    @property
    def has_transitions(self) -> bool:
        """Whether tensors that change format between layers cost something, which no sum over layers holds."""
        return bool(self._edges)

    @property
    def transitions(self) -> Sequence[Edge]:
        """Positions of two layers, and the bytes and seconds of converting between them by their options, [K, K].

        They hold within each of ``families``.
        """
        return tuple(self._edges)

    def weight_level(self, weight_bytes: float) -> int:
        """Memory level that keeps the weights of a scheme between passes."""
        return self.pricing.weight_level(weight_bytes)

    def most_weight_bytes(self, level: int) -> float:
        """Most bytes of weights of a scheme whose weights a memory level keeps between passes."""
        return self.pricing.most_weight_bytes(level)

    def score(self, schemes: NDArray[np.integer]) -> SchemeScores:
        """Score schemes given as option indices.

        Args:
            schemes: Integers in [0, K), shape [S, L].

        Raises:
            InputError: Another shape, or an index outside the options.
        """
        choice = self._checked(schemes)
        count = choice.shape[0]
        moved, weights, seconds = np.empty(count), np.empty(count), np.empty(count)
        for start in range(0, count, _CHUNK):
            part = slice(start, min(start + _CHUNK, count))
            self._score_chunk(
                np.ascontiguousarray(choice[part].T, dtype=np.intp), moved[part], weights[part], seconds[part]
            )
        return SchemeScores(moved, weights, seconds, self.flops)

    def runnable(self, schemes: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Tell which schemes run as they are written, [S]: those whose options one of ``families`` holds.

        Args:
            schemes: Integers in [0, K), shape [S, L].

        Raises:
            InputError: Another shape, or an index outside the options.
        """
        choice = self._checked(schemes)
        found = np.full(len(choice), len(self.families) == 1)
        for family in self.families if len(self.families) > 1 else ():
            found |= np.isin(choice, family).all(axis=1)
        return found

    def _checked(self, schemes: NDArray[np.integer]) -> NDArray[np.integer]:
        choice = np.asarray(schemes)
        if choice.ndim != 2 or choice.shape[1] != len(self.layers) or not np.issubdtype(choice.dtype, np.integer):
            raise InputError(
                f"schemes must be integers of shape [S, {len(self.layers)}], got {choice.dtype} {list(choice.shape)}. "
                "Next: give one option index for each layer."
            )
        if choice.size and (choice.min() < 0 or choice.max() >= len(self.options)):
            raise InputError(f"option indices must lie in [0, {len(self.options)}). Next: check the array.")
        return choice

    def _score_chunk(
        self,
        columns: NDArray[np.intp],
        moved: NDArray[np.float64],
        weights: NDArray[np.float64],
        seconds: NDArray[np.float64],
    ) -> None:
        _gather_sum(self.bytes, columns, moved)
        _gather_sum(self.weight_bytes, columns, weights)
        for latency, edges, chosen in self._timings(columns, weights):
            part, own = seconds, columns
            if chosen is not None:
                part, own = np.empty(len(chosen)), np.ascontiguousarray(columns[:, chosen])
            _gather_sum(latency, own, part)
            for a, b, extra_bytes, extra_seconds in edges:
                moved[slice(None) if chosen is None else chosen] += extra_bytes[own[a], own[b]]
                part += extra_seconds[own[a], own[b]]
            if chosen is not None:
                seconds[chosen] = part

    def _timings(
        self, columns: NDArray[np.intp], weights: NDArray[np.float64]
    ) -> Iterator[tuple[NDArray[np.float64], list[Edge], NDArray[np.intp] | None]]:
        """Yield seconds by layer and option, transitions, and the schemes that they are of; ``None`` for all."""
        if len(self.levels) == 1 and not self._in_half:
            yield self.latency_s[self.levels[0]], self._edges, None
            return
        places = self._place[columns].max(axis=0)
        levels = self.pricing.weight_levels(weights) if len(self.levels) > 1 else np.full_like(places, self.levels[0])
        groups = places * len(self.latency_s) + levels
        for group in np.unique(groups).tolist():
            place, level = divmod(group, len(self.latency_s))
            latency, edges = self._in_half[place - 1] if place else (self.latency_s, self._edges)
            yield latency[level], edges, np.flatnonzero(groups == group)

    def layer_options(self, layer: str) -> tuple[LayerPrecision, ...]:
        """Return the K formats of one layer, its declared keep applied."""
        return self._layer_options[layer]

    def canonical(self, choice: Sequence[int]) -> tuple[int, ...]:
        """Return the first of the choices that stand for the same formats: a kept layer may have several."""
        options = map(self.layer_options, self.layers)
        return tuple(found.index(found[k]) for found, k in zip(options, choice, strict=True))

    def scheme(self, choice: Sequence[int], *, name: str = "") -> Scheme:
        """Return the scheme that one row of option indices stands for."""
        rules = (Rule(layer, self.layer_options(layer)[k]) for layer, k in zip(self.layers, choice, strict=True))
        return Scheme(LayerPrecision(), tuple(rules), name)

    def uniform(self, option: int, name: str = "") -> Scheme:
        """Return the scheme that gives every layer one option."""
        return Scheme(self.options[option], (), name)


def _activations_only(option: LayerPrecision) -> LayerPrecision:
    """Return an option's side for a layer whose weights are kept; a recipe that nothing is left for goes too."""
    left = replace(option, weights=None)
    return LayerPrecision() if left.activations is None and left.kv is None else left


def _in_order(values: Iterable[float]) -> float:
    """Add from left to right; ``sum`` compensates rounding on newer Pythons and would not agree to the last bit."""
    total = 0.0
    for value in values:
        total += value
    return total


def _gather_sum(table: NDArray[np.float64], columns: NDArray[np.intp], out: NDArray[np.float64]) -> None:
    """Add ``table[l, columns[l]]`` over layers, in order, into ``out``."""
    part = np.empty_like(out)
    out[:] = 0.0
    for row, column in zip(table, columns, strict=True):
        np.take(row, column, out=part, mode="clip")
        out += part
