"""The covariance that near neighbours differ by: what varies where nothing that matters does.

Groups that should stay apart are directions of large variance, and whitening by the covariance of all rows flattens
just those. Near neighbours mostly belong to one group, so the scatter of their differences is that within groups, found
without knowing the groups: D. Art, R. Gnanadesikan, J. R. Kettenring, "Data-based Metrics for Cluster Analysis",
Utilitas Mathematica 21A, 1982 (theory.md 1.1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.common import CPU, products_in
from tarot.features import Rows
from tarot.space.covariance import Part, inverse_root, only_zero, oracle_ridge, parts_of, ridged, usable_blocks
from tarot.space.norm import RowMap, unit_norm
from tarot.workers import LOCAL, Workers, pairwise

SAMPLE = 5000  # rows at most; the search for neighbours takes the square of it
NEIGHBOURS = 5  # of each row
SEARCHES = 2  # for neighbours: among the rows as they are, and among those whitened by what was found
SIMILARITIES = 1 << 23  # at a time


@dataclass(frozen=True, eq=False)
class ContentSample:
    """Rows drawn by what they hold, so that their order in the pool decides nothing; each content is there once.

    keys: uint64 [n], ascending. rows: float32 [n, d].
    """

    keys: NDArray[np.uint64]
    rows: Tensor

    @classmethod
    def nothing(cls, d: int, device: torch.device) -> ContentSample:
        return cls(np.empty(0, dtype=np.uint64), torch.empty(0, d, device=device))

    def add(self, keys: NDArray[np.uint64], rows: Tensor, size: int) -> ContentSample:
        """The `size` rows of smallest key among these and those of a block: uint64 [b], float32 [b, d]."""
        kept, first = np.unique(np.concatenate([self.keys, keys]), return_index=True)
        first = first[:size]
        old = first < len(self.rows)
        drawn = rows.new_empty(len(first), rows.shape[1])

        def at(positions: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(positions).to(rows.device)

        drawn[at(np.flatnonzero(old))] = self.rows[at(first[old])]
        drawn[at(np.flatnonzero(~old))] = rows[at(first[~old] - len(self.rows))]
        return ContentSample(kept[:size], drawn)


def content_keys(block: Tensor) -> NDArray[np.uint64]:
    """A number for what each row of a float32 block [b, d] holds: uint64 [b]."""
    rows = np.ascontiguousarray(block.cpu().numpy() + np.float32(0))  # which makes one zero of two
    digests = [hashlib.blake2b(row.data, digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def mean_and_sample(
    sources: Mapping[str, Rows],
    prepare: RowMap,
    size: int | None = None,
    device: torch.device = CPU,
    engine: Workers = LOCAL,
) -> tuple[Tensor, Tensor]:
    """The mean of all prepared rows, float64 [d], and `size` of them (None: SAMPLE) drawn by content, float32 [n, d],
    in one pass."""
    size = SAMPLE if size is None else size

    def both(a: _Drawn, b: _Drawn) -> _Drawn:
        return a[0] + b[0], a[1] + b[1], a[2].add(b[2].keys, b[2].rows, size)

    drawn = engine.map(_sum_and_sample, parts_of(sources), sources, prepare, size, device)
    n, total, sample = pairwise(both, drawn)
    if n == 0:
        raise only_zero(sources)
    return total / n, sample.rows


_Drawn = tuple[int, Tensor, ContentSample]


def _sum_and_sample(
    part: Part, state: None, sources: Mapping[str, Rows], prepare: RowMap, size: int, device: torch.device
) -> _Drawn:
    d = sources[part[0]].shape[1]
    n, total, sample = 0, torch.zeros(d, dtype=torch.float64, device=device), ContentSample.nothing(d, device)
    for given, rows in usable_blocks(part, sources, prepare, device):
        n += len(rows)
        total += rows.double().sum(dim=0)
        sample = sample.add(content_keys(given), rows, size)
    return n, total, sample


def local_covariance(rows: Tensor) -> Tensor:
    """Half the mean outer product of the differences of each row to its nearest neighbours, float64 [d, d].

    rows: float32 [n, d], no two of them equal. The half makes it the covariance of rows that are drawn independently
    around one centre. Neighbours are those of largest cosine; they are sought twice, the second time among the rows
    whitened by what the first found, at the ridge that `oracle_ridge` gives it.
    """
    centred = rows.double() - rows.double().mean(dim=0)
    if len(rows) < 2:
        return centred.new_zeros(rows.shape[1], rows.shape[1])
    compared = unit_norm(rows)
    for _ in range(SEARCHES - 1):
        covariance = _difference_covariance(centred, _neighbours(compared))
        if not covariance.diagonal().sum() > 0:
            return covariance  # rows that differ in length alone, where length was taken from them
        root = inverse_root(ridged(covariance, oracle_ridge(covariance, len(rows))), "cholesky")
        compared = unit_norm((centred @ root).float())
    return _difference_covariance(centred, _neighbours(compared))


def _neighbours(rows: Tensor) -> Tensor:
    """The NEIGHBOURS other rows of largest cosine, int64 [n, k], of unit rows [n, d]."""
    n = len(rows)
    found, step = [], max(1, SIMILARITIES // n)
    for start in range(0, n, step):
        with products_in("ieee", rows.device):
            similarity = rows[start : start + step] @ rows.T
        similarity.diagonal(start).fill_(-torch.inf)
        found.append(similarity.topk(min(NEIGHBOURS, n - 1), dim=1).indices)
    return torch.cat(found)


def _difference_covariance(rows: Tensor, neighbours: Tensor) -> Tensor:
    """sum over i and its neighbours j of (x_i - x_j)(x_i - x_j)^T / (2 n k).

    The sum is X^T (D - W - W^T) X with the graph's Laplacian, one matrix product whatever k is.
    """
    n, k = neighbours.shape
    degree = k + torch.bincount(neighbours.flatten(), minlength=n)
    product = rows * degree[:, None]
    for column in neighbours.T:
        product -= rows[column]
        product.index_add_(0, column, rows, alpha=-1)
    scatter = rows.T @ product / (2 * n * k)
    return (scatter + scatter.T) / 2
