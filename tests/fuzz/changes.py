"""Ways to spoil a good file: its bytes, or what is in it, packed again so that it is whole and wrong inside.

A `Change` says what, where and with what; a form applies several to a file of its format. Where the bytes that it is
given are not of the format any more, it raises an error, and the bytes themselves can still be changed.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import pickle
import pickletools
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from numpy.lib import format as npy_format

from tasks.common.safe_pickle import load_pickle

KINDS = ("flip", "put", "insert", "cut", "double", "end")
TOKENS = (
    *(b"\0", b"\xff" * 4, b"\xff" * 8, b"\x7f" * 8, b"-1", b"1e999", b"NaN", b"null", b"[]", b"{}", b'""', b"true"),
    *(b"99999999999999999999", b"[" * 200, b"\\ud800", b"float64", b"|O", b"<U9", b"../../x", b"False", b"(1, 2)"),
    *(
        b"\x80\0\0\0",
        b"\0\0\0\0\0\0\0\x80",
        b"\n",
        b"\r",
        b'"',
        b",",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"<f2",
        b">c16",
    ),
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 2**70)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(("\ud800", "0", "\0", "x" * 5000, "../x", -(2**63), 10**400, 1e308)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


@dataclass(frozen=True)
class Change:
    """kind: one of `KINDS`. where: share of the file, 0 to 1. number: of whatever a form counts. token: bytes to put.
    value: of JSON."""

    kind: str
    where: float
    number: int
    token: bytes
    value: Any


CHANGES = st.lists(
    st.builds(
        Change,
        st.sampled_from(KINDS),
        st.floats(0, 1),
        st.integers(0, 2**40),
        st.one_of(st.sampled_from(TOKENS), st.binary(min_size=1, max_size=8)),
        JSON,
    ),
    min_size=1,
    max_size=4,
)
Form = Callable[[bytes, Sequence[Change]], bytes]


def of_bytes(good: bytes, changes: Sequence[Change]) -> bytes:
    content = bytearray(good)
    for change in changes:
        at, length = int(change.where * len(content)), 1 + change.number % 256
        if change.kind == "flip" and at < len(content):
            content[at] ^= 1 << change.number % 8
        elif change.kind == "put":
            content[at : at + len(change.token)] = change.token
        elif change.kind == "insert":
            content[at:at] = change.token
        elif change.kind == "cut":
            del content[at : at + length]
        elif change.kind == "double":
            content[at:at] = content[at : at + length]
        elif change.kind == "end":
            del content[at:]
    return bytes(content)


# --- values ----------------------------------------------------------------------------------------------------------


def of_values(good: Any, changes: Sequence[Change], other: Callable[[Any, Change], Any]) -> Any:
    """A tree of dicts and lists with others in the place of some of its parts. other: what comes in place of one."""
    root = {"": good}
    for change in changes:
        node: Any = root
        key: Any = ""
        number = change.number
        while isinstance(node[key], dict | list) and node[key] and number % 8:
            node = node[key]
            keys = list(node) if isinstance(node, dict) else range(len(node))
            key, number = keys[number % len(keys)], number // len(keys)
        if change.kind == "cut" and node is not root:
            del node[key]
        elif change.kind == "double" and isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        elif change.kind == "double":
            node[f"{key}2"] = copy.deepcopy(node[key])
        else:
            node[key] = copy.deepcopy(other(node[key], change))  # one that is there twice could end up in itself
    return root.get("")


def _value(old: Any, change: Change) -> Any:
    return change.value


def of_json(good: bytes, changes: Sequence[Change]) -> bytes:
    return json.dumps(of_values(json.loads(good), changes, _value)).encode()


def of_lines(good: bytes, changes: Sequence[Change]) -> bytes:
    """Of JSON."""
    lines = [json.loads(line) for line in good.splitlines()]
    return "".join(json.dumps(line) + "\n" for line in of_values(lines, changes, _value)).encode()


def _in_pickle(old: Any, change: Change) -> Any:
    """Arrays become others, too."""
    if change.kind in ("flip", "put") and isinstance(old, np.ndarray):
        return _array(old, change)
    if change.kind == "end":
        return _ODD[change.number // 8 % len(_ODD)]
    return change.value


def _array(old: np.ndarray, change: Change) -> Any:
    ways: tuple[Callable[[np.ndarray], Any], ...] = (
        lambda a: a[: len(a) // 2],
        lambda a: np.concatenate([a, a]),
        lambda a: a[..., None],
        lambda a: a.T,
        lambda a: a.tolist(),
        lambda a: a.astype("S3"),
        lambda a: a.astype("U3"),
        lambda a: a.astype(complex),
        lambda a: a.astype(np.float16) * 7e4,
        lambda a: a * np.nan,
        lambda a: a * 1e300 * 1e300,
        lambda a: a * 1e200,
        lambda a: a.astype(np.uint8),
        lambda a: a.astype(">i2"),
        lambda a: a[:0],
        lambda a: a.astype(bool),
    )
    with np.errstate(all="ignore"):
        return ways[change.number // 8 % len(ways)](old)


_ODD = (
    *(np.float64("nan"), np.bool_(True), np.int8(-1), np.zeros(0), np.zeros((2, 0)), np.array("x"), np.array(3.0)),
    *(np.array([b"a", b"b"]), np.full((81, 2), 1e300), np.zeros((3, 81)), b"bytes", (1, 2), {1, 2}, 3j, 10**60),
    *(
        {"a": 1, 2: None},
        [[1, 2], [3]],
        np.zeros((81, 1), "U2"),
        "",
        "\ud800",
        -1,
        True,
        float("inf"),
        np.uint64(2**63),
    ),
)


def of_pickled(good: bytes, changes: Sequence[Change]) -> bytes:
    """What is in a pickle, which may have been spoilt before: it is read as the project reads it."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(good)
        file.flush()
        found = load_pickle(file.name, max_bytes=len(good))
    return pickle.dumps(of_values(found, changes, _in_pickle), protocol=changes[0].number % 6)


