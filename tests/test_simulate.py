"""Quantized inference against references: GPTQ by hand, folding, activations on their grids, reuse of prefixes."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aiq._model import Model, load_model
from aiq.quantize import Evaluator, Recipe, Simulator, quantize_weight
from aiq.quantize._scales import fit_grid
from aiq.quantize._weights import InputStatistics
from roofline import LayerPrecision, Precision, Scheme
from roofline.errors import InputError
from roofline.scheme import Rule

_INT4 = Precision.parse("int4")


def _statistics(rows: torch.Tensor) -> InputStatistics:
    wide = rows.double()
    return InputStatistics(wide.mean(0)[None], (wide.T @ wide / len(wide))[None])


def _correlated(n: int, size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator) @ torch.randn(4, size, generator=generator) + 0.1 * torch.randn(
        n, size, generator=generator
    )


def _output_error(weight: torch.Tensor, other: torch.Tensor, rows: torch.Tensor) -> float:
    return float((rows.double() @ (weight - other).double().T).square().mean())


def test_gptq_beats_nearest_and_comes_near_the_best_rounding() -> None:
    """The best of all 2⁸ ways to round up or down on the same grid is found by trying them."""
    rows, weight = _correlated(400, 8), torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    inputs = _statistics(rows)
    found = quantize_weight(weight, _INT4, Recipe("gptq", "max"), inputs)
    nearest = quantize_weight(weight, _INT4, Recipe("nearest", "max"), inputs)
    assert found.grid is not None
    assert nearest.grid is not None
    assert torch.equal(found.grid.scale, nearest.grid.scale)
    scale = found.grid.scale.reshape(3, 1).float()
    floors = torch.floor(weight / scale)
    ways = torch.tensor(list(itertools.product((0.0, 1.0), repeat=8)))
    best = 0.0
    for row in range(3):
        candidates = (floors[row] + ways).clamp(-8, 7) * scale[row]
        best += min(_output_error(weight[row : row + 1], c[None], rows) for c in candidates) / 3
    gptq, plain = (_output_error(weight, q.values, rows) for q in (found, nearest))
    assert best <= gptq * (1 + 1e-9)
    assert gptq < 0.5 * plain
    assert gptq < 3 * best


def test_every_value_lies_on_its_grid() -> None:
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    inputs = _statistics(_correlated(500, 36))
    for text, words in itertools.product(
        ("int2", "int3", "int4", "int8", "int4:g9", "int4:z", "int5:g12:z"), ("gptq", "nearest")
    ):
        precision = Precision.parse(text)
        quantized = quantize_weight(weight, precision, Recipe.parse(words, precision), inputs)
        assert quantized.grid is not None
        grid = quantized.grid
        codes = quantized.values.double().reshape(6, grid.scale.shape[1], -1) / grid.scale + grid.zero
        assert torch.allclose(codes, codes.round(), atol=1e-4), text
        assert grid.low - 1e-4 <= codes.min() <= codes.max() <= grid.high + 1e-4
        assert len(codes.round().unique()) <= 2**precision.bits


def test_signed_int8_leaves_out_its_least_code_and_narrower_formats_use_all() -> None:
    values = torch.tensor([[-1.0, 0.3, 1.0]], dtype=torch.float64)
    grid = fit_grid(values, Precision.parse("int8"), "max")
    assert (grid.low, grid.high, float(grid.scale)) == (-127, 127, pytest.approx(1 / 127))
    grid = fit_grid(values, _INT4, "max")
    assert (grid.low, grid.high, float(grid.scale)) == (-8, 7, pytest.approx(1 / 7))


def test_clipping_at_least_squared_error_by_brute_force() -> None:
    values = torch.randn(1, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    values[0, 0] = 9.0
    grid = fit_grid(values, _INT4, "mse")
    error = (values - grid.rounded(values)).square().sum()
    widest = fit_grid(values, _INT4, "max")
    candidates = [widest._replace(scale=widest.scale * (0.3 + 0.001 * i)) for i in range(701)]
    best = min((values - c.rounded(values)).square().sum() for c in candidates)
    assert best <= error * (1 + 1e-9)
    assert error <= 1.01 * best
    assert grid.scale < widest.scale


def test_percentile_ignores_one_outlier_in_ten_thousand_and_more() -> None:
    values = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[None].clone()
    values[0, 0] = -50.0
    assert float(fit_grid(values, Precision.parse("int8"), "percentile").scale) == pytest.approx(1 / 127, rel=1e-3)
    assert float(fit_grid(values, Precision.parse("int8"), "max").scale) == pytest.approx(50 / 127)


def test_scales_of_groups_are_stored_in_half_precision() -> None:
    values = torch.randn(2, 1, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    half = fit_grid(values, Precision.parse("int4:g16"), "max").scale
    assert torch.equal(half, half.half().double())
    single = fit_grid(values, Precision.parse("int4:g16:s32"), "max").scale
    assert not torch.equal(single, single.half().double())
    assert torch.equal(single, single.float().double())


def test_bias_correction_restores_the_mean_output() -> None:
    rows = _correlated(300, 12) + 1.0
    weight, bias = torch.randn(5, 12, generator=torch.Generator().manual_seed(5)), torch.zeros(5)
    quantized = quantize_weight(weight, Precision.parse("int3"), Recipe("nearest", "max"), _statistics(rows))
    assert quantized.bias_shift is not None
    exact = F.linear(rows, weight, bias).mean(0)
    assert not torch.allclose(F.linear(rows, quantized.values, bias).mean(0), exact, atol=1e-2)
    assert torch.allclose(F.linear(rows, quantized.values, bias + quantized.bias_shift).mean(0), exact, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "weights", "expected"),
    [
        ("", "int4", "gptq+mse+channel+bias"),
        ("", "int8", "nearest+mse+channel+bias"),
        ("nearest+max+tensor+nobias", "int4", "nearest+max+tensor+nobias"),
        ("percentile", "fp16", "nearest+percentile+channel+bias"),
    ],
)
def test_recipes(text: str, weights: str, expected: str) -> None:
    assert str(Recipe.parse(text, Precision.parse(weights))) == expected


def test_recipes_refuse_nonsense() -> None:
    with pytest.raises(InputError, match=r"recipe 'gtpq': unknown word 'gtpq': known: nearest, gptq, .*\. Next: join"):
        Recipe.parse("gtpq", _INT4)
    with pytest.raises(InputError, match=r"recipe 'max\+mse': 'mse' contradicts a word before it\. Next: drop"):
        Recipe.parse("max+mse", _INT4)


class _Residual(nn.Module):
    """Two convolutions around a residual addition, then attention by hand and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.q = nn.Linear(8, 8)
        self.last = nn.Linear(8, 5)
        self.norm.running_mean.uniform_(-0.1, 0.1)
        self.norm.running_var.uniform_(0.5, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.first(x)))
        x = F.relu(x + self.second(x))
        tokens = x.flatten(2).transpose(1, 2)
        queries = self.q(tokens)
        mixed = F.scaled_dot_product_attention(queries, tokens, tokens)
        return self.last(mixed.mean(1))


