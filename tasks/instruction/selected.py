"""What is selected, as files that others train on: as it was read, in one form for all, and as a trainer takes it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tarot import Selection
from tarot.common import atomic_file
from tasks.instruction.reading import Row
from tasks.instruction.trainers import Format, for_trainer, snippets_of

COLUMNS = ("weight", "nearest_target", "distance")
MESSAGES = "selected.messages.jsonl"
# JSON allows them inside of a string, but programs that split text into lines break it there
_BREAKS = str.maketrans({mark: f"\\u{ord(mark):04x}" for mark in "\u0085\u2028\u2029"})


def write_selected(rows: Sequence[Row], targets: Sequence[str], selection: Selection, path: Path) -> None:
    """The selected rows as they were read, in the order of the candidates, one JSON object per line, each with

    weight: how often it is repeated in an epoch. nearest_target: the id of the target that it is nearest to.
    distance: its distance to that target, null where it has none (a zero gradient). copies: how many candidates it
    stands for, where some stand for others.

    Where some row has a field of such a name, ours is called tarot_weight and so on, in all rows.
    rows: all candidates. targets: the ids of the targets. The file appears whole or not at all.
    """
    chosen = [rows[i] for i in selection.indices.tolist()]
    taken = set().union(*(row.raw for row in chosen))
    said = [{f"tarot_{k}" if k in taken else k: v for k, v in one.items()} for one in _said(chosen, targets, selection)]
    _write(path, ({**row.raw, **more} for row, more in zip(chosen, said, strict=True)))


@dataclass(frozen=True)
class ForTrainers:
    """What is written besides, all of it with the selected rows in one form.

    format: of the trainer that a file and the piece of its configuration are for; None: none. repeat: every row comes
    as often as its weight says, one after another.
    """

    format: Format | None = None
    repeat: bool = False

    def files(
        self, rows: Sequence[Row], targets: Sequence[str], selection: Selection
    ) -> dict[str, Callable[[Path], None]]:
        """Name -> what writes it. rows: all candidates; targets: the ids of the targets.

        `selected.messages.jsonl` has `id`, `dataset`, `messages` (an answer that is given has `weight` 0), `tools`
        where there are some, and what `write_selected` adds.
        """
        chosen = [rows[i] for i in selection.indices.tolist()]
        said = _said(chosen, targets, selection)

        def messages(path: Path) -> None:
            lines = (
                {"id": row.id, "dataset": row.dataset, **_conversation(row), **more}
                for row, more in zip(chosen, said, strict=True)
            )
            _write(path, self._repeated(lines))

        found: dict[str, Callable[[Path], None]] = {MESSAGES: messages}
        if self.format is None:
            return found
        kind, name = self.format, f"selected.{self.format}.jsonl"
        weights = selection.weights.tolist() if self.repeat else [1] * len(chosen)
        repeated = [row for row, weight in zip(chosen, weights, strict=True) for _ in range(weight)]
        found[name] = lambda path: _write(path, for_trainer(repeated, kind))
        return found | {one.name: partial(_write_text, text=one.text) for one in snippets_of(repeated, kind, name)}

    def _repeated(self, lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for line in lines:
            for _ in range(line["weight"] if self.repeat else 1):
                yield line


def _said(rows: Sequence[Row], targets: Sequence[str], selection: Selection) -> list[dict[str, Any]]:
    """What is known of each selected row."""
    found = zip(
        selection.weights.tolist(),
        selection.nearest_target.tolist(),
        selection.nearest_distance.tolist(),
        strict=True,
    )
    said = [
        dict(zip(COLUMNS, (weight, targets[target], distance if math.isfinite(distance) else None), strict=True))
        for weight, target, distance in found
    ]
    if all(row.copies == 1 for row in rows):
        return said
    return [{**one, "copies": row.copies} for one, row in zip(said, rows, strict=True)]


def _conversation(row: Row) -> dict[str, Any]:
    roles = {"prompt": "user", "completion": "assistant"}
    messages = [
        {
            "role": roles.get(role, role),
            "content": content,
            **row.more.get(place, {}),
            **({"weight": 0} if place in row.masked else {}),
        }
        for place, (role, content) in enumerate(row.messages)
        if content or role != "prompt"
    ]
    return {"messages": messages, **({"tools": list(row.tools)} if row.tools else {})}


def _write(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        for line in lines:
            file.write(_line(line) + b"\n")


def _write_text(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _line(content: Mapping[str, Any]) -> bytes:
    """As readable as it can be; what is no character of Unicode stays escaped. The hub has columns of other types than
    JSON, such as dates: they become text."""
    try:
        return json.dumps(content, ensure_ascii=False, default=str).translate(_BREAKS).encode()
    except UnicodeEncodeError:
        return json.dumps(content, default=str).encode()
