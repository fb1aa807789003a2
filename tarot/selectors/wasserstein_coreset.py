"""Real candidates nearest to the Wasserstein barycenter of the pool (theory.md 12.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from tarot.common import Count, Natural
from tarot.selection import Selection, SelectionProblem, allocate
from tarot.selectors.options import Sized, described
from tarot.selectors.pool import PoolClass, pool_classes
from tarot.space import Whitening
from tarot.transport import barycenter, matched


@dataclass(frozen=True)
class WassersteinCoreset(Sized):
    """The candidates that stand for the pool with the least transport: atoms of its barycenter, each replaced by the
    nearest candidate, nobody twice.

    Looks at the pool and not at the targets. Where candidates have labels, each class has a barycenter of its own and
    an equal share of the budget; a class that is smaller gives all it has. Rows are taken as they are, without
    normalisation or whitening; several views are averaged in squared distance.

    weights: "uniform" = all atoms stand for as many candidates; "free" = as many as are nearest to them, as in k-means,
    which then decides how often each is repeated. starts: of which the best barycenter is taken; None = 3, or 10 where
    weights are free. The weights of the selection sum to N.
    """

    features: ClassVar[str | None] = "embedding"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False

    weights: Literal["uniform", "free"] = "uniform"
    starts: Count | None = None
    seed: Natural = 0

    def select(self, problem: SelectionProblem) -> Selection:
        budget = problem.budget(self.size, self.ratio)
        parts = [self._chosen(one) for one in pool_classes(problem, budget)]
        chosen = np.concatenate([members for members, _ in parts])
        utilities = np.concatenate([weights for _, weights in parts])
        return problem.selection(chosen, described(self), weights=allocate(utilities, problem.n))

    def _chosen(self, one: PoolClass) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Candidates, and what their atoms weigh, 1 on average."""
        if one.share == len(one.members):
            return one.members, np.ones(one.share)
        found = barycenter(
            one.rows,
            one.share,
            self.weights,
            starts=self.starts,
            seed=int(np.random.SeedSequence((self.seed, one.number)).generate_state(1)[0]),
        )
        return one.members[matched(one.rows, found)], found.weights * one.share
