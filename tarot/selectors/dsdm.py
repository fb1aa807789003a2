"""DsDm: the candidates with the highest mean TRAK score (Engstrom et al., 2024; theory.md 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tarot.attribution import dsdm_scores
from tarot.common import NonNegative
from tarot.selection import SelectionProblem
from tarot.selectors.options import does_without
from tarot.selectors.ordered import ByValue
from tarot.space import Whitening


@dataclass(frozen=True)
class Dsdm(ByValue):
    """Top candidates by TRAK score averaged over the targets (within subtasks first); every weight is 1.

    Features are TRAK's: gradients of the model's output function, neither centred nor whitened. The residuals Q come
    from `candidate_residuals`; without them Q = 1, which a warning says. ridge: relative to the kernel's mean diagonal
    (TRAK's own default, 0, asks for more candidates than dimensions).
    """

    features: ClassVar[str | None] = "trak"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False

    ridge: NonNegative = 0.1

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """Mean TRAK score over the targets, float64 [N]."""
        if problem.candidate_residuals is None:
            does_without("DsDm", "candidate_residuals", "weighs all candidates alike, Q = 1 (theory.md 3.2)")
        return dsdm_scores(
            problem.candidate_views,
            problem.target_views,
            problem.candidate_residuals,
            self.ridge,
            problem.target_groups,
        )
