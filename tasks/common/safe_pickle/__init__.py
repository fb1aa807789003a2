"""Reads pickles of plain data and NumPy arrays without trusting them.

A pickle is a program: it names functions and has them called. Here no name is ever looked up and nothing is imported:
`machine` interprets the opcodes itself, `names` says what each known name stands for, `arrays` makes arrays from bytes
that it has checked, and `budget` and `extent` keep time, memory and nesting in proportion to the file's length.
`outline` reads a dict's keys alone.
"""

from __future__ import annotations

import gc
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tarot import InputError
from tasks.common.safe_pickle.budget import Budget
from tasks.common.safe_pickle.extent import check_extent
from tasks.common.safe_pickle.machine import Machine
from tasks.common.safe_pickle.outline import Outline
from tasks.common.safe_pickle.refusals import Forbidden, Malformed

__all__ = ["load_keys", "load_pickle"]

# what bytes that are no pickle, or half of one, can raise in the interpreter, beside its own refusals
_BROKEN = (Malformed, ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError, struct.error)


def load_pickle(path: str | os.PathLike, *, max_bytes: int, encoding: str = "ASCII") -> Any:
    """What the file holds: numbers, text, bytes, None, dicts, lists, tuples, sets, and arrays of numbers or text.

    Enumerations and subclasses of dict that are known to be harmless are read as the numbers, texts and dicts that they
    are; arrays of objects as lists.

    encoding: what the strings of Python 2 are read as, "ASCII" or "bytes", as for `pickle.load`.
    Raises InputError, naming the file, where there is none, where it is larger than `max_bytes`, cut short or no
    pickle, where it names anything else, and where what it holds is out of proportion to its length.
    """
    path = Path(path)
    content = _content(path, max_bytes)
    try:
        with _uncollected():
            value = Machine(content, encoding, Budget(len(content))).run()
            check_extent(value, len(content))
    except Forbidden as error:
        raise InputError(
            f"{path} asks for {error}, which plain data and arrays do not need: it may be an attack. It was not run"
        ) from error
    except _BROKEN as error:
        raise InputError(f"{path} is cut short or is no pickle of plain data: {_line(error)}") from error
    return value


def load_keys(path: str | os.PathLike, *, max_bytes: int) -> Any:
    """What the file holds, as `load_pickle`, but None for each value of a dict whose keys are text: in a fraction of
    the memory. What is wrong with such values alone is not always noticed; they are not used."""
    keys = _outline(_content(Path(path), max_bytes))
    return load_pickle(path, max_bytes=max_bytes) if keys is None else keys  # which knows more, and says what is wrong


def _outline(content: bytes) -> dict[str, None] | None:
    try:
        with _uncollected():
            return Outline(content, "ASCII", Budget(len(content))).run()
    except (Forbidden, AttributeError, *_BROKEN):
        return None


def _content(path: Path, max_bytes: int) -> bytes:
    try:
        # a pipe, which would be waited for, is opened and refused
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path} cannot be read: it is no file")
            if status.st_size > max_bytes:
                raise InputError(
                    f"{path} is larger than {max_bytes} bytes, the most that is read; raise max_bytes if that is right"
                )
            return file.read(status.st_size)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except InputError:
        raise
    except ValueError as error:  # no file can have such a name
        raise InputError(f"{str(path)!a} cannot be read: {error}") from error


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for cycles meanwhile: each new container brings the next one nearer, and they would take most of the
    time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _line(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return ascii(text)[1:-1][:200] if "\n" in text or not text.isprintable() else text[:200]
