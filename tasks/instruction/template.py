"""From a conversation to text, and which of it is learned.

LESS's template (theory.md 2): every message is `<|role|>\\n{content}\\n`, an assistant's
`<|assistant|>\\n{content}{end}\\n`; learned is all that follows the tag `<|assistant|>\\n` up to the next one: content,
end token and line break. A prompt/completion row is the two joined, with a space where neither has one, and the end
token; the prompt is not learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from tarot import InputError
from tasks.instruction.rows import Message, Row

TAGS = ("<|system|>", "<|user|>", "<|assistant|>")
_PROBE = (("user", "question"), ("assistant", "answer"))


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


@dataclass(frozen=True)
class LessTemplate:
    """end: what ends an answer, the tokenizer's end token."""

    end: str

    @property
    def closing(self) -> str:
        """What follows an answer."""
        return f"{self.end}\n"

    def recipe(self) -> list[str]:
        """What determines it, as plain data."""
        return ["less", self.end]

    def __call__(self, row: Row) -> Rendered:
        """Raises InputError where the last answer does not begin as its prefill says."""
        if row.plain:
            return _plain(row, self.end)
        text, spans = "", []
        for place, (role, content) in enumerate(row.messages):
            content = content.strip()
            text += f"<|{role}|>\n"
            if role != "assistant":
                text += f"{content}\n"
                continue
            last = place == len(row.messages) - 1
            start = len(text) + (_prefill(row, content) if last else 0)
            text += content if last and row.open else f"{content}{self.end}\n"
            spans.append((start, len(text)))
        return Rendered(text, tuple(spans))


@dataclass(frozen=True, eq=False)
class ChatTemplate:
    """The template that a tokenizer brings with it. Learned is what it puts after the opening of an assistant's turn,
    with what closes the turn."""

    tokenizer: PreTrainedTokenizerBase

    def __post_init__(self) -> None:
        if not self.tokenizer.chat_template:
            raise InputError("template=chat: the tokenizer has no chat template; take template=less")

    @property
    def closing(self) -> str:
        """What follows an answer."""
        return self._text(_PROBE).rpartition(_PROBE[-1][1])[2]

    def recipe(self) -> list[str]:
        """What determines it, as plain data: what it makes of a conversation tells the date, where it writes that."""
        return ["chat", self.tokenizer.chat_template, self.tokenizer.eos_token, self._text(_PROBE)]

    def __call__(self, row: Row) -> Rendered:
        """Raises InputError where a template writes a conversation's beginning anew once more is said."""
        if row.plain:
            return _plain(row, self.tokenizer.eos_token)
        text, spans = self._text(row.messages), []
        for place, (role, content) in enumerate(row.messages):
            if role != "assistant":
                continue
            before = self._text(row.messages[:place], opening=True)
            after = self._text(row.messages[: place + 1])
            if not (text.startswith(after) and after.startswith(before)):
                raise InputError(
                    f"{row.where or row.id}: the tokenizer's chat template rewrites a conversation's earlier turns, "
                    "so that it is not known which tokens are an answer; take template=less"
                )
            start, stop = len(before), len(after)
            if not before:  # the opening of a conversation that the assistant begins, with a system's turn of its own
                start = after.rindex(content.strip())
            if place == len(row.messages) - 1:
                start += _prefill(row, content.strip())
                if row.open:
                    stop = text.index(content.strip(), len(before)) + len(content.strip())
                    text = text[:stop]
            spans.append((start, stop))
        return Rendered(text, tuple(spans), whole=True)

    def _text(self, messages: tuple[Message, ...], opening: bool = False) -> str:
        if not messages:
            return ""
        turns = [{"role": role, "content": content.strip()} for role, content in messages]
        try:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=opening)
            return cast("str", text)  # as it is where it is not tokenized
        except TemplateError as error:
            raise InputError(
                f"the tokenizer's chat template refuses a conversation of {', '.join(role for role, _ in messages)}: "
                f"{error}; take template=less"
            ) from error


Template = LessTemplate | ChatTemplate


def stop_tokens(template: Template, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What ends an answer: the end token, and the special token that the template puts after one, if it does."""
    closing = tokenizer(template.closing.lstrip(), add_special_tokens=False, verbose=False)["input_ids"][:1]
    return sorted({tokenizer.eos_token_id, *(token for token in closing if token in tokenizer.added_tokens_decoder)})


def template_of(kind: str, tokenizer: PreTrainedTokenizerBase) -> Template:
    """kind: `less`, or `chat` for the one that the tokenizer brings."""
    if kind not in ("less", "chat"):
        raise InputError(f"template must be 'less' or 'chat'; it is {kind!r}")
    if tokenizer.eos_token is None:
        raise InputError("the tokenizer has no end token (eos_token), so a model could not learn where to stop")
    return LessTemplate(tokenizer.eos_token) if kind == "less" else ChatTemplate(tokenizer)


def _plain(row: Row, end: str) -> Rendered:
    prompt, completion = (content for _, content in row.messages)
    blank = (" ", "\n", "\t")
    joint = "" if prompt.endswith(blank) or completion.startswith(blank) else " "
    text = prompt + joint + completion + ("" if row.open else end)
    return Rendered(text, ((len(prompt), len(text)),))


def _prefill(row: Row, content: str) -> int:
    """How many of the answer's characters are given."""
    if not content.startswith(row.prefill):
        raise InputError(
            f"{row.where or row.id}: the last answer must begin with {row.prefill!r}; it is {content!r:.60}"
        )
    return len(row.prefill)
