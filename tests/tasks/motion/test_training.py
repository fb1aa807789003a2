"""Learning rates beside PyTorch's schedulers, clipped gradients, averaged weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from tarot import InputError
from tasks.common.training import Surrogate
from tasks.motion.training import PAPER_AUTOBOT_TRAINING, PAPER_WAYFORMER_TRAINING, MotionTraining, train


def rates(training: MotionTraining) -> list[float]:
    return [training.rate(step) for step in range(training.steps)]


def scheduled(make, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    scheduler, found = make(optimizer), []
    for step in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return found


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.3), (37, 0.1), (200, 0.02)])
def test_onecycle_is_pytorchs(steps, warmup):
    training = MotionTraining(steps=steps, warmup=warmup, learning_rate=0.2, schedule="onecycle")
    scheduler = torch.optim.lr_scheduler.OneCycleLR
    expected = scheduled(lambda o: scheduler(o, 0.2, total_steps=steps, pct_start=warmup), steps)
    assert rates(training) == pytest.approx(expected)


def test_halving_is_pytorchs():
    training = MotionTraining(steps=100, learning_rate=0.2, schedule="halving", milestones=(0.1, 0.2, 0.5))
    multi = torch.optim.lr_scheduler.MultiStepLR
    assert rates(training) == pytest.approx(scheduled(lambda o: multi(o, [10, 20, 50], 0.5), 100))


def test_the_papers():
    assert PAPER_AUTOBOT_TRAINING.rate(599) == 7.5e-4 / 16 and PAPER_WAYFORMER_TRAINING.rate(599) == 1e-4 / 32
    optimizer = PAPER_AUTOBOT_TRAINING.make_optimizer(iter(nn.Linear(2, 2).parameters()))
    assert optimizer.defaults["eps"] == 1e-4 and optimizer.defaults["weight_decay"] == 0
    assert rates(MotionTraining(schedule="triangle", steps=10))[0] > 0


def fitted(training: MotionTraining, keep: int | None = None, judge: Callable | None = None):
    torch.manual_seed(0)
    model, seen = nn.Linear(3, 1), []

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        seen.append([p.detach().clone() for p in model.parameters()])
        return 1e3 * (model(batch) - 1).square().mean()

    batch = torch.randn(8, 3)
    kept = train(
        model, loss, iter(lambda: batch, None), training, keep=keep and Surrogate(checkpoints=keep), judge=judge
    )
    return model, kept, seen


def test_gradients_are_clipped():
    """In a step of SGD without momentum and decay the weights move by no more than rate times the norm."""
    options = {"steps": 4, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.1}
    training = MotionTraining(**options, schedule="halving", clip=2.0, average=0.0)
    _, _, seen = fitted(training)
    points = [torch.cat([p.flatten() for p in parameters]) for parameters in seen]
    assert [float((b - a).norm()) for a, b in pairwise(points)] == pytest.approx([0.2] * 3, rel=1e-4)
    with pytest.raises(InputError, match="diverged"):
        fitted(MotionTraining(**{**options, "steps": 200}, schedule="halving", clip=None, average=0.0))


def test_the_last_weights_are_averaged():
    training = MotionTraining(steps=10, average=0.3)
    model, kept, _ = fitted(training, keep=2)
    plain, last, _ = fitted(MotionTraining(steps=10, average=0.0), keep=10)
    expected = torch.stack([checkpoint.state["weight"] for checkpoint in last[-3:]]).mean(0)
    assert torch.allclose(model.weight, expected) and not torch.allclose(model.weight, plain.weight)
    assert torch.equal(kept[1].state["weight"], model.weight) and not model.training
    assert torch.equal(kept[0].state["weight"], last[4].state["weight"])
    assert {"exp_avg", "exp_avg_sq", "step"} == set(kept[1].optimizer_state["weight"])


def test_the_best_model_is_the_one_that_was_judged_best():
    """By hand: the worths of the moments are given, and the weights of the best one are what is left."""
    _, last, _ = fitted(MotionTraining(steps=10, average=0.0), keep=10)
    for worths, best in (([3.0, 1.0, 2.0], 7), ([3.0, 2.0, 1.0], 10), ([1.0, 1.0, 1.0], 4), ([np.nan] * 3, 10)):
        training, given = MotionTraining(steps=10, average=0.0, validations=3, choose="best"), iter(worths)
        model, kept, _ = fitted(training, keep=1, judge=lambda _, given=given: next(given))
        assert torch.equal(model.weight, last[best - 1].state["weight"]) and not model.training
        assert torch.equal(kept[0].state["weight"], last[-1].state["weight"]), "a checkpoint is of its own moment"
        assert next(given, None) is None, "the model was not judged at every moment"
    model, _, _ = fitted(MotionTraining(steps=10, average=0.0), judge=lambda _: pytest.fail("nothing is chosen"))
    assert torch.equal(model.weight, last[-1].state["weight"])


def test_epochs_are_of_what_is_selected():
    """The paper's: 5% of the candidates take a sixth of the steps of 30%."""
    few, many = (PAPER_WAYFORMER_TRAINING.of(round(share * 3_000_000)).steps for share in (0.05, 0.3))
    assert many == 703_125 and few == pytest.approx(many / 6, rel=1e-4)
    assert PAPER_AUTOBOT_TRAINING.of(3_032_000).steps == 592_188
    equal = replace(PAPER_WAYFORMER_TRAINING, epochs=None, steps=728_000)
    assert equal.of(150_000).steps == equal.of(900_000).steps == 728_000
    assert PAPER_WAYFORMER_TRAINING.of(256).epochs is None


def test_what_is_not_asked_for_is_no_part_of_the_recipe():
    plain = MotionTraining(steps=7).recipe()
    assert plain == MotionTraining(steps=7, validations=3).recipe() and not {"epochs", "choose"} & set(plain)
    epochs = MotionTraining(epochs=2, steps=7).recipe()
    assert epochs == MotionTraining(epochs=2, steps=8).recipe() and epochs["epochs"] == 2
    best = MotionTraining(average=0.0, choose="best")
    assert best.recipe()["choose"] == "best" and best.recipe()["validations"] == 10
    assert "choose" not in best.recipe(of_surrogate=True)


def test_recipes():
    training = MotionTraining(merge_targets="one", milestones=[0.5])
    assert training.recipe()["milestones"] == [0.5] and training.recipe()["merge_targets"] == "one"
    assert "merge_targets" not in training.recipe(of_surrogate=True)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"schedule": "warmup_poly"}, "schedule"),
        ({"clip": 0.0}, "clip"),
        ({"average": 1.5}, "average"),
        ({"milestones": (30,)}, "milestones"),
        ({"augment": True}, "augment"),
        ({"choose": "best"}, "train.average=0"),
        ({"epochs": 0.0}, "epochs"),
        ({"optimizer": "lion"}, "optimizer"),
    ],
)
def test_recipes_that_cannot_be(options, word):
    with pytest.raises(InputError, match=word):
        MotionTraining(**options)
