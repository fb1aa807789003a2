"""A small network with BatchNorm, and images of three classes for it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

MEAN, STD = (0.4,), (0.3,)


def network(classes=3, channels=1, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, classes),
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def pool(n=24, classes=3, seed=0):
    """uint8 [n, 1, 8, 8], each class brighter than the one before it, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    images = rng.integers(0, 120, (n, 1, 8, 8)) + 45 * labels[:, None, None, None]
    return images.astype(np.uint8), labels


def normalised(images):
    return (torch.from_numpy(images).float() / 255 - MEAN[0]) / STD[0]
