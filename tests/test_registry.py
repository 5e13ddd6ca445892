"""Strategies by name: settings as text, and the road of a third party."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from aiq.registry import load_strategy, strategy_names
from aiq.strategies import NSGA2, Coordinate, Exhaustive, Greedy, Random
from roofline.errors import AIQError, InputError, UnknownNameError

if TYPE_CHECKING:
    from decimal import Decimal


@pytest.mark.parametrize(
    ("text", "kind", "settings_"),
    [
        ("greedy", Greedy, {}),
        ("coordinate:passes=3", Coordinate, {"passes": 3}),
        ("exhaustive:limit=10", Exhaustive, {"limit": 10}),
        ("random:count=200, seed=3", Random, {"count": 200, "seed": 3}),
        ("nsga2:", NSGA2, {"evaluations": 200, "population": 20, "seed": 0}),
    ],
)
def test_made_from_text(text: str, kind: type, settings_: dict[str, object]) -> None:
    made = load_strategy(text)
    assert isinstance(made, kind)
    assert made.name == text.partition(":")[0]
    assert vars(made) == settings_


def test_strategies_are_listed() -> None:
    assert {"coordinate", "exact", "exhaustive", "greedy", "nsga2", "random"} <= set(strategy_names())
    assert strategy_names() == sorted(strategy_names())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gredy", "unknown strategy 'gredy': did you mean 'greedy'? Next: name one of these, or install its package."),
        ("greedy:x=1", "strategy greedy: 'x' is no setting of it; known: none. Next: write greedy alone."),
        (
            "random:cont=5",
            "strategy random: 'cont' is no setting of it; known: count (int), seed (int). "
            "Next: write for instance random:count=50.",
        ),
        (
            "random:5",
            "strategy random: '5' is not KEY=VALUE; known: count (int), seed (int). "
            "Next: write for instance random:count=50.",
        ),
        (
            "random:seed=1,seed=2",
            "strategy random: 'seed' stands twice; known: count (int), seed (int). "
            "Next: write for instance random:count=50.",
        ),
        (
            "random:count=many",
            "strategy random: count must be a whole number, got 'many'; known: count (int), seed (int). Next: mend it.",
        ),
        (
            "random:count=0",
            "random: count must be at least 1 and seed at least 0, got 0 and 0. Next: mend them.",
        ),
        (
            "coordinate:passes=0",
            "coordinate: passes must be at least 1, got 0. Next: give more, or leave it out.",
        ),
        (
            "nsga2:population=1",
            "nsga2: evaluations and population must be at least 2 and seed at least 0, got 200, 1 and 0. "
            "Next: mend them.",
        ),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises((InputError, UnknownNameError)) as caught:
        load_strategy(text)
    assert str(caught.value) == message


class Theirs:
    name = "theirs"

    def __init__(self, share: float = 0.5, *, fast: bool = True, tag: str = "", extra: Any = None) -> None:
        self.settings = share, fast, tag


class Fails:
    def __init__(self, count: int = 1) -> None:
        raise RuntimeError(f"no\nroom for {count}.")


class Annotated:
    def __init__(self, count: Decimal) -> None:
        self.count = count


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("their_package")
    vars(module).update(Theirs=Theirs, Fails=Fails, Annotated=Annotated)
    monkeypatch.setitem(sys.modules, "their_package", module)
    values = {"theirs": "their_package:Theirs", "fails": "their_package:Fails", "annotated": "their_package:Annotated"}
    values["missing"] = "their_package:Missing"
    entries = [EntryPoint(name, value, "aiq.strategies") for name, value in values.items()]
    monkeypatch.setattr("aiq.registry.entry_points", lambda group: [e for e in entries if e.group == group])


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("theirs", (0.5, True, "")),
        ("theirs:share=1e-3,fast=False", (0.001, False, "")),
        ("theirs:tag=a=b , fast=true", (0.5, True, "a=b")),
    ],
)
def test_a_third_party_takes_the_same_road(text: str, expected: tuple[float, bool, str]) -> None:
    assert strategy_names() == ["annotated", "fails", "missing", "theirs"]
    assert load_strategy(text).settings == expected  # type: ignore[attr-defined]


THEIRS = "known: share (float), fast (bool), tag (str)."


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("theirs:fast=1", f"strategy theirs: fast must be true or false, got '1'; {THEIRS[:-1]}. Next: mend it."),
        ("theirs:share=x", f"strategy theirs: share must be a number, got 'x'; {THEIRS[:-1]}. Next: mend it."),
        (
            "theirs:extra=1",
            f"strategy theirs: 'extra' is no setting of it; {THEIRS} Next: write for instance theirs:share=0.5.",
        ),
        ("fails:count=3", "strategy 'fails' cannot be built: RuntimeError: no room for 3. Next: mend its package."),
        (
            "annotated",
            "strategy 'annotated' cannot be built: NameError: name 'Decimal' is not defined. Next: mend its package.",
        ),
        (
            "missing",
            "strategy 'missing' does not import: AttributeError: module 'their_package' has no attribute 'Missing'. "
            "Next: mend or remove its package.",
        ),
    ],
)
def test_a_third_party_that_fails_is_named(text: str, message: str) -> None:
    with pytest.raises(AIQError) as caught:
        load_strategy(text)
    assert str(caught.value) == message
