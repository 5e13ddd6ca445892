"""The schema of fitted kernel models: what a runtime's kernels take on a machine, with the error of the fit."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Format = Literal["fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8", "int4", "fp4"]
OpClass = Literal[
    "conv",
    "depthwise_conv",
    "conv_transpose",
    "linear",
    "matmul",
    "attention",
    "recurrent",
    "elementwise",
    "softmax",
    "norm",
    "pool",
    "reduction",
    "interpolate",
    "embedding",
    "copy",
    "transition",
]
OP_CLASSES: tuple[str, ...] = get_args(OpClass)
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
_FEATURES = 8


class Frozen(BaseModel):
    """Data that nothing changes and that knows all its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KernelForm(Frozen):
    """The parameters of one model of time; :func:`roofline.kernels.predict` states the formula.

    Attributes:
        rate_flops_per_s: Compute rate that large kernels approach; ``None`` where bytes alone decide.
        bandwidth_bytes_per_s: Rate at which tensors are read and written.
        overlap: Share of the shorter of compute and memory time that hides behind the longer.
        start_s: Fixed time on the device before the work.
        dispatch_s: Time in which the host issues one kernel: no kernel takes less.
        half_m: Rows of the product [M, K] @ [K, N] at which half of the rate is reached; 0 for none.
        half_n: The same for columns.
        half_k: The same for the reduction.
        burst_gain: How much faster than the rate short kernels compute (0.5: 1.5 times), before clocks fall.
        burst_s: Compute time at which half of that gain is left.
        column_s: Time per column of a batched product whose columns run one after another; the kernel takes no less.
        reread_share: Share of the bytes that a row too long for its cache moves once more.
        reread_length: Values in a row from which that begins; at twice as many all rows pay it.
        cache_bytes: First bytes of a kernel that move at the cache's rate.
        cache_bandwidth_bytes_per_s: That rate.
    """

    rate_flops_per_s: Positive | None = None
    bandwidth_bytes_per_s: Positive
    overlap: Share = 1.0
    start_s: NotNegative = 0.0
    dispatch_s: NotNegative = 0.0
    half_m: NotNegative = 0.0
    half_n: NotNegative = 0.0
    half_k: NotNegative = 0.0
    burst_gain: NotNegative = 0.0
    burst_s: Positive | None = None
    column_s: NotNegative = 0.0
    reread_share: NotNegative = 0.0
    reread_length: Positive | None = None
    cache_bytes: NotNegative = 0.0
    cache_bandwidth_bytes_per_s: Positive | None = None

    @model_validator(mode="after")
    def _pairs_are_whole(self) -> KernelForm:
        for amount, other in (
            ("burst_gain", "burst_s"),
            ("reread_share", "reread_length"),
            ("cache_bytes", "cache_bandwidth_bytes_per_s"),
        ):
            if getattr(self, amount) and getattr(self, other) is None:
                raise ValueError(f"{amount} needs {other}")
        inner = self.cache_bandwidth_bytes_per_s
        if inner is not None and inner < self.bandwidth_bytes_per_s:
            raise ValueError("cache_bandwidth_bytes_per_s must be at least bandwidth_bytes_per_s")
        return self


class Correction(Frozen):
    """How measured kernels differ from the form, as a smooth function of their features.

    ``Σ weights[i] · exp(−|f − points[i]|² / (2 length²))``, a factor's logarithm
    (:func:`roofline.kernels.corrected`).

    Attributes:
        length: Distance over which kernels have much the same factor.
        points: Features of measured kernels (:func:`roofline.kernels.features`).
        weights: One for each.
    """

    length: Positive
    points: Annotated[tuple[tuple[Finite, ...], ...], Field(min_length=1)]
    weights: tuple[Finite, ...]

    @model_validator(mode="after")
    def _shapes_agree(self) -> Correction:
        if len(self.points) != len(self.weights) or {len(point) for point in self.points} != {_FEATURES}:
            raise ValueError(f"correction needs one weight for each point, and points of {_FEATURES} features")
        return self


