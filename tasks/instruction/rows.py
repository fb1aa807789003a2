"""Conversations: read from jsonl files or from the hub, checked, and named so that an error says where it is.

A row is one JSON object: {"messages": [{"role", "content"}, ...]} as LESS, trl and axolotl write it,
{"prompt", "completion"}, or what much of the hub has: {"conversations": [{"from", "value"}, ...]} (ShareGPT) and
{"instruction", "input", "output"} (Alpaca; Dolly says `context` and `response`). `id`, `dataset` and `subtask` are used
where they are there; everything else is kept as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tarot import InputError

ROLES = ("system", "user", "assistant")
HUB = "hub:"
_SPEAKERS = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_ON_HUB = re.compile(r"hub:(?P<name>[^@:]+)(@(?P<subset>[^:]+))?(:(?P<split>.+))?")
Message = tuple[str, str]  # role, content


@dataclass(frozen=True, eq=False)
class Row:
    """One conversation.

    id: unique among the rows of a split. messages: in their order; a prompt/completion row has the two roles "prompt"
    and "completion", and no template is put around them. dataset: where it comes from. tag: what it is, for diagnosis.
    raw: the object as it was read. group: its subtask, where it has one.
    prefill: how the last answer begins; given to the model, not learned. open: the last answer has no end token, as in
    LESS's targets. options: what could stand after the prefill, of which one is right (multiple choice).
    answer: what an exact match is measured against; None: the last message. where: file and line.
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

    @property
    def plain(self) -> bool:
        """Whether it is a prompt and its completion, without roles."""
        return self.messages[0][0] == "prompt"

    @property
    def expected(self) -> str:
        """The answer that an exact match is measured against."""
        return self.messages[-1][1].strip().removeprefix(self.prefill).strip() if self.answer is None else self.answer


def read_rows(
    paths: str | Path | Sequence[str | Path] | Mapping[str, str | Path], *, prefix: bool = False
) -> list[Row]:
    """The rows of jsonl files and of datasets on the hub, in their order.

    paths: one, several, or a mapping of datasets' names to where they are: a jsonl file, or a dataset of the hub as
    `hub_rows` takes it. A row's dataset is the name in the mapping, else its own field `dataset`, else the file's name
    without `_data.jsonl` or the last part of the hub's. Its id is its field `id`, else dataset:line, on the hub
    dataset:index. prefix: put the dataset before every id, for datasets that use the same ones.

    Raises InputError, with file:line, for what is no JSON object, a row that `row_of` refuses, an id that was there
    before, and files that are missing, empty, or not UTF-8.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    named = paths.items() if isinstance(paths, Mapping) else [(None, path) for path in paths]
    rows: list[Row] = []
    for name, path in named:
        found = hub_rows(str(path), name) if str(path).startswith(HUB) else file_rows(Path(path), name)
        rows += [replace(row, id=f"{row.dataset}/{row.id}") if prefix else row for row in found]
    check_ids(rows)
    return rows


def file_rows(path: Path, name: str | None = None) -> list[Row]:
    """The rows of a jsonl file. name: of the dataset."""
    rows = []
    for line, raw in _objects(path):
        dataset = name or str(raw.get("dataset") or path.stem.removesuffix("_data"))
        rows.append(row_of(raw, f"{path}:{line}", dataset=dataset, default_id=f"{dataset}:{line}"))
    return rows


def hub_rows(place: str, name: str | None = None) -> list[Row]:
    """The rows of a dataset on the hub, or in a local folder, by the library `datasets`.

    place: "hub:NAME[@SUBSET][:SPLIT]"; without a split, that of training. name: of the dataset.
    Raises InputError where the library is missing, it cannot load the dataset, or `row_of` refuses a row.
    """
    parts = _ON_HUB.fullmatch(place)
    if parts is None:
        raise InputError(f"{place!r} must be hub:NAME, hub:NAME:SPLIT or hub:NAME@SUBSET:SPLIT")
    source, split = parts["name"], parts["split"] or "train"
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"{place} is read by the library datasets: pip install datasets, or give jsonl files"
        ) from error
    try:
        loaded = datasets.load_dataset(source, parts["subset"], split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"{place} (split {split}) cannot be loaded: {error}") from error
    rows = []
    for index, columns in enumerate(loaded):
        raw = {key: value for key, value in columns.items() if value is not None}  # of other rows' columns
        dataset = name or str(raw.get("dataset") or source.rstrip("/").rsplit("/", 1)[-1])
        rows.append(row_of(raw, f"{place}[{index}]", dataset=dataset, default_id=f"{dataset}:{index}"))
    if not rows:
        raise InputError(f"{place} (split {split}) has no rows")
    return rows


def row_of(raw: Mapping[str, Any], where: str, *, dataset: str, default_id: str) -> Row:
    """What an object says. Raises InputError, with `where`, if it is no conversation that a model could learn from."""
    identity = raw.get("id", default_id)
    if not isinstance(identity, str | int) or isinstance(identity, bool) or identity == "":
        raise InputError(f"{where}: id must be a string or a whole number; it is {identity!r}")
    messages = _messages(raw, where)
    subtask = raw.get("subtask")
    if subtask is not None and not isinstance(subtask, str | int):
        raise InputError(f"{where}: subtask must be a string; it is {subtask!r}")
    group = "" if subtask is None else str(subtask)
    return Row(str(identity), messages, dataset, dataset, raw, group=group, where=where)


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


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object); blank lines are skipped. Only \\n ends a line: U+2028 may stand inside of one."""
    if not path.is_file():
        raise InputError(f"{path} is not there; give a jsonl file with one JSON object per line")
    empty = True
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            empty = False
            try:
                raw = json.loads(line)
            except UnicodeDecodeError as error:
                raise InputError(f"{path}:{number} is not UTF-8: {error}") from error
            except json.JSONDecodeError as error:
                raise InputError(f"{path}:{number} is not JSON: {error}") from error
            if not isinstance(raw, dict):
                raise InputError(f"{path}:{number} must be a JSON object; it is {type(raw).__name__}")
            yield number, raw
    if empty:
        raise InputError(f"{path} is empty: it has no rows")


