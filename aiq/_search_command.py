"""The command ``aiq search``: its options, its exit codes, and what it writes besides the report."""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiq._options import (
    Batch,
    CacheUrl,
    Format,
    Hardware,
    Inputs,
    Lambda,
    ModelArgument,
    Normalise,
    Rates,
    Target,
    Traffic,
    Weights,
    read_bytes,
    read_drop,
    read_seconds,
)
from aiq._ticker import Ticker

if TYPE_CHECKING:
    from aiq._model import Model, Source
    from aiq._search import SearchSettings
    from aiq._search_result import SearchResult
    from aiq.report import Report
    from hardware_specs import HardwareSpec
    from roofline import Scheme

FAILED, NO_SCHEME, INTERRUPTED = 1, 3, 130
_FIGURES, _SCHEMES = (".svg", ".png"), (".json", ".toml")

Option = typer.Option


@dataclass(frozen=True)
class Edge:
    """What the command line lends a command, so that only it touches the standard streams.

    Attributes:
        model: Builds a model from its name, its input shapes and a checkpoint.
        machine: Finds a machine by name and kind of rates.
        check_format: Refuses an unknown output format.
        show: Writes a report to standard output in a format.
        tell: Writes a line to standard error; one that ``updates`` stays on its line of a terminal until the next.
        working: Keeps standard output for data while a model runs.
        source: Finds a model in any form from its name, its input shapes, a checkpoint and what of it runs.
    """

    model: Callable[[str, list[str] | None, str | None], Model]
    machine: Callable[[str, str], HardwareSpec]
    check_format: Callable[[str], None]
    show: Callable[[Report, str], None]
    tell: Callable[..., None]
    working: Callable[[], AbstractContextManager[None]]
    source: Callable[..., Source]


def search_command(edge: Edge) -> Callable[..., None]:
    """Return the command; ``edge`` does its input and output."""

    def search(  # noqa: PLR0917
        model: ModelArgument,
        inputs: Inputs = None,
        hardware: Hardware = "t4",
        formats: Annotated[str, Option(help="Formats a layer may take, comma-separated.")] = "keep,w8,w4,w8a8,w4a8",
        batch: Batch = None,
        traffic: Traffic = "fused",
        rates: Rates = "datasheet",
        target: Target = "ai",
        lam: Lambda = 0.9,
        normalise: Normalise = "minmax",
        max_drop: Annotated[
            str | None,
            Option(
                metavar="POINTS|SHARE%", help="Largest accuracy loss: then the target is maximised, without lambda."
            ),
        ] = None,
        max_memory: Annotated[
            str | None, Option(metavar="BYTES", help="Most bytes of weights, for instance 120k.")
        ] = None,
        min_ai: Annotated[float | None, Option(help="Least arithmetic intensity, FLOP/byte.")] = None,
        max_latency: Annotated[str | None, Option(metavar="TIME", help="Longest pass, for instance 2ms.")] = None,
        strategy: Annotated[
            str,
            Option(help="exact, greedy, coordinate, exhaustive, random or nsga2; settings as random:count=200,seed=1."),
        ] = "exact",
        oracle: Annotated[
            str, Option(help="What measures: accuracy, or another with its argument, NAME:ARGUMENT.")
        ] = "accuracy",
        data: Annotated[
            str | None, Option(help="Data set: digits, cifar10:PATH, a file, ...; by default the network's own.")
        ] = None,
        samples: Annotated[int | None, Option(help="Use only so many samples of the search split.")] = None,
        report_split: Annotated[
            str, Option(help="Split for the figures to quote; none quotes those of the search split.")
        ] = "report",
        tie: Annotated[
            list[str] | None,
            Option(metavar="LAYER,LAYER", help="Layers or patterns that must agree; repeat for several ties."),
        ] = None,
        keep: Annotated[
            list[str] | None, Option(metavar="PATTERN", help="Layers to leave alone; repeat for several.")
        ] = None,
        groups: Annotated[int | None, Option(help="Join neighbouring layers into at most so many units.")] = None,
        budget: Annotated[
            int | None, Option(metavar="N", help="Most evaluations, those from the cache included.")
        ] = None,
        seconds: Annotated[float | None, Option(help="Most seconds of this run.")] = None,
        cache: CacheUrl = None,
        timeout: Annotated[
            float | None, Option(metavar="SECONDS", help="Longest that one evaluation may take.")
        ] = None,
        race: Annotated[
            bool, Option("--race", help="Stop evaluating a scheme once it surely loses more than --max-drop.")
        ] = False,
        frontier: Annotated[bool, Option("--frontier", help="Show the whole measured trade-off.")] = False,
        plot: Annotated[str | None, Option(metavar="FILE.svg|png", help="Draw the trade-off.")] = None,
        out: Annotated[
            str | None, Option(metavar="FILE.json|toml", help="Write the best scheme, for --scheme to read.")
        ] = None,
        dry_run: Annotated[bool, Option("--dry-run", help="Only say what it would take.")] = False,
        probe: Annotated[float, Option(help="Seconds for timing the float model in a dry run; 0 to skip.")] = 1.0,
        weights: Weights = None,
        seed: Annotated[int, Option(help="Seeds what the oracle draws.")] = 0,
        fmt: Format = "table",
    ) -> None:
        """Find the best mixed-precision scheme, evaluating as little as possible."""
        from aiq._driver import Budget
        from aiq.objective import Objective
        from aiq.problem import Constraints
        from aiq.report import check_writable

        edge.check_format(fmt)
        goal = Objective(target, lam, normalise)
        points, share = (None, None) if max_drop is None else read_drop("--max-drop", max_drop)
        limits = Constraints(
            points,
            share,
            None if max_memory is None else read_bytes("--max-memory", max_memory),
            min_ai,
            None if max_latency is None else read_seconds("--max-latency", max_latency),
        )
        allowed = Budget(budget, seconds)
        figure = None if plot is None else check_writable(plot, _FIGURES)
        scheme = None if out is None else check_writable(out, _SCHEMES)
        machine = edge.machine(hardware, rates)

        from aiq._search import SearchSettings
        from aiq.knapsack import InfeasibleError

        settings = SearchSettings(
            formats=_parts(formats),
            batch=batch,
            traffic=traffic,
            objective=goal,
            constraints=limits,
            strategy=strategy,
            oracle=oracle,
            data=data,
            samples=samples,
            report_split=None if report_split == "none" else report_split,
            ties=[_parts(text) for text in tie or ()],
            keep=keep or (),
            groups=groups,
            budget=allowed,
            cache=cache,
            timeout_s=timeout,
            race=race,
            frontier=frontier,
            seed=seed,
        )
        try:
            with edge.working():
                built = edge.model(model, inputs, weights)
            if dry_run:
                _show_dry_run(edge, built, machine, settings, probe_seconds=probe, fmt=fmt)
                return
            code = _run(edge, built, machine, settings, figure=figure, scheme=scheme, fmt=fmt)
        except InfeasibleError as error:
            edge.tell(f"aiq: {error}")
            code = NO_SCHEME
        except KeyboardInterrupt:
            edge.tell("aiq: interrupted by Ctrl-C before anything was measured. Next: run the same command again.")
            code = INTERRUPTED
        if code:
            raise typer.Exit(code)

    return search


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _show_dry_run(
    edge: Edge, model: Model, machine: HardwareSpec, settings: SearchSettings, *, probe_seconds: float, fmt: str
) -> None:
    from aiq._search import dry_run
    from aiq._search_views import dry_run_report

    with edge.working():
        plan = dry_run(model, machine, settings, probe_seconds=probe_seconds)
    edge.show(dry_run_report(plan), fmt)


