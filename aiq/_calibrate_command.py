"""The command ``aiq calibrate``: measure this machine, write its file, say what to do with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from aiq._options import Format
from aiq._search_command import FAILED, INTERRUPTED, Edge
from aiq._ticker import Ticker

Option = typer.Option


def calibrate_command(edge: Edge) -> Callable[..., None]:
    """Return the command; ``edge`` does its output."""

    def calibrate(  # noqa: PLR0917
        out: Annotated[str, Option(metavar="FILE.json", help="The machine file to write.")] = "machine.json",
        runtime: Annotated[
            list[str] | None,
            Option(help="What to calibrate: openvino, onnxruntime, torch; repeat for several; default all installed."),
        ] = None,
        seconds: Annotated[float, Option(help="Time to take, on a machine that does nothing else.")] = 60.0,
        threads: Annotated[int | None, Option(help="Threads of each pass; by default all processors.")] = None,
        name: Annotated[str, Option(help="The machine's short name.")] = "local",
        seed: Annotated[int, Option(help="Seeds weights, inputs and random mixtures of formats.")] = 0,
        fmt: Format = "table",
    ) -> None:
        """Measure this machine, for --hardware of the other commands."""
        edge.check_format(fmt)
        from aiq.report import check_writable

        target = check_writable(out, (".json",))
        ticker = Ticker(edge.tell, at_once=True)
        try:
            with edge.working():
                from aiq.calibrate import calibrate as measured
                from hardware_specs import to_json

                found = measured(runtime, seconds=seconds, threads=threads, name=name, seed=seed, progress=ticker)
        except KeyboardInterrupt:
            edge.tell("aiq: interrupted by Ctrl-C: nothing was written. Next: run the same command again.")
            raise typer.Exit(INTERRUPTED) from None
        finally:
            ticker.close()
        from aiq._calibrate_views import calibration_report, next_command

        target.write_text(to_json(found.spec), "utf-8")
        edge.show(calibration_report(found), fmt)
        edge.tell(f"written: {target}")
        edge.tell(f"next: {next_command(found, str(target))}")
        if not found.stability.stable:
            edge.tell(f"aiq: {found.stability.sentence}. Next: stop other work, and calibrate again.")
            raise typer.Exit(FAILED)

    return calibrate
