"""How adapters are trained: LESS's warm-up, a selection; and the language itself, where it is made on the spot."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from tarot import InputError
from tarot.common import Count, NonNegative, Positive, Share, at_least, check_options, within
from tarot.workers import team
from tasks.common.snapshots import Snapshots
from tasks.common.training import EpochTraining, Surrogate, Training, endless_batches, fit, seeded
from tasks.instruction.model import LanguageModel, State
from tasks.instruction.tokens import IGNORE, Tokenized, collate, token_batches
from tasks.task import Checkpoint

Batch = dict[str, Tensor]
log = logging.getLogger("tarot")


@dataclass(frozen=True)
class Tuning(EpochTraining):
    """The loss of a step is the mean over its rows of each row's mean over its learned tokens, however they are split.

    batch_size: rows per step. tokens: most that one forward pass holds, with their padding; a step's rows are sorted by
        length and split accordingly. clip: largest norm of the gradient, null for any.
    schedule: from 0 to the learning rate in a line, for the share `warmup` of the steps, then linear: in a line to 0,
        or cosine: as half a cosine.
    """

    steps: Count = 300
    batch_size: Count = 16
    optimizer: Literal["adamw"] = "adamw"
    tokens: Count = 4096
    learning_rate: Positive = 2e-5
    weight_decay: NonNegative = 0.0
    warmup: Share = 0.03
    schedule: Literal["linear", "cosine"] = "linear"
    clip: Positive | None = 1.0

    def recipe(self, *, of_surrogate: bool = False) -> dict[str, Any]:
        """How a step is split determines nothing."""
        everything = super().recipe(of_surrogate=of_surrogate)
        return {name: value for name, value in everything.items() if name != "tokens"}

    def rate(self, step: int) -> float:
        if self.schedule == "linear":
            return super().rate(step)
        start, at = max(self.warmup * self.steps, 0.5), step + 0.5
        if at < start:
            return self.learning_rate * at / start
        return self.learning_rate * (1 + math.cos(math.pi * (at - start) / (self.steps - start))) / 2

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        learnt, most = list(parameters), self.clip
        optimizer = super().make_optimizer(learnt)

        def add_up(*_: Any) -> None:
            team().add_up([p.grad for p in learnt if p.grad is not None])

        optimizer.register_step_pre_hook(add_up)
        if most is not None:

            def clip(*_: Any) -> None:
                nn.utils.clip_grad_norm_(learnt, most)

            optimizer.register_step_pre_hook(clip)
        return optimizer


@dataclass(frozen=True)
class WarmUp(Surrogate):
    """LESS's: adapters that a random `share` of the candidates, or a batch of them, is shown, `train.epochs` times, one
    checkpoint per epoch where there are as many `checkpoints`; the candidates are drawn anew for every run.

    adapters: those of a training that was made elsewhere, in the place of all this: folders of them, or one that holds
    checkpoint-* folders (`tasks.instruction.trained`); null: none.
    """

    runs: Count = 1
    checkpoints: Count = 4
    share: Annotated[float, within("(0, 1]")] = 0.05
    adapters: str | Sequence[str] | None = None
    train: Tuning = field(default_factory=lambda: Tuning(epochs=4.0, batch_size=128))

    def recipe(self) -> dict[str, Any]:
        return {**super().recipe(), "share": self.share}

    def drawn(self, n: int, seed: int) -> np.ndarray:
        """Which of n candidates are seen, as weights, int64 [n]."""
        weights = np.zeros(n, dtype=np.int64)
        count = max(self.train.batch_size, math.floor(self.share * n + 1e-9))
        weights[np.random.default_rng(seed).permutation(n)[:count]] = 1
        return weights

    def refuse_short(self, rows: int) -> None:
        """Raises InputError where so many rows make fewer steps than there are checkpoints."""
        steps = self.train.of(rows).steps
        self.moments(steps)
        if self.checkpoints > steps:
            raise InputError(
                f"a warm-up of {steps} steps cannot give {self.checkpoints} checkpoints: ask for fewer "
                "(task.surrogate.checkpoints), or for more epochs or candidates (task.surrogate.train.epochs, .share)"
            )


def tune(
    model: LanguageModel,
    rows: Tokenized,
    weights: np.ndarray,
    training: Tuning,
    seed: int,
    pad: int,
    *,
    run: int = 0,
    keep: Surrogate | None = None,
    snapshots: Snapshots | None = None,
) -> list[Checkpoint]:
    """Trains `model` in place, where it is, on each row as often as its weight (int64 [n]) says; gives the
    checkpoints that `keep` says. The seed decides all. snapshots: of this very training, which goes on from them."""
    device = next(model.parameters()).device

    def loss(model: LanguageModel, parts: list[Batch]) -> Tensor:
        """Of a step. All but the last part are done with, gradient and all, when the next begins."""
        size, done = training.batch_size, torch.zeros((), device=device)
        for i, part in enumerate(parts):
            with training.precision(device):
                value = model.losses(part["input_ids"], part["labels"]).sum() / size
            if i == len(parts) - 1:
                return value + done
            value.backward()
            done += value.detach()
        raise AssertionError("a step has at least one part")

    training = training.of(int(weights.sum()))
    if team().together and training.batch_size < team().size:
        raise InputError(f"{team().size} processes cannot share {training.batch_size} rows a step: start fewer")
    batches = _steps(rows, weights, training, seed, pad, device)
    with seeded(seed):  # of dropout
        told = "training" if keep is None else "warm-up"
        return fit(model, loss, batches, training, run=run, keep=keep, told=told, snapshots=snapshots)


def for_learner(weights: np.ndarray, ours: Sequence[str], theirs: Sequence[str], max_length: int) -> np.ndarray:
    """Weights of our candidates and targets, by their ids, as those of a learner's, int64, of whom its tokenizer may
    have left other ones out."""
    known, there = dict(zip(ours, weights.tolist(), strict=True)), set(theirs)
    lost = sum(weight > 0 for name, weight in known.items() if name not in there)
    if lost:
        log.warning("%d selected rows have no answer within %d tokens of the learner's", lost, max_length)
    return np.array([known.get(name, 0) for name in theirs], dtype=np.int64)


def _steps(
    rows: Tokenized, weights: np.ndarray, training: Tuning, seed: int, pad: int, device: torch.device
) -> Iterator[list[Batch]]:
    """Endless steps, each the parts that it is split into; of several processes that train together each has some of a
    step's rows, which alternate by length."""
    lengths, joined = rows.lengths, collate(pad)
    for indices in endless_batches(weights, training.batch_size, seed):
        if team().together:
            by_length = indices[np.argsort(lengths[indices], kind="stable")]
            indices = by_length[team().rank :: team().size]
        parts = token_batches(lengths[indices], training.tokens)
        yield [
            {
                name: tensor.to(device, non_blocking=True)
                for name, tensor in joined([rows[i] for i in indices[part].tolist()]).items()
            }
            for part in parts
        ]


