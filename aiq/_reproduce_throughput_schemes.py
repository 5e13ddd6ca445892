"""Experiment 3, what is deployed: uniform schemes, greedy's layers, as many random ones, and the latency plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

import hardware_specs
from aiq import _paper
from aiq._driver import Run
from aiq._reproduce_lab import Lab, ThroughputSettings
from aiq.objective import Objective
from aiq.problem import Constraints
from aiq.space import Choice, Space, make_space
from hardware_specs import HardwareSpec
from roofline import CostTable, LayerPrecision, OpGraph, Scheme
from roofline.estimate import resolve

FP32, BF16, INT8, GREEDY, FIRST, PLAN, RANDOM = "fp32", "bf16", "int8", "greedy", "first", "plan", "random"
UNIFORM = (FP32, BF16, INT8)
PAPER_LAYERS = _paper.THROUGHPUT[1].eight
DRAWS = 3
_W8A8, _HALF = LayerPrecision.parse("w8a8"), LayerPrecision.parse("bf16")
_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Pick:
    """One scheme to deploy.

    Attributes:
        config: What it is called.
        family: Where it comes from.
        scheme: Formats of the layers.
    """

    config: str
    family: str
    scheme: Scheme


@dataclass(frozen=True, eq=False)
class Chosen:
    """Schemes that are the same for every runtime.

    Attributes:
        picks: FP32, uniform INT8, greedy's, and random ones.
        greedy: The greedy search.
        path: Its choices one after the other, the float model first.
        taken: INT8 layers of the last of them.
        count: INT8 layers of each random scheme; 0 where there are none.
    """

    picks: tuple[Pick, ...]
    greedy: Run = field(repr=False)
    path: tuple[Choice, ...] = field(repr=False)
    taken: int
    count: int

    @property
    def space(self) -> Space:
        """What greedy chose from."""
        return self.greedy.problem.space


def choose(lab: Lab, settings: ThroughputSettings) -> Chosen:
    """Run the paper's greedy search on AI over FP32 and INT8, and draw as many random layers as it is compared at.

    AI is counted as the paper counts it: convolutions and linear layers, batch 1. Where greedy takes more layers than
    the paper's, its first so many are a scheme of their own, and random schemes have that many.

    Raises:
        OracleError: The float model or a scheme cannot be measured.
        CacheError: The cache cannot be read or written.
        KeyboardInterrupt: Ctrl-C.
    """
    machine = hardware_specs.load(_paper.MACHINE)  # AI does not depend on it
    space = make_space(CostTable(lab.graph, machine, [LayerPrecision(), _W8A8], batch=1, traffic="paper"))
    greedy = lab.find(
        "greedy",
        space,
        f"{lab.network}, AI",
        objective=Objective("ai"),
        constraints=Constraints(max_loss=settings.max_loss),
    )
    path = greedy.findings.path if greedy.findings else (space.start,)
    narrow = [formats_of(lab.graph, space.scheme(choice)).get("int8", 0) for choice in path]
    taken = narrow[-1]
    count = min(taken, PAPER_LAYERS)
    picks = [
        Pick("FP32", FP32, Scheme(name="FP32")),
        Pick("INT8", INT8, Scheme(_W8A8, name="INT8")),
        Pick("AIQ greedy on AI", GREEDY, space.scheme(path[-1])),
    ]
    if taken > count:
        picks.append(Pick(f"AIQ greedy on AI, first {count} layers", FIRST, space.scheme(path[narrow.index(count)])))
    random = random_choices(space, count, settings.seed)
    picks += [
        Pick(f"{count} random layers, draw {number}", RANDOM, space.scheme(choice))
        for number, choice in enumerate(random, 1)
    ]
    return Chosen(tuple(picks), greedy, path, taken, count if random else 0)


def random_choices(space: Space, count: int, seed: int) -> list[Choice]:
    """Draw distinct choices with so many INT8 layers; none where that leaves nothing to draw.

    Layers whose weights the model keeps are left alone.
    """
    table = space.table
    units = [
        u
        for u, unit in enumerate(space.units)
        if all(table.layer_options(table.layers[index])[unit.options[-1]].weights for index in unit.layers)
    ]
    if not 0 < count < len(units):
        return []
    generator = np.random.default_rng(seed)
    found: dict[Choice, None] = {}
    for _ in range(_ATTEMPTS):
        drawn = set(generator.choice(units, count, replace=False).tolist())
        found[tuple(unit.options[-1 if u in drawn else 0] for u, unit in enumerate(space.units))] = None
        if len(found) == DRAWS:
            break
    return list(found)


def latency_plan(lab: Lab, machine: HardwareSpec, runtime: str, settings: ThroughputSettings, *, half: bool) -> Run:
    """Search the scheme of least predicted time on a runtime, changes of format included, within the loss.

    Args:
        lab: The network.
        machine: Calibrated for the runtime.
        runtime: Its name.
        settings: Batch and largest loss.
        half: Whether layers may take BF16.

    Raises:
        AIQError: The machine has no models of the runtime, or a scheme cannot be measured.
        KeyboardInterrupt: Ctrl-C.
    """
    options = [LayerPrecision(), *([_HALF] if half else []), _W8A8]
    table = CostTable(lab.graph, machine, options, batch=settings.batch, runtime=runtime)
    return lab.find(
        "exact:frontier=false",
        make_space(table),
        f"{lab.network}, latency on {runtime}",
        objective=Objective("latency"),
        constraints=Constraints(max_loss=settings.max_loss),
    )


def planned(run: Run) -> Pick:
    """Return the scheme that a latency plan chose; the float model where none is better."""
    space = run.problem.space
    return Pick("AIQ latency plan", PLAN, space.scheme(run.best or space.start))


def formats_of(graph: OpGraph, scheme: Scheme) -> Mapping[str, int]:
    """Return how many layers are to compute in which format."""
    return dict(Counter(_computes(formats) for formats in resolve(graph, scheme).values()))


def _computes(formats: LayerPrecision) -> str:
    if formats.weights is not None:
        return formats.weights.name
    activations = formats.activations
    return activations.name if activations is not None and activations.is_float else "fp32"