class FitError(Frozen):
    """How far the model is from measured times of rows that it was not fitted on.

    Attributes:
        method: ``held-out`` (a test set apart), ``leave-one-out`` or ``k-fold``.
        rows: Rows that were predicted.
        mean_ape: Mean of |predicted / measured − 1|.
        median_ape: Median of the same.
        p90_ape: 90th percentile of the same.
        interval: Factors on a prediction between which 90 % of measured times are to lie (conformal), at
            ``typical_s``; ``None`` below nine fitted rows, which cannot tell.
        typical_s: Predicted time at which these factors hold.
        taper: How fast the interval narrows with the predicted time ``t``: the factors' logarithms are multiplied by
            ``(t / typical_s) ** -taper``, within a third and three times. 0: the same at any size.
        coverage: Share of the predicted rows that did lie between them.
    """

    method: Literal["held-out", "leave-one-out", "k-fold"]
    rows: Annotated[int, Field(ge=1)]
    mean_ape: NotNegative
    median_ape: NotNegative
    p90_ape: NotNegative
    interval: tuple[Positive, Positive] | None = None
    typical_s: Positive | None = None
    taper: Annotated[float, Field(ge=0, le=2)] = 0.0
    coverage: Share | None = None

    @model_validator(mode="after")
    def _interval_has_order(self) -> FitError:
        if self.interval and not self.interval[0] <= 1.0 <= self.interval[1]:
            raise ValueError(f"interval must hold 1 between its ends, got {list(self.interval)}")
        if self.taper and self.typical_s is None:
            raise ValueError("taper needs typical_s")
        return self


class KernelModel(Frozen):
    """A fitted model of time of one class of ops in some formats on one runtime.

    Attributes:
        runtime: ``eager``, ``onnxruntime``, ``openvino``, ``torch-compile``, …
        op: Class of ops.
        formats: Formats of the operands; of a transition, those it converts between.
        variants: Windows of convolutions that were measured (``3x3``, ``1x1/2``: stride 2, ``3x3d2``: dilation 2);
            empty where the class has none, or any will do. Of a transition: ``conv`` with a convolution at either end,
            which may change the layout as well, ``pixel`` where its samples have one pixel that is
            narrowed, and ``other``.
        traffic: Whether the rows were single ops (``unfused``) or what the runtime fuses (``fused``).
        rounded: Whether these kernels round their result, for matrix work that alone reads it; ``None`` for both.
        form: The parameters.
        correction: How kernels differ from the form by their sizes.
        rows: Rows fitted.
        span: Least and greatest FLOPs of these rows; of a model without a compute rate, bytes.
        error: The error on rows that were not fitted.
        source: Where the measured times come from.
        date: When they were taken or read, YYYY-MM-DD.
        versions: Versions of what ran them.
        note: What a reader must know; explains a rate above the machine's peak.
    """

    runtime: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    op: OpClass
    formats: Annotated[tuple[Format, ...], Field(min_length=1)]
    variants: tuple[str, ...] = ()
    traffic: Literal["unfused", "fused"] = "fused"
    rounded: bool | None = None
    form: KernelForm
    correction: Correction | None = None
    rows: Annotated[int, Field(ge=1)]
    span: tuple[NotNegative, NotNegative]
    error: FitError
    kind: Literal["measured"] = "measured"
    source: Annotated[str, Field(min_length=8)]
    date: Annotated[str, Field(pattern=r"^(19|20)\d\d-\d\d-\d\d$")]
    versions: dict[str, str] = Field(default_factory=dict)
    note: str = ""

    @model_validator(mode="after")
    def _span_has_order(self) -> KernelModel:
        if self.span[0] > self.span[1]:
            raise ValueError(f"span must run from the least to the greatest, got {list(self.span)}")
        return self

    @property
    def label(self) -> str:
        """Class, formats and variants: ``conv fp32 3x3``."""
        ending = () if self.rounded is None else ("rounded",) if self.rounded else ("not rounded",)
        return " ".join((self.op, "/".join(self.formats), *self.variants, *ending))
