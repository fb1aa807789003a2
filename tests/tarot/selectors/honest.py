"""A selector that keeps every promise, for others to be broken in one way each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tarot.common import Natural, check_options
from tarot.selection.problem import SelectionProblem
from tarot.selection.selection import Selection
from tarot.selectors.contract import Whitening
from tarot.selectors.options import Ratio, Size, described, random_generator


@dataclass(frozen=True)
class Honest:
    """Candidates of the highest similarity with the targets' mean, tilted by a seeded direction of the space."""

    features: ClassVar[str | None] = "wfd"
    whitening: ClassVar[Whitening] = "chosen"
    reference: ClassVar[bool] = False

    size: Size = None
    ratio: Ratio = None
    seed: Natural = 0

    def __post_init__(self) -> None:
        check_options(self)

    def values(self, problem: SelectionProblem) -> np.ndarray:
        direction = random_generator(self.seed).normal(size=problem.targets.shape[1])
        return problem.candidates[:].double().numpy() @ (problem.targets.mean(0).double().numpy() + 0.3 * direction)

    def select(self, problem: SelectionProblem) -> Selection:
        return problem.best(self.values(problem), self.size, self.ratio, described(self))
