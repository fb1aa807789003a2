"""Where a task's conversations come from: skills made of code, or a user's files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from tarot import InputError
from tarot.fingerprint import fingerprint
from tasks.instruction.rows import Row, check_ids, read_rows
from tasks.instruction.skills import TARGETS, Corpus, general
from tasks.task import Split

Rows = dict[Split, list[Row]]
SPLITS: tuple[Split, ...] = ("candidates", "targets", "validation", "test")
Paths = str | Sequence[str] | Mapping[str, str]


class Conversations(ABC):
    """tagged: whether it is known which candidates resemble the targets."""

    tagged: ClassVar[bool] = False

    @abstractmethod
    def rows(self, seed: int) -> Rows:
        """The conversations of every split; an id occurs once in all of them."""

    def general(self, seed: int) -> list[Row] | None:
        """What a language that is made on the spot learns first; None: the candidates."""
        return None

    def recipe(self, seed: int, rows: Rows) -> dict[str, Any]:
        """What determines the splits, as plain data."""
        return {"kind": type(self).__name__, "seed": seed, "rows": {name: digest(rows[name]) for name in SPLITS}}


@dataclass(frozen=True)
class Skills(Conversations):
    """The embedded corpus (`tasks.instruction.skills`). general_rows: texts of the general corpus."""

    tagged: ClassVar[bool] = True

    candidates: int = 1600
    targets: int = 48
    validation: int = 96
    test: int = 300
    wanted: Sequence[str] = TARGETS
    noise: float = 0.3
    general_rows: int = 20000

    def rows(self, seed: int) -> Rows:
        options = {key: value for key, value in asdict(self).items() if key not in ("wanted", "general_rows")}
        corpus = Corpus(**options, wanted=tuple(self.wanted), seed=seed)
        return {split: corpus.rows(split) for split in SPLITS}

    def general(self, seed: int) -> list[Row]:
        return general(self.general_rows, seed)


@dataclass(frozen=True)
class Files(Conversations):
    """jsonl files of `messages`, or of `prompt` and `completion`; one, several, or a mapping of names to files.

    validation, test: null takes them from the targets, of which selection then sees the share 1 - `held_out`: a third
        of what is held out for validation, two thirds for test.
    """

    candidates: Paths
    targets: Paths
    validation: Paths | None = None
    test: Paths | None = None
    held_out: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise InputError(f"task.held_out must be in (0, 1); it is {self.held_out}")

    def rows(self, seed: int) -> Rows:
        given = {split: getattr(self, split) for split in SPLITS}
        rows: Rows = {split: read_rows(paths) for split, paths in given.items() if paths is not None}
        rows |= hold_out(rows.pop("targets"), [s for s in SPLITS if s not in rows and s != "targets"], self, seed)
        return distinct(rows)


def hold_out(targets: list[Row], lacking: list[Split], files: Files, seed: int) -> Rows:
    """The targets, and the splits that are taken from them."""
    if not lacking:
        return {"targets": targets}
    order = np.random.default_rng(seed).permutation(len(targets)).tolist()
    parts = {"validation": 1, "test": 2}
    counts = {
        split: max(1, round(files.held_out * len(targets) * parts[split] / sum(parts[s] for s in lacking)))
        for split in lacking
    }
    if sum(counts.values()) >= len(targets):
        raise InputError(
            f"task.targets has {len(targets)} rows, too few to hold some out for {' and '.join(lacking)}; give more, or "
            f"files of their own (task.{lacking[0]}=...)"
        )
    rows: Rows = {}
    for split, count in counts.items():
        rows[split], order = [targets[i] for i in sorted(order[:count])], order[count:]
    return {"targets": [targets[i] for i in sorted(order)], **rows}


def distinct(rows: Rows) -> Rows:
    """The same, the split before an id where splits have ids in common."""
    ids = [row.id for split in SPLITS for row in rows[split]]
    if len(set(ids)) == len(ids):
        return {split: rows[split] for split in SPLITS}
    for split in SPLITS:
        check_ids(rows[split])
    return {split: [replace(row, id=f"{split}/{row.id}") for row in rows[split]] for split in SPLITS}


def digest(rows: list[Row]) -> str:
    """Of all that a model could read of them, and of their names."""
    known = [
        [row.id, [list(turn) for turn in row.messages], row.group, row.prefill, row.open, list(row.options), row.answer]
        for row in rows
    ]
    return fingerprint({"rows": known})
