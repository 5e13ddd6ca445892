"""The exact strategy against exhaustive search: on simulated networks held out from its design, and on a real one."""

from __future__ import annotations

import numpy as np
import pytest

import hardware_specs
from aiq import load_model
from aiq._driver import Run, drive
from aiq.objective import Objective
from aiq.oracle import OracleContext
from aiq.problem import Constraints
from aiq.registry import load_oracle, load_strategy
from aiq.space import make_space
from aiq.strategies._exact import Exact
from aiq.strategy import Findings
from roofline import CostTable, LayerPrecision
from tests.simulated import Simulated, follow, hypervolume

BUDGET = 60


@pytest.mark.parametrize(("seed", "lam"), [(201, 0.1), (205, 0.5), (206, 0.9)])
def test_sixty_evaluations_of_a_simulated_network(seed: int, lam: float) -> None:
    """Within one example's worth of the optimum of 19 683 schemes, and 98 % of the frontier's hypervolume."""
    truth = Simulated(seed)
    problem = truth.problem(Objective("ai", lam, "minmax"))
    measured, findings = follow(Exact(max_evaluations=BUDGET), problem, truth)
    assert len(measured) <= BUDGET
    losses = np.array([problem.loss(found) for found in measured.values()])
    best, optimum = problem.values(list(measured), losses).min(), problem.values(truth.every, truth.every_loss).min()
    assert best - optimum < (1 - lam) * 100 / truth.n
    merits, everywhere = problem.merits(list(measured)), problem.merits(truth.every)
    most = 1.1 * float(truth.every_loss[everywhere.argmax()]) + 100 / truth.n
    least = problem.ends[0]
    share = hypervolume(merits, losses, least, most) / hypervolume(everywhere, truth.every_loss, least, most)
    assert 0.98 <= share <= 1.0
    assert findings.predicted is not None
    assert findings.predicted.shape == (len(problem.space.units), len(problem.space.options))


def test_a_bound_on_the_loss_is_kept_and_used() -> None:
    truth = Simulated(203)
    problem = truth.problem(constraints=Constraints(max_loss=1.0))
    measured, findings = follow(Exact(max_evaluations=BUDGET), problem, truth)
    losses = np.array([problem.loss(found) for found in measured.values()])
    values = problem.values(list(measured), losses)
    optimum = problem.values(truth.every, truth.every_loss).min()
    assert optimum <= values.min() <= 1.03 * optimum
    assert losses[values.argmin()] <= 1.0
    assert isinstance(findings, Findings)


@pytest.fixture(scope="module")
def real() -> tuple[Run, Run]:
    """Five units of the digits network in three formats: the exact search, and all 243 schemes."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")
    model = load_model("digits_cnn")
    graph = model.trace()
    formats = [LayerPrecision.parse(text) for text in ("keep", "w4a8", "w2a4")]
    space = make_space(CostTable(graph, hardware_specs.load("t4"), formats, traffic="paper"), groups=5)
    oracle = load_oracle("accuracy", OracleContext(model, graph))
    return drive(load_strategy("exact"), space, oracle), drive(load_strategy("exhaustive"), space, oracle)


def test_a_real_network(real: tuple[Run, Run]) -> None:
    exact, everything = real
    assert len(everything.evaluations) == 243
    assert len(exact.evaluations) <= BUDGET
    assert exact.values.min() == everything.values.min()


def test_exact_and_exhaustive_measure_the_same(real: tuple[Run, Run]) -> None:
    exact, everything = real
    for choice, found in exact.evaluations.items():
        again = everything.evaluations[choice]
        assert found.outcomes is not None
        assert again.outcomes is not None
        assert np.array_equal(found.outcomes, again.outcomes)
        assert found.divergence == again.divergence
