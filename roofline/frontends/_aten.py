"""What each aten operator costs: a table from operator to op kind and formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch._ops import OpOverload

from roofline import ops
from roofline.frontends._record import Work
from roofline.graph import Extents

Formula = Callable[[Sequence[Any], dict[str, Any], Any], Work]

# What a gather reads of its source, and a scatter writes of its destination, is what it selects.
GATHER = frozenset({"index", "_unsafe_index", "index_select", "gather", "take", "take_along_dim"})
SCATTER = frozenset({"index_copy_", "index_put_", "scatter_", "index_fill_", "masked_scatter_"})
SCATTER_ADD = frozenset({"index_add_", "scatter_add_", "scatter_reduce_", "index_reduce_"})
OVERWRITE = frozenset({"copy_", "fill_", "zero_", "normal_", "uniform_"})
CAST = frozenset({"to", "_to_copy", "type_as"})

_FREE_NAMES = """
empty empty_like empty_strided new_empty new_empty_strided empty_permuted alias detach detach_ lift lift_fresh
dropout dropout_ alpha_dropout feature_dropout native_dropout resolve_conj resolve_neg _local_scalar_dense item
size sym_size sym_stride sym_numel dim stride is_same_size set_ resize_ data device numel _assert_async
_assert_tensor_metadata is_nonzero equal unsafe_split unsafe_chunk unsafe_split_with_sizes _unsafe_view
_reshape_alias as_strided_ resize_as_ _assert_scalar _linalg_check_errors is_pinned sym_constrain_range
sym_constrain_range_for_size
"""
_COPY_NAMES = """
cat concat concatenate stack hstack vstack clone copy copy_ _to_copy to contiguous index index_select gather
scatter scatter_ index_put index_put_ _unsafe_index roll flip repeat repeat_interleave pad constant_pad_nd
reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d tril
triu pixel_shuffle pixel_unshuffle channel_shuffle im2col col2im unfold_copy slice_scatter select_scatter
index_add index_add_ index_copy index_copy_ take take_along_dim tile rot90 expand_copy view_copy permute_copy
nonzero masked_select slice_copy select_copy _reshape_copy unfold masked_scatter index_fill diag_embed
block_diag max_unpool2d max_unpool3d _chunk_cat _unsafe_index_put _unsafe_masked_index as_strided_copy
squeeze_copy unsqueeze_copy transpose_copy t_copy unbind_copy split_with_sizes_copy diagonal_scatter
as_strided_scatter nonzero_static _pack_padded_sequence nll_loss_forward scatter_add scatter_reduce index_reduce
one_hot
"""
_FILL_NAMES = """
zeros ones full arange zeros_like ones_like full_like new_zeros new_ones new_full eye linspace scalar_tensor
fill fill_ zero_ rand randn randint rand_like randn_like tril_indices triu_indices uniform_ normal_
_efficientzerotensor hann_window randperm bernoulli exponential_ multinomial normal randint_like
affine_grid_generator logspace
"""
_REDUCTION_NAMES = """
sum mean amax amin max min argmax argmin prod any all std var var_mean std_mean norm linalg_vector_norm
logsumexp cumsum cumprod logcumsumexp cummax cummin topk sort argsort nansum count_nonzero median bincount
cumsum_ cosine_similarity searchsorted bucketize aminmax kthvalue mode nanmedian histc dist trace _unique2
unique_consecutive unique_dim allclose
"""
_ELEMENTWISE_NAMES = """
masked_fill masked_fill_ gelu silu mish softplus _prelu_kernel prelu hardswish hardsigmoid lerp glu threshold
abs copysign log_sigmoid_forward floor_divide eq ne lt le gt ge xlogy heaviside polar complex rrelu_with_noise
_add_relu isin fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask
quantize_per_tensor mse_loss smooth_l1_loss huber_loss binary_cross_entropy binary_cross_entropy_with_logits
linalg_cross addr _weight_norm_interface
"""
FREE = frozenset(_FREE_NAMES.split())
COPY = frozenset(_COPY_NAMES.split())
FILL = frozenset(_FILL_NAMES.split())
REDUCTION = frozenset(_REDUCTION_NAMES.split())
ELEMENTWISE = frozenset(_ELEMENTWISE_NAMES.split())


def shape(tensor: Any) -> tuple[int, ...]:
    """Return the tensor's shape as plain integers."""
    return tuple(tensor.shape)


