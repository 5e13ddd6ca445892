"""A sweep: what each combination says, and its answers held against brute force."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from aiq._whatif import Sweep, Unit, whatif
from aiq._whatif_answers import answer, first_batch
from aiq._whatif_machines import Machine, find_machines
from aiq._whatif_words import sentences
from roofline import OpGraph, Scheme, estimate
from roofline.errors import AIQError, InputError
from roofline.frontends.transformers import from_config
from tests.calibrated import CALIBRATED
from tests.machines import machine, zoo_graph
from tests.test_grid import TINY

MIXTURE = {**TINY, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
SLOW_START = machine({"fp32": 1e12, "int8": 8e12}, (("dram", 1e11, 1e8),), overhead=2e-5, name="slow-start")
QUICK = machine({"fp32": 5e11, "int8": 1e12}, (("dram", 5e10, None),), overhead=1e-6, name="quick")
HALF_ONLY = machine({"bf16": 1e12}, (("dram", 1e11, 2e6), ("l2", 1e12, 1e6)), name="half-only")


@dataclass
class Fixed:
    """A network as it stands."""

    network: str = "digits_cnn"

    @property
    def name(self) -> str:
        return self.network

    def graph(self, batch: int | None = None, context: int | None = None) -> OpGraph:
        return zoo_graph(self.network)


class Language:
    """A configuration, whose graph depends on context and, of a mixture, on the batch."""

    name = "tiny"

    def __init__(self, config: dict[str, Any] = TINY, phase: str = "decode") -> None:
        self.config, self.phase = config, phase
        self.built: list[tuple[int | None, int | None]] = []

    def graph(self, batch: int | None = None, context: int | None = None) -> OpGraph:
        self.built.append((batch, context))
        return from_config(self.config, phase=self.phase, batch=batch or 1, context=context)


def own(*specs: Any, prices: dict[str, float] | None = None) -> list[Machine]:
    return [Machine(spec.name, spec, spec.name, (prices or {}).get(spec.name)) for spec in specs]


def schemes(*texts: str) -> list[Scheme]:
    return [Scheme.parse(text) for text in texts]


@cache
def small(traffic: str = "fused") -> Sweep:
    machines = own(SLOW_START, QUICK, HALF_ONLY, prices={"slow-start": 2.0, "quick": 0.5})
    return whatif(Fixed(), machines, schemes("keep", "w8a8", "bf16,*=bf16"), batches=(1, 8, 64, 512), traffic=traffic)


def test_every_combination_is_a_row_that_agrees_with_the_estimate() -> None:
    sweep = small()
    rows = list(sweep.rows())
    assert len(rows) == math.prod(sweep.shape) == 3 * 3 * 4
    specs = {m.label: m.spec for m in sweep.machines}
    kinds = set()
    for row in rows:
        kinds.add((row["runs"], row["reason"].partition(":")[0]))
        try:
            found = estimate(zoo_graph("digits_cnn"), specs[row["hardware"]], row["scheme"], batch=row["batch"])
        except AIQError as error:
            assert row["latency_s"] is row["throughput_per_s"] is row["bound"] is row["cost_per_million"] is None
            assert str(error).startswith(row["reason"])
            continue
        assert row["latency_s"] == pytest.approx(found.latency_s, rel=1e-12)
        assert row["throughput_per_s"] == pytest.approx(row["batch"] / found.latency_s, rel=1e-12)
        assert row["arithmetic_intensity"] == pytest.approx(found.arithmetic_intensity, rel=1e-12)
        assert row["memory_bytes"] == found.memory.total_bytes
        assert row["fits"] is found.fits
        assert row["runs"] is (found.fits is not False)
        shares = {name: seconds / found.latency_s for name, seconds in found.latency_by_bound.items()}
        assert row["bound_shares"] == pytest.approx(shares, rel=1e-9)
        assert row["bound"] == max(shares, key=shares.__getitem__)
        if row["hardware"] == "quick":
            assert row["cost_per_million"] == pytest.approx(0.5 / 3600 / row["throughput_per_s"] * 1e6)
    assert kinds == {
        (True, ""),
        (False, "does not fit"),
        (False, "half-only states no fp32 ceiling and none that could stand in (no wider format)"),
    }


def test_what_does_not_fit_says_by_how_much() -> None:
    row = next(row for row in small().rows() if row["fits"] is False and row["latency_s"])
    assert row["hardware"] == "half-only"
    assert row["reason"] == f"does not fit: needs {row['memory_bytes'] / 1e6:.2f} MB of 2.00 MB"


def test_graphs_are_built_once_for_each_context() -> None:
    source = Language()
    sweep = whatif(source, own(QUICK), schemes("bf16", "w8"), batches=(1, 2, 4), contexts=(20, 10))
    assert sweep.contexts == (10, 20)
    assert source.built == [(None, 10), (None, 20)]
    for row in sweep.rows():
        graph = from_config(TINY, phase="decode", batch=1, context=row["context"])
        found = estimate(graph, QUICK, row["scheme"], batch=row["batch"])
        assert row["latency_s"] == pytest.approx(found.latency_s, rel=1e-12)
        assert row["kv_bytes"] == found.memory.kv_bytes > 0


def test_a_mixture_has_a_graph_for_each_batch() -> None:
    source = Language(MIXTURE)
    sweep = whatif(source, own(QUICK), schemes("bf16"), batches=(1, 2, 16), contexts=(10,))
    assert {batch for batch, _ in source.built} == {None, 2, 16}
    for row in sweep.rows():
        found = estimate(from_config(MIXTURE, phase="decode", batch=row["batch"], context=10), QUICK, "bf16")
        assert row["latency_s"] == pytest.approx(found.latency_s, rel=1e-12)
        assert row["bytes"] == found.bytes
    turn = answer(sweep, most_batch=64).turns[0]
    assert turn.limit == 64


@pytest.mark.parametrize(("unit", "made"), [(Unit(), 4), (Unit("tokens"), 4), (Unit("tokens", per_context=True), 40)])
def test_throughput_counts_samples_or_tokens(unit: Unit, made: int) -> None:
    machines = own(QUICK, prices={"quick": 3.6})
    (row,) = whatif(Language(), machines, schemes("bf16"), batches=(4,), contexts=(10,), unit=unit).rows()
    assert row["throughput_per_s"] == pytest.approx(made / row["latency_s"])
    assert row["cost_per_million"] == pytest.approx(3.6 / 3600 * row["latency_s"] / made * 1e6)


def test_the_defaults_are_the_models_own() -> None:
    (row,) = whatif(Fixed(), own(QUICK)).rows()
    assert (row["scheme"], row["context"], row["batch"]) == ("as traced", None, 1)


def test_too_many_combinations_are_refused() -> None:
    with pytest.raises(InputError) as refused:
        whatif(Fixed(), own(QUICK) * 100, schemes("w8", "w4"), batches=range(1, 1002))
    assert str(refused.value) == (
        "100 machines x 2 schemes x 1 contexts x 1001 batches are 200200 combinations, at most 200000 are priced. "
        "Next: sweep over fewer at once."
    )


def test_a_sweep_needs_a_machine_and_an_op() -> None:
    with pytest.raises(InputError, match=r"no machine to price the model on\. Next: "):
        whatif(Fixed(), [])


@pytest.mark.parametrize("truth", [1, 2, 3, 29, 64, 65, 99, 100])
@pytest.mark.parametrize("fan", [1, 2, 32])
def test_the_first_batch_is_found_exactly(truth: int, fan: int) -> None:
    asked: list[int] = []

    def holds(batches: Any) -> np.ndarray:
        asked.extend(batches)
        assert list(batches) == sorted(set(batches))
        return np.array(batches) >= truth

    assert first_batch(holds, 1, 100, fan=fan) == truth
    assert first_batch(lambda b: np.array(b) > 1000, 1, 100, fan=fan) is None
    assert min(asked) >= 1
    assert max(asked) <= 100


def test_the_best_is_the_best_row() -> None:
    rows = [row for row in small().rows() if row["runs"]]
    keys = {"throughput": lambda r: -r["throughput_per_s"], "latency": lambda r: r["latency_s"]}
    for best in answer(small()).best:
        fitting = [row for row in rows if row["scheme"] == best.scheme]
        if best.goal == "cost":
            row = min((r for r in fitting if r["cost_per_million"]), key=lambda r: r["cost_per_million"])
            assert best.value == row["cost_per_million"]
        else:
            row = min(fitting, key=keys[best.goal])
        assert (best.machine, best.batch) == (row["hardware"], row["batch"])
    assert {best.goal for best in answer(small()).best} == {"throughput", "latency", "cost"}


def test_turns_are_where_every_batch_says() -> None:
    """Up to 600, each batch by itself."""
    machines = own(SLOW_START, QUICK)
    sweep = whatif(Fixed("resnet20"), machines, schemes("keep", "w8a8"), batches=(1, 4))
    found = {(turn.machine, turn.scheme): turn for turn in answer(sweep, most_batch=600).turns}
    assert len(found) == 4
    batches = list(range(1, 601))
    hits = 0
    for spec in (SLOW_START, QUICK):
        for text in ("keep", "w8a8"):
            load = sweep.graphs.grid(None).at(batches).under(Scheme.parse(text))
            computes = load.on(spec).binding == 0
            turn = found[spec.name, text]
            assert turn.limit == 600
            if turn.batch is None:
                assert not computes.any()
                continue
            hits += 1
            assert computes[turn.batch - 1]
            assert turn.batch == 1 or not computes[turn.batch - 2]
            assert turn.until is None or (computes[turn.until - 1] and not computes[turn.until])
            capacity = spec.memory[0].capacity_bytes
            fits = None if capacity is None else bool(load.memory[0][turn.batch - 1] <= capacity.value)
            assert turn.fits is fits
    assert hits


def test_what_doubling_brings_is_a_machine_with_it_doubled() -> None:
    sweep = whatif(Fixed("resnet20"), find_machines("t4,l4"), schemes("fp16"), batches=(2, 128))
    needs = {(need.machine, need.batch): need for need in answer(sweep).needs}
    paths = {"compute": "compute=2x", "dram": "memory.dram.bandwidth=2x", "overhead": "launch_overhead=0.5x"}
    for resource, change in paths.items():
        doubled = whatif(
            Fixed("resnet20"), find_machines("t4,l4", changes=[change])[2:], schemes("fp16"), batches=(2, 128)
        )
        before, after = sweep.latency_s, doubled.latency_s
        for h, name in enumerate(("t4", "l4")):
            for b, batch in enumerate((2, 128)):
                gain = before[h, 0, 0, b] / after[h, 0, 0, b]
                assert needs[name, batch].doubled[resource] == pytest.approx(gain, rel=1e-9)
    need = needs["t4", 128]
    row = next(row for row in sweep.rows() if (row["hardware"], row["batch"]) == ("t4", 128))
    assert (need.bound, need.share) == (row["bound"], pytest.approx(row["bound_shares"][row["bound"]]))
    twice = need.twice[need.bound]
    if twice is not None:
        path = {"compute": "compute", "dram": "memory.dram.bandwidth", "l2": "memory.l2.bandwidth"}[need.bound]
        again = whatif(
            Fixed("resnet20"), find_machines("t4", changes=[f"{path}={twice!r}x"])[1:], schemes("fp16"), batches=(128,)
        )
        assert again.latency_s.item() * 2 == pytest.approx(row["latency_s"], rel=1e-9)


def test_break_even_batches_are_where_every_batch_says() -> None:
    sweep = whatif(
        Fixed("resnet20"),
        own(SLOW_START, QUICK, prices={"slow-start": 1.0, "quick": 0.7}),
        schemes("keep", "w8a8"),
        batches=(1, 500),
    )
    batches = list(range(1, 501))
    found = {(e.measure, e.scheme, e.before, e.after): e.batch for e in answer(sweep).break_even}
    assert found
    for scheme in sweep.schemes:
        seconds = {m.label: sweep.graphs.latency(m, scheme, None, batches) for m in sweep.machines}
        for measure, weights in (
            ("latency", {"slow-start": 1.0, "quick": 1.0}),
            ("cost", {"slow-start": 1.0, "quick": 0.7}),
        ):
            for before, after in permutations(seconds, 2):
                behind = weights[before] * seconds[before] > weights[after] * seconds[after] * (1 + 1e-9)
                batch = found.get((measure, str(scheme), before, after))
                if batch is None:
                    assert behind[0] or not behind[-1]
                    continue
                assert behind[batch - 1]
                assert not behind[batch - 2]


def test_at_the_break_even_price_both_cost_the_same() -> None:
    for price in answer(small()).prices:
        named = {m.label: m for m in small().machines}
        machines = [
            Machine(m.label, m.spec, m.base, price.price_per_hour if m.label == price.machine else m.price_per_hour)
            for m in (named[price.machine], named[price.against])
        ]
        sweep = whatif(Fixed(), machines, schemes(price.scheme), batches=small().batches)
        costs = np.where(sweep.runs, sweep.cost_per_million, np.inf)[:, 0, 0].min(axis=1)
        assert costs[0] == pytest.approx(costs[1], rel=1e-9)
    assert {price.machine for price in answer(small()).prices} == {"slow-start", "quick", "half-only"}


def test_changed_machines_are_not_held_against_their_own() -> None:
    machines = find_machines("t4", changes=["memory.dram.bandwidth=2x"], prices={"t4": 1.0})
    found = answer(whatif(Fixed(), machines, schemes("fp16"), batches=(1, 1000)))
    assert found.break_even == found.prices == ()


def test_calibrated_machines_have_no_sensitivities() -> None:
    machines = own(CALIBRATED.calibrated(), QUICK)
    sweep = whatif(Fixed(), machines, schemes("w8a8"), batches=(1, 4))
    found = answer(sweep, most_batch=8)
    assert {need.machine for need in found.needs} == {"quick"}
    assert {turn.machine for turn in found.turns} == {CALIBRATED.name, "quick"}
    seconds = estimate(zoo_graph("digits_cnn"), CALIBRATED.calibrated(), "w8a8", batch=4).latency_s
    assert sweep.latency_s[0, 0, 0, 1] == seconds


def test_the_words_say_the_answers() -> None:
    sweep = small()
    words = sentences(sweep, answer(sweep))
    best = {(b.scheme, b.goal): b for b in answer(sweep).best}
    first = words[0]
    assert first.startswith(f"keep: most samples a second on {best['keep', 'throughput'].machine} at batch ")
    assert f"cheapest on {best['keep', 'cost'].machine} at batch {best['keep', 'cost'].batch} (USD " in first
    assert any(line.startswith("slow-start: compute-bound from batch: ") for line in words)
    assert any(" is faster than " in line and " from batch " in line for line in words)
    assert any(" costs less than " in line and " below USD " in line for line in words)
    assert any(" binds " in line and "twice as fast alone" in line for line in words)


def test_a_scheme_that_nothing_runs_is_said() -> None:
    sweep = whatif(Fixed(), own(HALF_ONLY), schemes("keep", "bf16,*=bf16"), batches=(1,))
    assert sentences(sweep, answer(sweep))[0] == "keep: no machine runs it; the rows say why"


def test_long_answers_are_counted() -> None:
    sweep = whatif(Fixed(), find_machines("all"), schemes("fp16"), batches=(1, 64))
    words = sentences(sweep, answer(sweep))
    assert len(words) <= 6 * 9
    counted = [line for line in words if line.endswith(" more like this: --format json has all")]
    assert counted
    shown = len(answer(sweep).needs) - 8
    assert f"and {shown} more like this: --format json has all" in counted
