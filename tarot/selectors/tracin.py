"""TracInCP: how far steps on a candidate lowered the targets' loss (Pruthi et al., 2020; theory.md 7.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tarot.attribution import tracin_values
from tarot.common import check_options
from tarot.selection import Selection, SelectionProblem
from tarot.selectors.options import Ratio, Size, described
from tarot.space import Whitening


@dataclass(frozen=True)
class TracIn:
    """Top candidates by inner product with the targets' loss gradients; every weight is 1.

    One view per checkpoint, weighted by `learning_rates`, summed over the targets.
    """

    features: ClassVar[str | None] = "gradients"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False

    size: Size = None
    ratio: Ratio = None

    def __post_init__(self) -> None:
        check_options(self)

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """The sum of the scores of all targets, float64 [N]."""
        return tracin_values(problem.candidate_views, problem.target_views, problem.learning_rates)

    def select(self, problem: SelectionProblem) -> Selection:
        return problem.best(self.values(problem), self.size, self.ratio, described(self))
