"""The command ``aiq export``: its options, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from aiq._options import Format, Inputs, ModelArgument, Weights
from aiq._search_command import Edge

if TYPE_CHECKING:
    from aiq._export import Export
    from aiq.report import Report

Option = typer.Option


def export_command(edge: Edge) -> Callable[..., None]:
    """Return the command; ``edge`` does its input and output."""

    def export(  # noqa: PLR0917
        model: ModelArgument,
        folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder to write to: new or empty.")],
        scheme: Annotated[str, Option(help="w8a8, w4:g32, ...; w4,conv1=keep,layer3.*=w8; or a .toml/.json file.")],
        to: Annotated[str, Option(metavar="TARGET", help="onnx, openvino, compressed-tensors or torchao.")],
        inputs: Inputs = None,
        data: Annotated[
            str | None,
            Option(help="Data set to calibrate on: digits, cifar10:PATH, a file, ...; by default the network's own."),
        ] = None,
        batch: Annotated[int, Option(help="Samples in a pass, for openvino.")] = 1,
        weights: Weights = None,
        force: Annotated[bool, Option("--force", help="Overwrite files in a folder that is not empty.")] = False,
        fmt: Format = "table",
    ) -> None:
        """Write a quantized network for another program, and check the file by loading it anew."""
        edge.check_format(fmt)
        from aiq._export import export as run
        from aiq._recipes import read_scheme

        chosen = read_scheme(scheme)
        with edge.working():
            found = run(edge.model(model, inputs, weights), chosen, to, folder, data=data, batch=batch, force=force)
        edge.show(export_report(found), fmt)

    return export


def export_report(export: Export) -> Report:
    """Show an export: one row for each layer."""
    from aiq.report import Column, Report
    from roofline.units import number, si

    check, data = export.check, export.to_dict()
    headline = (
        f"{export.model} as {export.scheme} written to {export.folder} ({export.target}, "
        f"{si(sum(export.files.values()), 'B')}); loaded anew by {check.reader}, {check.agreeing} of {check.n} "
        f"predictions are the simulation's, largest difference {number(check.largest_difference)} at a spread of "
        f"{number(check.scale)}"
    )
    columns = (
        Column("layer", "layer"),
        Column("format", "format"),
        Column("stored", "weights stored in"),
        Column("reason", "why", drop=1),
    )
    notes = [f"compared on {check.inputs}", f"files: {', '.join(export.files)}", *export.notes]
    return Report(headline, columns, data["layers"], notes, data)
