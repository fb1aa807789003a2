"""Training on a selection: weights become exact repeats, seeds decide everything, and all arms get the same steps."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Sampler

from tarot import InputError, Selection
from tarot.common import Count, NonNegative, Positive, Share, check_options, progress, warn_if_emulated
from tarot.workers import LOCAL, Threads, Workers, team
from tasks.common.snapshots import Snapshot, Snapshots, chance
from tasks.task import Batch, Checkpoint, Model

log = logging.getLogger("tarot")
MergeTargets = Literal[False, "one", "max"]


def evenly_spaced(times: int, steps: int) -> set[int]:
    """After how many of so many steps something is done so many times, the last time at the end; fewer times where
    there are fewer steps."""
    return {math.ceil(steps * (i + 1) / times) for i in range(times)}


@dataclass(frozen=True)
class Surrogate:
    """The models that gradients are taken of: `runs` of them, trained independently on all candidates (or what else
    the task says), each giving `checkpoints`, one of them at the end of its training.

    keep: spread, evenly over the training; or last, of those that it saves.
    saved: how many it saves, evenly spaced, where the last are kept: one an epoch, say. Else null.
    """

    runs: Count = 1
    checkpoints: Count = 1
    keep: Literal["spread", "last"] = "spread"
    saved: Count | None = None

    def __post_init__(self) -> None:
        check_options(self, "task.surrogate")
        if self.keep == "spread" and self.saved is not None:
            raise InputError(
                "task.surrogate.saved means nothing where checkpoints are spread: set task.surrogate.keep=last"
            )
        if self.keep == "last" and (self.saved is None or self.saved < self.checkpoints):
            raise InputError(
                f"task.surrogate.saved must be at least {self.checkpoints}, as many as are kept; it is {self.saved}"
            )

    def recipe(self) -> dict[str, Any]:
        """As plain data, but for how they are trained."""
        last = {} if self.saved is None else {"keep": self.keep, "saved": self.saved}
        return {"runs": self.runs, "checkpoints": self.checkpoints, **last}

    def moments(self, steps: int) -> list[int]:
        """After how many of so many steps a checkpoint is saved, ascending; the last `checkpoints` of them are kept.
        Raises InputError where the last ones would fall together."""
        saved = self.checkpoints if self.saved is None else self.saved
        if self.saved is not None and saved > steps:
            raise InputError(f"task.surrogate.saved: a training of {steps} steps cannot save {saved} checkpoints")
        return sorted(evenly_spaced(saved, steps))


ONE_SURROGATE = Surrogate()


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    steps: optimizer steps, whatever the size of the selection, so that every method is given the same compute.
    learning_rate: its peak, reached after `warmup` (a share of the steps) from 0 and followed by a line back to 0.
    label_smoothing, augment: of training alone; `Task.losses` knows neither.
    autocast: dtype of the forward pass, such as "bfloat16"; None is float32.
    merge_targets: whether the targets join the epoch: False, each "one" time, or as often as the candidate that is
        repeated most ("max", as the authors do).
    """

    of_selections: ClassVar[Sequence[str]] = ("merge_targets",)  # options that surrogates know nothing of

    steps: Count = 300
    batch_size: Count = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Positive = 3e-3
    weight_decay: NonNegative = 1e-2
    momentum: NonNegative = 0.9
    warmup: Share = 0.2
    label_smoothing: Share = 0.0
    augment: bool = False
    autocast: Literal["bfloat16", "float16"] | None = None
    merge_targets: MergeTargets = False

    def __post_init__(self) -> None:
        check_options(self, "train")

    def recipe(self, *, of_surrogate: bool = False) -> dict[str, Any]:
        """As plain data; `of_surrogate` without what it does not depend on."""
        return {
            name: value if isinstance(value, str) or not isinstance(value, Sequence) else list(value)
            for name, value in asdict(self).items()
            if not (of_surrogate and name in self.of_selections)
        }

    def rate(self, step: int) -> float:
        """Learning rate of step 0..steps-1: a triangle over (0, steps), never 0 itself."""
        return float(
            np.interp(step + 0.5, [0, max(self.warmup * self.steps, 0.5), self.steps], [0, self.learning_rate, 0])
        )

    def set_rate(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step)
        return self.rate(step)

    @property
    def dtype(self) -> torch.dtype | None:
        return None if self.autocast is None else getattr(torch, self.autocast)

    def precision(self, device: torch.device) -> contextlib.AbstractContextManager:
        """The context that a forward pass is made in."""
        return torch.autocast(device.type, self.dtype) if self.dtype else contextlib.nullcontext()

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        if self.optimizer == "adamw":
            return torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            parameters, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )


@dataclass(frozen=True)
class EpochTraining(Training):
    """A training that may be as long as what is selected is large.

    epochs: how often samples are seen, repeated ones as often as they are repeated; the last batch of an epoch is
        filled up from the next. steps: of the optimizer, where epochs is null.
    """

    epochs: Positive | None = None

    def of(self, samples: int) -> Self:
        """The same, its epochs as steps, for an epoch of so many samples."""
        if self.epochs is None:
            return self
        return replace(self, steps=max(1, math.ceil(self.epochs * samples / self.batch_size)), epochs=None)


