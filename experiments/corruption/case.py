"""One corruption of one draw of the data: the task, features of its own surrogates, and what methods make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.frame.methods import features_of
from experiments.frame.repetitions import Repetition, training_seed
from experiments.stages import Evaluation, Training, Valued, evaluate_each, train_each
from tarot import Selection
from tarot.selectors import Selector
from tasks.classification.domain_task import DomainTask


@dataclass(frozen=True, eq=False)
class Case:
    """kind: of the corruption. repetition: what it is made with. methods: by name, each of which says which recipe it
    wants."""

    kind: str
    repetition: Repetition[DomainTask]
    methods: Mapping[str, Selector]

    @property
    def seed(self) -> int:
        return self.repetition.seed

    @property
    def task(self) -> DomainTask:
        return self.repetition.task

    @property
    def n(self) -> int:
        return len(self.task.candidates())

    @property
    def corrupted(self) -> np.ndarray:
        """Which candidates are, bool [N]; no method sees it."""
        return self.task.candidate_tags() != "target"

    def value(self, name: str, candidates: np.ndarray | None = None) -> Valued:
        """What a method makes of all candidates, or of these alone, int64 [n]."""
        bench = self.repetition.benches[features_of(name)]
        return bench.value(self.methods[name], name, candidates)

    def scores(self, kept: Sequence[np.ndarray], advance: Callable[[int], object]) -> list[float]:
        """The task's headline metric of a model trained on each of these sets of candidates, int64 [n], with the case's
        own seed: of two that are compared, nothing differs but what they were trained on. advance: told of each."""
        m, benches = len(self.task.targets()), [self.repetition.bench]
        selections = [Selection(np.sort(candidates), self.n, m, {}) for candidates in kept]
        seed = training_seed(self.seed, 500)
        trained = train_each(benches, [Training(0, selection, seed) for selection in selections], advance)
        metrics = evaluate_each(benches, [Evaluation(0, path) for path in trained], lambda _: None)
        return [next(iter(found.values())) for found in metrics]
