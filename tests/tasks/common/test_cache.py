"""What is in the cache is as it was written, or made again."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tarot import InputError
from tasks.common.cache import cached_arrays, checked, damage, kept, made
from tasks.common.contents import hash_file


def write(path: Path) -> None:
    path.write_text(json.dumps({"accuracy": 0.5}))


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def flips(content: bytes) -> list[bytes]:
    places = [(place, 1 << bit) for place in range(len(content)) for bit in (0, 6)]
    return [content[:i] + bytes([content[i] ^ bit]) + content[i + 1 :] for i, bit in places]


def test_every_flip_and_every_truncation_is_seen(tmp_path, caplog):
    path = tmp_path / "m.json"
    kept(path, write, read)
    content = path.read_bytes()
    for harmed in [*flips(content), *(content[:i] for i in range(len(content))), content + b" "]:
        path.write_bytes(harmed)
        with pytest.raises(InputError, match=r"m\.json is damaged: its bits .*; delete it, and it is made again"):
            checked(path)
        assert kept(path, write, read) == {"accuracy": 0.5} and path.read_bytes() == content
    assert len(caplog.messages) == 3 * len(content) + 1, "each time it is said"
    assert caplog.messages[0] == f"warning: {path} is damaged: its bits differ from its checksum; it is made again"


def test_a_checksum_that_is_damaged_or_gone_is_not_believed(tmp_path):
    path, seal = tmp_path / "m.json", tmp_path / ".m.json.sha256"
    kept(path, write, read)
    good = seal.read_bytes()
    for harmed in [*flips(good), good[:30], b"", "é".encode()]:
        seal.write_bytes(harmed)
        if harmed.split() != good.split():  # another blank is none
            assert damage(path) is not None
        assert kept(path, write, read) == {"accuracy": 0.5} and seal.read_bytes().split() == good.split()
        seal.write_bytes(good)
    seal.unlink()
    assert "missing or damaged" in damage(path)
    assert kept(path, write, read) == {"accuracy": 0.5} and damage(path) is None


def test_sha256sum_checks_a_cache(tmp_path):
    kept(tmp_path / "m.json", write, read)
    subprocess.run(["sha256sum", "--check", ".m.json.sha256"], cwd=tmp_path, check=True, capture_output=True)


def test_a_folder_is_checked_whole(tmp_path):
    def fill(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "a").write_text("a")
        (folder / "inner" / "b").write_text("b")

    path = tmp_path / "tokenizer"
    for harm in (lambda: (path / "a").write_text("b"), lambda: (path / "inner" / "b").unlink(),
                 lambda: (path / "c").write_text(""), lambda: (path / "a").rename(path / "d")):  # fmt: skip
        assert kept(path, fill, lambda folder: (folder / "inner" / "b").read_text(), folder=True) == "b"
        harm()
        assert damage(path) is not None


def test_what_cannot_be_made_leaves_nothing(tmp_path):
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        made(tmp_path / "m.json", fail)
    assert not list(tmp_path.iterdir())


def somebody_else(folder: Path, queue: multiprocessing.Queue) -> None:
    """Reads all that is there, and may change nothing. It stands in the folder: those above it may be closed to it."""
    os.chdir(folder)
    here = Path()
    os.setgid(65534)
    os.setuid(65534)

    def never(*_: object) -> None:
        raise AssertionError("it is there")

    try:
        (here / "new").mkdir()
    except PermissionError:
        found = cached_arrays(here / "a.npz", never)["x"].tolist(), kept(here / "m.json", never, read)
        queue.put((*found, len(hash_file(here / "m.json", here))))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_a_warm_cache_that_cannot_be_written_to_can_be_used():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cached_arrays(folder / "a.npz", lambda: {"x": np.arange(3)})
        kept(folder / "m.json", write, read)
        folder.chmod(0o555)
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        other = context.Process(target=somebody_else, args=(folder, queue))
        other.start()
        other.join(timeout=300)
        assert other.exitcode == 0, "it did not get what is there"
        assert queue.get(timeout=300) == ([0, 1, 2], {"accuracy": 0.5}, 64)
