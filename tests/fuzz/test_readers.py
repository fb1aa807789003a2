"""Files with bytes changed, added, lost and doubled, and JSON of any shape: a reader gives what it can, or one line.

The short profile draws the same examples each time. The long one draws others for minutes (`-m slow`, FUZZ_SECONDS
each); what it finds is kept in `corpus` under the reader's name and read by every run from then on.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tarot import InputError
from tests.fuzz.readers import Reader, readers

CORPUS = Path(__file__).parent / "corpus"
NAMES = (
    *("npy", "safetensors", "parquet", "vector", "lines", "pickle", "scenario", "classes", "image", "selection"),
    *("manifest", "shard"),
)
AS_JSON = ("classes", "manifest")
EASY = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
TOKENS = (
    *(b"\0", b"\xff" * 4, b"\xff" * 8, b"\x7f" * 8, b"-1", b"1e999", b"NaN", b"null", b"[]", b"{}", b'""', b"true"),
    *(b"99999999999999999999", b"[" * 200, b"\\ud800", b"float64", b"|O", b"<U9", b"../../x", b"False", b"(1, 2)"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
EDIT = st.tuples(
    st.sampled_from(("flip", "put", "insert", "cut", "double", "end")),
    st.floats(0, 1),
    st.integers(0, 255),
    st.one_of(st.sampled_from(TOKENS), st.binary(min_size=1, max_size=8)),
)


@functools.cache
def known() -> dict[str, Reader]:
    return readers(Path(tempfile.mkdtemp()) / "good")


def spoilt(good: bytes, edits: list[tuple[str, float, int, bytes]]) -> bytes:
    content = bytearray(good)
    for kind, where, number, token in edits:
        at = int(where * len(content))
        if kind == "flip" and at < len(content):
            content[at] ^= 1 << number % 8
        elif kind == "put":
            content[at : at + len(token)] = token
        elif kind == "insert":
            content[at:at] = token
        elif kind == "cut":
            del content[at : at + 1 + number]
        elif kind == "double":
            content[at:at] = content[at : at + 1 + number]
        else:
            del content[at:]
    return bytes(content)


def merged(good: Any, paths: list[tuple[int, Any]]) -> Any:
    """The JSON value with others in the place of some of its parts."""
    for number, value in paths:
        node, key = {"": good}, ""
        while isinstance(node[key], dict | list) and node[key] and number % 4:
            inner = node[key]
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            node, key, number = inner, keys[number % len(keys)], number // len(keys)
        if isinstance(node, dict) and "" in node:
            return value
        node[key] = value
    return good


def feed(name: str, content: bytes) -> str:
    """Reads it; what is neither a value nor an InputError of one line is kept in the corpus's place and raised."""
    reader = known()[name]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader.beside(Path(folder))
        path = Path(folder, reader.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        start = time.monotonic()
        try:
            reader.read(Path(folder))
        except InputError as error:
            assert "\n" not in str(error), f"{name}: more than a line, {error}"
            return "refused"
        finally:
            assert time.monotonic() - start < 10, f"{name} hangs"
    return "read"


def keep(name: str, content: bytes) -> None:
    if folder := os.environ.get("FUZZ_KEEP"):
        Path(folder, f"{name}-{hashlib.sha256(content).hexdigest()[:12]}").write_bytes(content)


def fuzz(name: str, options: settings, seed: int = 0) -> None:
    good = known()[name].good()

    @hypothesis.seed(seed)
    @settings(options)
    @hypothesis.given(st.lists(EDIT, min_size=1, max_size=4))
    def bytes_are_changed(edits: Any) -> None:
        content = spoilt(good, edits)
        try:
            feed(name, content)
        except BaseException:
            keep(name, content)
            raise

    @hypothesis.seed(seed)
    @settings(options)
    @hypothesis.given(st.lists(st.tuples(st.integers(0, 2**40), JSON), min_size=1, max_size=3))
    def json_is_changed(paths: Any) -> None:
        content = json.dumps(merged(json.loads(good), paths)).encode()
        try:
            feed(name, content)
        except BaseException:
            keep(name, content)
            raise

    bytes_are_changed()
    if name in AS_JSON:
        json_is_changed()


@pytest.mark.parametrize("name", NAMES)
def test_spoilt_files_are_read_or_refused(name):
    assert feed(name, known()[name].good()) == "read"
    fuzz(name, settings(max_examples=20, derandomize=True, **EASY))


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()) if CORPUS.is_dir() else [], ids=lambda path: path.name)
def test_what_was_found_once_is_read_or_refused(path):
    feed(path.name.partition("-")[0], path.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_spoilt_files_are_read_or_refused_for_minutes(name):
    end, seed = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "120")), 1
    while time.monotonic() < end:
        fuzz(name, settings(max_examples=200, **EASY), seed)
        seed += 1
