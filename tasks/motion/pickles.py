"""Reads pickles of plain data and numpy arrays, and refuses all others before anything of them is called.

A pickle is a program: it names functions and has them called. The names that scenarios need are listed here, each with
what stands for it; any other name is an error. No module is imported because a file names it.
"""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tarot import InputError

SCENARIO_BYTES = 256 * 2**20
SUMMARY_BYTES = 4 * 2**30

_PLAIN = {
    ("builtins", kind.__name__): kind for kind in (set, frozenset, int, float, bool, str, list, dict, tuple, complex)
}


class _Sealed:
    """Calls a function, and cannot be changed by a pickle, as a function's defaults could be."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("it changes what it is read with")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes what it is read with")


def _reconstruct(subtype: type, shape: tuple, dtype: Any) -> np.ndarray:
    """An array that its state, which follows, fills. Its size is told by the state: there is no room to be made yet."""
    if subtype is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("it makes an array in an unknown way")
    return np.ndarray.__new__(np.ndarray, (0,), np.dtype(dtype))


def _scalar(dtype: np.dtype, content: bytes) -> Any:
    if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(content, bytes):
        raise pickle.UnpicklingError("it makes a number in an unknown way")
    return np.frombuffer(content, dtype, 1)[0]


def _from_buffer(content: bytes, dtype: np.dtype, shape: tuple, order: str) -> np.ndarray:
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise pickle.UnpicklingError("it makes an array in an unknown way")
    return np.frombuffer(content, dtype).reshape(shape, order=order)


_ALLOWED: dict[tuple[str, str], Any] = {
    **_PLAIN,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "defaultdict"): defaultdict,
    ("collections", "OrderedDict"): OrderedDict,
    # numpy.core is what numpy._core was called before numpy 2
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Sealed(_reconstruct) for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Sealed(_scalar) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Sealed(_from_buffer) for core in ("core", "_core")},
}

# all that a stream of bytes that is no pickle, or half of one, can make the unpickler raise
_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    OverflowError,
    MemoryError,
    RecursionError,
    BufferError,
    AssertionError,
)


class _Forbidden(Exception):
    pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Forbidden(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _Forbidden("an object of another program")


def load_pickle(path: str | os.PathLike, *, max_bytes: int = SCENARIO_BYTES) -> Any:
    """What the file holds: numbers, text, None, dicts, lists, tuples, sets and arrays of these.

    Raises InputError, naming the file, where there is none, where it is larger than `max_bytes`, where it is cut short
    or no pickle, and where it names anything but plain data and arrays; nothing of it is called then.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > max_bytes:
        raise InputError(
            f"{path} is larger than {max_bytes} bytes, the most that is read; raise max_bytes if that is right"
        )
    try:
        return _Unpickler(io.BytesIO(content)).load()
    except _Forbidden as error:
        raise InputError(
            f"{path} asks for {error}, which plain data and arrays do not need: it is no scenario, and may be an "
            "attack. It was not run"
        ) from error
    except _BROKEN as error:
        raise InputError(f"{path} is cut short or is no pickle of plain data: {error}") from error
