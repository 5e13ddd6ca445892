"""The evaluation cache: what is stored comes back exactly, equal schemes share a key, and nothing else does."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from aiq.cache import CachedOracle, CacheError, EvaluationStore, canonical_scheme, open_store
from aiq.oracle import Evaluation, Metric, Oracle, OracleError, fingerprint_digest
from roofline import CostTable, LayerPrecision, Rule, Scheme, trace
from roofline.errors import SchemeError, UnknownNameError
from tests.evaluations import ACCURACY, FINGERPRINT, ToyOracle, evaluation, record, same, scheme
from tests.machines import FLAT, Fn, zoo_graph

DIGEST = fingerprint_digest(FINGERPRINT)


def cached(oracle: ToyOracle, store: EvaluationStore) -> CachedOracle:
    return CachedOracle(oracle, store, lambda scheme: scheme)


ODD = np.array([1e-45, -0.0, 3.4e38, -1.5], np.float32)
EVALUATIONS = [
    Evaluation(0.5),
    Evaluation(-1.25e-300, 0.0, 0, None, 0.0, 0.0, 0.0),
    Evaluation(1 / 3, 1e-17, 10**15, None, 1e9, 0.125, -1e-12),
    Evaluation(float(ODD.mean(dtype=np.float64)), None, 4, ODD, 1.5),
    *(Evaluation(1.0, None, n, np.ones(n, np.bool_)) for n in (1, 7, 8, 9)),
    Evaluation(0.0, None, 16, np.zeros(16, np.bool_)),
    Evaluation(2 / 3, None, 3, np.array([1, 0, 0, 0, 1, 0], np.bool_)[::2]),
    *(evaluation(number) for number in range(4)),
]


@pytest.mark.parametrize("given", EVALUATIONS, ids=repr)
def test_round_trip(given: Evaluation, store: EvaluationStore) -> None:
    assert store.put(replace(record(0), evaluation=given))
    assert same(store.get(DIGEST, scheme(0).digest()), given)  # type: ignore[arg-type]


@given(value=st.floats(-1e300, 1e300), small=st.floats(0, 1e300), count=st.integers(0, 2**63 - 1))
def test_round_trip_of_any_numbers(value: float, small: float, count: int) -> None:
    measured = Evaluation(value, small, count, None, small, small, value)
    with open_store("none") as store:
        store.put(replace(record(0), evaluation=measured))
        found = store.get(DIGEST, scheme(0).digest())
    assert found is not None
    assert same(found, measured)


@pytest.mark.parametrize(
    "change",
    [
        {"value": 0.25},
        {"stderr": None},
        {"stderr": 0.5},
        {"n": 301},
        {"outcomes": None},
        {"outcomes": ~evaluation(0).outcomes},  # type: ignore[operator]
        {"outcomes": evaluation(1).outcomes},
        {"seconds": 0.5},
        {"work": 0.5},
        {"divergence": 0},
    ],
    ids=str,
)
def test_the_comparison_can_fail(change: dict[str, Any]) -> None:
    assert same(evaluation(0), evaluation(0))
    assert not same(replace(evaluation(0), **change), evaluation(0))


def test_the_first_evaluation_of_a_key_stays(store: EvaluationStore) -> None:
    assert store.put(record(0))
    assert not store.put(replace(record(0), evaluation=evaluation(2), created="2026-01-01T00:00:00+00:00"))
    (kept,) = store.records()
    assert same(kept.evaluation, evaluation(0))
    assert kept.created == record(0).created


@pytest.mark.parametrize("key", FINGERPRINT)
def test_a_changed_fingerprint_is_never_a_hit(key: str, store: EvaluationStore) -> None:
    cached(ToyOracle(evaluation(0)), store).evaluate(scheme(0))
    changed = cached(ToyOracle(evaluation(2), fingerprint={**FINGERPRINT, key: "changed"}), store)
    assert changed.lookup(scheme(0)) is None
    assert same(changed.evaluate(scheme(0)), evaluation(2))
    assert (changed.hits, changed.misses) == (0, 1)


@pytest.mark.parametrize("text", ["w4", "w8", "w4@gptq", "w4:c", "w4:g32", "w4:s32", "w4a8", "fp16"])
def test_another_scheme_is_never_a_hit(text: str, store: EvaluationStore) -> None:
    others = {"keep", "w4", "w8", "w4@gptq", "w4:c", "w4:g32", "w4:s32", "w4a8", "fp16"} - {text}
    oracle = cached(ToyOracle(evaluation(0)), store)
    oracle.evaluate(Scheme.parse(text))
    assert [other for other in others if oracle.lookup(Scheme.parse(other)) is not None] == []
    assert oracle.lookup(Scheme.parse(text)) is not None


def test_the_oracle_is_asked_once(store: EvaluationStore) -> None:
    toy = ToyOracle(evaluation(0), evaluation(2))
    oracle = cached(toy, store)
    assert isinstance(oracle, Oracle)
    assert (oracle.metric, oracle.fingerprint) == (ACCURACY, FINGERPRINT)
    assert oracle.lookup(scheme(0)) is None
    assert toy.asked == []
    for _ in range(3):
        assert same(oracle.evaluate(scheme(0)), evaluation(0))
    assert (oracle.hits, oracle.misses, len(toy.asked)) == (2, 1, 1)
    assert same(oracle.lookup(scheme(0)), evaluation(0))  # type: ignore[arg-type]
    assert oracle.hits == 2


def test_numbers_of_other_types_come_back_plain(store: EvaluationStore) -> None:
    given = Evaluation(np.float64(0.5), np.float32(0.5), np.int64(3), None, Fraction(1, 2), 1, np.float64(0.25))  # type: ignore[arg-type]
    oracle = cached(ToyOracle(given), store)
    plain = Evaluation(0.5, 0.5, 3, None, 0.5, 1.0, 0.25)
    assert same(oracle.evaluate(scheme(0)), plain)
    assert same(oracle.evaluate(scheme(0)), plain)


def test_the_evaluation_stored_first_is_returned_where_two_measure_at_once(store: EvaluationStore) -> None:
    class Slow(ToyOracle):
        def evaluate(self, scheme: Scheme) -> Evaluation:
            store.put(record(0))
            return super().evaluate(scheme)

    oracle = cached(Slow(evaluation(2)), store)
    assert same(oracle.evaluate(scheme(0)), evaluation(0))
    assert (oracle.hits, oracle.misses) == (0, 1)


HALF = np.array([True, False])


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (0.9, "float in place of an Evaluation"),
        (None, "NoneType in place of an Evaluation"),
        (Evaluation(float("nan")), "value nan, which is no finite number"),
        (Evaluation(np.float32("inf")), "value inf, which is no finite number"),
        (Evaluation("0.9"), "value '0.9', which is no finite number"),
        (Evaluation(None), "value None, which is no finite number"),
        (Evaluation(10**400), f"value 1{'0' * 39}…, which is no finite number"),
        (Evaluation(torch.tensor(0.5)), "value tensor(0.5000), which is no finite number"),
        (Evaluation(0.9, float("nan")), "stderr nan, which is no finite number"),
        (Evaluation(0.9, -0.1), "stderr -0.1, which is below 0"),
        (Evaluation(0.9, n=-1), "n -1, which is no count"),
        (Evaluation(0.9, n=2**63), "n 9223372036854775808, which is no count"),
        (Evaluation(0.9, n=1.0), "n 1.0, which is no count"),
        (Evaluation(0.9, n=None), "n None, which is no count"),
        (Evaluation(0.9, seconds=float("inf")), "seconds inf, which is no finite number"),
        (Evaluation(0.9, seconds=-1), "seconds -1, which is below 0"),
        (Evaluation(0.9, work=-1), "work -1, which is below 0"),
        (Evaluation(0.9, divergence=float("nan")), "divergence nan, which is no finite number"),
        (Evaluation(0.5, n=3, outcomes=HALF), "outcomes of shape [2] for n = 3 examples"),
        (Evaluation(0.5, n=2, outcomes=HALF[None]), "outcomes of shape [1, 2] for n = 2 examples"),
        (Evaluation(0.5, n=0, outcomes=HALF[:0]), "outcomes of shape [0] for n = 0 examples"),
        (Evaluation(0.5, n=2, outcomes=HALF * 1.0), "outcomes of type float64, known: arrays of bool or float32"),
        (Evaluation(0.5, n=2, outcomes=[True, False]), "outcomes of type list, known: arrays of bool or float32"),
        (Evaluation(0.6, n=2, outcomes=HALF), "value 0.6 with outcomes whose mean is 0.5"),
        (Evaluation(0.0, n=2, outcomes=HALF), "value 0.0 with outcomes whose mean is 0.5"),
        (Evaluation(0.5 + 1e-8, n=2, outcomes=HALF), "value 0.50000001 with outcomes whose mean is 0.5"),
        (Evaluation(0.5, n=1, outcomes=np.array([np.nan], np.float32)), "outcomes that are not all finite"),
    ],
    ids=str,
)  # fmt: skip
def test_nonsense_is_refused_and_not_stored(answer: Any, text: str, store: EvaluationStore) -> None:
    oracle = cached(ToyOracle(answer, evaluation(0)), store)
    with pytest.raises(OracleError) as caught:
        oracle.evaluate(scheme(0))
    assert str(caught.value) == f"the oracle returned {text}: nothing was stored. Next: mend the oracle, or its data."
    assert (store.stats().oracles, store.stats().evaluations) == (0, 0)
    assert same(oracle.evaluate(scheme(0)), evaluation(0))


def test_a_mean_that_differs_by_rounding_is_fine(store: EvaluationStore) -> None:
    given = Evaluation(0.5 * (1 + 1e-12), None, 2, HALF)
    assert same(cached(ToyOracle(given), store).evaluate(scheme(0)), given)


def test_what_the_oracle_raises_passes_and_nothing_is_stored(store: EvaluationStore) -> None:
    class Failing(ToyOracle):
        def evaluate(self, scheme: Scheme) -> Evaluation:
            raise OracleError("no. Next: go.")

    oracle = cached(Failing(), store)
    with pytest.raises(OracleError, match=re.escape("no. Next: go.")):
        oracle.evaluate(scheme(0))
    assert (store.stats().evaluations, oracle.misses) == (0, 0)


def test_one_fingerprint_with_two_metrics_is_refused(store: EvaluationStore) -> None:
    store.put(record(0))
    oracle = ToyOracle()
    oracle.metric = Metric("loss", "nats", False)
    with pytest.raises(OracleError) as caught:
        cached(oracle, store)
    assert str(caught.value).startswith(f"the store has fingerprint {DIGEST[:12]} with Metric(name='accuracy'")
    assert str(caught.value).endswith("Next: put the metric into the oracle's fingerprint.")
    with pytest.raises(CacheError, match=f"has fingerprint {DIGEST[:12]} with metric .*accuracy.*, got .*loss"):
        store.put(replace(record(1), metric=oracle.metric))
    assert store.stats().evaluations == 1


def test_a_fingerprint_that_is_no_text_is_refused(store: EvaluationStore) -> None:
    with pytest.raises(OracleError) as caught:
        cached(ToyOracle(fingerprint={"n": 300}), store)  # type: ignore[dict-item]
    assert str(caught.value) == "the oracle's fingerprint has 'n': 300, known: texts. Next: write it as text."


OPTIONS = tuple(map(LayerPrecision.parse, ("keep", "w8", "w4@gptq", "w8a8", "w4a8@gptq", "keep/int8")))


@pytest.mark.parametrize("name", ["digits_cnn", "resnet20", "mobilenet_v2"])
def test_canonical_form_is_the_cost_tables(name: str) -> None:
    graph = zoo_graph(name)
    table = CostTable(graph, FLAT, OPTIONS)
    canonical = partial(canonical_scheme, graph)
    for k, option in enumerate(OPTIONS):
        chosen = table.scheme([k] * len(graph.layers))
        assert canonical(chosen).digest() == chosen.digest()
        assert canonical(Scheme.parse(str(option))).digest() == chosen.digest()
        assert canonical(table.uniform(k)).digest() == chosen.digest()
    rng = np.random.default_rng(0)
    for choice in rng.integers(len(OPTIONS), size=(10, len(graph.layers))).tolist():
        chosen = table.scheme(choice)
        rules = list(chosen.rules)
        rng.shuffle(rules)  # type: ignore[arg-type]
        spelled = Scheme(OPTIONS[1], tuple(rules), "another name")
        assert canonical(spelled).digest() == canonical(chosen).digest() == chosen.digest()
        assert [rule.pattern for rule in canonical(spelled).rules] == list(graph.layers)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("w4", "keep,*=w4"),
        ("w4", "w8,re:.*=w4"),
        ("w4,fc=w8", "keep,fc=w8,*=w4"),
        ("W4", "int4/keep"),
        ("w8a8", "int8/int8"),
        ("fp16", "fp16/fp16"),
        ("w4,0=w8,0=w2", "w4,0=w8"),
    ],
)
def test_schemes_that_mean_the_same_share_a_key(one: str, other: str, store: EvaluationStore) -> None:
    graph = replace(zoo_graph("digits_cnn"), keep_weights=())
    first, second = (text.replace("fc", graph.layers[-1]).replace("0=", f"{graph.layers[0]}=") for text in (one, other))
    toy = ToyOracle(evaluation(0))
    oracle = CachedOracle(toy, store, partial(canonical_scheme, graph))
    oracle.evaluate(Scheme.parse(first))
    oracle.evaluate(Scheme.parse(second))
    assert oracle.hits == 1
    assert toy.asked == [canonical_scheme(graph, Scheme.parse(first))]


def test_kept_weights_stay_unless_a_rule_says_otherwise() -> None:
    graph = replace(zoo_graph("digits_cnn"), keep_weights=(zoo_graph("digits_cnn").layers[0],))
    first = graph.layers[0]

    def formats(text: str) -> str:
        return str(canonical_scheme(graph, Scheme.parse(text)).rules[0].precision)

    assert formats("w4") == "keep"
    assert formats("w4a8@gptq") == "keep/int8@gptq"
    assert formats(f"w4,{first}=w4") == "int4/keep"
    table = CostTable(graph, FLAT, OPTIONS)
    for k, option in enumerate(OPTIONS):
        chosen = canonical_scheme(graph, Scheme.parse(str(option)))
        assert chosen.digest() == table.scheme([k] * len(graph.layers)).digest()


def test_weights_that_are_no_floats_take_no_format() -> None:
    table = torch.arange(12).reshape(4, 3)
    model = Fn(lambda self, x: self.fc(self.embed(x.long()).float()), embed=nn.Embedding(4, 3), fc=nn.Linear(3, 2))
    model.embed.weight = nn.Parameter(table, requires_grad=False)
    graph = trace(model, torch.zeros(1, 2))
    assert graph.layers == ("embed", "fc")
    chosen = CostTable(graph, FLAT, OPTIONS).scheme([3, 3])
    found = canonical_scheme(graph, Scheme.parse("w8a8"))
    assert [str(rule.precision) for rule in found.rules] == ["keep/int8", "int8/int8"]
    assert found.digest() == chosen.digest() == canonical_scheme(graph, Scheme.parse("keep,*=w8a8")).digest()


def test_rules_for_ops_without_weights_stay_in_the_key() -> None:
    graph = zoo_graph("digits_cnn")
    name = next(op.name for op in graph if not op.weighted and op.name not in graph.layers)
    plain = canonical_scheme(graph, Scheme.parse("w8"))
    more = canonical_scheme(graph, Scheme.parse(f"w8,{name}=fp16"))
    assert more.rules == (*plain.rules, Rule(name, LayerPrecision.parse("fp16")))
    assert more.digest() != plain.digest()
    assert canonical_scheme(graph, more) == more


def test_canonical_form_refuses_what_the_graph_has_not() -> None:
    graph = zoo_graph("resnet20")
    with pytest.raises(UnknownNameError, match="unknown layer 'layer9'"):
        canonical_scheme(graph, Scheme.parse("w8,layer9=w4"))
    with pytest.raises(SchemeError, match="names a module whose layers have names of their own"):
        canonical_scheme(graph, Scheme.parse("w8,layer1=w4"))
