"""Why each unit has its format: what the next best one would cost, and the price at which loss and cost trade."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiq._cases import family_masks, option_mask, unit_costs
from aiq.frontier import hull_frontier
from aiq.knapsack import without_gaps
from aiq.problem import Problem
from aiq.space import Choice


@dataclass(frozen=True, slots=True)
class Why:
    """The reason for one unit's format, under an additive model of accuracy.

    Attributes:
        unit: The unit's name.
        option: Its format.
        next_option: The format that would worsen the objective least in its place, all other units as they are;
            ``None`` where no other is within the limits on cost or has a known loss.
        loss: Predicted loss of the format, in the metric's unit; ``None`` where unknown.
        cost: Its share of what the target minimises: bytes moved, seconds, or bytes of weights.
        margin: How much the objective would worsen by the next option; negative where the model thinks it better.
        shadow_price: Loss that a unit of cost is worth at this scheme, the same for all units: a change pays where it
            adds less loss for each unit of cost that it saves. ``None`` where loss counts for nothing.
    """

    unit: str
    option: str
    next_option: str | None
    loss: float | None
    cost: float
    margin: float | None
    shadow_price: float | None


def explain(problem: Problem, predicted: NDArray[np.float64], choice: Choice) -> tuple[Why, ...]:
    """Explain a choice unit by unit.

    With loss l(u, k) and cost c(u, k), changing unit u alone to option k worsens the objective by::

        L(choice with u → k) − L(choice)                        minimising L
        c(u, k) − c(u, choice) + (l(u, k) − l(u, choice)) / p   minimising cost under a bound on the loss

    p is the shadow price: λ / (1 − λ) · |∂gain / ∂cost| at the choice, or the loss for each unit of cost along the edge
    of the convex hull of (cost, loss) on which the bound lies. The second line is the reduced cost of linear
    programming: it charges an option that would break the bound for what other units would have to give back.

    Args:
        problem: What was searched.
        predicted: Loss of option k in unit u, [U, K], in the metric's unit; NaN where unknown.
        choice: The choice to explain.
    """
    space = problem.space
    costs = unit_costs(problem, choice)
    price = _shadow_price(problem, predicted, choice, costs)
    found = []
    for u, unit in enumerate(space.units):
        own = float(predicted[u, choice[u]])
        others = [k for k in unit.options if k != choice[u] and math.isfinite(predicted[u, k] - own)]
        changed = [choice, *((*choice[:u], k, *choice[u + 1 :]) for k in others)]
        margins = _margins(problem, changed, np.append(0.0, predicted[u, others] - own), price)
        best = int(np.argmin(margins)) if len(margins) else -1
        known = best >= 0 and math.isfinite(margins[best])
        found.append(
            Why(
                unit.name,
                space.options[choice[u]].label,
                space.options[others[best]].label if known else None,
                own if math.isfinite(own) else None,
                float(costs[u, choice[u]]),
                float(margins[best]) if known else None,
                price,
            )
        )
    return tuple(found)


def _margins(
    problem: Problem, choices: list[Choice], added: NDArray[np.float64], price: float | None
) -> NDArray[np.float64]:
    """Return by how much choices are worse than the first of them; infinite where they break a limit on cost."""
    if not problem.constraints.bounds_loss:
        values = problem.values(choices, added)
        return values[1:] - values[0]
    costs = problem.costs(choices)
    fine = problem.affordable(choices)
    return np.where(fine, costs - costs[0] + (added / price if price else 0.0), np.inf)[1:]


def _shadow_price(
    problem: Problem, predicted: NDArray[np.float64], choice: Choice, costs: NDArray[np.float64]
) -> float | None:
    if problem.constraints.bounds_loss:
        return _edge_price(problem, predicted, choice, costs)
    lam = problem.objective.lam
    if lam == 1:
        return None
    (cost,) = problem.costs([choice])
    (merit,) = problem.merits([choice])
    low, high = problem.ends
    slope = {"raw": 1.0, "relative": 1 / low, "minmax": 1 / (high - low) if high > low else 0.0}
    return float(lam / (1 - lam) * slope[problem.objective.normalise] * merit / cost)


def _edge_price(
    problem: Problem, predicted: NDArray[np.float64], choice: Choice, costs: NDArray[np.float64]
) -> float | None:
    """Return the fall of loss for each unit of cost on the hull's edge at the bound; ``None`` where all are within."""
    families = (mask for mask in family_masks(problem.space) if mask[np.arange(len(choice)), choice].all())
    allowed = np.isfinite(predicted) & next(families, option_mask(problem.space))
    if not allowed.any(axis=1).all():
        return None
    full_costs, full_losses, _ = without_gaps(costs, np.where(allowed, np.maximum(predicted, 0.0), 0.0), allowed)
    points = hull_frontier(full_costs, full_losses)
    cost, loss = points.costs, points.losses
    after = int((loss > problem.max_loss).sum())
    if after == 0 or after == len(loss):
        return None
    return float((loss[after - 1] - loss[after]) / (cost[after] - cost[after - 1]))
