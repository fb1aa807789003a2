"""How good models get by method and by how much is selected: ratios x selectors x seeds, and what differs from what."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from experiments.frame.methods import COMMON, features_of, known, method, notes, options_of, refuse
from experiments.frame.repetitions import Repetition, repeated
from experiments.frame.run import Run
from experiments.frame.trainings import evaluate_all, refuse_metrics, train_all
from experiments.ratio_sweep.report import result
from experiments.report import Arm, Findings, Outcome, Result
from experiments.stages import OF_ONE_RECIPE, FeatureRecipe
from tarot import InputError, Selection
from tarot.common import Count, Natural, check_options, within
from tarot.selectors import REFERENCES, SELECTORS
from tasks.task import Task

log = logging.getLogger("tarot")


@dataclass(frozen=True)
class RatioSweep:
    """conf/experiment/ratio_sweep.yaml says what each option means."""

    task_type: ClassVar = Task
    unused: ClassVar[frozenset[str]] = frozenset({"selector", "selector.*", *OF_ONE_RECIPE})

    selectors: Sequence[str]
    recipes: Mapping[str, FeatureRecipe]
    options: Mapping[str, Mapping[str, Any]] | None = None
    ratios: Sequence[Annotated[float, within("(0, 1]")]] = (0.05, 0.1, 0.2, 0.5)
    references: Sequence[str] = REFERENCES
    seeds: Count = 5
    trainings: Count = 1
    tsne_points: Natural = 1500
    metrics: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_options(self, "experiment")
        if not self.selectors:
            raise InputError("experiment.selectors must name one or more")
        known("experiment.selectors", self.selectors, [name for name in SELECTORS if name not in REFERENCES])
        known("experiment.references", self.references, REFERENCES)
        known("experiment.options", self.options or {}, [*self.selectors, *self.references])
        if len(set(self.ratios)) < len(self.ratios):
            raise InputError(f"experiment.ratios has one twice: {list(self.ratios)}")
        if self._sized() and not self.ratios:
            raise InputError(
                f"experiment.ratios must have one or more: {self._sized()[0]} does not choose its own size"
            )
        for name, options in (self.options or {}).items():
            if {"size", "ratio"} & set(options) and options.get("size") != "auto":
                raise InputError(f"experiment.options.{name}: how many are selected is said by experiment.ratios")
        for name in (*self.selectors, *self.references):
            self._method(name, 0)  # options that a method does not take are said before anything is computed

    def run(self, run: Run[Task]) -> Result:
        task = run.task
        refuse("experiment.selectors", self.selectors, self.recipes, task)
        n = len(task.ids("candidates"))
        for ratio in self.ratios:
            if ratio * n < 1:
                raise InputError(f"experiment.ratios: {ratio} of {n} candidates selects none")
        refuse_metrics(run, self.metrics)
        references = [name for name in self.references if name != "oracle" or task.candidate_tags() is not None]
        if len(references) < len(self.references):
            log.info("the candidates of %s have no tags, so there is no oracle", run.name["task"])

        chosen: list[dict[Arm, Selection]] = []
        distances: list[dict[Arm, float]] = []
        repetitions: list[Repetition] = []
        wanted = [COMMON, *(features_of(name) for name in self.selectors)]
        for one in repeated(run, self.seeds, self.recipes, wanted):
            with run.clock("select"):
                selections = dict(self._select(one, references))
                chosen.append(selections)
                distances.append(_distances(one, selections))
            one.release()
            repetitions.append(one)
        of_each = [{arm: [selection] * self.trainings for arm, selection in arms.items()} for arms in chosen]
        metrics = evaluate_all(run, repetitions, train_all(run, repetitions, of_each))
        found = Findings(
            {
                arm: [
                    Outcome(one.task, chosen[i][arm], distances[i][arm], metrics[i][arm])
                    for i, one in enumerate(repetitions)
                ]
                for arm in chosen[0]
            },
            sized=self._sized(),
        )
        with run.clock("figures"):
            problem = repetitions[0].benches[COMMON].problem()
            said = notes(self.selectors, self.recipes, task)
            return result(run, found, problem, self.tsne_points, self.metrics, said)

    def _sized(self) -> list[str]:
        """The selectors that are told how many to select."""
        return [name for name in self.selectors if self._takes_size(name)]

    def _takes_size(self, name: str) -> bool:
        return "size" in options_of(name) and (self.options or {}).get(name, {}).get("size") != "auto"

    def _method(self, name: str, seed: int, **size: Any) -> Any:
        return method(name, (self.options or {}).get(name, {}), seed, **size)

    def _select(self, one: Repetition[Task], references: Sequence[str]) -> Iterator[tuple[Arm, Selection]]:
        """Every arm's choice in one repetition."""

        def choice(arm: Arm, **size: Any) -> tuple[Arm, Selection]:
            bench = one.benches[features_of(arm.selector)]
            try:
                return arm, bench.select(self._method(arm.selector, one.seed, **size))
            except InputError as error:
                raise InputError(f"{arm}: {error}") from error

        own = dict(choice(Arm(name)) for name in self.selectors if not self._takes_size(name))
        for name in self.selectors:
            if not self._takes_size(name):
                yield Arm(name), own[Arm(name)]
                continue
            for ratio in self.ratios:
                yield choice(Arm(name, ratio), ratio=ratio)
            for other, selection in own.items():
                yield choice(Arm(name, other.selector), size=len(selection))
        for name in references:
            yield choice(Arm(name))


def _distances(one: Repetition[Task], selections: Mapping[Arm, Selection]) -> dict[Arm, float]:
    """To the targets, in the one space in which selections of all methods are measured."""
    elsewhere = {arm for arm in selections if features_of(arm.selector) != COMMON}
    measured = iter(one.benches[COMMON].distances([found for arm, found in selections.items() if arm in elsewhere]))
    return {arm: next(measured) if arm in elsewhere else found.ot_distance for arm, found in selections.items()}
