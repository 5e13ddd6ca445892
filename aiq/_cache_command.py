"""The commands ``aiq cache``: look into the cache of evaluations, move it, thin it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from aiq._options import CacheUrl, Format
from aiq._search_command import Edge


def cache_commands(edge: Edge, say: Callable[[str], None]) -> typer.Typer:
    """Return the group of commands; ``edge`` does their input and output, ``say`` writes a line to standard output."""
    group = typer.Typer(
        help="Look into the cache of evaluations, move it, thin it out.", no_args_is_help=True, rich_markup_mode=None
    )

    @group.command("stats")
    def cache_stats(url: CacheUrl = None, fmt: Format = "table") -> None:
        """Show how much the cache holds."""
        edge.check_format(fmt)
        from aiq._cache_views import stats_report
        from aiq.cache import open_store

        with open_store(url, create=False) as store:
            edge.show(stats_report(store.stats()), fmt)

    @group.command("list")
    def cache_list(url: CacheUrl = None, fmt: Format = "table") -> None:
        """List the oracles whose evaluations the cache holds."""
        edge.check_format(fmt)
        from aiq._cache_views import oracles_report
        from aiq.cache import open_store

        with open_store(url, create=False) as store:
            edge.show(oracles_report(store.oracles()), fmt)

    @group.command("export")
    def cache_export(
        file: Annotated[str, typer.Argument(metavar="FILE.jsonl", help="Where to; - for standard output.")],
        url: CacheUrl = None,
    ) -> None:
        """Write every evaluation, one a line."""
        from aiq.cache import export_evaluations, export_lines, open_store

        with open_store(url, create=False) as store:
            if file == "-":
                for line in export_lines(store):
                    say(line)
            else:
                edge.tell(f"evaluations exported to {file}: {export_evaluations(store, file)}")

    @group.command("import")
    def cache_import(
        file: Annotated[str, typer.Argument(metavar="FILE.jsonl", help="What 'aiq cache export' wrote.")],
        url: CacheUrl = None,
    ) -> None:
        """Add exported evaluations; those that the cache has stay as they are."""
        from aiq.cache import import_evaluations, open_store

        with open_store(url) as store:
            added, present = import_evaluations(store, file)
        say(f"evaluations added: {added}, there already: {present}")

    @group.command("prune")
    def cache_prune(
        older_than: Annotated[
            float | None, typer.Option("--older-than", metavar="DAYS", help="Those stored longer ago than this.")
        ] = None,
        fingerprint: Annotated[
            str | None,
            typer.Option("--fingerprint", metavar="PREFIX", help="Those of the oracle whose fingerprint starts so."),
        ] = None,
        everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
        url: CacheUrl = None,
    ) -> None:
        """Remove evaluations: give exactly one of the three."""
        from aiq.cache import open_store

        with open_store(url, create=False) as store:
            removed = store.prune(older_than_days=older_than, fingerprint=fingerprint, everything=everything)
            say(f"evaluations removed: {removed}, left: {store.stats().evaluations}")
            store.compact()

    return group
