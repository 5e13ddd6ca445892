"""Pricing many combinations at once: what the estimate gives one by one, and what faster parts bring."""

from __future__ import annotations

import random
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hardware_specs
from hardware_specs import HardwareSpec
from roofline import OpGraph, Scheme, estimate, trace
from roofline.errors import InputError, MissingCeilingError
from roofline.frontends.transformers import from_config
from roofline.grid import Grid
from roofline.times import Times
from roofline.traffic import TRAFFIC_MODELS
from tests.calibrated import CALIBRATED
from tests.machines import FLAT, NO_FP32, THREE_LEVELS, TWO_LEVELS, Fn, machine, zoo_graph
from tests.networks import llama_tiny

SCHEMES = ("keep", "fp16", "w8a8", "w4:g128", "w4:g32a8", "int8:c/bf16", "w8kv8", "fp8_e4m3")
BATCHES = (1, 2, 3, 7, 16, 33, 100, 1000, 4097, 100_000)
CATALOGUE = tuple(hardware_specs.load(name) for name in hardware_specs.names())
TINY = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 100,
    "num_attention_heads": 4, "num_key_value_heads": 2, "torch_dtype": "bfloat16", "max_position_embeddings": 512,
}  # fmt: skip


def tokens(network: nn.Module, *shape: int) -> OpGraph:
    with torch.device("meta"):
        return trace(network, torch.zeros(shape, dtype=torch.int64))


@cache
def graphs() -> dict[str, OpGraph]:
    return {
        "resnet20": zoo_graph("resnet20"),
        "digits_cnn": zoo_graph("digits_cnn", batch=4),
        "llama": tokens(llama_tiny(), 3, 70),  # 70 lookups in a table of 64 rows
        "decode": from_config(TINY, phase="decode", batch=2, context=100),
        "prefill": from_config(TINY, phase="prefill", batch=1, context=64),
    }


