"""Checkpoints and arrays on disk: made once under a lock, whole or absent, read back without unpickling code."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from tarot import InputError
from tarot.common import atomic_file, fingerprint
from tasks.task import Checkpoint


def write_tensors(path: Path, content: Any) -> None:
    """`torch.save`, but a full disk is the OSError that it is, where torch's own writer speaks of stream positions."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getbuffer())


def save_checkpoints(path: Path, checkpoints: list[Checkpoint]) -> None:
    """All checkpoints of one training, in one file."""
    with atomic_file(path) as temporary:
        write_tensors(temporary, [asdict(checkpoint) for checkpoint in checkpoints])


def load_checkpoints(path: Path) -> list[Checkpoint]:
    """Raises InputError where the file is not one of ours."""
    try:
        return [Checkpoint(**fields) for fields in torch.load(path, weights_only=True, map_location="cpu")]
    except (RuntimeError, EOFError, TypeError, InputError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} does not hold checkpoints; delete it to train them again") from error


def cached_checkpoints(path: Path, train: Callable[[], list[Checkpoint]]) -> list[Checkpoint]:
    """Load `path`, or train and save it; of several processes that want it, one trains and the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            save_checkpoints(path, train())
    return load_checkpoints(path)


def cached_surrogates(
    cache_dir: Path, recipe: Mapping[str, Any], train: Callable[[], list[Checkpoint]], *, data: Any = None
) -> list[Checkpoint]:
    """A task's checkpoints: loaded, or trained once. They depend on its `recipe` but for what comes after them.

    data: what determines the samples that they are trained on, where that is less than all of the task's.
    """
    made_of = {key: recipe[key] for key in ("name", "data", "model", "surrogate")}
    if data is not None:
        made_of["data"] = data
    return cached_checkpoints(cache_dir / "checkpoints" / f"{recipe['name']}-{fingerprint(made_of)}.pt", train)


def cached_arrays(path: Path, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Load `path` (.npz), or make and save it; of several processes that want it, one makes it and the others wait.

    Raises InputError where the file is not one of ours.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            made: Mapping[str, Any] = make()
            with atomic_file(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **made)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path} does not hold arrays; delete it to make them again") from error
