"""Where labels go: a greedy search over candidate places, in pixels; labels keep off each other, dots and lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]
Point = tuple[float, float]

TEXT, DOT, LINE = 1000.0, 80.0, 3.0
CROWDED = 2 * DOT
_OUTSIDE = 1e6
_DIRECTIONS = 36
_GAPS = (2.5, 6.0, 10.0, 15.0, 21.0, 28.0, 36.0, 46.0, 58.0, 72.0, 90.0, 115.0, 150.0, 190.0)
_NO_LEADER = 4.0
_LEADER = 20.0
_SWEEPS = 3
_RETRIES = 3


class Place(NamedTuple):
    """A place for a text: its centre, what it costs (:data:`TEXT` and above: it covers another text) and its leader."""

    centre: Point
    cost: float
    leader: tuple[Point, Point] | None = None


class Page:
    """The area of the axes in pixels, and everything on it that a label should not cover."""

    def __init__(self, left: float, bottom: float, right: float, top: float, *, point: float) -> None:
        self.frame = (left, bottom, right, top)
        self.point = point
        self._boxes: Boxes = np.empty((0, 4))
        self._weights: NDArray[np.float64] = np.empty(0)

    def add(self, boxes: Boxes, weight: float) -> None:
        """Put obstacles (rows of left, bottom, right, top) on the page."""
        self._boxes = np.vstack([self._boxes, boxes])
        self._weights = np.append(self._weights, np.full(len(boxes), weight))

    def add_line(self, start: Point, end: Point, *, weight: float = LINE) -> None:
        """Put a straight line on the page."""
        self.add(_chain(start, end, half=0.5 * self.point, step=2 * self.point), weight)

    def add_dots(self, dots: Iterable[tuple[float, float, float]], *, weight: float = DOT) -> None:
        """Put dots (x, y, radius) on the page; of those in one place only the largest counts."""
        largest: dict[tuple[int, int], tuple[float, float, float]] = {}
        for x, y, r in dots:
            key = (round(x), round(y))
            if key not in largest or largest[key][2] < r:
                largest[key] = (x, y, r)
        found = [(x - 0.85 * r, y - 0.85 * r, x + 0.85 * r, y + 0.85 * r) for x, y, r in largest.values()]
        self.add(np.array(found).reshape(-1, 4), weight)

    def cost(self, boxes: Boxes) -> float:
        """Sum the weights of what a text on ``boxes`` would cover; leaving the axes is worse than anything."""
        left, bottom, right, top = self.frame
        outside = boxes[:, 0].min() < left or boxes[:, 1].min() < bottom or boxes[:, 2].max() > right
        total = _OUTSIDE if outside or boxes[:, 3].max() > top else 0.0
        if not len(self._boxes):
            return total
        a, b = boxes[:, None, :], self._boxes[None, :, :]
        over = (a[..., 0] < b[..., 2]) & (b[..., 0] < a[..., 2]) & (a[..., 1] < b[..., 3]) & (b[..., 1] < a[..., 3])
        return total + float(self._weights[over.any(axis=0)].sum())

    def place(self, centres: Iterable[Point], size: Point, *, angle: float = 0.0) -> Place:
        """Take the cheapest of ``centres`` for a text (earlier ones on a tie) and reserve its room."""
        found = [Place(c, self.cost(self.text_boxes(c, size, angle)) + 0.5 * i) for i, c in enumerate(centres)]
        best = min(found, key=lambda p: p.cost)
        if best.cost < _OUTSIDE:
            self.add(self.text_boxes(best.centre, size, angle), TEXT)
        return best

    def place_labels(self, items: Sequence[tuple[Point, float, Point]]) -> list[Place]:
        """Find room for texts near their dots, given as (dot, radius, size), and keep the best of a few orders."""
        if not items:
            return []
        order = list(range(len(items)))
        across = sorted(order, key=lambda i: items[i][0])
        best = min(
            (self._sweep(items, o) for o in (order, across, across[::-1])), key=lambda found: sum(p.cost for p in found)
        )
        for _ in range(_RETRIES):
            # The text that found the worst place goes first next time.
            worst = max(order, key=[p.cost for p in best].__getitem__)
            order = [worst, *(i for i in order if i != worst)]
            found = self._sweep(items, order)
            if sum(p.cost for p in found) < sum(p.cost for p in best):
                best = found
        return best

    def _sweep(self, items: Sequence[tuple[Point, float, Point]], order: Sequence[int]) -> list[Place]:
        """Place texts in an order; later sweeps mend what earlier ones blocked."""
        boxes, weights = self._boxes, self._weights
        places: dict[int, Place] = {}
        for index in [*order] * _SWEEPS:
            self._boxes, self._weights = boxes, weights
            for other, place in places.items():
                if other != index:
                    self._reserve(place, items[other][2])
            places[index] = self._beside(*items[index])
        self._boxes, self._weights = boxes, weights
        return [places[i] for i in range(len(items))]

    def _reserve(self, place: Place, size: Point) -> None:
        if place.cost < TEXT:
            self.add(self.text_boxes(place.centre, size, 0.0), TEXT)
            if place.leader:
                self.add_line(*place.leader, weight=_LEADER)

    def _beside(self, dot: Point, radius: float, size: Point) -> Place:
        best = Place(dot, math.inf)
        for centre, gap in self._around(dot, radius, size):
            price = 0.5 * gap + (gap / 30) ** 2
            if price >= best.cost:
                break
            price += self.cost(self.text_boxes(centre, size, 0.0))
            if price >= best.cost:
                continue
            leader = _leader(dot, radius, centre, size)
            needed = math.dist(*leader) > _NO_LEADER * self.point
            if needed:
                price += self._leader_cost(leader)
            if price < best.cost:
                best = Place(centre, price, leader if needed else None)
        return best

    def text_boxes(self, centre: Point, size: Point, angle: float) -> Boxes:
        """Cover a text of ``size`` turned by ``angle`` degrees with boxes."""
        half_w, half_h = size[0] / 2 + 1.5 * self.point, size[1] / 2 + self.point
        if not angle:
            return np.array([[centre[0] - half_w, centre[1] - half_h, centre[0] + half_w, centre[1] + half_h]])
        dx = (half_w - half_h) * math.cos(math.radians(angle))
        dy = (half_w - half_h) * math.sin(math.radians(angle))
        ends = (centre[0] - dx, centre[1] - dy), (centre[0] + dx, centre[1] + dy)
        return _chain(*ends, half=half_h, step=half_h)

    def _around(self, dot: Point, radius: float, size: Point) -> Iterator[tuple[Point, float]]:
        for gap in _GAPS:
            reach = radius + gap * self.point
            for i in range(_DIRECTIONS):
                angle = 2 * math.pi * i / _DIRECTIONS
                dx, dy = math.cos(angle), math.sin(angle)
                # The text's nearest point lies on the circle: its centre is half a text further along each axis.
                centre = dot[0] + reach * dx + size[0] / 2 * _soft(dx), dot[1] + reach * dy + size[1] / 2 * _soft(dy)
                yield centre, gap

    def _leader_cost(self, leader: tuple[Point, Point]) -> float:
        thin = _chain(*leader, half=0.6 * self.point, step=2 * self.point)
        covered = self.cost(thin)
        return covered if covered >= TEXT else 0.5 * covered


def on_line(start: Point, end: Point, size: Point, *, above: float, fractions: Sequence[float]) -> list[Point]:
    """Return centres along a line for a text that lies on it, ``above`` pixels off it (below it where negative)."""
    length = math.dist(start, end)
    if not length:
        return [start]
    ux, uy = (end[0] - start[0]) / length, (end[1] - start[1]) / length
    room = length - size[0]
    shift = math.copysign(abs(above) + size[1] / 2, above)
    at = [size[0] / 2 + f * room for f in fractions]
    return [(start[0] + ux * t - uy * shift, start[1] + uy * t + ux * shift) for t in at]


def _soft(component: float) -> float:
    return max(-1.0, min(1.0, 1.5 * component))


def _leader(dot: Point, radius: float, centre: Point, size: Point) -> tuple[Point, Point]:
    """Return the shortest line from a dot's edge to the box of a text."""
    x = min(max(dot[0], centre[0] - size[0] / 2), centre[0] + size[0] / 2)
    y = min(max(dot[1], centre[1] - size[1] / 2), centre[1] + size[1] / 2)
    length = math.dist(dot, (x, y)) or 1.0
    edge = min(radius / length, 1.0)
    return (dot[0] + (x - dot[0]) * edge, dot[1] + (y - dot[1]) * edge), (x, y)


def _chain(start: Point, end: Point, *, half: float, step: float) -> Boxes:
    count = max(int(math.dist(start, end) / step), 1) + 1
    x, y = np.linspace(start[0], end[0], count), np.linspace(start[1], end[1], count)
    return np.column_stack([x - half, y - half, x + half, y + half])
