"""Trainings that go on where they were killed: model, optimizer, chance and what was kept so far, on disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tasks.common.cache import damage, load_checkpoints, made, save_checkpoints
from tasks.task import Checkpoint

EVERY = 60.0  # seconds
log = logging.getLogger("tarot")


@dataclass(frozen=True)
class Snapshot:
    """A training after `step` steps: rates of those since the last checkpoint, and the checkpoints `kept` so far."""

    step: int
    rates: Sequence[float]
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Mapping[str, Tensor]]
    kept: Sequence[Checkpoint]
    chance: Mapping[str, Tensor]

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Model, optimizer and torch's generators as they were."""
        model.load_state_dict(dict(self.model))
        for name, parameter in model.named_parameters():
            if name in self.optimizer:
                moments = self.optimizer[name].items()
                optimizer.state[parameter] = {
                    key: value.clone() if key == "step" else value.to(parameter.device, copy=True)
                    for key, value in moments
                }
        torch.set_rng_state(self.chance["cpu"])
        gpus = [self.chance[key] for key in sorted(self.chance) if key != "cpu"]
        if gpus and torch.cuda.device_count() == len(gpus):
            torch.cuda.set_rng_state_all(gpus)


def chance() -> dict[str, Tensor]:
    """The state of torch's generators."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), **{f"gpu{place:03d}": state for place, state in enumerate(gpus)}}


@dataclass
class Snapshots:
    """Of one training, one every EVERY seconds, but for those that are due. folder: where the last one is, and nothing
    else. taken: when that was."""

    folder: Path
    taken: float | None = None

    def due(self) -> bool:
        """Whether it is time for one."""
        if self.taken is None:
            self.taken = time.monotonic()
        return time.monotonic() - self.taken >= EVERY

    def save(self, snapshot: Snapshot) -> None:
        """In the place of the one before."""
        numbers = {
            "step": torch.tensor(snapshot.step),
            "rates": torch.tensor(list(snapshot.rates), dtype=torch.float64),
        }
        known = [
            *snapshot.kept,
            Checkpoint("now", snapshot.model, 0.0, snapshot.optimizer),
            Checkpoint("progress", {**numbers, **snapshot.chance}, 0.0),
        ]
        path = self.folder / f"{snapshot.step:09d}.safetensors"
        made(path, lambda temporary: save_checkpoints(temporary, known))
        for old in self.folder.glob("*.safetensors"):
            if old != path:
                old.unlink()
                old.with_name(f".{old.name}.sha256").unlink(missing_ok=True)
        self.taken = time.monotonic()

    def latest(self) -> Snapshot | None:
        """The last one that is whole."""
        for path in sorted(self.folder.glob("*.safetensors"), reverse=True):
            if damage(path) is None:
                *kept, now, progress = load_checkpoints(path)
                numbers: dict[str, Any] = dict(progress.state)
                step, rates = int(numbers.pop("step")), numbers.pop("rates").tolist()
                return Snapshot(step, rates, now.state, now.optimizer_state or {}, kept, numbers)
            log.warning("warning: %s is damaged, and not used", path)
            path.unlink()
        return None
