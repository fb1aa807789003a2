"""TracInCP: how far steps on a candidate lowered the targets' loss (Pruthi et al., 2020; theory.md 7.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tarot.attribution import tracin_values
from tarot.selection import SelectionProblem
from tarot.selectors.options import does_without
from tarot.selectors.ordered import ByValue
from tarot.space import Whitening


@dataclass(frozen=True)
class TracIn(ByValue):
    """Top candidates by inner product with the targets' loss gradients; every weight is 1.

    One view per checkpoint, weighted by `learning_rates` (without them all alike, which a warning says), summed over
    the targets.
    """

    features: ClassVar[str | None] = "gradients"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """The sum of the scores of all targets, float64 [N]."""
        if problem.learning_rates is None and len(problem.candidate_views) > 1:
            does_without("TracIn", "learning_rates", "weighs all checkpoints alike (theory.md 7.2)")
        return tracin_values(problem.candidate_views, problem.target_views, problem.learning_rates)
