"""transformers: checkpoints of a `Trainer` that leave what LESS needs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tarot.common import InputError
from tarot.integrations.moments import Moments, moments_of, read_moments, write_moments

__all__ = ["LessCheckpoints", "Moments", "read_moments"]

log = logging.getLogger("tarot")


class LessCheckpoints(TrainerCallback):
    """At the end of every epoch a folder `checkpoint-<step>` in `folder`: the model as it saves itself (of a peft model
    the adapters), Adam's moments by the names of parameters, and the epoch's mean learning rate.

        trainer = Trainer(model, args, train_dataset=rows, callbacks=[LessCheckpoints("warmup")])

    `python run.py task=instruction/files task.surrogate.adapters=warmup ...` selects by them, without a warm-up of its
    own; elsewhere `read_moments(folder)` gives what `tarot.adam_features` takes.

    folder: None is `tarot` in the trainer's output_dir. every: how many epochs from one to the next; there is one at
    the end of the training, too. Of optimizers that are no Adam, or that are spread over processes (FSDP, DeepSpeed),
    it leaves no moments and says so: features of plain gradients do without.
    """

    def __init__(self, folder: str | Path | None = None, *, every: int = 1) -> None:
        if every < 1:
            raise InputError(f"every must be at least 1; it is {every}")
        self.folder = None if folder is None else Path(folder)
        self.every = every
        self._rates: list[float] = []
        self._epochs = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._rates, self._epochs = [], 0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._rates.append(float(kwargs["optimizer"].param_groups[0]["lr"]))

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._epochs += 1
        if self._epochs % self.every == 0:
            self._save(args, state, kwargs["model"], kwargs["optimizer"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._rates:  # of epochs that were not saved
            self._save(args, state, kwargs["model"], kwargs["optimizer"])

    def _save(self, args: TrainingArguments, state: TrainerState, model: Any, optimizer: Any) -> None:
        if not (self._rates and state.is_world_process_zero):
            return
        folder = (self.folder or Path(str(args.output_dir)) / "tarot") / f"checkpoint-{state.global_step}"
        model.save_pretrained(folder)
        rate = sum(self._rates) / len(self._rates)
        self._rates = []
        try:
            write_moments(folder, moments_of(model, optimizer, rate))
        except InputError as error:
            log.warning("warning: %s has no moments: %s", folder, error)
