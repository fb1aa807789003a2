"""Methods by name, as experiments that have several of them are given: each with its options, on its own features."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from experiments.stages import FeatureRecipe
from tarot import InputError
from tarot.selectors import SELECTORS, Selector, needs_of, unknown_option
from tasks.task import Task, TaskData

COMMON = "wfd"  # the features of methods that look at none
_COUNTS = "ngrams"  # features that are counts of words
_MEASURED = {"el2n": "error_norm", "influence": "influence"}  # what methods go by in the place of features


def known(where: str, given: Collection[str], allowed: Collection[str]) -> None:
    """Raises InputError where something given is not allowed, or given twice."""
    for name in given:
        if name not in allowed:
            raise InputError(f"{where} names {name!r}; there are {', '.join(allowed)}")
    if len(set(given)) < len(given):
        raise InputError(f"{where} names something twice: {', '.join(given)}")


def method(name: str, options: Mapping[str, Any], seed: int, **defaults: Any) -> Selector:
    """With the repetition's seed and these defaults, where the method has such an option and is not given it.

    Raises InputError for an option that it does not have, or a value that it may not have.
    """
    kind = SELECTORS[name]
    takes = options_of(name)
    wrong = unknown_option(name, kind, options)
    if wrong is not None:
        raise InputError(f"experiment.options.{name}: {wrong}")
    applied = {key: value for key, value in {"seed": seed, **defaults}.items() if key in takes}
    try:
        return kind(**{**applied, **options})
    except (TypeError, InputError) as error:
        raise InputError(f"experiment.options.{name}: {error}") from error


def options_of(name: str) -> set[str]:
    """What can be said about a method."""
    return set(inspect.signature(SELECTORS[name]).parameters)


def features_of(name: str) -> str:
    """The recipe that a method asks for; the common one where it asks for none."""
    return SELECTORS[name].features or COMMON


def refuse(where: str, names: Sequence[str], recipes: Mapping[str, FeatureRecipe], task: Task) -> None:
    """Requirements that can be known before a model is trained. Raises InputError by method; where: that names them."""
    for name in names:
        recipe = features_of(name)
        if recipe not in recipes:
            raise InputError(
                f"{name} wants the features {recipe!r}, which experiment.recipes has not: {', '.join(recipes)}"
            )
        refuse_optimizer(where, name, recipes[recipe], task)
        refuse_lacking(where, name, SELECTORS[name], task)


def refuse_lacking(where: str, name: str, selector: Selector | type[Selector], task: TaskData) -> None:
    """Raises InputError where a task lacks what a selector needs beside features; where: that names it."""
    given = {
        "candidate_labels": lambda: task.labels("candidates"),
        "target_labels": lambda: task.labels("targets"),
        "candidate_tags": task.candidate_tags,
    }
    for argument in needs_of(selector):
        if argument in given and given[argument]() is None:
            raise InputError(f"{where}: {name} needs {argument}, and task {task.name} gives none")


def refuse_optimizer(where: str, name: str, recipe: FeatureRecipe, task: Task) -> None:
    """Raises InputError where a recipe needs Adam's moments and others trained the surrogates. name: of who asks for
    it; where: that names them."""
    optimizer = task.surrogate_optimizer()
    wanted = recipe.of_optimizer(optimizer).preconditioner
    if wanted and optimizer is not None and not optimizer.startswith("adam"):
        raise InputError(
            f"{name} with preconditioner={wanted} needs Adam's moments in the surrogates' checkpoints, and their "
            f"optimizer is {optimizer}: set it to auto, set task.train.optimizer=adamw, or leave {name} out of "
            f"{where}"
        )


def refuse_on(where: str, name: str, recipe: FeatureRecipe) -> None:
    """Raises InputError for a method that has nothing to go by on the features of this recipe; where: that names it."""
    own = features_of(name)
    if name in _MEASURED and recipe.scores != _MEASURED[name]:
        raise InputError(
            f"{where}: {name} goes by what features={own} measures on models, which features={recipe.kind} does not"
        )
    if own == _COUNTS and recipe.kind != _COUNTS:
        raise InputError(f"{where}: {name} compares counts of words, features={own}, and no features={recipe.kind}")


def representations(where: str, names: Sequence[str], recipes: Mapping[str, FeatureRecipe]) -> dict[str, FeatureRecipe]:
    """Recipes by what they are called: `rds` as it is, `rds:local` with another whitening, `wfd:none` without any.

    Raises InputError for what there is not; where: that names them.
    """
    kinds = [name.partition(":")[0] for name in names]
    for kind in kinds:
        known(where, [kind], recipes)
    if not names or len(set(names)) < len(names):
        raise InputError(f"{where} must name one or more, each once; they are {', '.join(names) or 'none'}")
    return {name: _whitened(where, name, recipes[kind]) for name, kind in zip(names, kinds, strict=True)}


def _whitened(where: str, name: str, recipe: FeatureRecipe) -> FeatureRecipe:
    whitening: Any = name.partition(":")[2]  # which the recipe checks
    if not whitening:
        return recipe
    try:
        return replace(recipe, whitening=None if whitening == "none" else whitening)
    except InputError as error:
        raise InputError(f"{where}: {name}: {error}") from error


def notes(names: Sequence[str], recipes: Mapping[str, FeatureRecipe], task: Task) -> list[str]:
    """What is to be said of the features of these methods, as sentences; each once."""
    found = (recipes[features_of(name)].note(task.surrogate_optimizer()) for name in names)
    return list(dict.fromkeys(note for note in found if note))
