"""The exact solver against brute force, by dynamic programming and by mixed-integer programming."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from aiq.knapsack import InfeasibleError, best_schemes, make, minimise, solve


def instance(seed: int, *, resources: int = 1, pairs: int = 0) -> tuple[Any, Any, Any, list[tuple[Any, ...]]]:
    draw = np.random.default_rng(seed)
    units, options = int(draw.integers(2, 6)), int(draw.integers(2, 5))
    costs = draw.integers(0, 20, (resources, units, options)).astype(float)
    losses = draw.integers(0, 20, (units, options)).astype(float)
    budgets = costs.mean(2).sum(1) * draw.uniform(0.8, 1.2)
    terms = []
    for _ in range(pairs):
        u, v = (int(i) for i in draw.choice(units, 2, replace=False))
        terms.append((u, int(draw.integers(options)), v, int(draw.integers(options)), float(draw.integers(-5, 9))))
    return costs, losses, budgets, terms


def brute_force(costs: Any, losses: Any, budgets: Any, terms: list[tuple[Any, ...]]) -> list[tuple[float, Any, Any]]:
    problem = make(costs, losses, budgets, pairs=terms)
    everything = itertools.product(range(losses.shape[1]), repeat=len(losses))
    priced = [(problem.totals(choice), choice) for choice in everything]
    return sorted((loss, choice, tuple(cost)) for (cost, loss), choice in priced if (cost <= budgets + 1e-9).all())


@pytest.mark.parametrize("seed", range(25))
def test_one_resource_by_both_methods(seed: int) -> None:
    costs, losses, budgets, _ = instance(seed)
    within = brute_force(costs, losses, budgets, [])
    for method in ("dp", "milp"):
        if not within:
            with pytest.raises(InfeasibleError):
                solve(costs, losses, budgets, method=method)
            continue
        found = solve(costs, losses, budgets, method=method)
        assert found.loss == within[0][0]
        assert found.gap == 0
        assert found.cost <= budgets[0] + 1e-9


@pytest.mark.parametrize("seed", range(25))
def test_several_resources_and_pair_terms(seed: int) -> None:
    costs, losses, budgets, terms = instance(seed, resources=1 + seed % 3, pairs=seed % 7)
    within = brute_force(costs, losses, budgets, terms)
    if not within:
        with pytest.raises(InfeasibleError):
            solve(costs, losses, budgets, pairs=terms)
        return
    found = solve(costs, losses, budgets, pairs=terms)
    assert found.loss == pytest.approx(within[0][0])
    assert found.bound <= within[0][0] + 1e-6


@pytest.mark.parametrize("seed", range(12))
def test_least_cost_under_a_loss(seed: int) -> None:
    costs, losses, _, _ = instance(seed)
    most = float(losses.mean(1).sum())
    everything = brute_force(costs, losses, np.array([np.inf]), [])
    for method in ("dp", "milp"):
        found = solve(costs, losses, max_loss=most, method=method)
        assert found.cost == min(cost[0] for loss, _, cost in everything if loss <= most + 1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_the_best_few_are_the_best_few(seed: int) -> None:
    costs, losses, budgets, _ = instance(seed)
    within = brute_force(costs, losses, budgets, [])
    found = best_schemes(costs, losses, budgets, count=4)
    assert [solution.loss for solution in found] == [loss for loss, _, _ in within[:4]]
    assert len({tuple(solution.choice) for solution in found}) == len(found)
    for one, other in itertools.combinations(best_schemes(costs, losses, budgets, count=3, distance=2), 2):
        assert sum(a != b for a, b in zip(one.choice, other.choice, strict=True)) >= 2


@pytest.mark.parametrize("seed", range(12))
def test_a_concave_curve_of_the_cost(seed: int) -> None:
    costs, losses, _, terms = instance(seed, pairs=seed % 4)
    weight = 0.3

    def curve(cost: float) -> float:
        return -100.0 / (10.0 + cost)

    found = minimise(make(costs, losses, pairs=terms), curve, weight)
    everything = brute_force(costs, losses, np.array([np.inf]), terms)
    assert curve(found.cost) + weight * found.loss == pytest.approx(
        min(curve(cost[0]) + weight * loss for loss, _, cost in everything)
    )