def _conv(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> Work:
    transposed = bool(args[6]) if len(args) > 6 and isinstance(args[6], bool) else False
    if transposed:
        return _conv_transpose(args, kwargs, out)
    weight, output = shape(args[1]), shape(out)
    if len(output) == len(weight) - 1:
        output = (1, *output)
    depthwise = weight[1] == 1 and weight[0] > 1 and args[0].shape[-len(weight) + 1] > 1
    groups = max(args[0].shape[1 - len(weight)] // weight[1], 1) if weight[1] else 1
    extents = Extents(groups, output[0] * prod(output[2:]), weight[0] // groups, prod(weight[1:]))
    kind = "depthwise_conv" if depthwise else "conv"
    return Work(kind, ops.conv_macs(output, weight), extents=extents, variant=_variant(weight, args, kwargs, 5))


def _variant(weight: Sequence[int], args: Sequence[Any], kwargs: dict[str, Any], dilation: int) -> str:
    """Name the window of a convolution with the stride and dilation that are not 1; ``dilation`` is its position."""
    window = weight[2:]
    text = "x".join(map(str, window))
    for mark, position, name in (("/", 3, "stride"), ("d", dilation, "dilation")):
        given = args[position] if len(args) > position else kwargs.get(name, 1)
        steps = [given] if isinstance(given, int) else list(given)
        if any(s != 1 for s in steps):
            text += mark + "x".join(map(str, steps if len(set(steps)) > 1 else steps[:1]))
    return text


def _conv_transpose(args: Sequence[Any], kwargs: dict[str, Any], _out: Any) -> Work:
    weight, input_ = shape(args[1]), shape(args[0])
    if len(input_) == len(weight) - 1:
        input_ = (1, *input_)
    general = len(args) > 6 and isinstance(args[6], bool)
    position = 8 if general else 6
    groups = args[position] if len(args) > position else kwargs.get("groups", 1)
    extents = Extents(groups, input_[0] * prod(input_[2:]), prod(weight[1:]), weight[0] // groups)
    return Work(
        "conv_transpose",
        ops.conv_transpose_macs(input_, weight),
        extents=extents,
        variant=_variant(weight, args, kwargs, 5 if general else 7),
    )


def _linear(args: Sequence[Any], _kwargs: dict[str, Any], out: Any) -> Work:
    extents = Extents(1, prod(out.shape[:-1]), out.shape[-1], args[0].shape[-1])
    return Work("linear", ops.linear_macs(shape(out), args[0].shape[-1]), extents=extents)


def _product(position: int) -> Formula:
    def work(args: Sequence[Any], _kwargs: dict[str, Any], out: Any) -> Work:
        left, right = args[position], args[position + 1]
        inner = left.shape[-1] if left.dim() else 1
        stacked = right.dim() > 2 and out.dim() > 2
        n = out.shape[-1] if right.dim() > 1 and out.dim() else 1
        rows = prod(shape(out)) // max(n, 1)
        m = out.shape[-2] if stacked else rows
        extents = Extents(rows // max(m, 1), m, n, inner, "products" if stacked else "m")
        return Work("matmul", ops.matmul_macs(shape(out), inner), extents=extents)

    return work


def _grouped(args: Sequence[Any], _kwargs: dict[str, Any], out: Any) -> Work:
    """Count a product in groups, as experts run: each row meets the matrix of its own group alone."""
    left, right = args[:2]
    if left.dim() == 2 and right.dim() == 2:  # groups along the inner axis
        extents = Extents(1, left.shape[0], right.shape[1], left.shape[1])
    else:
        extents = Extents(1, prod(out.shape[:-1]), out.shape[-1], left.shape[-1])
    return Work("matmul", extents.m * extents.n * extents.k, note="all groups' matrices are read", extents=extents)


def _addbmm(args: Sequence[Any], _kwargs: dict[str, Any], _out: Any) -> Work:
    left, right = args[1], args[2]
    extents = Extents(left.shape[0], left.shape[1], right.shape[-1], left.shape[-1], "products")
    return Work("matmul", ops.matmul_macs((*left.shape[:-1], right.shape[-1]), left.shape[-1]), extents=extents)


def _outer(args: Sequence[Any], _kwargs: dict[str, Any], out: Any) -> Work:
    return Work("elementwise", 0, ops.elementwise_flops(shape(out)))


def _bilinear(args: Sequence[Any], _kwargs: dict[str, Any], out: Any) -> Work:
    features, in1, in2 = shape(args[2])
    return Work("linear", ops.bilinear_macs(prod(out.shape[:-1]), features, in1, in2))


def _attention(causal_position: int) -> Formula:
    def work(args: Sequence[Any], kwargs: dict[str, Any], _out: Any) -> Work:
        query, key, value = (shape(a) for a in args[:3])
        notes = ["scores stay on chip"]
        if kwargs.get("is_causal", len(args) > causal_position and args[causal_position] is True):
            notes.append("causal, counted in full")
        if len(query) > 2 and query[-3] != key[-3]:
            notes.append(f"grouped queries {query[-3]}:{key[-3]}")
        macs = ops.attention_macs(query, key, value)
        extents = Extents(prod(query[:-2]), query[-2], key[-2], query[-1] + value[-1], "products")
        return Work("attention", macs, ops.attention_softmax_flops(query, key), ", ".join(notes), extents)

    return work


def _recurrent(kind: str) -> Formula:
    def work(args: Sequence[Any], _kwargs: dict[str, Any], _out: Any) -> Work:
        packed = isinstance(args[1], torch.Tensor) and isinstance(args[3], list | tuple)
        params = args[3] if packed else args[2]
        steps = args[0].shape[0] if packed else prod(args[0].shape[:-1])
        matrices = [shape(p) for p in params if p.dim() == 2]
        cells = sum(1 for m in matrices if m[0] == matrices[0][0]) // 2
        hidden = matrices[0][0] // {"lstm": 4, "gru": 3, "rnn": 1}[kind]
        flops = ops.recurrent_gate_flops(kind, hidden, steps, cells)
        return Work("recurrent", ops.recurrent_macs(matrices, steps), flops, "weights read once per call")

    return work


def _norm(kind: str) -> Formula:
    def work(_args: Sequence[Any], _kwargs: dict[str, Any], out: Any) -> Work:
        first = out[0] if isinstance(out, tuple | list) else out
        return Work(kind, 0, ops.norm_flops(kind, shape(first)))

    return work


def _softmax(_args: Sequence[Any], _kwargs: dict[str, Any], out: Any) -> Work:
    return Work("softmax", 0, ops.softmax_flops(shape(out)))


def _pool(dims: int) -> Formula:
    def work(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> Work:
        first = out[0] if isinstance(out, tuple | list) else out
        kernel = args[1] if len(args) > 1 else kwargs["kernel_size"]
        sizes = [kernel] * dims if isinstance(kernel, int) else list(kernel)
        window = prod(sizes) if len(sizes) == dims else sizes[0] ** dims
        return Work("pool", 0, ops.pool_flops(shape(first), window))

    return work


def _adaptive_pool(args: Sequence[Any], _kwargs: dict[str, Any], _out: Any) -> Work:
    return Work("pool", 0, ops.reduction_flops(shape(args[0])))


def _interpolate(mode: str) -> Formula:
    def work(_args: Sequence[Any], _kwargs: dict[str, Any], out: Any) -> Work:
        return Work("interpolate", 0, ops.interpolate_flops(mode, shape(out)))

    return work


def _embedding(_args: Sequence[Any], _kwargs: dict[str, Any], _out: Any) -> Work:
    return Work("embedding", note="reads the rows looked up")


def _copy(_args: Sequence[Any], _kwargs: dict[str, Any], _out: Any) -> Work:
    return Work("copy")


def _fill(_args: Sequence[Any], _kwargs: dict[str, Any], _out: Any) -> Work:
    return Work("fill")


def _reduce(args: Sequence[Any], _kwargs: dict[str, Any], _out: Any) -> Work:
    return Work("reduction", 0, ops.reduction_flops(shape(args[0])))


def _elementwise(_args: Sequence[Any], _kwargs: dict[str, Any], out: Any) -> Work:
    first = out[0] if isinstance(out, tuple | list) else out
    return Work("elementwise", 0, ops.elementwise_flops(shape(first)) if isinstance(first, torch.Tensor) else 0)


def _unknown(_args: Sequence[Any], _kwargs: dict[str, Any], _out: Any) -> Work:
    return Work("unknown")


_NAMED: dict[str, Formula] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "_convolution"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv_transpose),
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "vdot", "_int_mm", "_scaled_mm"), _product(0)),
    **dict.fromkeys(("_weight_int8pack_mm", "_weight_int4pack_mm", "_weight_int4pack_mm_for_cpu"), _product(0)),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "_addmm_activation"), _product(1)),
    "addbmm": _addbmm,
    **dict.fromkeys(("_grouped_mm", "_scaled_grouped_mm"), _grouped),
    **dict.fromkeys(("outer", "ger"), _outer),
    "bilinear": _bilinear,
    "scaled_dot_product_attention": _attention(5),
    "_scaled_dot_product_flash_attention": _attention(4),
    "_scaled_dot_product_flash_attention_for_cpu": _attention(4),
    "_scaled_dot_product_efficient_attention": _attention(6),
    "_scaled_dot_product_cudnn_attention": _attention(6),
    "_scaled_dot_product_fused_attention_overrideable": _attention(6),
    "lstm": _recurrent("lstm"),
    "gru": _recurrent("gru"),
    **dict.fromkeys(("rnn_tanh", "rnn_relu"), _recurrent("rnn")),
    **dict.fromkeys(
        (
            "batch_norm",
            "native_batch_norm",
            "_native_batch_norm_legit_no_training",
            "_native_batch_norm_legit",
            "_batch_norm_with_update",
            "_batch_norm_no_update",
        ),
        _norm("batch_norm"),
    ),
    **dict.fromkeys(("layer_norm", "native_layer_norm"), _norm("layer_norm")),
    **dict.fromkeys(("group_norm", "native_group_norm", "instance_norm"), _norm("group_norm")),
    **dict.fromkeys(("rms_norm", "_fused_rms_norm"), _norm("rms_norm")),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax"), _softmax),
    **{f"{kind}_pool{d}d": _pool(d) for kind in ("max", "avg") for d in (1, 2, 3)},
    **{f"max_pool{d}d_with_indices": _pool(d) for d in (2, 3)},
    "max_pool1d_with_indices": _pool(1),
    **{f"fractional_max_pool{d}d": _pool(d) for d in (2, 3)},
    **{f"adaptive_{kind}_pool{d}d": _adaptive_pool for kind in ("max", "avg") for d in (1, 2, 3)},
    **{f"_adaptive_avg_pool{d}d": _adaptive_pool for d in (2, 3)},
    **{f"upsample_nearest{d}d": _interpolate("nearest") for d in (1, 2, 3)},
    **{f"_upsample_nearest_exact{d}d": _interpolate("nearest") for d in (1, 2, 3)},
    "_upsample_bicubic2d_aa": _interpolate("bicubic"),
    "grid_sampler_3d": _interpolate("trilinear"),
    "upsample_linear1d": _interpolate("linear"),
    "upsample_bilinear2d": _interpolate("bilinear"),
    "_upsample_bilinear2d_aa": _interpolate("bilinear"),
    "upsample_bicubic2d": _interpolate("bicubic"),
    "upsample_trilinear3d": _interpolate("trilinear"),
    "grid_sampler": _interpolate("bilinear"),
    "grid_sampler_2d": _interpolate("bilinear"),
    "embedding": _embedding,
    "embedding_bag": _embedding,
    "_embedding_bag": _embedding,
    "_embedding_bag_forward_only": _embedding,
}


