"""What lies in a folder, for everybody alike: links followed, hidden files left out, order fixed."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tarot.common.errors import InputError

MOST_VISITS = 100
"""How often one folder may be met below another, by links that lead to it."""
_SHOWN = 3  # names of what is left out
log = logging.getLogger("tarot")


def entries(folder: str | os.PathLike[str]) -> list[Path]:
    """Files and folders in a folder, sorted by name, without the hidden ones (`.DS_Store`, `._a.png`, `.git`), which
    the log names once. Raises InputError where the folder is missing or cannot be listed."""
    root = Path(folder)
    files, folders, hidden = _listed(root)
    _say_hidden(root, hidden)
    return sorted(files + folders)


def files_below(folder: str | os.PathLike[str], wanted: Callable[[Path], bool] | None = None) -> list[Path]:
    """All that is no folder in a folder and in those below it, sorted by path.

    Links to folders are followed, but for one that leads back to where it comes from; that, and how many hidden files
    and folders are left out, the log says once. A link that leads nowhere counts as a file, so that whoever reads it
    can name it. wanted: which files, by name; how many others there are the log says, too.
    Raises InputError where a folder is missing or cannot be listed, or is met very often by links.
    """
    root = Path(folder)
    found: list[Path] = []
    hidden: list[Path] = []
    visits: Counter[str] = Counter()

    def visit(part: Path, real: str, above: frozenset[str]) -> None:
        if real in above:
            _say(f"warning: {part} is left out: it is a link that leads back to {real}")
            return
        visits[real] += 1
        if visits[real] > MOST_VISITS:
            raise InputError(f"links below {root} lead to {real} more than {MOST_VISITS} times; take some away")
        files, folders, unseen = _listed(part)
        found.extend(files)
        hidden.extend(unseen)
        for inner in folders:
            visit(inner, os.path.realpath(os.path.join(real, inner.name)), above | {real})

    visit(root, os.path.realpath(root), frozenset())
    _say_hidden(root, hidden)
    kept = found if wanted is None else [path for path in found if wanted(path)]
    others = Counter(path.suffix.lower() or path.name for path in set(found) - set(kept))
    if others:
        kinds = ", ".join(sorted(others)[:_SHOWN]) + (" ..." if len(others) > _SHOWN else "")
        _say(f"{root}: {others.total():,} files of other kinds are left out ({kinds})")
    return sorted(kept)


def is_name(text: object) -> bool:
    """Whether a text, such as one that was read from a file, names something in a folder itself: it is one part of a
    path, and does not lead elsewhere."""
    return isinstance(text, str) and text != ".." and "\0" not in text and Path(text).name == text != ""


def _listed(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """What is in a folder, each sorted by name: files, folders, and what is hidden."""
    try:
        with os.scandir(folder) as scanned:
            inside = sorted(scanned, key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise InputError(f"the folder {folder} is not there") from error
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be listed ({error.strerror})") from error
    hidden = [folder / entry.name for entry in inside if entry.name.startswith(".")]
    seen = [entry for entry in inside if not entry.name.startswith(".")]
    is_folder = [os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir() for entry in seen]
    files = [folder / entry.name for entry, inner in zip(seen, is_folder, strict=True) if not inner]
    return files, [folder / entry.name for entry, inner in zip(seen, is_folder, strict=True) if inner], hidden


def _say_hidden(root: Path, hidden: list[Path]) -> None:
    if hidden:
        names = ", ".join(path.relative_to(root).as_posix() for path in hidden[:_SHOWN])
        more = " ..." if len(hidden) > _SHOWN else ""
        _say(f"{root}: {len(hidden):,} hidden files and folders are left out ({names}{more})")


@cache
def _say(line: str) -> None:
    """Once for a process, however often a folder is listed."""
    log.info("%s", line)
