"""One corruption of one draw of the data: the task, features of its own surrogates, and what methods make of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.stages import FeatureRecipe, Features, Valued, evaluate, train, training_seed, value
from tarot import Selection
from tarot.selectors import Selector
from tasks.classification.domain_task import DomainTask


@dataclass(frozen=True, eq=False)
class Case:
    """kind: of the corruption. seed: that everything in it was made with. features, recipes: by recipe's name.
    methods: by name, each of which says which recipe it wants."""

    kind: str
    seed: int
    task: DomainTask
    recipes: Mapping[str, FeatureRecipe]
    features: Mapping[str, Features]
    methods: Mapping[str, Selector]
    device: str
    cache: Path

    @property
    def n(self) -> int:
        return len(self.task.candidates())

    @property
    def corrupted(self) -> np.ndarray:
        """Which candidates are, bool [N]; no method sees it."""
        return self.task.candidate_tags() != "target"

    def value(self, name: str, candidates: np.ndarray | None = None) -> Valued:
        """What a method makes of all candidates, or of these alone, int64 [n]."""
        method = self.methods[name]
        recipe = method.features
        return value(self.task, self.features[recipe], self.recipes[recipe], method, name, self.cache, candidates)

    def score(self, kept: np.ndarray) -> float:
        """The task's headline metric of a model trained on these candidates, int64 [n], with the case's own seed: of
        two that are compared, nothing differs but what they were trained on."""
        selection = Selection(np.sort(kept), self.n, len(self.task.targets()), {})
        trained = train(self.task, selection, training_seed(self.seed, 500), self.cache)
        return next(iter(evaluate(self.task, trained, self.device, self.cache).values()))
