"""What a network's outputs say of a scheme: pure functions on logits, shared by the oracles that run the network."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from aiq.oracle import OracleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from roofline import Scheme

_CHUNK_VALUES = 2**22
_LONGEST_SCHEME_TEXT = 60


def agreements(float_logits: torch.Tensor, logits: torch.Tensor) -> NDArray[np.bool_] | NDArray[np.float32]:
    """Tell where two networks' top-1 classes agree.

    Args:
        float_logits: The float model's, [N, ..., C]; classes on the last axis.
        logits: The quantized model's, of the same shape.

    Returns:
        bool [N]; where an example has several positions, their share that agrees, float32 [N].
    """
    same = float_logits.argmax(-1) == logits.argmax(-1)
    if same.dim() == 1:
        found: NDArray[np.bool_] = same.numpy()
        return found
    shares: NDArray[np.float32] = same.reshape(len(same), -1).to(torch.float32).mean(1).numpy()
    return shares


def divergences(float_logits: torch.Tensor, logits: torch.Tensor) -> NDArray[np.float32]:
    """Return each example's Kullback–Leibler divergence from the float model: Σ_c p_c (ln p_c − ln q_c), in nats.

    p and q are the softmax of the float model's and of the quantized model's logits, in double precision; where an
    example has several positions, the mean over them.

    Args:
        float_logits: The float model's, finite, [N, ..., C]; classes on the last axis.
        logits: The quantized model's, finite, of the same shape.

    Returns:
        float32 [N], at least 0.
    """
    step = max(1, _CHUNK_VALUES // max(1, float_logits[:1].numel()))
    parts = []
    for start in range(0, len(logits), step):
        p = float_logits[start : start + step].double().log_softmax(-1)
        q = logits[start : start + step].double().log_softmax(-1)
        each = (p.exp() * (p - q)).sum(-1).reshape(len(p), -1).mean(1)
        parts.append(each.clamp_min(0).to(torch.float32).numpy())
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def check_finite(logits: torch.Tensor, scheme: Scheme | None = None) -> None:
    """Refuse outputs that are no numbers.

    Args:
        logits: Outputs [N, ...].
        scheme: The scheme that gave them; ``None`` for the float model.

    Raises:
        OracleError: An example's outputs hold NaN or infinity.
    """
    if not logits.numel() or torch.isfinite(logits.sum(dtype=torch.float64)):
        return  # a sum is finite only if every term is
    bad = int((~torch.isfinite(logits)).reshape(len(logits), -1).any(1).sum())
    if not bad:
        return
    whose, step = "the float model", "check its weights and the inputs"
    if scheme is not None:
        whose, step = f"scheme {scheme_label(scheme)}", "give the layers that overflow a wider format, or keep them"
    raise OracleError(f"the outputs of {whose} hold NaN or infinity for {bad} of {len(logits)} examples. Next: {step}.")


def scheme_label(scheme: Scheme) -> str:
    """Return a short text for error messages: the scheme's name or text, or the start of its digest."""
    text = str(scheme)
    return repr(text) if len(text) <= _LONGEST_SCHEME_TEXT else f"of digest {scheme.digest()[:12]}"


def standard_error(outcomes: NDArray[np.bool_] | NDArray[np.float32]) -> float | None:
    """Return the standard error of the mean of outcomes [n]: √(p(1 − p)/n) for right and wrong, else s/√n.

    ``None`` where a single contribution leaves it unknown.
    """
    n = len(outcomes)
    if outcomes.dtype == bool:
        share = float(outcomes.mean())
        return math.sqrt(share * (1 - share) / n)
    return float(outcomes.std(ddof=1, dtype=np.float64)) / math.sqrt(n) if n > 1 else None
