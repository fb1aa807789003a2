"""The distance everything is measured in: Euclidean between rows; d_w = sqrt(2 - 2 cos) where they have unit norm."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALL = 10_000_000  # multiplications
_CANCELLATION = 1e-3  # where d^2 < 1e-3 (|x|^2 + |y|^2), the expansion of |x - y|^2 has lost three digits of float32


def distances(x: Tensor, y: Tensor) -> Tensor:
    """||x_i - y_j||, float32 [n, m], of x [n, d] and y [m, d].

    Computed as |x|^2 + |y|^2 - 2 x.y, one matrix product; pairs so close that this cancels are recomputed as the norm
    of their difference, so a row is at distance exactly 0 from its copy (ledger L-16, L-17). Small problems, where it
    costs nothing, are computed in float64.
    """
    if len(x) * len(y) * x.shape[1] <= _SMALL:
        return torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist").float()
    scale = x.square().sum(1)[:, None] + y.square().sum(1)
    squared = torch.addmm(scale, x, y.T, alpha=-2)
    i, j = (squared < _CANCELLATION * scale).nonzero(as_tuple=True)
    distance = squared.clamp_(min=0).sqrt_()
    for part in range(0, len(i), 1 << 16):
        rows, columns = i[part : part + (1 << 16)], j[part : part + (1 << 16)]
        distance[rows, columns] = (x[rows] - y[columns]).norm(dim=1)
    return distance
