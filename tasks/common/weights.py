"""Weights of networks from files: read without running anything, and loaded whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from tarot import InputError
from tarot.common import first_line
from tarot.features import BAD_TORCH

_SAVE = "save it by torch.save(model.state_dict(), FILE)"


def read_state(path: str | Path, option: str) -> dict[str, Tensor]:
    """The state_dict in a file, as safetensors or as torch saves it. Nothing in the file is run. Raises InputError,
    with the option's name, where it holds none."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{option}: there is no file {file}")
    try:
        if file.suffix == ".safetensors":
            given = safetensors.torch.load_file(file)
        else:
            given = torch.load(file, weights_only=True, map_location="cpu")
        if not isinstance(given, dict) or not all(isinstance(value, Tensor) for value in given.values()):
            raise InputError(f"{option}: {file} holds no state_dict, which is tensors by name: {_SAVE}")
    except InputError:
        raise
    except BAD_TORCH as error:
        raise InputError(f"{option}: {file} holds no state_dict of tensors: {first_line(error)}; {_SAVE}") from error
    return given


def load_strictly(model: nn.Module, path: str | Path, option: str) -> None:
    """The weights of a file into the model. Raises InputError, with the option's name, where it holds none or those of
    another network."""
    load_state_strictly(model, read_state(path, option), f"{option}: {path}")


def load_state_strictly(model: nn.Module, given: Mapping[str, Tensor], where: str) -> None:
    """A state_dict into the model. Raises InputError, which begins with where it is from, unless it has the model's
    names and shapes."""
    own = model.state_dict()
    missing = [name for name in own if name not in given]
    strange = [name for name in given if name not in own]
    other = [name for name in own if name in given and own[name].shape != given[name].shape]
    if missing or strange or other:
        if missing:
            what = f"{missing[0]} is missing"
        elif other:
            what = f"{other[0]} is {list(given[other[0]].shape)}, and the model's is {list(own[other[0]].shape)}"
        else:
            what = f"the model has no {strange[0]}"
        count = len(missing) + len(strange) + len(other)
        raise InputError(f"{where} is of another network ({what}; {count} of its names do not fit)")
    model.load_state_dict(given)
