"""A quantization scheme: which layer is stored and computed in which format. Frozen, versioned data."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from roofline.errors import AIQError, PrecisionError, SchemeError, unknown_name
from roofline.precision import LayerPrecision

SCHEME_VERSION = 1


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a scheme: layers that match ``pattern`` take ``precision``.

    ``pattern`` is a layer's name, a glob (``layer1.*``) or ``re:`` and a regular expression that must match whole
    names.
    """

    pattern: str
    precision: LayerPrecision

    def matches(self, layer: str) -> bool:
        """Tell whether the rule speaks of ``layer``."""
        return matches(self.pattern, layer)


def matches(pattern: str, layer: str) -> bool:
    """Tell whether ``pattern`` (name, glob, or ``re:`` and an expression) covers the name ``layer``."""
    if pattern.startswith("re:"):
        return re.fullmatch(pattern[3:], layer) is not None
    return pattern == layer or fnmatchcase(layer, pattern)


@dataclass(frozen=True, slots=True)
class Scheme:
    """Rules in order, then a default. The first rule that matches wins.

    Layers that the model itself declares as kept (``OpGraph.keep_weights``) keep their weights' format unless a rule
    matches them; the default never overrides a declared keep.
    """

    default: LayerPrecision = field(default_factory=LayerPrecision)
    rules: tuple[Rule, ...] = ()
    name: str = ""

    def resolve(
        self,
        layers: Sequence[str],
        *,
        keep_weights: Iterable[str] = (),
        known: Iterable[str] = (),
        aliases: Mapping[str, Sequence[str]] | None = None,
    ) -> dict[str, LayerPrecision]:
        """Return the formats of every layer.

        Args:
            layers: Names of the layers with weights.
            keep_weights: Patterns of layers whose weights the default leaves alone.
            known: Further names that a rule may speak of.
            aliases: Further names of a layer; the first rule that matches any of its names holds.

        Raises:
            UnknownNameError: A rule matches no name; near matches are offered.
            SchemeError: A rule names a container of layers, which has no weights of its own.
        """
        also = aliases or {}
        weighted = [*layers, *(name for names in also.values() for name in names)]
        names = [name for name in (*weighted, *known) if name]
        for rule in self.rules:
            if any(rule.matches(name) for name in weighted):
                continue
            if any(name.startswith(f"{rule.pattern}.") for name in weighted):
                raise SchemeError(
                    f"rule {rule.pattern!r} names a module whose layers have names of their own. "
                    f"Next: write {rule.pattern + '.*'!r} for all of them."
                )
            if not any(rule.matches(name) for name in names):
                raise unknown_name("layer", rule.pattern, names, "run 'aiq graph MODEL' for the names")
        keeps = tuple(keep_weights)
        kept = replace(self.default, weights=None)
        resolved = {}
        for layer in layers:
            formats = self.explicit(layer, *also.get(layer, ()))
            if formats is None:
                formats = kept if any(matches(p, layer) for p in keeps) else self.default
            resolved[layer] = formats
        return resolved

    def explicit(self, *names: str) -> LayerPrecision | None:
        """Return the formats of the first rule that matches any of the names, or ``None``."""
        return next((rule.precision for rule in self.rules if any(map(rule.matches, names))), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: ``version``, ``default`` and ``rules`` in order."""
        return {
            "version": SCHEME_VERSION,
            "default": str(self.default),
            "rules": [{"layers": r.pattern, "precision": str(r.precision)} for r in self.rules],
        }

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON form, in hexadecimal; the display name does not enter."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def __str__(self) -> str:
        return self.name or ",".join([str(self.default), *(f"{r.pattern}={r.precision}" for r in self.rules)])

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, origin: str = "scheme", name: str = "") -> Scheme:
        """Build a scheme from plain data (see :meth:`to_dict`); ``origin`` names it in errors.

        Raises:
            SchemeError: An unknown key, another version, or a precision that cannot be read.
        """
        extra = set(data) - {"version", "default", "rules"}
        if extra:
            raise SchemeError(
                f"{origin}: unknown key {sorted(extra)[0]!r}: known: version, default, rules. Next: mend it."
            )
        if data.get("version", SCHEME_VERSION) != SCHEME_VERSION:
            raise SchemeError(f"{origin}: version {data['version']!r}, known: {SCHEME_VERSION}. Next: write it anew.")
        rules = data.get("rules", [])
        if not isinstance(rules, list):
            raise SchemeError(f"{origin}: rules must be a list of tables. Next: write [[rules]] before each.")
        return cls(
            _layer_precision(data.get("default", "keep"), f"{origin}: default"),
            tuple(_rule(r, f"{origin}: rules[{i}]") for i, r in enumerate(rules)),
            name,
        )

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Read a scheme from a shorthand or a file.

        ``DEFAULT[,PATTERN=PRECISION]...`` (``w4,conv1=keep,layer3.*=w8``), or the path of a ``.toml`` or ``.json`` file
        (the suffix or a leading ``./``, ``/`` or ``~`` makes it a path, unless a ``,`` or ``=`` stands in it). A
        ``re:`` pattern with a comma needs a file.

        Raises:
            SchemeError: Malformed text or file.
            PrecisionError: An unknown precision.
        """
        path_like = text.startswith((".", "/", "~")) or text.endswith((".toml", ".json"))
        if path_like and "=" not in text and "," not in text:
            return cls._from_file(text)
        default, *rules = text.split(",")
        parsed = []
        for part in rules:
            pattern, equals, precision = part.rpartition("=")
            if not equals or not pattern:
                raise SchemeError(
                    f"scheme {text!r}: {part!r} is not LAYER=PRECISION. Next: write for instance w4,conv1=keep."
                )
            parsed.append(_rule({"layers": pattern.strip(), "precision": precision}, f"scheme {text!r}"))
        return cls(LayerPrecision.parse(default), tuple(parsed), text)

    @classmethod
    def _from_file(cls, name: str) -> Scheme:
        path = Path(name).expanduser()
        kind = "JSON" if path.suffix == ".json" else "TOML"
        try:
            text = path.read_text("utf-8")
            data = json.loads(text) if kind == "JSON" else tomllib.loads(text)
        except OSError as error:
            raise SchemeError(f"cannot read scheme file {name!r}: {error.strerror}. Next: check the path.") from None
        except (ValueError, RecursionError) as error:
            raise SchemeError(f"{name}: malformed {kind}: {error}. Next: mend it there.") from None
        if not isinstance(data, dict):
            raise SchemeError(f"{name}: holds no table of version, default and rules. Next: write one.")
        return cls.from_dict(data, origin=name, name=path.stem)


def _rule(data: Any, origin: str) -> Rule:
    if not isinstance(data, dict) or set(data) != {"layers", "precision"} or not isinstance(data["layers"], str):
        raise SchemeError(
            f"{origin}: needs exactly the keys layers and precision. Next: write layers = 'conv1', precision = 'w8'."
        )
    if data["layers"].startswith("re:"):
        try:
            re.compile(data["layers"][3:])
        except (re.error, OverflowError, RecursionError) as error:
            raise SchemeError(
                f"{origin}: {data['layers']!r} is no regular expression: {error}. Next: mend it."
            ) from None
    return Rule(data["layers"], _layer_precision(data["precision"], origin))


def _layer_precision(text: Any, origin: str) -> LayerPrecision:
    if not isinstance(text, str):
        raise SchemeError(f"{origin}: precision {text!r} is no text. Next: write for instance 'w8a8'.")
    try:
        return LayerPrecision.parse(text)
    except AIQError as error:
        raise PrecisionError(f"{origin}: {error}") from None