def epoch_weights(selection: Selection, n: int, m: int, merge_targets: MergeTargets) -> np.ndarray:
    """How often each of N candidates and then each of M targets occurs in an epoch, int64 [N + M].

    An empty selection is the arm `target_only`: every target once, whatever `merge_targets` says.
    """
    weights = np.zeros(n + m, dtype=np.int64)
    weights[selection.indices] = selection.weights
    if not len(selection.indices):
        weights[n:] = 1
    elif merge_targets:
        weights[n:] = 1 if merge_targets == "one" else selection.weights.max()
    return weights


class WeightedSampler(Sampler[int]):
    """Epochs in which index i occurs exactly weights[i] times, each in an order of its own; all decided by the seed.

    Made anew for every training and never handed from one loader to another (ledger L-20); it keeps a copy of the
    weights, so nobody can change them behind its back (L-19).
    """

    def __init__(self, weights: np.ndarray, seed: int) -> None:
        self.repeats = np.repeat(np.arange(len(weights)), weights)
        if not len(self.repeats):
            raise InputError("there is nothing to train on: every weight is 0")
        self.rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.repeats)

    def __iter__(self) -> Iterator[int]:
        return iter(self.rng.permutation(self.repeats).tolist())


def endless_batches(weights: np.ndarray, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Index batches, int64 [batch_size], of one epoch after another; they straddle epochs, so all are full."""
    sampler = WeightedSampler(weights, seed)
    stream = (index for _ in iter(int, 1) for index in sampler)
    while True:
        yield np.fromiter(islice(stream, batch_size), dtype=np.int64, count=batch_size)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global generators, those of GPUs too, seeded inside the block and untouched outside."""
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)
        yield


def trainers(engine: Workers) -> Workers:
    """Whose workers train: those of the engine, or this thread in the place of several, which would share torch's
    generators, and so what is drawn from them."""
    return LOCAL if isinstance(engine, Threads) else engine


def fit(
    model: Model,
    loss: Callable[[Model, Batch], Tensor],
    batches: Iterator[Batch],
    training: Training,
    *,
    run: int = 0,
    keep: Surrogate | None = None,
    watch: Callable[[Model, int], None] | None = None,
    told: str | None = None,
    snapshots: Snapshots | None = None,
) -> list[Checkpoint]:
    """Train `model` in place and leave it in eval mode; return the checkpoints that `keep` says, None: none.

    loss: the mean one of a batch, a scalar. Raises InputError where it becomes NaN or infinite.
    watch: told the model and the number of steps made, after each; it may leave the model in eval mode.
    told: what progress calls the training; None: nothing.
    snapshots: of this very training, which goes on from the last one; None: it always begins at its beginning.
    """
    kept: list[Checkpoint] = []
    rates: list[float] = []
    done = 0
    saved = [] if keep is None else keep.moments(training.steps)
    wanted = saved if keep is None else saved[-keep.checkpoints :]
    warn_if_emulated(training.dtype, next(model.parameters()).device)
    optimizer = training.make_optimizer(p for p in model.parameters() if p.requires_grad)
    if snapshots is not None and (last := snapshots.latest()) is not None:
        last.restore(model, optimizer)
        done, kept, rates = last.step, list(last.kept), list(last.rates)
        log.info("%s goes on after step %d of %d", told or "training", done, training.steps)
    model.train()
    shown = contextlib.nullcontext(lambda _: None) if told is None else progress(told, training.steps - done, "steps")
    with shown as advance:
        for step, batch in enumerate(islice(batches, done, training.steps), done):
            rates.append(training.set_rate(optimizer, step))
            optimizer.zero_grad()
            value = loss(model, batch)
            if not torch.isfinite(value):
                raise InputError(
                    f"training diverged: the loss is {value.item()} at step {step}; lower the learning rate"
                )
            value.backward()
            optimizer.step()
            if step + 1 in wanted:
                kept.append(_checkpoint(f"run{run}-step{step + 1}", model, optimizer, float(np.mean(rates)), run))
            if step + 1 in saved:
                rates.clear()
            if watch is not None:
                watch(model, step + 1)
                model.train()
            if snapshots is not None and team().rank == 0 and (step + 1 in saved or snapshots.due()):
                state = _checkpoint("now", model, optimizer, 0.0, run)
                moments = state.optimizer_state or {}
                snapshots.save(Snapshot(step + 1, rates, state.state, moments, kept, chance()))
            advance(1)
    model.eval()
    return kept


def _checkpoint(
    name: str, model: nn.Module, optimizer: torch.optim.Optimizer, learning_rate: float, run: int
) -> Checkpoint:
    def copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()
        }

    learnt = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    states = {name: copy(optimizer.state[parameter]) for name, parameter in learnt.items()}
    return Checkpoint(name, copy(model.state_dict()), learning_rate, states, run)
