"""``aiq search``: find the best scheme with few evaluations, and say how sure one can be of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from aiq._driver import INTERRUPTED, Budget, Progress, Run, drive, most_evaluations, uniform_choices
from aiq._guard import guarded
from aiq._model import Model
from aiq._plan import DEFAULT_FORMATS, make_options
from aiq._probe import Probe, probe
from aiq._search_points import frontier_choices, single_flips
from aiq._search_result import Reported, SearchResult
from aiq.cache import CachedOracle, CacheWriteError, EvaluationStore, canonical_scheme, open_store
from aiq.data import check_disjoint, load
from aiq.knapsack import InfeasibleError
from aiq.objective import Objective
from aiq.oracle import Evaluation, Oracle, OracleContext, OracleError, OracleFactory
from aiq.problem import Constraints, Problem
from aiq.racing import LossLimit
from aiq.registry import load_oracle, load_strategy
from aiq.space import Choice, Space, make_space
from aiq.strategy import Strategy
from aiq.why import Why, explain
from hardware_specs import HardwareSpec
from roofline import CostTable, OpGraph, Scheme, estimate
from roofline.errors import AIQError, InputError
from roofline.units import number, si

REPORTED_POINTS = 8


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What to search for, where, and how.

    Attributes:
        formats: Formats that a layer may take, as in a scheme; ``keep`` is always one.
        batch: Samples at once; by default the example's.
        traffic: ``paper``, ``unfused`` or ``fused``.
        objective: What is minimised.
        constraints: What must hold.
        strategy: What decides, or its name with settings: ``exact``, ``random:count=200``.
        oracle: What measures, or its name with an argument; it is built from an ``OracleContext``.
        data: Data set of the oracle; by default the model's own.
        samples: Use only the first so many samples of the search split.
        report_split: Split that the baseline and the best are measured on afterwards; ``None`` for none.
        ties: Groups of patterns of layers that must agree.
        keep: Patterns of layers that are left alone.
        groups: Join neighbouring layers into at most so many units.
        budget: What may be spent.
        cache: Where evaluations are kept (see :func:`aiq.cache.open_store`); by default the user's own cache.
        timeout_s: Longest that one evaluation may take, seconds.
        race: Whether evaluations on the search split stop early where a scheme surely loses more than the constraints
            allow; these must bound the loss, and examples come in random order.
        frontier: Whether to measure points of the frontier, at most eight, and measured uniform schemes on the report
            split too.
        seed: Seeds what the oracle draws.
    """

    formats: Sequence[str] = DEFAULT_FORMATS
    batch: int | None = None
    traffic: str = "fused"
    objective: Objective = field(default_factory=Objective)
    constraints: Constraints = field(default_factory=Constraints)
    strategy: str | Strategy = "exact"
    oracle: str | OracleFactory = "accuracy"
    data: str | None = None
    samples: int | None = None
    report_split: str | None = "report"
    ties: Sequence[Sequence[str]] = ()
    keep: Sequence[str] = ()
    groups: int | None = None
    budget: Budget = field(default_factory=Budget)
    cache: str | None = None
    timeout_s: float | None = None
    race: bool = False
    frontier: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 1:
            raise InputError(f"samples must be a whole number of at least 1, got {self.samples}. Next: choose one.")
        if self.timeout_s is not None and not 0 < self.timeout_s < math.inf:
            raise InputError(
                f"the timeout must be a number of seconds above 0, got {self.timeout_s}. Next: choose one."
            )
        if self.race and not self.constraints.bounds_loss:
            raise InputError(
                "a race stops schemes that lose more accuracy than is allowed, and no limit is set. "
                "Next: give --max-drop, or leave out --race."
            )

    @property
    def oracle_name(self) -> str:
        """Name of the oracle."""
        made = self.oracle
        return made if isinstance(made, str) else str(getattr(made, "__name__", type(made).__name__))


@dataclass(frozen=True, eq=False)
class DryRun:
    """What a search would take, without evaluating anything.

    Attributes:
        model: The model's name.
        strategy: Name of the strategy.
        schemes: Distinct schemes in the space.
        evaluations: Most evaluations, the baseline included, apart from those on the report split.
        cached: How many of them, from the first on, the cache answers before one is missing.
        samples: Samples of one evaluation, as the oracle's fingerprint says; ``None`` where it does not.
        probe: Timing of the float model, or the reason why there is none.
    """

    model: str
    strategy: str
    schemes: int
    evaluations: int
    cached: int
    samples: int | None
    probe: Probe | str

    @property
    def seconds(self) -> float | None:
        """Seconds of the evaluations that the cache does not answer, at the float model's speed and without reuse."""
        if not isinstance(self.probe, Probe) or self.samples is None:
            return None
        return (self.evaluations - self.cached) * self.samples / self.probe.samples_per_s


