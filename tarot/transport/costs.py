"""The cost between candidates and targets: an [n, m] matrix in memory, held in 16 bits, or computed from features.

Solvers take a `Cost` and are unaware which of them it is, but where they must hold it whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from tarot.common import CPU, memory_limit
from tarot.features import Rows, block_size, read_block, read_rows
from tarot.space import distances

DENSE_PAIRS = 400_000_000  # up to 1.6 GB of float32 a cost is held in memory, with a kernel of the same size
_CODES = 2**16
_LEAST_CODE = -(2**15)  # codes are int16: torch does little with unsigned ones
_STEPS_IN_EPSILON = 64  # at least: fewer, and potentials would feel the rounding
_CPU_SHARE, _GPU_SHARE = 0.1, 0.9  # of a machine's memory, of what is free of a GPU's: for a cost that is held
GPU_PAIRS = 1 << 26  # of a held cost at a time on a GPU
CACHED_PAIRS = 1 << 18  # of a held cost at a time: a block, and what is done with it, stays in a core's cache


@dataclass(frozen=True)
class StreamedCost:
    """The distances between candidates x [n, d] and targets y [m, d], computed a block of rows at a time, where y is.

    top: no distance is larger; None: not known.
    """

    x: Rows
    y: Tensor
    name: str = "candidates"  # of x, in errors
    top: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.shape[0], self.y.shape[0]

    @property
    def device(self) -> torch.device:
        return self.y.device

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """(start, float32 [b, m]); a block is the caller's to overwrite."""
        size = block_size(max(self.x.shape[1], self.y.shape[0]))
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield start, distances(read_block(self.x, start, stop, self.name, self.device), self.y)

    def rows(self, every: int) -> Tensor:
        """The distances of every k-th candidate, in memory."""
        return distances(read_rows(self.x, np.arange(0, len(self), every), self.name, self.device), self.y)

    def __len__(self) -> int:
        return self.x.shape[0]


class Grown:
    """A matrix [n, m] in memory to which rows are added in place: its room doubles, so that each is moved twice."""

    def __init__(self, columns: int, dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> None:
        self._room = torch.empty(0, columns, dtype=dtype, device=device)
        self._count = 0

    def reserve(self, rows: int) -> None:
        """Room for so many rows in all."""
        larger = self._room.new_empty(rows, self._room.shape[1])
        larger[: self._count] = self.matrix
        self._room = larger

    def add(self, rows: Tensor) -> None:
        """These rows [k, m] below the others."""
        end = self._count + len(rows)
        if end > len(self._room):
            self.reserve(max(end, 2 * len(self._room)))
        self._room[self._count : end] = rows
        self._count = end

    @property
    def matrix(self) -> Tensor:
        """All rows so far, [n, m]: a view."""
        return self._room[: self._count]


class HeldCost:
    """Distances [n, m] in 16-bit fixed point: two bytes a pair, and rows are added in place.

    top: no distance is larger (2 between unit vectors). A step is top/65535, so that a distance is off by half of it at
    most, and so is a transport's value and, up to a constant, every potential.
    """

    def __init__(self, columns: int, top: float, device: torch.device = CPU) -> None:
        self._codes = Grown(columns, torch.int16, device)
        self._step = top / (_CODES - 1)

    @classmethod
    def of(cls, cost: StreamedCost, top: float) -> Self:
        """Every distance of a cost, computed once."""
        held = cls(cost.shape[1], top, cost.device)
        held._codes.reserve(len(cost))
        for _, block in cost.blocks():
            held.add(block)
        return held

    @property
    def device(self) -> torch.device:
        return self._codes.matrix.device

    @property
    def shape(self) -> tuple[int, int]:
        n, m = self._codes.matrix.shape
        return n, m

    def add(self, distance: Tensor) -> None:
        """The distances of further candidates, float32 [k, m]."""
        codes = distance.div(self._step).round_().clamp_(0, _CODES - 1)
        self._codes.add(codes.add_(_LEAST_CODE))

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """(start, float32 [b, m]); a block is the caller's to overwrite, and so is it by the next one."""
        n, m = self.shape
        pairs = CACHED_PAIRS if self.device == CPU else GPU_PAIRS
        size = min(n, max(1, pairs // m))
        buffer = self._codes.matrix.new_empty(size, m, dtype=torch.float32)
        for start in range(0, n, size):
            yield start, self._decoded(slice(start, start + size), buffer)

    def rows(self, every: int) -> Tensor:
        """The distances of every k-th candidate, float32."""
        some = slice(None, None, every)
        return self._decoded(some, torch.empty_like(self._codes.matrix[some], dtype=torch.float32))

    def _decoded(self, rows: slice, buffer: Tensor) -> Tensor:
        codes = self._codes.matrix[rows]
        return buffer[: len(codes)].copy_(codes).sub_(_LEAST_CODE).mul_(self._step)

    def __len__(self) -> int:
        return self.shape[0]


def held_where_it_fits(cost: StreamedCost, epsilon: float) -> StreamedCost | HeldCost:
    """For a solver that goes over it many times: in 16 bits, where these are fine enough for epsilon and fit in memory;
    else computed anew each time, as it is."""
    if cost.top is None or cost.top / (_CODES - 1) > epsilon / _STEPS_IN_EPSILON:
        return cost
    fits = 2 * math.prod(cost.shape) <= room_for_a_cost(cost.device)
    return HeldCost.of(cost, cost.top) if fits else cost


def room_for_a_cost(device: torch.device) -> float:
    """Bytes."""
    if device == CPU:
        return _CPU_SHARE * memory_limit()
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, and so ours
    return _GPU_SHARE * (free + unused)


Cost = Tensor | StreamedCost | HeldCost


def dense(cost: Cost) -> Tensor:
    """The whole matrix, float32 [n, m]."""
    if isinstance(cost, HeldCost):
        return cost.rows(1)
    return cost if isinstance(cost, Tensor) else torch.cat([block for _, block in cost.blocks()])


def blocks_of(cost: Cost) -> Iterator[tuple[int, Tensor]]:
    """(start, float32 [b, m]), each of use until the next."""
    if not isinstance(cost, Tensor):
        yield from cost.blocks()
        return
    size = block_size(cost.shape[1])
    for start in range(0, len(cost), size):
        yield start, cost[start : start + size]
