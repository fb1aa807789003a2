"""What synthetic images are to have in common with their classes (theory.md 12.3; ledger of distillation D-05 to D-08,
D-15)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from tarot.distillation.teacher import Seen

Loss = Literal["squared", "released", "sre2l"]


@dataclass(frozen=True, eq=False)
class Aim:
    """What k classes of m images each are to be like. atoms: [k, m, d]. weights: [k, m], of sum 1 in each class.
    labels: int64 [k]. means, variances: [k, channels] by BatchNorm layer; the same for all classes where they are the
    teacher's own."""

    atoms: Tensor
    weights: Tensor
    labels: Tensor
    means: Mapping[str, Tensor]
    variances: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Parts:
    """features, cross_entropy, statistics: what each costs, unweighted; scalars with gradients. by_class: of the
    squared loss, what each class costs in features and in statistics, [k, 2]."""

    features: Tensor
    cross_entropy: Tensor
    statistics: Tensor
    by_class: Tensor | None = None


def class_moments(seen: Seen, weights: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Weighted mean and variance over a class's images and positions, [k, channels] each, by layer; what lies between
    images counts."""
    k, m = weights.shape
    found = {}
    for name, of_image in seen.means.items():
        means = of_image.view(k, m, -1)
        squares = seen.variances[name].view(k, m, -1) + means.square()
        w = weights[:, :, None].to(means.dtype)
        mean = (w * means).sum(dim=1)
        found[name] = mean, (w * squares).sum(dim=1) - mean.square()
    return found


def squared(seen: Seen, aim: Aim) -> Parts:
    """The paper's: squared distances, summed over classes, images and layers; every class by itself."""
    k, m = aim.weights.shape
    features = (seen.features.view(k, m, -1) - aim.atoms).square().sum(dim=(1, 2))
    statistics = features.new_zeros(k)
    for name, (mean, variance) in class_moments(seen, aim.weights).items():
        statistics = statistics + (mean - aim.means[name]).square().sum(dim=1)
        statistics = statistics + (variance - aim.variances[name]).square().sum(dim=1)
    by_class = torch.stack([features, statistics], dim=1).detach()
    return Parts(features.sum(), features.new_zeros(()), statistics.sum(), by_class)


def released(seen: Seen, aim: Aim) -> Parts:
    """The released code's: the norm of the whole batch, distances that are not squared and averaged over classes, and a
    cross-entropy (D-06, D-07); images count alike (D-08)."""
    k, m = aim.weights.shape
    features = (seen.features.view(k, m, -1) - aim.atoms).norm()
    alike = torch.full_like(aim.weights, 1 / m)
    statistics = features.new_zeros(())
    for name, (mean, variance) in class_moments(seen, alike).items():
        statistics = statistics + (mean - aim.means[name]).norm(dim=1).mean()
        statistics = statistics + (variance - aim.variances[name]).norm(dim=1).mean()
    return Parts(features, _cross_entropy(seen, aim), statistics)


def sre2l(seen: Seen, aim: Aim, first_layer: float) -> Parts:
    """SRe2L's: cross-entropy, and the teacher's running statistics for the batch as a whole; no atoms. first_layer: how
    often the first layer counts."""
    k, m = aim.weights.shape
    alike = aim.weights.new_full((1, k * m), 1 / (k * m))
    statistics = seen.features.new_zeros(())
    for number, (name, (mean, variance)) in enumerate(class_moments(seen, alike).items()):
        gap = (mean[0] - aim.means[name][0]).norm() + (variance[0] - aim.variances[name][0]).norm()
        statistics = statistics + gap * (first_layer if number == 0 else 1)
    return Parts(seen.features.new_zeros(()), _cross_entropy(seen, aim), statistics)


def _cross_entropy(seen: Seen, aim: Aim) -> Tensor:
    return functional.cross_entropy(seen.logits, aim.labels.repeat_interleave(aim.weights.shape[1]))
