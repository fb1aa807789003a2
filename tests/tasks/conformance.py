"""What every task promises, as checks of any task: `CHECKS`, by name. Each raises AssertionError, and says why."""

from __future__ import annotations

import contextlib
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.utils.data import IterableDataset

from tasks.common.training import seeded
from tasks.task import (
    SPLITS,
    CostsSamples,
    DrawsPredictions,
    GivesEmbeddings,
    GivesErrorNorms,
    GivesImages,
    GivesStates,
    GivesTexts,
    MeasuresSubsets,
    StacksSubsets,
    Task,
)


class Builder:
    """builder(*overrides) -> the task that `make(*overrides)` gives; the same overrides give the same object.

    Overrides are such as "seed=1" and "surrogate.runs=2". builder.anew() -> another object of the same task.
    """

    def __init__(self, make: Callable[..., Task]) -> None:
        self._make, self._kept = make, cache(make)

    def __call__(self, *overrides: str) -> Task:
        return self._kept(*overrides)

    def anew(self) -> Task:
        return self._make()


CHECKS: dict[str, Callable[[Builder], None]] = {}


def check(function: Callable[[Builder], None]) -> Callable[[Builder], None]:
    CHECKS[function.__name__] = function
    return function


# --- what checks are written with ------------------------------------------------------------------------------------


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
    def states() -> tuple:
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global generator is what must not move
        settings = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads(), np.geterr())
        return settings, torch.get_rng_state().tolist(), kind, keys.tolist(), rest, random.getstate()

    before = states()
    yield
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


def drawn_on(axes: Any) -> bool:
    return bool(axes.images or axes.lines or axes.texts or axes.collections or axes.patches)


# --- data ------------------------------------------------------------------------------------------------------------