def of_opcodes(good: bytes, changes: Sequence[Change]) -> bytes:
    """A pickle's opcodes: lost, doubled, changed and in another order."""
    starts = [place for _, _, place in pickletools.genops(good)]
    codes = [good[a:b] for a, b in zip(starts, [*starts[1:], len(good)], strict=True)]
    for change in changes:
        at, length = int(change.where * (len(codes) - 1)), 1 + change.number % 4
        other = change.number % len(codes)
        if change.kind == "cut":
            del codes[at : at + length]
        elif change.kind == "double":
            codes[at:at] = codes[at : at + length]
        elif change.kind == "flip":
            codes[at], codes[other] = codes[other], codes[at]
        elif change.kind == "insert":
            codes[at:at] = codes[other : other + length]
        elif change.kind == "put":
            codes[at] = bytes([_OPCODES[change.number % len(_OPCODES)]]) + codes[at][1:]
        else:
            codes[at] = pickle.dumps(change.value, protocol=2)[2:-1]
        if not codes:
            break
    return b"".join(codes)


_OPCODES = [ord(opcode.code) for opcode in pickletools.opcodes]


# --- arrays and archives ---------------------------------------------------------------------------------------------


def of_npy_header(good: bytes, changes: Sequence[Change]) -> bytes:
    """Of an .npy file: other text in its header, whose length fits."""
    file = io.BytesIO(good)
    major, _ = npy_format.read_magic(file)
    length = struct.unpack("<H" if major == 1 else "<I", file.read(2 if major == 1 else 4))[0]
    header = of_bytes(file.read(length), changes)
    return npy_format.magic(2, 0) + struct.pack("<I", len(header)) + header + file.read()


def of_safetensors_header(good: bytes, changes: Sequence[Change]) -> bytes:
    length = struct.unpack("<Q", good[:8])[0]
    header = of_json(good[8 : 8 + length], changes)
    return struct.pack("<Q", len(header)) + header + good[8 + length :]


def of_archive(inner: Form) -> Form:
    """Of a zip: `inner` changes one of its members; some are lost, doubled or named otherwise."""

    def change(good: bytes, changes: Sequence[Change]) -> bytes:
        with zipfile.ZipFile(io.BytesIO(good)) as given:
            members = [(name, given.read(name)) for name in given.namelist()]
        first = changes[0]
        at = int(first.where * (len(members) - 1))
        name, content = members[at]
        match first.number % 16:
            case 0:
                del members[at]
            case 1:
                members[at] = (f"{name}2", content)
            case 2:
                members[at] = (f"{name}/../x.npy", content)
            case _:
                members[at] = (name, inner(content, changes))
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if first.number % 2 else zipfile.ZIP_STORED) as made:
            for name, content in members:
                made.writestr(name, content)
        return file.getvalue()

    return change


def of_packed(inner: Form) -> Form:
    """Of a file that gzip packed."""
    return lambda good, changes: gzip.compress(inner(gzip.decompress(good), changes))


