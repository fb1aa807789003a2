"""k-center: candidates that leave nobody far away (Gonzalez, 1985; Sener and Savarese, 2018; theory.md 12.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tarot.features import Rows
from tarot.selection import Selection, SelectionProblem
from tarot.selectors.options import Sized, described
from tarot.selectors.pool import chosen_by_class, passes
from tarot.space import Whitening


@dataclass(frozen=True)
class KCenter(Sized):
    """The candidate nearest to the mean of the pool, then always the one farthest from those chosen.

    The largest distance of a candidate to its nearest chosen one is at most twice the least that there can be. Looks at
    the pool and not at the targets; where candidates have labels, at each class by itself, with an equal share of the
    budget (a class that is smaller gives all it has). Rows are taken as they are. One pass over them for
    every candidate that is chosen. Every weight is 1.
    """

    features: ClassVar[str | None] = "embedding"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False

    def select(self, problem: SelectionProblem) -> Selection:
        budget = problem.budget(self.size, self.ratio)
        return problem.selection(chosen_by_class(problem, budget, _farthest_first), described(self))


def _farthest_first(rows: Rows, count: int) -> NDArray[np.int64]:
    """Positions of `count` rows, int64."""
    blocks = passes(rows)
    chosen = np.empty(count, dtype=np.int64)
    distance = np.empty(rows.shape[0])  # squared, to the nearest chosen; -1 for those chosen
    for start, block in blocks():
        distance[start : start + len(block)] = -np.square(block).sum(axis=1)  # rows are about their mean
    for place in range(count):
        best = int(np.argmax(distance))
        if place == 0:
            distance[:] = np.inf
        chosen[place], distance[best] = best, -1
        if place + 1 == count:
            break
        centre = next(block[best - start] for start, block in blocks() if start <= best < start + len(block))
        for start, block in blocks():
            here = distance[start : start + len(block)]
            np.minimum(here, np.square(block - centre).sum(axis=1), out=here)
    return chosen