# --- a language made on the spot --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pretraining(Training):
    """All weights learn a text, whose conversations stand one behind the other.

    batch_size: pieces of `length` tokens per step. learn: every token, or answers alone, which is faster where
    questions cannot be foreseen.
    """

    steps: Count = 1000
    batch_size: Count = 16
    length: Annotated[int, at_least(2)] = 128
    learn: Literal["every", "answers"] = "every"
    learning_rate: Positive = 3e-3
    warmup: Share = 0.1

    def __post_init__(self) -> None:
        check_options(self, "task.pretraining")


def pretrain(net: PreTrainedModel, text: Tokenized, training: Pretraining, seed: int, device: torch.device) -> State:
    """Trains `net` on a text, cut into pieces; its weights, on the CPU."""
    count = len(text.tokens) // training.length
    if not count:
        raise InputError(
            f"task.pretraining.length is {training.length}, and the text to learn has {len(text.tokens)} tokens; "
            "lower it, or ask for more rows (task.data.general_rows)"
        )
    ids = torch.from_numpy(text.tokens.astype(np.int64))
    labels = ids if training.learn == "every" else ids.masked_fill(torch.from_numpy(~text.learned), IGNORE)
    pieces, wanted = (part[: count * training.length].view(count, training.length) for part in (ids, labels))
    indices = endless_batches(np.ones(count, dtype=np.int64), training.batch_size, seed)

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        with training.precision(device):
            logits = net(input_ids=batch[0], use_cache=False).logits
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch[1][:, 1:].flatten())

    with seeded(seed):
        net.to(device)  # type: ignore[arg-type]  # transformers' decorator hides what `to` takes
        fit(net, loss, ((pieces[i].to(device), wanted[i].to(device)) for i in indices), training, told="language")
    return {name: tensor.cpu() for name, tensor in net.state_dict().items()}
