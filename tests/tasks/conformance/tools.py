"""What checks are written with: a task as it is built, pieces of it, and what must not happen meanwhile."""

from __future__ import annotations

import contextlib
import math
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot

from tasks.common.training import seeded
from tasks.task import Task

_IMMUTABLE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE: the class of an object of such a class cannot be another


class Builder:
    """builder(*overrides) -> the task that `make(*overrides)` gives; the same overrides give the same object.

    Overrides are such as "seed=1" and "surrogate.runs=2". builder.anew() -> another object of the same task. others:
    overrides of one option each, which is then another.
    """

    def __init__(self, make: Callable[..., Task], others: Sequence[str] = ()) -> None:
        self._make, self._kept, self.others = make, cache(make), others

    def __call__(self, *overrides: str) -> Task:
        return self._kept(*overrides)

    def anew(self, *overrides: str) -> Task:
        return self._make(*overrides)


REGISTERED: dict[str, Callable[[Builder], None]] = {}


def check(function: Callable[[Builder], None]) -> Callable[[Builder], None]:
    REGISTERED[function.__name__] = function
    return function


def selection(indices: Sequence[int], weights: Sequence[int] | None = None) -> SimpleNamespace:
    indices = np.asarray(indices, dtype=np.int64)
    weights = np.ones(len(indices), np.int64) if weights is None else np.asarray(weights, dtype=np.int64)
    return SimpleNamespace(indices=indices, weights=weights)


def batch_of(task: Task, indices: Sequence[int], split: str = "candidates") -> Any:
    data = task.samples(split)
    return task.collate([data[int(i)] for i in indices])


def equal(a: Any, b: Any) -> bool:
    return all(torch.equal(torch.as_tensor(x), torch.as_tensor(y)) for x, y in zip(flatten(a), flatten(b), strict=True))


def flatten(sample: Any) -> list:
    if isinstance(sample, dict):
        sample = list(sample.values())
    return [leaf for part in sample for leaf in flatten(part)] if isinstance(sample, list | tuple) else [sample]


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    """Whether two states of a model are the same."""
    return set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)


def learning(model: torch.nn.Module) -> list[bool]:
    """Of each parameter, whether it has gradients."""
    return [parameter.requires_grad for parameter in model.parameters()]


def copied(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def surrogate(task: Task) -> torch.nn.Module:
    model = task.model()
    checkpoint = task.checkpoints()[-1]
    assert set(checkpoint.state) == set(model.state_dict()), "a checkpoint is not of all parameters and buffers"
    model.load_state_dict(checkpoint.state)
    return model.eval()


@contextlib.contextmanager
def globals_untouched(what: str) -> Iterator[None]:
    """Within, in an empty folder, nothing of the process moves, and nothing is written to where it is."""

    def states() -> tuple:
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global generator is what must not move
        settings = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads(), np.geterr())
        return settings, torch.get_rng_state().tolist(), kind, keys.tolist(), rest, random.getstate()

    before = states()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield
        assert os.path.samefile(os.getcwd(), folder), f"{what} changed the working directory"
        assert not os.listdir(folder), f"{what} left {os.listdir(folder)} where it was called"
    moved = states() != before  # not within the assert, which would compare thousands of words one by one
    assert not moved, f"{what} moved a global generator or changed a setting"


def seed_generators(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global generator is what must not matter
    random.seed(seed)


def strings(data: Any) -> Iterator[str]:
    """All that is written in plain data."""
    if isinstance(data, dict | list):
        for part in data.values() if isinstance(data, dict) else data:
            yield from strings(part)
    elif isinstance(data, str):
        yield data


def forbidden(what: str) -> mock.Mock:
    return mock.Mock(side_effect=AssertionError(what))


@contextlib.contextmanager
def unseen(task: Task, split: str, why: str) -> Iterator[None]:
    """Within, who looks at a split of the task fails: by the method of its name, or by the object that this gives,
    wherever else the task keeps it. An object of a built-in class, and one that is made anew each time, are watched by
    the method alone; and who reads a file or an array behind both is not seen. What is known of all samples at once,
    such as a hash of them or the longest, is found out before."""
    task.recipe()
    with seeded(0):
        task.model()
    samples = task.samples(split)
    kind = type(samples)

    def refuse(*_: Any) -> Any:
        raise AssertionError(why)

    special = {"__getitem__": refuse, "__len__": refuse, "__iter__": refuse, "__getattribute__": refuse}
    watched = not kind.__flags__ & _IMMUTABLE
    if watched:
        object.__setattr__(samples, "__class__", type(kind.__name__, (kind,), {"__slots__": (), **special}))
    try:
        with mock.patch.object(task, split, forbidden(why)):
            yield
    finally:
        if watched:
            object.__setattr__(samples, "__class__", kind)


@contextlib.contextmanager
def pyplot_untouched(what: str) -> Iterator[None]:
    """Its figure and its settings are the whole process's: who draws on axes needs neither."""
    why = f"{what} draws by pyplot's global state, and not on the axes alone"
    matplotlib.get_backend()  # which is looked for, and is a setting then, when it is first asked for
    with matplotlib.rc_context(), contextlib.ExitStack() as patches:
        before = matplotlib.rcParams.copy()
        for name in ("figure", "gcf", "gca", "gci"):
            patches.enter_context(mock.patch.object(pyplot, name, forbidden(why)))
        yield
        assert matplotlib.rcParams == before, f"{what} changes Matplotlib's settings for everybody"


def drawn_on(axes: Any) -> bool:
    return bool(axes.images or axes.lines or axes.texts or axes.collections or axes.patches)


def check_metrics(found: dict[str, float]) -> None:
    assert found, "there are no metrics"
    for name, value in found.items():
        assert type(value) is float, f"metric {name} is a {type(value).__name__}, not a float"
        assert math.isfinite(value), f"metric {name} is {value}"


def said_of_samples(task: Task) -> list[np.ndarray | None]:
    labels = [task.labels(split) for split in ("candidates", "targets")]
    return [*labels, task.target_groups(), task.candidate_tags(), task.candidate_sources(), task.candidate_costs()]
