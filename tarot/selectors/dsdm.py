"""DsDm: the candidates with the highest mean TRAK score (Engstrom et al., 2024; selectors.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tarot.attribution import dsdm_scores
from tarot.problem import SelectionProblem
from tarot.selection import Selection
from tarot.selectors.options import described


@dataclass(frozen=True)
class Dsdm:
    """Top candidates by TRAK score averaged over the targets; every weight is 1.

    Features are TRAK's: gradients of the model's output function, neither centred nor whitened. The residuals Q come
    from `candidate_residuals`; without them Q = 1. regularization: ridge relative to the kernel's mean diagonal
    (TRAK's own default, 0, asks for more candidates than dimensions).
    """

    size: int | None = None
    ratio: float | None = None
    regularization: float = 0.1

    def select(self, problem: SelectionProblem) -> Selection:
        budget = problem.budget(self.size, self.ratio)
        scores = dsdm_scores(
            problem.candidate_views, problem.target_views, problem.candidate_residuals, self.regularization
        )
        return problem.selection(np.argsort(-scores, kind="stable")[:budget], described(self))
