"""CIFAR-10 with the ResNet-9 that TRAK is measured on."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from tarot.common import Count, checked
from tasks.classification.cifar10_files import CLASSES, Arrays, load_cifar10
from tasks.classification.domain_task import DomainTask
from tasks.classification.images import ImageSet
from tasks.classification.models import resnet9

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class CIFAR10(DomainTask):
    """width: channels of ResNet-9's first layer; 64 is the paper's, with 2.27M parameters. network: another
    one, by name (`networks.network`)."""

    classes = CLASSES

    @checked("task")
    def __init__(self, *, width: Count = 64, network: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.width = width
        self.network = network

    def pools(self) -> tuple[ImageSet, ImageSet]:
        arrays = load_cifar10(self.data_dir, self.cache_dir)  # not kept: the splits hold what they need of it
        return _pool(arrays, "train"), _pool(arrays, "test")

    @cached_property
    def _content(self) -> str:
        return str(load_cifar10(self.data_dir, self.cache_dir)["sha256"])

    def source(self) -> str:
        return self._content

    def model_recipe(self) -> dict[str, Any]:
        if self.network is not None:
            return {"kind": self.network}
        return {"kind": "resnet9", "width": self.width}

    def model(self) -> nn.Module:
        if self.network is not None:
            return self.built(self.network)
        return resnet9(len(CLASSES), self.width)


def _pool(arrays: Arrays, part: str) -> ImageSet:
    images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    ids = np.array([f"{part}-{i:05d}" for i in range(len(labels))])
    return ImageSet(images, labels, ids, np.full(len(ids), ""), MEAN, STD)
