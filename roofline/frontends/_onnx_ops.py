"""What each ONNX operator costs: a table from operator to op kind and formula, the same kinds as of PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

from roofline import ops
from roofline.frontends._onnx_einsum import einsum
from roofline.frontends._onnx_values import Shape, Value
from roofline.frontends._record import Work
from roofline.graph import CONV_KINDS, Extents

MICROSOFT = "com.microsoft"


class Call(NamedTuple):
    """One call: operator, attributes, and values by position; ``None`` for an input that is left out."""

    op: str
    attributes: dict[str, Any]
    inputs: Sequence[Value | None]
    outputs: Sequence[Value]

    def shape(self, position: int) -> Shape:
        """Return the shape of an input.

        Raises:
            UnknownShapeError: It is not known, or there is no such input.
        """
        value = self.inputs[position] if position < len(self.inputs) else None
        return _known(value)

    def has(self, position: int) -> bool:
        """Tell whether an input is given."""
        return position < len(self.inputs) and self.inputs[position] is not None

    @property
    def out(self) -> Shape:
        """The shape of the first output."""
        return _known(self.outputs[0] if self.outputs else None)


class UnknownShapeError(Exception):
    """A shape that a formula needs and that nothing says."""


def _known(value: Value | None) -> Shape:
    if value is None or value.shape is None:
        raise UnknownShapeError
    return value.shape


Formula = Callable[[Call], Work]

_ELEMENTWISE = """
Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Celu Clip Cos Cosh
Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less LessOrEqual Log
Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu RotaryEmbedding Round Selu Shrink Sigmoid Sign Sin Sinh Softplus
Softsign Sqrt Sub Swish Tan Tanh ThresholdedRelu Where Xor BiasGelu FastGelu QuickGelu QLinearAdd QLinearMul
QLinearSigmoid QLinearLeakyRelu
"""
_REDUCTION = """
ArgMax ArgMin CumProd CumSum Hardmax NegativeLogLikelihoodLoss ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare SoftmaxCrossEntropyLoss TopK Unique
"""
_COPY = """
CenterCropPad Col2Im Compress Concat DepthToSpace Gather GatherElements GatherND MaxUnpool NonZero OneHot Pad
ReverseSequence Scatter ScatterElements ScatterND SpaceToDepth TensorScatter Tile Trilu
"""
_FILL = """
AffineGrid Bernoulli BlackmanWindow ConstantOfShape EyeLike HammingWindow HannWindow Multinomial RandomNormal
RandomNormalLike RandomUniform RandomUniformLike Range
"""
GATHER = frozenset({"Gather", "GatherElements", "GatherND"})
# Where only some inputs are tensors that are moved: the others are shapes, axes, scales and zero points.
MOVED: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("ConvInteger", "MatMulInteger"), (0, 1)),
    **dict.fromkeys(("QLinearConv",), (0, 3, 8)),
    **dict.fromkeys(("QLinearMatMul", "QLinearAdd", "QLinearMul"), (0, 3)),
    "MatMulNBits": (0, 1, 5),
    "GroupQueryAttention": (0, 1, 2, 3, 4),
    "MultiHeadAttention": (0, 1, 2, 5),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu", "Clip", "Pad", "Resize", "TopK"), (0,)),
    **dict.fromkeys(("CumSum", "CumProd", "Tile", "Trilu", "CenterCropPad", "Col2Im", "Upsample", "OneHot"), (0,)),
    **dict.fromkeys(("EyeLike", "RandomNormalLike", "RandomUniformLike", "ConstantOfShape", "Range", "AffineGrid"), ()),
    **{name: (0,) for name in _REDUCTION.split() if name.startswith("Reduce")},
}


def _conv(position: int) -> Formula:
    def work(call: Call) -> Work:
        weight, input_, output = call.shape(position), call.shape(0), call.out
        channels, groups = input_[1], max(input_[1] // weight[1], 1) if weight[1] else 1
        depthwise = weight[1] == 1 and weight[0] > 1 and channels > 1
        extents = Extents(groups, output[0] * prod(output[2:]), weight[0] // groups, prod(weight[1:]))
        kind = "depthwise_conv" if depthwise else "conv"
        return Work(kind, ops.conv_macs(output, weight), extents=extents, variant=_variant(weight, call))

    return work


def _variant(weight: Shape, call: Call) -> str:
    text = "x".join(map(str, weight[2:]))
    for mark, name in (("/", "strides"), ("d", "dilations")):
        steps = list(call.attributes.get(name) or [1])
        if any(s != 1 for s in steps):
            text += mark + "x".join(map(str, steps if len(set(steps)) > 1 else steps[:1]))
    return text


def _conv_transpose(call: Call) -> Work:
    weight, input_ = call.shape(1), call.shape(0)
    groups = max(call.attributes.get("group", 1), 1)
    extents = Extents(groups, input_[0] * prod(input_[2:]), prod(weight[1:]), weight[0] // groups)
    macs = ops.conv_transpose_macs(input_, weight)
    return Work("conv_transpose", macs, extents=extents, variant=_variant(weight, call))


def _gemm(call: Call) -> Work:
    left = call.shape(0)
    inner = left[0 if call.attributes.get("transA") else 1]
    rows, columns = call.out
    return Work("matmul", ops.linear_macs(call.out, inner), extents=Extents(1, rows, columns, inner))


def _product(position: int) -> Formula:
    def work(call: Call) -> Work:
        left, right, out = call.shape(0), call.shape(position), call.out
        inner = left[-1] if left else 1
        stacked = len(right) > 2 and len(out) > 2
        n = out[-1] if len(right) > 1 and out else 1
        rows = prod(out) // max(n, 1)
        m = out[-2] if stacked else rows
        extents = Extents(rows // max(m, 1), m, n, inner, "products" if stacked else "m")
        return Work("matmul", ops.matmul_macs(out, inner), extents=extents)

    return work


def _packed_product(call: Call) -> Work:
    out, inner = call.out, int(call.attributes["K"])
    return Work("linear", ops.linear_macs(out, inner), extents=Extents(1, prod(out[:-1]), out[-1], inner))


def _einsum(call: Call) -> Work:
    shapes = [call.shape(i) for i in range(len(call.inputs))]
    macs, extents, _ = einsum(str(call.attributes["equation"]), shapes)
    if macs:
        return Work("matmul", macs, extents=extents)
    if len(shapes) == 1 and prod(call.out) < prod(shapes[0]):
        return _reduce(call)
    return _elementwise(call)


def _attention(call: Call) -> Work:
    query, key, value = (_heads(call, p, name) for p, name in ((0, "q"), (1, "kv"), (2, "kv")))
    past = call.shape(4)[-2] if call.has(4) else 0
    key, value = (*key[:-2], key[-2] + past, key[-1]), (*value[:-2], value[-2] + past, value[-1])
    return attention(query, key, value, causal=bool(call.attributes.get("is_causal")))


def _contributed_attention(call: Call) -> Work:
    """Attention of ONNX Runtime's own domain: ``[B, S, heads · D]``, packed as queries, keys and values or apart."""
    heads = int(call.attributes["num_heads"])
    grouped = call.op == "GroupQueryAttention"
    shared = int(call.attributes["kv_num_heads"]) if grouped else heads
    samples, tokens, width = call.shape(0)
    depth = width // heads if call.has(1) else width // (heads + 2 * shared)
    query = (samples, heads, tokens, depth)
    key, value = ((samples, shared, *(_rows(call, p, shared, (tokens, depth)))) for p in (1, 2))
    past = call.shape(3)[-2] if grouped and call.has(3) else 0
    key, value = (*key[:-2], key[-2] + past, key[-1]), (*value[:-2], value[-2] + past, value[-1])
    return attention(query, key, value, causal=grouped)


