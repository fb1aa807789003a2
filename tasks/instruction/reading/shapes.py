"""What an object says, in whichever of the forms that trainers take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tarot import InputError
from tasks.instruction.reading.columns import Columns
from tasks.instruction.reading.faults import BadRowError
from tasks.instruction.reading.row import Row
from tasks.instruction.reading.turns import ANSWERS, ELSEWHERE, Turns, is_given, turns_of, whole

_ASKED = ("instruction", "prompt", "question", "query", "input")
_ANSWERED = ("output", "response", "answer", "completion")
_BESIDES = ("input", "context")
_SYSTEMS = ("system", "system_prompt")
_MEDIA = ("images", "image", "videos", "video", "audios", "audio")
_FORMS = (
    "`messages`, `prompt` and `completion`, `conversations`, `instruction` and `output`, `question` and `answer`, "
    "`prompt` and `response`, `query` and `response`, `input` and `output`, or `text`"
)


@dataclass(frozen=True)
class Origin:
    """Where an object comes from. where: file and line. id: where it has none itself. dataset: of the user's own
    naming; "" takes what the object says, else `label`. columns: what the file's columns mean; None: their names say
    it."""

    where: str
    id: str
    label: str
    dataset: str = ""
    columns: Columns | None = None


def row_of(raw: Mapping[str, Any], origin: Origin) -> Row:
    """The row that an object is.

    Raises BadRowError where nothing could be learned from it, and InputError, for the whole file, where it is a pair of
    answers to be told apart.
    """
    where = origin.where
    said = _text_fields(raw if origin.columns is None else origin.columns.renamed(raw, where))
    joint = "\n\n" if origin.columns is None else origin.columns.joint
    _refuse_unusable(said, where)
    turns = _turns(said, where, joint)
    tools = tuple(_tools(said, where))
    given = said.get("dataset")
    dataset = origin.dataset or (str(given) if isinstance(given, str | int) and given != "" else origin.label)
    return Row(
        named(said.get("id")) or origin.id,
        turns.messages,
        dataset,
        dataset,
        raw,
        group=named(said.get("subtask")),
        where=where,
        masked=turns.masked,
        more=turns.more,
        tools=tools,
    )


def named(value: Any) -> str:
    """A name of any type of JSON as text: text as it is, all else as JSON; "" where it says nothing."""
    if not is_given(value):
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=True, default=str)


def _text_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is null, and with lists where a table has them as text."""
    said = {name: value for name, value in raw.items() if is_given(value)}
    for name in ("messages", "conversations", "conversation", "history", "tools"):
        value = said.get(name)
        if isinstance(value, str):
            try:
                said[name] = json.loads(value) if value.strip() else []
            except (ValueError, RecursionError):
                continue  # whoever reads it says what is wrong
    return said


def _refuse_unusable(said: Mapping[str, Any], where: str) -> None:
    if _is_pair(said):
        raise InputError(
            f"{where}: a row of `chosen` and `rejected` answers is for learning which is better (DPO), which no loss "
            "here is; to learn the chosen ones, say which columns they are: "
            "'task.columns={prompt: prompt, response: chosen}', or 'task.columns={messages: chosen}' where they are "
            "whole conversations"
        )
    if said.get("label") is False:
        detail = "label is false: its answer is one to unlearn (KTO), which no loss here does"
        raise BadRowError(where, "with label false", detail, "give rows whose answers are to be learned")
    for name in _MEDIA:
        if said.get(name):
            detail = f"it has {name}, which a model of text does not see"
            raise BadRowError(where, f"with {name}", detail, "give rows of text alone")


def _is_pair(said: Mapping[str, Any]) -> bool:
    """Whether it is two answers rather than one; some have the better one as `messages`, too."""
    if not {"chosen", "rejected"} <= said.keys():
        return False
    turns = said.get("messages")
    last = turns[-1] if isinstance(turns, list) and turns else None
    return not (isinstance(last, Mapping) and last.get("role") == "assistant")