def close(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-12 * abs(one)


@pytest.mark.parametrize("traffic", TRAFFIC_MODELS)
@pytest.mark.parametrize("name", ["resnet20", "digits_cnn", "llama", "decode", "prefill"])
def test_it_agrees_with_the_estimate(name: str, traffic: str) -> None:
    rng = random.Random(f"{name} {traffic}")
    graph = graphs()[name]
    grid = Grid(graph, traffic=traffic)
    machines = {m.name: m for m in (*rng.sample(CATALOGUE, 6), THREE_LEVELS, NO_FP32, TWO_LEVELS.sustained())}
    for text in rng.sample(SCHEMES, 4):
        scheme = Scheme.parse(rng.choice([text, f"{text},{graph.layers[0]}=keep", f"{text},{graph.layers[-1]}=w8a8"]))
        batches = sorted(rng.sample(BATCHES, 3))
        load = grid.at(batches).under(scheme)
        for hardware in rng.sample(list(machines.values()), 3):
            compare(graph, grid, hardware, scheme, batches)
        for i, batch in enumerate(batches):
            found = estimate(graph, FLAT, scheme, batch=batch, traffic=traffic)
            total, kv, activations = (float(part[i]) for part in load.memory)
            assert (load.flops[i], load.bytes[i], load.weight_bytes) == (found.flops, found.bytes, found.weight_bytes)
            assert (total, kv) == (found.memory.total_bytes, found.memory.kv_bytes)
            assert activations == found.memory.activation_bytes


def compare(graph: OpGraph, grid: Grid, hardware: HardwareSpec, scheme: Scheme, batches: list[int]) -> None:
    try:
        times = grid.at(batches).under(scheme).on(hardware)
    except MissingCeilingError as error:
        with pytest.raises(MissingCeilingError) as same:
            estimate(graph, hardware, scheme, batch=batches[0], traffic=grid.traffic)
        assert str(same.value) == str(error)
        return
    for i, batch in enumerate(batches):
        found = estimate(graph, hardware, scheme, batch=batch, traffic=grid.traffic)
        assert close(found.latency_s, times.latency_s[i])
        bounds = found.latency_by_bound
        for resource, seconds in zip((*times.resources, "transition"), times.by_bound, strict=True):
            assert close(bounds.get(resource, 0.0), seconds[i]), resource


def test_every_machine_of_the_catalogue_agrees() -> None:
    grid = Grid(zoo_graph("digits_cnn"))
    for hardware in CATALOGUE:
        compare(grid.graph, grid, hardware, Scheme.parse("w8a8,conv1=keep"), [1, 64])


def test_a_calibrated_machine_takes_its_kernel_models() -> None:
    hardware = CALIBRATED.calibrated()
    grid = Grid(zoo_graph("digits_cnn"))
    times = grid.at([1, 8]).under(Scheme.parse("w8a8")).on(hardware)
    found = [estimate(grid.graph, hardware, "w8a8", batch=b).latency_s for b in (1, 8)]
    assert times.latency_s.tolist() == found
    assert (times.faster("compute", 2.0), times.factor_for("compute", 2.0), times.factor_to_unbind(0)) == (None,) * 3


def test_a_graph_of_a_fixed_batch_is_priced_there_alone() -> None:
    mixture = {**TINY, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
    graph = from_config(mixture, phase="decode", batch=3, context=10)
    assert graph.fixed_batch
    grid = Grid(graph)
    assert grid.at([3]).under(Scheme()).flops.tolist() == [estimate(graph, FLAT).flops]
    with pytest.raises(InputError, match=r"holds for batch 3 alone, got 3, 4\. Next: build the graph at each batch\."):
        grid.at([3, 4])


def priced(
    scheme: str = "w8a8", traffic: str = "fused", batch: int = 64, hardware: HardwareSpec = THREE_LEVELS
) -> Times:
    return Grid(zoo_graph("resnet20"), traffic=traffic).at([batch]).under(Scheme.parse(scheme)).on(hardware)


def scaled(hardware: HardwareSpec, resource: str, factor: float) -> HardwareSpec:
    """The machine with one resource so many times faster."""

    def times(quantity: Any, by: float) -> Any:
        return quantity.model_copy(update={"value": quantity.value * by})

    if resource == "compute":
        return hardware.model_copy(update={"compute": {f: times(c, factor) for f, c in hardware.compute.items()}})
    if resource == "overhead":
        return hardware.model_copy(update={"launch_overhead_s": times(hardware.launch_overhead_s, 1 / factor)})
    levels = [
        level.model_copy(update={"bandwidth_bytes_per_s": times(level.bandwidth_bytes_per_s, factor)})
        if level.name == resource
        else level
        for level in hardware.memory
    ]
    return hardware.model_copy(update={"memory": tuple(levels)})


@pytest.mark.parametrize("resource", ["compute", "dram", "l2", "l1", "overhead"])
@pytest.mark.parametrize("traffic", TRAFFIC_MODELS)
def test_a_faster_part_is_a_faster_machine(resource: str, traffic: str) -> None:
    scheme = "w8a8,linear=keep"
    times = priced(scheme, traffic)
    again = priced(scheme, traffic, hardware=scaled(THREE_LEVELS, resource, 3.0))
    faster = times.faster(resource, 3.0)
    assert faster is not None
    assert close(float(again.latency_s[0]), float(faster[0]))
    assert faster[0] <= times.latency_s[0]


@pytest.mark.parametrize("batch", [1, 8, 512])
@pytest.mark.parametrize("speedup", [1.05, 1.3, 2.0])
def test_the_factor_for_a_speed_up_gives_it(batch: int, speedup: float) -> None:
    times = priced(batch=batch)
    reached = 0
    for resource in times.resources:
        (factor,) = times.factor_for(resource, speedup)  # type: ignore[misc]
        (limit,) = times.faster(resource, 1e30)  # type: ignore[misc]
        if np.isinf(factor):
            assert limit * speedup >= times.latency_s[0] * (1 - 1e-9)
            continue
        reached += 1
        (faster,) = times.faster(resource, factor)  # type: ignore[misc]
        assert faster * speedup == pytest.approx(times.latency_s[0], rel=1e-9)
        assert factor >= speedup * (1 - 1e-9)
    assert reached


@pytest.mark.parametrize("batch", [1, 4, 16, 64, 1024])
@pytest.mark.parametrize("scheme", ["keep", "w8a8"])
def test_the_factor_that_unbinds_changes_what_binds_most(batch: int, scheme: str) -> None:
    hardware = machine(memory=(("dram", 2e10, None), ("l2", 4e11, 4e6)), overhead=3e-6)
    times = priced(scheme, batch=batch, hardware=hardware)
    bound = int(times.by_bound[:-1, 0].argmax())
    factor = times.factor_to_unbind(0)
    assert factor is not None
    before = priced(scheme, batch=batch, hardware=scaled(hardware, times.resources[bound], factor * 0.999))
    after = priced(scheme, batch=batch, hardware=scaled(hardware, times.resources[bound], factor * 1.001))
    assert int(before.by_bound[:-1, 0].argmax()) == bound
    assert int(after.by_bound[:-1, 0].argmax()) != bound


def test_what_alone_takes_time_is_never_unbound() -> None:
    copies = trace(Fn(lambda _, x: x.clone()), torch.zeros(1, 4))
    times = Grid(copies, traffic="unfused").at([1, 2]).under(Scheme()).on(FLAT)
    assert times.latency_s.tolist() == [32 / 1e11, 64 / 1e11]
    assert times.factor_to_unbind(0) is None


def test_a_grid_without_rows_takes_no_time() -> None:
    times = Grid(trace(nn.ReLU(), torch.zeros(1, 4)), traffic="paper").at([1]).under(Scheme()).on(FLAT)
    assert (times.latency_s.tolist(), times.factor_to_unbind(0)) == ([0.0], None)


def test_the_leading_ceiling_is_where_most_flops_run() -> None:
    load = Grid(zoo_graph("resnet20")).at([1]).under(Scheme.parse("w8a8,conv1=keep"))
    assert load.leading_ceiling(FLAT).format == "int8"
    assert load.leading_ceiling(machine({"fp32": 1e12})).format == "fp32"


def test_the_leading_ceiling_sums_over_rows() -> None:
    """The largest row runs in FP32, and more FLOPs in all run in FP16."""
    widths = [40, 40, 40, 40, 64, 40]
    network = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))
    load = Grid(trace(network, torch.zeros(1, 40))).at([1]).under(Scheme.parse("fp16,3=keep"))
    assert load.leading_ceiling(FLAT).format == "fp16"
    assert max(load.matrix[:, 0]) == 2 * 40 * 64
