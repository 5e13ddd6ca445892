"""Additive oracles: the data-free one against a direct computation, their sums, and the road of a third party."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from aiq import Model, plan
from aiq.additive import AdditiveOracle, LayerLosses, LossTable
from aiq.oracle import Metric
from aiq.quantize import fake_quantize
from aiq.registry import additive_oracle_names, load_additive_oracle, load_oracle, oracle_names
from aiq.testing import check_oracle
from hardware_specs import load
from oracles import weight_sqnr as module
from roofline import LayerPrecision, Precision, Scheme
from roofline.errors import AIQError, InputError, UnknownNameError
from tests.evaluating import context, digits, linear, losses_of, options

FORMATS = ("keep", "w8", "w4", "w4:g32", "w8a8", "fp16", "keep/int8")


def weight_sqnr(model: Model | None = None) -> LayerLosses:
    return module.weight_sqnr("", context(model))


def gaussian_noise(bits: int) -> float:
    """Return the least noise-to-signal ratio of a clipped standard Gaussian on a symmetric grid, by integration."""
    x = np.linspace(-8, 8, 160_001)
    weight = np.exp(-x * x / 2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
    limit = 2 ** (bits - 1) - 1

    def noise(clip: float) -> float:
        step = clip / limit
        return float(((x - np.clip(np.round(x / step), -limit, limit) * step) ** 2 * weight).sum())

    return min(noise(clip) for clip in np.linspace(1, 6, 201))


def test_weight_sqnr_is_the_noise_power_in_percent() -> None:
    model, graph = digits()
    found = losses_of(weight_sqnr(), *FORMATS)
    weights = dict(model.module.named_parameters())
    for layer in graph.layers:
        exact = weights[f"{layer}.weight"].detach().double()
        for text, loss in zip(FORMATS, found[layer], strict=True):
            option = LayerPrecision.parse(text)
            expected = 0.0
            if option.weights:
                got = fake_quantize(exact, option.weights).double()
                expected = 100 * float(((exact - got) ** 2).sum() / (exact**2).sum())
            if option.activations and not option.activations.is_float:
                expected += 100 * gaussian_noise(option.activations.bits)
            if option.activations != Precision.parse("fp16"):
                assert loss == pytest.approx(expected, rel=1e-2), (layer, text)


def test_weight_sqnr_orders_formats() -> None:
    for row in losses_of(weight_sqnr(), "keep", "fp16/keep", "w16", "w8", "w6", "w4:g32", "w4", "w3", "w2").values():
        assert row[0] == 0.0
        assert row[1] == row[2]
        assert row == sorted(row)
        assert all(math.isfinite(loss) and loss >= 0 for loss in row)
    for weights, both in losses_of(weight_sqnr(), "w8", "w8a8").values():
        assert both > weights


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_activations_are_a_gaussian_at_its_best_clipping(bits: int) -> None:
    expected = 100 * gaussian_noise(bits)
    for (loss,) in losses_of(weight_sqnr(), f"keep/int{bits}").values():
        assert loss == pytest.approx(expected, rel=1e-2)


def test_weight_sqnr_states_what_it_is_not() -> None:
    _, graph = digits()
    table = weight_sqnr().loss_table(options(graph, "keep", "w8"))
    assert table.losses.shape == (len(graph.layers), 2)
    assert table.unit == "% of signal power"
    assert "not an accuracy" in table.caveat


def test_an_all_zero_layer_costs_nothing() -> None:
    model = linear(torch.zeros(4, 3))
    assert losses_of(weight_sqnr(model), "keep", "w4", graph=model.trace()) == {"weight": [0.0, 0.0]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(value: float) -> None:
    weight = torch.ones(4, 3)
    weight[1, 2] = value
    model = linear(weight)
    with pytest.raises(AIQError) as caught:
        losses_of(weight_sqnr(model), "keep", "w8", graph=model.trace())
    assert str(caught.value) == "weight 'weight' holds NaN or infinity. Next: check the checkpoint."


def test_weights_without_values() -> None:
    model = linear(device="meta")
    with pytest.raises(AIQError) as caught:
        losses_of(weight_sqnr(model), "keep", "w8", graph=model.trace())
    assert str(caught.value) == (
        "weight 'weight' is on meta: it has no values to measure. Next: build the model with its weights."
    )


def test_a_weight_beyond_a_formats_range_is_refused_or_finite() -> None:
    weight = torch.ones(4, 3)
    weight[0, 0] = 1e5  # fp16 ends at 65504
    model = linear(weight)
    try:
        ((_, loss),) = losses_of(weight_sqnr(model), "keep", "fp16", graph=model.trace()).values()
    except AIQError as error:
        assert "'weight'" in str(error)
    else:
        assert np.isfinite(loss)


def counting(losses: dict[str, float]) -> tuple[LayerLosses, list[tuple[str, str]]]:
    """Return an oracle with one loss a layer whatever its format, and the pairs that it is asked about."""
    asked: list[tuple[str, str]] = []

    def measure(cells: Sequence[tuple[str, LayerPrecision]]) -> list[float]:
        asked.extend((layer, option.label) for layer, option in cells)
        return [losses[layer] for layer, _ in cells]

    metric = Metric("loss", "units", higher_is_better=False)
    return LayerLosses(metric, "made up", digits()[1], measure, lambda: {"oracle": "made up"}), asked


def test_an_evaluation_is_the_sum_over_layers() -> None:
    layers = digits()[1].layers
    oracle, asked = counting({layer: 2.0**i for i, layer in enumerate(layers)})
    assert oracle.evaluate(Scheme()).value == 0.0
    assert asked == []
    assert oracle.evaluate(Scheme.parse(f"keep,{layers[1]}=w8,{layers[3]}=w4")).value == 2.0 + 8.0
    assert asked == [(layers[1], "w8"), (layers[3], "w4")]
    table = oracle.loss_table(options(digits()[1], "keep", "w8"))
    assert table.losses.sum() == 2.0 ** len(layers) - 1
    assert table.losses[:, 0].sum() == 0.0
    assert len(asked) == len(set(asked)) == len(layers) + 1  # layers[1] as w8 is known already


def test_a_layer_declared_as_kept_costs_nothing_under_a_default() -> None:
    layers, keeps = digits()[1].layers, {"layer2.0.shortcut.0", "layer3.0.shortcut.0"}
    oracle, asked = counting(dict.fromkeys(layers, 1.0))
    assert oracle.evaluate(Scheme.parse("w8")).value == len(layers) - len(keeps & set(layers))
    assert not keeps & {layer for layer, _ in asked}


def test_weight_sqnr_keeps_the_contract_of_oracles() -> None:
    check_oracle(module.weight_sqnr)


def test_a_fingerprint_changes_with_the_weights() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 3)
    first, same = weight_sqnr(linear(weight.clone())), weight_sqnr(linear(weight.clone()))
    weight[0, 0] += 1e-6
    other = weight_sqnr(linear(weight))
    differ = {key for key in first.fingerprint if first.fingerprint[key] != other.fingerprint[key]}
    assert set(first.fingerprint) == {"oracle", "weights", "code", "torch", "layers"}
    assert "weights" in differ
    assert same.fingerprint.keys() == first.fingerprint.keys()


def test_registered_names() -> None:
    names = additive_oracle_names()
    assert names == sorted(set(names))
    assert {"activation-sqnr", "fisher", "table", "weight-sqnr"} <= set(names) < set(oracle_names())
    assert isinstance(load_additive_oracle("weight-sqnr", context()), LayerLosses)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("weight-sqnr:x", InputError, "the oracle weight-sqnr takes no argument, got 'x'. Next: write weight-sqnr."),
        ("table", InputError, "the oracle table needs a file. Next: write table:losses.json or table:losses.csv."),
        (
            "weight-sqn",
            UnknownNameError,
            "unknown oracle 'weight-sqn': did you mean 'weight-sqnr'? Next: name one of these, or install its package.",
        ),
        (
            "kl",
            InputError,
            "oracle 'kl' measures whole schemes and has no loss for each layer: known with one: activation-sqnr, "
            "fisher, table, weight-sqnr. Next: choose one of these.",
        ),
    ],
)
def test_refusals(text: str, kind: type[AIQError], message: str) -> None:
    with pytest.raises(kind) as caught:
        load_additive_oracle(text, context())
    assert str(caught.value) == message


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return what installs a distribution with one oracle: a name and the source of its factory ``Flat``."""

    def installed(name: str, source: str) -> None:
        module = f"third_party_{name.replace('-', '_')}"
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[aiq.oracles]\n{name} = {module}:Flat\n")
        (tmp_path / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))

    return installed


