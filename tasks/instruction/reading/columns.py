"""What a file's columns mean, where their names do not say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tarot import InputError
from tasks.instruction.reading.faults import BadRowError

_MEANINGS = {
    **{name: name for name in ("messages", "instruction", "input", "output", "text")},
    **{name: name for name in ("system", "history", "tools", "label", "id", "subtask", "dataset")},
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "completion": "output",
    "conversations": "messages",
}
_ASKING = ("messages", "instruction", "text")
_BESIDES = ("id", "subtask", "dataset", "label")


@dataclass(frozen=True)
class Columns:
    """names: meaning -> column; meanings are those of `columns_of`. joint: between what is asked and what is given
    besides. speakers: what a role is called -> the role; without any, what roles are usually called. role, content: the
    fields of a turn; without any, the usual ones. kept: whether other columns that say something by their names count,
    too."""

    names: Mapping[str, str]
    joint: str = "\n\n"
    speakers: Mapping[str, str] = field(default_factory=dict)
    role: str = ""
    content: str = ""
    kept: bool = True

    def fit(self, raw: Mapping[str, Any]) -> bool:
        """Whether a row has some column that is named."""
        return any(column in raw for column in self.names.values())

    def renamed(self, raw: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The row by what its columns mean; one that has none of them as it is."""
        if not self.fit(raw):
            return dict(raw)
        said = {meaning: raw[column] for meaning, column in self.names.items() if column in raw}
        if not any(meaning in said for meaning in _ASKING):
            lacking = ", ".join(self.names[meaning] for meaning in _ASKING if meaning in self.names)
            detail = f"it lacks the column {lacking}, of task.columns; it has {', '.join(sorted(raw))}"
            raise BadRowError(where, "without a column that is named", detail)
        if isinstance(said.get("instruction"), list):  # messages in the place of text
            said["prompt"], said["completion"] = said.pop("instruction"), said.pop("output", None)
        if isinstance(said.get("messages"), list):
            said["messages"] = [self._turn(turn) for turn in said["messages"]]
        besides = {name: raw[name] for name in _BESIDES if name in raw and self.kept}
        return {**besides, **said}

    def _turn(self, turn: Any) -> Any:
        if not isinstance(turn, Mapping) or not (self.role or self.speakers):
            return turn
        said = turn.get(self.role) if self.role else turn.get("role", turn.get("from"))
        known = {key: value for key, value in turn.items() if key not in (self.role, self.content, "role", "from")}
        speaker = self.speakers.get(said, f"{said}") if self.speakers and isinstance(said, str) else said
        return {**known, "role": speaker, "content": turn.get(self.content) if self.content else turn.get("content")}


def columns_of(names: Mapping[str, str]) -> Columns:
    """What the user says. names: meaning -> column, meanings being prompt (or instruction), query (input), response
    (output, completion), system, history, messages (conversations), tools, text (learned as a whole), label, id,
    subtask and dataset.

    Raises InputError for another meaning, one that is there twice, and where nothing says what is to be learned.
    """
    found: dict[str, str] = {}
    for meaning, column in names.items():
        known = _MEANINGS.get(meaning)
        if known is None or known in found:
            twice = "" if known is None else f", and {meaning} means the same as another of them"
            raise InputError(f"task.columns names {', '.join(sorted(_MEANINGS))}; it is {dict(names)}{twice}")
        found[known] = column
    if not any(meaning in found for meaning in _ASKING) or ("instruction" in found and "output" not in found):
        raise InputError(
            "task.columns must say what is asked and what is learned: {prompt: ..., response: ...}, {messages: ...} or "
            f"{{text: ...}}; it is {dict(names)}"
        )
    return Columns(found)
