"""Names for what made a result: equal recipes have equal fingerprints, in every process and on every machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tarot.common.errors import InputError


def canonical(recipe: Any) -> str:
    """`recipe` as JSON text that does not depend on the order of keys. Tuples count as lists.

    Raises InputError, naming the key, where a value is not plain data: None, bool, int, finite float, str, lists and
    mappings of these with string keys. A repr or a hash of anything else could differ between two processes.
    """
    return json.dumps(_plain(recipe, "recipe"), sort_keys=True, separators=(",", ":"))


def fingerprint(recipe: Mapping[str, Any]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of `canonical(recipe)`."""
    return hashlib.sha256(canonical(recipe).encode()).hexdigest()[:16]


def hash_content(path: str | os.PathLike[str]) -> str:
    """SHA-256 of what is in a file, as hexadecimal digits. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tensors(state: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits for named tensors: their names, dtypes, shapes and bits; not their order or device."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def difference(was: Any, now: Any, key: str) -> tuple[str, str]:
    """The first place where two plain values differ, as "key = value" of each."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name in sorted(was.keys() | now.keys()):
            if name not in was or name not in now:
                either = [f"{key}.{name} = {v[name]!r}" if name in v else f"no {key}.{name}" for v in (was, now)]
                return either[0], either[1]
            if was[name] != now[name]:
                return difference(was[name], now[name], f"{key}.{name}")
    if isinstance(was, list) and isinstance(now, list):
        if len(was) != len(now):
            return f"{len(was)} {key}", f"{len(now)} {key}"
        for position, (a, b) in enumerate(zip(was, now, strict=True)):
            if a != b:
                return difference(a, b, f"{key}[{position}]")
    return f"{key} = {was!r}", f"{key} = {now!r}"


def _plain(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise InputError(f"{key} has the key {name!r}: keys must be strings")
        return {name: _plain(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        if set(map(type, value)) <= {str, int}:  # a million row ids
            return value
        return [_plain(item, f"{key}[{position}]") for position, item in enumerate(value)]
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float and abs(value) < float("inf"):
        return value
    raise InputError(f"{key} is {value!r} ({type(value).__name__}): a recipe holds plain, finite data only")
