"""The best scheme for each machine, from evaluations of a search that was paid for and from losses of single layers."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aiq._whatif import Sweep, whatif
from aiq._whatif_answers import answer
from aiq._whatif_machines import Machine
from aiq._whatif_schemes import Choices, best_additive, best_stored, stored
from aiq._whatif_words import sentences
from aiq.cache import EvaluationStore, Record, canonical_scheme
from aiq.digest import layers_digest
from aiq.racing import LossLimit
from roofline import LayerPrecision, Rule, Scheme, estimate
from roofline.errors import AIQError, InputError
from roofline.scheme import matches
from tests.evaluations import CREATED
from tests.machines import machine, zoo_graph
from tests.searching import ACCURACY, FakeOracle
from tests.test_whatif import Fixed, own

GRAPH = zoo_graph("digits_cnn")
INT_MACHINE = machine({"fp32": 1e11, "int8": 8e11}, (("dram", 5e11, None),), name="int-machine")
MEMORY_BOUND = machine({"fp32": 1e15}, (("dram", 1e9, None),), name="memory-bound")
FORMATS = [LayerPrecision.parse(text) for text in ("keep", "w8", "w8a8", "w4a8")]


def fingerprint(split: str = "search", **changes: str) -> dict[str, str]:
    given = {**FakeOracle(split).fingerprint, "layers": layers_digest(GRAPH), "model": "digits_cnn"}
    return {**given, **changes}


def scheme(rng: random.Random) -> Scheme:
    """Draw a scheme of a search: layers that the model declares as kept have their own weights."""
    drawn = {layer: rng.choice(FORMATS) for layer in GRAPH.layers}
    kept = {layer: replace(own, weights=None) for layer, own in drawn.items() if "shortcut" in layer}
    return Scheme(LayerPrecision(), tuple(Rule(layer, own) for layer, own in {**drawn, **kept}.items()))


def fill(
    store: EvaluationStore, count: int = 40, *, split: str = "search", baseline: bool = True, **changes: str
) -> None:
    rng, oracle = random.Random(0), FakeOracle(split)
    tried = [Scheme()] * baseline + [scheme(rng) for _ in range(count)]
    for each in tried:
        own_form = canonical_scheme(GRAPH, each)
        store.put(Record(fingerprint(split, **changes), ACCURACY, own_form, oracle.evaluate(own_form), CREATED))


def sweep(*machines: Machine, batches: tuple[int, ...] = (1, 16)) -> Sweep:
    return whatif(Fixed(), machines or own(INT_MACHINE, MEMORY_BOUND), batches=batches)


def chosen(choices: Choices) -> dict[tuple[str, int], str]:
    return {(each.machine, each.batch): each.label for each in choices.chosen}


@pytest.mark.parametrize("points", [0.0, 1.0, 5.0, 100.0])
def test_it_is_the_fastest_of_those_within_the_limit(store: EvaluationStore, points: float) -> None:
    fill(store)
    evaluated = stored(GRAPH, store)
    found = best_stored(sweep(), evaluated, LossLimit(points))
    start = evaluated.baseline.value
    for each in found.chosen:
        spec = {"int-machine": INT_MACHINE, "memory-bound": MEMORY_BOUND}[each.machine]
        within = [
            estimate(GRAPH, spec, record.scheme, batch=each.batch).latency_s
            for record in evaluated.records
            if 100 * (start - record.evaluation.value) <= points + 1e-6
        ]
        plain = estimate(GRAPH, spec, batch=each.batch).latency_s
        assert each.scheme is not None
        assert each.latency_s == min([*within, plain])
        assert each.speedup == pytest.approx(plain / each.latency_s)
        assert estimate(GRAPH, spec, each.scheme, batch=each.batch).latency_s == each.latency_s
        assert each.loss <= points + 1e-6
        assert each.figures is not None
        assert each.figures.value == pytest.approx(start - each.loss / 100)
        if each.figures.drop_interval:
            low, high = each.figures.drop_interval
            assert low <= each.loss <= high
    assert found.schemes == 41


def test_machines_may_want_different_schemes(store: EvaluationStore) -> None:
    fill(store)
    labels = set(chosen(best_stored(sweep(), stored(GRAPH, store), LossLimit(3.0))).values())
    assert len(labels) > 1


def test_a_share_of_the_float_models_value_is_a_limit_too(store: EvaluationStore) -> None:
    fill(store)
    evaluated = stored(GRAPH, store)
    share = best_stored(sweep(), evaluated, LossLimit(None, 0.02))
    points = best_stored(sweep(), evaluated, LossLimit(2.0 * evaluated.baseline.value))
    assert share.limit == pytest.approx(points.limit)
    assert chosen(share) == chosen(points)


def test_what_does_not_fit_is_not_chosen(store: EvaluationStore) -> None:
    fill(store)
    evaluated = stored(GRAPH, store)
    free = best_stored(sweep(), evaluated, LossLimit(100.0)).chosen[0]
    assert free.scheme is not None
    room = estimate(GRAPH, INT_MACHINE, free.scheme, batch=1).memory.total_bytes - 1
    tight = machine({"fp32": 1e11, "int8": 8e11}, (("dram", 5e11, float(room)),), name="tight")
    (found,) = best_stored(sweep(*own(tight), batches=(1,)), evaluated, LossLimit(100.0)).chosen
    assert found.scheme is not None
    assert found.scheme != free.scheme
    assert estimate(GRAPH, tight, found.scheme).fits
    (none,) = best_stored(
        sweep(*own(machine(memory=(("dram", 1e11, 10.0),), name="none")), batches=(1,)), evaluated, LossLimit(100.0)
    ).chosen
    assert (none.scheme, none.label) == (None, "no scheme is within the limit and fits")


def test_the_oracle_with_most_evaluations_speaks_unless_one_is_named(store: EvaluationStore) -> None:
    fill(store, 10)
    fill(store, 3, split="report")
    found = stored(GRAPH, store)
    assert (found.split, len(found.records), found.others) == ("search", 10, 1)
    report = next(oracle for oracle in store.oracles() if oracle.fingerprint["split"] == "report")
    named = stored(GRAPH, store, report.digest[:8])
    assert (named.digest, named.split, len(named.records)) == (report.digest, "report", 3)


def test_evaluations_of_another_model_are_left_alone(store: EvaluationStore) -> None:
    fill(store, 3, layers="other")
    fill(store, 3, split="report", model="other")
    with pytest.raises(InputError) as refused:
        stored(GRAPH, store)
    assert str(refused.value) == (
        "the cache holds no evaluation of a model with the layers of digits_cnn. "
        "Next: run 'aiq search', or 'aiq cache list' for what there is."
    )
    with pytest.raises(InputError, match="holds no evaluation with fingerprint 'zz' of a model"):
        stored(GRAPH, store, "zz")


def test_losses_need_the_float_model(store: EvaluationStore) -> None:
    fill(store, 3, baseline=False)
    with pytest.raises(
        InputError, match=r"no evaluation of digits_cnn in its own formats by oracle \w{12}, which losses"
    ):
        stored(GRAPH, store)


def test_nothing_is_evaluated(store: EvaluationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store)
    evaluations = store.stats().evaluations

    def fails(*_: object) -> None:
        raise AssertionError("an oracle was called")

    monkeypatch.setattr(FakeOracle, "evaluate", fails)
    best_stored(sweep(), stored(GRAPH, store), LossLimit(1.0))
    assert store.stats().evaluations == evaluations


def test_the_words_name_scheme_accuracy_and_interval(store: EvaluationStore) -> None:
    fill(store)
    found = sweep(batches=(1,))
    choices = best_stored(found, stored(GRAPH, store), LossLimit(3.0))
    words = sentences(found, answer(found), choices)
    at = next(
        i for i, line in enumerate(words) if line.startswith("best scheme that loses at most 3.00 points; 41 schemes")
    )
    assert "split search, n = 400" in words[at]
    assert words[at + 1].startswith(f"int-machine, batch 1: {choices.chosen[0].label}, ")
    assert "accuracy " in words[at + 1]
    assert "points lost (95 % paired: " in words[at + 1]
    data = json.loads(json.dumps(choices.to_dict(), allow_nan=False))
    assert data["chosen"][0]["paired_drop"]["interval"]


def table(folder: Path, losses: dict[str, float]) -> str:
    path = folder / "losses.json"
    cells = {layer: {"w8": loss, "w8a8": 2 * loss, "keep/int8": 2 * loss} for layer, loss in losses.items()}
    path.write_text(json.dumps({"unit": "points", "losses": cells}))
    return f"table:{path}"


@pytest.mark.parametrize("points", [0.0, 0.8, 3.0, 50.0])
def test_losses_of_single_layers_are_solved_exactly(tmp_path: Path, points: float) -> None:
    losses = {layer: 0.3 + 0.2 * place for place, layer in enumerate(GRAPH.layers)}
    found = whatif(Fixed(), own(INT_MACHINE), [Scheme.parse(t) for t in ("w8", "w8a8")], batches=(1,))
    (best,) = best_additive(found, table(tmp_path, losses), None, LossLimit(points)).chosen
    rng = np.random.default_rng(0)
    kept = [any(matches(pattern, layer) for pattern in GRAPH.keep_weights) for layer in losses]
    costs = np.array([[0.0, 0.0 if k else loss, 2 * loss] for loss, k in zip(losses.values(), kept, strict=True)])
    fastest = np.inf
    for choice in rng.integers(0, 3, (400, len(losses))):
        if costs[np.arange(len(losses)), choice].sum() <= points:
            formats = [
                replace(FORMATS[k], weights=None) if own else FORMATS[k] for k, own in zip(choice, kept, strict=True)
            ]
            rules = (Rule(layer, each) for layer, each in zip(losses, formats, strict=True))
            fastest = min(fastest, estimate(GRAPH, INT_MACHINE, Scheme(rules=tuple(rules))).latency_s)
    assert best.scheme is not None
    assert best.loss <= points * (1 + 1e-9) + 1e-9
    assert best.latency_s <= fastest * (1 + 1e-9)
    assert best.latency_s == estimate(GRAPH, INT_MACHINE, best.scheme).latency_s


def test_losses_of_single_layers_are_refused_without_formats_points_or_weights(tmp_path: Path) -> None:
    losses = table(tmp_path, dict.fromkeys(GRAPH.layers, 1.0))
    found = whatif(Fixed(), own(INT_MACHINE), [Scheme.parse("w8")], batches=(1,))
    with pytest.raises(InputError, match=r"no value to take a share of\. Next: give --max-loss in points\."):
        best_additive(found, losses, None, LossLimit(None, 0.01))
    with pytest.raises(InputError, match=r"no format to choose from\. Next: name some, for instance --scheme w8,w8a"):
        best_additive(sweep(), losses, None, LossLimit(1.0))
    with pytest.raises(InputError, match=r"without weights, which the oracle 'fisher' reads\. Next: give --losses"):
        best_additive(found, "fisher", None, LossLimit(1.0))
    with pytest.raises(AIQError, match="no loss for layer"):
        wide = whatif(Fixed(), own(INT_MACHINE), [Scheme.parse("w4")], batches=(1,))
        best_additive(wide, losses, None, LossLimit(1.0))


def test_schemes_that_a_table_of_layers_cannot_hold_are_counted(store: EvaluationStore) -> None:
    fill(store, 5)
    oracle = FakeOracle()
    beyond = Scheme.parse("keep,relu=w8a8,layer2.0.shortcut.0=w8")
    store.put(Record(fingerprint(), ACCURACY, canonical_scheme(GRAPH, beyond), oracle.evaluate(Scheme()), CREATED))
    found = best_stored(sweep(batches=(1,)), stored(GRAPH, store), LossLimit(100.0))
    assert "; 1 of those within the limit are left out, as a table of layers cannot hold their rules" in found.evidence
    assert found.schemes == 7
