"""What a teacher's BatchNorm layers see of each class: mean and variance per channel (theory.md 12.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tarot.common import InputError
from tarot.distillation.teacher import Seen, batch_norms, watched


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """counts: images of each class, int64 [C]. means, variances: of the input of each BatchNorm layer over all images
    of a class and all positions, float64 [C, channels] by the layer's name; variances are biased and include what lies
    between images."""

    counts: NDArray[np.int64]
    means: dict[str, Tensor]
    variances: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Survey:
    """features: float32 [n, d]. statistics: of every class."""

    features: NDArray[np.float32]
    statistics: ClassStatistics


def class_statistics(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], classes: int | Sequence[str]
) -> ClassStatistics:
    """The statistics of every class over all images; batches of (images [B, channels, H, W], labels int64 [B]).

    classes: how many, or their names, for errors. Raises as `surveyed` does.
    """
    return surveyed(model, batches, classes).statistics


def surveyed(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], classes: int | Sequence[str]) -> Survey:
    """Features and statistics in one pass, merged over batches in float64 (Chan, Golub and LeVeque, 1983): how images
    were batched does not matter.

    Raises InputError for a class without images, a label outside 0..C-1, a model without BatchNorm layers or with one
    that is used twice, and numbers that are not finite.
    """
    names = [str(number) for number in range(classes)] if isinstance(classes, int) else list(classes)
    merged = {name: _Moments.nothing(len(names), norm.num_features) for name, norm in batch_norms(model).items()}
    counts = np.zeros(len(names), dtype=np.int64)
    features: list[Tensor] = []
    with watched(model) as see, torch.no_grad():
        for images, labels in batches:
            _check_labels(labels, names, len(features))
            seen = see(images)
            _check_finite(seen, int(counts.sum()))
            for number in labels.unique().tolist():
                which = labels == number
                counts[number] += int(which.sum())
                for name, moments in merged.items():
                    if name in seen.means:
                        moments.add(number, seen.means[name][which], seen.variances[name][which])
            features.append(seen.features.float().cpu())
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        raise InputError(f"class {names[empty[0]]} has no image")
    used = {name: moments for name, moments in merged.items() if moments.images.any()}
    statistics = ClassStatistics(
        counts,
        {name: moments.mean for name, moments in used.items()},
        {name: moments.squares / moments.images[:, None] for name, moments in used.items()},
    )
    return Survey(torch.cat(features).numpy(), statistics)


@dataclass(frozen=True, eq=False)
class _Moments:
    """Of one layer: images counted [C], running mean [C, channels], sum of squares about it in units of images."""

    images: Tensor
    mean: Tensor
    squares: Tensor

    @classmethod
    def nothing(cls, classes: int, channels: int) -> _Moments:
        zero = torch.zeros(classes, channels, dtype=torch.float64)
        return cls(torch.zeros(classes, dtype=torch.float64), zero, zero.clone())

    def add(self, number: int, means: Tensor, variances: Tensor) -> None:
        """And the images of one class in a batch: means and variances over positions, [b, channels]."""
        means, variances = means.double().cpu(), variances.double().cpu()
        before, new = float(self.images[number]), len(means)
        mean = means.mean(dim=0)
        squares = variances.sum(dim=0) + (means - mean).square().sum(dim=0)
        step = mean - self.mean[number]
        self.images[number] += new
        self.mean[number] += step * new / (before + new)
        self.squares[number] += squares + step.square() * before * new / (before + new)


def _check_labels(labels: Tensor, names: Sequence[str], batch: int) -> None:
    wrong = labels[(labels < 0) | (labels >= len(names))]
    if len(wrong):
        raise InputError(f"labels must be 0 to {len(names) - 1}; batch {batch} has the label {int(wrong[0])}")


def _check_finite(seen: Seen, start: int) -> None:
    bad = ~torch.isfinite(seen.features).all(dim=1)
    if bad.any():
        raise InputError(f"the features of image {start + int(bad.nonzero()[0, 0])} are not finite")
