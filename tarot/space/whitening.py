"""Whitened feature distance (WFD): norm, centre, whiten, unit norm, in that order (TAROT Eq. 7-8; ledger L-01..L-05).

Moments are accumulated over blocks in float64, so candidates and targets may be larger than memory. A zero row (a zero
gradient) says nothing about its sample: it does not enter the moments, and stays zero, which marks it as unusable.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.common import CPU, InputError, NonNegative, check_option, products_in
from tarot.features import Rows, read_block, read_rows
from tarot.space.covariance import inverse_root, is_zero, mean_of, moments, oracle_ridge, ridged
from tarot.space.distance import enough_rows
from tarot.space.local import local_covariance, mean_and_sample
from tarot.space.norm import AskedNorm, Norm, RowMap, as_they_are, norm_map, unit_norm
from tarot.workers import LOCAL, Workers

Method = Literal["local", "cholesky", "zca"]
Centre = Literal["union", "candidates", "none"]
ROUNDING = 1e-14  # of float32, squared: rows that vary by no more do not vary


@dataclass(frozen=True, eq=False)
class Whitener:
    """phi -> (prepare(phi) - mean) @ matrix, then unit norm.

    mean: float64 [d]. matrix: float64 [d, d] with matrix @ matrix.T the inverse of the ridged covariance.
    prepare: what `norm` asked for. regularization: the relative ridge, given or chosen.
    """

    mean: Tensor
    matrix: Tensor
    prepare: RowMap = as_they_are
    regularization: float = 0.0

    def __call__(self, block: Tensor) -> Tensor:
        """float32 [b, d] -> float32 [b, d] of unit norm; a zero row, or one that equals the mean, gives a zero row."""
        return unit_norm(self.unnormalised(block))

    def unnormalised(self, block: Tensor) -> Tensor:
        """Prepared, centred and whitened alone, float32 [b, d]; a zero row stays one."""
        centre, residue, matrix = self._float32
        with products_in("ieee", matrix.device):
            white = torch.addmm(residue, enough_rows(self.prepare(block) - centre), matrix)[: len(block)]
        white[is_zero(block)] = 0
        return white

    @cached_property
    def _float32(self) -> tuple[Tensor, Tensor, Tensor]:
        # The mean is subtracted before the product, where large offsets cancel; what float32 rounds off the mean itself
        # is subtracted, whitened, after it.
        centre = self.mean.float()
        residue = ((centre.double() - self.mean) @ self.matrix).float()
        return centre, residue, self.matrix.float()


@dataclass(frozen=True, eq=False)
class Centred:
    """phi -> prepare(phi) - mean, then unit norm. mean: float64 [d]."""

    mean: Tensor
    prepare: RowMap = as_they_are

    def __call__(self, block: Tensor) -> Tensor:
        """float32 [b, d] -> float32 [b, d] of unit norm; a zero row, or one that equals the mean, gives a zero row."""
        centred = (self.prepare(block).double() - self.mean).float()
        centred[is_zero(block)] = 0
        return unit_norm(centred)


def fit_centre(
    candidates: Rows,
    targets: Rows,
    norm: Norm | None = None,
    device: torch.device = CPU,
    engine: Workers = LOCAL,
) -> Centred:
    """Of candidates [N, d] and targets [M, d] together, from one pass over both, for rows on `device`."""
    sources = {"candidates": candidates, "targets": targets}
    prepare = norm_map(norm, sources.items(), device)
    return Centred(mean_of(sources, prepare, device, engine), prepare)


class WhitenedRows:
    """A lazy view of `rows` [n, d]: blocks are mapped (by a `Whitener`, or by `unit_norm` alone) when they are read, on
    the device of the map."""

    dtype = torch.float32

    def __init__(self, rows: Rows, mapping: RowMap, name: str = "features", device: torch.device = CPU) -> None:
        self.rows, self.mapping, self.name, self.device = rows, mapping, name, device
        self.shape = tuple(rows.shape)

    def __getitem__(self, index: slice | NDArray[np.int64]) -> Tensor:
        """float32 [k, d] for a slice or an int64 array of row numbers."""
        return self.mapping(_read(self.rows, index, self.name, self.device))


class JoinedRows:
    """Per-checkpoint WFD: the unit-norm rows of T independently trained models side by side as one unit row.

    The squared distance between joined rows is the mean of the models' squared distances. A row that is zero for some
    models is compared by the others; one that is zero for all stays zero.

    unit: false for rows of any norm, which are then only divided by sqrt(T), to the same end.
    """

    dtype = torch.float32

    def __init__(
        self, parts: Sequence[Rows], name: str = "features", *, unit: bool = True, device: torch.device = CPU
    ) -> None:
        lengths = {part.shape[0] for part in parts}
        if len(lengths) != 1:
            raise InputError(
                f"{name}: checkpoints must have the same rows; their numbers of rows are {sorted(lengths)}"
            )
        self.parts, self.name, self.unit, self.device = tuple(parts), name, unit, device
        self.shape = (lengths.pop(), sum(part.shape[1] for part in parts))

    def __getitem__(self, index: slice | NDArray[np.int64]) -> Tensor:
        """float32 [k, sum d] for a slice or an int64 array of row numbers."""
        joined = torch.cat([_read(part, index, self.name, self.device) for part in self.parts], dim=1)
        scale: float = len(self.parts) ** 0.5
        return unit_norm(joined) if self.unit else joined / scale


def check_regularization(regularization: float | None) -> None:
    """Raises InputError unless it is a number of at least 0, or None."""
    check_option("regularization", regularization, NonNegative | None)


def check_norm(norm: object) -> None:
    """Raises InputError unless it can be asked for."""
    check_option("norm", norm, AskedNorm)


def fit_whitener(
    candidates: Rows,
    targets: Rows,
    method: Method = "cholesky",
    regularization: float | None = 1e-3,
    centre: Centre = "union",
    norm: Norm | None = None,
    device: torch.device = CPU,
    engine: Workers = LOCAL,
) -> Whitener:
    """The whitening map of candidates [N, d] and targets [M, d], from one pass over both, for rows on `device`.

    norm: of rows before anything else: "unit"; "clip" (those longer than the 99th percentile, for another pass); None.
    method: "cholesky" and "zca" whiten by the covariance over all n rows, `Sigma = (1/n) sum (phi - mean)(phi -
    mean)^T`, "local" by that of differences of near neighbours, of 5,000 rows at most (`local_covariance`). The ridge
    is relative to the mean diagonal: `Sigma + regularization * tr(Sigma)/d * I = L L^T`; None: `oracle_ridge`.
    Cholesky maps by inv(L), ZCA by the symmetric inverse root; they differ by a rotation, so distances are the same
    (L-02).

    centre: the rows that mean and covariance are of; "none" takes the second moment of the union about zero.
    Raises InputError on unequal dimensions, an unknown option, features that do not vary, or a covariance that is
    singular without a larger ridge. Warns where whitening makes all points nearly equidistant, and where few rows
    decide it.
    """
    d = candidates.shape[1]
    if targets.shape[1] != d:
        raise InputError(f"candidates have {d} feature dimensions and targets {targets.shape[1]}: they must agree")
    check_option("whitening", method, Method)
    check_option("centre", centre, Centre)
    check_regularization(regularization)
    check_norm(norm)
    sources = {"candidates": candidates} if centre == "candidates" else {"candidates": candidates, "targets": targets}
    prepare = norm_map(norm, sources.items(), device)
    if method == "local":
        mean, sample = mean_and_sample(sources, prepare, device=device, engine=engine)
        n, covariance = len(sample), local_covariance(sample)
        if centre == "none":
            mean = torch.zeros_like(mean)
    else:
        n, mean, covariance = moments(sources, prepare, centre != "none", device, engine)
    if regularization is not None and n < 5 * d and regularization < 1e-4:
        warnings.warn(
            f"{n} rows in {d} dimensions with regularization {regularization:g}: whitening makes all points nearly "
            f"equidistant. Use fewer dimensions or a regularization of 1e-3 or more.",
            stacklevel=2,
        )
    if float(covariance.diagonal().sum()) <= ROUNDING * float(mean.square().sum()):
        alike = "point the same way" if norm == "unit" else "are equal"
        raise InputError(f"candidates and targets do not vary: all their non-zero rows {alike}")
    ridge = oracle_ridge(covariance, n) if regularization is None else float(regularization)
    root = inverse_root(ridged(covariance, ridge), "zca" if method == "zca" else "cholesky")
    return Whitener(mean, root, prepare, ridge)


def _read(rows: Rows, index: slice | NDArray[np.int64], name: str, device: torch.device) -> Tensor:
    if isinstance(index, slice):
        start, stop, step = index.indices(rows.shape[0])
        if step == 1:
            return read_block(rows, start, max(start, stop), name, device)
        index = np.arange(start, stop, step)
    return read_rows(rows, np.asarray(index), name, device)
