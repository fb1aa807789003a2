"""From turns as programs write them to messages: who speaks, what is said, what is called, and what is learned."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.instruction.reading.faults import BadRowError
from tasks.instruction.reading.row import ROLES, Message

_SPEAKERS = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "bot", "model", "assistant"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "tool"),
    "function_call": "function_call",
}
_FLAGS = ("weight", "train", "training", "loss")
"""Which answers are learned: OpenAI's weight 0 | 1, axolotl's train and training, ms-swift's loss."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text"}
ANSWERS = "without an answer"
ELSEWHERE = "give it one, or say which columns have it: 'task.columns={prompt: ..., response: ...}'"


@dataclass(frozen=True)
class Turns:
    """What `Row` says of its messages."""

    messages: tuple[Message, ...]
    masked: frozenset[int]
    more: Mapping[int, Mapping[str, Any]]


def is_given(value: Any) -> bool:
    """Whether a field says something: null does not, nor does NaN, which is what pandas makes of it."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def turns_of(turns: Sequence[Any], where: str, *, given: int = 0) -> Turns:
    """What a list of turns says. given: so many of the first are the prompt, of which nothing is learned.

    Raises BadRowError for what is no turn, or cannot be done as it says, and where nothing is left to learn.
    """
    messages, masked, more = [], set(), {}
    for place, turn in enumerate(turns):
        name = f"message {place + 1}"
        if not isinstance(turn, Mapping):
            raise BadRowError(
                where, "with other things than messages", f"{name} must be an object with role and content"
            )
        role = _role(turn, where, name)
        rest = _rest(turn, role, where, name)
        content = _content(turn, role, rest, where, name)
        if role == "function_call":
            role, content, rest = "assistant", "", {**rest, "tool_calls": _calls(_parsed(content), where, name)}
        messages.append((role, whole(content, where)))
        if rest:
            whole(json.dumps(rest, ensure_ascii=False, default=str), where)
            more[place] = rest
        if not _is_learned(turn, role, where, name) or (role == "assistant" and place < given):
            masked.add(place)
    found = Turns(tuple(messages), frozenset(masked), more)
    _refuse_unlearnable(found, where)
    return found


def whole(text: str, where: str) -> str:
    """JSON may spell half of a character (\\ud83d), which no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        detail = f"the text holds {text[error.start]!r}, half of a character; take it out"
        raise BadRowError(where, "with half a character", detail) from error
    return text


def _role(turn: Mapping[str, Any], where: str, name: str) -> str:
    said = next((turn[key] for key in ("role", "from") if is_given(turn.get(key))), None)
    role = _SPEAKERS.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None:
        detail = f"{name} has the role {said!r}; roles are {', '.join(ROLES)}, or as ShareGPT calls them"
        raise BadRowError(where, "with an unknown role", detail)
    return role


def _content(turn: Mapping[str, Any], role: str, rest: Mapping[str, Any], where: str, name: str) -> str:
    said = next((turn[key] for key in ("content", "value") if is_given(turn.get(key))), None)
    if said is None and ("tool_calls" in rest or "reasoning_content" in rest):
        return ""
    if isinstance(said, str):
        return said
    if isinstance(said, list):
        return "\n".join(_part(part, where, name) for part in said)
    if role in ("tool", "function_call") and said is not None:
        return json.dumps(said, ensure_ascii=False)
    if role == "assistant" and said is None:
        raise BadRowError(where, ANSWERS, f"{name}, the assistant's, has no content", "give it some, or take it out")
    detail = f"{name} must be an object with role and content (text); the content is {said!r:.80}"
    raise BadRowError(where, "whose content is no text", detail)