@pytest.fixture(scope="module")
def residual() -> tuple[Simulator, torch.Tensor]:
    module = _Residual().eval()
    model = Model("residual", module, torch.empty(1, 3, 8, 8, device="meta"))
    inputs = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(6))
    return Simulator(model, model.trace(), inputs), inputs


def test_the_float_scheme_is_the_float_model(residual: tuple[Simulator, torch.Tensor]) -> None:
    simulator, inputs = residual
    with torch.inference_mode():
        plain = simulator.model.module(inputs)
    assert torch.allclose(simulator.outputs(Scheme(), inputs), plain, atol=1e-5)
    assert isinstance(simulator.module.norm, nn.Identity)
    assert isinstance(simulator.model.module.norm, nn.BatchNorm2d)


def test_outputs_equal_a_network_quantized_by_hand(residual: tuple[Simulator, torch.Tensor]) -> None:
    """W8A4 in every layer; the tensor that ``second`` reads is quantized once, for the residual addition too."""
    simulator, inputs = residual
    outputs = simulator.outputs(Scheme.parse("w8a4"), inputs)
    module = simulator.module
    ranges = simulator.calibration.ranges

    def on_grid(x: torch.Tensor, site: str, operand: int = 0) -> torch.Tensor:
        seen = ranges[site, operand]
        samples = torch.cat([seen.samples, torch.tensor([seen.low, seen.high])]).double()
        grid = fit_grid(samples, Precision.parse("int4:z4"), "mse")
        return grid.rounded(x.double()).float()

    with torch.inference_mode():
        x = F.relu(module.first(on_grid(inputs, "first")))
        x = on_grid(x, "second")
        x = F.relu(x + module.second(x))
        tokens = x.flatten(2).transpose(1, 2)
        seen_by_q = on_grid(tokens, "q")
        queries = on_grid(module.q(seen_by_q), "product 0", 0)
        keys, values = on_grid(seen_by_q, "product 0", 1), on_grid(seen_by_q, "product 0", 2)
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        expected = module.last(on_grid(mixed.mean(1), "last"))
    effect = (outputs - simulator.outputs(Scheme(), inputs)).abs().max()
    assert (outputs - expected).abs().max() < 0.02 * effect


