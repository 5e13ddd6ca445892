"""The searches: decisions worked out by hand, brute force, limits and budgets."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiq.objective import Objective
from aiq.problem import Constraints
from aiq.registry import load_strategy
from aiq.space import Choice
from aiq.strategies import NSGA2, Coordinate, Exhaustive, Greedy, Random
from roofline.errors import AIQError, InputError
from tests.searches import Toy, additive, drive, run, toy

COSTS = [[60, 30, 20], [40, 20, 10], [20, 10, 5]]
LOSSES = [[0, 0.1, 0.4], [0, 0.1, 0.2], [0, 0.0, 0.9]]


def interacting(choice: Choice) -> float:
    """Return the loss in points: additive, and 0.8 more where the first unit is quantized and the second has 4 bits."""
    return additive(LOSSES)(choice) + (0.8 if choice[0] and choice[1] == 2 else 0.0)


def weighing(lam: float) -> Toy:
    """L = −λ · 120 / bytes + (1 − λ) · loss: 120 bytes at the start, relative gain."""
    return toy(COSTS, interacting, Objective("ai", lam, "relative"))


def bounded(points: float) -> Toy:
    return toy(COSTS, interacting, constraints=Constraints(max_loss=points))


# ΔL = ½ (120 / bytes before − 120 / bytes after + loss after − loss before), to be compared with what greedy decides.
GREEDY_BY_HAND = [
    {
        (1, 0, 0): 0.5 * (120 / 120 - 120 / 90 + 0.1),  # −0.117, the least
        (2, 0, 0): 0.5 * (120 / 120 - 120 / 80 + 0.4),  # −0.050
        (0, 1, 0): 0.5 * (120 / 120 - 120 / 100 + 0.1),  # −0.050
        (0, 2, 0): 0.5 * (120 / 120 - 120 / 90 + 0.2),  # −0.067
        (0, 0, 1): 0.5 * (120 / 120 - 120 / 110),  # −0.045
        (0, 0, 2): 0.5 * (120 / 120 - 120 / 105 + 0.9),  # +0.379
    },
    {
        (1, 1, 0): 0.5 * (120 / 90 - 120 / 70 + 0.1),  # −0.140, the least
        (1, 2, 0): 0.5 * (120 / 90 - 120 / 60 + 1.0),  # +0.167 with the interaction, −0.233 without it
        (1, 0, 1): 0.5 * (120 / 90 - 120 / 80),  # −0.083
        (1, 0, 2): 0.5 * (120 / 90 - 120 / 75 + 0.9),  # +0.317
    },
    {
        (1, 1, 1): 0.5 * (120 / 70 - 120 / 60),  # −0.143, the least
        (1, 1, 2): 0.5 * (120 / 70 - 120 / 55 + 0.9),  # +0.216
    },
]


def test_greedy_by_hand() -> None:
    made = weighing(0.5)
    choices, best, value = run(Greedy(), made)
    assert choices == [(0, 0, 0), *itertools.chain(*GREEDY_BY_HAND)]
    current = (0, 0, 0)
    for moves in GREEDY_BY_HAND:
        for choice, change in moves.items():
            assert made.value(choice) - made.value(current) == pytest.approx(change, abs=1e-12)
        current = min(moves, key=moves.__getitem__)
    assert (best, value) == (current, pytest.approx(-0.9, abs=1e-12))


def test_greedy_stops_when_no_move_lowers_l() -> None:
    """λ = 0.1: only the third unit's 8 bits pay, −0.1 · 120 / 110 against −0.1; then nothing does."""
    choices, best, value = run(Greedy(), weighing(0.1))
    assert len(choices) == 1 + 6 + 4
    assert (best, value) == ((0, 0, 1), pytest.approx(-0.1 * 120 / 110, abs=1e-12))


def test_greedy_tries_every_move_where_all_pay() -> None:
    made = toy(COSTS, lambda choice: 0.0)
    choices, best, _ = run(Greedy(), made)
    assert len(choices) == Greedy().most_evaluations(made.problem) == 3 * 4 + 1
    assert best == (2, 2, 2)


