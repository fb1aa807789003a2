"""An experiment repeated as a whole: with every seed the task is built again, and with it surrogates and features."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import hydra

from experiments.frame.run import Run
from experiments.stages import FeatureRecipe, Features, Workbench, train_surrogates
from tasks.common.cache import kept
from tasks.task import Task

log = logging.getLogger("tarot")
T = TypeVar("T", bound=Task, covariant=True)


@dataclass(frozen=True, eq=False)
class Repetition(Generic[T]):
    """seed: that everything in it was made with. benches: by recipe's name, with their features. seconds: that these
    took when they were computed first."""

    seed: int
    task: T
    benches: Mapping[str, Workbench[T]]
    seconds: Mapping[str, float]

    @property
    def bench(self) -> Workbench[T]:
        """Any of them: what models make of a selection depends on no recipe."""
        return next(iter(self.benches.values()))

    def release(self) -> None:
        """Lets go of what choosing needs and training does not."""
        for bench in self.benches.values():
            bench.release()


def repeated(
    run: Run[T], seeds: int, recipes: Mapping[str, FeatureRecipe], wanted: Iterable[str], **changes: Any
) -> Iterator[Repetition[T]]:
    """Of a run, so many, the first with seed `run.seed`: each is what a run of its own with that seed has. They are
    computed one after another, but for their surrogates, which the engine's workers train in one map.

    wanted: which of the recipes are computed. changes: options of the task.
    """
    chosen = {name: recipes[name] for name in wanted}
    waiting = deque(_begun(run, number, chosen, changes) for number in range(seeds))
    if any(recipe.without_surrogates is None for recipe in chosen.values()):
        with run.clock("checkpoints"):
            train_surrogates([one.task for one in waiting], run.cache, run.engine)
    while waiting:
        yield _computed(run, waiting.popleft())


def _begun(run: Run[T], number: int, recipes: Mapping[str, FeatureRecipe], changes: Mapping[str, Any]) -> Repetition[T]:
    """Repetition `number`, from 0, without its features."""
    seed = run.seed + number
    task = hydra.utils.instantiate(run.config["task"], **{"seed": seed, **changes})
    benches = {
        name: Workbench(task, _projected_anew(recipe, number), run.cache, run.device, run.engine)
        for name, recipe in recipes.items()
    }
    for bench in benches.values():
        bench.check()
    return Repetition(seed, task, benches, {})


def _computed(run: Run[T], one: Repetition[T]) -> Repetition[T]:
    """The same with its features."""
    task = one.task
    log.info("seed %d: %d candidates, %d targets", one.seed, len(task.ids("candidates")), len(task.ids("targets")))
    checkpoints = None
    if any(bench.recipe.without_surrogates is None for bench in one.benches.values()):
        with run.clock("checkpoints"):
            checkpoints = task.checkpoints()
    seconds: dict[str, float] = {}
    with run.clock("features"):
        for name, bench in one.benches.items():
            start = time.perf_counter()
            features = bench.features(checkpoints)
            seconds[name] = _first_took(features, time.perf_counter() - start, run.cache)
    return replace(one, seconds=seconds)


def training_seed(seed: int, training: int) -> int:
    """Seeds of repeated trainings that neighbouring runs do not share."""
    return 1000 * seed + training


def _projected_anew(recipe: FeatureRecipe, number: int) -> FeatureRecipe:
    """The recipe with the projections of repetition `number`."""
    return replace(recipe, projection_seed=recipe.projection_seed + number)


def _first_took(features: Features, seconds: float, cache: Path) -> float:
    """How long these features took when they were computed first, where they took `seconds` now."""
    path = cache / "values" / f"features-{features.fingerprint}.json"

    def note(temporary: Path) -> None:
        temporary.write_text(json.dumps(seconds))

    return float(kept(path, note, lambda there: json.loads(there.read_text())))
