"""Options that several commands share, and how amounts are written on the command line."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from hardware_specs.errors import AIQError

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A zoo name, path/to/file.py:callable, or package.module:callable.")
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name that 'aiq zoo' shows, path/to/file.py:callable, package.module:callable, FILE.onnx, or hf:FOLDER "
        "with a config.json (or a name in the local Hugging Face cache).",
    ),
]
Phase = Annotated[
    str | None, typer.Option("--phase", help="prefill or decode, of a language model; prefill by default.")
]
Context = Annotated[
    int | None,
    typer.Option("--context", metavar="TOKENS", help="Tokens of the prompt, or in the key-value cache at decode."),
]
NewTokens = Annotated[
    int | None,
    typer.Option(
        "--new-tokens", metavar="N", help="Predict a whole generation of N tokens: time to the first, and each after."
    ),
]
EveryLogit = Annotated[
    bool, typer.Option("--every-logit", help="Compute logits of every token of a prompt, not of the last alone.")
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", metavar="[NAME=]1,3,224,224[:DTYPE]", help="Shape of an input, batch first; repeat for several."
    ),
]
Hardware = Annotated[str, typer.Option("--hardware", help="A machine: see 'aiq specs list', or a .toml or .json file.")]
Batch = Annotated[int | None, typer.Option("--batch", help="Samples at once; by default the input's.")]
Traffic = Annotated[str, typer.Option("--traffic", help="paper, unfused or fused.")]
Rates = Annotated[
    str,
    typer.Option(
        "--rates",
        help="datasheet peaks; sustained rates where somebody measured them; or calibrated[:RUNTIME], kernel models.",
    ),
]
Format = Annotated[str, typer.Option("--format", help="table, json, csv or md.")]
CacheUrl = Annotated[
    str | None,
    typer.Option("--cache", metavar="URL", help="sqlite:///FILE or none; by default a file in your cache directory."),
]
Weights = Annotated[str | None, typer.Option("--weights", help="A .safetensors checkpoint to load into the model.")]
Target = Annotated[str, typer.Option("--target", help="What to gain: ai, latency or memory.")]
Lambda = Annotated[float, typer.Option("--lambda", help="Weight of the gain against the loss, in [0, 1].")]
Normalise = Annotated[str, typer.Option("--normalise", help="How the gain is scaled: raw, relative or minmax.")]

_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*([^0-9\s]*)")
_BYTES = {"": 1.0, "B": 1.0} | {
    f"{prefix}{binary}{unit}": (1024.0 if binary else 1000.0) ** power
    for power, letters in enumerate(("kK", "M", "G", "T"), start=1)
    for prefix in letters
    for binary in ("", "i")
    for unit in ("", "B")
}
_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def read_bytes(option: str, text: str) -> float:
    """Read an amount of memory: ``120000``, ``120k``, ``1.5MB``, ``64KiB``.

    Raises:
        AIQError: It is none; ``option`` names it.
    """
    return _amount(option, text, _BYTES, "a number of bytes, with k, M or G for powers of 1000", "120k")


def read_seconds(option: str, text: str) -> float:
    """Read a time: ``0.002``, ``2ms``, ``15us``.

    Raises:
        AIQError: It is none; ``option`` names it.
    """
    return _amount(option, text, _SECONDS, "a number of seconds, or of ms, us or ns", "2ms")


def read_drop(option: str, text: str) -> tuple[float | None, float | None]:
    """Read a loss of accuracy: in points (``0.5``), or relative to the float model (``1%``, then 0.01).

    Returns:
        Points, or ``None``; share of the float model's value, or ``None``.

    Raises:
        AIQError: It is none; ``option`` names it.
    """
    words = "a number of points, or a share of the float model's accuracy with %"
    scale = {"": 1.0, "%": 0.01}
    value = _amount(option, text, scale, words, "0.5 or 1%")
    return (None, value) if text.rstrip().endswith("%") else (value, None)


def _amount(option: str, text: str, units: dict[str, float], words: str, example: str) -> float:
    match = _AMOUNT.fullmatch(text.strip())
    if not match or match[2] not in units or float(match[1]) == float("inf"):
        raise AIQError(f"{option} takes {words}, got {text!r}. Next: write for instance {option} {example}.")
    return float(match[1]) * units[match[2]]
