"""Files appear whole or not at all: written to a temporary name beside the target, then renamed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from tarot.common.errors import InputError

ABANDONED = 24 * 3600.0
"""Seconds without a change after which what a process of another machine was writing counts as left behind."""


def make_folder(folder: str | os.PathLike[str]) -> None:
    """The folder, and those that it is in, where they are not there. Raises InputError where a file is in the way."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next(path for path in (folder, *folder.parents) if os.path.lexists(path) and not path.is_dir())
        raise InputError(f"{file} is a file, where a folder is needed: give another path, or move it away") from error


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to; renamed to `path` when the block ends, removed when it raises."""
    path = Path(path)
    make_folder(path.parent)
    temporary = _temporary(path)
    try:
        with called(path, temporary):
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary directory to fill; renamed to `path` (which must not exist) at the end, removed on an error."""
    path = Path(path)
    make_folder(path.parent)
    temporary = _temporary(path)
    try:
        with called(path, temporary):
            temporary.mkdir()
            yield temporary
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def called(path: str | os.PathLike[str], temporary: str | os.PathLike[str]) -> Iterator[None]:
    """What fails at a name that the user never gave is said of `path`, which is the name that was given."""
    given, hidden = os.fspath(path), os.fspath(temporary)
    try:
        yield
    except OSError as error:
        if hidden not in str(error):
            raise
        if error.errno is None:
            raise OSError(str(error).replace(hidden, given)) from error
        raise OSError(error.errno, (error.strerror or "").replace(hidden, given), given) from error


def remove_abandoned(folder: str | os.PathLike[str]) -> list[Path]:
    """Removes what writers that were killed left in a folder and up to two below it; what it removed.

    The names that the two functions above give say whose they are: what a process of this machine wrote goes when that
    process is gone, that of another machine when nothing has been written to it for a day.
    """
    removed = []
    depth = len(Path(folder).parts) + 2
    for root, folders, files in os.walk(folder):
        for name in filter(_OWNER.match, (*folders, *files)):
            left = Path(root, name)
            if _abandoned(left):
                shutil.rmtree(left, ignore_errors=True) if name in folders else left.unlink(missing_ok=True)
                removed.append(left)
        folders[:] = [name for name in folders if not _OWNER.match(name) and len(Path(root).parts) < depth]
    return removed


_OWNER = re.compile(r"^\..*\.(\d+)@(.+)\.[0-9a-f]{8}\.part$")


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}@{socket.gethostname()}.{uuid.uuid4().hex[:8]}.part")


def _abandoned(path: Path) -> bool:
    owner = _OWNER.match(path.name)
    if owner is None:
        return False
    process, machine = owner.groups()
    if machine == socket.gethostname():
        return not _alive(int(process))
    try:
        return time.time() - path.stat().st_mtime > ABANDONED
    except OSError:
        return False


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):  # no process has such a number
        return False
    except OSError:  # of another user
        return True
    return True
