"""One name for everything that determined a result: equal recipes have equal fingerprints, whatever the key order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def fingerprint(recipe: Mapping[str, Any]) -> str:
    """The first 16 hex digits of the SHA-256 of the recipe as canonical JSON.

    Raises TypeError on what is not plain data (mappings with string keys, lists, strings, numbers, booleans, None):
    the repr of an object may differ between runs, or hide what changed.
    """
    return hashlib.sha256(canonical(recipe).encode()).hexdigest()[:16]


def canonical(recipe: Mapping[str, Any]) -> str:
    """The recipe as JSON with sorted keys; also what a manifest holds."""
    return json.dumps(_plain(recipe, "recipe"), sort_keys=True, separators=(",", ":"), allow_nan=False)


def hash_tensors(state: Mapping[str, Tensor]) -> str:
    """16 hex digits that change with any name, shape, dtype or value of a state dict."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()[:16]


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where}: the key {key!r} is not a string")
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{where} is a {type(value).__name__}: a fingerprint is made of plain data only")
