"""Selectors that have an order of the candidates: what they take of it, and what each group of targets gets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tarot.common import Positive, Share
from tarot.selection import Budget, Selection, SelectionProblem, orders_in_turns, shares
from tarot.selectors.options import Sized, described


@dataclass(frozen=True)
class Ordered(Sized):
    """size, ratio, tokens: how much is selected; give one. tokens: what the selected may cost together, in the unit of
    `candidate_costs` (tokens, seconds, bytes). quota, cap: by source (`candidate_sources`), the share of that budget
    that is of it, and the most that may be. With `group_weights` the budget is shared out to the groups of targets, and
    each takes in turn what is best for it."""

    tokens: Positive | None = None
    quota: Mapping[str, Share] | None = None
    cap: Mapping[str, Share] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.budget()

    def budget(self) -> Budget:
        """The same as one thing."""
        return Budget(self.size, self.ratio, self.tokens, self.quota, self.cap)


@dataclass(frozen=True)
class ByValue(Ordered):
    """Those that take the candidates of highest value."""

    @abstractmethod
    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """What every candidate is worth to the targets, float64 [N]."""

    def select(self, problem: SelectionProblem) -> Selection:
        """Those of highest value that the budget is enough for; for groups of targets with weights, those of highest
        value to each."""
        budget = self.budget()
        if problem.group_weights is None:
            return problem.best(self.values(problem), self.size, self.ratio, described(self), budget=budget)
        everyone = np.arange(problem.n)
        orders = {group: problem.ranked(self.values(problem.of_group(group)), everyone) for group in shares(problem)}
        return problem.selection(orders_in_turns(problem, orders, budget), described(self))
