"""The stages after the features. Each result is a file named by the fingerprint of all that made it, written once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from torch import nn

import tarot
from experiments.stages.cache import made
from experiments.stages.features import FeatureRecipe, Features
from tarot import Selection
from tarot.common import fingerprint
from tarot.gradients import resolve_device
from tarot.selection import SelectionProblem
from tarot.selectors import Selector, described
from tasks.common.cache import write_tensors
from tasks.task import Split, Task, TaskData

_VERSION = 1  # of the stages; another one never reads files of this one


def select(
    task: TaskData, features: Features, recipe: FeatureRecipe, selector: Selector, total: int | None, cache: Path
) -> Selection:
    """The selector's choice, with everything about it that takes a transport problem to know.

    total: what its weights sum to, an error where they are more; None: what the task says, or one each where a
    selection is larger than that, else the selector's own choice.
    """
    at_least = task.total() if total is None else None
    made_of = {
        "version": _VERSION,
        "features": features.fingerprint,
        "task": task.recipe()["data"],
        "selector": described(selector),
        "space": [recipe.whitening, recipe.regularization],
        "total": total if at_least is None else {"at_least": at_least},
    }

    def make(path: Path) -> None:
        tarot.select(
            **features.arguments(),
            selector=selector,
            whitening=recipe.whitening,
            regularization=recipe.regularization,
            total=total if at_least is None else at_least,
            total_may_grow=at_least is not None,
            candidate_labels=task.labels("candidates"),
            target_labels=task.labels("targets"),
            target_groups=task.target_groups(),
            candidate_ids=task.ids("candidates"),
            candidate_tags=task.candidate_tags(),
        ).save(path)

    # read back even where it was just made, so that a first run and a second see the same
    return Selection.load(made(cache / "selections" / f"{task.name}-{fingerprint(made_of)}.parquet", make))


def distance(task: TaskData, features: Features, recipe: FeatureRecipe, selection: Selection, cache: Path) -> float:
    """The OT distance of a selection to the targets in the space of these features, whichever it was made in."""
    made_of = {
        "version": _VERSION,
        "features": features.fingerprint,
        "task": task.recipe()["data"],
        "space": [recipe.whitening, recipe.regularization],
        "indices": selection.indices.tolist(),
    }

    def make(path: Path) -> None:
        problem = SelectionProblem(
            features.candidates, features.targets, whitening=recipe.whitening, regularization=recipe.regularization
        )
        path.write_text(json.dumps(problem.selection(selection.indices, {}, blind=True).ot_distance))

    return float(json.loads(made(cache / "distances" / f"{task.name}-{fingerprint(made_of)}.json", make).read_text()))


def training_seed(seed: int, training: int) -> int:
    """Seeds of repeated trainings that neighbouring runs do not share."""
    return 1000 * seed + training


def train(task: Task, selection: Selection, seed: int, cache: Path) -> Path:
    """Where the downstream model is that was trained on the selection: its state_dict."""
    recipe = task.recipe()
    made_of = {
        "version": _VERSION,
        "task": {key: recipe[key] for key in ("name", "data", "model", "train")},
        "indices": selection.indices.tolist(),
        "weights": selection.weights.tolist(),
        "seed": seed,
    }

    def make(path: Path) -> None:
        state = task.train(selection, seed).state_dict()
        write_tensors(path, {key: value.cpu() for key, value in state.items()})

    return made(cache / "models" / f"{task.name}-{fingerprint(made_of)}.pt", make)


def evaluate(task: Task, trained: Path, device: str, cache: Path, split: Split = "test") -> dict[str, float]:
    """The task's metrics of a trained model; the headline metric first. Other splits than test may have fewer."""
    asked = task.recipe().get("evaluation")

    def make(path: Path) -> None:
        path.write_text(json.dumps(task.evaluate(trained_model(task, trained, device), split)))

    how = [] if asked is None else [fingerprint({"evaluation": asked})]
    name = "-".join([trained.stem, *([] if split == "test" else [split]), *how])
    return json.loads(made(cache / "metrics" / f"{name}.json", make).read_text())


def trained_model(task: Task, trained: Path, device: str) -> nn.Module:
    """The model of a state_dict on disk, in eval mode."""
    model = task.downstream()
    model.load_state_dict(torch.load(trained, weights_only=True, map_location="cpu"))
    return model.to(resolve_device(device)).eval()


def arm(name: str, size: int, seed: int) -> Selector:
    """The selector `name` as a comparison at this size, where it takes one."""
    kind = tarot.selectors.SELECTORS[name]
    fields = {field.name for field in dataclasses.fields(kind)}
    return kind(**{key: value for key, value in {"size": size, "seed": seed}.items() if key in fields})
