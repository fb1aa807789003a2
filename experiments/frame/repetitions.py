"""An experiment repeated as a whole: with every seed the task is built again, and with it surrogates and features."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra

from experiments.frame.run import Run
from experiments.stages import FeatureRecipe, Features, gradient_features, made
from tasks.task import Task

log = logging.getLogger("tarot")


@dataclass(frozen=True, eq=False)
class Repetition:
    """seed: that everything in it was made with. recipes, features: by recipe's name. seconds: that features took when
    they were computed first."""

    seed: int
    task: Task
    recipes: Mapping[str, FeatureRecipe]
    features: Mapping[str, Features]
    seconds: Mapping[str, float]


def repeat(
    run: Run, number: int, recipes: Mapping[str, FeatureRecipe], wanted: Iterable[str], **changes: Any
) -> Repetition:
    """Repetition `number` of a run, from 0, with seed `run.seed + number`: what a run of its own with that seed has.

    wanted: which of the recipes are computed. changes: options of the task.
    """
    seed = run.seed + number
    task = hydra.utils.instantiate(run.config["task"], **{"seed": seed, **changes})
    log.info("seed %d: %d candidates, %d targets", seed, len(task.ids("candidates")), len(task.ids("targets")))
    own = {
        name: replace(recipes[name], projection_seed=recipes[name].projection_seed + number)
        for name in dict.fromkeys(wanted)
    }
    with run.clock("checkpoints"):
        checkpoints = task.checkpoints()
    features: dict[str, Features] = {}
    seconds: dict[str, float] = {}
    with run.clock("features"):
        for name, recipe in own.items():
            start = time.perf_counter()
            features[name] = gradient_features(task, checkpoints, recipe, run.cache, run.config["device"])
            seconds[name] = _first_took(features[name], time.perf_counter() - start, run.cache)
    return Repetition(seed, task, own, features, seconds)


def _first_took(features: Features, seconds: float, cache: Path) -> float:
    """How long these features took when they were computed first, where they took `seconds` now."""
    path = cache / "values" / f"features-{features.fingerprint}.json"
    return float(json.loads(made(path, lambda temporary: temporary.write_text(json.dumps(seconds))).read_text()))
