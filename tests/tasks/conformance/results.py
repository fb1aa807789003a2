"""How a task judges models, and shows what it is about."""

from __future__ import annotations

import contextlib
import copy

import torch
from matplotlib.figure import Figure

from tasks.task import DrawsPredictions
from tests.tasks.conformance.tools import (
    Builder,
    batch_of,
    check,
    check_metrics,
    copied,
    drawn_on,
    equal,
    globals_untouched,
    learning,
    pyplot_untouched,
    same,
    seed_generators,
    surrogate,
    unseen,
)


@check
def evaluation_depends_on_the_model_alone(build: Builder) -> None:
    task = build()
    model = surrogate(task)
    state, learns = copied(model), learning(model)
    seed_generators(1)
    with globals_untouched("evaluate"):
        expected = task.evaluate(model)
    check_metrics(expected)
    seed_generators(2)
    modes: list[bool] = []
    hook = model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    with globals_untouched("evaluate"):
        again = task.evaluate(model)
    hook.remove()
    assert not any(modes), "evaluate judges the model in train mode"
    assert not model.training, "evaluate leaves the model in train mode"
    assert same(copied(model), state), "evaluate changed the model"
    assert learning(model) == learns, "evaluate leaves parameters without gradients"
    assert again == expected, "evaluate is not always the same"


@check
def evaluation_sees_the_test_split_alone(build: Builder) -> None:
    task = build()
    model = surrogate(task)
    expected = task.evaluate(model)
    with contextlib.ExitStack() as stack:
        for split in ("candidates", "targets", "validation"):
            stack.enter_context(unseen(task, split, "evaluate looked at another split than test"))
        assert task.evaluate(model) == expected


@check
def a_model_that_fits_better_is_judged_better(build: Builder) -> None:
    """A few steps down the losses of the test split, and a few up: where the two differ in a metric, the better one is
    better by it. What is not told apart by that, such as answers that are all wrong in both, is not checked."""
    task = build()
    model = surrogate(task)
    begin, batch = copied(model), batch_of(task, range(min(16, len(task.test()))), "test")
    judged = []
    for direction in (1, -1):
        model.load_state_dict(begin)
        learning = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=0.03)
        for _ in range(6):
            learning.zero_grad()
            (direction * task.losses(model, batch).mean()).backward()
            learning.step()
        judged.append(task.evaluate(model))
    better, worse = judged
    told = [name for name in better if "/" not in name and better[name] != worse[name]]  # of parts, luck decides
    assert told, "no metric tells a model that fits from one that does not"
    for name in told:
        lower = better[name] < worse[name]
        assert task.lower_is_better(name) == lower, (
            f"{name} is {better[name]:g} of a model that fits and {worse[name]:g} of one that does not, and "
            f"{'lower' if not lower else 'higher'} is said to be better"
        )


@check
def any_split_can_be_evaluated(build: Builder) -> None:
    task = build()
    model = surrogate(task)
    tested = task.evaluate(model)
    assert task.evaluate(model, split="test") == tested, "test is not what is judged by default"
    for split in ("candidates", "targets", "validation"):
        found = task.evaluate(model, split=split)
        check_metrics(found)
        assert set(found) & set(tested), f"no metric of test is known of {split}"
    assert task.evaluate(model, split="targets") != tested, "targets are judged as test is"


@check
def a_sample_can_be_drawn(build: Builder) -> None:
    task = build()
    axes = Figure().subplots()
    before = copy.deepcopy(task.candidates()[0])
    with pyplot_untouched("draw"), globals_untouched("draw"):
        task.draw(task.candidates()[0], axes)
    assert drawn_on(axes), "draw draws nothing"
    assert equal(before, task.candidates()[0]), "draw changes the sample"


@check
def a_prediction_can_be_drawn(build: Builder) -> None:
    task = build()
    if not isinstance(task, DrawsPredictions):
        return
    for model in (None, surrogate(task)):
        axes = Figure().subplots()
        with pyplot_untouched("draw_prediction"), globals_untouched("draw_prediction"):
            task.draw_prediction(model, task.test()[0], axes)
        assert drawn_on(axes), "draw_prediction draws nothing"
