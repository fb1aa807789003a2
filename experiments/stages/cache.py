"""Results on disk, each made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from tarot.common import atomic_file


def made(path: Path, make: Callable[[Path], object]) -> Path:
    """`path`, which `make` writes unless it is there; of several processes one makes it and the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            with atomic_file(path) as temporary:
                make(temporary)
    return path
