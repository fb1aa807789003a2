"""Mean and covariance of rows read by blocks, the ridge of it, and the root that whitens."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from tarot.common import CPU, InputError
from tarot.features import Rows, block_size, blocks
from tarot.space.norm import RowMap

LARGEST_RIDGE = 1e6  # relative to the mean variance: nothing is left of the covariance
FEW, MOST = 0.01, 0.5  # of the rows, of the trace: a warning where so few make up so much


def is_zero(block: Tensor) -> Tensor:
    """Which rows of a block [b, d] are zero, bool [b]."""
    zero: Tensor = torch.linalg.vector_norm(block, dim=1) == 0  # 20x as fast as a maximum
    if zero.any():  # squares may underflow, so look again
        zero[zero.clone()] = (block[zero] == 0).all(dim=1)
    return zero


def usable_blocks(
    sources: Mapping[str, Rows], prepare: RowMap, device: torch.device = CPU
) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows as they are, rows prepared) of each block of all sources, without zero rows; empty blocks are skipped.
    Raises InputError, at the end, where nothing is left."""
    found = False
    for name, rows in sources.items():
        for _, block in blocks(rows, block_size(rows.shape[1]) // 4, name, device):
            zero = is_zero(block)
            usable = block[~zero] if zero.any() else block
            if len(usable):
                found = True
                yield usable, prepare(usable)
    if not found:
        raise InputError(f"{' and '.join(sources)} hold only zero rows")


def mean_of(sources: Mapping[str, Rows], prepare: RowMap, device: torch.device = CPU) -> Tensor:
    """The mean of all non-zero rows, prepared, float64 [d]."""
    n, total = 0, torch.zeros(next(iter(sources.values())).shape[1], dtype=torch.float64, device=device)
    for _, rows in usable_blocks(sources, prepare, device):
        n += len(rows)
        total += rows.double().sum(dim=0)
    return total / n


def moments(
    sources: dict[str, Rows], prepare: RowMap, centred: bool, device: torch.device = CPU
) -> tuple[int, Tensor, Tensor]:
    """Number of non-zero rows, their mean [d] and covariance [d, d] (float64) in one pass over all sources.

    Warns where few rows make up most of the trace.
    """
    n, d = 0, next(iter(sources.values())).shape[1]
    total, scatter = (torch.zeros(*shape, dtype=torch.float64, device=device) for shape in ((d,), (d, d)))
    shift = torch.zeros_like(total)
    shares: list[Tensor] = []
    for _, rows in usable_blocks(sources, prepare, device):
        block = rows.double()
        if centred and n == 0:
            # Moments about a point near the mean: subtracting n * mean * mean^T at the end then cancels nothing.
            shift = block.mean(dim=0)
        block = block - shift
        n += len(block)
        total += block.sum(dim=0)
        scatter.addmm_(block.T, block)
        shares.append(block.square().sum(dim=1))
    _warn_of_few(torch.cat(shares))
    if not centred:
        return n, torch.zeros_like(total), scatter / n
    offset = total / n
    return n, shift + offset, scatter / n - torch.outer(offset, offset)


def _warn_of_few(squares: Tensor) -> None:
    """squares: how much each row adds to the trace, [n]."""
    few = int(FEW * len(squares))
    if few < 1:
        return
    share = float(squares.topk(few).values.sum() / squares.sum().clamp(min=torch.finfo(torch.float64).tiny))
    if share > MOST:
        warnings.warn(
            f"{few} of {len(squares)} rows make up {share:.0%} of the variance, so that they alone decide how features "
            'are whitened: norm="unit" or "clip" lets all rows count',
            stacklevel=3,
        )


def oracle_ridge(covariance: Tensor, n: int) -> float:
    """The ridge, relative to the mean variance, that a covariance [d, d] of n rows is to have: oracle approximating
    shrinkage towards a multiple of the identity.

    It is large where the spectrum is as flat as n rows can tell, and small where few directions hold the variance.
    Y. Chen, A. Wiesel, Y. C. Eldar, A. O. Hero, "Shrinkage Algorithms for MMSE Covariance Estimation", IEEE
    Transactions on Signal Processing 58(10), 2010, Eq. 23.
    """
    d = len(covariance)
    trace_squared = float(covariance.diagonal().sum()) ** 2
    squared = float(covariance.square().sum())  # trace of the square
    numerator = (1 - 2 / d) * squared + trace_squared
    denominator = (n + 1 - 2 / d) * (squared - trace_squared / d)
    shrinkage = 1.0 if denominator <= numerator else numerator / denominator
    return min(LARGEST_RIDGE, shrinkage / (1 - shrinkage)) if shrinkage < 1 else LARGEST_RIDGE


def ridged(covariance: Tensor, regularization: float) -> Tensor:
    """covariance + regularization * (mean variance) * I, float64 [d, d]."""
    result = covariance.clone()
    result.diagonal().add_(regularization * covariance.diagonal().mean())
    return result


def inverse_root(covariance: Tensor, method: Literal["cholesky", "zca"]) -> Tensor:
    """A matrix W (float64 [d, d]) with W @ W.T = inv(covariance); rows are whitened by phi @ W."""
    d = len(covariance)
    floor = d * torch.finfo(torch.float64).eps * covariance.diagonal().max()
    if method == "cholesky":
        lower, failed = torch.linalg.cholesky_ex(covariance)
        singular = bool(failed) or bool(lower.diagonal().square().min() <= floor)
    else:
        values, vectors = torch.linalg.eigh(covariance)
        singular = bool(values[0] <= floor)
    if singular:
        raise InputError(f"the {d} x {d} feature covariance is singular: whitening needs a larger regularization")
    if method == "cholesky":
        root: Tensor = torch.linalg.solve_triangular(
            lower, torch.eye(d, dtype=torch.float64, device=lower.device), upper=False
        ).T.contiguous()
        return root
    root = (vectors * values.rsqrt()) @ vectors.T
    return root
