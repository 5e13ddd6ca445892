"""The spread of schemes that a validation measures."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest

from aiq._validate_schemes import FAMILIES, Pick, given, spread
from roofline import CostTable, LayerPrecision, Scheme
from roofline.errors import UnknownNameError
from roofline.estimate import resolve
from tests.calibrated import CALIBRATED, ONE_FLOAT
from tests.machines import zoo_graph

FORMATS = ("keep", "w8a8", "bf16")


@cache
def picks(model: str = "digits_cnn", count: int = 30, seed: int = 0, formats: tuple[str, ...] = FORMATS) -> list[Pick]:
    graph = zoo_graph(model)
    options = [LayerPrecision.parse(text) for text in formats]
    machine = CALIBRATED.calibrated()
    tables = {batch: CostTable(graph, machine, options, batch=batch) for batch in (1, 32)}
    losses = np.tile([0.0, 1.0, 0.1][: len(options)], (len(graph.layers), 1))
    return spread(tables, losses, graph, count=count, seed=seed)


def formats_of(pick: Pick, model: str = "digits_cnn") -> list[LayerPrecision]:
    return list(resolve(zoo_graph(model), pick.scheme).values())


@pytest.mark.parametrize("count", [2, 5, 17, 30])
def test_as_many_distinct_schemes_as_asked_for(count: int) -> None:
    found = picks(count=count)
    assert len(found) == count
    assert len({tuple(formats_of(pick)) for pick in found}) == count
    assert len({pick.name for pick in found}) == count


def test_every_family_has_its_share() -> None:
    counts = Counter(pick.family for pick in picks())
    assert set(counts) == set(FAMILIES) - {"given"}
    assert counts["uniform"] == len(FORMATS)
    assert min(counts["trade-off"], counts["pattern"], counts["random"]) >= 6
    assert [pick.name for pick in picks()[:3]] == ["keep", "w8a8", "bf16"]


@pytest.mark.parametrize("told_by", ["machine", "runtime"])
@pytest.mark.parametrize("model", ["digits_cnn", "mobilenet_v2_cifar"])
def test_a_runtime_of_one_float_is_given_no_mixture_and_both_floats(model: str, told_by: str) -> None:
    graph, options = zoo_graph(model), [LayerPrecision.parse(text) for text in FORMATS]
    machine = ONE_FLOAT if told_by == "machine" else CALIBRATED
    tables = {batch: CostTable(graph, machine, options, batch=batch) for batch in (1, 32)}
    losses = np.tile([0.0, 1.0, 0.1], (len(graph.layers), 1))
    found = spread(tables, losses, graph, count=30, one_float=told_by == "runtime")
    assert len(found) == len({tuple(formats_of(pick, model)) for pick in found}) == len({p.name for p in found}) == 30
    counts = {family: Counter[str]() for family in FAMILIES}
    for pick in found:
        names = {f.activations.name if f.activations else "fp32" for f in formats_of(pick, model)}
        assert not {"fp32", "bf16"} <= names, pick.name
        counts[pick.family]["+".join(sorted(names))] += 1
    assert counts["uniform"] == {"fp32": 1, "int8": 1, "bf16": 1}
    for family in ("trade-off", "pattern", "random"):
        assert set(counts[family]) == {"fp32+int8", "bf16+int8"}
        assert min(counts[family].values()) >= counts[family].total() / 3


def test_formats_that_do_not_go_together_leave_few_schemes() -> None:
    graph, options = zoo_graph("digits_cnn"), [LayerPrecision.parse(text) for text in ("keep", "bf16")]
    tables = {1: CostTable(graph, ONE_FLOAT, options)}
    losses = np.tile([0.0, 0.1], (len(graph.layers), 1))
    assert [pick.name for pick in spread(tables, losses, graph, count=30)] == ["keep", "bf16"]


def test_random_schemes_have_the_formats_of_others_in_other_places() -> None:
    """Layers whose weights are kept take an option's activations, so these tell the options apart everywhere."""

    def counts(pick: Pick) -> frozenset[tuple[str, int]]:
        return frozenset(Counter(str(formats.activations) for formats in formats_of(pick)).items())

    others = {counts(pick) for pick in picks() if pick.family in {"trade-off", "pattern"}}
    shuffled = [pick for pick in picks() if pick.family == "random"]
    assert shuffled
    for pick in shuffled:
        assert counts(pick) in others
        assert len(counts(pick)) > 1


def test_schemes_are_seeded() -> None:
    names = [[pick.scheme.digest() for pick in picks(seed=seed)] for seed in (0, 1)]
    assert names[0] == [pick.scheme.digest() for pick in picks.__wrapped__()]
    assert names[0] != names[1]


def test_patterns_of_a_network_with_depthwise_layers() -> None:
    model = "mobilenet_v2_cifar"
    graph = zoo_graph(model)
    depthwise = {op.layer for op in graph if op.kind == "depthwise_conv"}
    assert depthwise
    found = {pick.name: dict(zip(graph.layers, formats_of(pick, model), strict=True)) for pick in picks(model)}
    quantized = {
        name: {layer for layer, formats in by_layer.items() if formats != LayerPrecision()}
        for name, by_layer in found.items()
    }
    half = len(graph.layers) // 2
    assert quantized["only depthwise"] == depthwise
    assert quantized["all but depthwise"] == set(graph.layers) - depthwise
    assert quantized["first half"] == set(graph.layers[:half])
    assert quantized["last half"] == set(graph.layers[half:])
    assert quantized["alternating"] == set(graph.layers[::2])
    assert len(quantized["largest half"]) == half
    assert quantized["largest half"].isdisjoint(quantized["smallest half"])


def test_a_network_with_fewer_schemes_gives_them_all() -> None:
    found = picks(count=1000, formats=("keep", "w8a8"))
    assert 30 < len(found) < 2**9
    assert len({tuple(formats_of(pick)) for pick in found}) == len(found)


def test_the_fastest_of_each_batch_size_is_among_them() -> None:
    graph, options = zoo_graph("digits_cnn"), [LayerPrecision.parse(text) for text in FORMATS]
    for batch in (1, 32):
        table = CostTable(graph, CALIBRATED.calibrated(), options, batch=batch)
        index = {option: k for k, option in enumerate(options)}
        choices = [
            [table.layer_options(layer).index(f) if f not in index else index[f]
             for layer, f in zip(graph.layers, formats_of(p), strict=True)] for p in picks()
        ]  # fmt: skip
        latencies = table.score(np.array(choices)).latency_s
        random = np.random.default_rng(0).integers(0, 3, (2000, len(graph.layers)))
        assert latencies.min() <= table.score(random).latency_s.min() * (1 + 1e-9)


def test_given_schemes_keep_their_order_and_have_names_of_their_own() -> None:
    schemes = [Scheme.parse(text) for text in ("w8a8", "keep", "w8a8,conv1=keep", "fp32")]
    twin = Scheme.parse("bf16")
    found = given([*schemes, Scheme(twin.default, (), "w8a8"), Scheme.parse("w8a8")], zoo_graph("digits_cnn"))
    assert [pick.name for pick in found] == ["w8a8", "keep", "w8a8,conv1=keep", "fp32", "w8a8 (2)"]
    assert {pick.family for pick in found} == {"given"}


def test_a_scheme_of_another_model_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown layer 'layer9\.conv'") as refused:
        given([Scheme.parse("w8,layer9.conv=keep")], zoo_graph("digits_cnn"))
    assert "Next: run 'aiq graph MODEL' for the names" in str(refused.value)
