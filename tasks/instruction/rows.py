"""Conversations: read from jsonl files or from the hub, checked, and named so that an error says where it is.

A row is one JSON object: {"messages": [{"role", "content"}, ...]} as LESS, trl and axolotl write it,
{"prompt", "completion"}, or what much of the hub has: {"conversations": [{"from", "value"}, ...]} (ShareGPT) and
{"instruction", "input", "output"} (Alpaca; Dolly says `context` and `response`). `id`, `dataset` and `subtask` are used
where they are there; everything else is kept as it is.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tarot import InputError
from tarot.common import files_below
from tasks.common.contents import hash_named

ROLES = ("system", "user", "assistant")
HUB = "hub:"
_SPEAKERS = {
    "system": "system",
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "model", "assistant"), "assistant"),
}
log = logging.getLogger("tarot")
_ON_HUB = re.compile(r"hub:(?P<name>[^@:]+)(@(?P<subset>[^:]+))?(:(?P<split>[^/]+))?")
Message = tuple[str, str]  # role, content


class NothingToLearnError(InputError):
    """A conversation without an answer."""


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
    def answers(self) -> int:
        """How many of the messages are learned."""
        return sum(role in ("assistant", "completion") for role, _ in self.messages)

    @property
    def expected(self) -> str:
        """The answer that an exact match is measured against: the last one, whatever is said after it."""
        if self.answer is not None:
            return self.answer
        last = next(content for role, content in reversed(self.messages) if role in ("assistant", "completion"))
        return last.strip().removeprefix(self.prefill).strip()


def read_rows(
    paths: str | Path | Sequence[str | Path] | Mapping[str, str | Path], *, prefix: bool = False
) -> list[Row]:
    """The rows of jsonl files and of datasets on the hub, in their order.

    paths: one, several, or a mapping of datasets' names to where they are: a jsonl file, or a dataset of the hub as
    `hub_rows` takes it. A row's dataset is the name in the mapping, else its own field `dataset`, else the file's name
    without `_data.jsonl` (behind its folder's, where two files have one name), or the last part of the hub's. Its id is
    its field `id`, else dataset:line, on the hub dataset:index. prefix: put the dataset before every id, which is done
    anyway where ids of several datasets are the same.

    Raises InputError, with file:line, for what is no JSON object, a row that `row_of` refuses, an id that its dataset
    has twice, and files that are missing, empty, or not UTF-8.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    named = list(paths.items() if isinstance(paths, Mapping) else [(None, path) for path in paths])
    stems = Counter(_stem(Path(path)) for name, path in named if name is None)
    rows: list[Row] = []
    for name, path in named:
        if str(path).startswith(HUB):
            rows += hub_rows(str(path), name)
            continue
        stem = _stem(path := Path(path))
        rows += file_rows(path, name, default=f"{path.absolute().parent.name}/{stem}" if stems[stem] > 1 else stem)
    if prefix or (len({row.id for row in rows}) < len(rows) and len({row.dataset for row in rows}) > 1):
        rows = [replace(row, id=f"{row.dataset}/{row.id}") for row in rows]
    check_ids(rows)
    return rows


def _stem(path: Path) -> str:
    return path.stem.removesuffix("_data")


def file_rows(path: Path, name: str | None, *, default: str) -> list[Row]:
    """The rows of a jsonl file. name: of the dataset; None: what each row says, or `default`."""
    rows = []
    for line, raw in _objects(path):
        dataset = name or str(raw.get("dataset") or default)
        rows.append(row_of(raw, f"{path}:{line}", dataset=dataset, default_id=f"{dataset}:{line}"))
    return rows


def hub_rows(place: str, name: str | None = None) -> list[Row]:
    """The rows of a dataset on the hub, or in a local folder, by the library `datasets`.

    place: "hub:NAME[@SUBSET][:SPLIT]"; without a split, that of training. name: of the dataset; without one it is the
    last part of the place. What is there cannot be put right, so that rows without an answer are left out, with a
    warning, and rows are named by their index where some have no id or one that another has.

    Raises InputError where the library is missing, it cannot load the dataset, or `row_of` refuses a row for another
    reason.
    """
    source, subset, split = _on_hub(place)
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"{place} is read by the library datasets: pip install datasets, or give jsonl files"
        ) from error
    try:
        loaded = datasets.load_dataset(source, subset, split=split, cache_dir=_kept_in(source))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"{place} (split {split}) cannot be loaded: {error}") from error
    raws = [{key: value for key, value in columns.items() if value is not None} for columns in loaded]
    ids = [raw.get("id") for raw in raws]
    by_index = any(one in (None, "") for one in ids) or len({str(one) for one in ids}) < len(ids)
    rows, unanswered = [], 0
    for index, raw in enumerate(raws):
        dataset = name or str(raw.get("dataset") or place.removeprefix(HUB).rstrip("/").rsplit("/", 1)[-1])
        try:
            known = {key: value for key, value in raw.items() if not (by_index and key == "id")}
            row = row_of(known, f"{place}[{index}]", dataset=dataset, default_id=f"{dataset}:{index}")
        except NothingToLearnError:
            unanswered += 1
            continue
        rows.append(replace(row, raw=raw))
    if unanswered:
        log.warning("%d of %d rows of %s have no answer and are left out", unanswered, len(raws), place)
    if not rows:
        raise InputError(f"{place} (split {split}) has no rows to learn from")
    return rows


