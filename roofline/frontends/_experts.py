"""Mixtures of experts: a router, the experts that some token chose, and experts that all tokens share."""

from __future__ import annotations

from dataclasses import dataclass
from math import expm1, log1p

from roofline.frontends._builder import Builder, Value, Weight
from roofline.frontends._config import Config
from roofline.graph import Extents, TensorSpec


@dataclass(frozen=True)
class Mixture:
    """One layer's experts.

    Attributes:
        experts: How many there are.
        chosen: How many each token takes.
        inner: Width inside an expert.
        router: Name of the router in the layer's feed-forward module.
        bias: Whether router and experts have biases.
        transposed: Whether matrices are stored ``[E, K, N]``.
        sigmoid: Whether scores are sigmoids, not a softmax.
        shared: Name and inner width of the experts that all tokens share; width 0 without them.
        shared_gate: Whether a gate of one value scales the shared ones.
    """

    experts: int
    chosen: int
    inner: int
    router: str = "gate"
    bias: bool = False
    transposed: bool = False
    sigmoid: bool = False
    shared: tuple[str, int] = ("", 0)
    shared_gate: bool = False


def read_mixture(c: Config, experts: str, inner: int, **options: object) -> Mixture:
    """Read how many experts there are and how many a token takes.

    Raises:
        ConfigError: A key is missing or out of range, or more experts are chosen than there are.
    """
    count, chosen = c.whole(experts, high=4096), c.whole("num_experts_per_tok", high=4096)
    if chosen > count:
        raise c.error(f"num_experts_per_tok is {chosen} of {count} experts", "choose no more than there are")
    return Mixture(count, chosen, inner, **options)  # type: ignore[arg-type]


def distinct_experts(experts: int, chosen: int, tokens: int) -> float:
    """Return how many of E experts at least one of T tokens takes on average, each k of them at random.

    ``E · (1 − (1 − k/E)^T)``. A trained router chooses less evenly, and so reads fewer.
    """
    if chosen == experts:
        return float(experts)
    return -experts * expm1(tokens * log1p(-chosen / experts))


def mixture(b: Builder, x: Value, name: str, m: Mixture, act: str) -> Value:
    """Build the routed experts of one layer; returns ``[B, T, H]``.

    Experts are two ops for all of them together, as a grouped product runs: the weights read are those of the distinct
    experts that the tokens take on average.
    """
    b.fixed_batch = True
    batch, length, hidden = x.shape
    tokens, pairs = batch * length, batch * length * m.chosen
    experts = f"{name}.experts"
    read = distinct_experts(m.experts, m.chosen, tokens)
    b.notes.append(
        f"experts: of {m.experts}, {read:.4g} are read on average for {tokens} x {m.chosen} chosen ones, were they "
        "chosen at random: E (1 - (1 - k/E)^T)"
    )
    scores = b.linear(x, f"{name}.{m.router}", m.experts, bias=m.bias, plain=True)
    router = f"{name}.{m.router}"
    if m.sigmoid:
        scores = b.elementwise(f"{router}.sigmoid", [scores], "sigmoid", layer=router)
    else:
        work = 5 * scores.elements
        scores = b.op(f"{router}.softmax", "softmax", [scores], scores.shape, layer=router, vector_flops=work)
    bias = [b.parameter(f"{router}.e_score_correction_bias", m.experts)] if m.sigmoid else []
    weights = b.op(
        f"{router}.topk", "reduction", [scores, *bias], (tokens, m.chosen), layer=router, target="topk",
        vector_flops=scores.elements,
    )  # fmt: skip
    inner = _grouped(b, x, experts, "gate_up_proj", (pairs, 2 * m.inner, hidden), m=m, read=read)
    gate = b.part(inner, pairs, m.inner)
    active = b.elementwise(f"{experts}.act_fn", [gate, b.part(inner, pairs, m.inner)], act, flops=2, layer=experts)
    out = _grouped(b, active, experts, "down_proj", (pairs, hidden, m.inner), m=m, read=read)
    found = b.op(
        f"{experts}.combine", "elementwise", [out, weights], x.shape, layer=experts, target="mul",
        vector_flops=2 * out.elements,
    )  # fmt: skip
    if not m.shared[1]:
        return found
    common = gated(b, x, f"{name}.{m.shared[0]}", m.shared[1], act)
    if m.shared_gate:
        share = b.linear(x, f"{name}.shared_expert_gate", 1, plain=True)
        common = b.elementwise(f"{name}.mul", [common, share], "mul", flops=1, layer=name)
    return b.add(name, found, common)


def _grouped(
    b: Builder, x: Value, layer: str, matrix: str, sizes: tuple[int, int, int], *, m: Mixture, read: float
) -> Value:
    """``[pairs, K] @ [K, N]`` with each pair's own expert: the weights of ``read`` experts are moved."""
    pairs, features, inner = sizes
    shape = (m.experts, inner, features) if m.transposed else (m.experts, features, inner)
    rows = max(round(read * features), 1)
    weight = Weight(layer, f"{layer}.{matrix}", shape, m.experts * features)
    inputs: list[Value | TensorSpec] = [x, *b.weight(weight, elements=rows * inner, channels=rows)]
    if m.bias:
        inputs.append(b.parameter(f"{layer}.{matrix}_bias", m.experts, features))
    return b.op(
        layer, "linear", inputs, (pairs, features), target="linear", macs=pairs * features * inner,
        extents=Extents(1, pairs, features, inner),
    )  # fmt: skip


def gated(b: Builder, x: Value, name: str, inner: int, act: str, *, bias: bool = False) -> Value:
    """Build ``down(act(gate(x)) · up(x))``."""
    active = b.elementwise(f"{name}.act_fn", [b.linear(x, f"{name}.gate_proj", inner, bias=bias)], act)
    up = b.linear(x, f"{name}.up_proj", inner, bias=bias)
    product = b.elementwise(f"{name}.mul", [active, up], "mul", layer=name)
    return b.linear(product, f"{name}.down_proj", x.shape[-1], bias=bias)
