"""Every file that a user brings, in every way in which such files are broken: read, or refused by a line that names it.

The ways are those of life: downloads that ended early or are a page of HTML, a pointer to large storage, other formats
and encodings, links that lead nowhere, folders and pipes in the place of files, text of extreme numbers and depths.
`read` must be a good answer, so what may end in it is listed.
"""

from __future__ import annotations

import gzip
import multiprocessing
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tarot import InputError
from tests.faults.trials import Ending, tried
from tests.fuzz.data_sets import data_sets, small_data_sets
from tests.fuzz.readers import Reader, readers

SECONDS = 60
HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"
SCRIPT = b"#!/bin/sh\necho hello\n"


def _written(change: Callable[[bytes], bytes]) -> Callable[[Path, bytes], None]:
    return lambda path, good: path.write_bytes(change(good))  # type: ignore[return-value,func-returns-value]


WAYS: dict[str, Callable[[Path, bytes], Any]] = {
    "empty": _written(lambda good: b""),
    "one byte": _written(lambda good: good[:1]),
    "half": _written(lambda good: good[: len(good) // 2]),
    "all but the last byte": _written(lambda good: good[:-1]),
    "zeros": _written(lambda good: bytes(len(good))),
    "zeros at its end": _written(lambda good: good[: len(good) // 2] + bytes(len(good) - len(good) // 2)),
    "noise": _written(lambda good: np.random.default_rng(0).bytes(len(good))),
    "twice": _written(lambda good: good + good),
    "HTML": _written(lambda good: HTML),
    "a pointer of git-lfs": _written(lambda good: POINTER),
    "a script": _written(lambda good: SCRIPT),
    "packed": _written(gzip.compress),
    "UTF-16": _written(lambda good: good.decode("latin-1").encode("utf-16")),
    "a byte order mark": _written(lambda good: b"\xef\xbb\xbf" + good),
    "lines of Windows": _written(lambda good: good.replace(b"\n", b"\r\n")),
    "Latin-1": _written(lambda good: good.replace(b"e", b"\xe9")),
    "null": _written(lambda good: b"null"),
    "brackets": _written(lambda good: b"[" * 100_000),
    "braces": _written(lambda good: b'{"a":' * 100_000),
    "long digits": _written(lambda good: b"9" * 10_000),
    "digits in it": _written(lambda good: good.replace(b"1", b"9" * 5000)),
    "half characters": _written(lambda good: good.replace(b"i", b"\\ud800")),
    "missing": lambda path, good: None,
    "a folder": lambda path, good: path.mkdir(),
    "a pipe": lambda path, good: os.mkfifo(path),
    "a link to nowhere": lambda path, good: path.symlink_to(path.with_name("nowhere")),
    "a link to itself": lambda path, good: path.symlink_to(path),
    "a device": lambda path, good: path.symlink_to("/dev/null"),
}


def read(reader: Reader, way: Callable[[Path, bytes], Any], folder: Path) -> str:
    folder.mkdir()
    reader.beside(folder)
    path = folder / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    way(path, reader.good())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(folder)
    except InputError as error:
        said = str(error)
        if "\n" in said or len(said) > 1000:
            return f"more than a line: {said[:2000]}"
        named = path.name in said or path.parent.name in said or str(folder) in said
        return "refused" if named else f"refused without its name: {said}"
    except BaseException as error:
        return f"traceback: {type(error).__name__}: {str(error)[:300]}"
    return "read"


def apart(*arguments: Any) -> str:
    """The same by a process of its own: what hangs within a library heeds no signal but the last."""
    context = multiprocessing.get_context("fork")
    receives, sends = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sends.send(read(*arguments)))
    process.start()
    sends.close()
    try:
        return str(receives.recv()) if receives.poll(SECONDS) else "hangs"
    except EOFError:
        process.join(timeout=SECONDS)
        return f"crashes: exit code {process.exitcode}"
    finally:
        process.kill()
        process.join()


def test_small_files_in_every_way(tmp_path):
    known = small_data_sets()
    cases = [(name, way) for name in known for way in WAYS]
    endings = {case: read(known[case[0]], WAYS[case[1]], tmp_path / str(place)) for place, case in enumerate(cases)}
    assert {case: how for case, how in endings.items() if how not in ("read", "refused")} == {}
    whole = {"rows.jsonl": ["lines of Windows", "a byte order mark", "UTF-16"], "argoverse2 map": ["lines of Windows"]}
    assert all(endings[name, way] == "read" for name, ways in whole.items() for way in ways)
    never = ("empty", "one byte", "zeros", "noise", "HTML", "brackets", "braces", "missing", "a folder", "a pipe")
    assert {case for case, how in endings.items() if how == "read" and case[1] in never} == set()


@pytest.mark.slow
def test_every_file_in_every_way(tmp_path):
    known = readers(tmp_path / "good") | data_sets(tmp_path / "better")
    cases = [(name, way) for name in sorted(known) for way in WAYS]

    def trial(number: int, _: np.random.Generator) -> Ending:
        name, way = cases[number]
        return Ending(name, way, apart(known[name], WAYS[way], tmp_path / str(number)))

    tried("malformed files", len(cases), trial, ("refused", "read"), fixed=True)
