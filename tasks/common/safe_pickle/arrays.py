"""NumPy's arrays and numbers, made from bytes that are checked first.

NumPy's own functions believe what a pickle tells of a dtype: fields, offsets, sizes of elements, and that bytes are the
addresses of objects. Here a dtype is a kind, a size and a byte order, and nothing else can be said of it.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal, cast

import numpy as np

from tasks.common.safe_pickle.budget import TABLE, Budget
from tasks.common.safe_pickle.refusals import Malformed

_SIZES = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16), "O": (4, 8)}
_MOST_CHARACTERS = 2**20
_MOST_AXES = 32
_OBJECT = "O"


class DType:
    """Stands for a dtype; its byte order, which is told later, is all that can be changed of it, and that once."""

    __slots__ = ("_order", "kind", "size")

    def __init__(self, kind: str, size: int) -> None:
        """size: of an element; in characters for kind U, else in bytes."""
        self.kind = kind
        self.size = size
        self._order: str | None = None

    @property
    def native(self) -> np.dtype:
        """What it stands for; not for kind O."""
        return np.dtype(f"{'' if self._order in (None, '|') else self._order}{self.kind}{self.size}")

    def build(self, state: Any) -> None:
        """state: (version, byte order, subarray, names, fields, size, alignment, flags)."""
        if self._order is not None or type(state) is not tuple or len(state) != 8 or not _is_count(state[0]):
            raise Malformed("it tells an unknown thing of a dtype")
        version, order, subarray, names, fields, size, alignment, flags = state
        if version not in (3, 4) or subarray is not None or names is not None or fields is not None:
            raise Malformed("it has an array of records")
        order = order.decode("ascii") if type(order) is bytes else order
        if order not in ("<", ">", "|", "=") or type(order) is not str:
            raise Malformed("it has an unknown order of bytes")
        bytes_each = self.size * 4 if self.kind == "U" else self.size
        if (
            any(type(number) is not int for number in (size, alignment, flags))
            or size not in (-1, bytes_each)
            or alignment not in (-1, 1, 2, 4, 8, 16)
            or (self.kind != _OBJECT and flags not in (0, 8))
        ):
            raise Malformed("it says of elements what is not so")
        self._order = order


def dtype(arguments: tuple, budget: Budget) -> DType:
    """Of numpy.dtype's arguments: a short name, False, True."""
    budget.spend(TABLE)
    name = arguments[0] if len(arguments) in (1, 3) else None
    name = name.decode("ascii") if type(name) is bytes else name
    found = re.fullmatch(r"([biufcSUO])(\d{1,7})", name) if type(name) is str else None
    flags = arguments[1:]
    if found is None or any(type(flag) not in (bool, int) for flag in flags) or (flags and flags[0]):
        raise Malformed("it has an array of an unknown kind")
    kind, size = found[1], int(found[2])
    if size not in _SIZES[kind] if kind in _SIZES else size > _MOST_CHARACTERS:
        raise Malformed(f"it has an array of an unknown kind, {name}")
    return DType(kind, size)


class Draft:
    """Stands for an array until it is told what is in it; `built` is the array, or the list in the place of an array of
    objects."""

    __slots__ = ("built",)

    def __init__(self) -> None:
        self.built: Any = None

    def build(self, state: Any, budget: Budget) -> Any:
        """state: (version, shape, dtype, whether columns come first, content). Returns `built`."""
        if self.built is not None or type(state) is not tuple or len(state) != 5:
            raise Malformed("it makes an array in an unknown way")
        version, shape, kind, fortran, content = state
        if version != 1 or type(version) is not int or type(kind) is not DType or type(fortran) not in (bool, int):
            raise Malformed("it makes an array in an unknown way")
        if kind.kind == _OBJECT:
            self.built = _objects(shape, fortran, content, budget)
        else:
            if type(content) is not bytes:
                raise Malformed("it makes an array in an unknown way")
            # numpy, too, turns these into the machine's order of bytes, and leaves those in a buffer as they are
            view = _array(content, kind, shape, "F" if fortran else "C", budget)
            self.built = view.astype(view.dtype.newbyteorder("="), order="K")
        return self.built


