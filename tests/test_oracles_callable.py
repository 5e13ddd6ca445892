"""A Python function as an oracle: what it is given, what it may return, and what is said when it goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiq.oracle import Metric, OracleError
from aiq.registry import load_oracle
from aiq.testing import check_oracle
from oracles._answers import Answering
from oracles.callable import python
from roofline import Scheme
from roofline.errors import AIQError, InputError, UnknownNameError
from tests.evaluating import context, digits

W8 = Scheme.parse("w8")

SCORES = """
from roofline import Scheme
import helper

def share(formats):
    right = [helper.good(f) for f in formats.values()]
    return {"value": sum(right) / len(right), "outcomes": right, "divergence": 0.0, "metric": "accuracy"}

def number(formats):
    return float(len(set(formats.values())))

def with_scheme(scheme: Scheme):
    return len(scheme.rules)

def stated(formats):
    return 3

stated.metric, stated.unit, stated.higher_is_better = "error", "mm", False

def accurate(formats):
    return 0.5

accurate.metric = "accuracy"

def contradicts(formats):
    return {"value": 3, "metric": "gain"}

contradicts.metric = "loss"

def fails(formats):
    raise ValueError("no such thing\\nat all")

def leaves(formats):
    raise SystemExit(2)

def nothing(formats):
    pass

def text(formats):
    return "0.5"

def wrong_unit(formats):
    return 1.0

wrong_unit.unit = 3

class Scorer:
    def score(self, formats):
        return 1.0
    def __call__(self, formats):
        return 2.0

made = Scorer()
constant = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "helper.py").write_text("def good(f):\n    return f != 'int4/keep'\n")
    path = tmp_path / "scores.py"
    path.write_text(SCORES)
    return str(path)


def oracle(file: str, name: str) -> Answering:
    return python(f"{file}:{name}", context())


def test_a_function_that_scores_schemes(file: str) -> None:
    layers = digits()[1].layers
    found = oracle(file, "share").evaluate(Scheme.parse(f"w8,{layers[1]}=w4"))
    assert found.value == pytest.approx(1 - 1 / len(layers))
    assert found.outcomes is not None
    assert found.outcomes.tolist() == [True, False, *[True] * (len(layers) - 2)]
    assert (found.n, found.divergence) == (len(layers), 0.0)
    check_oracle(python, f"{file}:share")


def test_the_road_of_the_registry(file: str) -> None:
    assert load_oracle(f"python:{file}:number", context()).evaluate(Scheme()).value == 1.0


def test_a_function_of_a_scheme_gets_one(file: str) -> None:
    names = digits()[1].layers
    assert oracle(file, "with_scheme").evaluate(Scheme.parse(f"w8,{names[0]}=w4,{names[1]}=keep")).value == 2.0


def test_callable_objects_and_methods(file: str) -> None:
    assert oracle(file, "made").evaluate(W8).value == 2.0
    assert oracle(file, "made.score").evaluate(W8).value == 1.0


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("share", Metric("accuracy", "points", higher_is_better=True, scale=100.0)),
        ("number", Metric("value", "units", higher_is_better=True)),
        ("stated", Metric("error", "mm", higher_is_better=False)),
        ("accurate", Metric("accuracy", "points", higher_is_better=True, scale=100.0)),
    ],
)
def test_metrics(file: str, name: str, metric: Metric) -> None:
    made = oracle(file, name)
    assert made.metric == metric
    made.evaluate(W8)
    assert made.metric == metric


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails", "{it} raised ValueError: no such thing on 'w8'. Next: call it by itself."),
        ("leaves", "{it} raised SystemExit: 2 on 'w8'. Next: call it by itself."),
        ("nothing", "{it}, on 'w8', answered value = None, not a finite number. Next: mend it."),
        ("text", "{it}, on 'w8', answered value = '0.5', not a finite number. Next: mend it."),
        (
            "contradicts",
            "{it} speaks of gain in gain on 'w8', of loss in loss before. Next: give one metric for all schemes.",
        ),
    ],
)
def test_functions_that_go_wrong(file: str, name: str, message: str) -> None:
    with pytest.raises(OracleError) as caught:
        oracle(file, name).evaluate(W8)
    assert str(caught.value) == message.format(it=f"function '{file}:{name}'")


@pytest.mark.parametrize(
    ("argument", "kind", "message"),
    [
        (
            "{file}:shar",
            UnknownNameError,
            "unknown callable in {file} 'shar': did you mean 'share'? "
            "Next: name a function of one argument, the scheme.",
        ),
        (
            "{file}:constant",
            OracleError,
            "oracle '{file}:constant' is int, not a callable. Next: name a function of one argument, the scheme.",
        ),
        ("no/such.py:f", OracleError, "oracle 'no/such.py:f': there is no file 'no/such.py'. Next: check the path."),
        (
            "no_such_module_at_all:f",
            OracleError,
            "oracle 'no_such_module_at_all:f': importing 'no_such_module_at_all' failed: ModuleNotFoundError: "
            "No module named 'no_such_module_at_all'. Next: import it by itself.",
        ),
        *(
            (
                text,
                InputError,
                f"the oracle python needs a function, got {text!r}. "
                "Next: write python:package.module:function or python:path/file.py:function.",
            )
            for text in ("", "json", ":f", "json:")
        ),
        (
            "{file}:wrong_unit",
            OracleError,
            "function '{file}:wrong_unit' answered unit = 3, not a text. Next: mend it.",
        ),
    ],
)
def test_refusals(file: str, argument: str, kind: type[AIQError], message: str) -> None:
    with pytest.raises(kind) as caught:
        python(argument.format(file=file), context())
    assert str(caught.value) == message.format(file=file)


def test_a_fingerprint_covers_the_file_and_a_stated_version(file: str) -> None:
    first = dict(oracle(file, "number").fingerprint)
    assert dict(oracle(file, "number").fingerprint) == first
    Path(file).write_text(SCORES + "\nnumber.version = 2\n")
    second = dict(oracle(file, "number").fingerprint)
    assert [key for key in first if first[key] != second[key]] == ["source", "version"]
    assert {"weights", "layers", "model"} <= first.keys()


def test_a_function_without_source_has_a_fingerprint() -> None:
    made = python("math:fsum", context())
    assert made.fingerprint["source"] == "none"
    with pytest.raises(OracleError, match="raised TypeError: must be real number, not str"):
        made.evaluate(W8)
