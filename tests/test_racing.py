"""Racing: the sequential test against its definition and by simulation, and the oracle that stops early by it."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from aiq import load_model
from aiq.oracle import Evaluation, Metric
from aiq.quantize import Evaluator, Simulator
from aiq.quantize._simulate import BATCH
from aiq.racing import ALPHA, LossLimit, allowance, hopeless
from aiq.testing import check_oracle
from oracles.accuracy import Accuracy
from oracles.agreement import kl
from roofline import LayerPrecision, Scheme
from roofline.scheme import Rule
from tests.evaluating import context

BAD = Scheme.parse("w2@nearest+max+tensor+nobias")
Bools = NDArray[np.bool_]


def capital(x: Sequence[int], most: int, total: int) -> float:
    """The definition, term by term."""
    found = []
    for bet in (0.1, 0.3, 0.5, 0.7, 0.9):
        stake, seen = 1.0, 0
        for i, value in enumerate(x, 1):
            mean = (most - seen) / (total - i + 1)
            stake *= 1 + bet / (1 + max(mean, 0)) * (value - mean)
            seen += value
        found.append(stake)
    return sum(found) / len(found)


def population(total: int, wrong: int, lost: int, gained: int, seed: int) -> tuple[Bools, Bools]:
    """Return outcomes of a baseline and of a scheme in random order, [N] each."""
    baseline = np.arange(total) >= wrong
    right = baseline.copy()
    right[wrong : wrong + lost] = False
    right[:gained] = True
    order = np.random.default_rng(seed).permutation(total)
    return baseline[order], right[order]


def stops(baseline: Bools, right: Bools, allowed: float, every: int, alpha: float) -> int:
    """Return after how many examples the race ends."""
    looks = range(every, len(baseline), every)
    return next((n for n in looks if hopeless(baseline, right[:n], allowed, alpha=alpha)), len(baseline))


@pytest.mark.parametrize("seed", range(20))
def test_the_stake_multiplies_as_defined(seed: int) -> None:
    baseline, right = population(200, 40, 60, 10, seed)
    n = 70
    x = (baseline[:n].astype(int) - right[:n]).tolist()
    assert sum(x) - 4 <= (~baseline[n:]).sum(), "else the stake does not matter"
    reached = capital(x, 4, 200)
    assert reached > 1
    assert hopeless(baseline, right[:n], 0.02, alpha=1.001 / reached)
    assert not hopeless(baseline, right[:n], 0.02, alpha=0.999 / reached)


@pytest.mark.parametrize(("lost", "gained", "most"), [(3, 1, 2), (2, 0, 2), (4, 3, 1), (2, 1, 3), (0, 2, 0)])
def test_over_all_orders_bets_against_the_truth_do_not_pay(lost: int, gained: int, most: int) -> None:
    x = [1] * lost + [-1] * gained + [0] * (8 - lost - gained)
    orders = set(itertools.permutations(x))
    for n in range(1, 8):
        mean = math.fsum(capital(order[:n], most, 8) for order in orders) / len(orders)
        if lost - gained == most:
            assert mean == pytest.approx(1.0)
        else:
            assert mean < 1


@pytest.mark.parametrize(
    ("seen", "to_come", "lost", "expected"),
    [(10, [True] * 10, 2, True), (10, [True] * 10, 1, False), (10, [False] + [True] * 9, 2, False)],
)
def test_what_nothing_can_save_is_given_up(seen: int, to_come: list[bool], lost: int, expected: bool) -> None:
    """One loss in 20 is allowed."""
    baseline = np.array([True] * seen + to_come)
    right = np.arange(seen) >= lost
    assert hopeless(baseline, right, 0.05, alpha=1e-9) is expected


@pytest.mark.parametrize(
    ("total", "wrong", "lost", "gained"),
    [(300, 6, 3, 0), (1000, 85, 10, 0), (1000, 85, 30, 20), (1000, 85, 80, 70), (1000, 300, 210, 200)],
)
def test_false_alarms_are_rarer_than_alpha(total: int, wrong: int, lost: int, gained: int) -> None:
    """The drop is exactly the one point that is allowed; looks after every 25 examples."""
    assert lost - gained == total // 100
    trials = [population(total, wrong, lost, gained, seed) for seed in range(400)]
    alarms = sum(stops(*trial, allowance(0.01), 25, 0.05) < total for trial in trials)
    assert alarms <= 0.05 * 400


@pytest.mark.parametrize(
    ("total", "wrong", "lost", "gained", "share"),
    [(323, 5, 33, 1, 0.5), (1000, 85, 120, 20, 0.4), (4000, 340, 480, 80, 0.15)],
)
def test_ten_points_more_drop_are_seen_early(total: int, wrong: int, lost: int, gained: int, share: float) -> None:
    trials = [population(total, wrong, lost, gained, seed) for seed in range(40)]
    ends = [stops(*trial, allowance(0.01), BATCH, ALPHA) for trial in trials]
    assert max(ends) < total
    assert np.mean(ends) < share * total


def test_nothing_within_the_limit_on_what_was_run_is_ever_given_up() -> None:
    """Every baseline and every scheme of 7 examples at every look, with a test that is quick to reject."""
    total, rejected = 7, 0
    metric = Metric("accuracy", "points", scale=100.0)
    for bits in itertools.product((False, True), repeat=total):
        baseline = np.array(bits)
        whole = Evaluation(float(baseline.mean()), n=total, outcomes=baseline)
        for n in range(1, total):
            for others in itertools.product((False, True), repeat=n):
                right = np.array(others)
                for limit in (0.0, 15.0, 100 / 7, 100 / 3):
                    if hopeless(baseline, right, allowance(limit) / 100, alpha=0.7):
                        rejected += 1
                        assert metric.drop(whole.first(n).value, float(right.mean())) > allowance(limit)
    assert rejected > 1000


def test_limits() -> None:
    metric = Metric("accuracy", "points", scale=100.0)
    assert LossLimit().of(metric, 0.9) == math.inf
    assert LossLimit(2.0).of(metric, 0.9) == 2.0
    assert LossLimit(share=0.01).of(metric, 0.9) == pytest.approx(0.9)
    assert LossLimit(2.0, 0.01).of(metric, 0.9) == pytest.approx(0.9)
    assert not hopeless(np.ones(9, dtype=bool), np.zeros(8, dtype=bool), allowance(math.inf))


def test_the_first_examples_of_an_evaluation() -> None:
    whole = Evaluation(0.5, 0.25, 4, np.array([True, False, False, True]), divergence=0.1)
    part = whole.first(3)
    assert (part.value, part.n, part.divergence) == (pytest.approx(1 / 3), 3, None)
    assert part.outcomes is not None
    assert part.outcomes.tolist() == [True, False, False]
    data_free = Evaluation(0.7)
    assert all(whole.first(n) is whole for n in (0, 4, 5))
    assert data_free.first(3) is data_free


def outcomes(found: Evaluation) -> Bools:
    assert found.outcomes is not None
    return found.outcomes.astype(bool)


def test_what_is_not_given_up_is_evaluated_as_without_a_race() -> None:
    plain, racing = Accuracy("", context()), Accuracy("", context(race=LossLimit(1.0)))
    nats = kl("", context())
    base = plain.evaluate(Scheme())
    first = racing.network.simulator.layers[0]
    whole = 0
    for text in ("keep", "w8", "w4", "w3@nearest", str(BAD), f"w8,{first}=w2@nearest+max+tensor+nobias", "w2a2"):
        scheme = Scheme.parse(text)
        a, b = plain.evaluate(scheme), racing.evaluate(scheme)
        n = b.n
        assert outcomes(b).tolist() == outcomes(a)[:n].tolist()
        if n == base.n:
            whole += 1
            assert (a.value, a.stderr, a.divergence) == (b.value, b.stderr, b.divergence)
            continue
        assert n % BATCH == 0
        assert b.value == outcomes(a)[:n].mean()
        each = nats.evaluate(scheme).outcomes
        assert each is not None
        assert b.divergence == pytest.approx(each[:n].mean(dtype=np.float64))
        assert b.work <= n / base.n + 1e-12
        assert 100 * (outcomes(base).mean() - a.value) > 1
        assert 100 * (outcomes(base)[:n].mean() - b.value) > 1
    assert 3 <= whole < 7
    assert racing.evaluate(BAD).n == BATCH


def test_a_limit_as_a_share_is_one_of_the_float_models_accuracy() -> None:
    accuracy = Accuracy("", context()).evaluate(Scheme()).value
    share, points = (
        [oracle.evaluate(Scheme.parse(f"w{b}@nearest+max+tensor+nobias")).n for b in (2, 3, 4)]
        for oracle in (
            Accuracy("", context(race=LossLimit(share=0.05))),
            Accuracy("", context(race=LossLimit(5 * accuracy))),
        )
    )
    assert share == points
    assert len(set(share)) > 1


def test_the_contract_of_oracles_holds_in_a_race() -> None:
    check_oracle(Accuracy, context=context(race=LossLimit(1.0)), schemes=[Scheme.parse("w8"), BAD])


def test_the_fingerprint_tells_races_apart() -> None:
    plain = dict(Accuracy("", context()).fingerprint)
    assert "race" not in plain
    found = []
    for limit in (LossLimit(1), LossLimit(2.0), LossLimit(share=0.01)):
        own = dict(Accuracy("", context(race=limit)).fingerprint)
        found.append(own.pop("race"))
        assert own == plain
    assert len(set(found)) == 3
    assert found[0].startswith("loss above 1.0 points, alpha 0.001, code ")


@pytest.mark.parametrize("memory", [2**31, 300_000])
def test_runs_that_stop_early_change_no_bit_of_later_ones(memory: int) -> None:
    """With little memory, outputs of early modules are dropped before those of later ones."""
    model = load_model("digits_cnn")
    graph = model.trace()
    inputs = torch.randn(22, *model.example.shape[1:], generator=torch.Generator().manual_seed(1))
    simulator = Simulator(model, graph, inputs)
    evaluator = Evaluator(simulator, inputs, memory_bytes=memory, batch=4)
    draw = random.Random(2)
    formats = dict.fromkeys(graph.layers, LayerPrecision())
    works: dict[int, list[float]] = {}
    for _ in range(40):
        formats[draw.choice(graph.layers)] = LayerPrecision.parse(draw.choice(["w8", "w8a8", "w4a4@nearest", "keep"]))
        scheme = Scheme(LayerPrecision(), tuple(Rule(layer, precision) for layer, precision in formats.items()))
        most, seen = draw.choice([1, 2, 3, 6]), 0

        def enough(logits: torch.Tensor) -> bool:
            nonlocal seen
            seen += 1
            return seen == most  # noqa: B023

        found, work = evaluator.run(scheme, enough)
        assert torch.equal(found, torch.cat([simulator.outputs(scheme, part) for part in inputs.split(4)[:most]]))
        assert 0 <= work <= len(found) / 22
        works.setdefault(most, []).append(work)
        held = sum(t.numel() * t.element_size() for values in evaluator._stored.values() for t in values)
        assert held == evaluator._stored_bytes <= memory
    assert set(works) == {1, 2, 3, 6}
    assert min(works[6]) < 0.9


def test_a_run_goes_on_from_where_an_early_stop_left_off() -> None:
    """Everything but the last layer of the first two batches of three is known: 12 of 18 examples."""
    model = load_model("digits_cnn")
    graph = model.trace()
    inputs = torch.randn(18, *model.example.shape[1:], generator=torch.Generator().manual_seed(3))
    evaluator = Evaluator(Simulator(model, graph, inputs), inputs, batch=6)
    batches = iter(range(2))
    evaluator.run(Scheme.parse("w8"), lambda logits: next(batches) == 1)
    _, work = evaluator.run(Scheme.parse(f"w8,{graph.layers[-1]}=w4@nearest"))
    last = 1 - sum(evaluator._macs[: evaluator.boundaries[-1].before])
    assert work == pytest.approx((12 * last + 6) / 18)
    _, work = evaluator.run(Scheme.parse(f"w8,{graph.layers[-1]}=w3@nearest"))
    assert work == pytest.approx(last)


def test_outputs_whose_first_batches_were_dropped_are_not_taken_for_others() -> None:
    model = load_model("digits_cnn")
    graph = model.trace()
    inputs = torch.randn(18, *model.example.shape[1:], generator=torch.Generator().manual_seed(4))
    simulator = Simulator(model, graph, inputs)
    evaluator = Evaluator(simulator, inputs, batch=6)
    evaluator.run(Scheme.parse("w8"), lambda logits: True)
    dropped = evaluator._stored.popitem(last=False)[1]
    evaluator._stored_bytes -= sum(t.numel() * t.element_size() for t in dropped)
    for text in ("w8", f"keep,{graph.layers[0]}=w8"):
        scheme = Scheme.parse(text)
        found, _ = evaluator.run(scheme)
        assert torch.equal(found, torch.cat([simulator.outputs(scheme, part) for part in inputs.split(6)]))
