"""The template that a tokenizer brings: what it makes of a conversation, and where each answer stands in that.

Learned of an answer is what the template puts after the opening of the assistant's turn, with what closes the turn.
Most templates go on from what they wrote before: then an answer stands between the text of all that comes before it,
with the opening of a turn, and the text up to its end. Some write earlier turns anew once more is said (Qwen3 leaves
their reasoning out). There a turn is found by saying something else in its place: what changes is the turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from tarot import InputError
from tasks.instruction.reading import BadRowError, Row
from tasks.instruction.rendered import Rendered, given, plain

_PROBE = ({"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"})
_MARKS = ("\ue000", "\ue001", "\ue002", "\ue003")  # of no language: one that a conversation does not hold
_ERRORS = (TemplateError, TypeError, ValueError, AttributeError, KeyError)  # what a template's code may raise
Turn = dict[str, Any]


@dataclass(frozen=True)
class _Talk:
    """What a template is given. learned: the places of turns that are learned."""

    turns: tuple[Turn, ...]
    learned: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ChatTemplate:
    """tokenizer: that has the template."""

    tokenizer: PreTrainedTokenizerBase

    def __post_init__(self) -> None:
        if not self.tokenizer.chat_template:
            raise InputError("template=chat: the tokenizer has no chat template; take template=less")

    @property
    def closing(self) -> str:
        """What follows an answer."""
        return self._text(_PROBE).rpartition("answer")[2]

    def recipe(self) -> list[str]:
        """What determines it, as plain data: what it makes of a conversation tells the date, where it writes that."""
        return ["chat", self.tokenizer.chat_template, self.tokenizer.eos_token, self._text(_PROBE)]

    def __call__(self, row: Row) -> Rendered:
        """Raises BadRowError where the template refuses the conversation, or leaves some of it out.

        A template that knows no system's turn has it before the user's first; one that wants users and assistants in
        turn has a user's turns that follow one another as one.
        """
        if row.plain:
            return plain(row, cast("str", self.tokenizer.eos_token))
        talk, text = self._accepted(row)
        spans = [self._span(row, talk.turns, place, text) for place in talk.learned]
        if not row.open and not row.prefill:
            return Rendered(text, tuple(spans), whole=True)
        content = row.messages[-1][1].strip()
        start, stop = spans[-1]
        if row.open:
            stop = text.index(content, start) + len(content)
        spans[-1] = start + given(row, content), stop
        return Rendered(text[:stop] if row.open else text, tuple(spans), whole=True)

    # --- what the template takes --------------------------------------------------------------------------------------

    def _accepted(self, row: Row) -> tuple[_Talk, str]:
        """The first way to put a conversation that the template writes as a whole, and the text."""
        refusal: BadRowError | None = None
        for talk in _ways(row):
            try:
                text = self._text(talk.turns, row)
                self._refuse_loss(row, talk, text)
            except BadRowError as error:
                refusal = refusal or error
            else:
                return talk, text
        assert refusal is not None  # there is a first way
        raise refusal

    def _text(self, turns: Sequence[Turn], row: Row | None = None, opening: bool = False) -> str:
        tools: list[dict | Callable] | None = None
        if row is not None and row.tools:
            tools = [dict(tool) for tool in row.tools]
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(turn) for turn in turns], tools=tools, tokenize=False, add_generation_prompt=opening
            )
        except _ERRORS as error:
            where = "a question and its answer" if row is None else row.where or row.id
            detail = f"the tokenizer's chat template refuses it ({error}); take template=less, or leave the row out"
            raise BadRowError(where, "that the chat template refuses", detail) from error
        return cast("str", text)  # as it is where it is not tokenized

    def _refuse_loss(self, row: Row, talk: _Talk, text: str) -> None:
        """Raises BadRowError where something is said that the text does not say."""
        lost = [f"the tool {tool['function']['name']}" for tool in row.tools if tool["function"]["name"] not in text]
        for place, turn in enumerate(talk.turns):
            calls = turn.get("tool_calls", ())
            lost += [f"a call of {call['function']['name']}" for call in calls if call["function"]["name"] not in text]
            said = turn["content"].strip()
            if said and said not in text and self._altered(row, talk.turns, place) == text:
                lost.append(f"message {place + 1}, the {turn['role']}'s")
        thought = talk.turns[talk.learned[-1]].get("reasoning_content")
        if thought is not None and thought.strip() not in text:
            lost.append("what is thought before the last answer")
        if lost:
            detail = f"the tokenizer's chat template leaves {lost[0]} out; take template=less, or leave the row out"
            raise BadRowError(row.where or row.id, "of which the chat template leaves something out", detail)

    # --- where a turn stands ------------------------------------------------------------------------------------------

    def _span(self, row: Row, turns: Sequence[Turn], place: int, text: str) -> tuple[int, int]:
        """(start, stop) of what is learned of a turn."""
        before = self._or_none(turns[:place], row, opening=True) if place else None
        after = self._or_none(turns[: place + 1], row)
        if before is not None and text.startswith(before):
            start = len(before)
        else:
            start = self._start(row, turns, place, text, before)
        if after is not None and text.startswith(after):
            stop = len(after)
        else:
            stop = self._stop(row, turns, place, text, after)
        if start >= stop:
            detail = "it is not known which of the chat template's text is an answer; take template=less"
            raise BadRowError(row.where or row.id, "that the chat template refuses", detail)
        return start, stop

    def _start(self, row: Row, turns: Sequence[Turn], place: int, text: str, before: str | None) -> int:
        """Behind the opening of the turn: what follows the message before it where nothing more is said, as far as it
        stands here, too."""
        latest = _alike(text, self._altered(row, turns, place))
        if before is None:
            return latest
        past = _end(text, self._altered(row, turns, place - 1))
        ending = before[_end(before, self._altered(row, turns[:place], place - 1, opening=True)) :]
        return min(past + _alike(text[past:], ending), latest)

    def _stop(self, row: Row, turns: Sequence[Turn], place: int, text: str, after: str | None) -> int:
        """Behind what closes the turn: what follows its content where nothing more is said, as far as it stands
        here."""
        past = _end(text, self._altered(row, turns, place))
        if after is None:
            return past
        closing = after[_end(after, self._altered(row, turns[: place + 1], place)) :]
        same = _alike(text[past:], closing)
        return past + max((stop for stop in self._token_ends(closing) if stop <= same), default=0)

    def _token_ends(self, text: str) -> list[int]:
        """Where its tokens end: what begins with "<" as the end token does is not yet the same."""
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [stop for _, stop in found["offset_mapping"]]

    def _altered(self, row: Row, turns: Sequence[Turn], place: int, opening: bool = False) -> str:
        """The text with something else in the place of what one message says."""
        said = "".join(turn["content"] for turn in turns)
        mark = next((mark for mark in _MARKS if mark not in said), _MARKS[0])
        other = {**turns[place], "content": mark}
        return self._text([*turns[:place], other, *turns[place + 1 :]], row, opening)

    def _or_none(self, turns: Sequence[Turn], row: Row, opening: bool = False) -> str | None:
        """The text; None where the template refuses what is not yet at its end."""
        try:
            return self._text(turns, row, opening)
        except BadRowError:
            return None


def _ways(row: Row) -> Iterator[_Talk]:
    """A conversation as it is, and as templates want it that know fewer roles or only turns in alternation."""
    whole = _Talk(tuple(_turn(row, place) for place in range(len(row.messages))), row.learned)
    yield whole
    folded = _joined(whole, lambda one, other: (one["role"], other["role"]) == ("system", "user"))
    if folded != whole:
        yield folded
    for talk in (whole, folded):
        merged = _joined(talk, lambda one, other: one["role"] == other["role"] == "user")
        if merged != talk:
            yield merged


def _turn(row: Row, place: int) -> Turn:
    role, content = row.messages[place]
    more = dict(row.more.get(place, {}))
    if "reasoning_content" in more:
        more["thinking"] = more["reasoning_content"]  # as gpt-oss calls it
    return {"role": role, "content": content, **more}


def _joined(talk: _Talk, together: Callable[[Turn, Turn], bool]) -> _Talk:
    """Turns and those before them as one of the later role, where they belong together."""
    turns: list[Turn] = []
    learned = []
    for place, turn in enumerate(talk.turns):
        if turns and together(turns[-1], turn):
            turn = {**turn, "content": f"{turns.pop()['content']}\n\n{turn['content']}"}
        turns.append(turn)
        if place in talk.learned:
            learned.append(len(turns) - 1)
    return _Talk(tuple(turns), tuple(learned))


def _alike(one: str, other: str) -> int:
    """How many characters two texts have in common from their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _end(text: str, altered: str) -> int:
    """Where the text goes on as the altered one does, behind what is altered."""
    same = _alike(text[::-1], altered[::-1])
    return max(len(text) - same, _alike(text, altered))
