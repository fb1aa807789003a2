"""Models of many selections, trained and judged one after the other; each is in the cache when it is there."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from experiments.frame.repetitions import Repetition, training_seed
from experiments.frame.run import Run
from tarot import Selection
from tarot.common import progress
from tasks.task import Split, Task

Key = TypeVar("Key", bound=Hashable)


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
    models: list[dict[Key, list[Path]]] = [{arm: [] for arm in by_arm} for by_arm in chosen]
    with run.clock("train"), progress("trainings", len(jobs), "models") as advance:
        for i, arm, training in jobs:
            bench, seed = repetitions[i].bench, training_seed(repetitions[i].seed, training)
            selection = chosen[i][arm][training]
            models[i][arm].append(bench.untrained(seed) if selection is None else bench.train(selection, seed))
            advance(1)
    return models


def evaluate_all(
    run: Run[Any],
    repetitions: Sequence[Repetition[Task]],
    models: Sequence[Mapping[Key, Sequence[Path]]],
    split: Split = "test",
) -> list[dict[Key, list[dict[str, float]]]]:
    """Of each repetition: arm -> the task's metrics of each of its models."""
    metrics: list[dict[Key, list[dict[str, float]]]] = [{arm: [] for arm in by_arm} for by_arm in models]
    total = sum(len(paths) for by_arm in models for paths in by_arm.values())
    with run.clock("evaluate"), progress("evaluations", total, "models") as advance:
        for one, by_arm, found in zip(repetitions, models, metrics, strict=True):
            for arm, paths in by_arm.items():
                for path in paths:
                    found[arm].append(one.bench.evaluate(path, split))
                    advance(1)
    return metrics
