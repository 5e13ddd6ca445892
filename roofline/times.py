"""How long passes take on one machine at many batches, what bounds them, and what a faster resource would bring."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_NEWTON_STEPS = 60


@dataclass(frozen=True, eq=False)
class Rows:
    """Seconds of each resource for every distinct row: what sensitivities are computed from.

    Attributes:
        seconds: Seconds of each resource alone, [K, R, B].
        counts: How often each row stands in the model, [R].
        own: How many of them are rows of the model; conversions of format follow, [R - own].
    """

    seconds: Array
    counts: Array
    own: int


@dataclass(frozen=True, eq=False)
class Times:
    """Time of a graph under one scheme on one machine, at B batches.

    Attributes:
        resources: ``compute``, the memory levels from the outermost, ``overhead``: K names.
        latency_s: Seconds of a pass, [B].
        by_bound: Seconds of the rows that each resource binds, and last of conversions of format, [K + 1, B].
        rows: What the seconds are made of; ``None`` on a calibrated machine, whose kernel models do not follow a rate.
    """

    resources: tuple[str, ...]
    latency_s: Array
    by_bound: Array
    rows: Rows | None = field(default=None, repr=False)

    @classmethod
    def of(cls, resources: tuple[str, ...], rows: Rows) -> Times:
        """Add up rows: each takes as long as its slowest resource."""
        latency = rows.seconds.max(axis=0) * rows.counts[:, None]
        binding = rows.seconds[:, : rows.own].argmax(axis=0)
        own, converted = latency[: rows.own], latency[rows.own :].sum(axis=0)
        by_bound = [np.where(binding == k, own, 0.0).sum(axis=0) for k in range(len(resources))]
        return cls(resources, latency.sum(axis=0), np.array([*by_bound, converted]), rows)

    @property
    def binding(self) -> NDArray[np.intp]:
        """Position of the resource that binds most of the time, [B]; K where conversions of format take most."""
        return self.by_bound.argmax(axis=0)

    def faster(self, resource: str, factor: float) -> Array | None:
        """Return the seconds of a pass were one resource so many times faster, [B]; ``None`` if calibrated."""
        if self.rows is None:
            return None
        scaled, rest = self._apart(self.rows, resource)
        found: Array = (np.maximum(scaled / factor, rest) * self.rows.counts[:, None]).sum(axis=0)
        return found

    def factor_for(self, resource: str, speedup: float) -> Array | None:
        """Return how many times faster one resource must be for a pass to be ``speedup`` times faster, [B].

        The time ``Σ count · max(s · g, rest)`` is convex and piecewise linear in ``g = 1 / factor``, so that Newton's
        steps from 1 reach the exact solution in as many as there are pieces.

        Returns:
            Factors; infinity where no rate of this resource alone is enough. ``None`` if calibrated.
        """
        if self.rows is None:
            return None
        scaled, rest = self._apart(self.rows, resource)
        counts, goal = self.rows.counts[:, None], self.latency_s / speedup
        share = np.ones_like(goal)
        for _ in range(_NEWTON_STEPS):
            excess = (np.maximum(scaled * share, rest) * counts).sum(axis=0) - goal
            slope = np.where(scaled * share > rest, scaled * counts, 0.0).sum(axis=0)
            step = np.where((excess > 1e-12 * goal) & (slope > 0), excess / np.where(slope > 0, slope, 1.0), 0.0)
            if not step.any():
                break
            share = share - step
        possible = ((rest * counts).sum(axis=0) < goal) & (share > 0)
        return np.where(possible, 1.0 / np.where(possible, share, 1.0), np.inf)

    def factor_to_unbind(self, position: int) -> float | None:
        """Return how many times faster the resource that binds most must be until another binds as much, at one batch.

        Conversions of format are left aside. ``None`` where nothing else ever would, or if calibrated.

        Args:
            position: Which of the batches.
        """
        resource = int(self.by_bound[:-1, position].argmax())
        if self.rows is None:
            return None
        seconds, counts = self.rows.seconds[:, : self.rows.own, position], self.rows.counts[: self.rows.own]
        others = np.delete(seconds, resource, axis=0)
        own, rest, label = seconds[resource], others.max(axis=0), others.argmax(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            leaves = np.where(rest > 0, own / rest, np.inf)
        order = np.argsort(leaves, kind="stable")
        freed = np.zeros((len(others), len(order) + 1))
        freed[label[order], np.arange(1, len(order) + 1)] = (rest * counts)[order]
        most = freed.cumsum(axis=1).max(axis=0)
        held = np.append((own * counts)[order][::-1].cumsum()[::-1], 0.0)
        ends = np.append(leaves[order], np.inf)
        # With so many rows free, the rest takes held / factor; the factor must lie where just these rows are free.
        starts = np.maximum(np.append(0.0, leaves[order]), 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            needed = np.where(most > 0, np.maximum(held / most, starts), np.inf)
        found = needed[(needed <= ends) & np.isfinite(needed)]
        return float(found.min()) if len(found) else None

    def _apart(self, rows: Rows, resource: str) -> tuple[Array, Array]:
        index = self.resources.index(resource)
        return rows.seconds[index], np.delete(rows.seconds, index, axis=0).max(axis=0)
