"""The arms that every comparison needs: random, everything, nothing but the targets, and the tags' own choice.

They do not look at features, so that candidates whose features are zero are chosen like all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tarot.common import InputError, Natural, check_options
from tarot.selection import Allowance, Selection, SelectionProblem
from tarot.selectors.options import Ratio, Size, described, random_generator
from tarot.selectors.ordered import Ordered
from tarot.space import Whitening


@dataclass(frozen=True)
class Random(Ordered):
    """A uniform sample without replacement; every weight is 1. Drawn of candidates by id, or by content where there are
    no ids: where they stand decides nothing, nor do targets and their groups."""

    features: ClassVar[str | None] = None
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False

    seed: Natural = 0

    def select(self, problem: SelectionProblem) -> Selection:
        budget, generator = self.budget(), random_generator(self.seed)
        if budget.plain:
            size = problem.budget(self.size, self.ratio)
            chosen = generator.choice(problem.candidate_order, size, replace=False)
        else:
            allowance = Allowance.of(problem, budget)
            chosen = allowance.take(generator.permutation(problem.candidate_order))
            allowance.check_spent(chosen)
        return problem.selection(chosen, described(self), blind=True)


@dataclass(frozen=True)
class All:
    """Every candidate, once."""

    features: ClassVar[str | None] = None
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = True

    def select(self, problem: SelectionProblem) -> Selection:
        return problem.selection(np.arange(problem.n), described(self), blind=True)


@dataclass(frozen=True)
class TargetOnly:
    """No candidate: training sees the targets alone."""

    features: ClassVar[str | None] = None
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = True

    def select(self, problem: SelectionProblem) -> Selection:
        return problem.selection(np.empty(0, dtype=np.int64), described(self), blind=True)


@dataclass(frozen=True)
class Oracle:
    """The candidates tagged as resembling the target; all of them, or a seeded sample of a size. Needs the tags."""

    features: ClassVar[str | None] = None
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("candidate_tags",)

    size: Size = None
    ratio: Ratio = None
    tag: str = "target"
    seed: Natural = 0

    def __post_init__(self) -> None:
        check_options(self)

    def select(self, problem: SelectionProblem) -> Selection:
        if problem.candidate_tags is None:
            raise InputError("the oracle selects by candidate_tags, and this pool has none")
        alike = np.flatnonzero(np.asarray(problem.candidate_tags) == self.tag)
        if not len(alike):
            raise InputError(f"no candidate has the tag {self.tag!r}")
        if self.size is not None or self.ratio is not None:
            budget = min(problem.budget(self.size, self.ratio), len(alike))
            alike = random_generator(self.seed).choice(problem.ordered(alike), budget, replace=False)
        return problem.selection(alike, described(self), blind=True)
