"""Figures that the paper states, each with its place in it, to be set beside what is measured here.

Source: T. Singh, S. Rajan and N. Jain, "Arithmetic-Intensity-Aware Quantization".
"""

from __future__ import annotations

from dataclasses import dataclass

TITLE = "Singh, Rajan and Jain, Arithmetic-Intensity-Aware Quantization"
LAMBDA = 0.9
"""Section II: λ of all experiments."""
MACHINE = "t4"
"""Section II: the NVIDIA T4 of the ResNet-20 experiments."""
TEST_IMAGES = 10_000
"""Images of CIFAR-10's test set, which the accuracies are said to be of."""


@dataclass(frozen=True, slots=True)
class PaperScheme:
    """One row of Fig. 4: ResNet-20 on CIFAR-10.

    Attributes:
        config: Name of the scheme.
        accuracy: Test accuracy, percent.
        change: Of the accuracy against FP32, percentage points.
        intensity: Arithmetic intensity, FLOP/byte.
        intensity_change: Of the intensity against FP32, percent.
        four: Layers with 4-bit weights.
        eight: Layers with 8-bit weights.
    """

    config: str
    accuracy: float
    change: float
    intensity: float
    intensity_change: float
    four: int
    eight: int


FIGURE_4 = {
    row.config: row
    for row in (
        PaperScheme("FP32", 91.92, 0.00, 29.85, 0.0, 0, 0),
        PaperScheme("INT8", 91.96, +0.04, 42.30, 41.7, 0, 20),
        PaperScheme("INT4", 89.94, -1.98, 45.46, 52.3, 20, 0),
        PaperScheme("greedy", 91.02, -0.90, 45.25, 51.6, 12, 8),
        PaperScheme("coordinate", 90.99, -0.93, 45.30, 51.8, 14, 6),
    )
}
"""Fig. 4. That the uniform schemes quantize 20 layers follows from their intensities: the two shortcuts stay FP32."""


@dataclass(frozen=True, slots=True)
class PaperThroughput:
    """One row of section III-D: MobileNetV2 on CIFAR-10, on an Intel Xeon with 2 virtual CPUs.

    Attributes:
        config: Name of the scheme.
        accuracy: Test accuracy, percent.
        images_per_s: Throughput, by wall-clock timing.
        eight: INT8 layers.
    """

    config: str
    accuracy: float
    images_per_s: float
    eight: int


THROUGHPUT = (
    PaperThroughput("FP32", 82.05, 1396.5, 0),
    PaperThroughput("AIQ greedy, 12 layers", 81.11, 2320.6, 12),
    PaperThroughput("12 random layers", 81.72, 2170.1, 12),
)
"""Section III-D. It states neither strides nor batch size, nor what was run beside PyTorch."""


@dataclass(frozen=True, slots=True)
class PaperLayer:
    """One row of Table I.

    Attributes:
        name: As the table writes it; its ``1.0e1`` is read as ``layer1.0.conv1``.
        layer: The layer of the zoo's network.
        eight: Sensitivity at 8 bits; the table states neither unit nor sign.
        four: Sensitivity at 4 bits.
        bits: Final bit-width of the weights.
    """

    name: str
    layer: str
    eight: float
    four: float
    bits: int


def _plain(name: str, eight: float, four: float, bits: int) -> PaperLayer:
    return PaperLayer(name, name if name == "cls" else f"features.{name[1:]}", eight, four, bits)


def _heavy(name: str, eight: float, four: float, bits: int) -> PaperLayer:
    known = {"c1": "conv1", "lin": "linear"}
    return PaperLayer(name, known.get(name) or f"layer{name[:3]}.conv{name[4]}", eight, four, bits)


TABLE_I = {
    "heavy_early_resnet20": (
        _heavy("c1", 0.02, -0.05, 32),
        _heavy("1.0e1", -0.01, 0.04, 4),
        _heavy("1.0e2", -0.01, -0.08, 4),
        _heavy("1.1e1", 0.01, -0.04, 4),
        _heavy("1.1e2", 0.00, -0.01, 4),
        _heavy("1.2e1", -0.01, 0.02, 4),
        _heavy("1.2e2", 0.00, 0.01, 4),
        _heavy("2.0e1", -0.02, -0.01, 4),
        _heavy("3.2e1", 0.02, -0.08, 32),
        _heavy("2.0e2", 0.00, -0.14, 4),
        _heavy("2.1e1", -0.01, 0.04, 4),
        _heavy("lin", 0.00, 0.06, 32),
    ),
    "plain_convnet20": (
        _plain("cls", -0.02, 0.00, 32),
        _plain("f0", 0.02, 0.03, 32),
        _plain("f3", -0.04, 0.20, 32),
        _plain("f6", 0.00, -0.07, 4),
        _plain("f9", 0.00, -0.04, 4),
        _plain("f12", 0.04, -0.07, 4),
        _plain("f15", 0.04, -0.03, 4),
        _plain("f18", -0.01, 0.00, 4),
        _plain("f21", 0.00, -0.04, 32),
        _plain("f24", 0.02, 0.15, 4),
        _plain("f27", 0.02, -0.02, 4),
        _plain("f30", -0.01, -0.01, 32),
        _plain("f33", 0.00, 0.03, 4),
        _plain("f36", -0.01, -0.16, 4),
        _plain("f39", -0.01, 0.09, 4),
        _plain("f42", -0.01, -0.05, 32),
        _plain("f45", 0.01, 0.06, 32),
        _plain("f48", 0.00, -0.08, 32),
        _plain("f51", -0.01, -0.02, 32),
        _plain("f54", 0.00, -0.06, 4),
        _plain("f57", 0.01, 0.01, 4),
    ),
}
"""Table I, in its order. Of the heavy-early network it lists 12 of 20 layers."""
