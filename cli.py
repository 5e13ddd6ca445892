"""The command line: parse, call the toolkit, render, exit. The only place that prints."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiq._cache_command import cache_commands
from aiq._calibrate_command import calibrate_command
from aiq._export_command import export_command
from aiq._options import (
    Batch,
    Context,
    EveryLogit,
    Format,
    Hardware,
    Inputs,
    Lambda,
    NewTokens,
    Normalise,
    Phase,
    Rates,
    SourceArgument,
    Target,
    Traffic,
    Weights,
)
from aiq._reproduce_command import reproduce_commands
from aiq._search_command import Edge, ending_hung_oracles, search_command
from aiq._specs_command import specs_commands
from aiq._validate_command import validate_command
from aiq._whatif_command import whatif_command

if TYPE_CHECKING:
    from aiq._model import Model, Source
    from aiq.report import Report
    from hardware_specs import HardwareSpec
    from hardware_specs.errors import AIQError

app = typer.Typer(
    name="aiq",
    help="Plan quantization before you pay for it: what bounds each layer of a model on a machine, and which "
    "mixed-precision scheme pays.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
datasets = typer.Typer(
    help="List, show and fetch data sets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(datasets, name="data")

SchemeOption = Annotated[
    str | None,
    typer.Option(
        "--scheme", help="fp32, w8, w4, w8a8, w4:g128, ...; w4,conv1=keep,layer3.*=w8; or a .toml/.json file."
    ),
]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"aiq {installed('aiq-roofline')}")
        raise typer.Exit


@app.command()
def graph(
    model: SourceArgument,
    inputs: Inputs = None,
    phase: Phase = None,
    batch: Batch = None,
    context: Context = None,
    every_logit: EveryLogit = False,
    fmt: Format = "table",
) -> None:
    """Show a model's operators."""
    _check_format(fmt)
    with _working():
        source = _source(model, inputs, phase=phase, batch=batch, context=context, every_logit=every_logit)
        if batch is not None and not source.phased:
            raise _refused(f"a graph of {model!r} is that of its input", "give the batch in --input")
        traced = source.graph()

    from aiq._views import graph_report

    _show(graph_report(traced), fmt)


@app.command()
def roofline(
    model: SourceArgument,
    inputs: Inputs = None,
    hardware: Hardware = "t4",
    scheme: SchemeOption = None,
    phase: Phase = None,
    batch: Batch = None,
    context: Context = None,
    new_tokens: NewTokens = None,
    every_logit: EveryLogit = False,
    traffic: Traffic = "fused",
    rates: Rates = "datasheet",
    plot: Annotated[
        str | None, typer.Option("--plot", metavar="FILE.svg|png", help="Draw the roofline figure.")
    ] = None,
    fmt: Format = "table",
) -> None:
    """Show what bounds each layer on a machine."""
    _check_format(fmt)
    from aiq._recipes import read_scheme
    from aiq.report import check_writable

    target = check_writable(plot, (".svg", ".png")) if plot is not None else None
    machine = _machine(hardware, rates)
    chosen = read_scheme(scheme) if scheme is not None else None

    from aiq._views import roofline_report
    from roofline import estimate

    with _working():
        source = _source(model, inputs, phase=phase, batch=batch, context=context, every_logit=every_logit)
    if new_tokens is not None:
        from aiq._generation import generate, generation_report

        if plot is not None:
            raise _refused("--plot draws one pass, and --new-tokens asks for many", "leave one of them out")
        _show(generation_report(generate(source, machine, chosen, new_tokens, traffic=traffic)), fmt)
        return
    with _working():
        traced = source.graph()
    result = estimate(traced, machine, chosen, batch=batch, traffic=traffic)
    if target:
        from roofline.plot import save

        save(result, target)
        print(f"figure: {target}", file=sys.stderr)
    _show(roofline_report(result, collapse=fmt in ("table", "md")), fmt)


@app.command()
def plan(
    model: SourceArgument,
    inputs: Inputs = None,
    hardware: Hardware = "t4",
    formats: Annotated[
        str | None,
        typer.Option(
            "--formats",
            help="Formats a layer may take, comma-separated; default keep,w8,w4,w8a8,w4a8 and a 16-bit float.",
        ),
    ] = None,
    phase: Phase = None,
    batch: Batch = None,
    context: Context = None,
    traffic: Traffic = "fused",
    rates: Rates = "datasheet",
    target: Target = "ai",
    lam: Lambda = 0.9,
    normalise: Normalise = "minmax",
    proxy: Annotated[
        str,
        typer.Option(
            "--proxy",
            help="Stand-in for accuracy, an additive oracle: weight-sqnr, activation-sqnr, fisher, or table:FILE with "
            "measured losses.",
        ),
    ] = "weight-sqnr",
    data: Annotated[
        str | None,
        typer.Option("--data", help="Data for activation-sqnr and fisher: digits, cifar10:PATH, npz:FILE, …"),
    ] = None,
    weights: Weights = None,
    samples: Annotated[int, typer.Option("--samples", help="Samples that one evaluation would take.")] = 1000,
    probe_seconds: Annotated[
        float, typer.Option("--probe", help="Seconds for timing the float model; 0 to skip.")
    ] = 1.0,
    fmt: Format = "table",
) -> None:
    """Rank quantization schemes before any evaluation."""
    _check_format(fmt)
    from aiq.objective import Objective

    goal = Objective(target, lam, normalise)
    machine = _machine(hardware, rates)

    from aiq import plan as make_plan
    from aiq._views import plan_report

    options = None if formats is None else [text for text in formats.split(",") if text.strip()]
    with _working():
        result = make_plan(
            _source(model, inputs, weights, phase=phase, batch=batch, context=context),
            machine,
            formats=options,
            batch=batch,
            traffic=traffic,
            objective=goal,
            proxy=proxy,
            data=data,
            samples=samples,
            probe_seconds=probe_seconds,
        )
    _show(plan_report(result), fmt)


