"""Perplexity of causal language models."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from aiq.digest import code_digest
from aiq.oracle import Evaluation, Metric, OracleContext, OracleError
from oracles import _outputs
from oracles._network import Network
from oracles._outputs import check_finite, scheme_label, standard_error
from roofline import Scheme
from roofline.errors import InputError

METRIC = Metric("perplexity", "perplexity", higher_is_better=False)
_CHUNK = 8


@dataclass(frozen=True, eq=False)
class Perplexity:
    """Perplexity over token sequences of equal length; built by :func:`perplexity`.

    Attributes:
        network: Runs the network as a scheme would; its inputs are token ids, int64 [N, T].
        metric: Perplexity.
    """

    network: Network = field(repr=False)
    metric: Metric = METRIC

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """See :class:`aiq.oracle.Oracle`."""
        code = code_digest(sys.modules[__name__], _outputs)
        return {"metric": METRIC.name, "code": code, **self.network.fingerprint}

    def evaluate(self, scheme: Scheme) -> Evaluation:
        """Run the network as the scheme says.

        Raises:
            OracleError: The outputs are not [N, T, V], are not finite, or the network fails.
        """
        started = time.perf_counter()
        parts = []
        for tokens in self.network.inputs.split(_CHUNK):
            try:
                logits = self.network.simulator.outputs(scheme, tokens)
            except IndexError:
                raise OracleError(
                    f"the model has no embedding for some token ids: they reach {int(tokens.max())}. "
                    "Next: tokenize with the model's own tokenizer."
                ) from None
            check_finite(logits, scheme)
            parts.append(next_token_nll(logits, tokens))
        losses = torch.cat(parts)
        mean = float(losses.mean())
        value = math.exp(mean) if mean < math.log(sys.float_info.max) else math.inf
        outcomes = (value * (1.0 + losses - mean)).to(torch.float32).numpy()
        if not np.isfinite(outcomes).all():
            raise OracleError(
                f"the perplexity of {scheme_label(scheme)} is beyond any number: {mean:.0f} nats a token. "
                "Next: leave out the formats that break the model."
            )
        seconds = time.perf_counter() - started
        return Evaluation(value, standard_error(outcomes), len(outcomes), outcomes, seconds)


def perplexity(argument: str, context: OracleContext) -> Perplexity:
    """Return exp(mean negative log-likelihood of the next token) as an oracle.

    The model maps token ids [N, T] to logits [N, T, V], or to an object with ``logits``. With ℓ_i the mean over the
    T − 1 predicted tokens of sequence i, the value is P = exp(mean ℓ). The outcomes are P · (1 + ℓ_i − mean ℓ): their
    mean is P and their standard error is P · s(ℓ)/√N, the delta method's, so that paired differences between schemes
    are differences in perplexity.

    Args:
        argument: Must be empty.
        context: Model, data (token ids, int64 [N, T]) and split.

    Raises:
        InputError: There is an argument.
        OracleError: The data are no token ids.
        AIQError: The data or the model cannot be used.
    """
    if argument:
        raise InputError(f"the oracle perplexity takes no argument, got {argument!r}. Next: write perplexity.")
    network = Network(context)
    tokens = network.inputs
    if tokens.is_floating_point() or tokens.dim() != 2 or tokens.shape[1] < 2 or tokens.min() < 0:
        raise OracleError(
            f"perplexity needs token ids, int64 [N, T] with T of at least 2 and none negative, got "
            f"{str(tokens.dtype).removeprefix('torch.')} {list(tokens.shape)}. Next: give tokenized text."
        )
    return Perplexity(network)


def next_token_nll(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return −(1/(T − 1)) Σ_t ln p(token t + 1 | tokens up to t) for each sequence, in nats.

    Args:
        logits: Outputs, finite, [N, T, V].
        tokens: Token ids, int64 [N, T].

    Returns:
        float64 [N].

    Raises:
        OracleError: The shapes do not fit, or a token lies outside the vocabulary.
    """
    if logits.dim() != 3 or logits.shape[:2] != tokens.shape:
        raise OracleError(
            f"the model maps tokens {list(tokens.shape)} to outputs {list(logits.shape)}, not to logits [N, T, V]. "
            "Next: choose a causal language model, or another oracle."
        )
    if int(tokens.max()) >= logits.shape[2]:
        raise OracleError(
            f"token id {int(tokens.max())} lies outside the model's {logits.shape[2]} logits. "
            "Next: tokenize with the model's own tokenizer."
        )
    predicted = logits[:, :-1].double().log_softmax(-1)
    return -predicted.gather(2, tokens[:, 1:, None]).squeeze(2).mean(1)
