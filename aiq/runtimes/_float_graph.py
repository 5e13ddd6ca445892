"""The float network as ONNX, once a model: which node reads which weight or multiplies which activations."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aiq.quantize import Simulator
from aiq.quantize._intercept import product_name
from aiq.quantize._simulate import as_tensor, operator_by_operator
from aiq.runtimes._inputs import repeated
from aiq.runtimes._protocol import DeployError
from roofline import Scheme

if TYPE_CHECKING:
    import onnx

OPSET = 21
_LAYER = "layer:{};"
_EXAMPLES = 2
_FX_NODE = "pkg.torch.onnx.fx_node"
_CALL = re.compile(r"%(\w+) : .*?target=torch\.ops\.aten\.(\w+)\.\w+\]\(args = \((.*)")
_PRODUCTS = {"matmul": 2, "bmm": 2, "mm": 2, "scaled_dot_product_attention": 3}
_NUMBERS = {"value_int": np.int64, "value_float": np.float32}
_READERS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gather"})
_PASSING = frozenset({"Identity", "Cast"})
_FUSED = frozenset({"Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "HardSwish", "Add"})
_LAYER_NAME = re.compile(r"layer:([^;]+);")


@dataclass(frozen=True, slots=True)
class Site:
    """A node that reads what a scheme quantizes.

    Attributes:
        name: The layer, or ``product N``.
        operands: Values that are quantized before the node, by their position.
    """

    name: str
    operands: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FloatGraph:
    """A float network in ONNX with its batch norms folded.

    Attributes:
        model: The network; initializers carry the names of parameters.
        sites: By position of the node before which their operands are quantized.
        readers: Layer of each node that reads a weight, by position.
        copies: Names of the initializers that hold a parameter, and whether transposed.
        stuck: Layers whose weights reach their operator by a way that has no quantized form, with that operator.
    """

    model: onnx.ModelProto
    sites: Mapping[int, Site]
    readers: Mapping[int, str]
    copies: Mapping[str, tuple[tuple[str, bool], ...]]
    stuck: Mapping[str, str]


def export_float(simulator: Simulator) -> FloatGraph:
    """Export the float network that a simulator quantizes.

    Raises:
        DeployError: It cannot be exported; the message names what PyTorch's exporter says.
    """
    simulator.apply(Scheme())
    example = repeated(simulator.calibration_inputs, _EXAMPLES)
    model = _exported(simulator, example)
    _keep_logits(model, simulator, example)
    _split_products(model)
    _name_types(model)
    _fold_constants(model)
    copies, stuck = _transpose_weights(model, simulator)
    return _annotated(model, simulator, copies, stuck)


def _exported(simulator: Simulator, example: Any) -> onnx.ModelProto:
    batch = torch.export.Dim("batch")
    if isinstance(example, dict):
        given: dict[str, Any] = {
            "args": (),
            "kwargs": example,
            "dynamic_shapes": {name: {0: batch} for name in example},
        }
    else:
        args = example if isinstance(example, tuple) else (example,)
        given = {"args": args, "dynamic_shapes": tuple({0: batch} for _ in args)}
    try:
        with _quiet(), torch.no_grad(), operator_by_operator():
            program = torch.onnx.export(
                simulator.module, dynamo=True, optimize=False, opset_version=OPSET, verbose=False, **given
            )
        assert program is not None
        found: onnx.ModelProto = program.model_proto
    except Exception as error:
        raise DeployError(
            f"{simulator.model.name} cannot be exported to ONNX: {_reason(error)}. "
            "Next: rewrite the operator that it names, or use the torch runtime."
        ) from error
    return found


def _reason(error: BaseException) -> str:
    """Return the first sentence of what an exporter's error goes back to."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200].rstrip('.') if lines else 'no reason given'}"