_BY_KIND: tuple[tuple[frozenset[str], Formula], ...] = (
    (COPY, _copy),
    (FILL, _fill),
    (REDUCTION, _reduce),
    (ELEMENTWISE, _elementwise),
)


def base_name(func: OpOverload) -> str:
    """Return the operator's name without namespace and overload: ``conv2d`` for ``aten.conv2d.default``."""
    name: str = func._schema.name
    return name.rpartition("::")[2]


def formula_of(func: OpOverload) -> Formula | None:
    """Return the formula of an operator, or ``None`` where it has none of its own (free, composite or unknown)."""
    name = base_name(func)
    for candidate in (name, name.removesuffix("_")):
        if candidate in _NAMED:
            return _NAMED[candidate]
        for names, formula in _BY_KIND:
            if candidate in names:
                return formula
    if torch.Tag.pointwise in func.tags:
        return _elementwise
    return _reduce if torch.Tag.reduction in func.tags else None


def is_free(func: OpOverload) -> bool:
    """Tell whether an operator moves nothing by itself; a view that turns out to be a copy is told by its storage."""
    outside = func.namespace in {"prim", "profiler"}
    return bool(func.is_view) or outside or torch.Tag.inplace_view in func.tags or base_name(func) in FREE


def is_composite(func: OpOverload) -> bool:
    """Tell whether PyTorch itself runs the operator as a composition of others."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


UNKNOWN: Formula = _unknown