def test_coordinate_by_hand() -> None:
    """Pass 1 finds greedy's scheme unit by unit; pass 2 moves the first unit on to 4 bits; pass 3 changes nothing.

    With the others at 8 bits, the first unit at 4 bits has L = ½ (0.5 − 120 / 50) = −0.95 against −0.9; before, alone,
    ½ (0.4 − 120 / 80) = −0.55 against −0.617 at 8 bits.
    """
    made = weighing(0.5)
    choices, best, value = run(Coordinate(), made)
    first = [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 2, 0), (1, 1, 1), (1, 1, 2)]
    second = [(0, 1, 1), (2, 1, 1), (2, 0, 1), (2, 2, 1), (2, 1, 0), (2, 1, 2)]
    assert choices == [(0, 0, 0), *first, *second]
    assert (best, value) == ((2, 1, 1), pytest.approx(-0.95, abs=1e-12))
    assert value == pytest.approx(made.best(), abs=1e-12)
    _, _, findings = drive(Coordinate(), made.problem, made.measure)
    assert findings.note == "coordinate descent: pass 3 changed nothing"


def test_coordinate_ends_with_its_passes() -> None:
    made = weighing(0.5)
    memo, _, findings = drive(Coordinate(passes=1), made.problem, made.measure)
    assert len(memo) == Coordinate(passes=1).most_evaluations(made.problem) == 1 + 6
    assert findings.note == "coordinate descent: the last of 1 passes still changed something"


@pytest.mark.parametrize(
    ("points", "end"),
    [
        (0.0, (0, 0, 1)),  # free: 10 bytes for no loss
        (0.15, (1, 0, 1)),  # then 30 bytes for 0.1, before 20 for 0.1 and 30 for 0.2
        (0.3, (1, 1, 1)),  # then 20 for 0.1; 4 bits in the second unit would interact
        (0.5, (2, 1, 1)),  # then 10 more for 0.3: the first unit moves a second time
        (5.0, (2, 2, 2)),
    ],
)
def test_greedy_under_a_bound_on_the_loss(points: float, end: Choice) -> None:
    made = bounded(points)
    choices, best, _ = run(Greedy(), made)
    assert best == end
    assert len(choices) <= Greedy().most_evaluations(made.problem) == 6 * 7 // 2 + 1


def test_coordinate_under_a_bound_spends_it_on_the_first_units() -> None:
    assert run(Coordinate(), bounded(0.45))[1] == (2, 0, 1)


def preferring(choice: Choice | None) -> Callable[[Choice], float | None]:
    return lambda other: None if choice is None else float(other != choice)


@pytest.mark.parametrize(("smoothest", "taken"), [(None, 0), ((1, 0), 0), ((0, 1), 1)])
def test_greedy_breaks_ties_by_divergence_then_by_order(smoothest: Choice | None, taken: int) -> None:
    """Two equal units; whichever is taken first stays quantized in every scheme of the second iteration."""
    made = toy([[10, 5, 4]] * 2, additive([[0, 0, 9]] * 2), divergence=preferring(smoothest))
    asked = drive(Greedy(), made.problem, made.measure)[1]
    assert asked[:4] == [(1, 0), (2, 0), (0, 1), (0, 2)]
    assert [choice[taken] for choice in asked[4:]] == [1, 1]


@pytest.mark.parametrize(("smoothest", "taken"), [(None, 1), ((1,), 1), ((2,), 2)])
def test_coordinate_breaks_ties_by_divergence_then_by_order(smoothest: Choice | None, taken: int) -> None:
    """Two options of equal worth; the second pass asks for the two that were not taken."""
    made = toy([[10, 5, 5]], lambda choice: 0.0, divergence=preferring(smoothest))
    asked = drive(Coordinate(), made.problem, made.measure)[1]
    assert asked == [(1,), (2,), (0,), (3 - taken,)]


costs = st.lists(st.tuples(st.integers(20, 60), st.integers(5, 19), st.integers(1, 19)), min_size=1, max_size=4)


@st.composite
def additive_toys(draw: st.DrawFn) -> Toy:
    rows = draw(costs)
    losses = [(0.0, draw(st.integers(0, 20)) / 16, draw(st.integers(0, 20)) / 8) for _ in rows]
    return toy(rows, additive(losses), Objective("ai", draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))))


