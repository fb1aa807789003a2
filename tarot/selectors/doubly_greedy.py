"""Doubly greedy: the candidates that are most similar to any one target (theory.md 11.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tarot.features import blocks
from tarot.selection import Selection, SelectionProblem
from tarot.selectors.options import Sized, described
from tarot.space import Whitening


@dataclass(frozen=True)
class DoublyGreedy(Sized):
    """Highest cosine with the nearest target. No target is served on purpose: a crowd of targets in one place, or one
    target that lies in a crowd of candidates, may take the whole budget."""

    features: ClassVar[str | None] = "wfd"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """Cosine with the nearest target, float64 [N]."""
        targets = problem.targets
        nearest = [(rows @ targets.T).amax(dim=1).numpy() for _, rows in blocks(problem.candidates, name="candidates")]
        return np.concatenate(nearest).astype(np.float64)

    def select(self, problem: SelectionProblem) -> Selection:
        return problem.best(self.values(problem), self.size, self.ratio, described(self))
