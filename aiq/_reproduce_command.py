"""The commands ``aiq reproduce NAME``: their options, and what they tell."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from aiq._options import CacheUrl, Format
from aiq._search_command import FAILED, INTERRUPTED, Edge
from aiq._ticker import Ticker

if TYPE_CHECKING:
    from aiq._reproduce_lab import ReproduceSettings

_SUMMARIES = {
    "case-study": "Quantize one layer of ResNet-20 at a time: figure 2.",
    "greedy": "Search ResNet-20 greedily: figures 3a and 3b.",
    "coordinate": "Add coordinate descent: the table of figure 4.",
    "heuristics": "Ask what is quantized first in two networks: table I.",
}
_THROUGHPUT = "throughput"

Option = typer.Option

Data = Annotated[str, Option(metavar="DIR", help="Where CIFAR-10 is: any form of it, or its archive.")]
Out = Annotated[str | None, Option(metavar="DIR", help="Folder to write to; default out/reproduce/NAME.")]
Limit = Annotated[int | None, Option(metavar="N", help="A quick look: only the first N images of each split.")]


def reproduce_commands(edge: Edge) -> typer.Typer:
    """Return the group of commands; ``edge`` does their input and output."""
    group = typer.Typer(
        help="Run the paper's experiments anew, beside its own figures.", no_args_is_help=True, rich_markup_mode=None
    )
    for experiment, summary in _SUMMARIES.items():
        group.command(experiment, help=summary)(_command(experiment, edge))
    group.command(_THROUGHPUT)(_throughput_command(edge))
    return group


def _command(experiment: str, edge: Edge) -> Callable[..., None]:
    def run(  # noqa: PLR0917
        data: Data,
        out: Out = None,
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
        limit: Limit = None,
        cache: CacheUrl = None,
        fmt: Format = "table",
    ) -> None:
        edge.check_format(fmt)
        from aiq._reproduce_lab import RESNET, ReproduceSettings

        settings = ReproduceSettings(
            data=Path(data),
            out=None if out is None else Path(out),
            weights=dict(_weights(text, RESNET) for text in weights or ()),
            quantizer=quantizer,
            limit=limit,
            cache=cache,
        )
        _run(edge, experiment, settings, fmt)

    return run


def _throughput_command(edge: Edge) -> Callable[..., None]:
    def run(  # noqa: PLR0917
        data: Data,
        out: Out = None,
        model: Annotated[str, Option(help="A network of the zoo with trained weights.")] = "mobilenet_v2_cifar",
        hardware: Annotated[
            str | None,
            Option(help="This machine, as 'aiq calibrate' wrote it; by default it is calibrated on the way."),
        ] = None,
        runtime: Annotated[
            list[str] | None, Option(help="openvino, onnxruntime, ...; repeat for several; default those installed.")
        ] = None,
        batch: Annotated[int, Option(help="Images in a pass.")] = 32,
        max_loss: Annotated[
            float,
            Option(metavar="POINTS", help="Largest loss of a scheme on the images that it is chosen on."),
        ] = 1.0,
        weights: Annotated[
            list[str] | None,
            Option(
                metavar="[NAME=]FILE",
                help="Trained weights, of the model if no network is named; by default those that ship with aiq.",
            ),
        ] = None,
        limit: Limit = None,
        search_images: Annotated[
            int, Option(metavar="N", help="Images that schemes are chosen on: greedy search takes many evaluations.")
        ] = 500,
        rounds: Annotated[int, Option(help="Samples of each network's time, taken in turn.")] = 30,
        max_spread: Annotated[float, Option(help="Median spread above which the machine is too noisy: exit 1.")] = 0.2,
        seed: Annotated[int, Option(help="Seeds random layers, calibration and resampling.")] = 0,
        cache: CacheUrl = None,
        fmt: Format = "table",
    ) -> None:
        """Deploy schemes of MobileNetV2 on real runtimes and time them: section III-D."""
        edge.check_format(fmt)
        from aiq._reproduce_lab import ReproduceSettings, ThroughputSettings

        settings = ReproduceSettings(
            data=Path(data),
            out=None if out is None else Path(out),
            weights=dict(_weights(text, model) for text in weights or ()),
            limit=limit,
            cache=cache,
            throughput=ThroughputSettings(
                model=model,
                hardware=None if hardware is None else edge.machine(hardware, "datasheet"),
                runtimes=runtime or (),
                batch=batch,
                max_loss=max_loss,
                search_images=search_images,
                rounds=rounds,
                max_spread=max_spread,
                seed=seed,
            ),
        )
        _run(edge, _THROUGHPUT, settings, fmt)

    return run


def _run(edge: Edge, experiment: str, settings: ReproduceSettings, fmt: str) -> None:
    """Run an experiment, show it, and say on standard error what is not as it should be."""
    from aiq._reproduce import reproduce

    ticker = Ticker(edge.tell, at_once=True)
    try:
        with edge.working():
            found = reproduce(experiment, settings, tell=ticker)
    except KeyboardInterrupt:
        ticker.close()
        _interrupted(edge, "what was measured is in the cache")
    ticker.close()
    edge.show(found.report(fmt), fmt)
    edge.tell(f"written: {', '.join(map(str, found.files))}")
    if found.outcome.interrupted:
        _interrupted(edge, "what was measured is shown, and evaluations are in the cache")
    if found.outcome.failure:
        edge.tell(f"aiq: {found.outcome.failure}")
        raise typer.Exit(FAILED)


def _interrupted(edge: Edge, kept: str) -> NoReturn:
    edge.tell(f"aiq: interrupted by Ctrl-C: {kept}.")
    edge.tell(f"resume: {shlex.join(['aiq', *sys.argv[1:]])}")
    raise typer.Exit(INTERRUPTED) from None


def _weights(text: str, network: str) -> tuple[str, Path]:
    """Read a file of weights; of ``network`` where it names none."""
    from aiq import zoo

    name, equals, file = text.partition("=")
    return (name, Path(file)) if equals and name in zoo.names() else (network, Path(text))