_THIRD_PARTY = """
import numpy as np
from aiq.additive import LossTable
from aiq.oracle import Evaluation, Metric

class Flat:
    additive = True
    metric = Metric("flat", "units", higher_is_better=False)
    def __init__(self, argument, context):
        self.argument, self.context = argument, context
    @property
    def fingerprint(self):
        return {{"oracle": "flat"}}
    def evaluate(self, scheme):
        return Evaluation(0.0)
    def loss_table(self, options):
        assert tuple(options) == self.context.graph.layers
        losses = np.array([[{cell} for k, _ in enumerate(row)] for row in options.values()]){tail}
        return LossTable(losses, "units", "argument " + self.argument)
"""


def test_a_third_party_oracle_is_found_and_used(install: Callable[[str, str], None]) -> None:
    install("flat", _THIRD_PARTY.format(cell="float(k)", tail=""))
    assert "flat" in additive_oracle_names()
    oracle = load_additive_oracle("flat:a:b", context())
    assert isinstance(oracle, AdditiveOracle)
    assert oracle.argument == "a:b"  # type: ignore[attr-defined]
    model, _ = digits()
    result = plan(model, load("t4"), formats=["keep", "w8"], proxy="flat:7", probe_seconds=0)
    assert result.proxy == "flat"
    assert result.to_dict()["proxy"] == {"name": "flat", "unit": "units", "caveat": "argument 7"}
    uniform = {c.name: c.loss for c in result.candidates if "uniform" in c.origin}
    assert uniform == {"keep": 0.0, "w8": float(len(result.graph.layers))}


