"""The paper's Figure 8: how many folds tarot_otm should have. What it selects by them, and what models make of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from experiments.fold_ablation.report import Folds, result
from experiments.frame.repetitions import Repetition, repeated
from experiments.frame.run import Run
from experiments.frame.trainings import evaluate_all, train_all
from experiments.report import Outcome, Result
from tarot import InputError, Selection
from tarot.common import Count, check_options
from tarot.selectors import TarotOTM
from tasks.task import Split, Task

PAPER = (1, 2, 5, 10, 20)
_SPLITS: tuple[Split, ...] = ("test", "targets")


@dataclass(frozen=True)
class FoldAblation:
    """conf/experiment/fold_ablation.yaml says what each option means."""

    task_type: ClassVar = Task
    unused: ClassVar[frozenset[str]] = frozenset()

    folds: Sequence[Count] | None = None
    seeds: Count = 3
    trainings: Count = 1

    def __post_init__(self) -> None:
        check_options(self, "experiment")
        if self.folds is not None and (not self.folds or len(set(self.folds)) < len(self.folds)):
            raise InputError(f"experiment.folds must name one or more numbers, each once; they are {list(self.folds)}")

    def run(self, run: Run[Task]) -> Result:
        if not isinstance(run.selector, TarotOTM):
            raise InputError(
                f"experiment=fold_ablation is about the folds of selector=tarot_otm; {run.name['selector']} has none"
            )
        counts = self._counts(run)
        repetitions = [*repeated(run, self.seeds, {"own": run.recipe}, ["own"])]
        with run.clock("select"):
            chosen = [self._select(run.selector, one, counts) for one in repetitions]
        for one in repetitions:
            one.release()
        of_each = [{folds: [selection] * self.trainings for folds, selection in one.items()} for one in chosen]
        models = train_all(run, repetitions, of_each)
        outcomes: dict[str, Any] = {where: evaluate_all(run, repetitions, models, where) for where in _SPLITS}
        return result(run, self._found(run, run.selector, repetitions, chosen, outcomes))

    def _counts(self, run: Run[Task]) -> list[int]:
        """The numbers of folds, increasing. Raises InputError for one that there are too few targets for."""
        targets = len(run.task.ids("targets"))
        if self.folds is None:
            return [folds for folds in PAPER if folds <= targets]
        over = [folds for folds in self.folds if folds > targets]
        if over:
            raise InputError(
                f"experiment.folds: {over[0]} folds need as many targets, and {run.name['task']} has {targets}"
            )
        return sorted(self.folds)

    def _select(self, selector: TarotOTM, one: Repetition[Task], counts: Sequence[int]) -> dict[int, Selection]:
        def choice(folds: int) -> Selection:
            return one.bench.select(dataclasses.replace(selector, folds=folds, seed=one.seed))

        return {folds: choice(folds) for folds in counts}

    def _found(
        self,
        run: Run[Task],
        selector: TarotOTM,
        repetitions: Sequence[Repetition[Task]],
        chosen: Sequence[Mapping[int, Selection]],
        outcomes: Mapping[str, Sequence[Mapping[int, Sequence[Mapping[str, float]]]]],
    ) -> Folds:
        counts = list(chosen[0])
        first = [next(iter(of_split[0].values()))[0] for of_split in outcomes.values()]
        shared = [name for name in first[0] if all(name in metrics for metrics in first)]
        if not shared:
            raise InputError(f"no metric of {run.name['task']} is known of test and targets alike")

        def numbers(where: str, folds: int) -> np.ndarray:
            table = [[metrics[shared[0]] for metrics in by_folds[folds]] for by_folds in outcomes[where]]
            return np.array(table, dtype=np.float64)

        facts = ("size", "ratio", "ot_distance", *([] if run.task.candidate_tags() is None else ["precision"]))
        made = {
            folds: [
                Outcome(one.task, selections[folds], selections[folds].ot_distance, ())
                for one, selections in zip(repetitions, chosen, strict=True)
            ]
            for folds in counts
        }
        return Folds(
            metric=shared[0],
            headline=next(iter(first[0])),
            lower_is_better=run.task.lower_is_better(shared[0]),
            scores={where: {folds: numbers(where, folds) for folds in counts} for where in outcomes},
            facts={
                name: {folds: np.array([one.fact(name) for one in made[folds]]) for folds in counts} for name in facts
            },
            reference=selector.folds if selector.folds in counts else counts[0],
            merged=run.task.merges_targets(),
            features=[one.bench.features().fingerprint for one in repetitions],
        )