def _run(
    edge: Edge,
    model: Model,
    machine: HardwareSpec,
    settings: SearchSettings,
    *,
    figure: Path | None,
    scheme: Path | None,
    fmt: str,
) -> int:
    """Search, write what was asked for, and return the exit code."""
    from aiq._search import search
    from aiq._search_views import progress_text, search_report

    ticker = Ticker(edge.tell, progress_text)
    try:
        with edge.working():
            result = search(model, machine, settings, progress=ticker)
    finally:
        ticker.close()
    edge.show(search_report(result, frontier=settings.frontier), fmt)
    if figure:
        from aiq._search_plot import save_search

        save_search(result, figure)
        edge.tell(f"figure: {figure}")
    if scheme and result.best:
        _write_scheme(scheme, result.best.scheme)
        edge.tell(f"scheme: {scheme}")
    return _finish(edge, result)


def _finish(edge: Edge, result: SearchResult) -> int:
    """Say on standard error what the exit code stands for, and return it."""
    if result.failed:
        edge.tell(f"aiq: {result.stopped}")
    elif result.interrupted:
        edge.tell("aiq: interrupted by Ctrl-C: what was measured is shown. Next: run the same command again to go on.")
    if (result.failed or result.interrupted) and result.settings.cache != "none":
        edge.tell(f"resume: {shlex.join(['aiq', *sys.argv[1:]])}")
    if result.failed:
        return FAILED
    if result.interrupted:
        return INTERRUPTED
    if result.best is None:
        edge.tell(f"aiq: {result.miss()}")
        return NO_SCHEME
    return 0


@contextmanager
def ending_hung_oracles() -> Iterator[None]:
    """End the process at once where an evaluation that was given up still runs.

    A thread inside native code cannot be stopped, and aborts the process when the interpreter ends around it.
    """
    try:
        yield
    except SystemExit as leaving:
        guard = sys.modules.get("aiq._guard")
        if guard and any(thread.name == guard.HUNG_THREAD for thread in threading.enumerate()):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(leaving.code if isinstance(leaving.code, int) else FAILED)
        raise


def _write_scheme(path: Path, scheme: Scheme) -> None:
    from roofline.errors import InputError

    data = scheme.to_dict()
    text = json.dumps(data, indent=2) if path.suffix.lower() == ".json" else _toml(data)
    try:
        path.write_text(f"{text}\n", "utf-8")
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror}. Next: choose another place.") from None


def _toml(data: dict[str, Any]) -> str:
    """Write a scheme as TOML; JSON's strings are TOML's basic strings."""
    lines = [f"version = {data['version']}", f"default = {json.dumps(data['default'])}"]
    for rule in data["rules"]:
        lines += ["", "[[rules]]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in rule.items())]
    return "\n".join(lines)
