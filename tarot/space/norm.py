"""What is done to the length of a row before anything is averaged over rows.

Lengths of gradients have heavy tails: of 2,000 rows, a single one a thousand times as long as the others is the whole
covariance. With unit norm first, each row counts alike, and a small gradient is not a zero one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor

from tarot.common import CPU
from tarot.features import Rows, blocks

Norm = Literal["unit", "clip"]
AskedNorm = Literal["auto"] | Norm | None
RowMap = Callable[[Tensor], Tensor]  # of blocks of rows [b, d], row by row

NORMS: tuple[Norm | None, ...] = ("unit", "clip", None)
LONGEST = 0.99  # quantile of the norms that longer rows are clipped to


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


def as_they_are(block: Tensor) -> Tensor:
    """float32 [b, d], every row as long as it was."""
    return block.float()


def norm_map(norm: Norm | None, sources: Iterable[tuple[str, Rows]], device: torch.device = CPU) -> RowMap:
    """The map that `norm` asks for: "unit"; "clip": rows longer than the 99th percentile of these sources are made as
    long as it, for which all are read; None: rows as they are."""
    if norm == "unit":
        return unit_norm
    if norm is None:
        return as_they_are
    norms = torch.cat([_norms(block) for name, rows in sources for _, block in blocks(rows, None, name, device)])
    norms = norms[norms > 0].sort().values
    if not len(norms):
        return as_they_are  # whoever takes moments of zero rows says that there is nothing else
    longest = float(norms[int(LONGEST * (len(norms) - 1))])

    def clipped(block: Tensor) -> Tensor:
        length = _norms(block).clamp(min=longest)[:, None]
        shorter: Tensor = (block * (longest / length)).float()
        return shorter

    return clipped


def _norms(block: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(block.double(), dim=1)
    return norms
