"""Accuracy proxies: the data-free one against a direct computation, the table, and the road of a third party."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from aiq import Model, load_model, plan
from aiq.proxy import AccuracyProxy, LossTable
from aiq.quantize import fake_quantize
from aiq.registry import load_proxy, proxy_names
from hardware_specs import load
from oracles.table import MeasuredLosses
from oracles.weight_sqnr import WeightSqnr
from roofline import LayerPrecision, OpGraph, Precision
from roofline.errors import AIQError, InputError, UnknownNameError

FORMATS = ("keep", "w8", "w4", "w4:g32", "w8a8", "fp16", "keep/int8")
Options = dict[str, tuple[LayerPrecision, ...]]


@cache
def digits() -> tuple[Model, OpGraph]:
    model = load_model("digits_cnn")
    return model, model.trace()


def options(graph: OpGraph, *texts: str) -> Options:
    return dict.fromkeys(graph.layers, tuple(LayerPrecision.parse(text) for text in texts))


def linear(weight: torch.Tensor | None = None, *, device: str = "cpu") -> Model:
    module = torch.nn.Linear(3, 4, device=device)
    if weight is not None:
        module.weight.data = weight
    return Model("linear", module.eval(), torch.empty(1, 3, device="meta"))


def losses_of(proxy: AccuracyProxy, *texts: str) -> dict[str, list[float]]:
    model, graph = digits()
    table = proxy.loss_table(model, graph, options(graph, *texts))
    return {layer: row.tolist() for layer, row in zip(graph.layers, table.losses, strict=True)}


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
    found = losses_of(WeightSqnr(), *FORMATS)
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
    for row in losses_of(WeightSqnr(), "keep", "fp16/keep", "w16", "w8", "w6", "w4:g32", "w4", "w3", "w2").values():
        assert row[0] == 0.0
        assert row[1] == row[2]
        assert row == sorted(row)
        assert all(math.isfinite(loss) and loss >= 0 for loss in row)
    for weights, both in losses_of(WeightSqnr(), "w8", "w8a8").values():
        assert both > weights


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_activations_are_a_gaussian_at_its_best_clipping(bits: int) -> None:
    expected = 100 * gaussian_noise(bits)
    for (loss,) in losses_of(WeightSqnr(), f"keep/int{bits}").values():
        assert loss == pytest.approx(expected, rel=1e-2)


def test_weight_sqnr_states_what_it_is_not() -> None:
    model, graph = digits()
    table = WeightSqnr().loss_table(model, graph, options(graph, "keep", "w8"))
    assert table.losses.shape == (len(graph.layers), 2)
    assert table.unit == "% of signal power"
    assert "not an accuracy" in table.caveat


def test_an_all_zero_layer_costs_nothing() -> None:
    model = linear(torch.zeros(4, 3))
    graph = model.trace()
    assert WeightSqnr().loss_table(model, graph, options(graph, "keep", "w4")).losses.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(value: float) -> None:
    weight = torch.ones(4, 3)
    weight[1, 2] = value
    model = linear(weight)
    graph = model.trace()
    with pytest.raises(AIQError) as caught:
        WeightSqnr().loss_table(model, graph, options(graph, "keep", "w8"))
    assert str(caught.value) == "weight 'weight' holds NaN or infinity. Next: check the checkpoint."


def test_weights_without_values() -> None:
    model = linear(device="meta")
    graph = model.trace()
    with pytest.raises(AIQError) as caught:
        WeightSqnr().loss_table(model, graph, options(graph, "keep", "w8"))
    assert str(caught.value) == (
        "weight 'weight' is on meta: it has no values to measure. Next: build the model with its weights."
    )


def test_a_weight_beyond_a_formats_range_is_refused_or_finite() -> None:
    weight = torch.ones(4, 3)
    weight[0, 0] = 1e5  # fp16 ends at 65504
    model = linear(weight)
    graph = model.trace()
    try:
        losses = WeightSqnr().loss_table(model, graph, options(graph, "keep", "fp16")).losses
    except AIQError as error:
        assert "'weight'" in str(error)
    else:
        assert np.isfinite(losses).all()


def test_registered_names() -> None:
    assert proxy_names() == sorted(set(proxy_names()))
    assert {"table", "weight-sqnr"} <= set(proxy_names())
    assert isinstance(load_proxy("weight-sqnr"), WeightSqnr)
    assert isinstance(load_proxy("table:x.json"), MeasuredLosses)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("weight-sqnr:x", InputError, "the proxy weight-sqnr takes no argument, got 'x'. Next: write weight-sqnr."),
        ("table", InputError, "the proxy table needs a file. Next: write table:losses.json or table:losses.csv."),
        (
            "weight-sqn",
            UnknownNameError,
            "unknown accuracy proxy 'weight-sqn': did you mean 'weight-sqnr'? "
            "Next: name one of these, or install its package.",
        ),
    ],
)
def test_refusals(text: str, kind: type[AIQError], message: str) -> None:
    with pytest.raises(kind) as caught:
        load_proxy(text)
    assert str(caught.value) == message


def table_file(folder: Path, name: str, text: str | bytes) -> MeasuredLosses:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return MeasuredLosses(str(path))


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_a_table_of_measured_losses(tmp_path: Path, kind: str) -> None:
    _, graph = digits()
    cells = [(layer, fmt, i + j / 8) for i, layer in enumerate(graph.layers) for j, fmt in enumerate(("int8", "w4"))]
    cells[0] = (cells[0][0], "int8", -3.0)  # better when quantized: noise buys nothing
    if kind == "json":
        nested: dict[str, dict[str, float]] = {}
        for layer, fmt, loss in cells:
            nested.setdefault(layer, {})["w8" if fmt == "int8" else fmt] = loss
        text = json.dumps({"unit": "points", "losses": nested})
    else:
        text = "layer,format,loss\n" + "".join(f"{a},{'int8/keep' if b == 'int8' else b},{c}\n" for a, b, c in cells)
    found = losses_of(table_file(tmp_path, f"losses.{kind}", text), "keep", "w4", "w8")
    for index, layer in enumerate(graph.layers):
        assert found[layer] == [0.0, index + 1 / 8, float(index)]


def test_a_table_states_its_unit_and_source(tmp_path: Path) -> None:
    model, graph = digits()
    proxy = table_file(
        tmp_path, "l.json", json.dumps({"unit": "points", "losses": {x: {"w8": 1} for x in graph.layers}})
    )
    table = proxy.loss_table(model, graph, options(graph, "keep", "w8"))
    assert table.unit == "points"
    assert str(proxy.path) in table.caveat


_DEEP = "[" * 100_000
_NOT_A_TABLE = (
    "{path}: not a loss table. "
    "Next: write JSON with losses by layer and format, or CSV with the columns layer, format, loss."
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", ""),
        ("b.json", "[]"),
        ("c.json", "{}"),
        ("d.json", '{"losses": 3}'),
        ("e.json", '{"losses": {"conv1": 3}}'),
        ("f.json", '{"losses": {"conv1": {"w8": "much"}}}'),
        ("g.json", '{"losses": {"conv1": {"w8": null}}}'),
        ("h.json", b"\x80\x00\xff"),
        ("i.json", _DEEP),
        ("j.csv", "layer,format\nconv1,w8\n"),
        ("k.csv", "layer,format,loss\nconv1,w8\n"),
        ("l.csv", b"\xff\xfel\x00a\x00"),
        ("m.csv", ""),
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, name: str, text: str | bytes) -> None:
    proxy = table_file(tmp_path, name, text)
    with pytest.raises(AIQError) as caught:
        losses_of(proxy, "keep", "w8")
    assert str(caught.value) == _NOT_A_TABLE.format(path=proxy.path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"losses": {"conv1": {"w8": NaN}}}', "{path}: the loss of 'conv1' as w8 is nan. Next: mend it."),
        ("b.json", '{"losses": {"conv1": {"w8": 1e999}}}', "{path}: the loss of 'conv1' as w8 is inf. Next: mend it."),
        ("c.csv", "layer,format,loss\nconv1,w8,-inf\n", "{path}: the loss of 'conv1' as w8 is -inf. Next: mend it."),
        (
            "d.json",
            '{"losses": {"conv2": {"w8": 1}}}',
            "unknown layer in {path} 'conv2': did you mean 'conv1' or 'layer3.0.conv2' or 'layer2.0.conv2'? "
            "Next: run 'aiq graph MODEL' for the names.",
        ),
        (
            "e.json",
            '{"losses": {"conv1": {"w8": 1}}}',
            "{path}: no loss for layer 'layer1.0.conv1' as w8. Next: measure it, or leave it out of --formats.",
        ),
    ],
)
def test_a_table_that_does_not_fit(tmp_path: Path, name: str, text: str, message: str) -> None:
    proxy = table_file(tmp_path, name, text)
    with pytest.raises(AIQError) as caught:
        losses_of(proxy, "keep", "w8")
    assert str(caught.value) == message.format(path=proxy.path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"losses": {"conv1": {"w8": ' + "9" * 400 + "}}}"),
        ("b.csv", "layer,format,loss\nconv1,w8," + "1" * 200_000 + "\n"),
        ("c.json", '{"losses": {"conv1": {"w99": 1}}}'),
        ("d.csv", "layer,format,loss\nconv1,w8,1\nconv1,int8/keep,2\n"),  # one cell twice: which holds?
    ],
)
def test_a_table_with_odd_cells_is_refused_by_name(tmp_path: Path, name: str, text: str) -> None:
    proxy = table_file(tmp_path, name, text)
    with pytest.raises(AIQError) as caught:
        losses_of(proxy, "keep", "w8")
    assert str(proxy.path) in str(caught.value)
    assert "no loss for layer" not in str(caught.value)


@pytest.mark.parametrize(("name", "reason"), [("no.json", "No such file or directory"), ("", "Is a directory")])
def test_a_table_that_cannot_be_read(tmp_path: Path, name: str, reason: str) -> None:
    path = str(tmp_path / name)
    with pytest.raises(AIQError) as caught:
        losses_of(MeasuredLosses(path), "keep", "w8")
    assert str(caught.value) == f"cannot read loss table {str(Path(path))!r}: {reason}. Next: check the path."


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return what installs a distribution with one proxy: a name and the source of its class ``Proxy``."""

    def installed(name: str, source: str) -> None:
        module = f"third_party_{name.replace('-', '_')}"
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[aiq.proxies]\n{name} = {module}:Proxy\n")
        (tmp_path / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))

    return installed