@dataclass(frozen=True, eq=False)
class _Setup:
    model: Model
    hardware: HardwareSpec
    settings: SearchSettings
    strategy: Strategy
    graph: OpGraph
    space: Space

    def searching(self, store: EvaluationStore) -> CachedOracle:
        """Return the oracle of the search split."""
        s = self.settings
        return self._oracle("search", s.samples, store, s.constraints.loss_limit if s.race else None)

    def reporting(self, store: EvaluationStore) -> CachedOracle | None:
        """Return the oracle of the report split, where there is one."""
        split = self.settings.report_split
        return self._oracle(split, None, store) if split else None

    def _oracle(
        self, split: str, limit: int | None, store: EvaluationStore, race: LossLimit | None = None
    ) -> CachedOracle:
        s = self.settings
        context = OracleContext(
            self.model, self.graph, s.data, split, limit, timeout_s=s.timeout_s, seed=s.seed, race=race
        )
        made: Oracle = load_oracle(s.oracle, context) if isinstance(s.oracle, str) else s.oracle("", context)
        if race is not None and not getattr(made, "races", False):
            raise InputError(
                f"the oracle {s.oracle_name} evaluates schemes on all examples and cannot race. "
                "Next: choose --oracle accuracy, or leave out --race."
            )
        return CachedOracle(guarded(made, s.timeout_s), store, partial(canonical_scheme, self.graph))