def test_a_tensor_carries_no_more_than_the_narrower_of_its_writer_and_reader(
    residual: tuple[Simulator, torch.Tensor],
) -> None:
    simulator, inputs = residual
    narrow_writer = simulator.outputs(Scheme.parse("keep,first=int8/int3"), inputs)
    both_narrow = simulator.outputs(Scheme.parse("keep,first=int8/int3,second=keep/int3"), inputs)
    wide_reader = simulator.outputs(Scheme.parse("keep,first=int8/int3,second=keep/int8"), inputs)
    assert torch.equal(narrow_writer, wide_reader)
    assert torch.allclose(narrow_writer, both_narrow, atol=0.5)
    assert not torch.equal(narrow_writer, simulator.outputs(Scheme.parse("keep,first=int8/int8"), inputs))


def test_simulating_leaves_the_model_alone(residual: tuple[Simulator, torch.Tensor]) -> None:
    simulator, inputs = residual
    before = {name: t.clone() for name, t in simulator.model.module.state_dict().items()}
    simulator.outputs(Scheme.parse("w2a4"), inputs)
    after = simulator.model.module.state_dict()
    assert all(torch.equal(t, after[name]) for name, t in before.items())
    assert torch.equal(simulator.outputs(Scheme(), inputs), simulator.outputs(Scheme(), inputs))


def test_fewer_bits_never_help_much(residual: tuple[Simulator, torch.Tensor]) -> None:
    simulator, inputs = residual
    plain = simulator.outputs(Scheme(), inputs)
    errors = [float((simulator.outputs(Scheme.parse(f"w{b}"), inputs) - plain).square().mean()) for b in range(2, 9)]
    assert all(wide < narrow for narrow, wide in itertools.pairwise(errors))
    formats = ("fp8_e5m2", "fp8_e4m3", "bf16", "fp16")
    floats = [float((simulator.outputs(Scheme.parse(f), inputs) - plain).square().mean()) for f in formats]
    assert all(wide < narrow for narrow, wide in itertools.pairwise(floats))


