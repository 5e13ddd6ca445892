"""One network through two doors: traced as a module, and read from the file that PyTorch exports of it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aiq import zoo
from aiq.quantize._fold import fold_batch_norms
from roofline import Op, OpGraph, estimate, read_onnx, trace
from roofline.graph import MATRIX_KINDS
from tests import networks
from tests.machines import FLAT

POSITIONS = "embeddings.position_embeddings"
IDS = torch.arange(16).reshape(1, 16)
SCHEMES = ("keep", "w4:g32a8", "fp16")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    level = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)


def drawn(module: nn.Module) -> nn.Module:
    """Give every parameter values of its own: exporters drop zeros, and store equal tensors once."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return module.eval()


def exported(module: nn.Module, example: Tensor, path: Path, **options: Any) -> OpGraph:
    """Export and read; the file holds no weights when ``dynamo``, which the reader does not miss."""
    with quiet():
        if not options.pop("dynamo", True):
            torch.onnx.export(module, (example,), path, dynamo=False, **options)
        else:
            program = torch.onnx.export(module, (example,), dynamo=True, verbose=False, **options)
            assert program is not None
            program.save(path, external_data=True)
            path.with_name(f"{path.name}.data").unlink(missing_ok=True)
    return read_onnx(path)


def cost(op: Op) -> tuple[Any, ...]:
    return op.kind, op.macs, op.vector_flops, op.native_bytes, op.note, op.extents, op.variant, op.batched


def unlike(left: OpGraph, right: OpGraph) -> list[Op]:
    """Ops of the first graph that the second has none for, by cost and, with weights, by name."""
    have = Counter((cost(op), op.name if op.weighted else "") for op in right)
    return [op for op in left if not have[cost(op), op.name if op.weighted else ""]]


def in_place(graph: OpGraph) -> bool:
    """Whether the module overwrites activations, which no ONNX operator does."""
    return any(op.target.rpartition(".")[0].endswith("_") for op in graph)


def assert_same(left: OpGraph, right: OpGraph, *, schemes: tuple[str, ...] = SCHEMES) -> None:
    assert [cost(op) for op in left] == [cost(op) for op in right]
    assert [(op.name, op.layer) for op in left if op.weighted] == [(op.name, op.layer) for op in right if op.weighted]
    assert sorted(left.nx.edges(data="elements")) == sorted(right.nx.edges(data="elements"))
    assert (left.layers, left.outputs, left.batch) == (right.layers, right.outputs, right.batch)
    for scheme in schemes:
        for traffic in ("paper", "unfused", "fused"):
            a, b = (estimate(graph, FLAT, scheme, traffic=traffic, batch=3) for graph in (left, right))
            assert [(r.kind, r.flops, r.bytes_by_role, r.latency_s) for r in a.layers] == [
                (r.kind, r.flops, r.bytes_by_role, r.latency_s) for r in b.layers
            ]
            assert (a.flops, a.bytes, a.latency_s) == (b.flops, b.bytes, b.latency_s)
            assert (a.weight_bytes, a.memory.constant_bytes) == (b.weight_bytes, b.memory.constant_bytes)
            if not in_place(left):
                assert a.memory == b.memory


def network(name: str) -> tuple[nn.Module, Tensor]:
    return drawn(zoo.build(name)), torch.zeros(1, *zoo.get(name).input_shape)


@pytest.mark.parametrize("name", zoo.names())
def test_zoo_networks_as_they_are(name: str, tmp_path: Path) -> None:
    module, example = network(name)
    assert_same(trace(module, example), exported(module, example, tmp_path / "m.onnx", optimize=False))


@pytest.mark.parametrize("name", zoo.names())
def test_zoo_networks_with_their_batch_norms_folded(name: str, tmp_path: Path) -> None:
    module, example = network(name)
    whole = trace(module, example)
    norms = fold_batch_norms(module, whole)
    folded = trace(module, example)
    found = exported(network(name)[0], example, tmp_path / "m.onnx", dynamo=False)
    assert_same(folded, found)
    assert norms and whole.macs == found.macs
    assert whole.flops - found.flops == sum(op.flops for op in whole if op.kind == "batch_norm")


