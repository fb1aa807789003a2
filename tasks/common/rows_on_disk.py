"""Arrays that stay in the files of the cache: rows are read by their numbers, and nothing is held in memory."""

from __future__ import annotations

import math
import os
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tarot import InputError
from tarot.features import BAD_NPZ

_LOCAL_HEADER = struct.Struct("<26xHH")  # of a file in a zip: the lengths of its name and of what is said of it beside


@dataclass(frozen=True)
class StoredArray:
    """An array [n, ...] in a file, from byte `offset` on, in C order."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def rows(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of these numbers, 0..n-1. Raises InputError where the file ends before them."""
        out = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        each = self.dtype.itemsize * math.prod(self.shape[1:])
        if not out.nbytes:
            return out
        content = out.reshape(-1).view(np.uint8).data
        begins = [0, *(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist()]  # of rows that stand one after another
        file = os.open(self.path, os.O_RDONLY)
        try:
            for begin, end in zip(begins, [*begins[1:], len(numbers)], strict=True):
                self._fill(file, content[begin * each : end * each], self.offset + int(numbers[begin]) * each)
        finally:
            os.close(file)
        return out

    def _fill(self, file: int, content: memoryview, offset: int) -> None:
        while content:
            read = os.preadv(file, [content], offset)
            if not read:
                raise InputError(f"{self.path} is shorter than it was; delete it, and it is made again")
            content, offset = content[read:], offset + read


def stored_arrays(path: Path) -> dict[str, StoredArray]:
    """Those of an .npz that `numpy.savez` has written. Raises InputError where it holds no arrays, or packed ones."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            found = {entry.filename.removesuffix(".npy"): _found(path, file, entry) for entry in archive.infolist()}
    except BAD_NPZ as error:
        raise InputError(f"{path} does not hold arrays; delete it to make them again") from error
    for name, array in found.items():
        if array.dtype.hasobject or array.offset + array.dtype.itemsize * math.prod(array.shape) > size:
            raise InputError(f"{path} does not hold an array {name}; delete it to make them again")
    return found


def _found(path: Path, file: BinaryIO, entry: zipfile.ZipInfo) -> StoredArray:
    file.seek(entry.header_offset)
    name, more = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    file.seek(name + more, os.SEEK_CUR)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = read(file)
    if entry.compress_type != zipfile.ZIP_STORED or (by_column and len(shape) > 1):
        raise ValueError("not as numpy.savez writes it")
    return StoredArray(path, file.tell(), shape, dtype)


class LazyRows:
    """Rows [n, ...] of several arrays in memory or on disk, one after the other, or some of them in another order; read
    where they are asked for, by a number, a slice, numbers or a mask.

    parts: arrays whose rows differ at most in the length of their first dimension: shorter rows are filled up with
    zeros, to `width`, by default the longest. order: which rows, by their places in all parts; None: all.
    """

    def __init__(
        self,
        parts: Sequence[StoredArray | NDArray[Any]],
        order: NDArray[np.int64] | None = None,
        width: int | None = None,
    ) -> None:
        self.parts, self._order = tuple(parts), order
        self._ends = np.cumsum([part.shape[0] for part in self.parts])
        first = self.parts[0]
        self.dtype = first.dtype
        inner = first.shape[1:]
        if inner:
            longest = max(part.shape[1] for part in self.parts)
            inner = (longest if width is None else max(width, longest), *inner[1:])
        count = int(self._ends[-1]) if order is None else len(order)
        self.shape: tuple[int, ...] = (count, *inner)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        if isinstance(index, int | np.integer):
            return self._rows(self._places(np.array([range(len(self))[int(index)]])))[0]
        return self._rows(self._places(self._numbers(index)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def take(self, index: Any) -> LazyRows:
        """Rows by a slice, numbers or a mask; nothing is read."""
        return LazyRows(self.parts, self._places(self._numbers(index)), self.shape[1] if len(self.shape) > 1 else None)

    @staticmethod
    def joined(several: Sequence[LazyRows]) -> LazyRows:
        """One after the other; nothing is read."""
        parts = [part for rows in several for part in rows.parts]
        width = max((rows.shape[1] for rows in several), default=0) if len(several[0].shape) > 1 else None
        if all(rows._order is None for rows in several):
            return LazyRows(parts, None, width)
        before = np.cumsum([0, *(int(rows._ends[-1]) for rows in several)])
        order = [start + rows._places(np.arange(len(rows))) for start, rows in zip(before, several, strict=False)]
        return LazyRows(parts, np.concatenate(order), width)

    def _numbers(self, index: Any) -> NDArray[np.int64]:
        """0..n-1, int64."""
        if isinstance(index, slice):
            return np.arange(*index.indices(len(self)))
        given = np.asarray(index)
        if given.dtype == np.bool_:
            if len(given) != len(self):
                raise IndexError(f"a mask of {len(given)} is asked for, of {len(self)} rows")
            return np.flatnonzero(given)
        numbers = given.astype(np.int64)
        if len(numbers) and not (-len(self) <= numbers.min() and numbers.max() < len(self)):
            raise IndexError(f"rows are 0..{len(self) - 1}; {numbers.min()}..{numbers.max()} are asked for")
        return numbers % max(1, len(self))

    def _places(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        return numbers if self._order is None else self._order[numbers]

    def _rows(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """By their places in all parts."""
        if len(self.parts) == 1 and self.shape[1:] == self.parts[0].shape[1:]:
            return _read(self.parts[0], places)
        out = np.zeros((len(places), *self.shape[1:]), self.dtype)
        of = np.searchsorted(self._ends, places, side="right")
        for number in np.unique(of).tolist():
            part, here = self.parts[number], np.flatnonzero(of == number)
            found = _read(part, places[here] - (int(self._ends[number - 1]) if number else 0))
            if len(self.shape) > 1:
                out[here, : found.shape[1]] = found
            else:
                out[here] = found
        return out


def _read(part: StoredArray | NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """A copy."""
    return part.rows(rows) if isinstance(part, StoredArray) else part[rows]
