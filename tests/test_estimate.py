"""The estimate: the paper's figures, relations between machines and schemes, bounds, transitions and the JSON form."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import hardware_specs
from aiq import zoo
from hardware_specs import HardwareSpec
from roofline import GraphEstimate, OpGraph, estimate, trace
from roofline.errors import AIQError, InputError, MissingCeilingError, UnknownNameError
from roofline.traffic import TRAFFIC_MODELS
from tests.machines import (
    FLAT,
    FLOATS,
    FP32_ONLY,
    MACHINES,
    NO_FP32,
    THREE_LEVELS,
    TWO_LEVELS,
    Fn,
    machine,
    machines,
    named_graph,
    zoo_graph,
)
from tests.networks import llama_tiny, vit_b_16

CATALOGUE = ("t4", "a100-80", "h100", "xeon-spr-2vcpu")
ALL_MACHINES = [*MACHINES.values(), *map(hardware_specs.load, CATALOGUE)]
every_machine = pytest.mark.parametrize("hw", ALL_MACHINES, ids=lambda hw: hw.name)
every_traffic = pytest.mark.parametrize("traffic", TRAFFIC_MODELS)
VALUES, SHORTCUTS, WEIGHTS = 412_746, 2_560, 268_336  # ResNet-20: activations, projection weights, the other 20 layers'
LINEAR = trace(nn.Sequential(nn.Linear(64, 32, bias=False)), torch.zeros(4, 64))


def paper_bytes(weight_bits: int, activation_bits: int) -> int:
    return VALUES * activation_bits // 8 + SHORTCUTS * 4 + WEIGHTS * weight_bits // 8


@every_machine
@pytest.mark.parametrize(
    ("scheme", "size", "intensity"),
    [
        ("keep", paper_bytes(32, 32), 29.850),
        ("w32", paper_bytes(32, 32), 29.850),
        ("w8", paper_bytes(8, 32), 42.303),
        ("w4", paper_bytes(4, 32), 45.464),
        ("w4:g128", paper_bytes(4, 32), 45.464),
        ("w8a8", paper_bytes(8, 8), 118.073),
        ("w4a8", paper_bytes(4, 8), 146.506),
    ],
)
def test_the_papers_intensities(hw: HardwareSpec, scheme: str, size: int, intensity: float) -> None:
    priced = estimate(zoo_graph("resnet20"), hw, scheme, traffic="paper")
    assert priced.flops == 2 * priced.macs == 81_626_368
    assert priced.bytes == size
    assert round(priced.arithmetic_intensity, 3) == intensity
    assert len(priced.layers) == 22


@pytest.mark.parametrize(("scheme", "intensity"), [("keep", 31.47), ("w8", 45.77), ("w4", 49.52)])
def test_padded_shortcuts_are_not_the_papers_network(scheme: str, intensity: float) -> None:
    priced = estimate(zoo_graph("resnet20_padded"), FLAT, scheme, traffic="paper")
    assert round(priced.arithmetic_intensity, 2) == intensity


def test_an_explicit_rule_quantizes_a_declared_keep() -> None:
    priced = estimate(zoo_graph("resnet20"), FLAT, "w8,*=w8", traffic="paper")
    assert priced.bytes == VALUES * 4 + SHORTCUTS + WEIGHTS


def check_totals(priced: GraphEstimate) -> None:
    assert priced.bytes == sum(r.bytes for r in priced.layers) + sum(t.bytes for t in priced.transitions)
    assert priced.flops == sum(row.flops for row in priced.layers)
    assert priced.macs == sum(row.macs for row in priced.layers)
    total = sum(r.latency_s for r in priced.layers) + sum(t.latency_s for t in priced.transitions)
    assert priced.latency_s == pytest.approx(total, rel=1e-12)
    assert sum(priced.latency_by_bound.values()) == pytest.approx(priced.latency_s, rel=1e-12)
    assert priced.throughput_per_s == pytest.approx(priced.batch / priced.latency_s)
    for row in priced.layers:
        assert row.bytes == sum(row.bytes_by_role.values())
        assert row.latency_s == max(row.seconds.values()) > 0
        assert row.seconds[row.resource] == row.latency_s
        assert row.bound in {"compute", "memory", "overhead"}
        assert (row.level is not None) == (row.bound == "memory")
        assert list(row.seconds) == ["compute", *row.bytes_by_level, "overhead"]
        assert list(row.bytes_by_level.values()) == sorted(row.bytes_by_level.values())
        assert list(row.bytes_by_level.values())[-1] == row.bytes


@every_machine
@every_traffic
@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "llama"])
def test_rows_sum_to_totals(hw: HardwareSpec, traffic: str, name: str) -> None:
    graph = named_graph(llama_tiny, (1, 5), torch.int64) if name == "llama" else zoo_graph(name)
    first, last = graph.layers[0], graph.layers[-1]
    for scheme in ("keep", f"w4:g32a8,{first}=fp32,{last}=w8"):
        check_totals(estimate(graph, hw, scheme, traffic=traffic, batch=2))


@every_machine
@every_traffic
@pytest.mark.parametrize("side", ["{0}/{0}", "{0}/keep"])
@pytest.mark.parametrize("name", [*zoo.names(), "vit_b_16", "llama"])
def test_halving_the_bits_never_adds_bytes_or_time(hw: HardwareSpec, traffic: str, side: str, name: str) -> None:
    if name == "vit_b_16":
        graph = named_graph(vit_b_16, (1, 3, 224, 224))
    else:
        graph = named_graph(llama_tiny, (1, 5), torch.int64) if name == "llama" else zoo_graph(name)
    steps = [estimate(graph, hw, side.format(f), traffic=traffic) for f in ("fp32", "fp16", "int8", "int4")]
    for wide, narrow in pairwise(steps):
        assert narrow.bytes <= wide.bytes and narrow.weight_bytes <= wide.weight_bytes
        assert narrow.latency_s <= wide.latency_s


@every_traffic
def test_halving_the_bits_never_adds_bytes_where_parameters_weigh_most(traffic: str) -> None:
    # Norm and bias vectors follow fp16 activations but not int8 ones: they must not grow back on the way.
    graph = trace(nn.Sequential(nn.Linear(1, 1000), nn.BatchNorm1d(1000)), torch.zeros(1, 1))
    steps = [estimate(graph, FLAT, f, traffic=traffic).bytes for f in ("fp32", "fp16", "int8", "int4")]
    assert steps == sorted(steps, reverse=True)


FACTORS = st.floats(1, 1e3)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(machines(), st.data(), FACTORS)
def test_a_faster_machine_is_never_slower(hw: HardwareSpec, data: st.DataObject, factor: float) -> None:
    graph = zoo_graph("digits_cnn")
    scheme, traffic = (
        data.draw(st.sampled_from(["keep", "w8a8", "w4", "w4a8,conv1=fp16"])),
        data.draw(st.sampled_from(TRAFFIC_MODELS)),
    )
    compute = {fmt: hw.ceiling(fmt) for fmt in hw.compute}
    levels = [
        (level.name, hw.bandwidth(i), level.capacity_bytes.value if level.capacity_bytes else None)
        for i, level in enumerate(hw.memory)
    ]
    which = data.draw(st.sampled_from([*compute, *(name for name, _, _ in levels)]))
    faster = machine(
        {fmt: rate * factor if fmt == which else rate for fmt, rate in compute.items()},
        [(name, rate * factor if name == which else rate, size) for name, rate, size in levels],
        overhead=hw.overhead_s,
    )
    slow, fast = (estimate(graph, m, scheme, traffic=traffic) for m in (hw, faster))
    check_totals(slow)
    assert fast.latency_s <= slow.latency_s
    assert fast.bytes == slow.bytes


@pytest.mark.parametrize("traffic", ["paper", "unfused", "fused"])
def test_at_the_ridge_both_resources_tie(traffic: str) -> None:
    size = 4 * (4 * 64 + 32 * 64 + 4 * 32)
    hw = machine({"fp32": 2.0 * 4 * 32 * 64}, (("dram", float(size), None),))
    (row,) = estimate(LINEAR, hw, traffic=traffic).layers
    assert row.seconds == {"compute": 1.0, "dram": 1.0, "overhead": 0.0}
    assert row.ridge == row.arithmetic_intensity
    assert row.headroom == 1.0
    for scale, bound in ((2, "memory"), (0.5, "compute")):
        other = machine({"fp32": 2.0 * 4 * 32 * 64 * scale}, (("dram", float(size), None),))
        (row,) = estimate(LINEAR, other, traffic=traffic).layers
        assert row.bound == bound
        assert (row.arithmetic_intensity < row.ridge) == (bound == "memory")


@every_machine
def test_work_without_flops_takes_time(hw: HardwareSpec) -> None:
    graph = trace(nn.Embedding(10, 8), torch.zeros(2, 3, dtype=torch.int64))
    (row,) = estimate(graph, hw, "w8").layers
    assert row.flops == 0 and row.arithmetic_intensity == 0
    assert 0 < row.latency_s < 1
    assert row.bound in {"memory", "overhead"}


def test_vector_work_runs_at_the_vector_ceiling() -> None:
    graph = trace(nn.Softmax(-1), torch.zeros(10, 10))
    (row,) = estimate(graph, machine({"fp32": 1.0, "fp16": 100.0}), "fp16").layers
    assert row.flops == 500 and row.seconds["compute"] == 500.0
    assert row.ceiling.format == "fp32"


@pytest.mark.parametrize("traffic", TRAFFIC_MODELS)
@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2_cifar", "llama"])
def test_a_larger_batch_never_lowers_the_intensity_of_a_layer(name: str, traffic: str) -> None:
    graph = named_graph(llama_tiny, (1, 5), torch.int64) if name == "llama" else zoo_graph(name)
    for scheme in ("keep", "w4:g32a8"):
        one, two = (estimate(graph, TWO_LEVELS, scheme, batch=b, traffic=traffic) for b in (1, 2))
        for small, large in zip(one.layers, two.layers, strict=True):
            if "weight" in small.bytes_by_role:
                assert large.arithmetic_intensity >= small.arithmetic_intensity


def small_net() -> OpGraph:
    layers = [nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(4)]
    return trace(nn.Sequential(*layers), torch.zeros(1, 8, 16, 16))


def test_a_model_that_fits_a_cache_is_bound_by_the_cache() -> None:
    hw = machine({"fp32": 1e15}, (("dram", 1e11, None), ("l2", 4e11, 1e6)))
    fused, unfused = (estimate(small_net(), hw, traffic=traffic) for traffic in ("fused", "unfused"))
    for row in fused.layers[1:-1]:
        assert (row.bound, row.level) == ("memory", "l2")
        assert row.bytes_by_level == {"dram": 0, "l2": row.bytes}
        assert row.ridge == 1e15 / 4e11
    # what the model is given and what it returns cross the outermost memory
    assert fused.layers[0].bytes_by_level["dram"] == fused.layers[-1].bytes_by_level["dram"] == 8 * 16 * 16 * 4
    assert {row.level for row in unfused.layers} == {"dram"}
    assert any("weights are read from l2" in a for a in fused.assumptions)
    tiny = machine({"fp32": 1e15}, (("dram", 1e11, None), ("l2", 4e11, 1e3)))
    assert {row.level for row in estimate(small_net(), tiny, traffic="fused").layers} == {"dram"}


def test_weights_stay_where_all_of_them_fit() -> None:
    weights, largest = 4 * 8 * 8 * 9 * 4, 2 * 8 * 16 * 16 * 4
    for spare, level in ((0, "l2"), (-1, "dram")):
        hw = machine(memory=(("dram", 1e11, None), ("l2", 4e11, float(weights + largest + spare))))
        priced = estimate(small_net(), hw, traffic="fused")
        assert any(f"weights are read from {level}" in a for a in priced.assumptions)
        assert priced.layers[1].bytes_by_level["dram"] == (0 if level == "l2" else 8 * 8 * 9 * 4)


def test_launches_bound_what_is_small() -> None:
    slow = estimate(small_net(), machine(overhead=1.0), traffic="unfused")
    assert {row.bound for row in slow.layers} == {"overhead"}
    assert slow.latency_s == 4.0
    assert all(row.level is None for row in slow.layers)
    assert slow.latency_by_bound == {"overhead": 4.0}
    assert not any("overhead" in a for a in slow.assumptions)
    assert "no launch overhead is known for toy: taken as 0" in estimate(small_net(), FLAT).assumptions


@pytest.mark.parametrize("level", ["compute", "overhead"])
def test_a_memory_level_cannot_hide_another_resource(level: str) -> None:
    try:
        hw = machine({"fp32": 1.0}, ((level, 1e30, None),))
    except (AIQError, ValueError):
        return
    assert estimate(LINEAR, hw).latency_s == 2.0 * 4 * 32 * 64


def test_sustained_rates() -> None:
    hw = machine(
        FLOATS, (("dram", 1e11, None), ("l2", 4e11, 1e6)), sustained={"fp32": 2.5e11, "dram": 5e10, "l2": 1e11}
    )
    for traffic in TRAFFIC_MODELS:
        peak, kept = (estimate(small_net(), m, traffic=traffic) for m in (hw, hw.sustained()))
        assert kept.latency_s >= peak.latency_s * 2
        assert kept.bytes == peak.bytes
    assert any("datasheet peaks of Toy machine" in a for a in peak.assumptions)
    assert any("measured sustained rates where there are some of Toy machine" in a for a in kept.assumptions)
    assert (peak.to_dict()["rates"], kept.to_dict()["rates"]) == ("datasheet", "sustained")


@pytest.mark.parametrize(
    ("traffic", "text"),
    [
        ("paper", "paper traffic: convolution and linear layers only, without bias, normalisation and scales"),
        ("unfused", "unfused traffic: every op reads and writes dram"),
        ("fused", "fused traffic: element-wise tails and normalisations run inside their producer"),
    ],
)
def test_assumptions(traffic: str, text: str) -> None:
    found = estimate(zoo_graph("resnet20"), TWO_LEVELS, traffic=traffic, batch=4).assumptions
    assert text in found and "1 MAC = 2 FLOP" in found
    assert "time is a lower bound from datasheet peaks of Toy machine, not a measurement" in found
    assert "traced at batch 1, scaled to 4" in found
    assert any(a.startswith("back-to-back passes: ") for a in found) == (traffic == "fused")


def refused(*args: Any, **kwargs: Any) -> tuple[type[BaseException], str]:
    with pytest.raises(AIQError) as caught:
        estimate(*args, **kwargs)
    return caught.type, str(caught.value)


def test_refusals() -> None:
    known = "known: paper, unfused, fused. Next: choose one."
    assert refused(LINEAR, FLAT, traffic="fuse") == (InputError, f"unknown traffic model 'fuse': {known}")
    kind, text = refused(zoo_graph("resnet20"), FLAT, "w8,conv2=keep")
    assert kind is UnknownNameError and text.startswith("unknown layer 'conv2': did you mean 'conv1'")
    kind, text = refused(LINEAR, NO_FP32)
    assert kind is MissingCeilingError
    assert text.startswith("no-fp32 states no fp32 ceiling and none that could stand in (no wider format): it has")
    assert estimate(LINEAR, NO_FP32, "bf16").layers[0].ceiling.format == "bf16"


@pytest.mark.parametrize("batch", [0, -1, 2.5])
def test_a_batch_is_a_whole_number(batch: float) -> None:
    text = f"batch must be a whole number of at least 1, got {batch}. Next: choose one."
    assert refused(LINEAR, FLAT, batch=batch) == (InputError, text)


def chain() -> OpGraph:
    return trace(
        nn.Sequential(nn.Linear(16, 16, bias=False), nn.ReLU(), nn.Linear(16, 8, bias=False)), torch.zeros(2, 16)
    )


def test_transitions() -> None:
    scheme = "w8a8,2=fp16"
    priced = {t: estimate(chain(), FLAT, scheme, traffic=t) for t in TRAFFIC_MODELS}
    (step,) = priced["unfused"].transitions
    assert (step.producer, step.consumer, step.elements, step.source, step.target) == ("1", "2", 32, "int8", "fp16")
    assert (step.bytes, step.latency_s) == (32 + 64, 96 / 1e11)
    (free,) = priced["fused"].transitions
    assert (free.producer, free.consumer, free.bytes, free.latency_s) == ("0", "2", 0, 0.0)
    assert priced["paper"].transitions == ()
    assert priced["unfused"].latency_by_bound["transition"] == step.latency_s
    late = estimate(chain(), machine(overhead=1e-3), scheme, traffic="unfused")
    assert late.transitions[0].latency_s == 1e-3
    assert estimate(chain(), FLAT, "w8a8", traffic="unfused").transitions == ()
    assert estimate(chain(), FLAT, "w8,2=w4", traffic="unfused").transitions == ()


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.l(x).argmax(-1),
        lambda m, x: m.l(x) * (m.l(x) > 0),
        lambda m, x: m.l(x).half().float(),
        lambda m, x: m.l(x).masked_fill(m.l(x).isnan(), 0),
    ],
)
def test_a_model_as_traced_has_no_transitions(function: Any) -> None:
    # Its own casts, comparisons and indices are ops already.
    graph = trace(Fn(function, l=nn.Linear(8, 8)), torch.zeros(2, 8))
    assert estimate(graph, FLAT, traffic="unfused").transitions == ()


KEYS = {
    *("schema_version", "model", "hardware", "scheme", "batch", "traffic", "flops", "macs", "bytes"),
    *("arithmetic_intensity", "latency_s", "throughput_per_s", "coverage", "unknown_ops", "layers"),
}
ROW_KEYS = {
    *("name", "kind", "flops", "bytes", "arithmetic_intensity", "bound", "level", "latency_s", "share"),
    *("precision", "reason"),
}


@every_machine
@every_traffic
def test_json(hw: HardwareSpec, traffic: str) -> None:
    graph = trace(Fn(lambda m, x: torch.fft.fft(m.l(x)).abs(), l=nn.Linear(8, 8)), torch.zeros(2, 8), name="net")
    priced = estimate(graph, hw, "w4a8", traffic=traffic, batch=3)
    data = json.loads(json.dumps(priced.to_dict(), allow_nan=False))
    assert data.keys() >= KEYS
    assert all(row.keys() >= ROW_KEYS for row in data["layers"])
    assert (data["schema_version"], data["model"], data["hardware"], data["scheme"]) == (1, "net", hw.name, "w4a8")
    assert (data["batch"], data["traffic"], data["bytes"], data["flops"]) == (3, traffic, priced.bytes, priced.flops)
    assert data["unknown_ops"] == graph.unknown != {}
    assert sum(row["share"] for row in data["layers"]) == pytest.approx(
        1 - sum(t["latency_s"] for t in data["transitions"]) / data["latency_s"]
    )
    assert sum(row["bytes"] for row in data["layers"]) + sum(t["bytes"] for t in data["transitions"]) == data["bytes"]


def test_repr_is_one_line() -> None:
    priced = estimate(LINEAR, THREE_LEVELS, "w8")
    assert repr(priced).startswith("GraphEstimate('Sequential' on three-levels, w8, batch 4, fused: ")
    assert "\n" not in repr(priced)


def test_a_model_without_priced_rows_says_so() -> None:
    priced = estimate(trace(nn.ReLU(), torch.zeros(2, 3)), FP32_ONLY, traffic="paper")
    assert (priced.bytes, priced.flops, priced.latency_s) == (0, 0, 0.0)
    assert priced.coverage["left_out_ops"] == 1
    json.dumps(priced.to_dict(), allow_nan=False)