def test_the_exporters_own_folding(tmp_path: Path) -> None:
    module, example = network("digits_cnn")
    found = exported(module, example, tmp_path / "m.onnx")
    fold_batch_norms(module, trace(module, example))
    assert_same(trace(module, example), found)


def test_resnet50(tmp_path: Path) -> None:
    module, example = networks.resnet50(), torch.zeros(1, 3, 224, 224)
    found = exported(module, example, tmp_path / "m.onnx", optimize=False)
    assert_same(trace(module, example), found, schemes=("w8a8",))
    assert found.macs == 4_089_184_256


@pytest.mark.parametrize("dynamo", [True, False])
def test_vision_transformer(dynamo: bool, tmp_path: Path) -> None:
    module = drawn(networks._ViT(image=48, patch=16, width=64, depth=2, heads=4, mlp=128))
    example = torch.zeros(1, 3, 48, 48)
    traced = trace(module, example)
    found = exported(module, example, tmp_path / "m.onnx", dynamo=dynamo)
    # ``contiguous`` has no counterpart in ONNX, where a tensor has no layout.
    stacked = unlike(traced, found)
    assert [(op.name, op.kind) for op in stacked] == [(f"blocks.{i}.attention.contiguous", "copy") for i in (0, 1)]
    assert unlike(found, traced) == []
    assert (found.flops, found.layers) == (traced.flops, traced.layers)
    assert [op.kind for op in found if op.kind in MATRIX_KINDS] == [op.kind for op in traced if op.kind in MATRIX_KINDS]


def test_a_decoder_of_our_own(tmp_path: Path) -> None:
    module, example = drawn(networks.llama_tiny()), torch.zeros(3, 7, dtype=torch.int64)
    traced, found = trace(module, example), exported(module, example, tmp_path / "m.onnx")
    folded = unlike(traced, found)
    assert unlike(found, traced) == []
    # The angles of the rotary embedding depend on shapes alone, so the exporter computes them.
    assert {op.name.partition("#")[0] for op in folded} == {
        "arange", "neg", "div", "pow", "mul", "repeat", "cos", "sin",
    }  # fmt: skip
    assert traced.flops - found.flops == sum(op.flops for op in folded)
    assert (found.macs, found.layers) == (traced.macs, traced.layers)


def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    sizes = {"num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64}
    return BertModel(BertConfig(hidden_size=32, num_hidden_layers=2, vocab_size=100, **sizes))


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    ends = {"bos_token_id": 1, "eos_token_id": 1}
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=100, n_positions=64, n_embd=32, n_layer=2, n_head=4, use_cache=False, **ends)
    )


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64, "use_cache": False}
    return LlamaForCausalLM(LlamaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=100, **sizes))


@pytest.mark.parametrize("build", [bert, gpt2, llama])
def test_transformers(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    module = drawn(build())
    traced, found = trace(module, IDS), exported(module, IDS, tmp_path / "m.onnx")
    assert found.macs == traced.macs and found.unknown == {}
    layers = [{op.name: cost(op) for op in graph if op.weighted} for graph in (traced, found)]
    # Positions are the same in every pass, so the exporter looks them up.
    assert layers[0].keys() - layers[1].keys() <= {"transformer.wpe", POSITIONS}
    assert layers[1].items() <= layers[0].items()
    work = [(op.macs, op.vector_flops, op.extents) for op in traced if op.kind == "attention"]
    assert work == [(op.macs, op.vector_flops, op.extents) for op in found if op.kind == "attention"] and len(work) == 2
    # In the file masks are given, key heads may be repeated, positions are computed; nothing else differs.
    assert {op.kind for op in unlike(found, traced)} <= {"attention", "copy"}
    missing = [op for op in unlike(traced, found) if op.kind != "attention"]
    assert traced.flops - found.flops == sum(op.flops for op in missing) < traced.flops / 500