@pytest.mark.parametrize("name", ["digits_cnn", "mobilenet_v2", "resnet20"])
def test_reused_prefixes_change_no_bit(name: str) -> None:
    model = load_model(name)
    graph = model.trace()
    inputs = torch.randn(6, *model.example.shape[1:], generator=torch.Generator().manual_seed(7))
    simulator = Simulator(model, graph, inputs)
    evaluator = Evaluator(simulator, inputs, batch=4)
    assert len(evaluator.boundaries) >= 4
    draw = random.Random(8)
    formats = dict.fromkeys(graph.layers, LayerPrecision())
    works = []
    for _ in range(6):
        formats[draw.choice(graph.layers)] = LayerPrecision.parse(draw.choice(["w8", "w8a8", "w4a4@nearest", "keep"]))
        scheme = Scheme(LayerPrecision(), tuple(Rule(layer, precision) for layer, precision in formats.items()))
        found, work = evaluator.run(scheme)
        works.append(work)
        assert torch.equal(found, torch.cat([simulator.outputs(scheme, part) for part in inputs.split(4)]))
    assert works[0] == 1.0
    assert min(works) < 0.9


def test_memory_for_reuse_is_bounded() -> None:
    model = load_model("digits_cnn")
    inputs = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    simulator = Simulator(model, model.trace(), inputs)
    limit = 8 * 16 * 64 * 4 * 3
    evaluator = Evaluator(simulator, inputs, memory_bytes=limit)
    for text in ("w8", "w4@nearest", "w3@nearest", "w2@nearest"):
        evaluator.run(Scheme.parse(text))
        held = sum(t.numel() * t.element_size() for values in evaluator._stored.values() for t in values)
        assert held <= limit


def test_a_network_that_cannot_run_without_examples_is_run_whole() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not len(x):
                raise ValueError("no examples")
            return self.two(self.one(x))

    model = Model("picky", Picky().eval(), torch.empty(1, 4, device="meta"))
    inputs = torch.randn(10, 4, generator=torch.Generator().manual_seed(10))
    evaluator = Evaluator(Simulator(model, model.trace(), inputs), inputs)
    assert evaluator.boundaries == ()
    assert evaluator.run(Scheme.parse("w8,two=w4"))[1] == 1.0


def test_calibration_moments_by_hand() -> None:
    conv = nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=2, bias=False)
    model = Model("conv", nn.Sequential(conv), torch.empty(1, 4, 7, 7, device="meta"))
    inputs = torch.randn(5, 4, 7, 7, generator=torch.Generator().manual_seed(11))
    simulator = Simulator(model, model.trace(), inputs)
    found = simulator.calibration.inputs["0.weight"]
    padded = F.pad(inputs, (1, 1, 1, 1)).double()
    rows = [
        padded[n, g * 2 : g * 2 + 2, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].reshape(-1)
        for g in range(2)
        for n, i, j in itertools.product(range(5), range(4), range(4))
    ]
    expected = torch.stack(rows).reshape(2, 80, 18)
    assert torch.allclose(found.mean, expected.mean(1), atol=1e-6)
    assert torch.allclose(found.second_moment, expected.transpose(1, 2) @ expected / 80, atol=1e-5)


def test_fingerprint_follows_weights_and_calibration() -> None:
    model = load_model("digits_cnn")
    graph = model.trace()
    inputs = torch.from_numpy(np.linspace(-1, 1, 640, dtype=np.float32).reshape(10, 1, 8, 8))
    first = Simulator(model, graph, inputs).fingerprint
    assert first == Simulator(model, graph, inputs).fingerprint
    assert first != Simulator(model, graph, inputs[:9]).fingerprint
    other = load_model("digits_cnn")
    with torch.no_grad():
        other.module.linear.weight[0, 0] += 1e-6
    assert first["weights"] != Simulator(replace(other), graph, inputs).fingerprint["weights"]


def test_a_format_of_the_cache_is_refused(residual: tuple[Simulator, torch.Tensor]) -> None:
    with pytest.raises(InputError, match=r"priced and not simulated, got .*/int8 for .*leave out the format"):
        residual[0].outputs(Scheme(LayerPrecision.parse("w8kv8")), residual[1])
