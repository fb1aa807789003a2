"""The folder of a run. What an earlier run left there goes before anything new is written, and nothing else does."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tarot.common import atomic_file, claimed, make_folder, remove_abandoned

DONE = "metrics.json"
"""Where it is, the run is done: it goes first and comes last."""
RECORD = ".written.json"
"""The files that a run has written, or was about to; so an earlier run's are known from the user's own."""
_ALWAYS = (DONE, "config.yaml", "report.html", "selection.parquet", "scores.parquet", "selected.jsonl")


@dataclass(frozen=True)
class Outputs:
    """folder: that the run writes to, and no other run at the same time."""

    folder: Path
    written: list[str] = field(default_factory=list, init=False)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Raises InputError where another run writes to the folder now."""
        make_folder(self.folder)
        with claimed(self.folder):
            yield

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A temporary path to write to; in the folder it is called `name` when the block ends. The first one clears the
        folder of what an earlier run wrote."""
        if not self.written:
            clear(self.folder)
        if name not in self.written:
            self.written.append(name)
            with atomic_file(self.folder / RECORD) as temporary:
                temporary.write_text(json.dumps(self.written))
        with atomic_file(self.folder / name) as temporary:
            yield temporary


def clear(folder: Path) -> None:
    """Removes what a run wrote to the folder: the sign that it is done, then all that its record names."""
    (folder / DONE).unlink(missing_ok=True)
    names = {*_ALWAYS, *_recorded(folder)}
    for name in sorted(names):
        (folder / name).unlink(missing_ok=True)
    for parent in {(folder / name).parent for name in names} - {folder}:
        with contextlib.suppress(OSError):  # it is not there, or the user's own files are in it
            parent.rmdir()
    (folder / RECORD).unlink(missing_ok=True)
    remove_abandoned(folder)


def _recorded(folder: Path) -> list[str]:
    """Names that the record holds, all of them inside of the folder."""
    try:
        found = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        return []
    names = [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
    return [name for name in names if (folder / name).resolve().is_relative_to(folder.resolve())]
