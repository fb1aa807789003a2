"""Which files they are, for fingerprints: the SHA-256 of all that is in them, remembered until a file is changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tarot.common import atomic_file, hash_content, locked, progress

MEMORY = "contents.json"
"""In the cache: a checksum on the first line, then folder -> name -> [size, mtime_ns, ctime_ns, inode, SHA-256]."""
YOUNG = 2 * 10**9
"""Nanoseconds since its last change in which a file may change again without a new time of change."""
_SHOWN = 256 * 2**20  # bytes to read from which on progress is shown

Known = tuple[int, int, int, int]  # what must stay for a file to be the same
Entries = dict[str, dict[str, list[int | str]]]
_memories: dict[Path, Entries] = {}


def hash_named(files: Mapping[str, Path] | Iterable[tuple[str, Path]], cache: Path | None) -> str:
    """SHA-256 of names and the contents of their files, in this order. One that cannot be read counts as that."""
    pairs = list(files.items() if isinstance(files, Mapping) else files)
    digest = hashlib.sha256()
    for (name, _), content in zip(pairs, hash_files([path for _, path in pairs], cache), strict=True):
        digest.update(json.dumps([name, content]).encode())
    return digest.hexdigest()


def hash_file(path: Path, cache: Path | None) -> str | None:
    """SHA-256 of a file; None where it cannot be read."""
    return hash_files([path], cache)[0]


def hash_files(paths: Sequence[Path], cache: Path | None) -> list[str | None]:
    """SHA-256 of each file; None for one that cannot be read, or is none.

    cache: the folder where they are remembered. A file is read again when its size, its inode, or the time at which it,
    or anything about it, was last changed is another; and while that is not yet two seconds ago.
    """
    memory = {} if cache is None else _remembered(cache / MEMORY)
    found: list[str | None] = [None] * len(paths)
    unknown: dict[int, Known] = {}
    for place, path in enumerate(paths):
        now = _known(path)
        if now is None:
            continue
        folder, name = os.path.split(os.path.abspath(path))
        entry = memory.get(folder, {}).get(name)
        if entry is not None and tuple(entry[:4]) == now:
            found[place] = str(entry[4])
        else:
            unknown[place] = now
    learnt: Entries = {}
    show = sum(known[0] for known in unknown.values()) > _SHOWN
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(progress("contents of files", len(unknown), "files")) if show else None
        pool = stack.enter_context(ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))))
        start = time.time_ns()
        for place, content in zip(unknown, pool.map(_read, [paths[place] for place in unknown]), strict=True):
            found[place] = content
            known = unknown[place]
            if content is not None and max(known[1:3]) < start - YOUNG and _known(paths[place]) == known:
                folder, name = os.path.split(os.path.abspath(paths[place]))
                learnt.setdefault(folder, {})[name] = [*known, content]
            if advance is not None:
                advance(1)
    if learnt and cache is not None:
        _remember(cache / MEMORY, learnt)
    return found


def _known(path: Path) -> Known | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _read(path: Path) -> str | None:
    try:
        return hash_content(path)
    except OSError:
        return None


# --- what is remembered ----------------------------------------------------------------------------------------------


def forget() -> None:
    """What this process has read of memories, so that it reads them again, as another process would."""
    _memories.clear()


def _remembered(path: Path) -> Entries:
    """From the disk once for a process; nothing where the file is damaged, so that everything is read again."""
    key = path.absolute()
    if key not in _memories:
        _memories[key] = _loaded(path)
    return _memories[key]


def _loaded(path: Path) -> Entries:
    try:
        checksum, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if hashlib.sha256(content).hexdigest().encode() != checksum:
        return {}
    entries: Entries = json.loads(content)
    return entries


def _remember(path: Path, learnt: Entries) -> None:
    """Adds to what is on the disk, where other processes may have added, too. A cache that cannot be written to is used
    all the same."""
    for folder, names in learnt.items():
        _remembered(path).setdefault(folder, {}).update(names)
    with contextlib.suppress(OSError), locked(path):
        merged = {folder: names for folder, names in _loaded(path).items() if os.path.isdir(folder)}
        for folder, names in learnt.items():
            merged.setdefault(folder, {}).update(names)
        content = json.dumps(merged, separators=(",", ":")).encode()
        with atomic_file(path) as temporary:
            temporary.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
