"""One process at a time: a lock file beside what is made, in which its holder says who it is."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from tarot.common.errors import InputError
from tarot.common.files import called, make_folder

PATIENCE = 1.0
"""Seconds that are waited for a lock before it is said whose it is."""
log = logging.getLogger("tarot")


@contextlib.contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Nobody else makes `path` inside of the block. Who waits says for whom."""
    path = Path(path)
    make_folder(path.parent)
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file)
    with called(path, file):
        if not file.exists():
            file.touch()  # where no file can be made, FileLock would wait for ever
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            log.info("waiting for %s, which makes %s", _holder(file), path)
            lock.acquire()
    with _held(lock, file):
        yield


@contextlib.contextmanager
def claimed(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Nobody else writes to a folder inside of the block. Raises InputError, naming the holder, where somebody does."""
    file = Path(folder) / ".lock"
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"{folder} is being written to by {_holder(file)}: choose another folder, or wait for it to end"
        ) from error
    with _held(lock, file):
        yield


@contextlib.contextmanager
def _held(lock: BaseFileLock, file: Path) -> Iterator[None]:
    """Until the block ends. The file of who failed goes, too: it would stand beside nothing. Who waits for it sees
    that it is gone, and makes another."""
    try:
        file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    finally:
        lock.release()


def _holder(file: Path) -> str:
    """What the holder of a lock wrote. Older versions of filelock let those who wait erase it."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip() or "another process"
    except OSError:
        return "another process"
