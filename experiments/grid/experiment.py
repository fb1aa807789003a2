"""Every algorithm on every representation at every budget, beside the lines that a reader compares with."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from experiments.frame.methods import (
    known,
    method,
    options_of,
    refuse_lacking,
    refuse_on,
    refuse_optimizer,
    representations,
)
from experiments.frame.repetitions import Repetition, repeated
from experiments.frame.run import Run
from experiments.frame.trainings import evaluate_all, refuse_metrics, train_all
from experiments.grid.report import Landscape, result
from experiments.report import UNTRAINED, Arm, Findings, Outcome, Result
from experiments.stages import OF_ONE_RECIPE, FeatureRecipe
from tarot import InputError, Selection
from tarot.common import Count, check_options, within
from tarot.selectors import REFERENCES, SELECTORS
from tasks.task import Task

log = logging.getLogger("tarot")
_LINES = ("random", *REFERENCES, UNTRAINED)


@dataclass(frozen=True)
class Grid:
    """conf/experiment/grid.yaml says what each option means."""

    task_type: ClassVar = Task
    unused: ClassVar[frozenset[str]] = frozenset({"selector", "selector.*", *OF_ONE_RECIPE})

    representations: Sequence[str]
    algorithms: Sequence[str]
    recipes: Mapping[str, FeatureRecipe]
    options: Mapping[str, Mapping[str, Any]] | None = None
    ratios: Sequence[Annotated[float, within("(0, 1]")]] = (0.05, 0.2)
    lines: Sequence[str] = _LINES
    against: str = "tarot_fixed"
    seeds: Count = 3
    trainings: Count = 1
    metrics: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_options(self, "experiment")
        known("experiment.algorithms", self.algorithms, [name for name in SELECTORS if name not in _LINES])
        known("experiment.lines", self.lines, _LINES)
        known("experiment.against", [self.against], self.algorithms)
        known("experiment.options", self.options or {}, self.algorithms)
        if not self.ratios or len(set(self.ratios)) < len(self.ratios):
            raise InputError(f"experiment.ratios must name one or more, each once; they are {list(self.ratios)}")
        for name in self.algorithms:
            if "size" not in options_of(name):
                raise InputError(f"experiment.algorithms: {name} chooses its own size, and here sizes are given")
            if {"size", "ratio"} & set((self.options or {}).get(name, {})):
                raise InputError(f"experiment.options.{name}: how many are selected is said by experiment.ratios")
            self._method(name, 0, 1.0)  # options that it does not take are said before anything is computed
            for kind, recipe in self._recipes().items():
                refuse_on(f"experiment.representations, {kind}", name, recipe)

    def run(self, run: Run[Task]) -> Result:
        task, recipes = run.task, self._recipes()
        n = len(task.ids("candidates"))
        for ratio in self.ratios:
            if ratio * n < 1:
                raise InputError(f"experiment.ratios: {ratio} of {n} candidates selects none")
        for name, recipe in recipes.items():
            refuse_optimizer("experiment.representations", name, recipe, task)
        for name in self.algorithms:
            refuse_lacking("experiment.algorithms", name, SELECTORS[name], task)
        refuse_metrics(run, self.metrics)
        lines = [name for name in self.lines if name != "oracle" or task.candidate_tags() is not None]
        repetitions: list[Repetition[Task]] = []
        chosen: list[dict[Arm, Selection]] = []
        distances: list[dict[Arm, dict[str, float]]] = []
        for one in repeated(run, self.seeds, recipes, recipes):
            with run.clock("select"):
                chosen.append(dict(self._select(one, lines)))
            one.release()
            with run.clock("distances"):
                distances.append(_distances(one, chosen[-1]))
            repetitions.append(one)
        learnt = [
            {arm: [None if arm.selector == UNTRAINED else one] * self.trainings for arm, one in by_arm.items()}
            for by_arm in chosen
        ]
        metrics = evaluate_all(run, repetitions, train_all(run, repetitions, learnt))
        first = next(iter(recipes))
        outcomes = {
            arm: [
                Outcome(one.task, chosen[i][arm], distances[i][arm][arm.features or first], metrics[i][arm])
                for i, one in enumerate(repetitions)
            ]
            for arm in chosen[0]
        }
        found = Landscape(
            findings=Findings(outcomes, sized=list(self.algorithms)),
            representations=tuple(recipes),
            algorithms=tuple(self.algorithms),
            ratios=tuple(sorted(self.ratios)),
            against=self.against,
            distances={arm: [of_arm[arm] for of_arm in distances] for arm in outcomes},
            features=[one.benches[name].features().fingerprint for one in repetitions for name in recipes],
        )
        return result(run, found, self.metrics)

    def _recipes(self) -> dict[str, FeatureRecipe]:
        return representations("experiment.representations", self.representations, self.recipes)

    def _method(self, name: str, seed: int, ratio: float) -> Any:
        return method(name, (self.options or {}).get(name, {}), seed, ratio=ratio)

    def _select(self, one: Repetition[Task], lines: Sequence[str]) -> Iterator[tuple[Arm, Selection]]:
        """Every arm's choice in one repetition."""
        for features, bench in one.benches.items():
            for name in self.algorithms:
                for ratio in self.ratios:
                    arm = Arm(name, ratio, features)
                    try:
                        yield arm, bench.select(self._method(name, one.seed, ratio))
                    except InputError as error:
                        raise InputError(f"{arm}: {error}") from error
        for name in lines:
            if name == "random":
                for ratio in self.ratios:
                    yield Arm(name, ratio), one.bench.select(self._method(name, one.seed, ratio))
            else:
                what = "target_only" if name == UNTRAINED else name
                yield Arm(name), one.bench.select(method(what, {}, one.seed))


def _distances(one: Repetition[Task], chosen: Mapping[Arm, Selection]) -> dict[Arm, dict[str, float]]:
    """Arm -> representation -> how far its selection is from the targets there."""
    found: dict[Arm, dict[str, float]] = {arm: {} for arm in chosen}
    for name, bench in one.benches.items():
        for arm, distance in zip(chosen, bench.distances(list(chosen.values())), strict=True):
            found[arm][name] = distance
    return found
