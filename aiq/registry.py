"""Every plug-in hook: built-ins and third parties take the same road, entry points."""

from __future__ import annotations

from importlib.metadata import entry_points

from aiq.proxy import AccuracyProxy
from hardware_specs.errors import AIQError, unknown_name

PROXIES = "aiq.proxies"


def proxy_names() -> list[str]:
    """Return the names of the installed accuracy proxies."""
    return sorted({entry.name for entry in entry_points(group=PROXIES)})


def load_proxy(text: str) -> AccuracyProxy:
    """Return a proxy from ``NAME`` or ``NAME:ARGUMENT``.

    Raises:
        UnknownNameError: No proxy of that name is installed.
        AIQError: The proxy refuses its argument.
    """
    name, _, argument = text.partition(":")
    found = [entry for entry in entry_points(group=PROXIES) if entry.name == name]
    if not found:
        raise unknown_name("accuracy proxy", name, proxy_names(), "name one of these, or install its package")
    try:
        make = found[0].load()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise AIQError(
            f"accuracy proxy {name!r} does not import: {reason}. Next: mend or remove its package."
        ) from error
    proxy: AccuracyProxy = make(argument)
    return proxy
