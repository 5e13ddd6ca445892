"""The key-value cache as a role with a format of its own, weights stored quantized, and graphs of one batch."""

from __future__ import annotations

import pytest

from aiq._views import roofline_report
from aiq.cache import canonical_scheme
from roofline import CostTable, LayerPrecision, Op, OpGraph, Precision, Scheme, TensorSpec, estimate
from roofline.errors import InputError
from tests.machines import FLAT, SLOW_INT8, machine

INT4 = Precision("int4", 4, 8, zero_point_bits=4)


def attention_graph(native: Precision | None = None, *, fixed: bool = False) -> OpGraph:
    """A projection of 16 to 16 values, then attention of one new token with 10 cached ones of two heads of 8."""
    width = 16
    stored = ("fp16", 16, True) if native is None else (native.name, native.bits, False)
    weight = TensorSpec("weight", (16, 16), 256, *stored, channels=16, name="q.weight", stored=256, native=native)
    token = TensorSpec("output", (1, width), width, "fp16", 16, True, batched=True, identity=1)
    read = TensorSpec("input", (1, width), width, "fp16", 16, True, batched=True, producers=(0,), identity=1)
    cached = [
        TensorSpec("kv", (1, 2, n, 8), 16 * n, "fp16", 16, True, batched=True, channels=2 * n, identity=10 + i)
        for i, n in enumerate((10, 10, 1, 1))
    ]
    ops = (
        Op(0, "q", "linear", "q", "aten.linear.default", 256, 0, (weight, token)),
        Op(1, "attn", "attention", "self", "attention", 2 * 11 * 16, 12 * 11, (read, *cached, token)),
    )
    return OpGraph("toy", ops, 1, frozenset({1}), {"q.weight": (256, stored[1])}, fixed_batch=fixed)


@pytest.mark.parametrize(
    ("scheme", "kv"),
    [
        ("keep", 2 * 11 * 16 * 2),
        ("w4", 2 * 11 * 16 * 2),
        ("w8a8", 2 * 11 * 16 * 2),
        ("fp32", 2 * 11 * 16 * 4),
        ("int4/fp32/fp16", 2 * 11 * 16 * 2),
        ("fp8_e4m3", 2 * 11 * 16 * 2),
        ("kv8", 2 * 11 * 16),
        ("w4a16kv8", 2 * 11 * 16),
        ("keep/keep/fp8_e4m3", 2 * 11 * 16),
        ("kv4", 2 * 11 * 8),
        # a scale of 16 bits for each group of 4 along a head's 8 values: 2 for each of 2 heads and 11 tokens
        ("kv4:g4", 2 * 11 * (8 + 2 * 2 * 2)),
        ("kv8:c", 2 * 11 * (16 + 2 * 2)),
        ("q=kv8", 2 * 11 * 16),
        ("attn=kv4", 2 * 11 * 8),
    ],
)
def test_cache_is_priced_in_its_own_format(scheme: str, kv: int) -> None:
    text = scheme if "=" not in scheme else f"keep,{scheme}"
    found = estimate(attention_graph(), FLAT, text, traffic="fused")
    row = found.layers[1]
    assert row.kv_bytes == row.bytes_by_role["kv"] == found.kv_bytes == kv
    assert found.summary()["kv_bytes"] == kv
    assert estimate(attention_graph(), FLAT, text, batch=3).kv_bytes == 3 * kv
    assert found.memory.kv_bytes == kv


def test_cache_has_a_column_of_its_own_only_where_there_is_one() -> None:
    graph = attention_graph()
    report = roofline_report(estimate(graph, FLAT, "kv8"))
    assert [c.title for c in report.columns].count("KV") == 1
    assert [row["kv_bytes"] for row in report.rows] == [None, 352]
    assert [row["precision"] for row in report.rows] == ["keep", "-/keep/int8"]
    alone = OpGraph("q", graph.ops[:1], 1, frozenset({0}), graph.parameters)
    assert "KV" not in [c.title for c in roofline_report(estimate(alone, FLAT)).columns]


