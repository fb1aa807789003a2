"""BIDS: the candidate that helps most where the chosen help least (Dai et al., 2025; theory.md 11.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tarot.selection import Selection, SelectionProblem
from tarot.selectors.options import Sized, described
from tarot.selectors.similarities import Lazily, Similarities
from tarot.space import Whitening

_CONSTANT = 1e-6  # standard deviation of cosines, below which it is float32's rounding


@dataclass(frozen=True)
class Bids(Sized):
    """Balanced influences. Each target's cosines with the candidates are standardised to mean 0 and deviation 1, so
    that no target counts for more because all its influences are large. Then, one by one, the candidate i of largest
    max_j (A_ij - mean of the chosen's A_.j). Equals go by id, or by content.

    Values are computed anew only of candidates that may be the next; no matrix of more than 1 GB is held.
    """

    features: ClassVar[str | None] = "less"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False

    def select(self, problem: SelectionProblem) -> Selection:
        budget = problem.budget(self.size, self.ratio)
        return problem.selection(balanced(Similarities(problem), budget), described(self))


def balanced(similarities: Similarities, budget: int) -> NDArray[np.int64]:
    """The candidates in the order in which they are taken, int64 [budget]."""
    similarities.check(budget)
    mean, deviation = similarities.moments
    scale = np.where(deviation > _CONSTANT, 1 / np.maximum(deviation, _CONSTANT), 0.0)

    highest = np.full(similarities.n, -np.inf)
    for start, block in similarities.blocks():
        here = slice(start, start + len(block))
        usable = similarities.usable[here]
        highest[here][usable] = ((block.numpy()[usable] - mean) * scale).max(axis=1)

    lazily = Lazily(highest, similarities.places)
    total = np.zeros(similarities.m)  # of the chosen candidates' influences
    average = total

    def standardised(candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        return (similarities.of(candidates) - mean) * scale

    def lead(candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        ahead: NDArray[np.float64] = (standardised(candidates) - average).max(axis=1)
        return ahead

    chosen: list[int] = []
    while len(chosen) < budget:
        candidate, _ = lazily.best(lead)
        chosen.append(candidate)
        total = total + standardised(np.array([candidate]))[0]
        before, average = average, total / len(chosen)
        lazily.lifted(max(0.0, float((before - average).max())))
    return np.array(chosen, dtype=np.int64)
