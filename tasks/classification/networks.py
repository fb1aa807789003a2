"""Classifiers by name: ours with their widths in it, or any of torchvision's."""

from __future__ import annotations

import re

from torch import nn

from tarot import InputError
from tasks.classification.models import convnet, perceptron, resnet9

_OURS = re.compile(r"(perceptron|convnet|resnet9)((?:-\d+)+)")


def network(name: str, classes: int, channels: int, size: int) -> nn.Module:
    """A fresh network for images of `size` x `size` pixels: `perceptron-128-64`, `convnet-16-32` (a width for each
    layer) or `resnet9-16` (the width of its first layer), or one that torchvision has by this name, without weights.

    Raises InputError where there is none, or it cannot be made for so many channels.
    """
    ours = _OURS.fullmatch(name)
    if ours is None:
        return _of_torchvision(name, classes, channels)
    widths = [int(width) for width in ours[2].split("-")[1:]]
    if min(widths) < 1:
        raise InputError(f"the network {name} has a layer of width 0")
    if ours[1] == "perceptron":
        return perceptron(channels * size * size, widths, classes)
    if ours[1] == "convnet":
        if size < 2 ** len(widths):
            raise InputError(
                f"the network {name} halves its images {len(widths)} times, and they are {size} pixels wide"
            )
        return convnet(classes, widths, channels)
    if len(widths) > 1:
        raise InputError(f"the network {name} has one width, that of its first layer: resnet9-{widths[0]}")
    return resnet9(classes, widths[0], channels)


def _of_torchvision(name: str, classes: int, channels: int) -> nn.Module:
    from torchvision import models  # takes seconds to import

    if name not in models.list_models(module=models):
        raise InputError(
            f"there is no network {name!r}: it is perceptron-128-64, convnet-16-32 or resnet9-16 (with widths of your "
            "choice), or a classifier of torchvision's such as resnet18"
        )
    if channels != 3:
        raise InputError(f"torchvision's {name} takes images of 3 channels, and these have {channels}")
    model: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    return model
