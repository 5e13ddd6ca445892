"""Analytical roofline model: a model's operators, a machine and a scheme in; each layer's bound and latency out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roofline.estimate import estimate
from roofline.graph import Op, OpGraph, TensorSpec
from roofline.precision import LayerPrecision, Precision
from roofline.result import GraphEstimate, LayerEstimate, Transition
from roofline.scheme import Rule, Scheme
from roofline.table import CostTable, SchemeScores
from roofline.traffic import TRAFFIC_MODELS

if TYPE_CHECKING:
    from roofline.frontends._onnx import read_onnx
    from roofline.frontends._trace import trace

__all__ = [
    "TRAFFIC_MODELS",
    "CostTable",
    "GraphEstimate",
    "LayerEstimate",
    "LayerPrecision",
    "Op",
    "OpGraph",
    "Precision",
    "Rule",
    "Scheme",
    "SchemeScores",
    "TensorSpec",
    "Transition",
    "estimate",
    "read_onnx",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name == "trace":
        from roofline.frontends._trace import trace

        return trace
    if name == "read_onnx":
        from roofline.frontends._onnx import read_onnx

        return read_onnx
    raise AttributeError(f"module 'roofline' has no attribute {name!r}")