@datasets.command("list")
def data_list(fmt: Format = "table") -> None:
    """List the data sets that aiq knows."""
    _check_format(fmt)
    from aiq._data_views import datasets_report

    _show(datasets_report(), fmt)


@datasets.command("show")
def data_show(
    text: Annotated[
        str, typer.Argument(metavar="DATA", help="digits, cifar10:PATH, npz:FILE.npz, path/file.py:function, ...")
    ],
    fmt: Format = "table",
) -> None:
    """Show what each split of some data holds."""
    _check_format(fmt)
    from aiq._data_views import data_report

    with _working():
        report = data_report(text)
    _show(report, fmt)


@datasets.command("download")
def data_download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="cifar10.")],
    to: Annotated[str, typer.Option("--to", metavar="DIR", help="Folder to unpack into.")] = ".",
) -> None:
    """Fetch a data set from its author's site, check it and unpack it; print what --data takes."""
    from aiq.data import download
    from roofline.units import si

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty() or 100 * done // total % 10 == 0:
            _tell(f"{name}: {si(done, 'B')} of {si(total, 'B')}", updates=True)

    folder = download(name, to, progress=show)
    _tell("", updates=True)
    print(f"{name}:{folder}")


@app.command()
def zoo(fmt: Format = "table") -> None:
    """List the networks that ship with aiq."""
    _check_format(fmt)
    from aiq._views import zoo_report

    _show(zoo_report(), fmt)


def _machine(name: str, rates: str) -> HardwareSpec:
    import hardware_specs
    from roofline.errors import InputError

    kind, colon, runtime = rates.partition(":")
    if kind not in ("datasheet", "sustained", "calibrated") or (colon and (kind != "calibrated" or not runtime)):
        known = "datasheet, sustained, calibrated[:RUNTIME]"
        raise InputError(f"unknown rates {rates!r}: known: {known}. Next: choose one.")
    spec = hardware_specs.load(name)
    if kind == "calibrated":
        return spec.calibrated(runtime or None)
    if kind == "datasheet":
        return spec
    if not spec.has_sustained():
        raise InputError(f"{spec.name} has no measured sustained rate. Next: leave --rates at datasheet.")
    return spec.sustained()


def _source(name: str, inputs: list[str] | None, weights: str | None = None, **work: Any) -> Source:
    from aiq import load_source
    from aiq._model import Workload

    source = load_source(name, inputs or (), Workload(**work))
    if weights is not None:
        if source.model is None:
            raise _refused(f"model {name!r} has no module that --weights could fill", "leave it out")
        from aiq.zoo import load_weights

        load_weights(source.model.module, weights)
    return source


def _refused(what: str, step: str) -> AIQError:
    from roofline.errors import InputError

    return InputError(f"{what}. Next: {step}.")


def _model(name: str, inputs: list[str] | None, weights: str | None = None) -> Model:
    from aiq import load_model

    model = load_model(name, inputs or ())
    if weights is not None:
        from aiq.zoo import load_weights

        load_weights(model.module, weights)
    return model


@contextmanager
def _working() -> Iterator[None]:
    """Keep standard output for data: what a model prints goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _check_format(fmt: str) -> None:
    from aiq.report import FORMATS
    from roofline.errors import InputError

    if fmt not in FORMATS:
        raise InputError(f"unknown format {fmt!r}: known: {', '.join(FORMATS)}. Next: choose one.")


def _show(report: Report, fmt: str) -> None:
    from aiq.report import render

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(render(report, fmt, terminal_width=width))


def _tell(text: str, *, updates: bool = False) -> None:
    """Write a line to standard error; one that updates stays on its line of a terminal until the next is written."""
    if updates and sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{text[:width]:<{width}}\r", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr)


_edge = Edge(_model, _machine, _check_format, _show, _tell, _working, _source)
for _command in (search_command, calibrate_command, export_command, validate_command, whatif_command):
    app.command()(_command(_edge))
app.add_typer(specs_commands(_edge, print), name="specs")
app.add_typer(reproduce_commands(_edge), name="reproduce")
app.add_typer(cache_commands(_edge, print), name="cache")


@ending_hung_oracles()
def main() -> None:
    """Run the command line.

    Exit code 0 done, 1 findings, work that failed on its way or a machine too noisy, 2 a mistake that the user can
    mend, 3 no scheme meets the constraints, 4 predictions outside the tolerance, 130 Ctrl-C.
    """
    from hardware_specs.errors import AIQError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="aiq")
    except AIQError as error:
        print(f"aiq: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
