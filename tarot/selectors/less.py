"""LESS: the candidates that serve one subtask best (Xia et al., 2024; theory.md 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from tarot.attribution import less_scores
from tarot.selection import SelectionProblem
from tarot.selectors.options import does_without
from tarot.selectors.ordered import ByValue
from tarot.space import Whitening


@dataclass(frozen=True)
class Less(ByValue):
    """Top candidates by influence on the subtask they help most; every weight is 1.

    Features: Adam-preconditioned gradients of candidates, plain gradients of targets, one view per checkpoint, weighted
    by `learning_rates`; without them all alike, which a warning says. Subtasks are `target_groups`, of any sizes;
    without them all targets are one. variant: "released" averages cosines within a subtask, as the authors' code does,
    rather than gradients.
    """

    features: ClassVar[str | None] = "less"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False

    variant: Literal["paper", "released"] = "paper"

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """The largest influence on any subtask, float64 [N]."""
        if problem.learning_rates is None and len(problem.candidate_views) > 1:
            does_without("LESS", "learning_rates", "weighs all checkpoints alike (theory.md 2)")
        scores = less_scores(
            problem.candidate_views,
            problem.target_views,
            problem.learning_rates,
            problem.target_groups,
            variant=self.variant,
        )
        values: NDArray[np.float64] = scores.max(axis=1)
        return values
