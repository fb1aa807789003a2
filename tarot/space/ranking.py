"""All candidates of every target in order of distance, for methods that need many of them: a block of targets at a
time. (Few of them: `tarot.space.neighbours`, which reads the candidates once.)"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.features import Rows, blocks, read_block
from tarot.space.distance import distances

MEMORY_BYTES = 256 << 20  # for the distances of a block of targets to all candidates
SORTED_AT_ONCE = 1 << 21  # pairs: sorting, and what is done with the order, then run in cache


def distance_blocks(
    candidates: Rows, targets: Rows, memory_bytes: int = MEMORY_BYTES
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """(which targets, their Euclidean distances float32 [b, N] to all candidates), of so many targets at a time as fit
    `memory_bytes`; the candidates are read once for each such block."""
    n, m = candidates.shape[0], targets.shape[0]
    step = max(1, memory_bytes // (4 * n))
    for start in range(0, m, step):
        part = slice(start, min(start + step, m))
        rows = read_block(targets, part.start, part.stop, "targets")
        distance = torch.empty(len(rows), n)
        for first, block in blocks(candidates, name="candidates"):
            distance[:, first : first + len(block)] = distances(rows, block)
        yield part, distance.numpy()


def ascending(distance: NDArray[np.float32], k: int | None = None) -> NDArray[np.int64]:
    """Positions of the k smallest (None: all) of each row of float32 [m, n] >= 0, ascending, ties by position: int64.

    Distance and position are sorted as one integer (non-negative floats are ordered as their bits), which takes half
    the time of a stable argsort, and selecting the k smallest first a fraction of it.
    """
    code = (distance + np.float32(0)).view(np.uint32).astype(np.int64)  # + 0: no negative zero
    code <<= 32
    code |= np.arange(distance.shape[1])
    if k is not None and k < distance.shape[1]:
        code.partition(k - 1, axis=1)
        code = np.ascontiguousarray(code[:, :k])
    code.sort(axis=1)
    code &= 0xFFFFFFFF
    return code


def nearest_of_many(
    candidates: Rows, targets: Tensor, k: int, order: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Distances float32 and indices int64 [M, k] as `nearest_unit` gives them, for a k that is much of N.

    candidates [N, d], targets float32 [M, d]: unit norm; a zero candidate is at distance +inf. order: of all candidates
    [N], in which ties are; None: as they stand. Several times as fast as `nearest_unit` from k = N / 16 on: nothing is
    computed pair by pair.
    """
    usable = np.concatenate([block.any(dim=1).numpy() for _, block in blocks(candidates, name="candidates")])
    nearest, index = np.empty((len(targets), k), dtype=np.float32), np.empty((len(targets), k), dtype=np.int64)
    for part, distance in distance_blocks(candidates, targets):
        distance[:, ~usable] = np.inf
        step = max(1, SORTED_AT_ONCE // distance.shape[1])
        for start in range(0, len(distance), step):
            rows = distance[start : start + step]
            found = ascending(rows, k) if order is None else order[ascending(rows[:, order], k)]
            here = slice(part.start + start, part.start + start + len(rows))
            index[here], nearest[here] = found, np.take_along_axis(rows, found, axis=1)
    index[np.isinf(nearest)] = -1
    return nearest, index
