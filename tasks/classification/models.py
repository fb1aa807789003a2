"""The classifiers: a perceptron and a small convolutional network, and the ResNet-9 that TRAK is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


def perceptron(inputs: int, hidden: Sequence[int], classes: int) -> nn.Sequential:
    """Fully connected layers with ReLU between them."""
    sizes = [inputs, *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for width, next_width in pairwise(sizes):
        layers += [nn.Linear(width, next_width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))


def convnet(classes: int, widths: Sequence[int] = (16, 32), channels: int = 1) -> nn.Sequential:
    """Blocks of a 3x3 convolution, BatchNorm, ReLU and 2x2 mean pooling, one for each width; then the mean over the
    image and a linear layer."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([channels, *widths]):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.AvgPool2d(2),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))


class Residual(nn.Module):
    """x + f(x)"""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Scale(nn.Module):
    """A constant factor; tames the logits of a network that ends in no normalisation."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def resnet9(classes: int = 10, width: int = 64, channels: int = 3) -> nn.Sequential:
    """ResNet-9 as in "TRAK: Attributing Model Behavior at Scale" (Park et al. 2023): 2.27M parameters at width 64."""

    def block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    w = width
    return nn.Sequential(
        block(channels, w),
        block(w, 2 * w, kernel=5, stride=2, padding=2),
        Residual(block(2 * w, 2 * w), block(2 * w, 2 * w)),
        block(2 * w, 4 * w),
        nn.MaxPool2d(2),
        Residual(block(4 * w, 4 * w), block(4 * w, 4 * w)),
        block(4 * w, 2 * w, padding=0),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * w, classes, bias=False),
        Scale(0.2),
    )