def _kept_in(source: str) -> str | None:
    """Where the library keeps what it makes of a local folder: by what is in its files, of which it knows no more than
    when they were changed. None for what is on the hub."""
    if not Path(source).is_dir():
        return None
    import datasets

    ours = Path(datasets.config.HF_DATASETS_CACHE) / "tarot"
    inside = [path for path in files_below(source) if path.is_file()]
    return str(ours / hash_named({path.relative_to(source).as_posix(): path for path in inside}, ours)[:16])


def _on_hub(place: str) -> tuple[str, str | None, str]:
    """Name or folder, subset and split."""
    whole = place.removeprefix(HUB)
    if whole and Path(whole).is_dir():  # whatever signs its path has
        return whole, None, "train"
    parts = _ON_HUB.fullmatch(place)
    if parts is None:
        raise InputError(f"{place!r} must be hub:NAME, hub:NAME:SPLIT or hub:NAME@SUBSET:SPLIT")
    return parts["name"], parts["subset"], parts["split"] or "train"


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
            except (json.JSONDecodeError, RecursionError) as error:  # brackets within brackets
                raise InputError(f"{path}:{number} is not JSON: {error}") from error
            if not isinstance(raw, dict):
                raise InputError(f"{path}:{number} must be a JSON object; it is {type(raw).__name__}")
            yield number, raw
    if empty:
        raise InputError(f"{path} is empty: it has no rows")


def _messages(raw: Mapping[str, Any], where: str) -> tuple[Message, ...]:
    if raw.get("messages") is not None:
        return _turns(raw["messages"], where)
    if all(isinstance(raw.get(key), str) for key in ("prompt", "completion")):
        if not raw["completion"].strip():
            raise NothingToLearnError(f"{where}: the completion is empty, so there is nothing to learn")
        return tuple((key, _unicode(raw[key], where)) for key in ("prompt", "completion"))
    if raw.get("conversations") is not None:
        return _turns(_from_sharegpt(raw, where), where)
    if raw.get("instruction") is not None:
        return _turns(_from_alpaca(raw, where), where)
    raise InputError(
        f"{where}: a row has `messages`, `prompt` and `completion` (text), `conversations`, or `instruction` and "
        f"`output`; this one has {', '.join(sorted(raw)) or 'nothing'}"
    )


def _from_sharegpt(raw: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    turns = raw["conversations"]
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise InputError(f"{where}: conversations must be a list of objects with from and value, or role and content")
    found = []
    for turn in turns:
        speaker, content = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        found.append({"role": _SPEAKERS.get(str(speaker).lower(), speaker), "content": content})
    return _system(raw) + found


def _from_alpaca(raw: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """An input, where there is one, follows the instruction after an empty line. history: pairs that come before."""
    given = next((raw[key] for key in ("input", "context") if raw.get(key) is not None), "")
    answer = next((raw[key] for key in ("output", "response") if raw.get(key) is not None), None)
    for name, text in (("instruction", raw["instruction"]), ("input", given), ("output", answer)):
        if not isinstance(text, str):
            raise InputError(f"{where}: {name} must be text; it is {text!r:.80}")
    history = raw.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise InputError(f"{where}: history must be a list of [question, answer]; it is {history!r:.80}")
    asked = f"{raw['instruction']}\n\n{given}" if given.strip() else raw["instruction"]
    pairs = [*history, (asked, answer)]
    roles = ("user", "assistant")
    return _system(raw) + [
        {"role": role, "content": text} for pair in pairs for role, text in zip(roles, pair, strict=True)
    ]


def _system(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "system", "content": raw["system"]}] if raw.get("system") else []


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
        raise NothingToLearnError(f"{where}: no message is the assistant's, so there is nothing to learn")
    if not any(content.strip() for content in answers):
        raise NothingToLearnError(f"{where}: all answers of the assistant are empty, so there is nothing to learn")
    return tuple(turns)


def _unicode(text: str, where: str) -> str:
    """JSON may spell half of a character (\\ud83d), which no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: the text holds {text[error.start]!r}, half of a character; take it out") from error
    return text
