"""The commands ``aiq reproduce NAME``: their options, and what they tell."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from aiq._options import CacheUrl, Format
from aiq._search_command import INTERRUPTED, Edge
from aiq._ticker import Ticker

_SUMMARIES = {
    "case-study": "Quantize one layer of ResNet-20 at a time: figure 2.",
    "greedy": "Search ResNet-20 greedily: figures 3a and 3b.",
    "coordinate": "Add coordinate descent: the table of figure 4.",
    "heuristics": "Ask what is quantized first in two networks: table I.",
}

Option = typer.Option


def reproduce_commands(edge: Edge) -> typer.Typer:
    """Return the group of commands; ``edge`` does their input and output."""
    group = typer.Typer(
        help="Run the paper's experiments anew, beside its own figures.", no_args_is_help=True, rich_markup_mode=None
    )
    for experiment, summary in _SUMMARIES.items():
        group.command(experiment, help=summary)(_command(experiment, edge))
    return group


def _command(experiment: str, edge: Edge) -> Callable[..., None]:
    def run(  # noqa: PLR0917
        data: Annotated[str, Option(metavar="DIR", help="Where CIFAR-10 is: any form of it, or its archive.")],
        out: Annotated[
            str | None, Option(metavar="DIR", help="Folder to write to; default out/reproduce/NAME.")
        ] = None,
        weights: Annotated[
            list[str] | None,
            Option(
                metavar="[NAME=]FILE",
                help="Trained weights, of resnet20 if no network is named; repeat for several. By default those beside "
                "the data, else those that ship with aiq.",
            ),
        ] = None,
        quantizer: Annotated[
            str, Option(help="paper (nearest, per tensor, by the largest value), aiq (the default recipe) or both.")
        ] = "both",
        limit: Annotated[
            int | None, Option(metavar="N", help="A quick look: only the first N images of each split.")
        ] = None,
        cache: CacheUrl = None,
        fmt: Format = "table",
    ) -> None:
        edge.check_format(fmt)
        from aiq._reproduce import reproduce
        from aiq._reproduce_lab import ReproduceSettings

        settings = ReproduceSettings(
            data=Path(data),
            out=None if out is None else Path(out),
            weights=dict(map(_weights, weights or ())),
            quantizer=quantizer,
            limit=limit,
            cache=cache,
        )
        ticker = Ticker(edge.tell, at_once=True)
        try:
            with edge.working():
                found = reproduce(experiment, settings, tell=ticker)
        except KeyboardInterrupt:
            ticker.close()
            edge.tell("aiq: interrupted by Ctrl-C: what was measured is in the cache.")
            edge.tell(f"resume: {shlex.join(['aiq', *sys.argv[1:]])}")
            raise typer.Exit(INTERRUPTED) from None
        ticker.close()
        edge.show(found.report(fmt), fmt)
        edge.tell(f"written: {', '.join(map(str, found.files))}")

    return run


def _weights(text: str) -> tuple[str, Path]:
    from aiq import zoo
    from aiq._reproduce_lab import RESNET

    name, equals, file = text.partition("=")
    return (name, Path(file)) if equals and name in zoo.names() else (RESNET, Path(text))
