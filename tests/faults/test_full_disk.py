"""A disk that is full: one line says so, nothing half-written is left, and the same command goes on where there is room
again, to the same bytes.

The disk is one of its own, in memory, of a share of what a run writes. A trial ends in `said, then the same`, or says
what is not so.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tarot.common.files import _OWNER
from tests.faults.runs import emptied, ended, left, unlike
from tests.faults.test_kills import fault_of
from tests.faults.trials import Ending, tried

RUN = "digits"
SHARES = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 0.97)
WORDS = ("No space left on device", "Disk quota exceeded", "File too large")


@contextlib.contextmanager
def disk(folder: Path, pages: int) -> Iterator[None]:
    """A disk of so many pages at a folder."""
    folder.mkdir(parents=True)
    size = pages * os.sysconf("SC_PAGE_SIZE")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def can_mount(folder: Path) -> bool:
    try:
        with disk(folder, 8):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def pages_of(folder: Path) -> int:
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(-(-path.stat().st_size // page) for path in folder.rglob("*") if path.is_file())


def half_written(folder: Path) -> list[str]:
    """What is there under a temporary name."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if _OWNER.match(path.name)]


def trial(folder: Path, expected: dict[str, str], of: dict[str, int], number: int, _: np.random.Generator) -> Ending:
    """Caches on the disk that is full, or results, in turns."""
    emptied(folder)
    where = ("cache", "run")[number % 2]
    pages = of[where]
    limit = max(2, int(SHARES[number] * pages))
    with disk(folder / where, limit):
        full = ended(RUN, folder)
        what = f"the {'caches' if where == 'cache' else 'results'} have {limit} of {pages} pages"
        how = fault_of(full) or _said(full.code, full.said) or ", ".join(half_written(folder))
        if not how:
            subprocess.run(["mount", "-o", "remount,size=64m", str(folder / where)], check=True, capture_output=True)
            again = ended(RUN, folder)
            how = fault_of(again) or ("" if again.code == 0 else again.said) or unlike(left(folder), expected)
    return Ending(where, what, how or "said, then the same")


def _said(code: int | None, line: str) -> str:
    if code == 1 and line.startswith("error: ") and any(words in line for words in WORDS):
        return ""
    return f"exit code {code}: {line}"


@pytest.mark.slow
def test_a_full_disk_is_said_and_work_goes_on_when_there_is_room(tmp_path):
    if not can_mount(tmp_path / "try"):
        pytest.skip("a disk of its own needs the right to mount one")
    folder = tmp_path / "work"
    assert ended(RUN, folder).code == 0
    expected = left(folder)
    of = {where: pages_of(folder / where) for where in ("cache", "run")}
    tries = functools.partial(trial, folder, expected, of)
    tried("full disks", len(SHARES), tries, ("said, then the same",), fixed=True)
