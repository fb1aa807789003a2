"""From a conversation to text, and which of it is learned.

LESS's template (theory.md 2): every message is `<|role|>\\n{content}\\n`, an assistant's
`<|assistant|>\\n{content}{end}\\n`; learned is all that follows the tag `<|assistant|>\\n` up to the next one: content,
end token and line break. A prompt/completion row is the two joined, with a space where neither has one, and the end
token; the prompt is not learned. Where tools may be called, they stand at the end of the system's turn, and a call at
the end of the assistant's, as Hermes writes them; LESS has neither.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from tarot import InputError
from tasks.instruction.chat import ChatTemplate
from tasks.instruction.reading import Row
from tasks.instruction.rendered import Rendered, given, plain, spelled, spelled_tools

TAGS = ("<|system|>", "<|user|>", "<|assistant|>")


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
            return plain(row, self.end)
        text, spans, tools = "", [], spelled_tools(row)
        if tools and row.messages[0][0] != "system":
            text = f"<|system|>\n{tools}\n"
        for place, (role, _) in enumerate(row.messages):
            content = spelled(row, place)
            text += f"<|{role}|>\n"
            if role != "assistant":
                text += f"{content}\n\n{tools}\n" if tools and role == "system" and not place else f"{content}\n"
                continue
            last = place == len(row.messages) - 1
            start = len(text) + (given(row, content) if last else 0)
            text += content if last and row.open else f"{content}{self.end}\n"
            if place not in row.masked:
                spans.append((start, len(text)))
        return Rendered(text, tuple(spans))


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
