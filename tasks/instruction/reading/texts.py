"""JSON in a file: one object a line, a list of objects, or objects one after another; and the bytes before it."""

from __future__ import annotations

import bz2
import codecs
import gzip
import itertools
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from tarot import InputError
from tarot.common import check_is_file
from tasks.instruction.reading.faults import ROW, UTF8, BadRowError

Raw = Mapping[str, Any]


class Record(NamedTuple):
    """number: of a row in its file, no other's. where: file and line, or place. row: what it says, or what is wrong."""

    number: int
    where: str
    row: Raw | BadRowError


_BLANK = " \t\n\r"
_MARKS = {  # UTF-32 first: its mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def _zstandard(content: bytes) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(content), "zstd") as stream:
        return bytes(stream.read())


_PACKED: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"\x28\xb5\x2f\xfd": _zstandard,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
}


def unpacked(path: Path) -> bytes:
    """What is in a file; of one that is packed by gzip, zstd, bzip2 or xz, what was packed, whatever it is called.

    Raises InputError where it cannot be read or unpacked.
    """
    check_is_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    for magic, unpack in _PACKED.items():
        if content.startswith(magic):
            try:
                return unpack(content)
            except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
                raise InputError(f"{path} cannot be unpacked: {error}; pack it again, or give what is in it") from error
    return content


def decoded(content: bytes, path: Path) -> bytes:
    """The same in UTF-8 and without a mark for the order of bytes. Raises InputError where a mark promises UTF-16 or
    UTF-32 and it is none."""
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            try:
                return content.decode(encoding).encode()
            except UnicodeError as error:
                raise InputError(
                    f"{path} is not {encoding.upper()}, as its first bytes say: {error}; save it in UTF-8"
                ) from error
    return content.removeprefix(codecs.BOM_UTF8)


def json_records(content: bytes, path: Path) -> Iterator[Record]:
    """The objects of a text in UTF-8.

    A list is taken apart; a row's number is its place in it from 1. Of lines each is an object and its number the
    line's, blank ones are skipped, and only \\n ends one: U+2028 may stand inside of it. Objects that take several
    lines, or that \\r divides, follow one another. What is no object is a bad row of its own. Raises InputError, with
    the line, where a list cannot be read to its end.
    """
    first, _, rest = content.lstrip().partition(b"\n")
    if first.startswith(b"[") and not (rest.strip() and _is_one(first)):
        yield from _listed(_text(content, path), path)
    elif first.startswith(b"{") and not _is_one(first) and (found := _following(content, path)):
        yield from found
    else:
        yield from _lines(content, path)


def _lines(content: bytes, path: Path) -> Iterator[Record]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            yield Record(number, where, _object(line, where))


def _object(line: bytes, where: str) -> Raw | BadRowError:
    try:
        return _checked(_DECODER.decode(line.decode()), where)
    except UnicodeDecodeError as error:
        return BadRowError(f"{where} is not UTF-8", "not UTF-8", str(error), UTF8)
    except _TwiceError as error:
        return _twice(where, error)
    except (ValueError, RecursionError) as error:  # numbers of too many digits; brackets within brackets
        return BadRowError(f"{where} is not JSON", "not JSON", str(error), f"a row is one object a line, {ROW}")


def _checked(value: Any, where: str) -> Raw | BadRowError:
    if isinstance(value, dict):
        return value
    detail = f"a row must be a JSON object; it is {type(value).__name__}"
    return BadRowError(where, "not an object", detail, f"such as {ROW}")


def _twice(where: str, error: _TwiceError) -> BadRowError:
    detail = f"the key {error.args[0]!r} is there twice, so it is not known what is meant"
    return BadRowError(where, "with a key twice", detail, "take one out, or give them different names")


def _text(content: bytes, path: Path) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line} is not UTF-8: {error}; {UTF8}") from error


def _is_one(line: bytes) -> bool:
    """Whether a line is a JSON value by itself."""
    try:
        _PLAIN.decode(line.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _listed(text: str, path: Path) -> Iterator[Record]:
    lines, place = _Lines(text), _skip(text, text.index("[") + 1)
    if text[place : place + 1] == "]":
        return
    for number in itertools.count(1):
        where = f"{path}:{lines.until(place)}"
        value, place = _value(text, place, where)
        yield Record(number, where, value)
        place = _skip(text, place)
        mark, after = text[place : place + 1], _skip(text, place + 1)
        if mark == "]" and after == len(text):
            return
        if mark != ",":
            where = f"{path}:{lines.until(place)}"
            raise InputError(
                f"{where} is not JSON: a list goes on with a comma, or ends with a bracket and nothing else"
            )
        place = after


def _following(content: bytes, path: Path) -> list[Record]:
    """Objects one after another; none where something else is among them, so that lines can say where."""
    try:
        text, place = content.decode(), 0
        lines = _Lines(text)
        found: list[Record] = []
        while (place := _skip(text, place)) < len(text):
            where = f"{path}:{lines.until(place)}"
            value, place = _value(text, place, where)
            found.append(Record(len(found) + 1, where, value))
    except (UnicodeDecodeError, InputError):
        return []
    return found


class _Lines:
    """In which line a place of a text is, for places that come one after another. \r ends a line where nothing else
    does."""

    def __init__(self, text: str) -> None:
        self.text, self.line, self.counted = text, 1, 0
        self.mark = "\n" if "\n" in text else "\r"

    def until(self, place: int) -> int:
        """From 1."""
        self.line += self.text.count(self.mark, self.counted, place)
        self.counted = place
        return self.line


def _value(text: str, place: int, where: str) -> tuple[Raw | BadRowError, int]:
    """The value that begins at `place`, and where it ends. Raises InputError where there is none."""
    try:
        try:
            value, end = _DECODER.raw_decode(text, place)
            return _checked(value, where), end
        except _TwiceError as error:
            return _twice(where, error), _PLAIN.raw_decode(text, place)[1]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}; mend it there, or give one object a line, {ROW}") from error


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in _BLANK:
        place += 1
    return place


class _TwiceError(ValueError):
    """A key that an object has twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return found


_PLAIN = json.JSONDecoder()
_DECODER = json.JSONDecoder(object_pairs_hook=_unique)