def _keep_logits(model: onnx.ModelProto, simulator: Simulator, example: Any) -> None:
    """Leave the logits alone of several outputs."""
    if len(model.graph.output) == 1:
        return
    with torch.inference_mode():
        output = simulator.call(example)
    logits = as_tensor(output, simulator.model.name)
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]
    kept = copy.deepcopy(model.graph.output[next((i for i, leaf in enumerate(leaves) if leaf is logits), 0)])
    del model.graph.output[:]
    model.graph.output.append(kept)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter off the terminal."""
    level = logging.root.manager.disable
    away = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(away), contextlib.redirect_stderr(away):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)


def _transpose_weights(
    model: onnx.ModelProto, simulator: Simulator
) -> tuple[dict[str, tuple[tuple[str, bool], ...]], dict[str, str]]:
    """Turn transposed weights into initializers of their own; return all copies, and layers that are read otherwise."""
    from onnx import numpy_helper

    known_as = _parameters(simulator)
    weights = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in known_as}
    source = {name: (name, False) for name in weights}
    found: dict[str, dict[tuple[str, bool], str]] = {}
    kept, stuck = [], {}
    for node in model.graph.node:
        known = [source[name] for name in node.input if name in source]
        if known and node.op_type in _PASSING:
            source[node.output[0]] = known[0]
        elif known and node.op_type == "Transpose" and len(weights[known[0][0]].dims) == 2:
            source[node.output[0]] = known[0][0], not known[0][1]
        else:
            for position, name in enumerate(node.input):
                if name in source:
                    stored, transposed = source[name]
                    layer, parameter = known_as[stored]
                    turned = f"{_LAYER.format(layer)}{parameter}{'.T' if transposed else ''}"
                    found.setdefault(parameter, {})[turned, transposed] = stored
                    node.input[position] = turned
                    if node.op_type not in _READERS:
                        stuck[layer] = node.op_type
            kept.append(node)
    others = [tensor for tensor in model.graph.initializer if tensor.name not in weights]
    for copies in found.values():
        for (name, transposed), stored in copies.items():
            values = numpy_helper.to_array(weights[stored])
            others.append(numpy_helper.from_array(np.ascontiguousarray(values.T) if transposed else values, name))
    del model.graph.initializer[:]
    model.graph.initializer.extend(others)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return {parameter: tuple(copies) for parameter, copies in found.items()}, stuck


def _parameters(simulator: Simulator) -> dict[str, tuple[str, str]]:
    """Return layer and parameter of each weight, by every name that the module has for it."""
    module, weights = simulator.module, simulator.sites.weights
    named = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return {name: weights[id(tensor)] for name, tensor in named if id(tensor) in weights}


def _split_products(model: onnx.ModelProto) -> None:
    """Turn ``Gemm`` with a transposed weight into ``MatMul`` and ``Add``, the form that runtimes have kernels for."""
    from onnx import helper

    nodes = []
    for node in model.graph.node:
        settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        plain = settings.get("alpha", 1.0) == 1.0 == settings.get("beta", 1.0) and not settings.get("transA")
        if node.op_type != "Gemm" or not plain:
            nodes.append(node)
            continue
        activations, weight, *bias = node.input
        (output,) = node.output
        if settings.get("transB"):
            nodes.append(helper.make_node("Transpose", [weight], [f"{output}.weight"], perm=[1, 0]))
            weight = f"{output}.weight"
        product = f"{output}.product" if bias else output
        nodes.append(helper.make_node("MatMul", [activations, weight], [product]))
        if bias:
            nodes.append(helper.make_node("Add", [product, bias[0]], [output], f"bias:{output}"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _name_types(model: onnx.ModelProto) -> None:
    """Replace ``CastLike`` by ``Cast``: it reads a value only for its type, which hides who else reads it."""
    from onnx import TensorProto, helper, shape_inference

    inferred = shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input, *inferred.output)}
    for node in model.graph.node:
        if node.op_type == "CastLike":
            node.op_type = "Cast"
            node.attribute.append(helper.make_attribute("to", types.get(node.input[1], TensorProto.FLOAT)))
            del node.input[1]


def _fold_constants(model: onnx.ModelProto) -> None:
    """Turn numbers, and casts of them, into initializers, so that it can be read what a ``Clip`` clips to."""
    from onnx import helper, numpy_helper

    constants: dict[str, Any] = {}
    nodes = []
    for node in model.graph.node:
        settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        number = next((name for name in _NUMBERS if name in settings), "")
        if node.op_type == "Constant" and number:
            constants[node.output[0]] = np.array(settings[number], _NUMBERS[number])
        elif node.op_type == "Cast" and node.input[0] in constants:
            kind = helper.tensor_dtype_to_np_dtype(settings["to"])
            constants[node.output[0]] = constants[node.input[0]].astype(kind)
        else:
            nodes.append(node)
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _annotated(
    model: onnx.ModelProto,
    simulator: Simulator,
    copies: dict[str, tuple[tuple[str, bool], ...]],
    stuck: dict[str, str],
) -> FloatGraph:
    """Find the sites; name nodes that read weights, and their results, after their layers."""
    layer_of = {name: layer for layer, name in simulator.sites.weights.values()}
    owner = {turned: layer_of[parameter] for parameter, found in copies.items() for turned, _ in found}
    parameters = {tensor.name for tensor in model.graph.initializer}
    sites: dict[int, Site] = {}
    readers: dict[int, str] = {}
    products: dict[str, int] = {}
    renamed: dict[str, str] = {}
    for index, node in enumerate(model.graph.node):
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
        layer = next((owner[name] for name in node.input if name in owner), None)
        if layer is not None and node.op_type in _READERS:
            label = _LAYER.format(layer)
            node.name = f"{label}{list(readers.values()).count(layer) or ''}"
            readers[index] = layer
            if node.op_type != "Gather":
                sites[index] = Site(layer, (node.input[0],))
            _rename(node, label, renamed)
            continue
        before = {name for name in node.input if name not in parameters}
        if not before:
            parameters.update(node.output)
        if node.op_type in _FUSED and len(before) == 1 and (labels := layers_in(*before)):
            _rename(node, _LAYER.format(labels[0]), renamed)
            node.name = f"{_LAYER.format(labels[0])}{node.name}"
        call = _CALL.match(next((entry.value for entry in node.metadata_props if entry.key == _FX_NODE), ""))
        if call is None or call[2] not in _PRODUCTS or call[1] in products:
            continue
        operands = tuple(renamed.get(o, o) for o in re.findall(r"%(\w+)", call[3])[: _PRODUCTS[call[2]]])
        if len(products) < len(simulator.sites.products) and not parameters.intersection(operands):
            sites[index] = Site(product_name(len(products)), operands)
            products[call[1]] = index
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.name = renamed.get(value.name, value.name)
    return FloatGraph(model, sites, readers, copies, stuck)


def _rename(node: Any, label: str, renamed: dict[str, str]) -> None:
    """Put a layer's label on what a node writes: runtimes name fused operators after one of their results."""
    renamed[node.output[0]] = f"{label}{node.output[0]}"
    node.output[0] = renamed[node.output[0]]


def without_labels(model: onnx.ModelProto) -> None:
    """Take the layers' labels, and where code stands, out, in place; nodes that read weights are called as layers."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
        node.name = unlabelled(re.sub(r"^layer:([^;]+);(?=\d*$)", r"\1", node.name))
        for names in (node.input, node.output):
            names[:] = map(unlabelled, names)
    del model.graph.metadata_props[:]
    for named in (*model.graph.initializer, *model.graph.output):
        named.name = unlabelled(named.name)


def unlabelled(name: str) -> str:
    """Return a name without the layers' labels."""
    return _LAYER_NAME.sub("", name)


def layers_in(text: str) -> tuple[str, ...]:
    """Return the layers that a runtime's name of an operator speaks of."""
    return tuple(dict.fromkeys(_LAYER_NAME.findall(text)))