def _part(part: Any, where: str, name: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
    text = part.get(_TEXTS.get(kind, "")) if isinstance(part, Mapping) else None
    if not isinstance(text, str):
        detail = f"{name} has a part of the type {kind!r}; a model of text reads text alone"
        raise BadRowError(where, "with parts that are no text", detail, "give rows of text alone")
    return text


def _rest(turn: Mapping[str, Any], role: str, where: str, name: str) -> dict[str, Any]:
    """What a message has besides who says what."""
    rest: dict[str, Any] = {}
    if role == "assistant":
        called = turn.get("tool_calls") or ([turn["function_call"]] if is_given(turn.get("function_call")) else None)
        if is_given(called) and called:
            rest["tool_calls"] = _calls(_parsed(called), where, name)
        reasoned = next((turn[key] for key in _REASONING if is_given(turn.get(key)) and turn[key] != ""), None)
        if reasoned is not None:
            if not isinstance(reasoned, str):
                raise BadRowError(where, "whose content is no text", f"{name}: its reasoning must be text")
            rest["reasoning_content"] = reasoned
    if role == "tool":
        rest |= {key: turn[key] for key in ("name", "tool_call_id") if isinstance(turn.get(key), str) and turn[key]}
    return rest


def _parsed(value: Any) -> Any:
    """What columns of text hold as JSON; the value itself where it is none."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _calls(said: Any, where: str, name: str) -> list[dict[str, Any]]:
    """Calls as OpenAI writes them, whoever wrote them; arguments are an object."""
    calls = []
    for call in said if isinstance(said, list) else [said]:
        inner = call.get("function", call) if isinstance(call, Mapping) else None
        called = inner.get("name") if isinstance(inner, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(called, str) or not called:
            detail = f"{name} calls a tool without saying its name: {call!r:.80}"
            raise BadRowError(where, "with a call of nothing", detail, "a call is {name: ..., arguments: {...}}")
        arguments = _parsed(inner["arguments"]) if inner.get("arguments") not in (None, "") else {}
        if not isinstance(arguments, Mapping):
            detail = f"{name}: the arguments of {called!r} must be a JSON object; they are {arguments!r:.80}"
            raise BadRowError(where, "with a call of nothing", detail)
        identity = {"id": call["id"]} if isinstance(call.get("id"), str) and call["id"] else {}
        calls.append({**identity, "type": "function", "function": {"name": called, "arguments": dict(arguments)}})
    return calls


def _is_learned(turn: Mapping[str, Any], role: str, where: str, name: str) -> bool:
    said = {flag: turn[flag] for flag in _FLAGS if is_given(turn.get(flag))}
    for flag, value in said.items():
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            detail = f"{name} has {flag} {value!r}; it is learned (1, true) or not (0, false), nothing between"
            raise BadRowError(where, "with a weight that is not 0 or 1", detail)
    if is_given(turn.get("train_detail")) and turn["train_detail"]:
        detail = f"{name} is learned in parts (train_detail), which is not done; divide it into messages"
        raise BadRowError(where, "learned in parts", detail)
    if role != "assistant" and any(said.values()):
        detail = f"{name} is to be learned but is no answer; give it to the assistant, or take {', '.join(said)} out"
        raise BadRowError(where, "with other messages to learn than answers", detail)
    return all(said.values())


def _refuse_unlearnable(found: Turns, where: str) -> None:
    answers = [place for place, (role, _) in enumerate(found.messages) if role == "assistant"]
    if not answers:
        detail = "no message is the assistant's, so there is nothing to learn"
        raise BadRowError(where, ANSWERS, detail, "give it an answer, a message of the role assistant")
    if not any(found.messages[place][1].strip() or place in found.more for place in answers):
        detail = "all answers of the assistant are empty, so there is nothing to learn"
        raise BadRowError(where, ANSWERS, detail, ELSEWHERE)
    learned = [place for place in answers if place not in found.masked]
    if not any(found.messages[place][1].strip() or place in found.more for place in learned):
        detail = "every answer is given or masked (weight, train, loss), so there is nothing to learn"
        raise BadRowError(where, "whose answers are all masked", detail, "leave one of them to be learned")
