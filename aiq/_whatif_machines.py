"""What ``aiq whatif`` sweeps over, as a user writes it: machines, changes to them, prices, batches, schemes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, get_args

import hardware_specs
from aiq._recipes import read_scheme
from hardware_specs import HardwareSpec, Rated
from hardware_specs.errors import AIQError, unknown_name
from roofline import Scheme
from roofline.errors import InputError
from roofline.units import si

MOST = 10**6
_RANGE = re.compile(r"([0-9]{1,9})(?:\.\.([0-9]{1,9}))?")
_VALUE = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(?:(x)|([numkMGTP]?)(B/s|B|FLOP/s|OP/s|s)?)")
_SCALES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_UNITS = {"bandwidth": "B/s", "capacity": "B", "compute": "FLOP/s", "launch_overhead": "s"}


@dataclass(frozen=True, eq=False)
class Machine:
    """A machine of a sweep.

    Attributes:
        label: Its name, with what was changed.
        spec: Its figures, with the rates in force.
        base: Name of the machine that a hypothetical one was made from; of any other its own.
        price_per_hour: What an hour of it costs, USD; ``None`` where nobody says.
        refused: Why it cannot be priced at these rates or changed like this; empty where it can.
    """

    label: str
    spec: HardwareSpec
    base: str
    price_per_hour: float | None = None
    refused: str = ""


def find_machines(
    text: str,
    *,
    load: Callable[[str], HardwareSpec] = hardware_specs.load,
    changes: Iterable[str] = (),
    prices: Mapping[str, float] | None = None,
) -> list[Machine]:
    """Return the machines of a sweep: those named, then each of them with each change.

    Args:
        text: Names, patterns (``a100*``), files, or ``all``, comma-separated.
        load: Returns a machine with the wanted rates in force; one that it refuses is kept with the reason.
        changes: For each hypothetical machine what differs, ``PATH=VALUE[,PATH=VALUE]...``.
        prices: USD an hour by name; others have the price of their specification, where it has one.

    Raises:
        UnknownNameError: No machine of that name, a price for none of them, or a path that none of them has.
        SpecError: A file that cannot be read.
        InputError: A pattern that no machine matches, a malformed change, or rates that no machine has.
    """
    given = dict(prices or {})
    found: dict[str, Machine] = {}
    errors: list[AIQError] = []
    for name in _named(text):
        spec = hardware_specs.load(name)
        price, refused = spec.price_usd_per_hour.value if spec.price_usd_per_hour else None, ""
        try:
            rated = load(name)
        except AIQError as error:
            errors.append(error)
            rated, refused = spec, _what(error)
        found[spec.name] = Machine(spec.name, rated, spec.name, given.get(spec.name, price), refused)
    if len(errors) == len(found):
        raise errors[0]
    bases = list(found.values())
    for change in changes:
        found |= {machine.label: machine for machine in _hypothetical(change, bases)}
    for name in given:
        if name not in found:
            raise unknown_name("machine with a price", name, found, "name a machine of --hardware")
    return [
        replace(machine, price_per_hour=given.get(label, machine.price_per_hour)) for label, machine in found.items()
    ]


def _named(text: str) -> Iterator[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise InputError("no machine is named. Next: give --hardware t4,l4 or all; 'aiq specs list' shows them.")
    for name in names:
        if name == "all":
            yield from hardware_specs.names()
        elif any(mark in name for mark in "*?["):
            matching = [known for known in hardware_specs.names() if fnmatchcase(known, name)]
            if not matching:
                raise InputError(f"no machine matches {name!r}. Next: run 'aiq specs list' for their names.")
            yield from matching
        else:
            yield name


def _what(error: AIQError) -> str:
    """Return an error without its next step, for a row of a table."""
    return str(error).partition(" Next: ")[0].rstrip(".")


def _hypothetical(text: str, machines: Sequence[Machine]) -> list[Machine]:
    changes = [_parse_change(part) for part in text.split(",") if part.strip()]
    if not changes:
        raise _malformed(text)
    known = sorted({path for machine in machines for path in paths(machine.spec)})
    for path, _, _ in changes:
        if path not in known and not (path.startswith("compute.") and _is_format(path)):
            raise unknown_name(
                "path in --set", path, known, "name one of these figures; 'aiq specs show NAME' lists them"
            )
    found = []
    for machine in machines:
        label = f"{machine.label}+{' '.join(_words(*change) for change in changes)}"
        spec, refused = machine.spec, machine.refused
        try:
            for path, value, is_factor in changes:
                spec = changed(spec, path, value, is_factor=is_factor)
        except AIQError as error:
            refused = refused or _what(error)
        spec = spec.model_copy(update={"title": f"{machine.spec.title} ({label.partition('+')[2]})", "name": label})
        found.append(Machine(label, spec, machine.base, machine.price_per_hour, refused))
    if all(machine.refused for machine in found):
        raise InputError(f"--set {text!r} fits none of the machines: {found[0].refused}. Next: change another figure.")
    return found


def _is_format(path: str) -> bool:
    return path.partition(".")[2] in get_args(hardware_specs.Format)


def _malformed(text: str) -> InputError:
    return InputError(
        f"--set takes PATH=VALUE with a factor or an amount, got {text!r}. "
        "Next: write for instance --set memory.dram.bandwidth=2x or --set memory.dram.capacity=48GB."
    )


def _parse_change(text: str) -> tuple[str, float, bool]:
    path, equals, value = text.strip().partition("=")
    match = _VALUE.fullmatch(value.strip())
    if not equals or not path.strip() or not match:
        raise _malformed(text)
    amount = float(match[1]) * (1.0 if match[2] else _SCALES[match[3] or ""])
    if not 0 < amount < math.inf:
        raise _malformed(text)
    return path.strip(), amount, bool(match[2])


def _words(path: str, value: float, is_factor: bool) -> str:
    short = path.removeprefix("memory.")
    unit = next((unit for word, unit in _UNITS.items() if word in path), "")
    return f"{short} x{value:g}" if is_factor else f"{short} {si(value, unit)}"


def paths(spec: HardwareSpec) -> list[str]:
    """Return the figures of a machine that a change may name; ``compute`` stands for all ceilings."""
    levels = [f"memory.{level.name}.bandwidth" for level in spec.memory]
    sizes = [f"memory.{level.name}.capacity" for level in spec.memory if level.capacity_bytes]
    overhead = ["launch_overhead"] if spec.launch_overhead_s else []
    return ["compute", *(f"compute.{fmt}" for fmt in spec.compute), *levels, *sizes, *overhead]


def changed(spec: HardwareSpec, path: str, value: float, *, is_factor: bool) -> HardwareSpec:
    """Return a machine with one figure changed; what is measured of it is scaled too, or left out.

    Args:
        spec: The machine.
        path: One of :func:`paths`, or ``compute.FORMAT`` of a format that it lacks, with an amount.
        value: A factor, or the new figure in SI base units.
        is_factor: Which of the two.

    Raises:
        UnknownNameError: It has no such figure.
        InputError: Rates by kernel models, which do not follow such figures, or one amount for all ceilings.
    """
    if spec.rates == "calibrated":
        raise InputError(f"the kernel models of {spec.name} do not follow a change. Next: leave --rates at datasheet.")
    known = paths(spec)
    where, _, name = path.partition(".")
    if path not in known and (is_factor or where != "compute" or not _is_format(path)):
        raise unknown_name(f"figure of {spec.name}", path, known, "choose one of these")

    def new(old: Any) -> Any:
        own = {"value": old.value * value if is_factor else value, "kind": "derived", "source": "what if it were so"}
        slow = getattr(old, "sustained", None)
        rest = (
            {"sustained": new(slow) if slow and is_factor else None, "second": None} if isinstance(old, Rated) else {}
        )
        geometry = dict.fromkeys(("units", "ops_per_clock", "clock_hz"), None) if where == "compute" else {}
        return old.model_copy(update={**own, **rest, **geometry})

    if where == "compute":
        if not name and not is_factor:
            raise InputError(
                "one amount for all ceilings says too little. Next: write --set compute=2x or name a format."
            )
        template = next(iter(spec.compute.values()))
        chosen = [name] if name else list(spec.compute)
        return spec.model_copy(
            update={"compute": {**spec.compute, **{f: new(spec.compute.get(f, template)) for f in chosen}}}  # type: ignore[call-overload]
        )
    if where == "launch_overhead":
        return spec.model_copy(update={"launch_overhead_s": new(spec.launch_overhead_s)})
    level_name, _, figure = name.partition(".")
    field = {"bandwidth": "bandwidth_bytes_per_s", "capacity": "capacity_bytes"}[figure]
    levels = (
        level.model_copy(update={field: new(getattr(level, field)), "bus_bits": None, "transfers_per_s": None})
        if level.name == level_name
        else level
        for level in spec.memory
    )
    return spec.model_copy(update={"memory": tuple(levels)})


def read_prices(texts: Iterable[str]) -> dict[str, float]:
    """Read prices, ``NAME=USD_AN_HOUR`` each, several joined by commas.

    Raises:
        InputError: A malformed price, or two of one machine.
    """
    found: dict[str, float] = {}
    for part in (part for text in texts for part in text.split(",") if part.strip()):
        name, equals, value = (piece.strip() for piece in part.rpartition("="))
        try:
            price = float(value)
        except ValueError:
            price = math.nan
        if not equals or not name or not 0 < price < math.inf:
            raise InputError(f"--price takes NAME=USD an hour, got {part.strip()!r}. Next: write --price l4=0.71.")
        if name in found:
            raise InputError(f"--price names {name} twice. Next: give one price for it.")
        found[name] = price
    return found


def read_counts(option: str, text: str) -> tuple[int, ...]:
    """Read whole numbers: ``1,8,32``, or ``1..256`` for doublings from the first to the last, which is one too.

    Raises:
        InputError: Something else, or a number out of range.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= MOST:
            raise InputError(
                f"{option} takes whole numbers from 1 to {MOST}, or a range to double over, got {part.strip()!r}. "
                f"Next: write for instance {option} 1,8,32 or {option} 1..256."
            )
        while first < last:
            found[first] = None
            first *= 2
        found[last] = None
    return tuple(sorted(found))


def read_schemes(texts: Iterable[str]) -> list[Scheme]:
    """Read schemes, several joined by commas: a part with ``=`` is a rule of the scheme before it.

    ``fp16,w4,conv1=keep,w8a8`` are three: ``fp16``, ``w4,conv1=keep`` and ``w8a8``.

    Raises:
        AIQError: See :meth:`roofline.Scheme.parse`.
    """
    joined: list[str] = []
    for text in texts:
        for index, part in enumerate(text.split(",")):
            if "=" in part and index:
                joined[-1] += f",{part}"
            else:
                joined.append(part.strip())
    return [read_scheme(text) for text in dict.fromkeys(joined)]
