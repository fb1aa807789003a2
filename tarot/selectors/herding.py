"""Herding: candidates whose mean is the pool's (Welling, 2009; theory.md 12.2)."""

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
class Herding(Sized):
    """Greedily, the candidate that brings the mean of those chosen nearest to the mean of the pool.

    Looks at the pool and not at the targets; where candidates have labels, at each class by itself, with an equal share
    of the budget (a class that is smaller gives all it has). Rows are taken as they are. One pass over them for every
    candidate that is chosen. Every weight is 1.
    """

    features: ClassVar[str | None] = "embedding"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False

    def select(self, problem: SelectionProblem) -> Selection:
        budget = problem.budget(self.size, self.ratio)
        return problem.selection(chosen_by_class(problem, budget, _herd), described(self))


def _herd(rows: Rows, count: int) -> NDArray[np.int64]:
    """Positions of `count` rows, int64. The mean of those chosen, s, and z is least at the least |z|^2 + 2 s.z."""
    blocks = passes(rows)
    chosen = np.empty(count, dtype=np.int64)
    total = np.zeros(rows.shape[1])
    length = np.empty(rows.shape[0])  # squared; infinite for those chosen
    for start, block in blocks():
        length[start : start + len(block)] = np.square(block).sum(axis=1)
    for place in range(count):
        best, least, row = -1, np.inf, total
        for start, block in blocks():
            cost = length[start : start + len(block)] + 2 * block @ total
            nearest = int(np.argmin(cost))
            if cost[nearest] < least:
                best, least, row = start + nearest, float(cost[nearest]), block[nearest]
        chosen[place], length[best] = best, np.inf
        total = total + row
    return chosen
