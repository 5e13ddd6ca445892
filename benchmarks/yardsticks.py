"""Every search against the truth: all 19 683 schemes of digits_cnn (9 layers, 3 formats) measured once.

For λ = 0.1, 0.5, 0.9: evaluations, how far the best L found lies above the true optimum, and the share of the true
frontier's hypervolume (intensity over the baseline's, loss up to that of the scheme of highest intensity) that the
measured schemes cover. ``exact`` serves all λ; random and NSGA-II are medians over five seeds.

    python benchmarks/yardsticks.py [--formats keep,w4a8,w2a4] [--cache URL] [--split search]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

import hardware_specs
from aiq import load_model
from aiq._driver import Budget, Run, drive
from aiq.cache import CachedOracle, canonical_scheme, open_store
from aiq.frontier import non_dominated
from aiq.objective import Objective
from aiq.oracle import Evaluation, OracleContext
from aiq.problem import Problem
from aiq.registry import load_oracle, load_strategy
from aiq.space import Choice, make_space
from roofline import CostTable, LayerPrecision, Scheme

LAMBDAS = (0.1, 0.5, 0.9)
BUDGET = 60
SEEDS = range(5)


def strategies(seed: int) -> dict[str, str]:
    return {
        "exact": f"exact:max_evaluations={BUDGET}",
        "greedy": "greedy",
        "coordinate": "coordinate",
        "random": f"random:count={BUDGET - 1},seed={seed}",
        "nsga2": f"nsga2:evaluations={BUDGET},seed={seed}",
    }


def hypervolume(merits: NDArray[np.float64], losses: NDArray[np.float64], corner: tuple[float, float]) -> float:
    """Area that points (more merit, less loss) dominate up to the corner (least merit, most loss)."""
    inside = (merits > corner[0]) & (losses < corner[1])
    order = non_dominated(-merits[inside], losses[inside])
    area, before = 0.0, corner[1]
    for merit, loss in zip(merits[inside][order], losses[inside][order], strict=True):
        area += (merit - corner[0]) * (before - loss)
        before = loss
    return area


class Replay:
    """The truth as an oracle: what was measured once is looked up."""

    def __init__(self, oracle: CachedOracle, truth: Mapping[str, Evaluation]) -> None:
        self.metric, self.fingerprint, self.truth = oracle.metric, oracle.fingerprint, truth

    def evaluate(self, scheme: Scheme) -> Evaluation:
        return self.truth[scheme.digest()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", default="keep,w4a8,w2a4")
    parser.add_argument("--cache", default="sqlite:///out/yardsticks.sqlite3")
    parser.add_argument("--split", default="search")
    options = parser.parse_args()
    Path("out").mkdir(exist_ok=True)
    model = load_model("digits_cnn")
    graph = model.trace()
    formats = [LayerPrecision.parse(text) for text in options.formats.split(",")]
    space = make_space(CostTable(graph, hardware_specs.load("t4"), formats, traffic="paper"))
    context = OracleContext(model, graph, "digits", options.split)
    oracle = CachedOracle(
        load_oracle("accuracy", context), open_store(options.cache), lambda scheme: canonical_scheme(graph, scheme)
    )
    started = time.perf_counter()
    everything = drive(load_strategy("exhaustive"), space, oracle)
    print(
        f"{len(everything.evaluations):,} schemes of {len(space.units)} units in {time.perf_counter() - started:.0f} s "
        f"({len(everything.cached):,} from the cache), arithmetic of {everything.total_work:,.0f} whole evaluations; "
        f"n = {everything.problem.baseline.n} images of {options.split}; formats {options.formats}"
    )
    replay = Replay(oracle, {space.scheme(c).digest(): e for c, e in everything.evaluations.items()})
    print(f"{'':12}{'lambda':>8}{'evaluations':>13}{'L - optimum':>13}{'in images':>11}{'hypervolume':>13}")
    for name in strategies(0):
        for lam in LAMBDAS:
            seeds = SEEDS if name in ("random", "nsga2") else SEEDS[:1]
            goal = Objective("ai", lam, "minmax")
            runs = [
                drive(load_strategy(strategies(s)[name]), space, replay, objective=goal, budget=Budget()) for s in seeds
            ]
            judged = [judge(run, everything, goal) for run in runs]
            count, excess, images, share = (median(column) for column in zip(*judged, strict=True))
            print(f"{name:12}{lam:8.1f}{count:13.0f}{excess:13.4f}{images:11.2f}{100 * share:11.2f} %")


def judge(run: Run, everything: Run, goal: Objective) -> tuple[float, float, float, float]:
    """Return evaluations, excess of L over the true optimum, the same in images, and share of the hypervolume."""
    problem = Problem(
        everything.problem.space, goal, run.problem.constraints, run.problem.metric, everything.problem.baseline
    )
    choices: list[Choice] = list(everything.evaluations)
    losses, merits = everything.losses, problem.merits(choices)
    excess = float(run.values.min() - problem.values(choices, losses).min())
    corner = problem.ends[0], float(losses[merits.argmax()]) * 1.1 + 100 / problem.baseline.n
    found = hypervolume(problem.merits(list(run.evaluations)), run.losses, corner)
    image = (1 - goal.lam) * 100 / problem.baseline.n
    return len(run.evaluations), excess, excess / image, found / hypervolume(merits, losses, corner)


if __name__ == "__main__":
    main()