@pytest.mark.parametrize(
    ("scheme", "computes_in", "reason"),
    [
        ("fp16", "fp16", ""),
        ("kv8", "fp16", "keys and values int8 are widened to fp16, the other operand's format"),
        ("w8a8", "fp16", "activations int8 are widened to fp16, the other operand's format"),
        ("w8a8kv8", "int8", ""),
        ("bf16/bf16/fp8_e4m3", "bf16", "fp8 keys and values and bf16 activations compute in bf16"),
    ],
)
def test_attention_computes_in_the_wider_of_query_and_cache(scheme: str, computes_in: str, reason: str) -> None:
    row = estimate(attention_graph(), FLAT, scheme).layers[1]
    assert (row.ceiling.format, row.reason) == (computes_in, reason)


def test_small_cache_stays_beside_the_weights() -> None:
    # Weights 512 B, cache 704 B, activations at most 64 B: 1280 B in all.
    for capacity, level in ((1279, "dram"), (1280, "l2")):
        spec = machine(memory=(("dram", 1e11, None), ("l2", 1e12, capacity)))
        crossing = estimate(attention_graph(), spec).layers[1].bytes_by_level
        assert crossing["dram"] >= 704 if level == "dram" else crossing["dram"] < 704


def test_table_agrees_with_the_estimate_on_cache_formats() -> None:
    options = [LayerPrecision.parse(text) for text in ("keep", "w4kv8", "kv4:g4", "w8a8kv8")]
    for graph in (attention_graph(), attention_graph(INT4)):
        table = CostTable(graph, SLOW_INT8, options)
        for k, option in enumerate(options):
            priced = estimate(graph, SLOW_INT8, Scheme(option))
            assert table.bytes[0, k] == priced.bytes
            assert table.weight_bytes[0, k] == priced.weight_bytes


def test_weights_stored_quantized_keep_their_format() -> None:
    graph = attention_graph(INT4)
    # 16 rows of 16 values in groups of 8: 32 groups with a scale of 16 bits and a zero point of 4
    stored = 256 * 4 // 8 + 32 * 20 // 8
    for scheme in ("keep", "w8", "w8a8", "fp16"):
        found = estimate(graph, FLAT, scheme)
        assert found.weight_bytes == found.layers[0].bytes_by_role["weight"] == stored
    assert graph.ops[0].native_bytes == stored + 32
    assert estimate(graph, FLAT, "keep", traffic="paper").weight_bytes == 128
    reason = "weights int4 are widened to fp16, the other operand's format"
    assert estimate(graph, FLAT, "fp16").layers[0].reason == reason


def test_canonical_scheme_keeps_the_cache_format() -> None:
    assert [str(r.precision) for r in canonical_scheme(attention_graph(), Scheme.parse("w4kv8")).rules] == [
        "int4/keep/int8"
    ]
    assert [str(r.precision) for r in canonical_scheme(attention_graph(INT4), Scheme.parse("w4kv8")).rules] == [
        "keep/keep/int8"
    ]


def test_digest_without_a_cache_format_is_what_it_was() -> None:
    assert Scheme.parse("w4:g128,q=w8a8").digest() == (
        "7f0a0ccf704164bd4540e670117f10f62a18cec0085a686cb0a445e709785e4d"
    )
    assert Scheme.parse("w8kv8").digest() != Scheme.parse("w8").digest()


def test_graph_of_fixed_batch_refuses_another() -> None:
    graph = attention_graph(fixed=True)
    assert estimate(graph, FLAT, batch=1).batch == 1
    with pytest.raises(InputError) as caught:
        estimate(graph, FLAT, batch=2)
    assert str(caught.value) == (
        "the graph of toy holds for batch 1 alone, since what it reads is not proportional to the batch, and batch 2 "
        "was asked of it. Next: build the graph at that batch."
    )