def _messages(raw: Mapping[str, Any], where: str) -> tuple[Message, ...]:
    if raw.get("messages") is not None:
        return _turns(raw["messages"], where)
    if raw.get("conversations") is not None:
        return _turns(_from_sharegpt(raw["conversations"], where), where)
    if raw.get("instruction") is not None:
        return _turns(_from_alpaca(raw, where), where)
    missing = [key for key in ("prompt", "completion") if not isinstance(raw.get(key), str)]
    if missing:
        raise InputError(
            f"{where}: a row has `messages`, `prompt` and `completion` (text), `conversations`, or `instruction` and "
            f"`output`; this one has {', '.join(sorted(raw)) or 'nothing'}"
        )
    if not raw["completion"].strip():
        raise InputError(f"{where}: the completion is empty, so there is nothing to learn")
    return tuple((key, _unicode(raw[key], where)) for key in ("prompt", "completion"))


def _from_sharegpt(turns: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise InputError(f"{where}: conversations must be a list of objects with from and value")
    return [{"role": _SPEAKERS.get(turn.get("from"), turn.get("from")), "content": turn.get("value")} for turn in turns]


def _from_alpaca(raw: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """An input, where there is one, follows the instruction after an empty line."""
    given = raw.get("input") or raw.get("context") or ""
    answer = raw["output"] if raw.get("output") is not None else raw.get("response")
    for name, text in (("instruction", raw["instruction"]), ("input", given), ("output", answer)):
        if not isinstance(text, str):
            raise InputError(f"{where}: {name} must be text; it is {text!r:.80}")
    asked = f"{raw['instruction']}\n\n{given}" if given.strip() else raw["instruction"]
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def _turns(messages: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(messages, list) or not messages:
        raise InputError(f"{where}: messages must be a list with at least one message; it is {messages!r:.80}")
    turns = []
    for place, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
            raise InputError(f"{where}: message {place} must be an object with role and content (text)")
        if message.get("role") not in ROLES:
            raise InputError(f"{where}: message {place} has the role {message.get('role')!r}; roles are {ROLES}")
        turns.append((message["role"], _unicode(message["content"], where)))
    answers = [content for role, content in turns if role == "assistant"]
    if not answers:
        raise InputError(f"{where}: no message is the assistant's, so there is nothing to learn")
    if not any(content.strip() for content in answers):
        raise InputError(f"{where}: all answers of the assistant are empty, so there is nothing to learn")
    return tuple(turns)


def _unicode(text: str, where: str) -> str:
    """JSON may spell half of a character (\\ud83d), which no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: the text holds {text[error.start]!r}, half of a character; take it out") from error
    return text
