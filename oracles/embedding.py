"""How far the embeddings of a quantized encoder stray from the float model's: who is whose nearest neighbour."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from aiq.digest import code_digest
from aiq.oracle import Evaluation, Metric, OracleContext, OracleError
from oracles import _outputs
from oracles._network import Network
from oracles._outputs import check_finite, scheme_label, standard_error
from roofline import Scheme
from roofline.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

METRIC = Metric("neighbour agreement", "points", higher_is_better=True, scale=100.0)
LEAST_EXAMPLES = 3
_CHUNK_VALUES = 2**22


@dataclass(frozen=True, eq=False)
class EmbeddingAgreement:
    """Compares the embeddings of quantized encoders with the float model's; built by :func:`embedding`.

    Attributes:
        network: Runs the network as a scheme would; its outputs are embeddings [N, D].
        metric: Agreement of nearest neighbours.
    """

    network: Network = field(repr=False)
    metric: Metric = METRIC

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """See :class:`aiq.oracle.Oracle`."""
        code = code_digest(sys.modules[__name__], _outputs)
        return {"metric": METRIC.name, "code": code, **self.network.fingerprint}

    @cached_property
    def reference(self) -> torch.Tensor:
        """The float model's embeddings, of length 1, float64 [N, D]."""
        return unit(self.network.float_logits)

    @cached_property
    def neighbours(self) -> torch.Tensor:
        """The nearest of the other examples by the float model, int64 [N]."""
        return nearest(self.reference)

    def evaluate(self, scheme: Scheme) -> Evaluation:
        """Run all examples as the scheme says and look for their nearest neighbours anew.

        Raises:
            OracleError: The outputs are not [N, D], are not finite or without direction, or the network fails.
        """
        neighbours = self.neighbours
        started = time.perf_counter()
        outputs, work = self.network.evaluator.run(scheme)
        check_finite(outputs, scheme)
        embeddings = unit(outputs, scheme)
        outcomes = still_nearest(embeddings, neighbours)
        apart = 1.0 - cosines(self.reference, embeddings)
        return Evaluation(
            float(outcomes.mean()),
            standard_error(outcomes),
            len(outcomes),
            outcomes,
            time.perf_counter() - started,
            work,
            max(float(apart.mean()), 0.0),
        )


def embedding(argument: str, context: OracleContext) -> EmbeddingAgreement:
    """Return the share of examples whose nearest neighbour stays the nearest in the quantized network's embeddings.

    The network maps examples to embeddings e [N, D]. With cos the cosine similarity and n(i) = argmax_{j ≠ i} cos(e_i,
    e_j) by the float model, example i agrees where no cos(q_i, q_j), j ≠ i, is above cos(q_i, q_{n(i)}) for the
    quantized embeddings q. Needs no labels. It depends on the examples among which neighbours are looked for: more
    lie closer together.

    The evaluation's ``divergence`` is the mean of 1 − cos(e_i, q_i), without a unit: the Kullback–Leibler divergence
    between von Mises–Fisher distributions around both embeddings, up to a factor that their concentration sets.

    Args:
        argument: Must be empty.
        context: Model, data and split.

    Raises:
        InputError: There is an argument.
        OracleError: There are fewer than 3 examples.
        AIQError: The data or the model cannot be used.

    Source: Mardia and Jupp, Directional Statistics, Wiley 2000, section 9.3.
    """
    if argument:
        raise InputError(f"the oracle embedding takes no argument, got {argument!r}. Next: write embedding.")
    network = Network(context)
    if len(network.inputs) < LEAST_EXAMPLES:
        raise OracleError(
            f"an example has a nearest neighbour only among others: embedding needs at least {LEAST_EXAMPLES} "
            f"examples, got {len(network.inputs)}. Next: give more."
        )
    return EmbeddingAgreement(network)


def unit(embeddings: torch.Tensor, scheme: Scheme | None = None) -> torch.Tensor:
    """Return embeddings divided by their length, float64 [N, D].

    Args:
        embeddings: Finite, [N, D].
        scheme: The scheme that gave them; ``None`` for the float model.

    Raises:
        OracleError: They have another shape, or one is zero and so has no direction.
    """
    if embeddings.dim() != 2 or embeddings.shape[1] < 2:
        raise OracleError(
            f"the model gives outputs {list(embeddings.shape)}, not embeddings [N, D]. "
            "Next: choose a model that pools its tokens, or another oracle."
        )
    exact = embeddings.double()
    lengths = exact.norm(dim=1, keepdim=True)
    zero = int((lengths == 0).sum())
    if zero:
        whose = "the float model" if scheme is None else f"scheme {scheme_label(scheme)}"
        raise OracleError(
            f"{zero} of {len(exact)} embeddings of {whose} are all zeros and point nowhere. "
            "Next: check the inputs, or give layers a wider format."
        )
    return exact / lengths


def nearest(embeddings: torch.Tensor) -> torch.Tensor:
    """Return the nearest other example of each, int64 [N]; embeddings [N, D] have length 1."""
    return torch.cat([similarities.argmax(1) for _, similarities in _to_others(embeddings)])


def still_nearest(embeddings: torch.Tensor, neighbours: torch.Tensor) -> NDArray[np.bool_]:
    """Tell whether no other example is nearer than a given one, bool [N].

    Args:
        embeddings: Of length 1, [N, D].
        neighbours: The given one of each, int64 [N].
    """
    parts = []
    for start, similarities in _to_others(embeddings):
        given = similarities.gather(1, neighbours[start : start + len(similarities), None])
        parts.append((given >= similarities.amax(1, keepdim=True))[:, 0])
    found: NDArray[np.bool_] = torch.cat(parts).numpy()
    return found


def cosines(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the cosine similarity of each pair of rows of length 1, [N]."""
    return (first * second).sum(1)


def _to_others(embeddings: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Give similarities of a few examples after another to all, −∞ to themselves, with where they start."""
    step = max(1, _CHUNK_VALUES // len(embeddings))
    for start in range(0, len(embeddings), step):
        similarities = embeddings[start : start + step] @ embeddings.T
        rows = torch.arange(len(similarities))
        similarities[rows, start + rows] = -torch.inf
        yield start, similarities