@pytest.mark.parametrize(
    ("name", "cell", "tail"),
    [("nan", "float('nan')", ""), ("negative", "-1.0", ""), ("infinite", "float('inf')", ""), ("shape", "1.0", "[:2]")],
)
def test_an_oracle_that_breaks_its_promise_is_refused_by_name(
    install: Callable[[str, str], None], name: str, cell: str, tail: str
) -> None:
    install(name, _THIRD_PARTY.format(cell=cell, tail=tail))
    model, _ = digits()
    with pytest.raises(AIQError, match=f"^oracle '{name}' gave losses of shape"):
        plan(model, load("t4"), formats=["keep", "w8"], proxy=name, probe_seconds=0)


def test_an_oracle_that_does_not_import_is_refused_by_name_and_hides_no_other(
    install: Callable[[str, str], None],
) -> None:
    install("broken", "import no_such_module_at_all\n")
    with pytest.raises(AIQError, match="oracle 'broken' does not import"):
        load_oracle("broken", context())
    assert "broken" not in additive_oracle_names()
    assert "weight-sqnr" in additive_oracle_names()


def test_an_additive_oracle_without_a_table_is_refused_by_name(install: Callable[[str, str], None]) -> None:
    install("empty", "class Flat:\n    additive = True\n    def __init__(self, *_): pass\n")
    with pytest.raises(AIQError) as caught:
        load_additive_oracle("empty", context())
    assert str(caught.value) == "oracle 'empty' says it is additive and has no loss_table. Next: mend its package."


def test_a_loss_table_is_what_the_contract_says() -> None:
    table = LossTable(np.zeros((2, 3)), "points", "none")
    assert (table.losses.shape, table.unit, table.caveat) == ((2, 3), "points", "none")
    assert isinstance(weight_sqnr(), AdditiveOracle)
    assert not isinstance(object(), AdditiveOracle)