def plain_greedy(made: Toy) -> tuple[float, int]:
    """The paper's loop again, on values alone: returns the least L and how many schemes were looked at."""
    current = made.problem.space.start
    seen = {current}
    for _ in current:
        moves = [(*current[:u], k, *current[u + 1 :]) for u, now in enumerate(current) if now == 0 for k in (1, 2)]
        seen |= set(moves)
        best = min(moves, key=made.value)
        if made.value(best) >= made.value(current):
            break
        current = best
    return made.value(current), len(seen)


@given(additive_toys())
@settings(max_examples=60, deadline=None)
def test_against_brute_force_on_additive_losses(made: Toy) -> None:
    start, truth = made.value(made.problem.space.start), made.best()
    greedy, exhaustive = run(Greedy(), made), run(Exhaustive(), made)
    assert exhaustive[2] == truth
    assert (greedy[2], len(greedy[0])) == plain_greedy(made)
    _, end, value = run(Coordinate(), made)
    assert truth <= min(greedy[2], value) <= max(greedy[2], value) <= start
    flips = [(*end[:u], k, *end[u + 1 :]) for u in range(len(end)) for k in (0, 1, 2)]
    assert min(map(made.value, flips)) == value
    if len(end) == 1 or made.problem.objective.lam in {0.0, 1.0}:
        assert greedy[2] == value == truth


@pytest.mark.parametrize(
    "text",
    ["greedy", "coordinate", "exhaustive", "random:count=7", "random:count=100", "nsga2:evaluations=9,population=4"],
)
@pytest.mark.parametrize("limits", [Constraints(), Constraints(max_loss=0.5)])
def test_no_more_evaluations_than_announced(text: str, limits: Constraints) -> None:
    made = toy(COSTS, interacting, constraints=limits)
    choices, _, value = run(load_strategy(text), made)
    assert len(choices) <= load_strategy(text).most_evaluations(made.problem) <= 27
    assert value < np.inf


def test_units_with_unequal_options_count_the_small_ones_first() -> None:
    made = toy([[9, 5, 2]] * 3, lambda choice: 0.0)
    space = made.problem.space
    units = (space.units[0], *(replace(unit, options=(0, 2)) for unit in space.units[1:]))
    problem = replace(made.problem, space=replace(space, units=units))
    assert Greedy().most_evaluations(problem) == 1 + (2 + 1 + 1) + (2 + 1) + 2
    assert Coordinate(passes=1).most_evaluations(problem) == 1 + 4
    assert Exhaustive().most_evaluations(problem) == 12
    assert {choice[1] for choice in drive(Exhaustive(), problem, made.measure)[0]} == {0, 2}


def test_exhaustive_goes_through_every_scheme_the_last_unit_fastest() -> None:
    made = weighing(0.9)
    _, asked, findings = drive(Exhaustive(), made.problem, made.measure)
    assert asked == list(itertools.product(range(3), repeat=3))
    assert findings.note == "exhaustive: all 27 schemes within the limits on cost were evaluated"


def test_limits_on_cost_need_no_evaluation() -> None:
    made = toy(COSTS, interacting, constraints=Constraints(max_weight_bytes=50))
    cheap = {c for c in itertools.product(range(3), repeat=3) if sum(r[k] for r, k in zip(COSTS, c, strict=True)) <= 50}
    assert set(drive(Exhaustive(), made.problem, made.measure)[1]) == cheap
    for text in ("random:count=100", "nsga2"):
        asked = drive(load_strategy(text), made.problem, made.measure)[1]
        assert set(asked) == cheap
        assert len(asked) == len(cheap) < load_strategy(text).most_evaluations(made.problem)


@pytest.mark.parametrize(
    "limits", [Constraints(max_weight_bytes=100), Constraints(min_intensity=11), Constraints(max_latency_s=119)]
)
@pytest.mark.parametrize("name", ["greedy", "coordinate"])
def test_walks_from_a_baseline_that_breaks_a_limit_are_refused(name: str, limits: Constraints) -> None:
    with pytest.raises(InputError) as caught:
        load_strategy(name).steps(toy(COSTS, interacting, constraints=limits).problem)
    assert str(caught.value) == (
        f"{name} starts from the unquantized model, which breaks a limit on memory, intensity or latency, so none of "
        "its moves counts as a gain. Next: choose exact, nsga2, random or exhaustive."
    )


