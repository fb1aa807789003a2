"""Hashes of files: of all that is in them, and read once."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.common import contents
from tasks.common.contents import MEMORY, hash_named


@pytest.fixture(autouse=True)
def old_files(monkeypatch):
    """They have been there for a while."""
    monkeypatch.setattr(contents, "YOUNG", -1)


def hash_files(paths: Sequence[Path], cache: Path | None) -> list[str | None]:
    """By a new process."""
    contents.forget()
    return contents.hash_files(paths, cache)


def hash_file(path: Path, cache: Path | None) -> str | None:
    return hash_files([path], cache)[0]


@pytest.fixture
def reads(monkeypatch) -> list[Path]:
    found: list[Path] = []
    read = contents.hash_content
    monkeypatch.setattr(contents, "hash_content", lambda path: found.append(path) or read(path))
    return found


def test_it_is_the_files_own_hash_and_nothing_is_read_twice(tmp_path, reads):
    files = [tmp_path / f"{i}.bin" for i in range(20)]
    for i, file in enumerate(files):
        file.write_bytes(os.urandom(100 * i))
    expected = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert hash_files(files, tmp_path / "cache") == hash_files(files, tmp_path / "cache") == expected
    assert sorted(reads) == sorted(files)
    assert hash_files(files, None) == expected and len(reads) == 40


def test_one_byte_anywhere_is_seen_whatever_the_times_say(tmp_path):
    """Same size, same time of change, as `cp --preserve` and `rsync --times` leave it."""
    file = tmp_path / "x.bin"
    file.write_bytes(bytes(1_000_000))
    known, stamp = {hash_file(file, tmp_path)}, file.stat().st_mtime_ns
    for place in (0, 65_536, 500_000, 999_999):
        with open(file, "r+b") as opened:
            opened.seek(place)
            opened.write(b"\x01")
        os.utime(file, ns=(stamp, stamp))
        known.add(hash_file(file, tmp_path))
    assert len(known) == 5


def test_a_file_in_the_place_of_another_is_seen(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"a" * 10)
    other.write_bytes(b"b" * 10)
    stamp = one.stat().st_mtime_ns
    before = hash_file(one, tmp_path)
    os.utime(other, ns=(stamp, stamp))
    other.rename(one)
    assert hash_file(one, tmp_path) != before
    link = tmp_path / "link"
    link.symlink_to(one)
    first = hash_file(link, tmp_path)
    link.unlink()
    (tmp_path / "third").write_bytes(b"c" * 10)
    link.symlink_to(tmp_path / "third")
    assert hash_file(link, tmp_path) != first


def test_what_was_just_changed_is_read_again(tmp_path, monkeypatch, reads):
    """It may change once more within the same tick of the file system's clock."""
    monkeypatch.setattr(contents, "YOUNG", 2 * 10**9)
    file = tmp_path / "x"
    file.write_text("a")
    hash_file(file, tmp_path)
    hash_file(file, tmp_path)
    assert len(reads) == 2 and not (tmp_path / MEMORY).exists()


def test_a_damaged_memory_is_not_believed(tmp_path, reads):
    file = tmp_path / "x"
    file.write_text("a")
    right = hash_file(file, tmp_path)
    content = (tmp_path / MEMORY).read_bytes()
    place = content.index(right.encode())
    for harmed in (content[:place] + b"0" * 5 + content[place + 5 :], content[:-3], b"", b"[]", b"x\n{"):
        (tmp_path / MEMORY).write_bytes(harmed)
        assert hash_file(file, tmp_path) == right
    assert len(reads) == 6


def test_what_cannot_be_read_is_said_to_be_so(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert hash_files([tmp_path / "pipe", tmp_path / "none", tmp_path], tmp_path) == [None] * 3
    there = hash_named({"a": tmp_path / "none"}, None)
    (tmp_path / "none").write_text("")
    assert hash_named({"a": tmp_path / "none"}, None) != there != hash_named({"b": tmp_path / "none"}, None)


def test_names_and_their_order_count(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    one = [("a", tmp_path / "a"), ("b", tmp_path / "b")]
    merged = [("ab", tmp_path / "a"), ("", tmp_path / "b")]
    assert len({hash_named(named, None) for named in (one, one[::-1], merged)}) == 3


def test_processes_add_to_one_memory(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
        hash_file(tmp_path / name, tmp_path / "cache")
    entries = json.loads((tmp_path / "cache" / MEMORY).read_bytes().partition(b"\n")[2])
    assert set(entries[str(tmp_path)]) == {"a", "b"}


@pytest.mark.slow
@pytest.mark.parametrize("count", [3_000, 50_000])
def test_a_warm_start_takes_less_than_a_second(tmp_path, monkeypatch, count):
    """25,000 pairs of images and labels; 3,000 pickles."""
    monkeypatch.setattr(contents, "YOUNG", 0)
    files = [tmp_path / f"{i % 100:02d}" / f"frame_{i:06d}_leftImg8bit.png" for i in range(count)]
    for i, file in enumerate(files):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(i.to_bytes(4, "big") * 250)
    time.sleep(0.1)
    took = []
    for _ in range(2):
        start = time.perf_counter()
        found = hash_files(files, tmp_path / "cache")
        took.append(time.perf_counter() - start)
    print(f"{count} files: cold {took[0]:.2f} s, warm {took[1]:.2f} s")
    assert len(set(found)) == count and took[1] < 1
