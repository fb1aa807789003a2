"""Selected rows as TRL, LLaMA-Factory and axolotl take them, and the piece of configuration that loads each.

A trainer learns of a row what selection looked at. axolotl can be told which answers are learned. TRL and LLaMA-Factory
cannot: where some answers are given and not learned, each that is learned becomes a row of its own behind all that
comes before it (TRL's prompt and completion; LLaMA-Factory's `mask_history`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tasks.instruction.reading import Row

Format = Literal["trl", "llamafactory", "axolotl"]
_ROLES = {"prompt": "user", "completion": "assistant"}
_SPEAKERS = {"user": "human", "assistant": "gpt", "tool": "observation", "system": "system"}
_AXOLOTL_PLAIN = """type:
      field_instruction: prompt
      field_output: completion
      format: "{instruction}"
      no_input_format: "{instruction}"
"""
_AXOLOTL = """type: chat_template
    field_messages: messages
    message_field_training: training
    roles_to_train: ["assistant"]
    train_on_eos: turn
# eot_tokens: ["..."]  what ends a turn, where the template ends it by another token than the tokenizer's eos_token
"""
log = logging.getLogger("tarot")


@dataclass(frozen=True)
class Snippet:
    """A piece of a trainer's configuration. name: of the file to put it in."""

    name: str
    text: str


def for_trainer(rows: Sequence[Row], kind: Format) -> Iterator[dict[str, Any]]:
    """The rows as a trainer takes them, all with the same columns."""
    if kind == "axolotl":
        return _axolotl(rows)
    return _trl(rows) if kind == "trl" else _llamafactory(rows)


def snippets_of(rows: Sequence[Row], kind: Format, name: str) -> list[Snippet]:
    """What loads the file `name` of these rows."""
    if kind == "axolotl":
        kind_of = _AXOLOTL_PLAIN if _all_plain(rows) else _AXOLOTL
        text = f"datasets:\n  - path: {name}\n    ds_type: json\n    {kind_of}train_on_inputs: false\n"
        return [Snippet("selected.axolotl.yaml", text)]
    if kind == "llamafactory":
        arguments = f"dataset_dir: .\ndataset: selected\nmask_history: {str(_by_answer(rows)).lower()}\n"
        return [
            Snippet("dataset_info.json", json.dumps({"selected": _entry(name)}, indent=2) + "\n"),
            Snippet("selected.llamafactory.yaml", arguments),
        ]
    learned = "completion_only_loss=True" if _by_completion(rows) else "assistant_only_loss=True"
    text = (
        "from datasets import load_dataset\n"
        "from trl import SFTConfig, SFTTrainer\n\n"
        f'dataset = load_dataset("json", data_files="{name}", split="train")\n'
        f'trainer = SFTTrainer("MODEL", args=SFTConfig({learned}), train_dataset=dataset)\n'
    )
    return [Snippet("selected.trl.py", text)]


# --- which form ------------------------------------------------------------------------------------------------------


def _all_plain(rows: Sequence[Row]) -> bool:
    return all(row.plain for row in rows)


def _by_answer(rows: Sequence[Row]) -> bool:
    """Whether some answer is not learned, so that each that is becomes a row of its own."""
    return any(row.masked for row in rows)


def _by_completion(rows: Sequence[Row]) -> bool:
    return _all_plain(rows) or _by_answer(rows)


def _messages(row: Row) -> list[dict[str, Any]]:
    return [
        {"role": _ROLES.get(role, role), "content": content, **row.more.get(place, {})}
        for place, (role, content) in enumerate(row.messages)
        if content or role != "prompt"
    ]


def _ends(row: Row, by_answer: bool) -> list[int]:
    """Behind which messages a row ends: each answer that is learned, or the last of them."""
    kept = sum(1 for role, content in row.messages if content or role != "prompt") - len(row.messages)
    ends = [place + 1 + kept for place in row.learned]
    return ends if by_answer else ends[-1:]


def _columns(rows: Sequence[Row], row: Row) -> dict[str, Any]:
    """Tools, in all rows where some has them."""
    return {"tools": [dict(tool) for tool in row.tools]} if any(one.tools for one in rows) else {}


# --- the forms -------------------------------------------------------------------------------------------------------


def _trl(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    if _all_plain(rows):
        for row in rows:
            (_, prompt), (_, completion) = row.messages
            yield {"prompt": prompt, "completion": completion}
        return
    for row in rows:
        messages = _messages(row)
        if not _by_answer(rows):
            yield {"messages": messages, **_columns(rows, row)}
            continue
        for end in _ends(row, by_answer=True):
            before = messages[: end - 1] or [{"role": "user", "content": ""}]  # it wants something to be said before
            yield {"prompt": before, "completion": messages[end - 1 : end], **_columns(rows, row)}


def _llamafactory(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Its calls are turns of their own, what several tools say is one; a conversation ends with an answer; tools are
    JSON in a text. Rows that it has no form for are left out, and the log says how many."""
    lost = 0
    for row in rows:
        messages = _messages(row)
        for end in _ends(row, _by_answer(rows)):
            turns = _factory_turns(messages[:end])
            if turns is None:
                lost += 1
                continue
            tools = [tool["function"] for tool in row.tools]
            yield {"conversations": turns, "tools": json.dumps(tools, ensure_ascii=False) if tools else ""}
    if lost:
        log.warning(
            "warning: %d selected rows are not written for LLaMA-Factory, which wants questions and answers in turn, "
            "and nothing said beside a call; selected.messages.jsonl has them",
            lost,
        )


def _factory_turns(messages: Sequence[dict[str, Any]]) -> list[dict[str, str]] | None:
    """None where they do not come as it wants them."""
    turns: list[dict[str, str]] = []
    for message in messages:
        speaker, value = _SPEAKERS[message["role"]], message["content"]
        if "tool_calls" in message:
            if value.strip() or "reasoning_content" in message:
                return None
            calls = [call["function"] for call in message["tool_calls"]]
            speaker = "function_call"
            value = json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False, default=str)
        elif "reasoning_content" in message:
            value = f"<think>\n{message['reasoning_content']}\n</think>\n\n{value}"
        if speaker == "observation" and turns and turns[-1]["from"] == speaker:
            value = f"{turns.pop()['value']}\n</tool_response>\n<tool_response>\n{value}"  # as it joins them itself
        turns.append({"from": speaker, "value": value})
    talk = turns[1:] if turns[0]["from"] == "system" else turns
    asks = [turn["from"] in ("human", "observation") for turn in talk]  # a later system's turn is out of turn, too
    return turns if asks == [place % 2 == 0 for place in range(len(asks))] else None


def _entry(name: str) -> dict[str, Any]:
    """Of dataset_info.json."""
    return {
        "file_name": name,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "tools": "tools"},
        "tags": {
            "role_tag": "from",
            "content_tag": "value",
            "user_tag": "human",
            "assistant_tag": "gpt",
            "observation_tag": "observation",
            "function_tag": "function_call",
            "system_tag": "system",
        },
    }


def _axolotl(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    for row in rows:
        if _all_plain(rows):
            (_, prompt), (_, completion) = row.messages
            yield {"prompt": prompt, "completion": completion}
            continue
        shift = len(row.messages) - len(_messages(row))
        learned = {place - shift for place in row.learned}
        messages = [{**message, "training": place in learned} for place, message in enumerate(_messages(row))]
        yield {"messages": messages, **_columns(rows, row)}
