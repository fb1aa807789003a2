"""What may be a key of a dict or in a set: what is hashed and compared in a short time, whoever made it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tasks.common.safe_pickle.budget import Budget
from tasks.common.safe_pickle.refusals import Malformed

LONGEST = 4096
"""Characters or bytes of a key. Two long texts that are equal take long to compare, each time that they meet."""
_LARGEST = 2**64
_MOST_PARTS = 8
_TEXT = (str, bytes)
_ONLY_TEXT, _ONLY_NUMBERS = frozenset({str}), frozenset({int})


def check_keys(keys: list[Any], budget: Budget) -> None:
    """Raises Malformed where one of `keys` is none of: short text or bytes, a number, None, a short tuple of these."""
    kinds = set(map(type, keys))
    if kinds == _ONLY_TEXT:
        if max(map(len, keys)) > LONGEST:
            raise Malformed(f"it has a key of more than {LONGEST} characters")
        return
    if kinds == _ONLY_NUMBERS:
        _check_parts((min(keys), max(keys)))
        return
    for key in keys:
        if type(key) is tuple:
            budget.spend_tuple_key()
            if len(key) > _MOST_PARTS:
                raise Malformed(f"it has a key of {len(key)} parts")
            _check_parts(key)
        else:
            _check_parts((key,))


def _check_parts(parts: Iterable[Any]) -> None:
    for part in parts:
        if isinstance(part, _TEXT):
            if len(part) > LONGEST:
                raise Malformed(f"it has a key of {len(part)} characters")
        elif type(part) is int:
            if not -_LARGEST < part < _LARGEST:
                raise Malformed("it has a number of more than 64 bits as a key")
        elif isinstance(part, np.complexfloating) or not (
            part is None or isinstance(part, bool | float | np.number | np.bool_)
        ):
            raise Malformed(f"it has a key that is {type(part).__name__}")
