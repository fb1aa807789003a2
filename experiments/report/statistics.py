"""Intervals: how far a mean over a few repetitions may be off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # Student's quantiles; scipy.stats takes a second to import

FEWEST = 3  # repetitions that an interval takes


@dataclass(frozen=True)
class Interval:
    """A mean and its 95% interval; both ends NaN where the repetitions are too few to say. values: then they are shown
    themselves."""

    mean: float
    low: float = math.nan
    high: float = math.nan
    values: tuple[float, ...] = ()

    @property
    def known(self) -> bool:
        return not math.isnan(self.low)

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]" if self.known else f"{self.mean:.3f}"


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Student's interval of the mean of independent repetitions. From two of them it would be wider than any metric's
    range (12.7 standard errors each way), so it takes three."""
    numbers = np.asarray(values, dtype=np.float64)
    count, mean = len(numbers), float(numbers.mean())
    if count < FEWEST:
        return Interval(mean, values=tuple(numbers.tolist()) if count > 1 else ())
    half = float(stdtrit(count - 1, (1 + confidence) / 2) * numbers.std(ddof=1) / math.sqrt(count))
    return Interval(mean, mean - half, mean + half)


def mean_band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`mean_interval` of every column of [repetitions, n]: means, low and high ends, each [n]; both ends are the mean
    where the repetitions are too few."""
    count, mean = len(values), values.mean(axis=0)
    if count < FEWEST:
        return mean, mean, mean
    half = stdtrit(count - 1, 0.975) * values.std(axis=0, ddof=1) / math.sqrt(count)
    return mean, mean - half, mean + half


def explain(repetitions: int, what: str) -> str:
    """How the means of a table or figure were made: "over 5 training seeds"."""
    if repetitions == 1:
        return f"One {what} each, so no interval."
    if repetitions < FEWEST:
        return f"Mean over {repetitions} {what}s, each of them a small circle in figures; an interval takes {FEWEST}."
    return f"Mean and 95% interval (Student's t) over {repetitions} {what}s."


def over_repetitions(table: np.ndarray) -> np.ndarray:
    """What intervals are over, of [repetitions, trainings]: repetitions, in each of which the mean of its trainings
    counts; or the trainings of a single one."""
    return table[0] if len(table) == 1 else table.mean(axis=1)


def explain_repetitions(repetitions: int, trainings: int) -> str:
    """How the means of `over_repetitions` were made."""
    if repetitions == 1:
        return explain(trainings, "training seed")
    of_each = f", in each of which the mean of {trainings} models counts" if trainings > 1 else ""
    return f"{explain(repetitions, 'repetition')} Each has its own data, surrogates and selections{of_each}."
