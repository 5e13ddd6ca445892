"""The command ``aiq validate``: its options, its exit codes, and what it writes besides the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiq._options import Format, Inputs, ModelArgument, Weights
from aiq._search_command import FAILED, INTERRUPTED, Edge
from aiq._ticker import Ticker

if TYPE_CHECKING:
    from aiq._validate_result import Validation

OUTSIDE_TOLERANCE = 4

Option = typer.Option


def validate_command(edge: Edge) -> Callable[..., None]:
    """Return the command; ``edge`` does its input and output."""

    def validate(  # noqa: PLR0917
        model: ModelArgument,
        runtime: Annotated[str, Option(help="What runs it: openvino, onnxruntime, torch, ...")],
        hardware: Annotated[
            str | None, Option(help="This machine: the file that 'aiq calibrate' writes, or see 'aiq specs list'.")
        ] = None,
        inputs: Inputs = None,
        schemes: Annotated[
            list[str] | None,
            Option(metavar="SCHEME", help="Scheme or file to measure instead of a spread; repeat for several."),
        ] = None,
        formats: Annotated[
            str | None,
            Option(
                help="Formats of the spread, comma-separated; default those of keep,w8a8,bf16 that the runtime runs."
            ),
        ] = None,
        count: Annotated[int, Option(help="Schemes in the spread.")] = 30,
        batch: Annotated[
            list[int] | None, Option(help="Samples at once; repeat for several; by default 1, 32.")
        ] = None,
        rounds: Annotated[int, Option(help="Samples of each scheme, taken in turn.")] = 15,
        max_spread: Annotated[float, Option(help="Median spread above which the machine is too noisy: exit 1.")] = 0.2,
        tolerance: Annotated[
            float | None, Option(metavar="SHARE", help="Median error of time above which to exit 4, for instance 0.1.")
        ] = None,
        data: Annotated[
            str | None,
            Option(help="Compare predictions with the simulation on these too: digits, cifar10:PATH, npz:FILE, ..."),
        ] = None,
        samples: Annotated[int | None, Option(help="Use only so many samples of the report split.")] = None,
        locate: Annotated[
            bool, Option("--locate", help="Name the layers where runtime and simulation part, however well they agree.")
        ] = False,
        layers: Annotated[bool, Option("--layers", help="Show the time of each layer of profiled schemes.")] = False,
        figure: Annotated[
            str | None, Option("--figure", "--plot", metavar="FILE.svg|png", help="Draw predicted against measured.")
        ] = None,
        dry_run: Annotated[bool, Option("--dry-run", help="Only say what would be measured.")] = False,
        weights: Weights = None,
        seed: Annotated[int, Option(help="Seeds random schemes and inputs.")] = 0,
        fmt: Format = "table",
    ) -> None:
        """Measure many schemes on a real runtime, and say how far the predictions were off."""
        edge.check_format(fmt)
        from aiq._recipes import read_scheme
        from aiq._validate_result import ValidateSettings
        from aiq.report import check_writable
        from roofline.errors import InputError

        if hardware is None:
            raise InputError(
                "predictions need the machine that this is, and none is named. Next: give --hardware FILE, as "
                "'aiq calibrate' writes it, or a name that 'aiq specs list' shows."
            )
        target = None if figure is None else check_writable(figure, (".svg", ".png"))
        machine = edge.machine(hardware, "datasheet")
        settings = ValidateSettings(
            runtime=runtime,
            schemes=[read_scheme(text) for text in schemes or ()],
            formats=None if formats is None else [text for text in formats.split(",") if text.strip()],
            count=count,
            batches=batch or (1, 32),
            rounds=rounds,
            max_spread=max_spread,
            tolerance=tolerance,
            data=data,
            samples=samples,
            locate=locate,
            seed=seed,
        )
        from aiq._validate import prepare
        from aiq._validate import validate as measured
        from aiq._validate_views import job_report, validation_report

        ticker = Ticker(edge.tell, at_once=True)
        try:
            with edge.working():
                built = edge.model(model, inputs, weights)
                planned = job_report(prepare(built, machine, settings)) if dry_run else None
                found = None if dry_run else measured(built, machine, settings, tell=ticker)
        except KeyboardInterrupt:
            edge.tell("aiq: interrupted by Ctrl-C before anything was measured. Next: run the same command again.")
            raise typer.Exit(INTERRUPTED) from None
        finally:
            ticker.close()
        if planned is not None:
            edge.show(planned, fmt)
        if found is not None:
            edge.show(validation_report(found, layers=layers), fmt)
            if code := _finish(edge, found, target):
                raise typer.Exit(code)

    return validate


def _finish(edge: Edge, result: Validation, figure: Path | None) -> int:
    """Draw the figure, say on standard error what the exit code stands for, and return it."""
    from aiq._validate_views import noise_text, tolerance_text

    if figure:
        from aiq._validate_plot import save_validation

        save_validation(result, figure)
        edge.tell(f"figure: {figure}")
    if result.interrupted:
        edge.tell("aiq: interrupted by Ctrl-C: what was measured is shown.")
        return INTERRUPTED
    if result.stopped:
        edge.tell(f"aiq: {result.stopped}")
        return FAILED
    if result.noisy:
        edge.tell(f"aiq: {noise_text(result)}. Next: stop other work, or raise --rounds or --max-spread.")
        return FAILED
    if result.within_tolerance is False:
        edge.tell(f"aiq: {tolerance_text(result)}. Next: calibrate this machine anew, with 'aiq calibrate'.")
        return OUTSIDE_TOLERANCE
    return 0
