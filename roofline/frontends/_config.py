"""Read ``config.json`` files safely: every value is checked where it is used, and sizes have limits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from roofline.errors import AIQError

MOST_LAYERS = 2000
MOST = 10**7
_MOST_FILE_BYTES = 8_000_000
_SHOWN = 40


class ConfigError(AIQError):
    """A model configuration that cannot be read or built."""


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a ``config.json``, or that of a folder.

    Raises:
        ConfigError: There is no such file, or it holds no JSON object.
    """
    file = Path(path).expanduser()
    try:
        if file.is_dir():
            file /= "config.json"
        if not file.is_file():
            raise ConfigError(
                f"config {str(file)!r}: no such file. Next: give a config.json or the folder that holds it."
            )
        size = file.stat().st_size
        if size > _MOST_FILE_BYTES:
            raise ConfigError(
                f"config {str(file)!r} has {size} bytes, at most {_MOST_FILE_BYTES} are read. Next: give a config.json."
            )
        data = json.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
        raise ConfigError(f"config {str(file)!r}: {reason}. Next: give a readable config.json.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"config {str(file)!r}: malformed JSON: {shown(str(error), 80)}. Next: mend it.") from None
    if not isinstance(data, dict):
        raise ConfigError(f"config {str(file)!r} holds no JSON object. Next: give the config.json of a model.")
    return data


def shown(value: Any, length: int = _SHOWN) -> str:
    """Return a value as text of limited length, for a message."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**_SHOWN:
        return "a number of more than 40 digits"
    try:
        text = value if isinstance(value, str) else repr(value)
    except RecursionError:
        return "nested too deep"
    return text if len(text) <= length else f"{text[:length]}…"


class Config:
    """A model's configuration as checked values.

    Args:
        data: The parsed ``config.json``.
        name: What messages call it.
    """

    def __init__(self, data: Mapping[str, Any], name: str) -> None:
        self.data = data
        self.name = name

    def has(self, key: str) -> bool:
        """Tell whether a key is there and not null."""
        return self.data.get(key) is not None

    def whole(self, key: str, default: int | None = None, *, low: int = 1, high: int = MOST) -> int:
        """Return a whole number from ``low`` to ``high``; without a default the key must be there.

        Raises:
            ConfigError: It is missing, or another thing.
        """
        value = self.data.get(key)
        if value is None:
            if default is None:
                raise self.error(f"{key} is missing", f"give it as a whole number from {low} to {high}")
            return default
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not low <= value <= high:
            raise self.error(f"{key} is {shown(value)}", f"give a whole number from {low} to {high}")
        return int(value)

    def layers(self, key: str) -> int:
        """Return a number of layers.

        Raises:
            ConfigError: It is missing, or not from 1 to 2000.
        """
        return self.whole(key, high=MOST_LAYERS)

    def flag(self, key: str, default: bool = False) -> bool:
        """Return true or false.

        Raises:
            ConfigError: It is another thing.
        """
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(f"{key} is {shown(value)}", "give true or false")
        return value

    def text(self, key: str, default: str) -> str:
        """Return a text.

        Raises:
            ConfigError: It is another thing.
        """
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or len(value) > MOST_LAYERS:
            raise self.error(f"{key} is {shown(value)}", "give a text")
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        """Return a list of texts, or ``None`` where there is none.

        Raises:
            ConfigError: It is another thing.
        """
        value = self.data.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(f"{key} is {shown(value)}", "give a list of texts")
        return tuple(value)

    def section(self, key: str) -> Config | None:
        """Return a nested section, or ``None`` where there is none.

        Raises:
            ConfigError: It is another thing.
        """
        value = self.data.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(f"{key} is {shown(value)}", "give an object")
        return Config(value, f"{self.name}: {key}")

    def share(self, key: str, default: float) -> float:
        """Return a number from 0 to 1.

        Raises:
            ConfigError: It is another thing.
        """
        value = self.data.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise self.error(f"{key} is {shown(value)}", "give a number from 0 to 1")
        return float(value)

    def one_of(self, key: str, default: str, known: Sequence[str]) -> str:
        """Return one of several texts.

        Raises:
            ConfigError: It is another thing.
        """
        value = self.text(key, default)
        if value not in known:
            raise self.error(f"{key} is {shown(value)}", f"give one of {', '.join(known)}")
        return value

    def divided(self, whole: str, parts: str, sizes: tuple[int, int]) -> int:
        """Return ``sizes[0] / sizes[1]``, where it is whole.

        Raises:
            ConfigError: It is not.
        """
        if sizes[0] % sizes[1]:
            raise self.error(f"{whole} of {sizes[0]} is no multiple of {parts}, {sizes[1]}", "mend one of them")
        return sizes[0] // sizes[1]

    def error(self, what: str, step: str) -> ConfigError:
        """Return an error that names the configuration."""
        return ConfigError(f"config of {self.name}: {what}. Next: {step}.")
