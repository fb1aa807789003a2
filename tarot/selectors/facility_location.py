"""Facility location: candidates that together lie near every target, greedily (theory.md 11.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tarot.selection import Selection, SelectionProblem
from tarot.selectors.options import Sized, described
from tarot.selectors.similarities import Lazily, Similarities
from tarot.space import Whitening


@dataclass(frozen=True)
class FacilityLocation(Sized):
    """Greedy maximisation of F(S) = sum over targets of the largest cosine with a chosen candidate, at least 0.

    F is monotone and submodular, so that F is at least 1 - 1/e of the largest there is for as many. Where no candidate
    adds anything, the rest are those of highest mean cosine with all targets. Equals go by id, or by content. Gains are
    computed anew only of candidates that may be the next (lazy evaluation); no matrix of more than 1 GB is held. The
    selection's `curve` has F for every size ("covered").
    """

    features: ClassVar[str | None] = "wfd"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False

    def select(self, problem: SelectionProblem) -> Selection:
        budget = problem.budget(self.size, self.ratio)
        chosen, covered = covering(Similarities(problem), budget)
        return problem.selection(chosen, described(self), curve={"covered": covered})


def covering(similarities: Similarities, budget: int) -> tuple[NDArray[np.int64], list[float]]:
    """The greedy choice, int64 [budget] in its order, and F after each."""
    similarities.check(budget)
    gains, means = np.full(similarities.n, -np.inf), np.full(similarities.n, -np.inf)
    for start, block in similarities.blocks():
        here = slice(start, start + len(block))
        usable = similarities.usable[here]
        gains[here][usable] = block.clamp(min=0).double().sum(dim=1).numpy()[usable]
        means[here][usable] = block.double().mean(dim=1).numpy()[usable]

    lazily = Lazily(gains, similarities.places)
    cover = np.zeros(similarities.m, dtype=np.float32)

    def gain(candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        gained: NDArray[np.float64] = np.maximum(similarities.of(candidates) - cover, 0).sum(axis=1, dtype=np.float64)
        return gained

    chosen: list[int] = []
    covered: list[float] = []
    while len(chosen) < budget:
        candidate, gained = lazily.best(gain)
        if gained <= 0:
            means[chosen] = -np.inf
            rest = np.lexsort((similarities.places, -means))[: budget - len(chosen)]
            covered += [float(cover.sum(dtype=np.float64))] * len(rest)
            return np.concatenate([np.array(chosen, dtype=np.int64), rest]), covered
        chosen.append(candidate)
        cover = np.maximum(cover, similarities.of(np.array([candidate]))[0])
        covered.append(float(cover.sum(dtype=np.float64)))
    return np.array(chosen, dtype=np.int64), covered
