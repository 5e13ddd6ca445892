"""``aiq reproduce``: the paper's experiments anew, each figure and table beside the paper's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from aiq._reproduce_heuristics import heuristics
from aiq._reproduce_lab import ReproduceSettings, Tell
from aiq._reproduce_layers import case_study
from aiq._reproduce_page import Outcome, Reproduction, prepared, write
from aiq._reproduce_search import SEARCHES, search_experiment
from aiq._reproduce_throughput import throughput
from aiq.cache import EvaluationStore, open_store
from hardware_specs.errors import unknown_name

Experiment = Callable[[ReproduceSettings, EvaluationStore, Tell], Outcome]

EXPERIMENTS: dict[str, Experiment] = {
    "case-study": case_study,
    **{name: search_experiment(name) for name in SEARCHES},
    "throughput": throughput,
    "heuristics": heuristics,
}


def reproduce(experiment: str, settings: ReproduceSettings, *, tell: Tell = lambda line: None) -> Reproduction:
    """Run an experiment of the paper and write its page, tables and figures.

    Every evaluation goes through the cache: to go on after an interruption is to call it again. The throughput
    experiment, once it has timed its networks, returns what it has when it is interrupted.

    Args:
        experiment: A key of ``EXPERIMENTS``.
        settings: Where data, weights, cache and output are.
        tell: Called with a line after each evaluation.

    Raises:
        UnknownNameError: No such experiment.
        InputError: No trained weights, or a folder that cannot be written.
        AIQError: Data, weights, oracle or cache cannot be used.
        KeyboardInterrupt: Ctrl-C.
    """
    if experiment not in EXPERIMENTS:
        raise unknown_name("experiment", experiment, EXPERIMENTS, "choose one of these")
    folder = prepared(settings.out or Path("out/reproduce") / experiment)
    with open_store(settings.cache) as store:
        found = EXPERIMENTS[experiment](replace(settings, out=folder), store, tell)
    return write(found, folder)