@check
def sample_i_is_always_sample_i(build: Builder) -> None:
    task, again = build(), build.anew()
    for split in SPLITS:
        data, other = task.samples(split), again.samples(split)
        assert not isinstance(data, IterableDataset), f"{split} are not map-style"
        assert len(data) == len(other) > 0, f"{split} are none, or not always as many"
        for i in (0, len(data) // 2, len(data) - 1):
            assert equal(data[i], data[i]) and equal(data[i], other[i]), f"sample {i} of {split} is not always the same"
    np.testing.assert_equal(_said_of_samples(again), _said_of_samples(task), "what is said of samples changes")


def _said_of_samples(task: Task) -> list[np.ndarray | None]:
    labels = [task.labels(split) for split in ("candidates", "targets")]
    return [*labels, task.target_groups(), task.candidate_tags(), task.candidate_sources(), task.candidate_costs()]


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
def descriptions_are_aligned(build: Builder) -> None:
    task = build()
    n, m = len(task.candidates()), len(task.targets())
    assert task.labels() is None or len(task.labels()) == n, "labels are not one for each candidate"
    assert task.labels("targets") is None or len(task.labels("targets")) == m, "labels are not one for each target"
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
def reading_leaves_global_generators_alone(build: Builder) -> None:
    task = build.anew()
    with globals_untouched("reading the data"):
        for split in SPLITS:
            data = task.samples(split)
            assert len(task.ids(split)) and data[0] is not None


OF_DATA = tuple(CHECKS)  # those above, which train nothing


# --- model -----------------------------------------------------------------------------------------------------------


@check
def models_are_fresh(build: Builder) -> None:
    task = build()
    for make in (task.model, task.downstream):
        with seeded(0):
            one = make()
        with seeded(0):
            two = make()
        with seeded(1):
            other = make()
        assert one is not two, "a model is given twice"
        assert not {id(p) for p in one.parameters()} & {id(p) for p in two.parameters()}, "two models share weights"
        assert same(one.state_dict(), two.state_dict()), "weights come from elsewhere than torch's global generator"
        assert not same(one.state_dict(), other.state_dict()), "weights do not follow torch's global generator"


@check
def losses_are_of_single_samples(build: Builder) -> None:
    task = build()
    model = surrogate(task)
    together = task.losses(model, batch_of(task, range(6)))
    assert together.shape == (6,), f"losses of 6 samples have the shape {tuple(together.shape)}"
    assert together.requires_grad and torch.isfinite(together).all(), "a loss has no gradient, or is not finite"
    for i in range(6):
        alone = task.losses(model, batch_of(task, [i]))[0]
        torch.testing.assert_close(alone, together[i], rtol=1e-4, atol=1e-5, msg="a loss depends on its batch")
    backwards = task.losses(model, batch_of(task, range(5, -1, -1))).flip(0)
    torch.testing.assert_close(backwards, together, rtol=1e-4, atol=1e-5, msg="a loss depends on its place")


@check
def measurements_and_residuals_are_one_number_per_sample(build: Builder) -> None:
    task = build()
    model, batch = surrogate(task), batch_of(task, range(5), "targets")
    measured, residuals = task.measurements(model, batch), task.residuals(model, batch)
    assert measured.shape == residuals.shape == (5,), "there is not one number per sample"
    assert torch.isfinite(measured).all() and torch.isfinite(residuals).all(), "a number is not finite"
    assert (residuals >= 0).all(), "a loss rises with its measurement"


@check
def residuals_are_the_slope_of_the_loss(build: Builder) -> None:
    """d loss = -Q d measurement, along the gradient of the measurement."""
    task = build()
    model, batch = surrogate(task), batch_of(task, [0])
    parameters = [p for p in model.parameters() if p.requires_grad]
    d_loss = torch.autograd.grad(task.losses(model, batch).sum(), parameters, allow_unused=True)
    d_measurement = torch.autograd.grad(task.measurements(model, batch).sum(), parameters, allow_unused=True)
    residual = task.residuals(model, batch).item()
    for a, b in zip(d_loss, d_measurement, strict=True):
        assert (a is None) == (b is None), "loss and measurement are of other parameters"
        if a is not None:
            why = "d loss is not -residual d measurement"
            torch.testing.assert_close(a, -residual * b, rtol=1e-3, atol=1e-5, msg=why)


@check
def embeddings_are_of_single_samples(build: Builder) -> None:
    task = build()
    if isinstance(task, GivesEmbeddings):
        _of_single_samples(task, task.embeddings, dimensions=2)


@check
def hidden_states_are_of_single_samples(build: Builder) -> None:
    """And of a model that has learnt nothing of the task: a surrogate's are those of a fresh one."""
    task = build()
    if isinstance(task, GivesStates):

        def states(model: torch.nn.Module, batch: Any) -> torch.Tensor:
            return task.pooled_states(model, batch, [0, -1])

        _of_single_samples(task, states, dimensions=2)
        batch = batch_of(task, range(4))
        with torch.no_grad(), seeded(5):
            fresh, learnt = (states(model, batch) for model in (task.model().eval(), surrogate(task)))
        torch.testing.assert_close(fresh, learnt)


@check
def images_are_seen_on_one_scale(build: Builder) -> None:
    task = build()
    if isinstance(task, GivesImages):
        images = task.images(batch_of(task, range(4)))
        assert images.ndim == 4 and len(images) == 4 and images.shape[1] in (1, 3), tuple(images.shape)
        scale = f"they go from {images.min():g} to {images.max():g}"
        assert images.min() >= 0 and images.max() <= 1 and images.std() > 0, scale


@check
def texts_are_one_for_each_sample(build: Builder) -> None:
    task = build()
    if isinstance(task, GivesTexts):
        for split in SPLITS:
            texts = task.texts(split)
            assert len(texts) == len(task.ids(split)), f"texts of {split}: {len(texts)}"
            assert all(isinstance(text, str) and text for text in texts), f"a sample of {split} says nothing"


@check
def error_norms_are_of_single_samples(build: Builder) -> None:
    task = build()
    if isinstance(task, GivesErrorNorms):
        _of_single_samples(task, task.error_norms, dimensions=1)
        assert (task.error_norms(surrogate(task), batch_of(task, range(6))) >= 0).all(), "a norm is negative"


def _of_single_samples(task: Task, measure: Callable[..., torch.Tensor], dimensions: int) -> None:
    model = surrogate(task)
    for split in ("candidates", "targets"):
        together = measure(model, batch_of(task, range(6), split)).detach()
        assert together.ndim == dimensions and len(together) == 6, f"it has the shape {tuple(together.shape)}"
        assert torch.isfinite(together).all() and (together != together[0]).any(), "all samples look alike"
        for i in range(6):
            alone = measure(model, batch_of(task, [i], split))[0].detach()
            torch.testing.assert_close(alone, together[i], rtol=1e-4, atol=1e-5, msg="it depends on its batch")
        assert torch.equal(measure(model, batch_of(task, range(6), split)), together), "it is not always the same"
        assert not model.training, "the model is left in train mode"
        assert not any(module._forward_pre_hooks for module in model.modules()), "a hook was left in the model"


@check
def a_sample_has_a_cost(build: Builder) -> None:
    task = build()
    if isinstance(task, CostsSamples):
        costs = [task.cost(task.candidates()[i]) for i in range(3)]
        assert all(isinstance(cost, float) and 0 < cost < math.inf for cost in costs), f"costs are {costs}"


# --- training --------------------------------------------------------------------------------------------------------


@check
def checkpoints_hold_parameters_and_buffers(build: Builder) -> None:
    task = build("surrogate.runs=2", "surrogate.checkpoints=2")
    model, checkpoints = task.model(), task.checkpoints()
    assert [checkpoint.run for checkpoint in checkpoints] == [0, 0, 1, 1], "they are not two of each of two runs"
    assert len({checkpoint.name for checkpoint in checkpoints}) == 4, "a name occurs twice"
    for checkpoint in checkpoints:
        missing = set(model.state_dict()) ^ set(checkpoint.state)
        assert not missing, f"a checkpoint is not of the model's parameters and buffers: {missing}"
        assert checkpoint.learning_rate > 0, "a checkpoint has no learning rate"
        if checkpoint.optimizer_state is not None:
            learnt = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
            assert set(checkpoint.optimizer_state) == learnt, "the optimizer's state is of other parameters"
    assert not same(checkpoints[1].state, checkpoints[3].state), "independent runs gave the same model"


@check
def checkpoints_are_cached(build: Builder) -> None:
    task = build()
    kept, again = task.checkpoints(), build.anew().checkpoints()
    assert [checkpoint.name for checkpoint in kept] == [checkpoint.name for checkpoint in again], "others are loaded"
    assert same(kept[0].state, again[0].state), "checkpoints are trained again"


@check
def training_follows_its_seed_and_nothing_else(build: Builder) -> None:
    task, chosen = build(), selection(range(0, 30, 3))
    seed_generators(1)
    one = task.train(chosen, seed=3).state_dict()
    seed_generators(2)
    unseen = mock.patch.object(task, "test", forbidden("training looked at the test split"))
    with globals_untouched("training"), unseen:
        two, other = task.train(chosen, seed=3).state_dict(), task.train(chosen, seed=4).state_dict()
    assert same(one, two), "the same seed gave another model"
    assert not same(one, other), "another seed gave the same model"


@check
def training_follows_the_selection_and_its_weights(build: Builder) -> None:
    task = build()
    plain = task.train(selection(range(0, 30, 3)), seed=3).state_dict()
    others = task.train(selection(range(1, 31, 3)), seed=3).state_dict()
    heavy = task.train(selection(range(0, 30, 3), [9, *[1] * 9]), seed=3).state_dict()
    assert not same(plain, others), "what is selected does not matter"
    assert not same(plain, heavy), "weights do not matter"


@check
def targets_alone_can_be_trained_on(build: Builder) -> None:
    task = build()
    model = task.train(selection([]), seed=0)
    assert not model.training, "training leaves the model in train mode"
    assert set(model.state_dict()) == set(task.downstream().state_dict()), "it is no model of the kind of `downstream`"
    _are_metrics(task.evaluate(model))


@check
def models_of_subsets_follow_their_mask(build: Builder) -> None:
    task = build()
    if not isinstance(task, MeasuresSubsets):
        return
    n, m = len(task.candidates()), len(task.targets())
    masks = [np.arange(n) % 2 == 0, np.arange(n) % 2 == 1]
    masks[1][: n % 2] = True  # as many
    one, two = (task.subset_measurements(mask, 0) for mask in masks)
    assert one.shape == two.shape == (m,), "there is not one measurement for each target"
    assert not torch.equal(one, two), "another subset gave the same measurements"
    if isinstance(task, StacksSubsets) and task.stacks_subsets():
        stacked = task.stacked_subset_measurements(masks, [0, 0])
        torch.testing.assert_close(stacked, torch.stack([one, two]), rtol=1e-2, atol=1e-3)


# --- results ---------------------------------------------------------------------------------------------------------


def _are_metrics(found: dict[str, float]) -> None:
    assert found, "there are no metrics"
    for name, value in found.items():
        assert type(value) is float, f"metric {name} is a {type(value).__name__}, not a float"
        assert math.isfinite(value), f"metric {name} is {value}"


@check
def evaluation_depends_on_the_model_alone(build: Builder) -> None:
    task = build()
    model = surrogate(task)
    state = copied(model)
    seed_generators(1)
    with globals_untouched("evaluate"):
        expected = task.evaluate(model)
    _are_metrics(expected)
    seed_generators(2)
    modes: list[bool] = []
    hook = model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    with globals_untouched("evaluate"):
        again = task.evaluate(model)
    hook.remove()
    assert not any(modes), "evaluate judges the model in train mode"
    assert not model.training, "evaluate leaves the model in train mode"
    assert same(copied(model), state), "evaluate changed the model"
    assert again == expected, "evaluate is not always the same"


@check
def evaluation_sees_the_test_split_alone(build: Builder) -> None:
    task = build()
    model = surrogate(task)
    expected = task.evaluate(model)
    unseen = forbidden("evaluate looked at another split than test")
    with contextlib.ExitStack() as stack:
        for split in ("candidates", "targets", "validation"):
            stack.enter_context(mock.patch.object(task, split, unseen))
        assert task.evaluate(model) == expected


@check
def any_split_can_be_evaluated(build: Builder) -> None:
    task = build()
    model = surrogate(task)
    tested = task.evaluate(model)
    assert task.evaluate(model, split="test") == tested, "test is not what is judged by default"
    for split in ("candidates", "targets", "validation"):
        found = task.evaluate(model, split=split)
        _are_metrics(found)
        assert set(found) & set(tested), f"no metric of test is known of {split}"
    assert task.evaluate(model, split="targets") != tested, "targets are judged as test is"


@check
def a_sample_can_be_drawn(build: Builder) -> None:
    task = build()
    axes = Figure().subplots()
    task.draw(task.candidates()[0], axes)
    assert drawn_on(axes), "draw draws nothing"


@check
def a_prediction_can_be_drawn(build: Builder) -> None:
    task = build()
    if not isinstance(task, DrawsPredictions):
        return
    for model in (None, surrogate(task)):
        axes = Figure().subplots()
        task.draw_prediction(model, task.test()[0], axes)
        assert drawn_on(axes), "draw_prediction draws nothing"
