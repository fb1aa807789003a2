"""What a task says of its samples. Nothing is trained here."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset

from tarot import InputError
from tasks.task import SPLITS, Split, Task
from tests.tasks.conformance.tools import (
    Builder,
    check,
    equal,
    flatten,
    globals_untouched,
    said_of_samples,
    strings,
)


@check
def sample_i_is_always_sample_i(build: Builder) -> None:
    task, again = build(), build.anew()
    for split in SPLITS:
        data, other = task.samples(split), again.samples(split)
        assert not isinstance(data, IterableDataset), f"{split} are not map-style"
        assert len(data) == len(other) > 0, f"{split} are none, or not always as many"
        for i in (0, len(data) // 2, len(data) - 1):
            assert equal(data[i], data[i]) and equal(data[i], other[i]), f"sample {i} of {split} is not always the same"
    np.testing.assert_equal(said_of_samples(again), said_of_samples(task), "what is said of samples changes")


@check
def ids_are_unique_stable_and_of_one_split_alone(build: Builder) -> None:
    task, again = build(), build.anew()
    ids = {split: task.ids(split) for split in SPLITS}
    for split, names in ids.items():
        assert all(type(name) is str for name in names), "an id is no string"
        assert names == again.ids(split), f"ids of {split} are not stable"
        assert len(names) == len(task.samples(split)), f"there are not as many ids as {split}"
    together = [name for names in ids.values() for name in names]
    assert len(set(together)) == len(together), "an id occurs twice"


@check
def the_test_is_of_other_samples(build: Builder) -> None:
    """By content: under ids of their own, samples that a model was trained on would be counted as if it had never seen
    them. A few may be alike by chance, as short questions are. Of each split the first are looked at."""
    task = build()

    def contents(split: Split) -> set[bytes]:
        data = task.samples(split)
        shown = (flatten(data[i]) for i in range(min(len(data), 16)))
        return {b"|".join(np.asarray(leaf).tobytes() for leaf in leaves) for leaves in shown}

    test = contents("test")
    for split in ("candidates", "targets", "validation"):
        other = contents(split)
        shared, most = len(test & other), min(len(test), len(other))
        assert 2 * shared < most, f"{shared} of {most} samples of test are samples of {split}"


@check
def descriptions_are_aligned(build: Builder) -> None:
    task = build()
    n, m = len(task.candidates()), len(task.targets())
    assert task.labels() is None or len(task.labels()) == n, "labels are not one for each candidate"
    assert task.labels("targets") is None or len(task.labels("targets")) == m, "labels are not one for each target"
    for labels in filter(lambda given: given is not None, (task.labels(), task.labels("targets"))):
        kind = np.asarray(labels).dtype.kind
        assert kind != "f" or np.isfinite(labels).all(), "a label is no number"
    assert task.target_groups() is None or len(task.target_groups()) == m, "groups are not one for each target"
    tags = task.candidate_tags()
    assert tags is None or len(tags) == n, "tags are not one for each candidate"
    assert tags is None or "target" in tags, 'no candidate is tagged "target"'
    sources = task.candidate_sources()
    assert sources is None or (len(sources) == n and all(sources != "")), "sources are not one for each candidate"


@check
def the_total_of_weights_is_said(build: Builder) -> None:
    total = build().total()
    assert total is None or (type(total) is int and total >= 1), f"weights cannot sum to {total!r}"


@check
def recipes_are_plain_data_and_tell_tasks_apart(build: Builder) -> None:
    recipe = build().recipe()
    assert json.loads(json.dumps(recipe, default=repr)) == recipe, "the recipe is not plain data"
    paths = [text for text in strings(recipe) if Path(text).is_absolute()]
    assert not paths, f"the recipe holds {paths}: the same data elsewhere would be computed again"
    missing = {"data", "model", "surrogate", "train"} - set(recipe)
    assert not missing, f"the recipe lacks {missing}"
    assert build("seed=1").recipe()["data"] != recipe["data"], "the data of another seed have the same recipe"
    for split in SPLITS:
        of_split = build().split_recipe(split)
        assert json.loads(json.dumps(of_split, default=repr)) == of_split, "the recipe of a split is not plain data"


@check
def recipes_tell_options_apart(build: Builder) -> None:
    """An option that changes samples or networks, and no recipe, gives old results in silence."""
    task = build()
    recipes, contents, shapes = _recipes(task), _contents(task), _shapes(task)
    for override in build.others:
        with contextlib.suppress(InputError):  # what cannot be is no other task
            other = build.anew(override)
            if _recipes(other) == recipes:
                np.testing.assert_equal(_contents(other), contents, f"{override} changes samples, and no recipe")
                assert _shapes(other) == shapes, f"{override} changes the network, and no recipe"


def _recipes(task: Task) -> list[dict[str, Any]]:
    return [task.recipe(), *(task.split_recipe(split) for split in SPLITS)]


def _contents(task: Task) -> list[Any]:
    """What is seen of the first samples of each split, and how many there are."""
    found: list[Any] = []
    for split in SPLITS:
        data = task.samples(split)
        found += [len(data), *(np.asarray(leaf) for i in range(min(len(data), 4)) for leaf in flatten(data[i]))]
    return found


def _shapes(task: Task) -> list[dict[str, tuple[int, ...]]]:
    return [
        {name: tuple(value.shape) for name, value in make().state_dict().items()}
        for make in (task.model, task.downstream)
    ]


@check
def reading_leaves_global_generators_alone(build: Builder) -> None:
    task = build.anew()
    with globals_untouched("reading the data"):
        for split in SPLITS:
            data = task.samples(split)
            assert len(task.ids(split)) and data[0] is not None
