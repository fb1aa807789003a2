"""What valuation is worth to training: the worst candidates are dropped, and a model learns from the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from experiments.corruption.case import Case
from tarot import InputError
from tarot.common import Count, check_options, within

Scores = dict[str, list[float]]  # arm -> the headline metric, one number per fraction or part


@dataclass(frozen=True)
class Prune:
    """kinds: corruptions whose candidates are pruned. methods: by whose values; beside them `random`, and the `oracle`
    that drops what is corrupted first. fractions: of the candidates that are dropped."""

    kinds: Sequence[str]
    methods: Sequence[str]
    fractions: Sequence[Annotated[float, within("[0, 1)")]]

    def __post_init__(self) -> None:
        check_options(self, "experiment.prune")
        if not self.fractions:
            raise InputError("experiment.prune.fractions must name one or more")

    @property
    def trainings(self) -> int:
        """Of one case."""
        return len(self.fractions) * (len(self.methods) + 2)

    def run(self, case: Case, advance: Callable[[int], object]) -> Scores:
        worst_first = {name: np.argsort(case.value(name).values, kind="stable") for name in self.methods}
        chance = shuffled(case)
        worst_first |= {"random": chance, "oracle": oracle_order(chance, case.corrupted)}
        kept = {
            name: [order[dropped(fraction, case.n) :] for fraction in self.fractions]
            for name, order in worst_first.items()
        }
        return _scored(case, kept, advance)


@dataclass(frozen=True)
class Incremental:
    """SAVA's Algorithm 2: candidates arrive in `parts` of one size; after each, all that have arrived are valued
    against the targets, the worst `prune` of them are left out and a model learns from the others. Beside the methods
    stand `random` pruning and `no pruning`.

    What was left out is valued again with the next part, and the surrogates that gave the features have seen all parts.
    """

    kinds: Sequence[str]
    methods: Sequence[str]
    parts: Count
    prune: Annotated[float, within("[0, 1)")]

    def __post_init__(self) -> None:
        check_options(self, "experiment.incremental")

    @property
    def trainings(self) -> int:
        """Of one case."""
        return self.parts * (len(self.methods) + 2)

    def sizes(self, n: int) -> list[int]:
        """How many of N candidates have arrived after each part."""
        if self.parts > n:
            raise InputError(f"experiment.incremental.parts={self.parts} is more than the {n} candidates")
        return [round(n * (part + 1) / self.parts) for part in range(self.parts)]

    def run(self, case: Case, advance: Callable[[int], object]) -> Scores:
        arrival = shuffled(case)
        kept: dict[str, list[np.ndarray]] = {name: [] for name in (*self.methods, "random", "no pruning")}
        for size in self.sizes(case.n):
            arrived = np.sort(arrival[:size])
            drop = dropped(self.prune, size)
            chance = np.random.default_rng((case.seed, size)).permutation(arrived)
            kept["random"].append(chance[drop:])
            kept["no pruning"].append(arrived)
            for name in self.methods:
                values = case.value(name, None if size == case.n else arrived).values
                kept[name].append(arrived[np.argsort(values, kind="stable")[drop:]])
        return _scored(case, kept, advance)


def _scored(case: Case, kept: Mapping[str, Sequence[np.ndarray]], advance: Callable[[int], object]) -> Scores:
    """What the candidates are worth that each arm keeps."""
    found = iter(case.scores([candidates for of_arm in kept.values() for candidates in of_arm], advance))
    return {name: [next(found) for _ in of_arm] for name, of_arm in kept.items()}


def dropped(fraction: float, n: int) -> int:
    """How many of N a fraction is; 1e-9: .3 of 10 is 3."""
    return math.floor(fraction * n + 1e-9)


def shuffled(case: Case) -> np.ndarray:
    """The candidates in an order of chance, the case's own."""
    return np.random.default_rng((case.seed, 7)).permutation(case.n)


def oracle_order(order: np.ndarray, corrupted: np.ndarray) -> np.ndarray:
    """`order` with all that is corrupted [N] before all that is not."""
    return np.concatenate([order[corrupted[order]], order[~corrupted[order]]])
