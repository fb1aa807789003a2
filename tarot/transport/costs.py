"""The cost between candidates and targets: an [n, m] matrix in memory, or computed from features by blocks of rows.

Solvers take a `Cost` and are unaware which of the two it is, but where they must hold it whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tarot.features import Rows, block_size, read_block, read_rows
from tarot.space import distances

DENSE_PAIRS = 400_000_000  # up to 1.6 GB of float32 a cost is held in memory, with a kernel of the same size


@dataclass(frozen=True)
class StreamedCost:
    """The distances between candidates x [n, d] and targets y [m, d], computed a block of rows at a time."""

    x: Rows
    y: Tensor
    name: str = "candidates"  # of x, in errors

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.shape[0], self.y.shape[0]

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        size = block_size(max(self.x.shape[1], self.y.shape[0]))
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield start, distances(read_block(self.x, start, stop, self.name), self.y)

    def rows(self, every: int) -> Tensor:
        """The distances of every k-th candidate, in memory."""
        return distances(read_rows(self.x, np.arange(0, len(self), every), self.name), self.y)

    def __len__(self) -> int:
        return self.x.shape[0]


Cost = Tensor | StreamedCost


def dense(cost: Cost) -> Tensor:
    """The whole matrix, float32 [n, m]."""
    return cost if isinstance(cost, Tensor) else torch.cat([block for _, block in cost.blocks()])


def blocks_of(cost: Cost) -> Iterator[tuple[int, Tensor]]:
    if isinstance(cost, StreamedCost):
        yield from cost.blocks()
        return
    size = block_size(cost.shape[1])
    for start in range(0, len(cost), size):
        yield start, cost[start : start + size]
