"""Exact k nearest candidates of every target, by one streaming pass of matrix products over the candidates.

The product only screens. A similarity that beats the target's running k-th best is kept (few do, after the first
block); the distances of what remains are computed directly as ||x - y||, so near duplicates keep their order and the
result does not depend on how the pass was cut into blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tarot.arrays import InputError, Rows, as_rows, blocks, read_rows
from tarot.whitening import WhitenedRows, fit_whitener, unit_norm

BLOCK_SIMILARITIES = 1 << 22  # per block: large enough for GEMM, small enough to be screened from cache
GATHER_BYTES = 128 << 20


def nearest(
    candidates: Any, targets: Any, k: int = 100, whitening: str | None = "auto", regularization: float = 1e-3
) -> tuple[np.ndarray, np.ndarray]:
    """Distances (float32 [M, k], ascending) and indices (int64 [M, k]) of each target's k nearest candidates.

    Distances are between unit-norm rows, sqrt(2 - 2 cos), after whitening ("auto" = "cholesky"; None takes the rows as
    they are, apart from unit norm). Exact; ties go to the smaller index. Zero rows are nobody's neighbours: places
    that no usable candidate fills, and all places of a zero target, hold distance +inf and index -1.
    """
    candidates, targets = as_rows(candidates, "candidates"), as_rows(targets, "targets")
    if not 1 <= k <= candidates.shape[0]:
        raise InputError(f"k must be between 1 and the number of candidates, {candidates.shape[0]}; it is {k!r}")
    if whitening is None:
        if candidates.shape[1] != targets.shape[1]:
            raise InputError(f"candidates have {candidates.shape[1]} dimensions and targets {targets.shape[1]}")
        mapping = unit_norm
    else:
        method = "cholesky" if whitening == "auto" else whitening
        mapping = fit_whitener(candidates, targets, method, regularization)
    white = WhitenedRows(targets, mapping, "targets")[:]
    distance, index = nearest_unit(WhitenedRows(candidates, mapping, "candidates"), white, k)
    unusable = (white == 0).all(dim=1)
    distance[unusable], index[unusable] = torch.inf, -1
    return distance.numpy(), index.numpy()


def nearest_unit(
    candidates: Rows, targets: Tensor, k: int, block_similarities: int = BLOCK_SIMILARITIES
) -> tuple[Tensor, Tensor]:
    """Distances (float32 [M, k], ascending) and indices (int64 [M, k]) for rows that are unit norm, or zero = unusable."""
    n, m = candidates.shape[0], len(targets)
    best = torch.full((m, 0), 0.0), torch.full((m, 0), 0)
    for start, block in blocks(candidates, max(1, block_similarities // m), "candidates"):
        similarity = targets @ block.T
        similarity[:, (block == 0).all(dim=1)] = -torch.inf
        index = torch.arange(start, start + len(block)).expand_as(similarity)
        values, order = torch.cat([best[0], similarity], 1).sort(dim=1, descending=True, stable=True)
        best = values[:, :k], torch.cat([best[1], index], 1).gather(1, order[:, :k])
    similarity, index = best
    distance = torch.empty_like(similarity)
    for j in range(m):
        distance[j] = (read_rows(candidates, index[j].numpy(), "candidates") - targets[j]).norm(dim=1)
    distance[similarity == -torch.inf] = torch.inf
    order = distance.sort(dim=1, stable=True)
    index = index.gather(1, order.indices).where(order.values < torch.inf, -1)
    full = torch.full((m, k), torch.inf), torch.full((m, k), -1)
    full[0][:, : min(k, n)], full[1][:, : min(k, n)] = order.values, index
    return full
