"""Multiply-accumulates of ``einsum``, contracted from left to right as eager frameworks do."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from roofline.frontends._onnx_values import Shape
from roofline.graph import Extents

_DOTS = 0x2460


def einsum(equation: str, shapes: Sequence[Shape]) -> tuple[int, Extents | None, Shape]:
    """Count the products of an equation: 0 where nothing is accumulated over a product.

    Each operand meets the result so far in ``[P, M, K] @ [P, K, N]``: K are labels that both have and nobody needs any
    more, P those that both have and somebody needs. A label that one of them alone has and nobody needs is summed
    before.

    Args:
        equation: As ONNX writes it, with or without ``->``.
        shapes: Shapes of the operands.

    Returns:
        Multiply-accumulates; the extents of the product where there are two operands; the shape of the result.

    Raises:
        ValueError: The equation does not fit the shapes.

    Source: Smith and Gray, opt_einsum, JOSS 3(26), 2018.
    """
    left, arrow, result = equation.replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    terms = []
    for term, shape in zip(left.split(","), shapes, strict=True):
        labels = _spelled(term, len(shape))
        terms.append(set(labels))
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 0))
    dots = "".join(sorted((label for label in sizes if ord(label) >= _DOTS), reverse=True))
    once = "".join(sorted(label for label in sizes if left.count(label) == 1))
    order = result.replace("...", dots) if arrow else dots + once
    wanted = set(order)
    macs, extents, done = 0, None, terms[0]
    for position, right in enumerate(terms[1:], 1):
        needed = wanted.union(*terms[position + 1 :])
        both = done & right
        parts = (both & needed, (done - right) & needed, (right - done) & needed, both - needed)
        p, m, n, k = (prod(sizes[label] for label in part) for part in parts)
        if both - needed:
            macs += p * m * n * k
            extents = Extents(p, m, n, k, "products" if p > 1 else "m")
        done = (done | right) & needed
    return macs, extents if len(terms) == 2 else None, tuple(sizes[label] for label in order)


def _spelled(term: str, rank: int) -> str:
    """Write an ellipsis out as labels of its own, counted from the right, as broadcasting does."""
    count = rank - len(term) + 3
    return term.replace("...", "".join(chr(_DOTS + i) for i in reversed(range(count))))