_THIRD_PARTY = """
import numpy as np
from aiq.proxy import LossTable

class Proxy:
    name = "flat"
    def __init__(self, argument):
        self.argument = argument
        self.calls = 0
    def loss_table(self, model, graph, options):
        self.calls += 1
        assert tuple(options) == graph.layers
        losses = np.array([[{cell} for k, _ in enumerate(row)] for row in options.values()]){tail}
        return LossTable(losses, "units", "argument " + self.argument)
"""


def test_a_third_party_proxy_is_found_and_used(install: Callable[[str, str], None]) -> None:
    install("flat", _THIRD_PARTY.format(cell="float(k)", tail=""))
    assert "flat" in proxy_names()
    proxy = load_proxy("flat:a:b")
    assert isinstance(proxy, AccuracyProxy)
    assert proxy.argument == "a:b"  # type: ignore[attr-defined]
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
def test_a_proxy_that_breaks_its_promise_is_refused_by_name(
    install: Callable[[str, str], None], name: str, cell: str, tail: str
) -> None:
    install(name, _THIRD_PARTY.format(cell=cell, tail=tail))
    model, _ = digits()
    with pytest.raises(AIQError, match="flat"):
        plan(model, load("t4"), formats=["keep", "w8"], proxy=name, probe_seconds=0)


def test_a_proxy_that_does_not_import_is_refused_by_name(install: Callable[[str, str], None]) -> None:
    install("broken", "import no_such_module_at_all\n")
    with pytest.raises(AIQError, match="broken"):
        load_proxy("broken")


def test_a_loss_table_is_what_the_contract_says() -> None:
    table = LossTable(np.zeros((2, 3)), "points", "none")
    assert (table.losses.shape, table.unit, table.caveat) == ((2, 3), "points", "none")
    assert isinstance(WeightSqnr(), AccuracyProxy)
    assert isinstance(MeasuredLosses("x"), AccuracyProxy)
    assert not isinstance(object(), AccuracyProxy)
