"""Find and read machine specifications: the shipped catalogue by name, any other file by path."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hardware_specs._kernels import FitError, KernelForm, KernelModel
from hardware_specs._spec import Ceiling, CrossCheck, HardwareSpec, MemoryLevel, Quantity, Rated
from hardware_specs.errors import SpecError, unknown_name

_MACHINE = (HardwareSpec, MemoryLevel, Ceiling, Rated, Quantity, CrossCheck)
_KEYS = frozenset(key for model in _MACHINE for key in model.model_fields) - {"rates", "runtime"}
_KERNEL_KEYS = frozenset(key for model in (KernelModel, KernelForm, FitError) for key in model.model_fields)


@cache
def _catalog() -> dict[str, str]:
    """Map each short name and alias to its file in the catalogue."""
    found: dict[str, str] = {}
    for entry in sorted(files("hardware_specs").joinpath("catalog").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            data = tomllib.loads(entry.read_text("utf-8"))
            for name in (data["name"], *data.get("aliases", ())):
                found[name] = entry.name
    return found


def names(*, aliases: bool = False) -> list[str]:
    """Return the short names of the catalogue, sorted; with ``aliases``, those too."""
    return sorted(n for n, file in _catalog().items() if aliases or file == f"{n}.toml")


def parse(text: str, origin: str) -> HardwareSpec:
    """Read a specification from TOML ``text``, or JSON where ``origin``, which names it in errors, ends in ``.json``.

    Raises:
        SpecError: Malformed text, an unknown key, a missing or impossible value; one line per fault.
    """
    language = "JSON" if origin.endswith(".json") else "TOML"
    try:
        return HardwareSpec.model_validate(json.loads(text) if language == "JSON" else tomllib.loads(text))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {_fault(dict(e))}" for e in error.errors()]
        raise SpecError(f"{origin}: " + "; ".join(faults) + ". Next: mend these keys.") from None
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{origin}: malformed {language}: {error}. Next: mend the file at that place.") from None


def to_json(spec: HardwareSpec) -> str:
    """Return a specification as JSON that :func:`parse` reads back equal; what takes its default is left out."""
    return spec.model_dump_json(indent=2, exclude_defaults=True, exclude={"rates", "runtime"}) + "\n"


def _fault(error: Mapping[str, Any]) -> str:
    if error["type"] != "extra_forbidden":
        return str(error["msg"]).removeprefix("Value error, ")
    key = str(error["loc"][-1])
    keys = _KERNEL_KEYS if error["loc"][0] == "kernels" else _KEYS
    near = difflib.get_close_matches(key, keys, n=1)
    return f"unknown key, did you mean {near[0]!r}?" if near else f"unknown key, known: {', '.join(sorted(keys))}"


def read(path: str | Path) -> HardwareSpec:
    """Read a specification from a TOML or, by its suffix, JSON file.

    Raises:
        SpecError: The file cannot be read, or :func:`parse` refuses it.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SpecError(f"cannot read hardware file {str(path)!r}: {reason}. Next: check the path.") from None
    return parse(text, str(path))


@cache
def _load_named(file: str) -> HardwareSpec:
    return parse(files("hardware_specs").joinpath("catalog", file).read_text("utf-8"), file)


def load(name: str) -> HardwareSpec:
    """Return a machine by short name, alias, or path (a ``/`` or the suffix ``.toml`` or ``.json`` makes it a path).

    Raises:
        UnknownNameError: No such name; near matches are offered.
        SpecError: The file is unreadable or malformed.
    """
    if "/" in name or name.endswith((".toml", ".json")):
        return read(name)
    file = _catalog().get(name)
    if file is None:
        raise unknown_name(
            "hardware", name, _catalog(), "run 'aiq specs list', or give a path to a .toml or .json file"
        )
    return _load_named(file)
