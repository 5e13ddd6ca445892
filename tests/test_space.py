"""The search space: units, ties, groups and kept layers, and what choices expand to."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest

import hardware_specs
import roofline
from aiq import load_model
from aiq.space import Space, make_space
from roofline import CostTable, LayerPrecision
from roofline.errors import InputError, UnknownNameError
from tests.searches import chain, table

COSTS = [[60, 30, 20], [40, 20, 10], [20, 10, 5], [8, 4, 2]]
SHORTCUT = "layer2.0.shortcut.0"


def space_of(**arguments: object) -> Space:
    return make_space(table(COSTS), **arguments)  # type: ignore[arg-type]


def names(space: Space) -> list[str]:
    return [unit.name for unit in space.units]


@cache
def digits(*formats: str) -> CostTable:
    options = [LayerPrecision.parse(text) for text in formats]
    return CostTable(load_model("digits_cnn").trace(), hardware_specs.load("t4"), options)


def test_each_layer_is_a_unit() -> None:
    space = space_of()
    assert names(space) == ["0", "1", "2", "3"]
    assert [unit.layers for unit in space.units] == [(0,), (1,), (2,), (3,)]
    assert {unit.options for unit in space.units} == {(0, 1, 2)}
    assert (space.start, space.size) == ((0, 0, 0, 0), 81)


@pytest.mark.parametrize(
    ("arguments", "units"),
    [
        ({"ties": [["0", "2"]]}, ["0+2", "1", "3"]),
        ({"ties": [["0", "2", "re:[02]"], ["3"]]}, ["0+2", "1", "3"]),
        ({"ties": [["*"]]}, ["0+1+2+3"]),
        ({"keep": ["0", "re:[3]"]}, ["1", "2"]),
        ({"ties": [["0", "2"]], "keep": ["2"]}, ["0", "1", "3"]),
        ({"groups": 9}, ["0", "1", "2", "3"]),
        ({"groups": 3}, ["0", "1", "2+3"]),  # 20 + 8 is the lightest pair
        ({"groups": 2}, ["0", "1+2+3"]),  # then 40 + 28
        ({"groups": 1}, ["0+1+2+3"]),
        ({"groups": 2, "ties": [["0", "3"]]}, ["0+3", "1+2"]),
    ],
)
def test_units(arguments: dict[str, object], units: list[str]) -> None:
    assert names(space_of(**arguments)) == units


def test_expanding_and_scoring_by_hand() -> None:
    space = space_of(ties=[["0", "2"]], keep=["3"])
    assert space.expand([(1, 2), (0, 1)]).tolist() == [[1, 2, 1, 0], [0, 1, 0, 0]]
    assert space.expand((1, 2)).tolist() == [[1, 2, 1, 0]]
    scores = space.score([(1, 2), (0, 1)])
    assert scores.bytes.tolist() == [30 + 10 + 10 + 8, 60 + 20 + 20 + 8]
    assert scores.arithmetic_intensity.tolist() == [1200 / 58, 1200 / 108]
    assert space.label((1, 2)) == "2xw8 1xw4"
    assert space.label((0, 0)) == "3xkeep"


@pytest.mark.parametrize("none", [[], np.empty((0, 4), dtype=np.int64)])
def test_no_choice_at_all(none: list[tuple[int, ...]]) -> None:
    assert space_of().expand(none).shape == (0, 4)
    assert space_of().score(none).bytes.shape == (0,)


@pytest.mark.parametrize("choices", [[(0, 0, 0)], [(0,) * 5], (1, 2)])
def test_choices_of_another_length_are_refused(choices: list[tuple[int, ...]]) -> None:
    shape = list(np.atleast_2d(choices).shape)
    with pytest.raises(InputError) as caught:
        space_of().expand(choices)
    assert str(caught.value) == f"choices must have shape [S, 4], got {shape}. Next: give one option for each unit."


def test_a_scheme_says_what_its_choice_means() -> None:
    """Every choice of a small space gives another scheme, whose estimate costs what the space says."""
    t4 = hardware_specs.load("t4")
    real = CostTable(chain(3), t4, [LayerPrecision.parse(text) for text in ("keep", "w8", "w4a8")])
    space = make_space(real, ties=[["0", "2"]])
    choices = list(itertools.product(range(3), repeat=2))
    schemes = [space.scheme(choice) for choice in choices]
    assert len({scheme.digest() for scheme in schemes}) == space.size == 9
    scores = space.score(choices)
    for scheme, moved in zip(schemes, scores.bytes, strict=True):
        assert [rule.pattern for rule in scheme.rules] == ["0", "1", "2"]
        assert roofline.estimate(chain(3), t4, scheme).bytes == moved


def test_layers_that_the_model_keeps_have_only_their_activations_side() -> None:
    """The shortcut's weights are declared as kept: w8 and w4 are keep for it, w8a8 and w4a8 are one option."""
    weights = make_space(digits("keep", "w8", "w4"))
    assert SHORTCUT not in names(weights)
    both = make_space(digits("keep", "w8", "w4", "w8a8", "w4a8"))
    options = {unit.name: unit.options for unit in both.units}
    assert options[SHORTCUT] == (0, 3)
    assert options["conv1"] == (0, 1, 2, 3, 4)
    assert both.size == 2 * 5**8
    tied = make_space(digits("keep", "w8", "w4"), ties=[[SHORTCUT, "conv1"]])
    assert {unit.name: unit.options for unit in tied.units}[f"conv1+{SHORTCUT}"] == (0, 1, 2)


@pytest.mark.parametrize("groups", range(1, 9))
def test_as_many_groups_as_asked_for_where_enough_layers_have_a_choice(groups: int) -> None:
    space = make_space(digits("keep", "w8", "w4"), groups=groups)
    assert len(space.units) == groups
    assert SHORTCUT not in "+".join(names(space)).split("+")
    assert sum(len(unit.layers) for unit in space.units) == 8


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"keep": ["conv"]},
            "unknown layer 'conv': known: 0, 1, 2, 3. Next: run 'aiq graph MODEL' for the names.",
        ),
        (
            {"ties": [["0", "1"], ["re:[12]"]]},
            "layer '1' is in two ties. Next: join them, or take it out of one.",
        ),
        (
            {"keep": ["*"]},
            "no layer has more than one format to choose from. Next: add a format or keep fewer layers.",
        ),
        ({"groups": 0}, "groups must be at least 1, got 0. Next: choose a number of units."),
        (
            {"keep": ["re:("]},
            "layer pattern 're:(' is no regular expression: missing ), unterminated subpattern at position 0. "
            "Next: mend it.",
        ),
    ],
)
def test_refusals(arguments: dict[str, object], text: str) -> None:
    with pytest.raises((InputError, UnknownNameError)) as caught:
        space_of(**arguments)
    assert str(caught.value) == text
