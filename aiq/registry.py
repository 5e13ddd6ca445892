"""Every plug-in hook: built-ins and third parties take the same road, entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import AIQError, unknown_name
from roofline.errors import InputError

if TYPE_CHECKING:
    from aiq.additive import AdditiveOracle
    from aiq.oracle import Oracle, OracleContext
    from aiq.runtimes import Runtime
    from aiq.strategy import Strategy

STRATEGIES = "aiq.strategies"
ORACLES = "aiq.oracles"
RUNTIMES = "aiq.runtimes"


def strategy_names() -> list[str]:
    """Return the names of the installed search strategies."""
    return _names(STRATEGIES)


def load_strategy(text: str) -> Strategy:
    """Return a strategy from ``NAME`` or ``NAME:KEY=VALUE,...``: ``random:count=200,seed=3``, ``exact:frontier=false``.

    Raises:
        UnknownNameError: No strategy of that name is installed.
        InputError: A setting it does not have, or a value of another type.
        AIQError: It does not import, or it refuses its settings.
    """
    from aiq.strategies._parse import parse_settings

    name, _, settings = text.partition(":")
    make = _load(STRATEGIES, "strategy", name)
    strategy: Strategy = _built("strategy", name, lambda: make(**parse_settings(name, settings, make)))
    return strategy


def oracle_names() -> list[str]:
    """Return the names of the installed oracles."""
    return _names(ORACLES)


def load_oracle(text: str, context: OracleContext) -> Oracle:
    """Return an oracle from ``NAME`` or ``NAME:ARGUMENT``, built by its :class:`aiq.oracle.OracleFactory`.

    Raises:
        UnknownNameError: No oracle of that name is installed.
        AIQError: It does not import, or it refuses its argument or the context.
    """
    name, _, argument = text.partition(":")
    make = _load(ORACLES, "oracle", name)
    oracle: Oracle = _built("oracle", name, lambda: make(argument, context))
    return oracle


def additive_oracle_names() -> list[str]:
    """Return the names of the installed oracles that are additive; one that does not import is none."""
    found = set()
    for entry in entry_points(group=ORACLES):
        try:
            if _is_additive(entry.load()):
                found.add(entry.name)
        except Exception:
            continue
    return sorted(found)


def load_additive_oracle(text: str, context: OracleContext) -> AdditiveOracle:
    """Return an oracle from ``NAME`` or ``NAME:ARGUMENT`` that has a loss for each layer and format.

    Raises:
        UnknownNameError: No oracle of that name is installed.
        InputError: It is not additive.
        AIQError: It does not import, or it refuses its argument or the context.
    """
    name = text.partition(":")[0]
    if not _is_additive(_load(ORACLES, "oracle", name)):
        known = ", ".join(additive_oracle_names())
        raise InputError(
            f"oracle {name!r} measures whole schemes and has no loss for each layer: known with one: {known}. "
            "Next: choose one of these."
        )
    oracle: Any = load_oracle(text, context)
    if not callable(getattr(oracle, "loss_table", None)):
        raise AIQError(f"oracle {name!r} says it is additive and has no loss_table. Next: mend its package.")
    found: AdditiveOracle = oracle
    return found


def runtime_names() -> list[str]:
    """Return the names of the known runtimes, installed or not."""
    return _names(RUNTIMES)


def load_runtime(name: str) -> Runtime:
    """Return a runtime that can be used here.

    Raises:
        UnknownNameError: No runtime of that name is known.
        AIQError: What it needs is not installed; the message names the extra.
    """
    make = _load(RUNTIMES, "runtime", name)
    runtime: Runtime = _built("runtime", name, make)
    if reason := runtime.available():
        raise InputError(f"runtime {name!r} cannot be used: {reason}.")
    return runtime


def _is_additive(factory: Any) -> bool:
    return bool(getattr(factory, "additive", False))


def _names(group: str) -> list[str]:
    return sorted({entry.name for entry in entry_points(group=group)})


def _load(group: str, what: str, name: str) -> Callable[..., Any]:
    found = next((entry for entry in entry_points(group=group) if entry.name == name), None)
    if found is None:
        raise unknown_name(what, name, _names(group), "name one of these, or install its package")
    try:
        make: Callable[..., Any] = found.load()
    except Exception as error:
        raise AIQError(
            f"{what} {name!r} does not import: {_reason(error)}. Next: mend or remove its package."
        ) from error
    return make


def _built(what: str, name: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except AIQError:
        raise
    except Exception as error:
        raise AIQError(f"{what} {name!r} cannot be built: {_reason(error)}. Next: mend its package.") from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
