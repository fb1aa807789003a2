"""A conversation as everything else of the task sees it, whatever it was read from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tarot import InputError

ROLES = ("system", "user", "assistant", "tool")
LEARNED = ("assistant", "completion")
Message = tuple[str, str]  # role, content


@dataclass(frozen=True, eq=False)
class Row:
    """One conversation.

    id: unique among the rows of a split. messages: in their order, of the roles `ROLES`; a prompt/completion row has
    the two roles "prompt" and "completion", and no template is put around them. dataset: where it comes from.
    tag: what it is, for diagnosis. raw: the object as it was read. group: its subtask, where it has one.
    prefill: how the last answer begins; given to the model, not learned. open: the last answer has no end token, as in
    LESS's targets. options: what could stand after the prefill, of which one is right (multiple choice).
    answer: what an exact match is measured against; None: the last message. where: file and line.
    masked: places of answers that are given, not learned. more: what a message has besides, by its place:
    `tool_calls` (each {"type": "function", "function": {"name", "arguments"}}), `reasoning_content`, `name`,
    `tool_call_id`. tools: what may be called, as JSON schemas. copies: how many rows of the pool it stands for.
    """

    id: str
    messages: tuple[Message, ...]
    dataset: str = ""
    tag: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    prefill: str = ""
    open: bool = False
    options: tuple[str, ...] = ()
    answer: str | None = None
    where: str = ""
    masked: frozenset[int] = frozenset()
    more: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()
    copies: int = 1

    @property
    def plain(self) -> bool:
        """Whether it is a prompt and its completion, without roles."""
        return self.messages[0][0] == "prompt"

    @property
    def learned(self) -> tuple[int, ...]:
        """The places of the messages that are learned."""
        return tuple(
            place for place, (role, _) in enumerate(self.messages) if role in LEARNED and place not in self.masked
        )

    @property
    def answers(self) -> int:
        """How many of the messages are learned."""
        return len(self.learned)

    @property
    def expected(self) -> str:
        """The answer that an exact match is measured against: the last one, whatever is said after it."""
        if self.answer is not None:
            return self.answer
        return self.messages[self.learned[-1]][1].strip().removeprefix(self.prefill).strip()


def check_ids(rows: Iterable[Row]) -> None:
    """Raises InputError where two rows have the same id."""
    seen: dict[str, Row] = {}
    for row in rows:
        if row.id in seen:
            raise InputError(
                f"{row.where}: the id {row.id!r} is that of {seen[row.id].where}, too; ids must be unique over all "
                "files (leave `id` out to have rows named by file and line)"
            )
        seen[row.id] = row