def reconstruct(arguments: tuple, is_ndarray: bool) -> Draft:
    """Of _reconstruct's arguments: ndarray, (0,), b"b". The array's size is told by its state, which follows."""
    if len(arguments) != 3 or not is_ndarray or arguments[1] != (0,) or arguments[2] not in (b"b", "b"):
        raise Malformed("it makes an array in an unknown way")
    return Draft()


def scalar(arguments: tuple, budget: Budget) -> np.generic:
    """Of scalar's arguments: a dtype and the bytes of one number or text."""
    kind, content = arguments if len(arguments) == 2 else (None, None)
    if type(kind) is not DType or kind.kind == _OBJECT or type(content) is not bytes:
        raise Malformed("it makes a number in an unknown way")
    if kind.size == 0:
        if content:
            raise Malformed("it makes a number in an unknown way")
        return kind.native.type()
    return cast("np.generic", _array(content, kind, (), "C", budget)[()])  # what it is of an array without dimensions


def from_buffer(arguments: tuple, budget: Budget) -> np.ndarray:
    """Of _frombuffer's arguments: bytes, a dtype, a shape, an order; where that is K, the order of axes, too."""
    content, kind, shape, order, *axes = arguments if len(arguments) in (4, 5) else (None,) * 4
    if (
        type(content) not in (bytes, bytearray)
        or type(kind) is not DType
        or kind.kind == _OBJECT
        or type(order) is not str
        or order not in ("C", "F", "K")
        or (order == "K") == (axes in ([], [None]))
    ):
        raise Malformed("it makes an array in an unknown way")
    if order != "K":
        return _array(content, kind, shape, "F" if order == "F" else "C", budget)
    array = _array(content, kind, shape, "C", budget)
    if type(axes[0]) is not tuple or not all(map(_is_count, axes[0])) or sorted(axes[0]) != list(range(array.ndim)):
        raise Malformed("it orders an array's axes in an unknown way")
    return array.transpose(axes[0])


def _array(content: bytes | bytearray, kind: DType, shape: Any, order: Literal["C", "F"], budget: Budget) -> np.ndarray:
    """A view of `content`, which is exactly as long as it must be."""
    native, count = kind.native, _count(shape, len(content))
    budget.spend(TABLE + len(content))
    if not native.itemsize or count * native.itemsize != len(content):
        raise Malformed(f"it has {len(content)} bytes for an array of shape {shape} and kind {kind.kind}{kind.size}")
    array = np.frombuffer(content, native)
    if kind.kind == "b" and len(content) and np.frombuffer(content, np.uint8).max() > 1:
        raise Malformed("it has truth values that are neither true nor false")
    if kind.kind == "U" and len(content):
        letters = np.frombuffer(content, np.dtype("u4").newbyteorder(native.byteorder))
        if letters.max() > 0x10FFFF:
            raise Malformed("it has text of characters that there are not")
    return array.reshape(shape, order=order)


def _objects(shape: Any, fortran: bool | int, content: Any, budget: Budget) -> Any:
    """Nested lists, as `tolist` makes them of an array."""
    count = _count(shape, len(content) if type(content) is list else -1)
    if type(content) is not list or count != len(content) or (fortran and len(shape) > 1):
        raise Malformed("it makes an array of objects in an unknown way")
    budget.spend(TABLE + 8 * len(content) * max(1, len(shape)))
    values = list(content)
    if not shape:
        return values[0]
    if not count and len(shape) > 1:
        raise Malformed("it makes an array of objects in an unknown way")
    for width in reversed(shape[1:]):
        budget.spend(TABLE * (len(values) // width))
        values = [values[start : start + width] for start in range(0, len(values), width)]
    return values


def _count(shape: Any, most: int) -> int:
    """How many elements the shape has; Malformed where it is none, or the axes of an array without elements are longer
    together than `most`: who takes its rows would come upon that many."""
    if type(shape) is not tuple or len(shape) > _MOST_AXES or not all(map(_is_count, shape)):
        raise Malformed("it has an array of an unknown shape")
    count = math.prod(shape)
    if (rows := math.prod(filter(None, shape))) > max(most, 2**16):
        raise Malformed(f"it has an array with axes of {rows} and {most} bytes")
    return count


def _is_count(number: Any) -> bool:
    return type(number) is int and number >= 0
