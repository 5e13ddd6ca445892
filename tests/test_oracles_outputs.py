"""Pure functions on outputs against hand calculations, and digests that tell apart what must be told apart."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import aiq.quantize
from aiq import Model
from aiq.digest import code_digest, file_digest, layers_digest, model_digest, tensor_digest
from aiq.oracle import OracleError
from oracles._outputs import agreements, check_finite, divergences, scheme_label, standard_error
from roofline import Scheme
from roofline.errors import InputError
from tests.evaluating import digits, linear

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
OTHERS = torch.tensor([[1.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 3.0]])


def by_hand(p: list[float], q: list[float]) -> float:
    a, b = ([math.exp(x) / sum(map(math.exp, xs)) for x in xs] for xs in (p, q))
    return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True))


def test_agreement_and_divergence_by_hand() -> None:
    assert agreements(LOGITS, OTHERS).tolist() == [True, False, True]
    found = divergences(LOGITS, OTHERS)
    assert found.dtype == np.float32
    pairs = zip(LOGITS.tolist(), OTHERS.tolist(), strict=True)
    assert found.tolist() == pytest.approx([by_hand(*pair) for pair in pairs], rel=1e-6)
    assert divergences(LOGITS, LOGITS).tolist() == [0.0, 0.0, 0.0]
    assert divergences(LOGITS[:0], LOGITS[:0]).shape == (0,)


def test_positions_of_one_example_are_averaged() -> None:
    first, second = LOGITS.reshape(1, 3, 3), OTHERS.reshape(1, 3, 3)
    assert agreements(first, second).tolist() == pytest.approx([2 / 3])
    assert divergences(first, second).tolist() == pytest.approx([float(divergences(LOGITS, OTHERS).mean())])


def test_divergences_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 10, 4, generator=generator)
    whole = divergences(first, second)
    monkeypatch.setattr("oracles._outputs._CHUNK_VALUES", 12)
    assert divergences(first, second).tolist() == whole.tolist()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_no_numbers(bad: float) -> None:
    logits = LOGITS.clone()
    check_finite(logits)
    check_finite(torch.full((2, 2), 3e38))  # finite, though its sum in float32 is not
    logits[1, 2] = logits[2, 0] = bad
    with pytest.raises(OracleError) as caught:
        check_finite(logits, Scheme.parse("w4,conv1=keep"))
    assert str(caught.value) == (
        "the outputs of scheme 'w4,conv1=keep' hold NaN or infinity for 2 of 3 examples. "
        "Next: give the layers that overflow a wider format, or keep them."
    )
    with pytest.raises(OracleError) as caught:
        check_finite(logits)
    assert str(caught.value) == (
        "the outputs of the float model hold NaN or infinity for 2 of 3 examples. "
        "Next: check its weights and the inputs."
    )


def test_a_long_scheme_is_named_by_its_digest() -> None:
    scheme = Scheme.from_dict({"rules": [{"layers": f"layer{i}", "precision": "w8"} for i in range(40)]})
    assert scheme_label(scheme) == f"of digest {scheme.digest()[:12]}"
    assert scheme_label(Scheme.from_dict(scheme.to_dict(), name="mine")) == "'mine'"


def test_standard_errors_by_hand() -> None:
    assert standard_error(np.array([True, True, True, False])) == pytest.approx(math.sqrt(0.75 * 0.25 / 4))
    assert standard_error(np.array([1.0, 2.0, 4.0], dtype=np.float32)) == pytest.approx(
        np.std([1, 2, 4], ddof=1) / 3**0.5
    )
    assert standard_error(np.array([1.0], dtype=np.float32)) is None


class Net(nn.Module):
    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1, stride=stride)
        self.register_buffer("table", torch.arange(3, dtype=torch.bfloat16))
        nn.init.ones_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)


def of(module: nn.Module) -> str:
    return model_digest(Model("net", module, None))


def test_a_model_digest_sees_every_value_and_setting() -> None:
    seen = {of(Net())}
    assert of(Net()) in seen
    for change in ("weight", "bias", "buffer", "dtype", "stride"):
        net = Net(stride=2 if change == "stride" else 1)
        if change == "weight":
            net.conv.weight.data[0, 0] += 1e-7
        elif change == "bias":
            net.conv.bias.data[1] = -0.0  # equal to 0.0, and another value
        elif change == "buffer":
            net.table[2] = 5
        elif change == "dtype":
            net.conv.weight.data = net.conv.weight.data.double()
        seen.add(of(net))
    assert len(seen) == 6


def test_weights_on_meta_count_by_shape() -> None:
    assert model_digest(linear(device="meta")) == model_digest(linear(device="meta"))
    assert model_digest(linear(device="meta")) != model_digest(linear(torch.ones(4, 3)))


def test_tensor_digests_see_type_and_shape() -> None:
    tensors = [torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(6, dtype=torch.int32), torch.zeros(()), torch.ones(())]
    assert len({tensor_digest(t) for t in tensors}) == len(tensors)
    assert tensor_digest(torch.zeros(3, 2).T) == tensor_digest(torch.zeros(2, 3))


def test_layers_digest_sees_what_decides_formats() -> None:
    graph = digits()[1]
    kept = replace(graph, keep_weights=(*graph.keep_weights, "conv1"))
    shorter = replace(graph, ops=graph.ops[:-1])
    assert layers_digest(replace(graph, model="another")) == layers_digest(graph)
    assert len({layers_digest(g) for g in (graph, kept, shorter)}) == 3


def test_code_digest_covers_every_file_of_a_package() -> None:
    assert code_digest(aiq.quantize) == code_digest(aiq.quantize)
    assert len({code_digest(aiq.quantize), code_digest(json), code_digest(aiq.quantize, json)}) == 3


def test_file_digest(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"")
    assert file_digest(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    with pytest.raises(InputError) as caught:
        file_digest(tmp_path / "no")
    assert (
        str(caught.value) == f"cannot read {str(tmp_path / 'no')!r}: No such file or directory. Next: check the path."
    )