def _turns(said: Mapping[str, Any], where: str, joint: str) -> Turns:
    if "messages" in said:
        return _listed(said["messages"], "messages", said, where)
    if {"prompt", "completion"} <= said.keys():
        return _completed(said, where)
    for name in ("conversations", "conversation"):
        if name in said:
            return _listed(said[name], name, said, where)
    asked = next((name for name in _ASKED if name in said), None)
    answered = next((name for name in _ANSWERED if name in said), None)
    if asked is not None and (answered is not None or asked == "instruction"):
        return _asked(said, asked, answered, where, joint)
    if "text" in said:
        return _plain("", said["text"], where)
    raise BadRowError(
        where,
        "of no known form",
        f"a row has {_FORMS}; this one has {', '.join(sorted(said)) or 'nothing'} (what other columns mean, "
        "task.columns says: {prompt: ..., response: ...})",
    )


def _listed(turns: Any, name: str, said: Mapping[str, Any], where: str) -> Turns:
    if not isinstance(turns, list) or not turns:
        detail = f"{name} must be a list with at least one message; it is {turns!r:.80}"
        raise BadRowError(where, "without messages", detail)
    has_system = isinstance(turns[0], Mapping) and str(turns[0].get("role", turns[0].get("from"))).lower() == "system"
    return turns_of([*([] if has_system else _system(said, where)), *turns], where)


def _completed(said: Mapping[str, Any], where: str) -> Turns:
    prompt, completion = said["prompt"], said["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        return _plain(prompt, completion, where)
    if not (isinstance(prompt, list) and isinstance(completion, list) and prompt and completion):
        detail = "prompt and completion must both be text, or both lists of messages"
        raise BadRowError(where, "whose content is no text", detail)
    before = [*_system(said, where), *prompt]
    return turns_of([*before, *completion], where, given=len(before))


def _plain(prompt: str, completion: Any, where: str) -> Turns:
    if not isinstance(completion, str):
        raise BadRowError(where, "whose content is no text", f"text must be text; it is {completion!r:.80}")
    if not completion.strip():
        raise BadRowError(where, ANSWERS, "the completion is empty, so there is nothing to learn", ELSEWHERE)
    return Turns((("prompt", whole(prompt, where)), ("completion", whole(completion, where))), frozenset(), {})


def _asked(said: Mapping[str, Any], asked: str, answered: str | None, where: str, joint: str) -> Turns:
    """One question and its answer, as Alpaca has them. What is given besides follows the instruction; history: pairs
    that come before."""
    besides = next((name for name in _BESIDES if name in said and name not in (asked, answered)), None)
    texts = {asked: said[asked], besides: said.get(besides or "", ""), answered: said.get(answered or "")}
    for name, text in texts.items():
        if not isinstance(text, str):
            reason = ANSWERS if text is None else "whose content is no text"
            raise BadRowError(where, reason, f"{name or 'output'} must be text; it is {text!r:.80}", ELSEWHERE)
    history = said.get("history", [])
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        detail = f"history must be a list of [question, answer]; it is {history!r:.80}"
        raise BadRowError(where, "with another history than pairs", detail)
    question = joint.join(text for text in (texts[asked], texts[besides]) if text.strip()) or texts[asked]
    pairs = [*history, (question, texts[answered])]
    turns = [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return turns_of([*_system(said, where), *turns], where)


def _system(said: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The turn of a system that stands in a field of its own."""
    name = next((name for name in _SYSTEMS if said.get(name)), None)
    if name is None:
        return []
    if not isinstance(said[name], str):
        raise BadRowError(where, "whose content is no text", f"{name} must be text; it is {said[name]!r:.80}")
    return [{"role": "system", "content": said[name]}]


def _tools(said: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """What may be called, as OpenAI writes it."""
    tools = said.get("tools") or said.get("functions") or []
    found = []
    for tool in tools if isinstance(tools, list) else [tools]:
        inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise BadRowError(
                where, "with tools without a name", f"tools must be a list of functions; one is {tool!r:.80}"
            )
        found.append({"type": "function", "function": dict(inner)})
    whole(json.dumps(found, ensure_ascii=False, default=str), where)
    return found
