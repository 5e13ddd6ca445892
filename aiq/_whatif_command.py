"""The command ``aiq whatif``: its options, and what it writes besides the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiq._options import CacheUrl, EveryLogit, Format, Inputs, Phase, Rates, SourceArgument, Traffic, read_drop
from aiq._search_command import Edge

if TYPE_CHECKING:
    from aiq._model import Source
    from aiq._whatif import Sweep, Unit
    from aiq._whatif_answers import Goal
    from aiq._whatif_schemes import Choices

_FIGURES = (".svg", ".png")
_MOST_ROWS = 400

Option = typer.Option


def whatif_command(edge: Edge) -> Callable[..., None]:
    """Return the command; ``edge`` does its input and output."""

    def whatif(  # noqa: PLR0917
        model: SourceArgument,
        inputs: Inputs = None,
        hardware: Annotated[
            str, Option(metavar="NAME,...", help="Machines: names, patterns like 'a100*', files, or all.")
        ] = "t4,l4,a100-80,h100",
        changes: Annotated[
            list[str] | None,
            Option(
                "--set",
                metavar="PATH=VALUE",
                help="Each machine changed, too: memory.dram.bandwidth=2x, compute.int8=4e14, compute=2x; several "
                "joined by commas make one machine; repeat for several.",
            ),
        ] = None,
        scheme: Annotated[
            list[str] | None,
            Option(metavar="SCHEME,...", help="fp16,w8a8,w4:g128; a part with = is a rule of the scheme before it."),
        ] = None,
        phase: Phase = None,
        batch: Annotated[
            str | None, Option(metavar="N,...", help="Samples at once: 1,8,32, or 1..256 for doublings.")
        ] = None,
        context: Annotated[
            str | None, Option(metavar="TOKENS,...", help="Tokens of the prompt, or in the cache at decode: 1024,8192.")
        ] = None,
        every_logit: EveryLogit = False,
        traffic: Traffic = "fused",
        rates: Rates = "datasheet",
        price: Annotated[
            list[str] | None, Option(metavar="NAME=USD", help="What an hour costs, l4=0.71; repeat for several.")
        ] = None,
        target: Annotated[
            str | None, Option(help="Show the best first: throughput, latency or cost; by default as swept.")
        ] = None,
        losses: Annotated[
            str | None,
            Option(
                metavar="cache[:FINGERPRINT]|ORACLE",
                help="With --max-loss, the best scheme for each machine: of those that a search has measured, or by "
                "losses of single layers, table:FILE.",
            ),
        ] = None,
        max_loss: Annotated[
            str | None, Option(metavar="POINTS|SHARE%", help="Largest accuracy loss of the best scheme.")
        ] = None,
        cache: CacheUrl = None,
        plot: Annotated[
            str | None, Option(metavar="FILE.svg|png", help="Draw machines against batches, coloured by throughput.")
        ] = None,
        plot_roofline: Annotated[
            str | None, Option(metavar="FILE.svg|png", help="Draw the machines over each other in one roofline.")
        ] = None,
        fmt: Format = "table",
    ) -> None:
        """Price a model on many machines, batches, contexts and schemes at once."""
        edge.check_format(fmt)
        from aiq._whatif_machines import find_machines, read_counts, read_prices, read_schemes
        from aiq.report import check_writable

        goal = _goal(target)
        figures = [None if name is None else check_writable(name, _FIGURES) for name in (plot, plot_roofline)]
        _check_pair(losses, max_loss)
        machines = find_machines(
            hardware,
            load=lambda name: edge.machine(name, rates),
            changes=changes or (),
            prices=read_prices(price or ()),
        )
        schemes = read_schemes(scheme or ())
        batches = None if batch is None else read_counts("--batch", batch)
        contexts = None if context is None else read_counts("--context", context)

        from aiq._whatif import whatif as swept
        from aiq._whatif_answers import answer
        from aiq._whatif_views import whatif_report

        with edge.working():
            source = edge.source(model, inputs, phase=phase, every_logit=every_logit)
            sweep = swept(
                source,
                machines,
                schemes,
                batches=batches,
                contexts=contexts,
                traffic=traffic,
                unit=_unit(source, contexts),
            )
            choices = _choices(sweep, source, losses, max_loss, cache) if losses and max_loss else None
            answers = answer(sweep)
        most = _MOST_ROWS if fmt in ("table", "md") else None
        edge.show(whatif_report(sweep, answers, choices, best_first=goal, most_rows=most), fmt)
        _draw(edge, sweep, *figures)

    return whatif


def _goal(text: str | None) -> Goal | None:
    from aiq._whatif_answers import GOALS
    from roofline.errors import InputError

    found = next((goal for goal in GOALS if goal == text), None)
    if text is not None and found is None:
        raise InputError(f"unknown target {text!r}: known: {', '.join(GOALS)}. Next: choose one.")
    return found


def _check_pair(losses: str | None, max_loss: str | None) -> None:
    from roofline.errors import InputError

    if (losses is None) != (max_loss is None):
        given, missing = ("--losses", "--max-loss 1") if max_loss is None else ("--max-loss", "--losses cache")
        raise InputError(f"{given} asks for the best scheme and needs the other half. Next: give {missing} too.")


def _unit(source: Source, contexts: tuple[int, ...] | None) -> Unit:
    """Return what is counted: tokens of a language model, where it is known how many a pass makes."""
    from aiq._whatif import Unit

    if not source.phased:
        return Unit()
    if source.workload.phase == "decode":
        return Unit("tokens")
    return Unit("tokens", per_context=True) if contexts else Unit("sequences")


def _choices(sweep: Sweep, source: Source, losses: str, max_loss: str, cache: str | None) -> Choices:
    from aiq._whatif_schemes import best_additive, best_stored, stored
    from aiq.racing import LossLimit

    limit = LossLimit(*read_drop("--max-loss", max_loss))
    where, _, prefix = losses.partition(":")
    if where != "cache":
        return best_additive(sweep, losses, source.model, limit)
    from aiq.cache import open_store

    with open_store(cache, create=False) as store:
        evaluated = stored(sweep.graphs.grid(sweep.contexts[0]).graph, store, prefix)
    return best_stored(sweep, evaluated, limit)


def _draw(edge: Edge, sweep: Sweep, heat: Path | None, overlay: Path | None) -> None:
    if heat or overlay:
        from aiq._whatif_plot import save_heat, save_overlay

        for save, path in ((save_heat, heat), (save_overlay, overlay)):
            if path:
                save(sweep, path)
                edge.tell(f"figure: {path}")
