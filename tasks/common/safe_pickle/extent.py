"""Whether what a pickle holds is plain data, and how large it is when all that is shared is written out.

A small file can hold one list so often in another, and that in another, that no use of them ever ends.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from tasks.common.safe_pickle.names import DICTS
from tasks.common.safe_pickle.refusals import Malformed

DEEPEST = 100
"""Containers within one another."""

_PER_BYTE = 8
_AT_LEAST = 2**18
_NUMBERS = frozenset({int, float, bool, complex, type(None)})
_TEXT = frozenset({str, bytes, bytearray})
_CONTAINERS = frozenset({list, tuple, set, frozenset, *DICTS})


def check_extent(value: Any, length: int) -> None:
    """Raises Malformed where `value` is not plain data, is nested too deeply or in itself, or has far more elements,
    characters and bytes of arrays, counted each time that they are met, than the file's `length` in bytes."""
    _Survey(_AT_LEAST + _PER_BYTE * length).of(value, 0)


class _Survey:
    def __init__(self, most: int) -> None:
        self.most = most
        self.known: dict[int, tuple[int, int]] = {}

    def of(self, value: Any, depth: int) -> tuple[int, int]:
        """How large the value is, and how many containers are within one another in it."""
        kind = type(value)
        if kind in _NUMBERS:
            return 1, 0
        if kind in _TEXT:
            return 1 + len(value), 0
        if kind is np.ndarray or isinstance(value, np.generic):
            return 1 + value.nbytes, 0
        if kind not in _CONTAINERS:
            raise Malformed("it holds a name or a half-made array in the place of data")
        if id(value) not in self.known:
            if depth > DEEPEST:
                raise Malformed(f"it is nested more than {DEEPEST} deep, or in itself")
            self.known[id(value)] = self._container(value, depth)
        return self.known[id(value)]

    def _container(self, value: Any, depth: int) -> tuple[int, int]:
        size, height = self._elements(value, depth)
        if isinstance(value, dict):
            of_values, height_of_values = self._elements(value.values(), depth)
            size, height = size + of_values, max(height, height_of_values)
        if size > self.most:
            raise Malformed("what it holds is far larger than its length, once what is shared in it is written out")
        if height >= DEEPEST:
            raise Malformed(f"it is nested more than {DEEPEST} deep")
        return size + 1, height + 1

    def _elements(self, values: Collection[Any], depth: int) -> tuple[int, int]:
        kinds = set(map(type, values))
        if kinds <= _NUMBERS:
            return len(values), 0
        if kinds <= _TEXT:
            return len(values) + sum(map(len, values)), 0
        size = height = 0
        for value in values:
            size_of_value, height_of_value = self.of(value, depth + 1)
            size += size_of_value
            height = max(height, height_of_value)
        return size, height
