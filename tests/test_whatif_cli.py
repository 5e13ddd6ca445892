"""The command ``aiq whatif``: every format, its figures, and one sentence for each mistake."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

import hardware_specs
from aiq._whatif import whatif
from aiq._whatif_machines import find_machines, read_schemes
from aiq._whatif_plot import MOST_OVERLAID, plot_heat, plot_overlay
from aiq.cache import CachedOracle, canonical_scheme, open_store
from aiq.digest import layers_digest
from roofline import Scheme, estimate
from roofline.errors import InputError
from tests.calibrated import CALIBRATED
from tests.commands import FORMATS, run
from tests.drawing import by_gid, collections, lines, overlaps
from tests.machines import machine, zoo_graph
from tests.refusals import refusal
from tests.searching import FakeOracle
from tests.test_whatif import Fixed, own

SWEEP = ("whatif", "digits_cnn", "--hardware", "t4,l4", "--batch", "1,64", "--scheme", "fp16,w8a8")


def data(*arguments: str) -> Any:
    code, out, err = run(*arguments, "--format", "json")
    assert (code, err) == (0, "")
    return json.loads(out)


@pytest.mark.parametrize("fmt", FORMATS)
def test_formats(fmt: str) -> None:
    code, out, err = run(*SWEEP, "--price", "l4=0.71", "--format", fmt)
    assert (code, err) == (0, "")
    if fmt == "json":
        found = json.loads(out)
        assert {"schema_version", "words", "answers", "rows", "machines", "notes"} <= set(found)
        assert len(found["rows"]) == 8
    elif fmt == "csv":
        rows = list(csv.DictReader(io.StringIO(out)))
        assert len(rows) == 8
        found = estimate(zoo_graph("digits_cnn"), hardware_specs.load("l4"), "w8a8", batch=64)
        row = next(r for r in rows if (r["hardware"], r["scheme"], r["batch"]) == ("l4", "w8a8", "64"))
        assert float(row["latency_s"]) == pytest.approx(found.latency_s, rel=1e-12)
        assert float(row["memory_bytes"]) == found.memory.total_bytes
    else:
        assert out.startswith("digits_cnn, fused traffic: 2 machines x 2 schemes x 2 batches, 8 of 8 combinations ")
        assert "\n- fp16: most samples a second on " in out
        assert "USD/M samples" in out
        assert "bound from datasheet peaks, not a measurement" in out


def test_rows_that_cannot_run_are_there_with_the_reason(tmp_path: Path) -> None:
    small = tmp_path / "small.json"
    small.write_text(hardware_specs.to_json(machine({"bf16": 1e12}, (("dram", 1e11, 2e5),), name="small")))
    found = data("whatif", "digits_cnn", "--hardware", f"t4,{small}", "--batch", "1,64", "--scheme", "keep,bf16,*=bf16")
    reasons = {(row["hardware"], row["scheme"], row["batch"]): row["reason"] for row in found["rows"]}
    assert len(reasons) == 8
    assert reasons["small", "keep", 1].startswith("small states no fp32 ceiling")
    assert reasons["small", "bf16,*=bf16", 64].startswith("does not fit: needs ")
    assert not any(reason for (hardware, _, _), reason in reasons.items() if hardware == "t4")


def test_a_language_model_counts_tokens() -> None:
    arguments = ("whatif", "gpt2", "--hardware", "t4", "--scheme", "fp16", "--batch", "1,4", "--context", "64,256")
    found = data(*arguments, "--phase", "decode")
    assert found["unit"] == "tokens"
    for row in found["rows"]:
        assert row["throughput_per_s"] == pytest.approx(row["batch"] / row["latency_s"])
        assert row["kv_bytes"] > 0
    for row in data(*arguments)["rows"]:
        assert row["throughput_per_s"] == pytest.approx(row["batch"] * row["context"] / row["latency_s"])
    assert data("whatif", "gpt2", "--hardware", "t4")["unit"] == "sequences"
    out = run(*arguments, "--phase", "decode").out
    assert "most tokens a second on t4 at batch 4 (" in out
    assert "1 machine x 1 scheme x 2 contexts x 2 batches" in out


def test_the_best_come_first_on_demand() -> None:
    rows = data(*SWEEP, "--target", "throughput")["rows"]
    rates = [row["throughput_per_s"] for row in rows]
    assert rates == sorted(rates, reverse=True)
    rows = data(*SWEEP, "--target", "cost", "--price", "l4=0.71")["rows"]
    assert [row["hardware"] for row in rows] == ["l4"] * 4 + ["t4"] * 4


def test_long_tables_are_cut_and_say_so() -> None:
    arguments = ("whatif", "digits_cnn", "--hardware", "t4,l4", "--batch", ",".join(map(str, range(1, 211))))
    _, out, _ = run(*arguments)
    assert "- 20 more rows are not shown: --format csv or json has all" in out
    assert len(run(*arguments, "--format", "csv").out.splitlines()) == 1 + 420


def test_a_calibrated_machine_file_has_its_rates(tmp_path: Path) -> None:
    own_file = tmp_path / "machine.json"
    own_file.write_text(hardware_specs.to_json(CALIBRATED))
    arguments = ("whatif", "digits_cnn", "--hardware", f"{own_file},t4", "--scheme", "w8a8")
    plain, fitted = data(*arguments), data(*arguments, "--rates", "calibrated:toyrun")
    assert [each["rates"] for each in fitted["machines"]] == ["calibrated:toyrun", "datasheet"]
    row = fitted["rows"][0]
    assert row["latency_s"] == estimate(zoo_graph("digits_cnn"), CALIBRATED.calibrated("toyrun"), "w8a8").latency_s
    assert row["latency_s"] != plain["rows"][0]["latency_s"]
    assert fitted["rows"][1]["runs"] is False
    assert fitted["rows"][1]["reason"].startswith("unknown runtime of t4")


def test_the_best_scheme_comes_from_the_cache(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'cache.db'}"
    graph = zoo_graph("digits_cnn")
    more = {"layers": layers_digest(graph), "model": "digits_cnn"}

    class Stored(FakeOracle):
        @property
        def fingerprint(self) -> Mapping[str, str]:
            return {**super().fingerprint, **more}

    with open_store(url) as store:
        cached = CachedOracle(Stored(), store, lambda scheme: canonical_scheme(graph, scheme))
        for text in ("keep", "w8", "w8a8", "keep,conv1=w8a8"):
            cached.evaluate(Scheme.parse(text))
    found = data(*SWEEP, "--losses", "cache", "--max-loss", "100", "--cache", url)["best_schemes"]
    assert len(found["chosen"]) == 4
    assert found["evidence"].startswith("4 schemes measured before (accuracy, oracle ")
    assert {"accuracy", "interval", "paired_drop"} <= set(found["chosen"][0])
    prefix = found["evidence"].partition("oracle ")[2][:8]
    again = data(*SWEEP, "--losses", f"cache:{prefix}", "--max-loss", "1%", "--cache", url)["best_schemes"]
    assert again["limit"] < 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--hardware", "t5"), "unknown hardware 't5': did you mean 't4'"),
        (("--hardware", "a1?0*x"), "no machine matches 'a1?0*x'. Next: run 'aiq specs list' for their names."),
        (("--batch", "1..x"), "--batch takes whole numbers from 1 to 1000000, or a range to double over, got '1..x'."),
        (("--context", "0"), "--context takes whole numbers from 1 to 1000000, or a range to double over, got '0'."),
        (("--set", "memory.dram.bandwith=2x"), "unknown path in --set 'memory.dram.bandwith': did you mean 'memory.d"),
        (("--set", "compute"), "--set takes PATH=VALUE with a factor or an amount, got 'compute'. Next: write for "),
        (("--price", "h100=2"), "unknown machine with a price 'h100': known: l4, t4. Next: name a machine of --hard"),
        (("--price", "l4"), "--price takes NAME=USD an hour, got 'l4'. Next: write --price l4=0.71."),
        (("--target", "joy"), "unknown target 'joy': known: throughput, latency, cost. Next: choose one."),
        (("--losses", "cache"), "--losses asks for the best scheme and needs the other half. Next: give --max-loss 1"),
        (("--max-loss", "1"), "--max-loss asks for the best scheme and needs the other half. Next: give --losses cac"),
        (("--traffic", "light"), "unknown traffic model 'light': known: paper, unfused, fused. Next: choose one."),
        (("--rates", "guessed"), "unknown rates 'guessed': known: datasheet, sustained, calibrated[:RUNTIME]."),
        (("--hardware", "l4", "--rates", "calibrated"), "l4 has no calibrated kernel models. Next: choose --rates dat"),
        (("--scheme", "w99"), "unknown precision 'w99'"),
        (("--scheme", "w8,conv9=w4"), "unknown layer 'conv9': did you mean "),
        (("--plot", "figure.pdf"), "cannot write 'figure.pdf': known suffixes: .svg, .png. Next: choose one of these."),
        (("--phase", "decode"), "model 'digits_cnn' is a network as it stands: it takes no --phase."),
        (("--context", "1024"), "model 'digits_cnn' is a network as it stands: it takes no --context."),
        (("--format", "xml"), "unknown format 'xml': known: table, json, csv, md. Next: choose one."),
    ],
)
def test_mistakes_are_one_sentence(arguments: tuple[str, ...], message: str, here: Path) -> None:
    assert refusal("whatif", "digits_cnn", "--hardware", "l4,t4", *arguments).startswith(message)


def test_too_many_combinations_are_refused() -> None:
    batches = ",".join(map(str, range(1, 4001)))
    found = refusal("whatif", "digits_cnn", "--hardware", "all", "--batch", batches)
    machines = len(hardware_specs.names())
    assert found == (
        f"{machines} machines x 1 schemes x 1 contexts x 4000 batches are {4000 * machines} combinations, at most "
        "200000 are priced. Next: sweep over fewer at once."
    )


def test_it_writes_both_figures(here: Path) -> None:
    code, _, err = run(*SWEEP, "--plot", "heat.svg", "--plot-roofline", "roofline.png")
    assert code == 0
    assert err == "figure: heat.svg\nfigure: roofline.png\n"
    assert (here / "heat.svg").read_bytes().startswith(b"<?xml")
    assert (here / "roofline.png").read_bytes().startswith(b"\x89PNG")
    first = (here / "heat.svg").read_bytes()
    run(*SWEEP, "--plot", "heat.svg")
    assert (here / "heat.svg").read_bytes() == first


TINY = machine({"bf16": 1e12}, (("dram", 1e11, 2e5),), name="tiny")


def test_a_heat_map_has_a_cell_for_each_combination() -> None:
    machines = [*find_machines("t4,l4,h100"), *own(TINY)]
    sweep = whatif(Fixed(), machines, read_schemes(["keep,bf16,*=bf16"]), batches=(1, 8, 64))
    figure = plot_heat(sweep)
    panels = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title(loc="left") for ax in panels] == ["keep", "bf16,*=bf16"]
    for s, ax in enumerate(panels):
        drawn = np.ma.getdata(ax.images[0].get_array()), np.ma.getmaskarray(ax.images[0].get_array())
        assert np.array_equal(drawn[1], np.isnan(sweep.throughput_per_s[:, s, 0]))
        assert np.array_equal(drawn[0][~drawn[1]], sweep.throughput_per_s[:, s, 0][~drawn[1]])
        hatched: list[Any] = [patch for patch in ax.patches if patch.get_gid() == "does-not-fit"]
        large = sweep.too_large[:, s, 0] & np.isfinite(sweep.latency_s[:, s, 0])
        corners = {(int(y + 0.5), int(x + 0.5)) for x, y in (patch.xy for patch in hatched)}
        assert corners == set(zip(*(part.tolist() for part in np.nonzero(large)), strict=True))
        assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "8", "64"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["t4", "l4", "h100", "tiny"]
    assert sweep.too_large.any()
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [
        "does not fit the memory",
        "cannot run: no such ceiling or rates",
    ]


def test_a_heat_map_has_a_limit_of_panels() -> None:
    many = [Scheme.parse(f"int{bits}/keep") for bits in range(2, 15)]
    sweep = whatif(Fixed(), find_machines("t4"), many, batches=(1,))
    with pytest.raises(InputError) as refused:
        plot_heat(sweep)
    assert str(refused.value) == (
        "a heat map has a panel for each scheme and context, 13 here, at most 12. "
        "Next: sweep over fewer, or leave out --plot."
    )


def test_the_overlay_draws_each_machines_roof_and_the_model_on_it() -> None:
    machines = find_machines("t4,l4", changes=["memory.dram.bandwidth=2x"])
    sweep = whatif(Fixed("resnet20"), machines, read_schemes(["fp16"]), batches=(1, 16, 256))
    axes = plot_overlay(sweep)
    roofs = lines(axes, "roof-")
    assert len(roofs) == 4
    order = np.argsort(-sweep.throughput_per_s[:, 0, 0].max(axis=1), kind="stable")
    intensity = sweep.flops[0, 0] / sweep.bytes[0, 0]
    for place, h in enumerate(order):
        spec = machines[h].spec
        xs, ys = roofs[f"roof-{place}"]
        assert ys[1] == ys[2] == spec.ceiling("fp16")
        assert xs[1] == pytest.approx(spec.ceiling("fp16") / spec.bandwidth())
        assert ys[0] == pytest.approx(xs[0] * spec.bandwidth())
        (found,) = collections(axes, f"dots-{place}")
        offsets = np.asarray(found.get_offsets())
        assert offsets[:, 0] == pytest.approx(intensity)
        assert offsets[:, 1] == pytest.approx(sweep.flops[0, 0] / sweep.latency_s[h, 0, 0])
    names = by_gid(axes, "machine")
    assert {text.get_text().partition("\n")[0] for text in names} == {each.label for each in machines}
    assert list(overlaps(axes, names)) == []


def test_the_overlay_draws_the_fastest_eight_and_hollow_dots() -> None:
    machines = [*find_machines("all"), *own(TINY)]
    sweep = whatif(Fixed(), machines, read_schemes(["bf16,*=bf16"]), batches=(1, 64))
    axes = plot_overlay(sweep)
    assert len(lines(axes, "roof-")) == MOST_OVERLAID
    assert list(overlaps(axes, by_gid(axes, "machine"))) == []
    (note,) = by_gid(axes, "footnote")
    assert f"the 8 fastest of {len(machines)} machines" in note.get_text()
    alone = plot_overlay(whatif(Fixed(), own(TINY), read_schemes(["bf16,*=bf16"]), batches=(1, 64)))
    (dots,) = collections(alone, "dots-0")
    faces = [to_hex(tuple(face)) for face in dots.get_facecolor()]  # type: ignore[arg-type]
    assert [face == "#ffffff" for face in faces] == [False, True]


def test_an_overlay_of_nothing_is_refused() -> None:
    sweep = whatif(Fixed(), own(TINY), read_schemes(["keep"]), batches=(1,))
    with pytest.raises(InputError, match=r"no machine of the sweep runs the first scheme, .* Next: add one\."):
        plot_overlay(sweep)
    assert math.isnan(sweep.latency_s.item())
