"""Adam's moments beside a checkpoint, by the names of parameters: what LESS needs besides the weights.

A file moments.safetensors in the checkpoint's folder: tensors `<parameter>.exp_avg`, `.exp_avg_sq` and `.step`, and in
its metadata the mean learning rate since the checkpoint before.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tarot.common import InputError, atomic_file, check_is_file
from tarot.features import BAD_TORCH

FILE = "moments.safetensors"
KEYS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Moments:
    """of: parameter -> `exp_avg`, `exp_avg_sq`, `step`, as `tarot.adam_features` takes them. learning_rate: the mean
    one since the checkpoint before; for `learning_rates` of `tarot.select`."""

    of: Mapping[str, Mapping[str, Tensor]]
    learning_rate: float


def moments_of(model: nn.Module, optimizer: torch.optim.Optimizer, learning_rate: float) -> Moments:
    """Of the model's trainable parameters. Raises InputError where the optimizer has none of one of them, or is not
    Adam."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            state = optimizer.state.get(parameter, {})
            if not set(KEYS) <= set(state):
                raise InputError(
                    f"the optimizer {type(optimizer).__name__} has no exp_avg, exp_avg_sq and step of {name}: LESS "
                    "needs Adam or AdamW, whole on this process"
                )
            found[name] = {key: torch.as_tensor(state[key]).detach().cpu().contiguous() for key in KEYS}
    return Moments(found, learning_rate)


def write_moments(folder: str | Path, moments: Moments) -> None:
    """As the file of a checkpoint's folder."""
    tensors = {f"{name}.{key}": value for name, state in moments.of.items() for key, value in state.items()}
    with atomic_file(Path(folder) / FILE) as temporary:
        save_file(tensors, temporary, {"learning_rate": repr(moments.learning_rate)})


def read_moments(folder: str | Path) -> Moments | None:
    """Those of a checkpoint's folder; None where it has no such file. Raises InputError where the file holds something
    else."""
    path = Path(folder) / FILE
    if not os.path.lexists(path):
        return None
    check_is_file(path)
    found: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, "pt") as file:
            rate = float((file.metadata() or {}).get("learning_rate", "nan"))
            for tensor in file.keys():  # noqa: SIM118 (not a dict)
                name, _, key = tensor.rpartition(".")
                found.setdefault(name, {})[key] = file.get_tensor(tensor)
    except BAD_TORCH as error:
        raise InputError(f"{path} does not hold Adam's moments: {error}") from error
    wrong = [name for name, state in found.items() if set(state) != set(KEYS)]
    if wrong or not (math.isfinite(rate) and rate >= 0):
        raise InputError(
            f"{path} does not hold Adam's moments and a learning rate: {(wrong or ['the rate'])[0]} is odd"
        )
    return Moments(found, rate)
