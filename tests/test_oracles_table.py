"""The oracle that reads measured losses from a file: what it adds, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from aiq.testing import check_oracle
from oracles.table import table
from roofline import Scheme
from roofline.errors import AIQError
from tests.evaluating import context, digits, losses_of, options


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def losses_in(path: Path | str, *texts: str) -> dict[str, Sequence[float]]:
    return losses_of(table(str(path), context()), *texts)


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
    found = losses_in(write(tmp_path, f"losses.{kind}", text), "keep", "w4", "w8")
    for index, layer in enumerate(graph.layers):
        assert found[layer] == [0.0, index + 1 / 8, float(index)]


def test_a_table_states_its_unit_and_source(tmp_path: Path) -> None:
    _, graph = digits()
    text = json.dumps({"unit": "points", "losses": {x: {"w8": 1} for x in graph.layers}})
    path = write(tmp_path, "l.json", text)
    found = table(str(path), context()).loss_table(options(graph, "keep", "w8"))
    assert found.unit == "points"
    assert str(path) in found.caveat


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
    path = write(tmp_path, name, text)
    with pytest.raises(AIQError) as caught:
        losses_in(path, "keep", "w8")
    assert str(caught.value) == _NOT_A_TABLE.format(path=path)


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
    path = write(tmp_path, name, text)
    with pytest.raises(AIQError) as caught:
        losses_in(path, "keep", "w8")
    assert str(caught.value) == message.format(path=path)


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
    path = write(tmp_path, name, text)
    with pytest.raises(AIQError) as caught:
        losses_in(path, "keep", "w8")
    assert str(path) in str(caught.value)
    assert "no loss for layer" not in str(caught.value)


@pytest.mark.parametrize(("name", "reason"), [("no.json", "No such file or directory"), ("", "Is a directory")])
def test_a_table_that_cannot_be_read(tmp_path: Path, name: str, reason: str) -> None:
    path = str(tmp_path / name)
    with pytest.raises(AIQError) as caught:
        losses_in(path, "keep", "w8")
    assert str(caught.value) == f"cannot read loss table {str(Path(path))!r}: {reason}. Next: check the path."


def test_a_table_keeps_the_contract_of_oracles(tmp_path: Path) -> None:
    losses = {layer: {"w8": 0.5, "w4": 1.5} for layer in digits()[1].layers}
    path = write(tmp_path, "l.json", json.dumps({"unit": "points", "losses": losses}))
    check_oracle(table, str(path))
    oracle = table(str(path), context())
    first, *_, last = digits()[1].layers
    assert oracle.evaluate(Scheme.parse(f"keep,{first}=w8,{last}=w4")).value == 2.0
    assert (oracle.metric.unit, oracle.metric.higher_is_better) == ("points", False)


def test_a_changed_table_has_another_fingerprint(tmp_path: Path) -> None:
    path = write(tmp_path, "l.json", '{"losses": {"conv1": {"w8": 1}}}')
    first = dict(table(str(path), context()).fingerprint)
    write(tmp_path, "l.json", '{"losses": {"conv1": {"w8": 2}}}')
    second = dict(table(str(path), context()).fingerprint)
    assert [key for key in first if first[key] != second[key]] == ["file"]
