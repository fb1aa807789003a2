"""EL2N: the error norm of each candidate early in training (Paul et al., 2021; theory.md 7.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from tarot.common import InputError
from tarot.selection import Selection, SelectionProblem
from tarot.selectors.options import described
from tarot.selectors.ordered import Ordered
from tarot.space import Whitening


@dataclass(frozen=True)
class El2n(Ordered):
    """Candidates by ||softmax(f(x)) - onehot(y)||_2, averaged over early models (one view each).

    A high score marks a hard candidate, or a mislabelled one. prefer: "easy" = low scores are valuable (noisy pools:
    drop the high), "hard" = high scores are (clean pools: keep the high). window = [left, right): only candidates whose
    rank by rising score lies in that part of the pool may be selected, whatever is preferred; size, ratio and tokens
    may then be left out, and the whole window is kept. (0, 1) is everybody.

    The scores are the problem's `candidate_scores`, whatever the targets and their groups; of features only those that
    are zero are passed over.
    """

    features: ClassVar[str | None] = "el2n"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("candidate_scores",)

    prefer: Literal["easy", "hard"] = "easy"
    window: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        left, right = self.window
        if not 0 <= left < right <= 1:
            raise InputError(f"window must be 0 <= left < right <= 1; it is {self.window!r}")

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """The mean score, float64 [N], with the sign that makes the preferred end the more valuable."""
        if problem.candidate_scores is None:
            raise InputError(
                "el2n needs candidate_scores, the error norms of early models: features=el2n, with a task that has a "
                "model"
            )
        scores: NDArray[np.float64] = np.mean(problem.candidate_scores, axis=0)
        return scores if self.prefer == "hard" else -scores

    def select(self, problem: SelectionProblem) -> Selection:
        values = self.values(problem)
        scores = values if self.prefer == "hard" else -values
        first, last = (round(problem.n * edge) for edge in self.window)
        eligible = problem.ranked(-scores, np.arange(problem.n))[first:last]
        ranked = problem.ranked(values[eligible], eligible)
        budget = self.budget()
        asked = self.size is not None or self.ratio is not None or not budget.plain
        if budget.plain:
            wanted = problem.budget(self.size, self.ratio) if asked or len(eligible) == problem.n else 1
            if wanted > len(eligible):
                raise InputError(
                    f"window {tuple(self.window)} leaves {len(eligible)} of {problem.n} candidates; {wanted} wanted"
                )
        if not asked:
            return problem.selection(ranked[~problem.zero_rows(ranked)], described(self))
        return problem.selection(problem.first_within(ranked, budget), described(self))
