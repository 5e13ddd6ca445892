"""Patterns of calls that exporters write for one operator and runtimes fuse again, where the file does not say so."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from roofline.frontends._onnx_reader import Draft

ATTENTION = "scaled_dot_product_attention"
_DEEPEST = 8
_BETWEEN = frozenset({"Add", "Mul", "Div", "Sub", "Where", "Cast", "Reshape", "Clip", "IsNaN"})


class Group(NamedTuple):
    """Calls, in order, that are one operator."""

    label: str
    members: tuple[int, ...]


class Patterns:
    """Finds groups among calls of which the file does not say what they come from."""

    def __init__(
        self, drafts: Sequence[Draft], readers: Mapping[int, Collection[int]], results: Collection[int]
    ) -> None:
        self.drafts, self.readers, self.results = drafts, readers, results

    def op(self, index: int | None) -> str:
        """Return the operator of a call; empty for none, or for one whose origin is known."""
        if index is None or self.drafts[index].place.call:
            return ""
        return self.drafts[index].ops[0].removeprefix("onnx.")

    def reader(self, index: int | None) -> int | None:
        """Return the only call that reads a result which the model does not return."""
        if index is None or index in self.results:
            return None
        readers = self.readers[index]
        return next(iter(readers)) if len(readers) == 1 else None

    def next(self, index: int | None, *wanted: str) -> int | None:
        """Return the only reader if it is one of the operators wanted."""
        found = self.reader(index)
        return found if self.op(found) in wanted else None

    def sources(self, index: int) -> set[int]:
        """Return the calls that a call reads from."""
        return {producer for spec in self.drafts[index].inputs for producer in spec.producers}

    def lone(self, index: int | None) -> bool:
        """Tell whether a call reads one tensor and else numbers at most."""
        return index is not None and len(self.drafts[index].inputs) == 1

    def same_input(self, index: int, other: int) -> bool:
        """Tell whether a call reads what another, with one input, reads."""
        (wanted,) = {(spec.identity, spec.producers) for spec in self.drafts[other].inputs}
        return any((spec.identity, spec.producers) == wanted for spec in self.drafts[index].inputs)

    def linear(self, index: int) -> Group | None:
        """``MatMul`` with a weight, and the ``Add`` of its bias."""
        after = self.next(index, "Add")
        if self.drafts[index].work.kind != "linear" or after is None:
            return None
        bias = [spec for spec in self.drafts[after].inputs if spec.role == "parameter"]
        width = self.drafts[index].outputs[0][1].shape[-1:]
        fits = len(bias) == 1 and bias[0].shape[-1:] == width and bias[0].elements == width[0]
        return Group("linear", (index, after)) if fits else None

    def gated(self, index: int) -> Group | None:
        """A function and the product with what it reads: SiLU, hard swish."""
        after = self.next(index, "Mul")
        if after is None or not self.lone(index) or len(self.drafts[after].inputs) != 2:
            return None
        label = {"Sigmoid": "silu", "HardSigmoid": "hardswish"}[self.op(index)]
        return Group(label, (index, after)) if self.same_input(after, index) else None

    def root(self, index: int) -> Group | None:
        """``Sqrt`` and its reciprocal."""
        after = self.next(index, "Reciprocal", "Div")
        return Group("rsqrt", (index, after)) if after is not None and self.lone(after) else None

    def gelu(self, index: int) -> Group | None:
        """``x · ½ (1 + erf(x / √2))``, in whatever order its factors stand."""
        scaled = next(iter(self.sources(index)), None) if self.lone(index) else None
        plus = self.next(index, "Add")
        product = self.next(plus, "Mul")
        if scaled is None or self.op(scaled) not in {"Div", "Mul"} or not self.lone(scaled) or product is None:
            return None
        members = {scaled, index, plus, product}
        others = self.sources(product) - {plus}
        half = next((i for i in others if self.op(i) == "Mul" and self.lone(i) and self.same_input(i, scaled)), None)
        if half is not None and self.reader(half) == product:
            members.add(half)
        elif not self.same_input(product, scaled):
            return None
        elif (last := self.next(product, "Mul")) is not None and self.lone(last):
            members.add(last)
        return Group("gelu", tuple(sorted(i for i in members if i is not None)))

    def layer_norm(self, index: int) -> Group | None:
        """Mean, difference, variance, root and quotient, and what scales and shifts them; ``index`` squares."""
        difference = next(iter(self.sources(index)), None)
        variance = self.next(index, "ReduceMean")
        root = self.next(self.next(variance, "Add"), "Sqrt")
        quotient = self.next(root, "Div")
        if difference is None or quotient is None or self.op(difference) != "Sub" or variance is None or root is None:
            return None
        mean = next((i for i in self.sources(difference) if self.op(i) == "ReduceMean"), None)
        sound = self.sources(quotient) == {difference, root} and mean is not None and self.lone(mean)
        if not sound or mean is None or not self.same_input(difference, mean):
            return None
        members = [mean, difference, index, variance, *self.sources(root), root, quotient]
        for op in ("Mul", "Add"):
            after = self.next(members[-1], op)
            if after is None or {s.role for s in self.drafts[after].inputs} != {"input", "parameter"}:
                break
            members.append(after)
        return Group("layer_norm", tuple(sorted(members)))

    def attention(self, index: int) -> Group | None:
        """A product, scale and mask, softmax, and the product with the values."""
        if not self.drafts[index].outputs:
            return None
        shape = self.drafts[index].outputs[0][1].shape
        before = self._product_before(index, shape, 0)
        after = self._product_after(index)
        if not before or not after:
            return None
        members = {index, *before, *after}
        for product in (before[-1], after[-1]):
            for source in self.sources(product) - members:
                if self.reader(source) == product and self.lone(source) and self._feeds(source):
                    members.add(source)
        return Group(ATTENTION, tuple(sorted(members)))

    def _feeds(self, index: int) -> bool:
        """Tell whether a call scales an operand, or repeats heads of it for grouped queries."""
        draft = self.drafts[index]
        repeats = draft.work.kind == "copy" and draft.outputs[0][1].elements > draft.inputs[0].elements
        return self.op(index) in {"Mul", "Div"} or repeats

    def _product_before(self, index: int, shape: tuple[int, ...], depth: int) -> list[int]:
        for source in self.sources(index):
            if not self.drafts[source].outputs or self.reader(source) != index or depth > _DEEPEST:
                continue
            if self.op(source) == "MatMul" and self.drafts[source].work.kind == "matmul":
                return [source]
            if self.op(source) in _BETWEEN and self.drafts[source].outputs[0][1].elements == _size(shape):
                found = self._product_before(source, shape, depth + 1)
                if found:
                    return [source, *found]
        return []

    def _product_after(self, index: int) -> list[int]:
        found: list[int] = []
        frontier = [index]
        while frontier and len(found) < _DEEPEST:
            readers = {reader for i in frontier for reader in self.readers[i]} - set(found)
            if any(i in self.results for i in frontier):
                return []
            products = [i for i in readers if self.op(i) == "MatMul"]
            if len(readers) == 1 and products and self.drafts[products[0]].work.kind == "matmul":
                return [*found, *products]
            if products or any(self.op(i) not in _BETWEEN for i in readers):
                return []
            found += sorted(readers)
            frontier = [i for i in readers if not self.readers[i] <= readers]  # type: ignore[operator]
        return []


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def patterns(
    drafts: Sequence[Draft], readers: Mapping[int, Collection[int]], results: Collection[int]
) -> Iterator[Group]:
    """Yield groups of calls that are one operator, larger ones first."""
    find = Patterns(drafts, readers, results)
    rules = (
        {"Softmax": find.attention},
        {"Pow": find.layer_norm, "Mul": find.layer_norm},
        {"Erf": find.gelu},
        {"Sigmoid": find.gated, "HardSigmoid": find.gated, "Sqrt": find.root, "MatMul": find.linear},
    )
    for rule in rules:
        for index in range(len(drafts)):
            wanted = rule.get(find.op(index))
            found = wanted(index) if wanted is not None and drafts[index].outputs else None
            if found is not None:
                yield found
