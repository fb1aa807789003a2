"""How a task trains."""

from __future__ import annotations

import copy

import numpy as np
import torch

from tasks.task import MeasuresSubsets, StacksSubsets
from tests.tasks.conformance.tools import (
    Builder,
    check,
    check_metrics,
    equal,
    globals_untouched,
    learning,
    same,
    seed_generators,
    selection,
    unseen,
)


@check
def checkpoints_hold_parameters_and_buffers(build: Builder) -> None:
    task = build("surrogate.runs=2", "surrogate.checkpoints=2")
    with unseen(task, "test", "the surrogate's training looked at the test split"):
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
    shown = [("candidates", 3), ("candidates", 4), ("targets", 0)]  # a selected one, one that is not, a target
    samples = copy.deepcopy([task.samples(split)[i] for split, i in shown])
    seed_generators(1)
    one = task.train(chosen, seed=3).state_dict()
    assert equal([task.samples(split)[i] for split, i in shown], samples), "training wrote into samples"
    unspoilt = selection(range(0, 30, 3))
    for what in ("indices", "weights"):
        before, after = getattr(unspoilt, what), getattr(chosen, what)
        assert np.array_equal(before, after), f"training wrote into the selection's {what}"
    seed_generators(2)
    with globals_untouched("training"), unseen(task, "test", "training looked at the test split"):
        two, other = task.train(chosen, seed=3).state_dict(), task.train(chosen, seed=4).state_dict()
    assert same(one, two), "the same seed gave another model"
    assert not same(one, other), "another seed gave the same model"


@check
def training_follows_the_selection_and_its_weights(build: Builder) -> None:
    task = build()
    plain = task.train(selection(range(0, 30, 3)), seed=3).state_dict()
    others = task.train(selection(range(1, 31, 3)), seed=3).state_dict()
    heavy, heavier = (
        task.train(selection(range(0, 30, 3), [weight, *[1] * 9]), seed=3).state_dict() for weight in (3, 9)
    )
    assert not same(plain, others), "what is selected does not matter"
    assert not same(plain, heavy), "weights do not matter"
    assert not same(heavy, heavier), "how large a weight is does not matter"


@check
def targets_alone_can_be_trained_on(build: Builder) -> None:
    task = build()
    model = task.train(selection([]), seed=0)
    assert not model.training, "training leaves the model in train mode"
    fresh = task.downstream()
    assert set(model.state_dict()) == set(fresh.state_dict()), "it is no model of the kind of `downstream`"
    assert learning(model) == learning(fresh), "training leaves parameters without gradients"
    check_metrics(task.evaluate(model))


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
