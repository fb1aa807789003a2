"""A conversation as text, and which of it is learned; what all templates do alike."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tarot import InputError
from tasks.instruction.reading import Row


@dataclass(frozen=True)
class Rendered:
    """text: what the model reads. spans: (start, stop) of the characters that are learned, in order.
    whole: nothing is put before the text; otherwise the tokenizer may put its own first token there."""

    text: str
    spans: tuple[tuple[int, int], ...]
    whole: bool = False

    @property
    def prompt(self) -> str:
        """What comes before the last answer: what the model is asked to go on from."""
        return self.text[: self.spans[-1][0]]

    @property
    def answer(self) -> str:
        """The last answer, with what ends it."""
        return self.text[slice(*self.spans[-1])]


def plain(row: Row, end: str) -> Rendered:
    """A prompt and its completion, joined by a space where neither has one; text without a prompt as it is."""
    prompt, completion = (content for _, content in row.messages)
    blank = (" ", "\n", "\t")
    joint = "" if not prompt or prompt.endswith(blank) or completion.startswith(blank) else " "
    text = prompt + joint + completion + ("" if row.open else end)
    return Rendered(text, ((len(prompt), len(text)),))


def given(row: Row, content: str) -> int:
    """How many of the last answer's characters are given."""
    if not content.startswith(row.prefill):
        raise InputError(
            f"{row.where or row.id}: the last answer must begin with {row.prefill!r}; it is {content!r:.60}"
        )
    return len(row.prefill)


def spelled(row: Row, place: int) -> str:
    """All that a message says, as text: after what is thought and said, each call as Hermes writes it."""
    more = row.more.get(place, {})
    parts = [f"<think>\n{more['reasoning_content'].strip()}\n</think>"] if "reasoning_content" in more else []
    said = row.messages[place][1].strip()
    parts = ["\n\n".join([*parts, said]) if said else "".join(parts)]
    parts += [
        f"<tool_call>\n{json.dumps(call['function'], ensure_ascii=False, default=str)}\n</tool_call>"
        for call in more.get("tool_calls", ())
    ]
    return "\n".join(part for part in parts if part)


def spelled_tools(row: Row) -> str:
    """What may be called, as Hermes writes it in a system's turn; "" where there is nothing."""
    if not row.tools:
        return ""
    listed = "\n".join(json.dumps(tool, ensure_ascii=False, default=str) for tool in row.tools)
    return f"<tools>\n{listed}\n</tools>"
