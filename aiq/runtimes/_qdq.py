"""A scheme written into a network: integer weights, and quantize–dequantize pairs where the simulation rounds."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from aiq.quantize import Simulator
from aiq.quantize._activations import Rounding
from aiq.quantize._weights import QuantizedWeight
from aiq.runtimes._float_graph import FloatGraph, Site, unlabelled, without_labels
from aiq.runtimes._protocol import DeployError
from roofline import LayerPrecision, Precision, Scheme

if TYPE_CHECKING:
    import onnx

MICROSOFT = "com.microsoft"
_CASTS = {"bf16": "BFLOAT16", "fp16": "FLOAT16"}
_NARROW = 4
_BLOCK = 32
_LEAST_BLOCK = 16
_MOST_CODE = 255


@dataclass(frozen=True, eq=False)
class Built:
    """A network as a scheme says.

    Attributes:
        model: The ONNX model.
        formats: Formats that the scheme gives each layer.
        stored: Format that each layer's weights are stored in.
        reasons: Why a layer is not stored or rounded as the scheme says; absent where it is.
    """

    model: onnx.ModelProto
    formats: Mapping[str, LayerPrecision]
    stored: Mapping[str, str]
    reasons: Mapping[str, str]


class _Writer:
    """Rewrites one copy of a float graph."""

    def __init__(self, graph: FloatGraph, simulator: Simulator, formats: dict[str, LayerPrecision], dialect: str):
        self.graph, self.simulator, self.formats, self.dialect = graph, simulator, formats, dialect
        self.model = copy.deepcopy(graph.model)
        self.initializers = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.nodes: list[Any] = []
        self.stored: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self.current: dict[str, str] = {}
        self.grids: dict[str, tuple[float, int, int, int] | str] = {}
        self.compressed: dict[str, QuantizedWeight] = {}
        self.factors = {node.input[1] for node in self.model.graph.node if node.op_type == "MatMul"}

    def written(self) -> Built:
        for layer in self.simulator.layers:
            self._weights(layer)
        for index, node in enumerate(list(self.model.graph.node)):
            site = self.graph.sites.get(index)
            own = self._quantize(site) if site else {}
            for position, name in enumerate(node.input):
                node.input[position] = own.get(name, self.current.get(name, name))
            self.nodes.append(self._compressed(node))
        del self.model.graph.node[:]
        self.model.graph.node.extend(self.nodes)
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(self.initializers.values())
        if self.dialect == "onnx":
            without_labels(self.model)
        return Built(self.model, self.formats, self.stored, self.reasons)

    def _weights(self, layer: str) -> None:
        formats = self.formats[layer]
        wanted = formats.weights
        self.stored[layer] = "fp32" if wanted is None else wanted.name
        if wanted is None:
            return
        if layer in self.graph.stuck:
            raise DeployError(
                f"the weights of {layer} reach the operator {self.graph.stuck[layer]}, which has no quantized form. "
                f"Next: keep that layer, for instance {layer}=keep."
            )
        bias = self.simulator.biases.get(layer)
        for name, quantized in self.simulator.weights(layer, wanted, formats.recipe).items():
            for stored, transposed in self.graph.copies.get(name, ()):
                self._weight(layer, stored, quantized, wanted, transposed=transposed)
            if bias is not None and quantized.bias_shift is not None:
                self._shift(layer, bias, quantized.bias_shift)

    def _shift(self, layer: str, bias: str, shift: torch.Tensor) -> None:
        if bias not in self.initializers:
            raise DeployError(
                f"the bias of {layer} is not to be found in the exported network, so it cannot be corrected. "
                f"Next: choose a recipe without that, for instance {layer}=w8@nobias."
            )
        self._set(bias, (self._array(bias) + shift.numpy()).astype(np.float32))

    def _weight(
        self, layer: str, name: str, quantized: QuantizedWeight, wanted: Precision, *, transposed: bool
    ) -> None:
        if wanted.is_float:
            self._float_weight(layer, name, quantized, wanted, transposed=transposed)
            return
        matrix = quantized.values.dim() == 2
        if matrix and quantized.axis == 1:
            quantized, transposed = replace(quantized, values=quantized.values.T, axis=0), not transposed
        size = quantized.values.movedim(quantized.axis, 0)[0].numel()
        grouped = quantized.group_size < size
        if reason := self._formless(layer, quantized, wanted, size):
            self.stored[layer] = "fp32"
            self.reasons[layer] = f"{reason}: stored as float32 of the same values"
            self._set(name, _turned(quantized.values, transposed))
        elif transposed and matrix and name in self.factors and self._packs(layer, quantized, wanted):
            self.stored[layer] = "int4"
            self.compressed[name] = quantized
        else:
            self._dequantized(layer, name, quantized, wanted, transposed=transposed, grouped=grouped)

    def _formless(self, layer: str, quantized: QuantizedWeight, wanted: Precision, size: int) -> str:
        """Say why a weight with ``size`` values a channel has no quantized form; empty where it has one."""
        matrix = quantized.values.dim() == 2
        if wanted.bits > 8:
            return f"{wanted.bits}-bit integers have no form in ONNX"
        if quantized.group_size < size and not matrix:
            return "groups inside a convolution's kernel have no form in ONNX"
        if self.dialect != "openvino":
            return ""
        if quantized.group_size < size and size % quantized.group_size:
            return f"groups of {quantized.group_size} do not divide {size} values, as OpenVINO wants"
        turned = quantized.axis == 1 and quantized.values.dim() > 2
        if wanted.zero_point_bits and turned and not self._only_weights(layer):
            # OpenVINO 2026.4 gives wrong results for these.
            return "zero points of a transposed convolution have no sound kernel"
        return ""

    def _packs(self, layer: str, quantized: QuantizedWeight, wanted: Precision) -> bool:
        """Whether ``MatMulNBits`` takes the weight: 4 bits, in groups of a power of two from 16."""
        block = _block(quantized)
        fits = wanted.bits <= _NARROW and block >= _LEAST_BLOCK and block & (block - 1) == 0
        return self.dialect == "onnxruntime" and fits and self._only_weights(layer)

    def _only_weights(self, layer: str) -> bool:
        reads = (layer, 0) in self.simulator.calibration.ranges
        return not reads or self.simulator.rounding(layer, 0, self.formats) is None

    def _float_weight(
        self, layer: str, name: str, quantized: QuantizedWeight, wanted: Precision, *, transposed: bool
    ) -> None:
        values = _turned(quantized.values, transposed)
        activations = self.formats[layer].activations
        if self.dialect == "openvino" and activations is not None and activations.name == wanted.name == "bf16":
            self._set(name, values)
            return
        if wanted.name not in _CASTS or self.dialect == "openvino":
            self.stored[layer] = "fp32"
            if wanted.name != "fp32":
                self.reasons[layer] = f"{wanted.name} has no CPU kernel: stored as float32 of the same values"
            self._set(name, values)
            return
        from onnx import TensorProto, helper

        kind = getattr(TensorProto, _CASTS[wanted.name])
        narrow = f"{name}.{wanted.name}"
        self.initializers[narrow] = helper.make_tensor(narrow, kind, values.shape, values.reshape(-1))
        del self.initializers[name]
        self.nodes.append(helper.make_node("Cast", [narrow], [name], f"cast:{name}", to=TensorProto.FLOAT))

    def _dequantized(
        self, layer: str, name: str, quantized: QuantizedWeight, wanted: Precision, *, transposed: bool, grouped: bool
    ) -> None:
        """Store a weight as integers, and let a node of its old name make it float again."""
        from onnx import helper

        assert quantized.grid is not None
        axis = quantized.axis if not transposed else 1 - quantized.axis
        codes = _turned(quantized.codes(), transposed)
        scale = quantized.grid.scale.to(torch.float32).squeeze(-1).numpy()
        zero = quantized.grid.zero.squeeze(-1).numpy()
        attributes: dict[str, Any] = {"axis": axis}
        if grouped:
            scale, zero = (a.T if transposed else a for a in (scale, zero))
            attributes = {"axis": 0 if transposed else 1, "block_size": quantized.group_size}
        else:
            scale, zero = scale[:, 0], zero[:, 0]
        narrow = wanted.bits <= _NARROW and self._takes_narrow(layer)
        self.stored[layer] = "int4" if narrow else "int8"
        inputs = [f"{name}.codes", f"{name}.scale"]
        self._set_codes(inputs[0], codes, narrow=narrow)
        self._set(inputs[1], scale)
        if wanted.zero_point_bits:
            inputs.append(f"{name}.zero")
            self._set_codes(inputs[2], zero.astype(codes.dtype), narrow=narrow)
        del self.initializers[name]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [name], f"dequantize:{name}", **attributes))

    def _takes_narrow(self, layer: str) -> bool:
        """Whether 4-bit storage keeps the layer off no faster kernel: those for 8-bit products read 8-bit weights."""
        return self.dialect == "onnx" or (self.dialect == "openvino" and self._only_weights(layer))

    def _quantize(self, site: Site) -> dict[str, str]:
        """Round the operands of a site; return what replaces them for this node alone."""
        own = {}
        for operand, value in enumerate(site.operands):
            rounding = self.simulator.rounding(site.name, operand, self.formats)
            if rounding is None:
                continue
            read = self.current.get(value, value)
            rounded = self._rounded(site.name, read, rounding)
            self.current.setdefault(value, rounded)
            own[value] = rounded
        return own

    def _rounded(self, site: str, value: str, rounding: Rounding) -> str:
        grid = rounding.grid
        if grid is None:
            return self._cast(site, value, rounding)
        if grid.high > _MOST_CODE:
            raise DeployError(
                f"{site}: activations of {rounding.precision} have no kernel on any CPU runtime. "
                "Next: use a8 or less, or bf16."
            )
        form = float(np.float32(grid.scale.item())), int(grid.zero.item()), grid.low, grid.high
        if self.grids.get(value) == form:
            return value
        from onnx import helper

        scale, zero, low, high = form
        name = unlabelled(f"{value}/{site}")
        read = value
        if high < _MOST_CODE:
            bounds = [f"{name}/low", f"{name}/high"]
            for bound, code in zip(bounds, (low, high), strict=True):
                self._set(bound, np.array((code - zero) * scale, np.float32))
            read = f"{name}/clipped"
            self.nodes.append(helper.make_node("Clip", [value, *bounds], [read], f"clip:{name}"))
        parameters = [f"{name}/scale", f"{name}/zero"]
        self._set(parameters[0], np.array(scale, np.float32))
        self._set(parameters[1], np.array(zero, np.uint8))
        codes, rounded = f"{name}/codes", f"{name}/rounded"
        self.nodes.append(helper.make_node("QuantizeLinear", [read, *parameters], [codes], f"quantize:{name}"))
        self.nodes.append(helper.make_node("DequantizeLinear", [codes, *parameters], [rounded], f"dequantize:{name}"))
        self.grids[rounded] = form
        return rounded

    def _cast(self, site: str, value: str, rounding: Rounding) -> str:
        """Round to a 16-bit float by casting there and back; OpenVINO computes in it instead."""
        from onnx import TensorProto, helper

        name = rounding.precision.name
        if name in {"fp32", "fp64", "tf32"} or self.grids.get(value) == name:
            return value
        if name not in _CASTS:
            raise DeployError(f"{site}: activations of {name} have no kernel on any CPU runtime. Next: use a8 or bf16.")
        if self.dialect == "openvino":
            return value
        rounded = unlabelled(f"{value}/{site}/rounded")
        narrow = f"{rounded}.{name}"
        kind = getattr(TensorProto, _CASTS[name])
        self.nodes.append(helper.make_node("Cast", [value], [narrow], f"cast:{narrow}", to=kind))
        self.nodes.append(helper.make_node("Cast", [narrow], [rounded], f"cast:{rounded}", to=TensorProto.FLOAT))
        self.grids[rounded] = name
        return rounded

    def _compressed(self, node: Any) -> Any:
        """Return the node, or ONNX Runtime's product with 4-bit weights in its place."""
        name = next((value for value in node.input if value in self.compressed), None)
        if name is None:
            return node
        from onnx import helper

        quantized = self.compressed[name]
        packed, scales, zeros, block = _blocks(quantized)
        inputs = [node.input[0], f"{name}.packed", f"{name}.scales"]
        self.initializers.pop(name, None)
        self._set(inputs[1], packed)
        self._set(inputs[2], scales)
        if zeros is not None:
            inputs.append(f"{name}.zeros")
            self._set(inputs[3], zeros)
        rows, columns = quantized.values.shape
        if not any(opset.domain == MICROSOFT for opset in self.model.opset_import):
            self.model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        return helper.make_node(
            "MatMulNBits", inputs, list(node.output), node.name, domain=MICROSOFT, K=columns, N=rows, bits=4,
            block_size=block,
        )  # fmt: skip

    def _array(self, name: str) -> NDArray[Any]:
        from onnx import numpy_helper

        found: NDArray[Any] = numpy_helper.to_array(self.initializers[name])
        return found

    def _set(self, name: str, values: NDArray[Any]) -> None:
        from onnx import numpy_helper

        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)

    def _set_codes(self, name: str, codes: NDArray[Any], *, narrow: bool) -> None:
        from onnx import TensorProto, helper

        if not narrow:
            self._set(name, codes)
            return
        kind = TensorProto.UINT4 if codes.dtype == np.uint8 else TensorProto.INT4
        self.initializers[name] = helper.make_tensor(name, kind, codes.shape, codes.reshape(-1))


