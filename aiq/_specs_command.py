"""The commands ``aiq specs``: the catalogue listed, one machine shown, specifications linted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from aiq._options import Format
from aiq._search_command import Edge


def specs_commands(edge: Edge, say: Callable[[str], None]) -> typer.Typer:
    """Return the group of commands; ``edge`` does their input and output, ``say`` writes a line to standard output."""
    group = typer.Typer(help="List, show and check machines.", no_args_is_help=True, rich_markup_mode=None)

    @group.command("list")
    def specs_list(fmt: Format = "table") -> None:
        """List the machines of the catalogue, by vendor."""
        edge.check_format(fmt)
        import hardware_specs
        from aiq._views import specs_report

        edge.show(specs_report(hardware_specs.load(name) for name in hardware_specs.names()), fmt)

    @group.command("show")
    def specs_show(
        name: Annotated[str, typer.Argument(metavar="NAME", help="A short name or a .toml file.")],
        fmt: Format = "table",
    ) -> None:
        """Show a machine, each number with its source."""
        edge.check_format(fmt)
        import hardware_specs
        from aiq._views import spec_report

        edge.show(spec_report(hardware_specs.load(name)), fmt)

    @group.command("check")
    def specs_check(
        file: Annotated[str | None, typer.Argument(metavar="FILE", help="A .toml file, or a short name.")] = None,
        every: Annotated[bool, typer.Option("--all", help="Lint every machine of the catalogue.")] = False,
    ) -> None:
        """Lint a machine specification, or all that ship."""
        from roofline.errors import InputError

        if every == (file is not None):
            raise InputError(
                f"specs check takes a file or --all, got {'both' if every else 'neither'}. "
                "Next: name one machine, or give --all alone."
            )
        if file is None:
            _check_all(edge, say)
        else:
            _check_one(file, edge, say)

    return group


def _check_one(file: str, edge: Edge, say: Callable[[str], None]) -> None:
    import hardware_specs

    spec = hardware_specs.load(file)
    findings = hardware_specs.lint(spec)
    for finding in findings:
        say(str(finding))
    if findings:
        edge.tell(f"{spec.name}: {len(findings)} finding{'s' if len(findings) > 1 else ''}")
        raise typer.Exit(1)
    say(f"{spec.name}: no findings")


def _check_all(edge: Edge, say: Callable[[str], None]) -> None:
    import hardware_specs

    names, wrong = hardware_specs.names(), []
    for name in names:
        findings = hardware_specs.lint(hardware_specs.load(name))
        for finding in findings:
            say(f"{name}: {finding}")
        if findings:
            wrong.append(name)
    if wrong:
        edge.tell(f"{len(wrong)} of {len(names)} machines have findings: {', '.join(wrong)}")
        raise typer.Exit(1)
    say(f"{len(names)} machines: no findings")
