"""The exact frontier against brute force over all K^L choices."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aiq.frontier import Frontier, hull_frontier, lower_hull, pareto_frontier
from roofline.errors import InputError

Table = NDArray[np.float64]


@st.composite
def instances(draw: st.DrawFn) -> tuple[Table, Table]:
    """Draw costs and losses, [L, K], as whole numbers: sums are exact, ties, zeros and duplicates are common."""
    layers, options = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    top = draw(st.sampled_from([2, 9, 1000]))
    cells = st.lists(st.integers(0, top), min_size=layers * options, max_size=layers * options)
    costs, losses = (np.array(draw(cells), dtype=float).reshape(layers, options) for _ in range(2))
    if options > 1 and draw(st.booleans()):
        costs[:, 1], losses[:, 1] = costs[:, 0], losses[:, 0]
    return costs, losses


def all_sums(costs: Table, losses: Table) -> list[tuple[float, float]]:
    rows = range(len(costs))
    choices = itertools.product(range(costs.shape[1]), repeat=len(costs))
    return [(sum(costs[r, k] for r, k in zip(rows, c, strict=True)), sum(losses[rows, c])) for c in choices]


def non_dominated(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for cost, loss in sorted(set(points)):
        if not found or loss < found[-1][1]:
            found.append((cost, loss))
    return found


def is_vertex(points: list[tuple[float, float]], index: int) -> bool:
    """Tell whether every chord between a point before and one after passes strictly above."""
    c, loss = points[index]
    return all(
        (q[0] - p[0]) * (loss - p[1]) < (q[1] - p[1]) * (c - p[0]) for p in points[:index] for q in points[index + 1 :]
    )


def check_choices(frontier: Frontier, costs: Table, losses: Table) -> None:
    rows = np.arange(len(costs))
    for choice, cost, loss in zip(frontier.choices, frontier.costs, frontier.losses, strict=True):
        assert costs[rows, choice].sum() == pytest.approx(cost, rel=1e-12, abs=1e-12)
        assert losses[rows, choice].sum() == pytest.approx(loss, rel=1e-12, abs=1e-12)


@given(instances())
@settings(max_examples=100, deadline=None)
def test_same_points_as_brute_force(instance: tuple[Table, Table]) -> None:
    costs, losses = instance
    frontier = pareto_frontier(costs, losses)
    points = list(zip(frontier.costs.tolist(), frontier.losses.tolist(), strict=True))
    assert points == non_dominated(all_sums(costs, losses))
    assert frontier.loss_gap == 0.0
    assert frontier.choices.shape == (len(points), len(costs))
    check_choices(frontier, costs, losses)
    assert frontier.supported.tolist() == [is_vertex(points, i) for i in range(len(points))]


@given(instances(), st.integers(3, 8))
@settings(max_examples=100, deadline=None)
def test_trimming_stays_within_its_gap(instance: tuple[Table, Table], max_states: int) -> None:
    costs, losses = instance
    frontier = pareto_frontier(costs, losses, max_states=max_states)
    assert 1 <= len(frontier.costs) <= max_states
    assert frontier.loss_gap >= 0.0
    check_choices(frontier, costs, losses)
    for cost, loss in non_dominated(all_sums(costs, losses)):
        reached = frontier.losses[frontier.costs <= cost * (1 + 1e-9)]
        assert len(reached)
        assert reached.min() <= loss * (1 + frontier.loss_gap) * (1 + 1e-9)


@given(instances())
@settings(max_examples=100, deadline=None)
def test_the_hull_alone_is_the_supported_points(instance: tuple[Table, Table]) -> None:
    frontier, hull = pareto_frontier(*instance), hull_frontier(*instance)
    assert hull.costs.tolist() == frontier.costs[frontier.supported].tolist()
    assert hull.losses.tolist() == frontier.losses[frontier.supported].tolist()
    check_choices(hull, *instance)
    assert hull.supported.all()
    assert hull.loss_gap == 0.0


def test_losses_of_all_sizes_are_trimmed() -> None:
    rng = np.random.default_rng(0)
    costs, losses = rng.random((12, 4)), rng.random((12, 4))
    costs[:, 0], losses[:, 0] = 2.0, 1e-200
    costs[0, 1], losses[0, 1] = 0.0, 1e150
    with np.errstate(all="raise"):
        trimmed = pareto_frontier(costs, losses, max_states=20)
    assert len(trimmed.costs) <= 20
    assert 1.0 < trimmed.loss_gap < np.inf


def test_trimming_happens_and_is_admitted() -> None:
    rng = np.random.default_rng(0)
    costs, losses = rng.random((12, 4)), rng.random((12, 4))
    exact, trimmed = pareto_frontier(costs, losses), pareto_frontier(costs, losses, max_states=20)
    assert exact.loss_gap == 0.0
    assert len(exact.costs) > 20 >= len(trimmed.costs)
    assert 0.0 < trimmed.loss_gap < 10.0
    assert trimmed.costs[0] == pytest.approx(exact.costs[0], rel=1e-12)


@pytest.mark.parametrize("max_states", [1, 2])
def test_the_smallest_limits_hold_or_are_refused(max_states: int) -> None:
    rng = np.random.default_rng(0)
    with contextlib.suppress(InputError), np.errstate(all="raise"):
        frontier = pareto_frontier(rng.random((3, 3)), rng.random((3, 3)), max_states=max_states)
        assert 1 <= len(frontier.costs) <= max_states


def test_by_hand() -> None:
    costs = np.array([[8.0, 4.0], [6.0, 1.0]])
    losses = np.array([[0.0, 1.0], [0.0, 10.0]])
    frontier = pareto_frontier(costs, losses)
    assert frontier.costs.tolist() == [5, 9, 10, 14]
    assert frontier.losses.tolist() == [11, 10, 1, 0]
    assert frontier.choices.tolist() == [[1, 1], [0, 1], [1, 0], [0, 0]]
    # (9, 10) lies above the chord from (5, 11) to (10, 1): no λ picks it
    assert frontier.supported.tolist() == [True, False, True, True]


def test_points_on_an_edge_of_the_hull_are_no_vertices() -> None:
    costs, losses = np.array([[2.0, 1.0, 0.0]] * 2), np.array([[0.0, 1.0, 2.0]] * 2)
    frontier, hull = pareto_frontier(costs, losses), hull_frontier(costs, losses)
    assert frontier.costs.tolist() == [0, 1, 2, 3, 4]
    assert frontier.supported.tolist() == [True, False, False, False, True]
    assert hull.costs.tolist() == [0, 4]


def test_rounding_does_not_reorder_the_edges_of_a_layer() -> None:
    """Six points on a line but for rounding, by which one slope comes out steeper than the one before it."""
    rng = np.random.default_rng(3254)
    first, last, step, fall = rng.random(4)
    costs, losses = first + np.arange(6) * step * 0.1, last + (6 - np.arange(6)) * 0.1 * fall
    kept = lower_hull(costs, losses)
    slopes = np.diff(losses[kept]) / np.diff(costs[kept])
    assert (np.diff(slopes) < 0).any()
    flat = np.array([0.0, 1.0, 9, 9, 9, 9]), np.array([1e-3, 0.0, 9, 9, 9, 9])
    hull = hull_frontier(np.stack([costs, flat[0]]), np.stack([losses, flat[1]]))
    assert (hull.costs[0], hull.losses[-1]) == (costs[0], losses[-1])


@pytest.mark.parametrize(
    ("cost", "index"), [(4, 0), (5, 0), (8.99, 0), (9, 1), (9.5, 1), (10, 2), (13, 2), (14, 3), (1e9, 3)]
)
def test_best_for(cost: float, index: int) -> None:
    frontier = pareto_frontier(np.array([[8.0, 4.0], [6.0, 1.0]]), np.array([[0.0, 1.0], [0.0, 10.0]]))
    assert frontier.best_for(cost) == index


@pytest.mark.parametrize(
    ("loss", "index"), [(-1, 3), (0, 3), (0.5, 3), (1, 2), (9, 2), (10, 1), (10.5, 1), (11, 0), (1e9, 0)]
)
def test_cheapest_within(loss: float, index: int) -> None:
    frontier = pareto_frontier(np.array([[8.0, 4.0], [6.0, 1.0]]), np.array([[0.0, 1.0], [0.0, 10.0]]))
    assert frontier.cheapest_within(loss) == index


@given(instances())
@settings(max_examples=50, deadline=None)
def test_the_two_look_ups_invert_each_other(instance: tuple[Table, Table]) -> None:
    frontier = pareto_frontier(*instance)
    for index, (cost, loss) in enumerate(zip(frontier.costs, frontier.losses, strict=True)):
        assert frontier.best_for(cost) == index
        assert frontier.cheapest_within(loss) == index


@given(instances(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_layers_changes_no_point(instance: tuple[Table, Table], random: object) -> None:
    costs, losses = instance
    order = list(range(len(costs)))
    random.shuffle(order)  # type: ignore[attr-defined]
    first, second = pareto_frontier(costs, losses), pareto_frontier(costs[order], losses[order])
    assert first.costs.tolist() == second.costs.tolist()
    assert first.losses.tolist() == second.losses.tolist()


def test_one_option_for_every_layer_is_one_point() -> None:
    frontier = pareto_frontier(np.full((5, 1), 2.0), np.full((5, 1), 0.5))
    assert (frontier.costs.tolist(), frontier.losses.tolist(), frontier.supported.tolist()) == ([10], [2.5], [True])


def test_more_than_256_options_keep_their_indices() -> None:
    costs = np.arange(300.0, 0.0, -1.0)[None]
    losses = np.arange(300.0)[None]
    frontier = pareto_frontier(costs, losses)
    assert frontier.choices[:, 0].tolist() == list(range(299, -1, -1))
