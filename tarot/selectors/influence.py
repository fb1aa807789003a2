"""Influence functions (Koh and Liang, 2017; theory.md 7.3): candidates that lower the targets' loss most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tarot.common import InputError
from tarot.selection import SelectionProblem
from tarot.selectors.ordered import ByValue
from tarot.space import Whitening


@dataclass(frozen=True)
class Influence(ByValue):
    """Top candidates by influence on the mean target loss; every weight is 1.

    Influences are measured on the model itself, not on features: `candidate_scores`, one [N] per checkpoint, as
    `tarot.influence_scores` makes them. Several checkpoints' are averaged, as they are.
    """

    features: ClassVar[str | None] = "influence"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("candidate_scores",)

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """Float64 [N], positive = helpful."""
        if problem.candidate_scores is None:
            raise InputError(
                "influence needs candidate_scores, measured on the model: features=influence on the command line, "
                "tarot.influence_scores(...).scores in Python"
            )
        values: NDArray[np.float64] = np.mean(
            [np.asarray(view, dtype=np.float64) for view in problem.candidate_scores], axis=0
        )
        return values
