"""Find what a user names as ``package.module:function`` or ``path/to/file.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
import os.path
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hardware_specs.errors import AIQError, unknown_name


def find_callable(name: str, what: str, *, error: type[AIQError], step: str) -> Callable[..., Any]:
    """Import a module or file and return the callable that is named after the colon.

    Args:
        name: ``package.module:function`` or ``path/to/file.py:function``; dots after the colon reach into classes.
        what: What it is to be, for messages: ``model``, ``oracle``.
        error: Raised where the import fails.
        step: What to do about an unknown callable, without a full stop.

    Raises:
        UnknownNameError: The module has no such callable; near matches are offered.
    """
    location, _, attribute = name.rpartition(":")
    with importing_from(location):
        target = namespace = _import(location, f"{what} {name!r}", error)
        for part in attribute.split("."):
            known = [n for n in dir(target) if not n.startswith("_") and _own(getattr(target, n, None), namespace)]
            if not hasattr(target, part):
                raise unknown_name(f"callable in {location}", attribute, known, step)
            target = getattr(target, part)
    if not callable(target):
        raise error(f"{what} {name!r} is {type(target).__name__}, not a callable. Next: {step}.")
    found: Callable[..., Any] = target
    return found


@contextmanager
def importing_from(location: str) -> Iterator[None]:
    """Let imports see the file's folder, or the working directory, as running the file by itself would."""
    here = str(Path(location).resolve().parent if _is_file(location) else Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def reason(error: BaseException) -> str:
    """Return an exception's type and the first line of its text, with a full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.') if lines else 'no message'}."


def _own(value: Any, namespace: Any) -> bool:
    return callable(value) and getattr(value, "__module__", None) == namespace.__name__


def _is_file(location: str) -> bool:
    return "/" in location or location.endswith(".py")


def _import(location: str, whose: str, error_type: type[AIQError]) -> Any:
    if _is_file(location) and not os.path.isfile(location):
        raise error_type(f"{whose}: there is no file {location!r}. Next: check the path.")
    try:
        if not _is_file(location):
            return importlib.import_module(location)
        spec = importlib.util.spec_from_file_location(f"aiq_user_{Path(location).stem}", location)
        if spec is None or spec.loader is None:
            raise error_type(f"{whose}: {location!r} is no Python file. Next: give a .py file.")
        namespace = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = namespace
        spec.loader.exec_module(namespace)
        return namespace
    except AIQError:
        raise
    except (Exception, SystemExit) as error:
        raise error_type(
            f"{whose}: importing {location!r} failed: {reason(error)} Next: import it by itself."
        ) from error
