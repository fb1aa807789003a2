"""Results on disk: made once under a lock, whole or absent, and checked against a checksum when they are read.

Beside every file `name` is the hidden `.name.sha256`, in the format of the command sha256sum. What is damaged is made
again, which is said. Nothing that is read can run code: tensors are safetensors, arrays are npz without pickles.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tarot import InputError
from tarot.common import atomic_directory, atomic_file, hash_content, locked
from tarot.features import BAD_NPZ
from tasks.task import Checkpoint

Read = TypeVar("Read")
log = logging.getLogger("tarot")


# --- files and their checksums ---------------------------------------------------------------------------------------


def made(path: Path, make: Callable[[Path], object], *, folder: bool = False) -> Path:
    """`path`, which `make` writes unless it is there; of several processes one makes it and the others wait.

    What is there is not read; `kept` and `checked` are for that. folder: whether `make` is given an empty folder.
    """
    if not path.exists():  # one that is there is whole: a cache that cannot be written to can be read
        with locked(path):
            if not path.exists():
                _make(path, make, folder)
    return path


def kept(path: Path, make: Callable[[Path], object], read: Callable[[Path], Read], *, folder: bool = False) -> Read:
    """What `read` makes of `path`, which `make` writes unless it is there and as it was written."""
    made(path, make, folder=folder)
    remove_damaged(path)
    return read(made(path, make, folder=folder))


def remove_damaged(path: Path) -> None:
    """Removes what is there and not as it was written, and says so: it is to be made again."""
    if path.exists() and damage(path) is not None:
        with locked(path):
            what = damage(path) if path.exists() else None  # unless somebody else has made it again
            if what is not None:
                log.warning("warning: %s; it is made again", what)
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def checked(path: Path) -> Path:
    """The path. Raises InputError, which names the file, where it is not as it was written."""
    what = damage(path)
    if what is not None:
        raise InputError(f"{what}; delete it, and it is made again")
    return path


def damage(path: Path) -> str | None:
    """What is wrong with a file or a folder of the cache; None where it is as it was written."""
    try:
        written = _seal(path).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return f"{path} cannot be checked: its checksum {_seal(path).name} is missing or damaged"
    try:
        return (
            None if written == [_digest(path), path.name] else f"{path} is damaged: its bits differ from its checksum"
        )
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"


def _make(path: Path, make: Callable[[Path], object], folder: bool) -> None:
    """The caller holds the lock."""
    with (atomic_directory if folder else atomic_file)(path) as temporary:
        make(temporary)
        with atomic_file(_seal(path)) as seal:  # first: a file that is there has one
            seal.write_text(f"{_digest(temporary)}  {path.name}\n", encoding="ascii")


def _seal(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and digests of all files in a folder."""
    if not path.is_dir():
        return hash_content(path)
    inside = sorted(file for file in path.rglob("*") if file.is_file())
    known = [[file.relative_to(path).as_posix(), _digest(file)] for file in inside]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


# --- tensors and checkpoints -----------------------------------------------------------------------------------------


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: str = "") -> None:
    """Named tensors as safetensors, with a line about them. Tensors that share memory are written one by one."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    path.write_bytes(safetensors.torch.save(plain, {"about": about}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """What `write_tensors` wrote. Raises InputError where the file is not one of ours."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {})["about"]  # noqa: SIM118
    except (SafetensorError, OSError, KeyError) as error:
        raise InputError(f"{path} does not hold tensors ({error}); delete it to make them again") from error


def save_checkpoints(path: Path, checkpoints: Sequence[Checkpoint]) -> None:
    """All checkpoints of one training, in one file."""
    tensors: dict[str, Tensor] = {}
    about = []
    for number, checkpoint in enumerate(checkpoints):
        state = list(checkpoint.state)
        moments_of = checkpoint.optimizer_state or {}
        optimizer = [(name, list(moments)) for name, moments in moments_of.items()]
        tensors |= {f"{number}.{place}": checkpoint.state[name] for place, name in enumerate(state)}
        tensors |= {
            f"{number}.{place}.{key}": torch.as_tensor(moments_of[name][key])
            for place, (name, keys) in enumerate(optimizer)
            for key in keys
        }
        about.append(
            {
                "name": checkpoint.name,
                "run": checkpoint.run,
                "learning_rate": checkpoint.learning_rate,
                "state": state,
                "optimizer": None if checkpoint.optimizer_state is None else optimizer,
            }
        )
    write_tensors(path, tensors, json.dumps(about))


def load_checkpoints(path: Path) -> list[Checkpoint]:
    """Raises InputError where the file is not one of ours."""
    tensors, about = read_tensors(path)
    try:
        return [_checkpoint(number, one, tensors) for number, one in enumerate(json.loads(about))]
    except (KeyError, TypeError, ValueError) as error:  # an InputError is a ValueError
        raise InputError(f"{path} does not hold checkpoints ({error}); delete it to train them again") from error


def _checkpoint(number: int, one: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Checkpoint:
    optimizer = one["optimizer"]
    moments = None if optimizer is None else {
        name: {key: tensors[f"{number}.{place}.{key}"] for key in keys} for place, (name, keys) in enumerate(optimizer)
    }  # fmt: skip
    state = {name: tensors[f"{number}.{place}"] for place, name in enumerate(one["state"])}
    return Checkpoint(one["name"], state, one["learning_rate"], moments, one["run"])


def cached_checkpoints(path: Path, train: Callable[[], list[Checkpoint]]) -> list[Checkpoint]:
    """Load `path` (.safetensors), or train and save it; of several processes that want it, one trains and the others
    wait."""
    return kept(path, lambda temporary: save_checkpoints(temporary, train()), load_checkpoints)


# --- arrays ----------------------------------------------------------------------------------------------------------


def cached_arrays(path: Path, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Load `path` (.npz), or make and save it; of several processes that want it, one makes it and the others wait.

    Raises InputError where the file is not one of ours.
    """

    def save(temporary: Path) -> None:
        arrays: Mapping[str, Any] = make()
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)

    return kept(path, save, load_arrays)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Of an .npz. Raises InputError where the file holds none."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except BAD_NPZ as error:
        raise InputError(f"{path} does not hold arrays; delete it to make them again") from error
