"""The forms of integer convolutions and matrix products that ONNX Runtime has kernels for.

Where the result of a convolution is rounded at once, ONNX Runtime runs it and the rounding as one kernel
(``QLinearConv``), which wants its bias as an int32 on the scale of the products; clipping that the rounding does anyway
stands in the way and is taken out. Elsewhere, before a residual addition or at the end of a network, the dequantized
operands go into its float convolution. ``ConvInteger`` would give the same values; at batch 32 these layers took 4.8
times as long in it in ResNet-20 and 2.7 times in MobileNetV2, but at batch 1 MobileNetV2 as a whole was faster with it.
Matrix products there become ``MatMulInteger``, which accumulates the same products, times both scales.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

_MOST_BIAS = 2**30
_CLIPPING = frozenset({"Relu", "Clip"})
_PRODUCTS = frozenset({"Conv", "MatMul"})


def use_integer_products(model: onnx.ModelProto) -> None:
    """Rewrite, in place, convolutions and matrix products of dequantized operands."""
    _Rewriter(model.graph).rewrite()


class _Rewriter:
    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self.graph = graph
        self.values = {tensor.name: tensor for tensor in graph.initializer}
        self.to_array = numpy_helper.to_array
        self.added: list[Any] = []

    def rewrite(self) -> None:
        self._drop_clipping()
        graph = self.graph
        producers = {output: node for node in graph.node for output in node.output}
        consumers = _consumers(graph)
        results = {value.name for value in graph.output}
        nodes = []
        for node in graph.node:
            pair: list[Any] = [producers.get(name) for name in node.input[:2]] if node.op_type in _PRODUCTS else []
            ready = bool(pair) and all(found is not None and found.op_type == "DequantizeLinear" for found in pair)
            arrays = {name: self._array(name) for found in pair for name in found.input[1:]} if ready else {}
            if not ready or any(arrays[found.input[1]].ndim > 1 for found in pair):
                nodes.append(node)
                continue
            rounded = node.output[0] not in results and _rounded_at_once(consumers.get(node.output[0], []))
            bias = self._bias(node, pair, arrays) if rounded else None
            if bias is not None:
                nodes += bias
            elif node.op_type == "MatMul":
                nodes += self._integer(node, pair, arrays)
            else:
                nodes.append(node)
        del graph.node[:]
        graph.node.extend(_read(nodes, results))
        graph.initializer.extend(self.added)

    def _array(self, name: str) -> NDArray[Any]:
        found: NDArray[Any] = self.to_array(self.values[name])
        return found

    def _keep(self, name: str, values: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.added.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _drop_clipping(self) -> None:
        """Take out each clipping to what lies on or beyond the ends of the grid that alone reads it."""
        graph = self.graph
        consumers = _consumers(graph)
        results = {value.name for value in graph.output}
        renamed: dict[str, str] = {}
        nodes = []
        for node in graph.node:
            for position, name in enumerate(node.input):
                node.input[position] = renamed.get(name, name)
            readers = consumers.get(node.output[0], [])
            alone = bool(readers) and node.output[0] not in results
            if node.op_type in _CLIPPING and alone and all(self._clips(reader, node) for reader in readers):
                renamed[node.output[0]] = node.input[0]
            else:
                nodes.append(node)
        del graph.node[:]
        graph.node.extend(nodes)

    def _clips(self, reader: Any, node: Any) -> bool:
        """Whether a rounding to uint8 turns all that a clipping moves into the code that it moves it to."""
        if reader.op_type != "QuantizeLinear":
            return False
        scale, zero = (self._array(name) for name in reader.input[1:3])
        bounds: list[Any] = [np.float32(0), np.float32(np.inf)]
        if node.op_type == "Clip":
            if any(name and name not in self.values for name in node.input[1:]):
                return False
            given = [self._array(name) if name else None for name in node.input[1:]]
            bounds = [np.float32(-np.inf), np.float32(np.inf)]
            bounds[: len(given)] = [b if g is None else g for g, b in zip(given, bounds, strict=False)]
        low, high = (np.rint(bound / scale) + int(zero) for bound in bounds)
        return bool(low <= 0 and high >= np.iinfo(np.uint8).max)

    def _bias(self, node: Any, pair: Sequence[Any], arrays: Mapping[str, Any]) -> list[Any] | None:
        """Return the node with its bias in int32, after what makes it float again; ``None`` where it would overflow."""
        from onnx import helper

        if len(node.input) < 3:
            return [node]
        bias, scale = self._array(node.input[2]), _scale(pair, arrays)
        codes = np.rint(bias.astype(np.float64) / scale)
        if np.abs(codes).max() >= _MOST_BIAS:
            return None
        name = f"{node.output[0]}.bias"
        inputs = [
            self._keep(f"{name}.codes", codes.astype(np.int32)),
            self._keep(f"{name}.scale", np.broadcast_to(scale, bias.shape)),
        ]
        node.input[2] = name
        return [helper.make_node("DequantizeLinear", inputs, [name], f"dequantize:{name}", axis=0), node]

    def _integer(self, node: Any, pair: Sequence[Any], arrays: Mapping[str, Any]) -> list[Any]:
        from onnx import TensorProto, helper

        first, second = pair
        (output,) = node.output
        names = {part: f"{output}.{part}" for part in ("sums", "float", "scale")}
        self._keep(names["scale"], _scale(pair, arrays))
        zeros = [first.input[2] if len(first.input) > 2 else "", *second.input[2:]]
        return [
            helper.make_node("MatMulInteger", [first.input[0], second.input[0], *zeros], [names["sums"]], node.name),
            helper.make_node("Cast", [names["sums"]], [names["float"]], f"cast:{output}", to=TensorProto.FLOAT),
            helper.make_node("Mul", [names["float"], names["scale"]], [output], f"scale:{output}"),
        ]


def _scale(pair: Sequence[Any], arrays: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return the scale of the products of two operands, one for each channel or for all."""
    first, second = pair
    found: NDArray[np.float32] = np.atleast_1d(arrays[second.input[1]]) * arrays[first.input[1]]
    return found


def _consumers(graph: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def _read(nodes: Sequence[Any], results: set[str]) -> list[Any]:
    """Return the nodes whose results are read: ONNX Runtime would run the others too."""
    wanted, found = set(results), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            found.append(node)
    return found[::-1]


def _rounded_at_once(readers: Sequence[Any]) -> bool:
    """Whether one rounding alone reads a value."""
    return len(readers) == 1 and readers[0].op_type == "QuantizeLinear"
