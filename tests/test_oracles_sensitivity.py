"""Additive oracles that run the network: output noise layer by layer, and the Fisher estimate against exact figures."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aiq import Model, plan
from aiq.data import load
from aiq.oracle import OracleContext, OracleError
from aiq.quantize import fake_quantize
from aiq.testing import check_oracle
from hardware_specs import load as load_machine
from oracles.activation_sqnr import activation_sqnr
from oracles.agreement import kl
from oracles.fisher import fisher
from roofline import Precision, Scheme
from tests.evaluating import context, digits, losses_of
from tests.networks import llama_tiny

PLAIN = "@nearest+max+nobias"


def with_data(module: nn.Module, folder: Path, x: torch.Tensor, **settings: Any) -> OracleContext:
    """Return the context of a module on inputs that are the same in every split."""
    torch.save(x, folder / "x.pt")
    path = folder / "data.py"
    path.write_text(
        "import torch\nfrom pathlib import Path\n"
        "def inputs(split):\n    return torch.load(Path(__file__).parent / 'x.pt', weights_only=True), None\n"
    )
    model = Model("net", module.eval(), torch.empty_like(x[:1], device="meta"))
    return context(model, data=f"{path}:inputs", **settings)


def mlp(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for first, second in pairwise(widths):
        layers += [nn.Linear(first, second), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("factory", [activation_sqnr, fisher])
def test_the_contract_of_oracles(factory: Callable[..., Any]) -> None:
    check_oracle(factory, context=context(data="digits", limit=24), schemes=[Scheme.parse("w4"), Scheme.parse("w8a8")])


@pytest.mark.parametrize("factory", [activation_sqnr, fisher])
def test_narrower_formats_cost_more(factory: Callable[..., Any]) -> None:
    formats = ["keep", *(f"w{bits}@nearest+nobias" for bits in (8, 6, 4, 3))]
    for row in losses_of(factory("", context(data="digits")), *formats).values():
        assert row[0] == 0.0
        assert list(row) == sorted(row)
        assert row[1] > 0


def test_output_noise_of_weights_by_hand(tmp_path: Path) -> None:
    module, x = mlp(6, 5, 4), torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    oracle = activation_sqnr("", with_data(module, tmp_path, x))
    found = losses_of(oracle, f"w4{PLAIN}", f"w8{PLAIN}", graph=oracle.graph)
    with torch.no_grad():
        read = {"0": x, "2": module[1](module[0](x))}
    assert set(found) == set(read)
    for layer, given in read.items():
        linear = module[int(layer)]
        for text, loss in zip(("int4", "int8"), found[layer], strict=True):
            with torch.no_grad():
                exact = linear(given)
                rounded = given @ fake_low(linear.weight, text).T + linear.bias
            expected = 100 * ((exact - rounded).square().sum() / exact.square().sum()).item()
            assert loss == pytest.approx(expected, rel=1e-4), (layer, text)


def fake_low(weight: torch.Tensor, text: str) -> torch.Tensor:
    """Round to nearest with one scale a channel; 4 bits use all 16 codes, as the simulator does."""
    if text == "int8":
        return fake_quantize(weight, Precision.parse(text))
    scale = (weight.abs().amax(1, keepdim=True) / 7).to(torch.float32)
    return (weight / scale).round().clamp(-8, 7) * scale


def test_output_noise_of_activations_is_the_networks_where_it_has_one_layer(tmp_path: Path) -> None:
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    oracle = activation_sqnr("", with_data(mlp(6, 5), tmp_path, x))
    simulator = kl("", with_data(mlp(6, 5), tmp_path, x)).network.simulator
    exact = simulator.outputs(Scheme(), x)
    for text in ("keep/int8", "keep/int4", "w4a4", "w8a8"):
        rounded = simulator.outputs(Scheme.parse(text), x)
        expected = 100 * ((exact - rounded).square().sum() / exact.square().sum()).item()
        assert oracle.evaluate(Scheme.parse(text)).value == pytest.approx(expected, rel=1e-4), text


def test_a_layer_whose_output_is_zero_costs_nothing(tmp_path: Path) -> None:
    module = mlp(6, 5)
    module[0].weight.data.zero_()
    module[0].bias.data.zero_()
    assert (
        activation_sqnr("", with_data(module, tmp_path, torch.ones(20, 6))).evaluate(Scheme.parse("w4a4")).value == 0.0
    )


def test_output_noise_that_is_no_number(tmp_path: Path) -> None:
    module = mlp(6, 5)
    module[0].weight.data[0, 0] = 1e5  # fp16 ends at 65504
    oracle = activation_sqnr("", with_data(module, tmp_path, torch.ones(20, 6)))
    with pytest.raises(OracleError) as caught:
        oracle.evaluate(Scheme.parse("fp16/keep"))
    assert str(caught.value) == (
        "the output of layer '0' as fp16/keep holds NaN or infinity. Next: leave the format out, or check the weights."
    )


def test_fisher_of_a_softmax_regression_is_the_exact_one_on_average(tmp_path: Path) -> None:
    module, x = mlp(4, 3), torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        p = module(x).softmax(1)
        error = (module[0].weight - fake_low(module[0].weight, "int4")).double()
    # The Fisher information of W is E[(diag(p) - pp') x xx'], its diagonal E[p(1 - p) x²].
    information = (p * (1 - p)).double().T @ x.double().square() / len(x)
    expected = 0.5 * (information * error.square()).sum().item()
    found = [
        fisher("", with_data(module, tmp_path, x, seed=seed)).evaluate(Scheme.parse(f"w4{PLAIN}")).value
        for seed in range(30)
    ]
    assert np.mean(found) == pytest.approx(expected, rel=0.05)
    assert len(set(found)) == 30


def test_fisher_of_inputs_is_the_exact_one_on_average(tmp_path: Path) -> None:
    module, x = mlp(4, 3), torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
    settings = with_data(module, tmp_path, x)
    simulator = kl("", settings).network.simulator
    text = Scheme.parse("keep/int4")
    rounding = simulator.interceptor(simulator.apply(text))
    assert rounding is not None
    noisy = rounding.read("0", 0, x)
    assert noisy is not None
    with torch.no_grad():
        p = module(x).softmax(1).double()
        weight = module[0].weight.double()
    # In z = Wa + b the information of a is W'(diag(p) - pp')W, whose diagonal is Σ_c p_c w_c² - (Σ_c p_c w_c)².
    diagonal = p @ weight.square() - (p @ weight).square()
    expected = 0.5 * (diagonal * (x - noisy).double().square()).sum(1).mean().item()
    found = [fisher("", with_data(module, tmp_path, x, seed=s)).evaluate(text).value for s in range(30)]
    assert np.mean(found) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("text", ["w8@nearest+nobias", "keep/int8", "w6a8@nearest+nobias"])
def test_fisher_foretells_the_divergence_where_noise_is_small(text: str) -> None:
    scheme = Scheme.parse(text)
    foretold = fisher("", context(data="digits")).evaluate(scheme).value
    measured = kl("", context(data="digits", split="calibration")).evaluate(scheme).value
    assert 0.5 < foretold / measured < 2.0


def test_fisher_foretells_the_divergence_of_a_decoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = with_data(llama_tiny(), tmp_path, torch.randint(0, 64, (64, 8)))
    scheme = Scheme.parse("w6@nearest+nobias")
    foretold = fisher("", settings).evaluate(scheme).value
    assert 0.5 < foretold / kl("", settings).evaluate(scheme).value < 2.0


def test_fisher_depends_on_the_seed_and_on_nothing_else() -> None:
    scheme = Scheme.parse("w4a8")
    values = [fisher("", context(data="digits", seed=seed)).evaluate(scheme).value for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    assert values[0] == pytest.approx(values[2], rel=0.5)
    made = [fisher("", context(data="digits", seed=seed)).fingerprint["seed"] for seed in (0, 1)]
    assert made == ["0", "1"]


def test_one_pass_or_several_give_the_same_losses() -> None:
    formats = ("w8", "w4a8", "keep/int4")
    whole = losses_of(fisher("", context(data="digits")), *formats)
    oracle = fisher("", context(data="digits"))
    for index, text in enumerate(formats):
        for layer, (loss,) in losses_of(oracle, text).items():
            assert loss == pytest.approx(whole[layer][index], rel=1e-9, abs=1e-15)


def test_the_float_model_is_left_as_it_was() -> None:
    settings = context(data="digits")
    oracle = fisher("", settings)
    oracle.evaluate(Scheme.parse("w4a4"))
    simulator = kl("", settings).network.simulator
    assert not any(p.requires_grad or p.grad is not None for p in simulator.module.parameters())
    x = torch.from_numpy(load("digits", "search").x)
    with torch.no_grad():
        assert torch.allclose(simulator.outputs(Scheme(), x), digits()[0].module(x), atol=1e-4)


@pytest.mark.parametrize("factory", [activation_sqnr, fisher])
def test_a_decoder(tmp_path: Path, factory: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, 64, (12, 8))
    oracle = factory("", with_data(llama_tiny(), tmp_path, tokens))
    found = losses_of(oracle, "w8", "w4", "w4a8", graph=oracle.graph)
    assert len(found) == 16
    for layer, (eight, four, both) in found.items():
        assert 0 < eight < four <= both, layer
        assert (four < both) is (layer != "embed")  # what the embedding reads are token ids


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.out(x)


def test_outputs_that_cannot_be_differentiated(tmp_path: Path) -> None:
    oracle = fisher("", with_data(Detached(), tmp_path, torch.ones(20, 4)))
    with pytest.raises(OracleError) as caught:
        oracle.evaluate(Scheme.parse("w8"))
    assert str(caught.value) == (
        "the outputs of net cannot be differentiated by its weights. "
        "Next: choose another oracle, for instance activation-sqnr."
    )


@pytest.mark.parametrize("proxy", ["activation-sqnr", "fisher"])
def test_a_plan_by_a_proxy_with_data(proxy: str) -> None:
    result = plan(
        digits()[0], load_machine("t4"), formats=["keep", "w8", "w4"], proxy=proxy, data="digits", probe_seconds=0
    )
    assert result.proxy == proxy
    assert "on 126 calibration examples" in result.losses.caveat
    uniform = {c.name: c.loss for c in result.candidates if "uniform" in c.origin}
    assert 0 == uniform["keep"] < uniform["w8"] < uniform["w4"]
    assert result.losses.losses.shape == (len(digits()[1].layers), 3)
