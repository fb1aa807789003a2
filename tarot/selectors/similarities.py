"""Cosines of candidates and targets, for the methods that look at all of them: held where they fit, else computed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.features import block_size, blocks, read_rows
from tarot.selection import SelectionProblem, too_few

HELD = (
    250_000_000  # cosines held in memory, 1 GB of float32; beyond, those of single candidates are computed when asked
)
_AT_ONCE = 256  # values computed in one call


class Similarities:
    """Cosines [N, M'] of a problem's candidates and its usable targets, in its space.

    usable: which candidates have features other than zero, bool [N]; the others are nobody's. places: where each stands
    among equals, int64 [N].
    """

    def __init__(self, problem: SelectionProblem) -> None:
        self._candidates, self._targets = problem.candidates, problem.targets
        self.n, self.m = problem.n, len(problem.targets)
        self.places = problem.candidate_places
        self.usable = np.zeros(self.n, dtype=bool)
        self._held = torch.empty(self.n, self.m) if self.n * self.m <= HELD else None
        for start, rows in blocks(self._candidates, name="candidates"):
            self.usable[start : start + len(rows)] = rows.any(dim=1).numpy()
            if self._held is not None:
                self._held[start : start + len(rows)] = rows @ self._targets.T

    def check(self, count: int) -> None:
        """Raises InputError where fewer candidates than this have features."""
        if (usable := int(self.usable.sum())) < count:
            raise too_few(count, usable, self.n)

    def of(self, candidates: NDArray[np.int64]) -> NDArray[np.float32]:
        """Those of these candidates, float32 [b, M']."""
        if self._held is not None:
            return self._held.numpy()[candidates]
        found: NDArray[np.float32] = (read_rows(self._candidates, candidates, "candidates") @ self._targets.T).numpy()
        return found

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """(start, float32 [b, M']) of consecutive candidates, all of them."""
        if self._held is not None:
            yield 0, self._held
            return
        step = block_size(max(self.m, self._candidates.shape[1]))
        for start, rows in blocks(self._candidates, step, name="candidates"):
            yield start, rows @ self._targets.T

    @cached_property
    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Each target's mean and standard deviation over the usable candidates, float64 [M']."""
        count, total, squares = int(self.usable.sum()), np.zeros(self.m), np.zeros(self.m)
        for _, block in self.blocks():  # a zero row adds nothing
            total += block.sum(dim=0, dtype=torch.float64).numpy()
            squares += block.double().square().sum(dim=0).numpy()
        mean = total / count
        return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))


class Lazily:
    """The candidate of highest value, again and again, where values are known to fall: few are computed anew.

    highest: at least the value of each candidate, float64 [N]; those at -inf are never given. places: where each stands
    among equals, int64 [N]. `lifted(by)` says that no value has risen by more than this since it was last computed.
    """

    def __init__(self, highest: NDArray[np.float64], places: NDArray[np.int64]) -> None:
        self._place = places.tolist()
        self._heap = [(-value, self._place[i], i) for i, value in enumerate(highest.tolist()) if value > -np.inf]
        heapq.heapify(self._heap)
        self._lift = 0.0

    def lifted(self, by: float) -> None:
        self._lift += by

    def best(self, values: Callable[[NDArray[np.int64]], NDArray[np.float64]]) -> tuple[int, float]:
        """The index of highest value, which is taken out, and its value. `values` computes those of several candidates;
        it is asked of one, then two, then four, ..., so that few are in vain and few calls are made."""
        current: set[int] = set()
        many = 1
        while self._heap[0][2] not in current:
            stale: list[int] = []
            while self._heap and len(stale) < many and self._heap[0][2] not in current:
                stale.append(heapq.heappop(self._heap)[2])
            for value, i in zip(values(np.array(stale)).tolist(), stale, strict=True):
                heapq.heappush(self._heap, (self._lift - value, self._place[i], i))
            current.update(stale)
            many = min(2 * many, _AT_ONCE)
        key, _, i = heapq.heappop(self._heap)
        return i, self._lift - key
