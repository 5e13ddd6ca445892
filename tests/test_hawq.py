"""The published bit allocations of HAWQ-V3, from its own inputs, by both solvers."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from aiq.knapsack import solve
from tests.real_data import real

BITS = (8, 4)
BEATEN = "bit_config_resnet50_modelsize_0.25"
KINDS = ("modelsize", "bops", "latency")
NAMES = [
    f"bit_config_{net}_{kind}_{level}"
    for net in ("resnet18", "resnet50")
    for kind in KINDS
    for level in (0.75, 0.5, 0.25)
]


@cache
def published() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(real("hawq_v3_ilp_cases.json").read_text("utf-8"))
    return found


def by_layer(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return costs and losses at 8 and at 4 bits, [L, 2]."""
    _, _, net, kind, _ = name.split("_")
    table = {key: np.array(values) for key, values in published()["tables"][net].items()}
    costs = {
        "modelsize": (table["parameters"], table["parameters"] / 2),
        "bops": (table["bops"] / 16, table["bops"] / 64),
        "latency": (table["latency_int8"], table["latency_int4"]),
    }
    losses = [table["Hutchinson_trace"] * table[f"delta_weights_{bits}bit_square"] for bits in BITS]
    return np.stack(costs[kind], axis=1), np.stack(losses, axis=1)


def solved(name: str, method: str) -> tuple[list[int], float, float]:
    """Return the bits of each layer, the objective and the cost; tied layers are one unit."""
    costs, losses = by_layer(name)
    ties = published()["ties"][name.split("_")[2]]
    tied = {layer for tie in ties for layer in tie}
    units = [*ties, *([layer] for layer in range(len(costs)) if layer not in tied)]
    found = solve(
        np.stack([costs[unit].sum(axis=0) for unit in units]),
        np.stack([losses[unit].sum(axis=0) for unit in units]),
        published()["cases"][name]["budget"],
        method=method,  # type: ignore[arg-type]
    )
    assert found.gap == 0
    bits = {layer: BITS[k] for unit, k in zip(units, found.choice, strict=True) for layer in unit}
    return [bits[layer] for layer in range(len(costs))], found.loss, found.cost


def test_these_are_all_the_cases() -> None:
    assert sorted(published()["cases"]) == sorted(NAMES)


@pytest.mark.parametrize("method", ["dp", "milp"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != BEATEN])
def test_published_configurations_are_reproduced(name: str, method: str) -> None:
    case = published()["cases"][name]
    bits, loss, cost = solved(name, method)
    assert bits == case["published_bits"]
    assert loss == pytest.approx(case["published_objective"], rel=1e-12)
    assert cost == pytest.approx(case["published_cost"], rel=1e-12)


@pytest.mark.parametrize("method", ["dp", "milp"])
def test_one_published_configuration_is_beaten_within_its_budget(method: str) -> None:
    """The published list has layer 39 (counted from 0; a 1x1 convolution of 0.262 million weights) at 4 bits.

    At 8 bits it costs 0.131 more, and the budget has 0.186 left: the published list is not optimal even to a change of
    one layer. All other layers agree with the optimum. The authors' notebook states the same program, with the same
    budget and ties, and solves it by GLPK; what made the list differ from that program's optimum is not recorded.
    """
    case = published()["cases"][BEATEN]
    bits, loss, cost = solved(BEATEN, method)
    assert [i for i, (ours, theirs) in enumerate(zip(bits, case["published_bits"], strict=True)) if ours != theirs] == [
        39
    ]
    assert (bits[39], case["published_bits"][39]) == (8, 4)
    assert case["published_cost"] < cost <= case["budget"]
    assert loss == pytest.approx(0.0749494, abs=1e-7)
    assert case["published_objective"] == pytest.approx(0.0831103, abs=1e-7)
