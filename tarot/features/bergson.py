"""Gradients that bergson has collected (https://github.com/EleutherAI/bergson): the index that `bergson build` leaves.

An index is a folder with `info.json`, which says how many gradients there are, of which modules and of which dtype, and
`gradients.bin`, one row after the other, the modules of each side by side. A run in shards has such folders in
`shards/`, called 00000-of-00004 and so on.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tarot.common import InputError, read_json
from tarot.features.arrays import Rows, as_rows
from tarot.features.stacked_rows import StackedRows

INFO, GRADIENTS, SHARDS = "info.json", "gradients.bin", "shards"
_DTYPES = {"float16": np.float16, "float32": np.float32, "float64": np.float64, "bfloat16": np.uint16}
_AS_NUMPY_CALLS_THEM = {"<f2": "float16", "<f4": "float32", "<f8": "float64", "<V2": "bfloat16", "|V2": "bfloat16"}
_SHARD = re.compile(r"(\d+)-of-(\d+)")


def is_bergson(path: Path) -> bool:
    """Whether a folder looks like an index, whole or not."""
    return (path / GRADIENTS).is_file() or (path / SHARDS).is_dir() or _is_of_tokens(path)


def read_bergson(path: Path) -> Rows:
    """The gradients of an index [n, d], memory-mapped, in the order of the data set that it was built of.

    Raises InputError where a shard is missing or the index is not done, damaged, or of tokens.
    """
    if path.name.endswith(".part"):
        raise InputError(f"{path} is what bergson leaves of a run that is not done: run it to its end")
    if not (path / SHARDS).is_dir():
        return _index(path)
    parts = [_index(folder) for folder in _shards(path / SHARDS)]
    first = parts[0]
    for part in parts:
        if part.shape[1] != first.shape[1] or part.dtype != first.dtype:
            raise InputError(f"{path / SHARDS}: shards must be of the same modules and dtype")
    return parts[0] if len(parts) == 1 else StackedRows(parts)


def _shards(folder: Path) -> list[Path]:
    """All of them, in their order."""
    named = [(_SHARD.fullmatch(path.name), path) for path in sorted(folder.iterdir()) if path.is_dir()]
    found = {int(match[1]): path for match, path in named if match is not None}
    counts = {int(match[2]) for match, _ in named if match is not None}
    if len(counts) != 1:
        raise InputError(f"{folder} must hold shards of one run, called 00000-of-00004 and so on")
    missing = sorted(set(range(max(counts))) - set(found))
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {max(counts)} shards are missing, the first is {missing[0]:05d}: run it again"
        )
    return [found[number] for number in sorted(found)]


def _index(path: Path) -> Rows:
    if _is_of_tokens(path):
        raise InputError(f"{path} holds a gradient for every token: build the index without attribute_tokens")
    try:
        info = read_json(path / INFO)
        rows, sizes, dtype = info["num_grads"], list(info["grad_sizes"].values()), info["base_dtype"]
        dtype = _AS_NUMPY_CALLS_THEM.get(dtype, dtype)
        stored = np.dtype(_DTYPES[dtype])
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # an InputError is a ValueError
        raise InputError(f"{path / INFO} is not what bergson writes beside its gradients: {error}") from error
    if not all(type(number) is int and number > 0 for number in (rows, *sizes)) or not sizes:
        raise InputError(f"{path / INFO}: num_grads and grad_sizes must be positive integers")
    shape = (rows, sum(sizes))
    file = path / GRADIENTS
    if not file.is_file():
        raise InputError(f"{file} is not there: gradients must lie beside {INFO}")
    expected = stored.itemsize * shape[0] * shape[1]
    if file.stat().st_size != expected:
        raise InputError(
            f"{file} is damaged: {list(shape)} {dtype} gradients are {expected:,} bytes, and it has "
            f"{file.stat().st_size:,}"
        )
    mapped: Any = np.memmap(file, dtype=stored, mode="c" if dtype == "bfloat16" else "r", shape=shape)
    if dtype == "bfloat16":  # which NumPy does not know; a map that torch may write to, as it warns of others
        mapped = torch.from_numpy(mapped).view(torch.bfloat16)
    return as_rows(mapped, str(path))


def _is_of_tokens(path: Path) -> bool:
    return (path / "token_gradients.bin").is_file() or (
        (path / GRADIENTS).is_file() and (path / "offsets.npy").is_file()
    )
