"""Models, trained and judged by an engine's workers: surrogates, and those of many selections. Each is in the cache
when it is there.

No training depends on another, and a seed decides all of one, so that whoever trains a model makes the same file of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from experiments.stages.workbench import Workbench
from tarot import Selection
from tarot.common import progress
from tarot.workers import Local, Workers
from tasks.common.training import trainers
from tasks.task import Split, Task, TrainsSurrogates

Benches = Sequence[Workbench[Task]]
_LEARNT: Sequence[Split] = ("candidates", "targets")


@dataclass(frozen=True, eq=False)
class Training:
    """bench: place of the one that trains. selection: what the model learns from, None: nothing at all."""

    bench: int
    selection: Selection | None
    seed: int


@dataclass(frozen=True)
class Evaluation:
    """bench: place of the one that trained the model. trained: where that is."""

    bench: int
    trained: Path
    split: Split = "test"


def train_each(benches: Benches, trainings: Sequence[Training], advance: Callable[[int], object]) -> list[Path]:
    """Where the models are. The workers are those of the first bench's engine. advance: told of each."""
    paths = [benches[one.bench].model_of(one.selection, one.seed) for one in trainings]
    _make(_train, dict(zip(paths, trainings, strict=True)), benches, _LEARNT, advance)
    advance(len(paths) - len(set(paths)))
    return paths


def evaluate_each(
    benches: Benches, evaluations: Sequence[Evaluation], advance: Callable[[int], object]
) -> list[dict[str, float]]:
    """The metrics of trained models, as `train_each`."""
    paths = [benches[one.bench].metrics_of(one.trained, one.split) for one in evaluations]
    asked = dict.fromkeys(one.split for one in evaluations)
    _make(_evaluate, dict(zip(paths, evaluations, strict=True)), benches, [*asked], advance)
    advance(len(paths) - len(set(paths)))
    return [benches[one.bench].evaluate(one.trained, one.split) for one in evaluations]


def train_surrogates(tasks: Sequence[Task], cache: Path, engine: Workers) -> None:
    """The surrogates of all of these tasks that are missing, by the engine's workers. Where it has none, or one model
    alone is missing, `checkpoints` trains it when it is asked for."""
    engine = trainers(engine)
    if isinstance(engine, Local):
        return
    able = [task for task in tasks if isinstance(task, TrainsSurrogates)]
    missing = [(place, number) for place, task in enumerate(able) for number in task.surrogates()]
    if len(missing) < 2:
        return
    engine.shares(cache)
    for place, split in product({place for place, _ in missing}, _LEARNT):
        able[place].samples(split)
    with progress("surrogates", len(missing), "models") as advance:
        for _ in engine.map(_train_surrogate, missing, able):
            advance(1)


def _make(
    work: Callable[..., Any],
    wanted: Mapping[Path, Any],
    benches: Benches,
    splits: Sequence[Split],
    advance: Callable[[int], object],
) -> None:
    """What is not there yet of the wanted files. splits: that are read for it."""
    missing = [item for path, item in wanted.items() if not path.exists()]
    advance(len(wanted) - len(missing))
    if not missing:
        return
    engine = trainers(benches[0].engine)
    engine.shares(benches[0].cache)
    for place, split in product({item.bench for item in missing}, splits):
        benches[place].task.samples(split)  # read before tasks are sent to workers, not by each of them
    plain = [replace(bench) for bench in benches]  # without features and selections, which no model asks for
    for _ in engine.map(work, missing, plain):
        advance(1)


def _train_surrogate(item: tuple[int, int], state: None, tasks: Sequence[TrainsSurrogates]) -> None:
    place, number = item
    tasks[place].train_surrogate(number)


def _train(item: Training, state: None, benches: Benches) -> None:
    benches[item.bench].train(item.selection, item.seed)


def _evaluate(item: Evaluation, state: None, benches: Benches) -> None:
    benches[item.bench].evaluate(item.trained, item.split)
