"""Configurations that no reader knows: the transformers module is made on ``meta`` and traced."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from roofline.frontends._config import MOST, Config, shown
from roofline.graph import OpGraph

if TYPE_CHECKING:
    import torch

_COUNT = re.compile(r"(num|n)_(?!(embd|inner|positions|ctx|mel)$).*|.*(layers|blocks|depths?|experts)")
_MOST_COUNT = 4096
_MOST_DEPTH = 6
_DEFAULT_TOKENS = 128


def trace_config(data: Mapping[str, Any], name: str, *, batch: int, tokens: int | None) -> OpGraph:
    """Trace the transformers module that a configuration describes, on one pass over a prompt or an image.

    No weight is read, nothing is fetched and no code from beside the configuration runs.

    Raises:
        ConfigError: There is no such module, the package transformers is absent, or the module cannot be made.
        TraceError: The module cannot run without values.
    """
    c = Config(data, name)
    model_type = c.text("model_type", "")
    _check_sizes(c, data, 0)
    try:
        import torch
        import transformers
    except ImportError:
        raise c.error(
            f"model_type {shown(model_type)} needs the package transformers, which is not installed",
            "run pip install 'aiq-roofline[hf]'",
        ) from None
    if model_type not in transformers.CONFIG_MAPPING:
        raise c.error(
            f"model_type is {shown(model_type)}, which transformers {transformers.__version__} has not",
            "give the module itself: path/to/file.py:callable",
        )
    settings = {key: value for key, value in data.items() if key not in {"auto_map", "quantization_config"}}
    try:
        made = transformers.AutoConfig.for_model(**settings)
        found = _class(c, made)
        with torch.device("meta"):
            module = found._from_config(made) if found else transformers.AutoModel.from_config(made)
    except Exception as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise c.error(f"transformers refuses it: {shown(first.rstrip('.'), 160)}", "mend the configuration") from None
    from roofline.frontends._trace import trace

    graph = trace(module, _example(c, module, batch, tokens or _DEFAULT_TOKENS), name=name)
    notes = [f"traced from transformers {transformers.__version__}: operators as its eager code runs them"]
    if data.get("quantization_config"):
        notes.append("quantization_config is not applied: weights are priced in their dtype")
    return replace(graph, notes=(*graph.notes, *notes))


def _check_sizes(c: Config, value: Any, depth: int) -> None:
    """Refuse sizes with which a module would take for ever to make."""
    if depth > _MOST_DEPTH:
        raise c.error("it is nested too deep", "give a config.json as transformers writes it")
    items = value.items() if isinstance(value, Mapping) else ()
    for key, item in items:
        most = _MOST_COUNT if _COUNT.fullmatch(str(key)) else 100 * MOST
        sizes = item if isinstance(item, list) else [item]
        for size in sizes[:_MOST_COUNT]:
            number = isinstance(size, int | float) and not isinstance(size, bool)
            if number and not -most <= size <= most:
                raise c.error(f"{shown(key)} is {shown(size)}", f"give at most {most}")
            _check_sizes(c, size, depth + 1)


def _class(c: Config, made: Any) -> Any:
    """Return the class that ``architectures`` names, or that makes text; ``None`` for the bare model."""
    import transformers

    for name in c.texts("architectures") or ():
        found = getattr(transformers, name, None)
        if inspect.isclass(found) and issubclass(found, transformers.PreTrainedModel):
            return found
    auto = transformers.AutoModelForCausalLM
    return auto._model_mapping.get(type(made), None)


def _example(c: Config, module: torch.nn.Module, batch: int, tokens: int) -> dict[str, Any]:
    """Return an example input on ``meta``: token indices, or an image."""
    import torch

    what, made = module.main_input_name, module.config
    if what == "input_ids":
        ids = torch.zeros(batch, tokens, dtype=torch.int64, device="meta")
        more: dict[str, Any] = {}
        if getattr(made, "is_encoder_decoder", False):
            more["decoder_input_ids"] = ids[:, :1].clone()
        elif "use_cache" in inspect.signature(module.forward).parameters:
            more["use_cache"] = True
        return {"input_ids": ids, **more}
    if what == "pixel_values":
        size = getattr(made, "image_size", 224)
        height, width = size if isinstance(size, list | tuple) else (size, size)
        channels = getattr(made, "num_channels", 3)
        return {"pixel_values": torch.zeros(batch, channels, height, width, device="meta")}
    raise c.error(f"it reads {shown(str(what))}, for which there is no example", "give path/to/file.py:callable")
