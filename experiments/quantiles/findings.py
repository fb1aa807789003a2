"""What models made of each bin, and whether it goes by how near the bin is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from experiments.report import UNTRAINED, Interval, Outcomes, mean_interval


@dataclass(frozen=True)
class Bin:
    """name: of a representation; number: from 1, the nearest. Without a number: a line across all bins."""

    name: str
    number: int | None = None

    def __str__(self) -> str:
        return self.name if self.number is None else f"{self.name}, bin {self.number}"


ZERO, RANDOM = Bin(UNTRAINED), Bin("random")


@dataclass(frozen=True, eq=False)
class Curves:
    """found: of every bin of every representation, and of the lines. size: candidates that each model learnt from.
    focus: the share of the candidates, the nearest ones, that is cut into so many bins."""

    found: Outcomes[Bin]
    representations: tuple[str, ...]
    bins: int
    focus: float
    size: int

    def of(self, name: str) -> list[Bin]:
        """The bins of a representation, the nearest first."""
        return [Bin(name, number + 1) for number in range(self.bins)]

    def harm(self, points: list[Bin], metric: str) -> np.ndarray:
        """The metric with the sign by which less is better, [points, repetitions]."""
        sign = 1.0 if self.found.lower_is_better(metric) else -1.0
        return sign * np.stack([self.found.numbers(point, metric) for point in points])

    def correlation(self, name: str, metric: str) -> Interval:
        """Spearman's of bin and loss (or of a metric's negative, where more is better): 1 where every bin is worse than
        all nearer ones, 0 where nearness says nothing. Of each repetition; where all bins are alike it is 0."""
        return mean_interval([_rank_correlation(column) for column in self.harm(self.of(name), metric).T])

    def step(self, name: str, metric: str) -> Interval:
        """How far the metric of the nearest bin is above that of random candidates, pair by pair."""
        return self.found.difference(Bin(name, 1), RANDOM, metric)


def _rank_correlation(losses: np.ndarray) -> float:
    if np.ptp(losses) == 0:
        return 0.0
    return float(spearmanr(np.arange(len(losses)), losses).statistic)