def search(
    model: Model,
    hardware: HardwareSpec,
    settings: SearchSettings | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> SearchResult:
    """Find the scheme with the least objective value that meets the constraints.

    The strategy's evaluations run on the search split and are cached; afterwards the baseline, the best scheme and, if
    asked for, points of the frontier are measured on the report split, which no choice was made by. Whatever stops a
    search (budget, Ctrl-C, an oracle or a disk that fails), what was measured is kept and returned; to resume is to
    call it again.

    Args:
        model: From :func:`aiq.load_model`.
        hardware: The machine.
        settings: What to search for, where and how.
        progress: Called after every evaluation of the search.

    Raises:
        InfeasibleError: No scheme of the space can meet the constraints.
        OracleError: The float model cannot be evaluated.
        AIQError: Names, files or values that are refused, before any evaluation.
    """
    started = time.perf_counter()
    setup = _prepare(model, hardware, settings or SearchSettings())
    s = setup.settings
    with open_store(s.cache) as store:
        oracle, reporter = setup.searching(store), setup.reporting(store)
        shared = _shared_examples(s, oracle.fingerprint)
        run = drive(
            setup.strategy,
            setup.space,
            oracle,
            objective=s.objective,
            constraints=s.constraints,
            budget=s.budget,
            progress=progress,
        )
        if isinstance(run.error, InputError | InfeasibleError) and len(run.evaluations) == 1:
            raise run.error
        fingerprint = oracle.fingerprint
        del oracle
        reported = None
        if reporter is not None and s.report_split and _worth_reporting(run):
            reported = _report(setup, run, reporter, s.report_split)
    return SearchResult(
        model.name,
        hardware,
        s,
        setup.strategy.name,
        run,
        estimate(setup.graph, hardware, batch=s.batch, traffic=s.traffic),
        fingerprint,
        reported,
        _reasons(run),
        shared,
        time.perf_counter() - started,
    )


def dry_run(
    model: Model, hardware: HardwareSpec, settings: SearchSettings | None = None, *, probe_seconds: float = 1.0
) -> DryRun:
    """Say what a search would take: nothing is evaluated, the float model is timed on random inputs.

    Raises:
        AIQError: As :func:`search` does before its first evaluation.
    """
    setup = _prepare(model, hardware, settings or SearchSettings())
    s = setup.settings
    with open_store(s.cache) as store:
        oracle = setup.searching(store)
        run = _replay(setup, oracle)
    placeholder = Evaluation(1.0)
    problem = run.problem if run else Problem(setup.space, s.objective, s.constraints, oracle.metric, placeholder)
    setup.strategy.steps(problem).close()  # a strategy refuses a problem here
    return DryRun(
        model.name,
        setup.strategy.name,
        setup.space.size,
        most_evaluations(setup.strategy, problem, s.budget),
        len(run.evaluations) if run else 0,
        _samples(oracle.fingerprint),
        probe(model, seconds=probe_seconds) if probe_seconds else "switched off",
    )


def _samples(fingerprint: Mapping[str, str]) -> int | None:
    n = fingerprint.get("n", "")
    return int(n) if n.isdecimal() and int(n) else None


class _UnmeasuredError(OracleError):
    """A scheme that the cache does not hold."""


class _Recorded:
    """An oracle that only knows what is cached."""

    def __init__(self, oracle: CachedOracle) -> None:
        self.oracle, self.metric, self.fingerprint = oracle, oracle.metric, oracle.fingerprint

    def evaluate(self, scheme: Scheme) -> Evaluation:
        found = self.oracle.lookup(scheme)
        if found is None:
            raise _UnmeasuredError("not measured yet. Next: run the search.")
        return found


def _replay(setup: _Setup, oracle: CachedOracle) -> Run | None:
    s = setup.settings
    try:
        return drive(
            setup.strategy,
            setup.space,
            _Recorded(oracle),
            objective=s.objective,
            constraints=s.constraints,
            budget=s.budget,
        )
    except _UnmeasuredError:
        return None


def _prepare(model: Model, hardware: HardwareSpec, settings: SearchSettings) -> _Setup:
    chosen = settings.strategy
    strategy = load_strategy(chosen) if isinstance(chosen, str) else chosen
    options = make_options(settings.formats, hardware)
    graph = model.trace()
    table = CostTable(graph, hardware, options, batch=settings.batch, traffic=settings.traffic)
    if not table.flops:
        raise InputError(
            f"{settings.traffic} traffic prices no op of {graph.model}. Next: choose --traffic fused or unfused."
        )
    space = make_space(table, ties=settings.ties, keep=settings.keep, groups=settings.groups)
    _check_reachable(space, settings.constraints)
    return _Setup(model, hardware, settings, strategy, graph, space)


def _check_reachable(space: Space, limits: Constraints) -> None:
    """Refuse limits on cost that even the cheapest option of every unit breaks."""
    table = space.table
    weights, moved = _least(space, table.weight_bytes), _least(space, table.bytes)
    seconds = _least(space, table.latency_s[table.levels].min(axis=0))
    allowed = 1 + 1e-9
    if limits.max_weight_bytes is not None and weights > limits.max_weight_bytes * allowed:
        text = f"at most {si(limits.max_weight_bytes, 'B')} of weights: the least is {si(weights, 'B')}"
    elif limits.max_latency_s is not None and seconds > limits.max_latency_s * allowed:
        text = f"at most {si(limits.max_latency_s, 's')} a pass: the least is {si(seconds, 's')}"
    elif limits.min_intensity is not None and table.flops / moved * allowed < limits.min_intensity:
        text = f"at least {number(limits.min_intensity)} FLOP/byte: the most is {number(table.flops / moved)}"
    else:
        return
    raise InfeasibleError(f"no scheme of the space has {text}. Next: loosen the limit, or add formats.")


def _least(space: Space, costs: NDArray[np.float64]) -> float:
    """Return the sum over layers of the cheapest option of each unit, [L, K] in."""
    chosen = [index for unit in space.units for index in unit.layers]
    fixed = np.delete(costs[:, space.baseline], chosen).sum()
    return float(fixed + sum(costs[list(u.layers)][:, list(u.options)].sum(axis=0).min() for u in space.units))


def _shared_examples(settings: SearchSettings, fingerprint: Mapping[str, str]) -> tuple[str, ...]:
    """Refuse the user's own data where the report split is not held out; say what other splits share."""
    data = settings.data or ""
    if "data_digest" not in fingerprint or data.partition(":")[0] in ("", "digits", "cifar10"):
        return ()
    names = dict.fromkeys(("calibration", "search", settings.report_split))
    return check_disjoint([load(data, name) for name in names if name])


def _worth_reporting(run: Run) -> bool:
    """Whether there is data to report on, and nobody waits or has failed."""
    return run.problem.baseline.n > 0 and run.error is None and not run.interrupted


def _report(setup: _Setup, run: Run, oracle: CachedOracle, split: str) -> Reported:
    """Measure what will be quoted on the report split; stop in good order where that fails."""
    choices = [setup.space.start, *([run.best] if run.best else [])]
    if setup.settings.frontier:
        choices += _spread(list(frontier_choices(run)), REPORTED_POINTS)
        choices += [choice for choice in uniform_choices(setup.space).values() if choice in run.index]
    found: dict[Choice, Evaluation] = {}
    stopped = None
    try:
        for choice in dict.fromkeys(choices):
            found[choice] = oracle.evaluate(setup.space.scheme(choice))
    except KeyboardInterrupt:
        stopped = INTERRUPTED
    except CacheWriteError as error:
        found[choice], stopped = error.evaluation, str(error)
    except AIQError as error:
        stopped = str(error)
    return Reported(split, found, oracle.fingerprint, stopped)


def _spread(choices: Sequence[Choice], count: int) -> list[Choice]:
    """Return at most so many of a sequence at equal steps, its ends included."""
    positions = np.linspace(0, len(choices) - 1, min(count, len(choices))).round().astype(int)
    return [choices[position] for position in positions]


def _reasons(run: Run) -> tuple[Why, ...]:
    """Explain the best choice from the strategy's model of accuracy, or from what was measured one unit at a time."""
    predicted = run.findings.predicted if run.findings else None
    if predicted is None:
        predicted = _measured_flips(run)
    return () if run.best is None or predicted is None else explain(run.problem, predicted, run.best)


def _measured_flips(run: Run) -> NDArray[np.float64] | None:
    """Return measured losses of single units off the baseline, [U, K]; ``None`` unless all were measured."""
    space = run.problem.space
    flips = single_flips(space, space.start)
    if not all(choice in run.index for choice in flips):
        return None
    losses = np.full((len(space.units), len(space.options)), np.nan)
    losses[:, space.baseline] = 0.0
    for choice in flips:
        (unit,) = (u for u, k in enumerate(choice) if k != space.start[u])
        losses[unit, choice[unit]] = run.losses[run.index[choice]]
    return losses
