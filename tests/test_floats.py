"""A runtime that computes all floating-point layers in one format: what estimates and tables make of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hardware_specs import HardwareSpec
from roofline import CostTable, GraphEstimate, LayerPrecision, OpGraph, Precision, Scheme, estimate, trace
from roofline.estimate import resolve
from roofline.floats import common_half, families, float_kind, in_half
from roofline.scheme import Rule
from tests.calibrated import CALIBRATED, ONE_FLOAT, in_one_float, kernel, profile, with_kernels
from tests.machines import machine, zoo_graph

BF16 = Precision.parse("bf16")
# What each format runs in where the network computes in bf16.
RUNS_IN = {
    "keep": "bf16",
    "fp32": "bf16",
    "fp16": "bf16",
    "bf16": "bf16",
    "keep/bf16": "bf16",
    "bf16/keep": "bf16",
    "w8": "int8/bf16",
    "int4:g32/fp32": "int4:g32/bf16",
    "w8a8": "w8a8",
    "keep/int8": "keep/int8",
    "fp8_e4m3": "fp8_e4m3",
}
OPTIONS = tuple(map(LayerPrecision.parse, ("keep", "w8", "w8a8", "keep/int8", "fp16", "bf16", "int4:c/bf16")))
# The weights of some schemes fit the inner memory; no linear layer has a kernel model, and their bounds depend on it.
STRADDLING = in_one_float(
    with_kernels(
        machine({"fp32": 2e11, "bf16": 4e11, "int8": 8e11}, (("dram", 1e10, None), ("l2", 8e10, 6e5))),
        *(model for model in profile("fp32", "bf16", "int8", "fp16") if model.op != "linear"),
    )
)
# Nothing but rows.
PLAIN = in_one_float(
    with_kernels(CALIBRATED.model_copy(update={"kernels": ()}), *profile("fp32", "bf16", "int8", transitions=False))
)


@pytest.mark.parametrize("text", RUNS_IN)
def test_what_a_format_runs_in(text: str) -> None:
    assert in_half(LayerPrecision.parse(text), BF16) == LayerPrecision.parse(RUNS_IN[text])


def test_the_float_of_a_network() -> None:
    def half(*texts: str) -> str | None:
        found = common_half(map(LayerPrecision.parse, texts))
        return found.name if found else None

    assert half("keep", "w8a8", "w8", "fp8_e4m3", "bf16/fp32") is None
    assert (half("keep", "fp16"), half("keep/bf16", "fp32"), half("bf16", "fp16"), half()) == (
        "fp16",
        "bf16",
        "bf16",
        None,
    )


def test_which_options_run_together() -> None:
    assert families(OPTIONS) == ((0, 1, 2, 3), (2, 3, 4), (2, 3, 5, 6))
    assert families(OPTIONS[2:4]) == ((0, 1),)
    assert [float_kind(option) for option in OPTIONS] == ["wide", "wide", "", "", "fp16", "bf16", "bf16"]


def mixed(graph: OpGraph, seed: int) -> Scheme:
    """Return a random scheme with bf16 in it; some layers are in no rule and keep what the model declares."""
    random = np.random.default_rng(seed)
    texts = [text for text in RUNS_IN if text != "fp8_e4m3"]
    rules = [
        Rule(layer, LayerPrecision.parse(texts[int(random.integers(len(texts)))]))
        for layer in graph.layers
        if random.random() < 0.8
    ]
    return Scheme(LayerPrecision.parse("keep/bf16"), tuple(rules))


def ran(graph: OpGraph, scheme: Scheme) -> Scheme:
    """Return a scheme that says of every layer what another runs as."""

    def of(formats: LayerPrecision) -> LayerPrecision:
        (text,) = (text for text in RUNS_IN if LayerPrecision.parse(text) == formats)
        return LayerPrecision.parse(RUNS_IN[text])

    return Scheme(of(scheme.default), tuple(Rule(layer, of(given)) for layer, given in resolve(graph, scheme).items()))


def times(found: GraphEstimate) -> list[tuple[float, tuple[float, float] | None, str]]:
    """Return seconds, interval and model of all rows and transitions."""
    return [(row.latency_s, row.interval_s, row.model.label if row.model else "") for row in found.rows]


@pytest.mark.parametrize("traffic", ["fused", "unfused", "paper"])
@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2_cifar"])
def test_times_are_those_of_what_runs_and_bytes_those_of_the_scheme(name: str, traffic: str) -> None:
    graph = zoo_graph(name)
    for seed in range(3):
        scheme = mixed(graph, seed)
        found = estimate(graph, ONE_FLOAT, scheme, traffic=traffic)
        as_it_runs = estimate(graph, CALIBRATED.calibrated(), ran(graph, scheme), traffic=traffic)
        as_written = estimate(graph, CALIBRATED.calibrated(), scheme, traffic=traffic)
        assert times(found) == times(as_it_runs) != times(as_written)
        assert found.latency_s == as_it_runs.latency_s
        assert found.transitions == as_it_runs.transitions
        assert found.weight_bytes == as_written.weight_bytes
        for row, other in zip(found.layers, as_written.layers, strict=True):
            assert (row.bytes_by_role, row.bytes_by_level) == (other.bytes_by_role, other.bytes_by_level)
            assert row.precision == other.precision


@pytest.mark.parametrize("scheme", ["keep", "w8", "w8a8", "w8a8,conv1=keep", "w8a8,conv1=w8", "fp8_e4m3"])
def test_a_scheme_without_16_bit_floats_is_priced_as_ever(scheme: str) -> None:
    graph = zoo_graph("digits_cnn")
    found, before = (estimate(graph, spec, scheme) for spec in (ONE_FLOAT, CALIBRATED.calibrated()))
    assert times(found) == times(before)


def test_only_the_runtimes_that_the_file_names_and_only_if_calibrated() -> None:
    graph = zoo_graph("digits_cnn")
    named = HardwareSpec.model_validate(
        {
            **with_kernels(CALIBRATED, *CALIBRATED.kernels, kernel("conv", runtime="other")).model_dump(),
            "one_float_format": ["other"],
        }
    )
    for one, before in (
        (ONE_FLOAT.sustained(), CALIBRATED.sustained()),
        (named.calibrated("toyrun"), CALIBRATED.calibrated()),
    ):
        assert times(estimate(graph, one, "bf16,conv1=keep")) == times(estimate(graph, before, "bf16,conv1=keep"))
        assert CostTable(graph, one, OPTIONS).families == (tuple(range(len(OPTIONS))),)


def test_no_transition_between_floats_and_by_hand() -> None:
    graph = trace(nn.Sequential(*(nn.Linear(64, 64) for _ in range(4))), torch.zeros(64, 64))
    found = estimate(graph, ONE_FLOAT, "fp32,1=bf16,2=w8a8")
    changes = [(t.producer, t.source, t.target) for t in found.transitions]
    assert changes == [("1", "bf16", "int8"), ("2", "int8", "bf16")]
    assert all(t.bytes == 64 * 64 * 3 and t.latency_s == pytest.approx(64 * 64 * 3 / 5e9) for t in found.transitions)
    first, second = found.layers[:2]
    assert (first.latency_s, first.ceiling.format) == (second.latency_s, "bf16")
    assert (first.bytes, second.bytes) == (4 * (3 * 64 * 64 + 64), 2 * (3 * 64 * 64 + 64))
    assert (first.reason, second.reason) == ("runs in bf16, as all floating-point layers do", "")


def test_the_assumptions_say_so() -> None:
    graph = zoo_graph("digits_cnn")
    said = "toyrun computes all floating-point layers of a network in one format"
    half = ": those that the scheme leaves wider are timed in bf16, and keep their bytes"
    assert said in estimate(graph, ONE_FLOAT, "w8a8").assumptions
    assert said + half in estimate(graph, ONE_FLOAT, "bf16,conv1=keep").assumptions
    assert not [text for text in estimate(graph, CALIBRATED.calibrated(), "bf16").assumptions if said in text]


@pytest.mark.parametrize("traffic", ["paper", "unfused", "fused"])
@pytest.mark.parametrize("hw", [ONE_FLOAT, STRADDLING, PLAIN], ids=["one level", "levels", "no transitions"])
@pytest.mark.parametrize("name", ["resnet20", "digits_cnn"])
def test_scores_are_the_estimates(name: str, hw: HardwareSpec, traffic: str) -> None:
    graph = zoo_graph(name)
    table = CostTable(graph, hw, OPTIONS, traffic=traffic)
    random = np.random.default_rng(0)
    # Uniform ones, then those of each family, then mixtures of all.
    choices = [np.full(len(table.layers), k) for k in range(len(OPTIONS))]
    choices += [random.choice(family, len(table.layers)) for family in table.families for _ in range(3)]
    choices += [random.integers(0, len(OPTIONS), len(table.layers)) for _ in range(5)]
    scores = table.score(np.array(choices))
    for index, choice in enumerate(choices):
        priced = estimate(graph, hw, table.scheme(choice.tolist()), traffic=traffic)
        assert scores.latency_s[index] == priced.latency_s
        assert scores.bytes[index] == priced.bytes
        assert scores.weight_bytes[index] == priced.weight_bytes
    uniform, within = len(OPTIONS), 3 * len(table.families)
    assert table.runnable(np.array(choices)).tolist() == [True] * (uniform + within) + [False] * 5


def test_the_straddling_machine_has_levels_and_rows_without_a_model() -> None:
    assert CostTable(zoo_graph("resnet20"), STRADDLING, OPTIONS).levels == [0, 1]
    assert estimate(zoo_graph("resnet20"), STRADDLING).uncalibrated
    assert not CostTable(zoo_graph("resnet20"), PLAIN, OPTIONS).has_transitions


def test_a_scheme_of_one_float_costs_the_sum_of_its_parts() -> None:
    table = CostTable(zoo_graph("resnet20"), ONE_FLOAT, OPTIONS)
    places = np.arange(len(table.layers))
    for seed, family in enumerate(table.families):
        choice = np.random.default_rng(seed).choice(family, len(places))
        seconds = table.latency_s[table.levels[0]][places, choice].sum()
        seconds += sum(found[choice[a], choice[b]] for a, b, _, found in table.transitions)
        assert table.score(choice[None]).latency_s[0] == pytest.approx(seconds, rel=1e-12)


def test_transitions_between_floats_are_none_of_the_tables() -> None:
    table = CostTable(zoo_graph("resnet20"), ONE_FLOAT, [LayerPrecision.parse(text) for text in ("keep", "bf16")])
    assert not table.has_transitions
    other = CostTable(zoo_graph("resnet20"), CALIBRATED.calibrated(), table.options)
    assert other.has_transitions


def test_many_schemes_score_as_few() -> None:
    table = CostTable(zoo_graph("digits_cnn"), STRADDLING, OPTIONS)
    choice = np.random.default_rng(4).integers(0, len(OPTIONS), (9000, len(table.layers)), dtype=np.int8)
    together, few = table.score(choice), table.score(choice[8190:8195])
    for field in ("bytes", "weight_bytes", "latency_s"):
        assert np.array_equal(getattr(together, field)[8190:8195], getattr(few, field))
