"""DSIR: importance resampling by hashed n-grams (Xie et al., 2023, arXiv 2302.03169; theory.md 11.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tarot.common import InputError, Natural
from tarot.features import Rows, blocks
from tarot.selection import Selection, SelectionProblem
from tarot.selectors.options import Sized, described, random_generator
from tarot.space import Whitening


@dataclass(frozen=True)
class Dsir(Sized):
    """A sample without replacement, in which a candidate's weight is how much likelier its words are among the targets
    than in the pool.

    Rows are counts (`tarot.features.ngram_counts`), at least 0. p and q are the shares of each bucket in all targets
    and in all candidates, one being added to every count; a candidate with counts c has the log-weight
    c . (log p - log q), averaged over views. Those of highest log-weight plus a Gumbel variable are taken, which draws
    by weight (Kool et al., 2019). Drawn by id, or by content where there are no ids. Every weight is 1.
    """

    features: ClassVar[str | None] = "ngrams"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False

    seed: Natural = 0

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """Log-weights of the candidates, float64 [N]."""
        views = list(zip(problem.candidate_views, problem.target_views, strict=True))
        found: NDArray[np.float64] = np.mean([log_weights(*view) for view in views], axis=0)
        return found

    def select(self, problem: SelectionProblem) -> Selection:
        budget = problem.budget(self.size, self.ratio)
        lots = np.empty(problem.n)
        lots[problem.candidate_order] = random_generator(self.seed).gumbel(size=problem.n)
        ranked = problem.ranked(self.values(problem) + lots, np.arange(problem.n))
        return problem.selection(problem.first_usable(ranked, budget), described(self))


def log_weights(candidates: Rows, targets: Rows) -> NDArray[np.float64]:
    """sum_b c_b (log p_b - log q_b) of every candidate's counts c, float64 [N]; counts are [N, B] and [M, B]."""
    ratio = np.log(_shares(targets, "targets")) - np.log(_shares(candidates, "candidates"))
    return np.concatenate([rows.double().numpy() @ ratio for _, rows in blocks(candidates, name="candidates")])


def _shares(counts: Rows, name: str) -> NDArray[np.float64]:
    """Of each bucket in all rows, one being added to every count, float64 [B]."""
    total = np.ones(counts.shape[1])
    for start, rows in blocks(counts, name=name):
        if (rows < 0).any():
            row, column = (rows < 0).nonzero()[0].tolist()
            raise InputError(
                f"{name} row {start + row} column {column} is {float(rows[row, column]):g}: dsir reads counts, "
                "which are at least 0 (features=ngrams; in Python tarot.features.ngram_counts of texts)"
            )
        total += rows.double().sum(dim=0).numpy()
    shares: NDArray[np.float64] = total / total.sum()
    return shares
