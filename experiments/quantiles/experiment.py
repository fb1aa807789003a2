"""Candidates in the order of a selector, cut into bins from near to far; a model is trained on a draw from each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from experiments.frame.methods import (
    known,
    method,
    options_of,
    refuse_lacking,
    refuse_on,
    refuse_optimizer,
    representations,
)
from experiments.frame.repetitions import Repetition, repeated, training_seed
from experiments.frame.run import Run
from experiments.frame.trainings import evaluate_all, refuse_metrics, train_all
from experiments.quantiles.findings import RANDOM, ZERO, Bin, Curves
from experiments.quantiles.report import result
from experiments.report import Outcome, Outcomes, Result
from experiments.stages import OF_ONE_RECIPE, FeatureRecipe
from tarot import InputError, Selection
from tarot.common import Count, at_least, check_options, within
from tarot.selectors import SELECTORS
from tasks.task import Task


@dataclass(frozen=True)
class Quantiles:
    """conf/experiment/quantiles.yaml says what each option means."""

    task_type: ClassVar = Task
    unused: ClassVar[frozenset[str]] = frozenset({"selector", "selector.*", *OF_ONE_RECIPE})

    representations: Sequence[str]
    recipes: Mapping[str, FeatureRecipe]
    order: str = "round_robin"
    options: Mapping[str, Any] | None = None
    bins: Annotated[int, at_least(2)] = 10
    focus: Annotated[float, within("(0, 1]")] = 1.0
    size: Count | None = None
    share: Annotated[float, within("(0, 1]")] = 0.5
    seeds: Count = 3
    trainings: Count = 1
    metrics: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_options(self, "experiment")
        known("experiment.order", [self.order], [name for name in SELECTORS if "size" in options_of(name)])
        if "size" in (self.options or {}) or "ratio" in (self.options or {}):
            raise InputError(
                "experiment.options: how many are in a bin is said by experiment.bins and experiment.focus"
            )
        self._selector(0, 1)  # options that it does not take are said before anything is computed
        for name, recipe in self._recipes().items():
            refuse_on(f"experiment.representations, {name}", self.order, recipe)

    def run(self, run: Run[Task]) -> Result:
        recipes = self._recipes()
        for name, recipe in recipes.items():
            refuse_optimizer("experiment.representations", name, recipe, run.task)
        refuse_lacking("experiment.order", self.order, SELECTORS[self.order], run.task)
        n = len(run.task.ids("candidates"))
        refuse_metrics(run, self.metrics)
        edges = self._edges(n)
        size = self._size(edges)
        repetitions: list[Repetition[Task]] = []
        drawn: list[dict[Bin, list[Selection | None]]] = []
        for one in repeated(run, self.seeds, recipes, recipes):
            with run.clock("order"):
                drawn.append(self._drawn(one, edges, size))
            repetitions.append(one)
        metrics = evaluate_all(run, repetitions, train_all(run, repetitions, drawn))
        nothing = Selection(np.empty(0, dtype=np.int64), n, len(run.task.ids("targets")), {})
        outcomes = {
            point: [
                Outcome(one.task, drawn[i][point][0] or nothing, float("nan"), metrics[i][point])
                for i, one in enumerate(repetitions)
            ]
            for point in drawn[0]
        }
        found = Curves(Outcomes(outcomes), tuple(recipes), self.bins, self.focus, size)
        return result(run, found, self.order, self.metrics)

    def _recipes(self) -> dict[str, FeatureRecipe]:
        return representations("experiment.representations", self.representations, self.recipes)

    def _selector(self, seed: int, size: int) -> Any:
        return method(self.order, self.options or {}, seed, size=size)

    def _edges(self, n: int) -> list[int]:
        """Where bins end, in the order of candidates, from 0. Raises InputError where there are too few for them."""
        edges = [round(self.focus * n * place / self.bins) for place in range(self.bins + 1)]
        if len(set(edges)) < len(edges):
            raise InputError(f"experiment.bins: {edges[-1]} of {n} candidates cannot be cut into {self.bins} bins")
        return edges

    def _size(self, edges: Sequence[int]) -> int:
        """Candidates that are drawn from each bin."""
        least = int(np.diff(edges).min())
        size = self.size or max(1, int(self.share * least + 1e-9))
        if size > least:
            raise InputError(f"experiment.size: {size} candidates cannot be drawn from a bin of {least}")
        return size

    def _drawn(self, one: Repetition[Task], edges: Sequence[int], size: int) -> dict[Bin, list[Selection | None]]:
        """What each training learns from, in one repetition; None: from nothing."""
        n, m = len(one.task.ids("candidates")), len(one.task.ids("targets"))

        def draws(members: np.ndarray, stream: int) -> list[Selection | None]:
            generators = (
                np.random.default_rng([training_seed(one.seed, training), stream]) for training in range(self.trainings)
            )
            return [
                Selection(np.sort(generator.choice(members, size, replace=False)), n, m, {"class": "Bin", "of": n})
                for generator in generators
            ]

        found: dict[Bin, list[Selection | None]] = {ZERO: [None] * self.trainings, RANDOM: draws(np.arange(n), 0)}
        inner = (
            edges[1:-1] if edges[-1] == n else edges[1:]
        )  # the last bin of all has those that cannot be ordered, too
        for name, bench in one.benches.items():
            strata = bench.strata([self._selector(one.seed, edge) for edge in inner])
            for number in range(self.bins):
                found[Bin(name, number + 1)] = draws(np.flatnonzero(strata == number), number + 1)
        one.release()
        return found