# --- images ----------------------------------------------------------------------------------------------------------


def of_png(good: bytes, changes: Sequence[Change]) -> bytes:
    """A PNG's chunks, with checksums that are right; its pixels are changed as they are before they are packed."""
    chunks, at = [], 8
    while at < len(good):
        length = struct.unpack(">I", good[at : at + 4])[0]
        chunks.append((good[at + 4 : at + 8], good[at + 8 : at + 8 + length]))
        at += 12 + length
    for change in changes:
        place = int(change.where * (len(chunks) - 1))
        kind, content = chunks[place]
        match change.number % 8:
            case 0:
                del chunks[place]
            case 1:
                chunks.insert(place, chunks[change.number // 8 % len(chunks)])
            case 2:
                chunks.insert(place, (_CHUNKS[change.number // 8 % len(_CHUNKS)], change.token * 3))
            case _ if kind == b"IDAT":
                chunks[place] = (kind, zlib.compress(of_bytes(zlib.decompress(content), [change])))
            case _:
                chunks[place] = (kind, of_bytes(content, [change]))
        if not chunks:
            break
    written = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return good[:8] + b"".join(written)


_CHUNKS = (b"PLTE", b"tRNS", b"eXIf", b"iTXt", b"zTXt", b"iCCP", b"acTL", b"fcTL", b"fdAT", b"gAMA", b"IDAT", b"pHYs")


# --- tables ----------------------------------------------------------------------------------------------------------


def of_footer(good: bytes, changes: Sequence[Change]) -> bytes:
    """The footer of a parquet file, which says where everything is, and its length."""
    length = struct.unpack("<I", good[-8:-4])[0]
    footer = of_bytes(good[-8 - length : -8], changes)
    return good[: -8 - length] + footer + struct.pack("<I", len(footer)) + good[-4:]


def of_table(good: bytes, changes: Sequence[Change]) -> bytes:
    """The columns of a parquet file: lost, renamed, doubled, of other types, with gaps; and what is noted beside."""
    table = pq.read_table(io.BytesIO(good))
    notes = dict(table.schema.metadata or {})
    for change in changes:
        if not table.num_columns:
            break
        place = change.number // 8 % table.num_columns
        name, column = table.column_names[place], table.column(place)
        match change.kind:
            case "cut":
                table = table.remove_column(place)
            case "double":
                table = table.append_column(name if change.number % 2 else f"{name}2", column)
            case "end":
                table = table.slice(0, int(change.where * (len(table) + 1)))
            case "insert" if notes:
                key = list(notes)[change.number // 64 % len(notes)]
                with_json = notes[key][:1] == b"{"
                notes[key] = (of_json if with_json else of_bytes)(notes[key], [change])
            case "flip":
                table = table.set_column(place, name, _other(column, change))
            case _:
                table = table.set_column(place, name, pa.array(_put(column.to_pylist(), change)))
    file = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(notes), file)
    return file.getvalue().to_pybytes()


def _put(values: list[Any], change: Change) -> list[Any]:
    """With a None or another number in the place of one."""
    if values:
        at = int(change.where * (len(values) - 1))
        odd = (None, -1, 2**62, float("nan"), float("inf"), 0)
        values[at] = odd[change.number % len(odd)] if not isinstance(values[at], str) else (None, "", values[0])[at % 3]
    return values


def _other(column: pa.ChunkedArray, change: Change) -> Any:
    """A column in the place of one, as long."""
    count = len(column)
    ways: tuple[Callable[[], Any], ...] = (
        lambda: pa.nulls(count),
        lambda: pa.array([str(value) for value in column.to_pylist()]),
        lambda: pa.array([[value] for value in column.to_pylist()]),
        lambda: pa.array([{"a": value} for value in column.to_pylist()]),
        lambda: pa.array([b"x"] * count),
        lambda: pa.array([2**63 + 1] * count, pa.uint64()),
        lambda: pa.array([1.5] * count, pa.float16()),
        lambda: pa.array([0] * count, pa.timestamp("ns")),
        lambda: pa.array([True] * count),
        lambda: pa.array(["a"] * count).dictionary_encode(),
        lambda: pa.array(list(range(count)), pa.int8()),
        lambda: pa.array([[1.0, None]] * count, pa.list_(pa.float32())),
        lambda: pa.array([[1.0, 2.0]] * count, pa.list_(pa.float32(), 2)),
        lambda: pa.array([-1.0] * count),
    )
    return ways[change.number // 8 % len(ways)]()
