"""How a forecaster is trained: its learning rates, its clipped gradients, and the average of its last weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from tarot import InputError
from tarot.common import Count, Positive, Share
from tasks.common.training import EpochTraining, Surrogate, Training, evenly_spaced, fit
from tasks.task import Batch, Checkpoint, Model


@dataclass(frozen=True)
class MotionTraining(EpochTraining):
    """The small models' by default; `PAPER_AUTOBOT_TRAINING` and `PAPER_WAYFORMER_TRAINING` are the paper's.

    steps: for every arm the same, where epochs is null; with epochs, where less is selected there are fewer of them.
    optimizer: Adam is adamw without weight decay. epsilon: Adam's.
    schedule: halving halves the learning rate after each of the `milestones`, shares of the steps; onecycle is that of
        `torch.optim.lr_scheduler.OneCycleLR`, which rises to the learning rate for the share `warmup` of the steps and
        then falls to nothing, both as a cosine; triangle is `Training`'s.
    clip: the largest norm of a gradient; null for any.
    average: the model is the mean of its weights over this share of the steps, the last ones; 0: as the last step
        leaves it.
    choose: last; or best, the model that was best on the validation split. validations: how often a model is judged
        for that, evenly spaced, the last at the end.
    """

    of_selections: ClassVar[Sequence[str]] = (*Training.of_selections, "validations", "choose")

    steps: Count = 600
    learning_rate: Positive = 1.5e-3
    warmup: Share = 0.3
    schedule: Literal["halving", "onecycle", "triangle"] = "onecycle"
    milestones: Sequence[Share] = ()
    epsilon: Positive = 1e-8
    clip: Positive | None = 5.0
    average: Share = 0.2
    validations: Count = 10
    choose: Literal["best", "last"] = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augment or self.label_smoothing:
            raise InputError("train.augment and train.label_smoothing mean nothing in motion prediction")
        if self.choose == "best" and self.average:
            raise InputError(
                "train.choose=best takes a model of one moment, and train.average the mean of several: set "
                "train.average=0 or train.choose=last"
            )

    def recipe(self, *, of_surrogate: bool = False) -> dict[str, Any]:
        """What is not asked for determines nothing."""
        idle = {"steps"} if self.epochs is not None else {"epochs"}
        if self.choose == "last":
            idle |= {"validations", "choose"}
        return {name: value for name, value in super().recipe(of_surrogate=of_surrogate).items() if name not in idle}

    def moments(self) -> set[int]:
        """After how many steps the model is judged."""
        if self.choose == "last":
            return set()
        return evenly_spaced(self.validations, self.steps)

    def rate(self, step: int) -> float:
        if self.schedule == "triangle":
            return super().rate(step)
        if self.schedule == "halving":
            return self.learning_rate * 0.5 ** sum(step >= share * self.steps for share in self.milestones)
        peak, first = max(self.warmup * self.steps - 1, 0.0), self.learning_rate / 25
        if step < peak:
            return _cosine(first, self.learning_rate, step / peak)
        return _cosine(self.learning_rate, first / 1e4, (step - peak) / max(self.steps - 1 - peak, 1.0))

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        learnt, most = list(parameters), self.clip
        if self.optimizer == "adamw":
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(
                learnt, lr=self.learning_rate, weight_decay=self.weight_decay, eps=self.epsilon, fused=True
            )
        else:
            optimizer = super().make_optimizer(learnt)
        if most is not None:
            optimizer.register_step_pre_hook(lambda *_: _clip(learnt, most))
        return optimizer


PAPER_AUTOBOT_TRAINING = MotionTraining(
    batch_size=256, learning_rate=7.5e-4, weight_decay=0.0, epsilon=1e-4, schedule="halving",
    milestones=(0.2, 0.4, 0.6, 0.8), average=0.0, epochs=50,
)  # fmt: skip
"""Halved after 10, 20, 30 and 40 epochs."""
PAPER_WAYFORMER_TRAINING = MotionTraining(
    batch_size=128, learning_rate=1e-4, schedule="halving", milestones=(0.1, 0.2, 0.3, 0.4, 0.5), average=0.0,
    epochs=100, validations=100, choose="best",
)  # fmt: skip
"""Halved after 10, 20, 30, 40 and 50 epochs; judged after each."""


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def _clip(parameters: list[nn.Parameter], norm: float) -> None:
    nn.utils.clip_grad_norm_(parameters, norm)


class WeightAverage:
    """The mean of a model's parameters over the steps that it is shown, in float32 or more."""

    def __init__(self) -> None:
        self.count = 0
        self._means: list[Tensor] = []

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        self.count += 1
        parameters = list(model.parameters())
        if self.count == 1:
            self._means = [p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True) for p in parameters]
        else:
            for mean, parameter in zip(self._means, parameters, strict=True):
                mean.lerp_(parameter.to(mean.dtype), 1 / self.count)

    @torch.no_grad()
    def give(self, model: nn.Module) -> None:
        for parameter, mean in zip(model.parameters(), self._means, strict=True):
            parameter.copy_(mean)


def train(
    model: Model,
    loss: Callable[[Model, Batch], Tensor],
    batches: Iterator[Batch],
    training: MotionTraining,
    *,
    run: int = 0,
    keep: Surrogate | None = None,
    judge: Callable[[Model], float] | None = None,
) -> list[Checkpoint]:
    """`tasks.common.training.fit`, after which the model is the average of its last weights, and so is the last
    checkpoint. Its optimizer's moments are those of the last step.

    judge: what a model is worth, lower is better, where `training` chooses the best; the model is then the best one,
    the first of several, and the last where none has a worth.
    """
    average, first = WeightAverage(), training.steps * (1 - training.average)
    moments, best = training.moments(), math.inf
    chosen: dict[str, Tensor] = {}

    def watch(model: Model, step: int) -> None:
        nonlocal best, chosen
        if step > first:
            average.add(model)
        if judge is not None and step in moments:
            worth = judge(model)
            if worth < best:
                best, chosen = worth, {name: value.clone() for name, value in model.state_dict().items()}

    kept = fit(model, loss, batches, training, run=run, keep=keep, watch=watch)
    if chosen:
        model.load_state_dict(chosen)
    if average.count:
        average.give(model)
        if kept:
            state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            kept[-1] = replace(kept[-1], state=state)
    return kept
