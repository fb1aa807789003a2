"""The distance everything is measured in: Euclidean between rows; d_w = sqrt(2 - 2 cos) where they have unit norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tarot.common import products_in

SMALL = 10_000_000  # multiplications
_LEAST = 2.0**-40  # of numbers whose squares, and those of what is much smaller, are far from the ends of float32
_CANCELLATION = 1e-3  # where d^2 < 1e-3 (|x|^2 + |y|^2), the expansion of |x - y|^2 has lost three digits of float32
FEWEST = 4  # rows of a product: for fewer BLAS has other kernels, which round otherwise
SMALL_ROW = SMALL // 4096  # multiplications for one row, up to which `row_distances` takes float64
BLOCK = 1 << 22  # pairs at a time: the passes after the matrix product then run in cache


def distances(x: Tensor, y: Tensor) -> Tensor:
    """||x_i - y_j||, float32 [n, m], of x [n, d] and y [m, d], on whose device it is.

    Computed as |x|^2 + |y|^2 - 2 x.y, one matrix product; pairs so close that this cancels are recomputed as the norm
    of their difference, so a row is at distance exactly 0 from its copy (ledger L-16, L-17). Small problems, where it
    costs nothing, are computed in float64.
    """
    if len(x) * len(y) * x.shape[1] <= SMALL:
        return torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist").float()
    scale = _scale(x, y)
    if scale != 1:
        return distances(x / scale, y / scale).mul_(scale)
    return _by_products(x, y)


def row_distances(x: Tensor, y: Tensor) -> Tensor:
    """`distances` whose rows do not depend on which rows they are computed with, to the last bit: where several workers
    ask for some of them, each may ask for others. Rows have about unit norm."""
    each = len(y) * x.shape[1]
    if each <= SMALL_ROW:
        return torch.cat([distances(part, y) for part in x.split(4096)])
    return _by_products(enough_rows(x), y, FEWEST)[: len(x)]


def enough_rows(x: Tensor) -> Tensor:
    """The rows x [n, d], with zero rows after them where they are fewer than FEWEST."""
    missing = FEWEST - len(x)
    return x if missing <= 0 else torch.cat([x, x.new_zeros(missing, x.shape[1])])


def _scale(*sides: Tensor) -> float:
    """1, or a power of two by which rows are divided whose squares would leave float32."""
    largest = float(torch.stack([end.abs() for rows in sides for end in rows.aminmax()]).max())
    if largest == 0 or _LEAST < largest < 1 / _LEAST:
        return 1.0
    return 2.0 ** math.floor(math.log2(largest))


def _by_products(x: Tensor, y: Tensor, fewest: int = 1) -> Tensor:
    """float32 [n, m], a block of at least `fewest` rows of x at a time; n is no less."""
    result, y_squared = x.new_empty(len(x), len(y)), y.square().sum(1)
    starts = range(0, len(x) - fewest + 1, max(fewest, BLOCK // len(y)))
    for start, end in zip(starts, [*starts[1:], len(x)], strict=True):
        _fill(result[start:end], x[start:end], y, y_squared)
    return result


def _fill(distance: Tensor, x: Tensor, y: Tensor, y_squared: Tensor) -> None:
    scale = x.square().sum(1)[:, None] + y_squared
    with products_in("ieee", x.device):
        torch.addmm(scale, x, y.T, alpha=-2, out=distance)
    i, j = (distance < scale.mul_(_CANCELLATION)).nonzero(as_tuple=True)
    distance.clamp_(min=0).sqrt_()
    for pairs in zip(i.split(1 << 16), j.split(1 << 16), strict=True):
        distance[pairs] = (x[pairs[0]] - y[pairs[1]]).norm(dim=1)
