"""Models of the arms of every repetition, trained and judged side by side where the engine has several workers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from experiments.frame.repetitions import Repetition, training_seed
from experiments.frame.run import Run
from experiments.report import refuse_unknown_metrics
from experiments.stages import Evaluation, Training, evaluate_each, train_each
from tarot import Selection
from tarot.common import progress, resolve_device
from tasks.common.training import seeded
from tasks.task import Split, Task

Key = TypeVar("Key", bound=Hashable)


def refuse_metrics(run: Run[Task], further: Sequence[str]) -> None:
    """Of those that an experiment names beside the headline, one that the task has not is refused before anything is
    trained: a model that has learnt nothing is judged. Where none is named, none is judged."""
    if further:
        with seeded(run.seed):
            model = run.task.downstream()
        there = run.task.evaluate(model.to(resolve_device(run.device)).eval())
        refuse_unknown_metrics(run.task.name, further, list(there))


def train_all(
    run: Run[Any], repetitions: Sequence[Repetition[Task]], chosen: Sequence[Mapping[Key, Sequence[Selection | None]]]
) -> list[dict[Key, list[Path]]]:
    """Of each repetition: arm -> where its models are.

    chosen: arm -> what each of its trainings learns from, None: nothing at all. The first training of every arm has the
    same seed, and so have the second ones.
    """
    jobs = [
        (i, arm, training)
        for i, by_arm in enumerate(chosen)
        for training in range(max(map(len, by_arm.values()), default=0))
        for arm, selections in by_arm.items()
        if training < len(selections)
    ]
    trainings = [
        Training(i, chosen[i][arm][training], training_seed(repetitions[i].seed, training)) for i, arm, training in jobs
    ]
    models: list[dict[Key, list[Path]]] = [{arm: [] for arm in by_arm} for by_arm in chosen]
    with run.clock("train"), progress("trainings", len(jobs), "models") as advance:
        trained = train_each([one.bench for one in repetitions], trainings, advance)
    for (i, arm, _), path in zip(jobs, trained, strict=True):
        models[i][arm].append(path)
    return models


def evaluate_all(
    run: Run[Any],
    repetitions: Sequence[Repetition[Task]],
    models: Sequence[Mapping[Key, Sequence[Path]]],
    split: Split = "test",
) -> list[dict[Key, list[dict[str, float]]]]:
    """Of each repetition: arm -> the task's metrics of each of its models."""
    jobs = [(i, arm, path) for i, by_arm in enumerate(models) for arm, paths in by_arm.items() for path in paths]
    metrics: list[dict[Key, list[dict[str, float]]]] = [{arm: [] for arm in by_arm} for by_arm in models]
    with run.clock("evaluate"), progress("evaluations", len(jobs), "models") as advance:
        evaluations = [Evaluation(i, path, split) for i, _, path in jobs]
        found = evaluate_each([one.bench for one in repetitions], evaluations, advance)
    for (i, arm, _), outcome in zip(jobs, found, strict=True):
        metrics[i][arm].append(outcome)
    return metrics
