"""The embedded task: scikit-learn's 1,797 handwritten digits, 8x8, and a perceptron that trains in a second."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

from tarot.common import Count, checked
from tasks.classification.domain_task import DomainTask
from tasks.classification.images import ImageSet
from tasks.classification.models import perceptron

TEST_SHARE = 0.25


@cache
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [1797, 1, 8, 8] and their labels, parsed once for all seeds of a process. Nobody writes into them."""
    bundle = load_digits()
    images = (bundle.images * (255 / 16)).round().astype(np.uint8)[:, None]
    labels = bundle.target.astype(np.int64)
    for array in (images, labels):
        array.flags.writeable = False
    return images, labels


class Digits(DomainTask):
    """hidden: widths of the perceptron's hidden layers. network: another one, by name (`networks.network`)."""

    classes = tuple("0123456789")

    @checked("task")
    def __init__(self, *, hidden: Sequence[Count] = (128, 64), network: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.hidden = tuple(hidden)
        self.network = network

    def pools(self) -> tuple[ImageSet, ImageSet]:
        images, labels = _digits()
        ids = np.array([f"digit-{i:04d}" for i in range(len(images))])
        everything = ImageSet(images, labels, ids, np.full(len(ids), ""), mean=(0.305,), std=(0.376,))
        order = np.random.default_rng(0).permutation(len(everything))  # which digits are for testing, for all seeds
        cut = int(TEST_SHARE * len(everything))
        return everything.take(order[cut:]), everything.take(order[:cut])

    def model_recipe(self) -> dict[str, Any]:
        if self.network is not None:
            return {"kind": self.network}
        return {"kind": "perceptron", "hidden": list(self.hidden)}

    def model(self) -> nn.Module:
        if self.network is not None:
            return self.built(self.network)
        return perceptron(64, self.hidden, len(self.classes))
