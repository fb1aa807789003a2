"""What was found of the arms, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from experiments.report import Interval, mean_interval

if TYPE_CHECKING:
    from experiments.distillation.arms import Few

REFERENCE = "random"
ALL = "all"


@dataclass(frozen=True)
class Cell:
    """An arm at a number of images per class, with the number of its seed."""

    arm: str
    m: int
    number: int


@dataclass(eq=False)
class Findings:
    """accuracies: by (arm, student, labels, m), one for each seed; m is 0 for `all`. distances: of a cell, squared
    2-Wasserstein, by class. features: of a cell's images, [C, m, d]. few: the images themselves. seed: the first.
    classes: images of each."""

    arms: list[str]
    per_class: list[int]
    labels: list[str]
    students: list[str]
    seeds: int
    seed: int
    names: tuple[str, ...]
    teacher: float
    classes: list[int] = field(default_factory=list)
    accuracies: dict[tuple[str, str, str, int], list[float]] = field(default_factory=dict)
    distances: dict[Cell, list[float]] = field(default_factory=dict)
    features: dict[Cell, np.ndarray] = field(default_factory=dict)
    few: dict[Cell, Few] = field(default_factory=dict)

    @property
    def small(self) -> list[str]:
        """The arms that have a number per class."""
        return [arm for arm in self.arms if arm != ALL]

    def values(self, arm: str, labels: str, m: int, student: str | None = None) -> np.ndarray:
        kind = self.students[0] if student is None else student
        return np.array(self.accuracies[arm, kind, labels, 0 if arm == ALL else m])

    def accuracy(self, arm: str, labels: str, m: int, student: str | None = None) -> Interval:
        return mean_interval(self.values(arm, labels, m, student))

    def gain(self, arm: str, labels: str, m: int) -> Interval:
        """Over random images, in pairs of one seed each."""
        return mean_interval(self.values(arm, labels, m) - self.values(REFERENCE, labels, m))

    def recovery(self, arm: str, m: int) -> Interval:
        """How far hard labels stay behind all images."""
        return mean_interval(self.values(ALL, "hard", m) - self.values(arm, "hard", m))

    def distance(self, arm: str, m: int) -> float:
        return float(np.mean([self.distances[Cell(arm, m, number)] for number in range(self.seeds)]))