def test_exhaustive_refuses_what_is_too_large() -> None:
    problem = toy([[9, 5, 2]] * 13, lambda choice: 0.0).problem
    text = (
        "exhaustive: 13 units make 1,594,323 schemes, the limit is 1,000,000. "
        "Next: join layers into fewer units, drop formats, or choose exact."
    )
    for call in (Exhaustive().steps, Exhaustive().most_evaluations):
        with pytest.raises(InputError) as caught:
            call(problem)
        assert str(caught.value) == text
    assert Exhaustive(limit=1_594_323).most_evaluations(problem) == 1_594_323


def test_random_draws_are_distinct_seeded_and_uniform() -> None:
    made = toy([[9, 5, 2]] * 2, lambda choice: 0.0)
    draws = [drive(Random(3, seed), made.problem, made.measure)[1] for seed in range(400)]
    assert all(len(set(asked)) == 3 and (0, 0) not in asked for asked in draws)
    assert draws[7] == drive(Random(3, 7), made.problem, made.measure)[1] != draws[8]
    counts = [sum(choice in asked for asked in draws) for choice in itertools.product(range(3), repeat=2)][1:]
    # 400 · 3/8 = 150 each, standard deviation 9.7
    assert min(counts) > 110
    assert max(counts) < 190


def test_random_takes_the_whole_of_a_small_space_and_says_so() -> None:
    made = weighing(0.5)
    memo, _, findings = drive(Random(1000), made.problem, made.measure)
    assert len(memo) == 27
    assert findings.note == "random: only 26 schemes within the limits on cost were found"


def least_losses(made: Toy, choices: Iterable[Choice], levels: Sequence[int]) -> float:
    """Return the mean over cost levels of the least loss at no more cost."""
    points = [(made.problem.costs([choice])[0], made.loss(choice)) for choice in choices]
    return float(np.mean([min([loss for cost, loss in points if cost <= level], default=np.inf) for level in levels]))


def test_nsga2_repeats_itself_and_beats_as_many_uniform_draws() -> None:
    pytest.importorskip("pymoo")
    made = toy([[9, 5, 2]] * 12, additive([[0, 0.1, 0.3]] * 12))
    runs = []
    for place, seed in enumerate((1, 1, 2)):
        random.seed(place)
        np.random.seed(place)
        runs.append(drive(NSGA2(300, 20, seed), made.problem, made.measure)[0])
    assert list(runs[0]) == list(runs[1]) != list(runs[2])
    assert [len(memo) for memo in runs] == [300] * 3
    drawn = drive(Random(299), made.problem, made.measure)[0]
    levels = range(50, 100)
    for memo in runs:
        assert least_losses(made, memo, levels) < 0.95 * least_losses(made, drawn, levels)


def test_nsga2_honours_the_bound_on_the_loss() -> None:
    pytest.importorskip("pymoo")
    made = toy([[9, 5, 2]] * 6, additive([[0, 0.1, 0.3]] * 6), constraints=Constraints(max_loss=0.61))
    memo, _, _ = drive(NSGA2(150, 12), made.problem, made.measure)
    within = [choice for choice in memo if made.problem.loss(memo[choice]) <= 0.61]
    assert len(within) > len(memo) / 3
    assert min(map(made.value, memo)) == made.best() == 6 * 5


def test_nsga2_without_pymoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymoo.algorithms.moo", None)
    with pytest.raises(AIQError) as caught:
        NSGA2().steps(weighing(0.5).problem)
    assert str(caught.value) == (
        "strategy nsga2: pymoo, which runs it, is not installed. Next: pip install aiq-roofline[nsga2]."
    )


def test_importing_the_strategies_is_light() -> None:
    code = (
        "import sys, aiq.strategies, aiq.registry, aiq.strategies._greedy, aiq.strategies._nsga2; "
        "print(*[m for m in ('torch', 'pymoo', 'scipy.optimize') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
