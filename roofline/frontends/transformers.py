"""The Hugging Face door: an operator graph from a ``config.json``, without weights, PyTorch or transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from roofline.errors import InputError
from roofline.frontends import _encoders, _families
from roofline.frontends._builder import Builder, Value
from roofline.frontends._config import Config, ConfigError, read_config, shown
from roofline.frontends._decoder import Decoder, Run, decode_model
from roofline.frontends._encoders import encode_image, encode_tokens, read_vit
from roofline.frontends._meta_model import trace_config
from roofline.frontends._seq2seq import build_t5, build_whisper, read_t5, read_whisper
from roofline.frontends._stored import read_stored
from roofline.graph import OpGraph

PHASES = ("prefill", "decode")
MOST_BATCH = 10**6
MOST_CONTEXT = 10**8
_DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64", "auto": "fp32", "half": "fp16"}
_OTHERS = ("vit", "whisper", "t5")
_WHISPER_PROMPT = 4

__all__ = ["PHASES", "ConfigError", "from_config", "known_types", "read_config"]


@dataclass(frozen=True)
class _Architecture:
    """How a model is built, and which runs it knows.

    Attributes:
        build: Builds it for a run.
        default: Tokens where nobody says how many; 0: it reads none.
        positions: Positions that it has; 0: as many as one likes.
        longest: Positions that it was made for; 0: nobody says.
        decodes: Whether it makes tokens.
        notes: What a reader must know.
    """

    build: Callable[[Builder, Run], Value]
    default: int
    positions: int = 0
    longest: int = 0
    decodes: bool = True
    notes: tuple[str, ...] = ()


def known_types() -> tuple[str, ...]:
    """Return the ``model_type`` names that are built without PyTorch or transformers."""
    return tuple(sorted((*_families.READERS, *_encoders.READERS, *_OTHERS)))


def from_config(
    config: Mapping[str, Any],
    *,
    phase: str | None = None,
    batch: int = 1,
    context: int | None = None,
    every_logit: bool = False,
    name: str | None = None,
) -> OpGraph:
    """Build the operator graph of a transformer from its ``config.json``.

    Layers have the names of their transformers modules. Attention is one fused op; normalisations, rotary embeddings
    and activations are one op each, as kernels run them. Activations have the config's dtype; weights too, unless
    ``quantization_config`` says how they are stored. Of an architecture that is not among :func:`known_types` the
    transformers module is made on ``meta`` and traced (extra ``hf``).

    Args:
        config: The parsed ``config.json``.
        phase: ``prefill`` (the whole prompt at once; the default) or ``decode`` (one new token a sequence, which reads
            the key-value cache of ``context`` tokens and writes one).
        batch: Sequences or images at once.
        context: Tokens of the prompt, or in the cache; by default 2048, or what the model was made for where that is
            less.
        every_logit: Compute logits of every token at prefill, not of the last alone.
        name: Name of the model in reports; by default its ``model_type``.

    Raises:
        ConfigError: A configuration that cannot be read.
        InputError: A phase, batch or context that the model has not.
    """
    outer = Config(config, name or shown(config.get("_name_or_path") or config.get("model_type") or "model"))
    if phase is not None and phase not in PHASES:
        raise InputError(f"unknown phase {phase!r}: known: {', '.join(PHASES)}. Next: choose one.")
    _check("batch", batch, MOST_BATCH)
    if context is not None:
        _check("context", context, MOST_CONTEXT)
    inner, notes = _language_model(outer)
    if (model_type := inner.text("model_type", "")) not in known_types():
        if not model_type:
            known = ", ".join(known_types())
            raise outer.error("model_type is missing", f"give one, for instance one of these: {known}")
        if phase == "decode" or every_logit:
            raise InputError(
                f"{outer.name} is traced as a whole, since model_type {shown(model_type)} is not among those that are "
                "built: it has no phase decode and no choice of logits. Next: leave them out."
            )
        return trace_config(config, outer.name, batch=batch, tokens=context)
    architecture = _architecture(inner, part=inner is not outer)
    run = _run(architecture, outer.name, phase, batch, context, every_logit=every_logit)
    b = Builder(outer.name, batch, _dtype(inner, notes), read_stored(outer))
    b.notes += [*notes, *architecture.notes, *_notes(architecture, run)]
    return b.graph([architecture.build(b, run)])


def _language_model(outer: Config) -> tuple[Config, list[str]]:
    """Return the part of a configuration that is built: all of it, or its language model."""
    text = outer.section("text_config")
    known = known_types()
    if text is None or outer.text("model_type", "") in known or text.text("model_type", "") not in known:
        return outer, []
    note = "the language model alone: what else the network has, such as a vision tower, is left out"
    return Config({**_shared(outer.data), **text.data}, outer.name), [note]


def _architecture(c: Config, *, part: bool) -> _Architecture:
    """Read a configuration; ``part`` tells that it is the language model of a larger network.

    Raises:
        ConfigError: It cannot be read.
    """
    model_type = c.text("model_type", "")
    if model_type in _families.READERS:
        d = _families.READERS[model_type](c)
        return _decoder(replace(d, names=replace(d.names, base="model.language_model")) if part else d)
    if model_type in _encoders.READERS:
        e = _encoders.READERS[model_type](c)
        kinds = [kind for kind in c.texts("architectures") or () if not kind.endswith("Model")]
        notes = tuple(f"the encoder alone, without the head of {shown(kind)}" for kind in kinds[:1])
        return _Architecture(
            lambda b, run: encode_tokens(b, e, run.tokens), 128, e.positions - e.padding, decodes=False, notes=notes
        )  # fmt: skip
    if model_type == "vit":
        vision = read_vit(c)
        return _Architecture(lambda b, _: encode_image(b, vision), 0, decodes=False)
    if model_type == "whisper":
        w = read_whisper(c)
        note = f"the encoder hears {w.source} positions; tokens are the decoder's, which runs alone at decode"
        return _Architecture(lambda b, run: build_whisper(b, w, run), _WHISPER_PROMPT, w.target, notes=(note,))
    t5 = read_t5(c)
    note = "prefill: the encoder over the source, and one token; decode: the decoder, its cache as long as the source"
    return _Architecture(lambda b, run: build_t5(b, t5, run), 512, notes=(note,))


def _decoder(d: Decoder) -> _Architecture:
    rotary = "rotary embedding is one element-wise op on queries and keys; its tables are not counted"
    notes = (rotary,) if d.rotary else ()
    positions = d.longest if d.positions else 0
    return _Architecture(lambda b, run: decode_model(b, d, run), 2048, positions, d.longest, notes=notes)


def _shared(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in ("torch_dtype", "dtype", "tie_word_embeddings") if key in config}


def _check(what: str, value: object, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InputError(f"{what} must be a whole number from 1 to {most}, got {shown(value)}. Next: choose one.")


def _dtype(c: Config, notes: list[str]) -> str:
    key = "dtype" if c.has("dtype") else "torch_dtype"
    if not c.has(key):
        notes.append("the config names no dtype: float32, as transformers takes it")
    text = c.text(key, "float32").removeprefix("torch.")
    if text not in _DTYPES:
        raise c.error(f"{key} is {shown(text)}", f"give one of {', '.join(_DTYPES)}")
    return _DTYPES[text]


def _notes(a: _Architecture, run: Run) -> list[str]:
    if not a.decodes:
        return [f"{run.tokens} tokens of each sequence"] if a.default else []
    if run.phase == "prefill":
        logits = "every token's logits" if run.every_logit else "the last token's logits"
        found = [f"prefill: {run.tokens} tokens of each sequence at once, {logits}; keys and values go to the cache"]
    else:
        found = [f"decode: one new token of each sequence, {run.past} in the cache"]
    length = run.past + run.tokens
    if a.longest and length > a.longest:
        found.append(f"{length} tokens are more than the {a.longest} that the model was made for")
    return found


def _run(a: _Architecture, name: str, phase: str | None, batch: int, context: int | None, *, every_logit: bool) -> Run:
    """Check what runs against what the model knows."""
    if not a.decodes and phase == "decode":
        raise InputError(f"{name} makes no tokens: it has no phase decode. Next: leave out the phase.")
    if not a.default and context is not None:
        raise InputError(f"{name} reads no tokens: it takes no context. Next: leave it out.")
    decode = phase == "decode"
    most = a.positions - decode if a.positions else MOST_CONTEXT
    if context is not None and context > most:
        raise InputError(f"{name} has {a.positions} positions, which a context of {context} does not fit. "
                         f"Next: give at most {most}.")  # fmt: skip
    known = (a.default, most, a.longest or a.default)
    tokens = min(known) if context is None else context
    return Run("decode", batch, 1, tokens) if decode else Run("prefill", batch, tokens, 0, every_logit)