def _rows(call: Call, position: int, heads: int, packed: Shape) -> Shape:
    """Return tokens and width of keys or values, ``packed`` where they come with the queries."""
    if not call.has(position):
        return packed
    shape = call.shape(position)
    return shape[-2:] if len(shape) == 4 else (shape[1], shape[2] // heads)


def attention(query: Shape, key: Shape, value: Shape, *, causal: bool) -> Work:
    """Return the work of scaled-dot-product attention on ``[..., heads, tokens, width]``."""
    notes = ["scores stay on chip"]
    if causal:
        notes.append("causal, counted in full")
    if len(query) > 2 and query[-3] != key[-3]:
        notes.append(f"grouped queries {query[-3]}:{key[-3]}")
    extents = Extents(prod(query[:-2]), query[-2], key[-2], query[-1] + value[-1], "products")
    macs, flops = ops.attention_macs(query, key, value), ops.attention_softmax_flops(query, key)
    return Work("attention", macs, flops, ", ".join(notes), extents)


def _heads(call: Call, position: int, name: str) -> Shape:
    shape = call.shape(position)
    if len(shape) == 4:
        return shape
    heads = int(call.attributes[f"{name}_num_heads"])
    return shape[0], heads, shape[1], shape[2] // heads


def _recurrent(kind: str) -> Formula:
    def work(call: Call) -> Work:
        steps = prod(call.shape(0)[:2])
        matrices = [call.shape(1), call.shape(2)]
        directions, hidden = matrices[1][0], matrices[1][-1]
        flops = ops.recurrent_gate_flops(kind, hidden, steps, directions)
        return Work("recurrent", ops.recurrent_macs(matrices, steps), flops, "weights read once per call")

    return work


def norm(kind: str) -> Formula:
    """Return the formula of a normalisation."""
    return lambda call: Work(kind, 0, ops.norm_flops(kind, call.out))


def _local_norm(call: Call) -> Work:
    """Square, sum over the window, then scale, add, raise and divide (Krizhevsky et al. 2012)."""
    window = int(call.attributes["size"])
    return Work("elementwise", 0, ops.pool_flops(call.out, window) + 5 * ops.elementwise_flops(call.out))


def _softmax(call: Call) -> Work:
    return Work("softmax", 0, ops.softmax_flops(call.out))


def _pool(call: Call) -> Work:
    return Work("pool", 0, ops.pool_flops(call.out, prod(call.attributes["kernel_shape"])))


def _global_pool(call: Call) -> Work:
    return Work("pool", 0, ops.reduction_flops(call.shape(0)))


def _mean(call: Call) -> Work:
    shape, axes = call.shape(0), call.attributes.get("axes")
    if len(call.inputs) > 1:
        given = call.inputs[1]
        axes = None if given is None or given.data is None else [int(a) for a in given.data.reshape(-1)]
    # What exporters write for adaptive pooling to one position.
    spatial = len(shape) > 3 and axes is not None and {a % len(shape) for a in axes} == set(range(2, len(shape)))
    pools = spatial and len(call.out) == len(shape)
    return Work("pool" if pools else "reduction", 0, ops.reduction_flops(shape))


def _interpolate(call: Call) -> Work:
    mode, spatial = str(call.attributes.get("mode", "nearest")), max(len(call.out) - 2, 1)
    by_rank = {1: "linear", 2: "bilinear"}.get(spatial, "trilinear")
    name = {"nearest": "nearest", "cubic": "bicubic", "bicubic": "bicubic"}.get(mode, by_rank)
    return Work("interpolate", 0, ops.interpolate_flops(name, call.out))


def _reduce(call: Call) -> Work:
    return Work("reduction", 0, ops.reduction_flops(call.shape(0)))


def _elementwise(call: Call) -> Work:
    return Work("elementwise", 0, ops.elementwise_flops(call.out))


def _of_several(call: Call) -> Work:
    return Work("elementwise", 0, max(len(call.inputs) - 1, 1) * ops.elementwise_flops(call.out))


def _gather(call: Call) -> Work:
    table, indices = call.inputs[0], call.inputs[1]
    rows = not call.attributes.get("axis", 0) and table is not None and table.storage.origin == "stored"
    if rows and table is not None and len(table.shape or ()) == 2 and indices is not None:
        return Work("embedding", note="reads the rows looked up")
    return Work("copy")


ELEMENTWISE = frozenset(_ELEMENTWISE.split())
FORMULAS: dict[str, Formula] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("Max", "Mean", "Min", "Sum"), _of_several),
    **dict.fromkeys(_REDUCTION.split(), _reduce),
    **dict.fromkeys(_COPY.split(), lambda _: Work("copy")),
    **dict.fromkeys(_FILL.split(), lambda _: Work("fill")),
    **dict.fromkeys(("Cast", "CastLike", "BitCast"), lambda _: Work("elementwise")),
    **dict.fromkeys(("Conv", "ConvInteger", "FusedConv"), _conv(1)),
    "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    **dict.fromkeys(("MatMul", "MatMulInteger"), _product(1)),
    "QLinearMatMul": _product(3),
    "MatMulNBits": _packed_product,
    "Einsum": _einsum,
    "Attention": _attention,
    **dict.fromkeys(("GroupQueryAttention", "MultiHeadAttention"), _contributed_attention),
    "LSTM": _recurrent("lstm"),
    "GRU": _recurrent("gru"),
    "RNN": _recurrent("rnn"),
    "BatchNormalization": norm("batch_norm"),
    **dict.fromkeys(("LayerNormalization", "SkipLayerNormalization"), norm("layer_norm")),
    **dict.fromkeys(("GroupNormalization", "InstanceNormalization", "MeanVarianceNormalization"), norm("group_norm")),
    **dict.fromkeys(("RMSNormalization", "SimplifiedLayerNormalization", "LpNormalization"), norm("rms_norm")),
    "SkipSimplifiedLayerNormalization": norm("rms_norm"),
    "LRN": _local_norm,
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "QLinearGlobalAveragePool"), _global_pool),
    "ReduceMean": _mean,
    **dict.fromkeys(("Resize", "Upsample", "GridSample"), _interpolate),
    "Gather": _gather,
}


def channels(call: Call, position: int, value: Value, kind: str) -> int:
    """Return how many output channels share out a weight's values."""
    shape = value.shape or ()
    if kind in CONV_KINDS:
        return call.out[1] if kind == "conv_transpose" else shape[0]
    if kind == "recurrent":
        return prod(shape[:-1])
    if call.op == "Gemm":
        turned = call.attributes.get("transB" if position else "transA")
        return shape[0 if bool(turned) == bool(position) else 1]
    if call.op == "MatMulNBits":
        return shape[0]
    if len(shape) < 2:
        return 1
    return value.elements // max(shape[-2 if position else -1], 1)
