"""Whitened feature distance (WFD): centre, whiten, unit norm, in that order (TAROT Eq. 7-8; ledger L-01..L-05).

Moments are accumulated over blocks in float64, so candidates and targets may be larger than memory. A zero row (a zero
gradient) says nothing about its sample: it does not enter the moments, and stays zero, which marks it as unusable.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.common import InputError
from tarot.features import FeatureStore, MatrixLike, Rows, as_rows, block_size, blocks, read_block, read_rows

Method = Literal["cholesky", "zca"]
Centre = Literal["union", "candidates", "none"]
RowMap = Callable[[Tensor], Tensor]  # of blocks of rows [b, d], row by row


@dataclass(frozen=True, eq=False)
class Whitener:
    """phi -> (phi - mean) @ matrix, then unit norm.

    mean: float64 [d]. matrix: float64 [d, d] with matrix @ matrix.T the inverse of the ridged covariance.
    """

    mean: Tensor
    matrix: Tensor

    def __call__(self, block: Tensor) -> Tensor:
        """float32 [b, d] -> float32 [b, d] of unit norm; a zero row, or one that equals the mean, gives a zero row."""
        return unit_norm(self.unnormalised(block))

    def unnormalised(self, block: Tensor) -> Tensor:
        """Centred and whitened alone, float32 [b, d]; a zero row stays one."""
        centre, residue, matrix = self._float32
        white = torch.addmm(residue, block.float() - centre, matrix)
        white[_is_zero(block)] = 0
        return white

    @cached_property
    def _float32(self) -> tuple[Tensor, Tensor, Tensor]:
        # The mean is subtracted before the product, where large offsets cancel; what float32 rounds off the mean itself
        # is subtracted, whitened, after it.
        centre = self.mean.float()
        residue = ((centre.double() - self.mean) @ self.matrix).float()
        return centre, residue, self.matrix.float()


class WhitenedRows:
    """A lazy view of `rows` [n, d]: blocks are mapped (by a `Whitener`, or by `unit_norm` alone) when they are read."""

    dtype = torch.float32

    def __init__(self, rows: Rows, mapping: RowMap, name: str = "features") -> None:
        self.rows, self.mapping, self.name = rows, mapping, name
        self.shape = tuple(rows.shape)

    def __getitem__(self, index: slice | NDArray[np.int64]) -> Tensor:
        """float32 [k, d] for a slice or an int64 array of row numbers."""
        return self.mapping(_read(self.rows, index, self.name))


class JoinedRows:
    """Per-checkpoint WFD: the unit-norm rows of T independently trained models side by side as one unit row.

    The squared distance between joined rows is the mean of the models' squared distances. A row that is zero for some
    models is compared by the others; one that is zero for all stays zero.

    unit: false for rows of any norm, which are then only divided by sqrt(T), to the same end.
    """

    dtype = torch.float32

    def __init__(self, parts: Sequence[Rows], name: str = "features", *, unit: bool = True) -> None:
        lengths = {part.shape[0] for part in parts}
        if len(lengths) != 1:
            raise InputError(
                f"{name}: checkpoints must have the same rows; their numbers of rows are {sorted(lengths)}"
            )
        self.parts, self.name, self.unit = tuple(parts), name, unit
        self.shape = (lengths.pop(), sum(part.shape[1] for part in parts))

    def __getitem__(self, index: slice | NDArray[np.int64]) -> Tensor:
        """float32 [k, sum d] for a slice or an int64 array of row numbers."""
        joined = torch.cat([_read(part, index, self.name) for part in self.parts], dim=1)
        scale: float = len(self.parts) ** 0.5
        return unit_norm(joined) if self.unit else joined / scale


def unit_norm(block: Tensor) -> Tensor:
    """The rows of `block` [b, d] scaled to unit Euclidean norm, float32; zero rows stay zero."""
    block = block.float()
    norm: Tensor = torch.linalg.vector_norm(block, dim=1, keepdim=True)
    extreme = ((norm < 1e-15) | (norm > 1e15)).squeeze(1)  # squares near the ends of float32: scale such rows first
    if extreme.any():
        largest = block[extreme].abs().amax(dim=1, keepdim=True)
        block = block.index_put((extreme,), block[extreme] / largest.where(largest > 0, 1))
        norm = torch.linalg.vector_norm(block, dim=1, keepdim=True)
    return block / norm.where(norm > 0, 1)


def check_regularization(regularization: float) -> None:
    """Raises InputError unless it is a number of at least 0."""
    number = isinstance(regularization, int | float | np.number) and not isinstance(regularization, bool)
    if not (number and regularization >= 0):
        raise InputError(f"regularization must be a number >= 0; it is {regularization!r}")


def fit_whitener(
    candidates: Rows,
    targets: Rows,
    method: Method = "cholesky",
    regularization: float = 1e-3,
    centre: Centre = "union",
) -> Whitener:
    """The whitening map of candidates [N, d] and targets [M, d], from one pass over both.

    Covariance over n rows, `Sigma = (1/n) sum (phi - mean)(phi - mean)^T`, ridge relative to its mean diagonal:
    `Sigma + regularization * tr(Sigma)/d * I = L L^T`. Cholesky maps by inv(L), ZCA by the symmetric inverse root; they
    differ by a rotation, so distances are the same (L-02).

    centre: the rows that mean and covariance are of; "none" takes the second moment of the union about zero.
    Raises InputError on unequal dimensions, an unknown option, features that do not vary, or a covariance that is
    singular without a larger ridge. Warns where whitening makes all points nearly equidistant.
    """
    d = candidates.shape[1]
    if targets.shape[1] != d:
        raise InputError(f"candidates have {d} feature dimensions and targets {targets.shape[1]}: they must agree")
    if method not in ("cholesky", "zca"):
        raise InputError(f'whitening must be "cholesky", "zca" or None; it is {method!r}')
    if centre not in ("union", "candidates", "none"):
        raise InputError(f'centre must be "union", "candidates" or "none"; it is {centre!r}')
    check_regularization(regularization)
    sources = {"candidates": candidates} if centre == "candidates" else {"candidates": candidates, "targets": targets}
    n, mean, covariance = _moments(sources, centred=centre != "none")
    if n < 5 * d and regularization < 1e-4:
        warnings.warn(
            f"{n} rows in {d} dimensions with regularization {regularization:g}: whitening makes all points nearly "
            f"equidistant. Use fewer dimensions or a regularization of 1e-3 or more.",
            stacklevel=2,
        )
    spread = covariance.diagonal().mean()
    if not spread > 0:
        raise InputError("candidates and targets do not vary: all their non-zero rows are equal")
    covariance.diagonal().add_(regularization * spread)
    return Whitener(mean, _inverse_root(covariance, method))


@overload
def whiten(
    candidates: Tensor, targets: Tensor, method: Method | None = "cholesky", regularization: float = 1e-3
) -> tuple[Tensor, Tensor]: ...
@overload
def whiten(
    candidates: NDArray[Any] | FeatureStore,
    targets: NDArray[Any] | FeatureStore,
    method: Method | None = "cholesky",
    regularization: float = 1e-3,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
@overload
def whiten(
    candidates: MatrixLike, targets: MatrixLike, method: Method | None = "cholesky", regularization: float = 1e-3
) -> tuple[NDArray[np.float32] | Tensor, NDArray[np.float32] | Tensor]: ...
def whiten(
    candidates: MatrixLike, targets: MatrixLike, method: Method | None = "cholesky", regularization: float = 1e-3
) -> tuple[NDArray[np.float32] | Tensor, NDArray[np.float32] | Tensor]:
    """Whitened, unit-norm candidates [N, d] and targets [M, d], float32; torch for torch input, else NumPy.

    `method=None` only normalises. Zero rows stay zero. Raises as `fit_whitener` does.
    """
    sources = {"candidates": as_rows(candidates, "candidates"), "targets": as_rows(targets, "targets")}
    mapping: RowMap = unit_norm
    if method is not None:
        mapping = fit_whitener(sources["candidates"], sources["targets"], method, regularization)
    results: list[NDArray[np.float32] | Tensor] = []
    for name, rows in sources.items():
        white = torch.empty(tuple(rows.shape))
        for start, block in blocks(rows, name=name):
            white[start : start + len(block)] = mapping(block)
        results.append(white.to(rows.device) if isinstance(rows, Tensor) else white.numpy())
    return results[0], results[1]


def _moments(sources: dict[str, Rows], centred: bool) -> tuple[int, Tensor, Tensor]:
    """Number of non-zero rows, their mean [d] and covariance [d, d] (float64) in one pass over all sources."""
    n, d = 0, next(iter(sources.values())).shape[1]
    shift: Tensor | None = None
    total, scatter = torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    for name, rows in sources.items():
        for _, block in blocks(rows, block_size(d) // 4, name):
            zero = _is_zero(block)
            block = (block[~zero] if zero.any() else block).double()
            if not len(block):
                continue
            if shift is None:
                # Moments about a point near the mean: subtracting n * mean * mean^T at the end then cancels nothing.
                shift = block.mean(dim=0) if centred else torch.zeros_like(total)
            block -= shift
            n += len(block)
            total += block.sum(dim=0)
            scatter.addmm_(block.T, block)
    if shift is None:
        raise InputError(f"{' and '.join(sources)} hold only zero rows")
    if not centred:
        return n, torch.zeros_like(total), scatter / n
    offset = total / n
    return n, shift + offset, scatter / n - torch.outer(offset, offset)


def _inverse_root(covariance: Tensor, method: Method) -> Tensor:
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
            lower, torch.eye(d, dtype=torch.float64), upper=False
        ).T.contiguous()
        return root
    root = (vectors * values.rsqrt()) @ vectors.T
    return root


def _is_zero(block: Tensor) -> Tensor:
    zero: Tensor = (
        torch.linalg.vector_norm(block, dim=1) == 0
    )  # 20x as fast as a maximum; squares may underflow, so look again
    if zero.any():
        zero[zero.clone()] = (block[zero] == 0).all(dim=1)
    return zero


def _read(rows: Rows, index: slice | NDArray[np.int64], name: str) -> Tensor:
    if isinstance(index, slice):
        start, stop, step = index.indices(rows.shape[0])
        if step == 1:
            return read_block(rows, start, max(start, stop), name)
        index = np.arange(start, stop, step)
    return read_rows(rows, np.asarray(index), name)