def _turned(values: torch.Tensor, transposed: bool) -> NDArray[Any]:
    found: NDArray[Any] = (values.T if transposed else values).contiguous().numpy()
    return found


def _block(quantized: QuantizedWeight) -> int:
    return _BLOCK if quantized.group_size >= quantized.values.shape[-1] else quantized.group_size


def _blocks(
    quantized: QuantizedWeight,
) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[Any] | None, int]:
    """Pack codes as ``MatMulNBits`` reads them: [N, blocks, block / 2] nibbles, scales and zero points by block."""
    assert quantized.grid is not None
    rows, columns = quantized.values.shape
    block = _block(quantized)
    count = -(-columns // block)
    codes = quantized.codes().numpy()
    signed = codes.dtype == np.int8
    padded = np.zeros((rows, count * block), np.uint8)
    padded[:, :columns] = (codes.astype(np.int16) + (8 if signed else 0)).astype(np.uint8)
    pairs = padded.reshape(rows, count, block // 2, 2)
    scales = quantized.grid.scale.to(torch.float32).squeeze(-1).numpy()
    scales = np.ascontiguousarray(np.broadcast_to(scales, (rows, count)))
    zeros: NDArray[Any] | None = None
    if not signed:
        points = np.broadcast_to(quantized.grid.zero.squeeze(-1).numpy(), (rows, count)).astype(np.uint8)
        even = np.concatenate([points, np.zeros((rows, count % 2), np.uint8)], axis=1).reshape(rows, -1, 2)
        zeros = even[..., 0] | (even[..., 1] << 4)
    packed: NDArray[Any] = pairs[..., 0] | (pairs[..., 1] << 4)
    return packed, scales.astype(np.float32), zeros, block


def write_scheme(graph: FloatGraph, simulator: Simulator, scheme: Scheme, *, dialect: str = "onnx") -> Built:
    """Return the network that a scheme describes.

    Weights are stored as integers with one scale a channel or group, in 4 bits where they fit; activations pass
    ``QuantizeLinear`` and ``DequantizeLinear`` in uint8 where the simulation rounds them, clipped before to the codes
    of a narrower format. All scales, zero points and roundings are the simulator's.

    Args:
        graph: The float network.
        simulator: What it was exported from.
        scheme: Formats of its layers.
        dialect: ``onnx``; ``onnxruntime`` (4-bit weights of linear layers become ``MatMulNBits``, others int8);
            ``openvino`` (bfloat16 is left to the runtime's own precision).

    Raises:
        DeployError: A layer has no quantized form.
    """
    return _Writer(graph, simulator, simulator.apply(scheme), dialect).written()
