"""LLaMA-Factory's dataset_info.json: where its datasets are, and what their columns mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tarot import InputError
from tarot.common import check_fields, read_json
from tasks.instruction.reading.columns import Columns

NAME = "dataset_info.json"
_ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
_MEANINGS = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "messages": "messages",
    "system": "system",
    "history": "history",
    "tools": "tools",
    "kto_tag": "label",
}
_MEDIA = ("images", "videos", "audios")
_TAGS = {
    "user_tag": ("human", "user"),
    "assistant_tag": ("gpt", "assistant"),
    "observation_tag": ("observation", "tool"),
    "function_tag": ("function_call", "function_call"),
    "system_tag": ("system", "system"),
}
_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("file_name", "hf_hub_url", "split"), str),
    **dict.fromkeys(("subset", "formatting"), str | None),
    **dict.fromkeys(("columns", "tags"), Mapping[str, str | None] | None),
}
_OTHER_PLACES = ("ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_UNUSED = {"file_name", "hf_hub_url", "subset", "split", "folder", "formatting", "columns", "tags", "ranking"}


@dataclass(frozen=True)
class Listed:
    """A dataset of the list. place: a file, a folder, or hub:NAME@SUBSET:SPLIT."""

    name: str
    place: str
    columns: Columns


def listed_datasets(place: str) -> list[Listed] | None:
    """The datasets that "FOLDER/dataset_info.json:NAME,NAME" names; None for what is no such place. The name may be
    left out where there is one dataset.

    Raises InputError for a list that cannot be read, a name that it lacks, and what cannot be done as it says: pairs of
    preferences, samples that are drawn, places that nothing here reads.
    """
    file, _, names = place.partition(f"{NAME}:") if f"{NAME}:" in place else (place, "", "")
    path = Path(file + NAME) if names else Path(file)
    if path.name != NAME or not path.is_file():
        return None
    entries = _entries(path)
    if entries is None:
        return None
    asked = names.split(",") if names else list(entries)
    if not names and len(entries) != 1:
        raise InputError(f"{path} lists {len(entries)} datasets; say which: {path}:NAME, of {', '.join(entries)}")
    return [_listed(name, entries, path) for name in asked]


def _entries(path: Path) -> dict[str, Any] | None:
    """None where it is a file of the same name that `datasets` writes beside what it saves."""
    try:
        content = read_json(path)
    except InputError as error:
        raise InputError(f"{error}; mend the list, or give the files of its datasets themselves") from error
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        return None
    return content


def _listed(name: str, entries: Mapping[str, Any], path: Path) -> Listed:
    if name not in entries:
        raise InputError(f"{path} lists no dataset {name!r}, but {', '.join(entries)}")
    entry, where = entries[name], f"{path}: {name}"
    check_fields(where, entry, {key: wanted for key, wanted in _FIELDS.items() if key in entry})
    if entry.get("ranking"):
        raise InputError(
            f"{where} is of pairs of answers (ranking), for learning which is better; to learn the chosen ones, give "
            "its file itself with 'task.columns={prompt: ..., response: chosen}'"
        )
    if entry.get("num_samples"):
        raise InputError(f"{where} draws num_samples of its rows anew in every run; take it out")
    elsewhere = [key for key in _OTHER_PLACES if key in entry]
    if elsewhere and not {"file_name", "hf_hub_url"} & entry.keys():
        raise InputError(f"{where} is at {elsewhere[0]}, which is not read; give a file or hf_hub_url")
    unknown = sorted(set(entry) - _UNUSED - set(_OTHER_PLACES))
    if unknown:
        raise InputError(f"{where} says {', '.join(unknown)}, which is not known here; take it out")
    return Listed(name, _place(entry, path, where), _columns(entry, where))


def _place(entry: Mapping[str, Any], path: Path, where: str) -> str:
    if "file_name" in entry:
        return str(path.parent / str(entry["file_name"]))
    if "hf_hub_url" not in entry:
        raise InputError(f"{where} says neither file_name nor hf_hub_url")
    subset = f"@{entry['subset']}" if entry.get("subset") else ""
    return f"hub:{entry['hf_hub_url']}{subset}:{entry.get('split', 'train')}"


def _columns(entry: Mapping[str, Any], where: str) -> Columns:
    formatting, given = entry.get("formatting", "alpaca"), dict(entry.get("columns") or {})
    if formatting not in ("alpaca", "sharegpt", "openai"):
        raise InputError(f"{where}: formatting is alpaca, sharegpt or openai; it is {formatting!r}")
    for name in _MEDIA:
        if given.pop(name, None):
            raise InputError(f"{where} has {name}, which a model of text does not see")
    unknown = sorted(set(given) - set(_MEANINGS))
    if unknown:
        raise InputError(f"{where}: columns are {', '.join(_MEANINGS)}; it has {', '.join(unknown)}")
    default = _ALPACA if formatting == "alpaca" else {"messages": "conversations"}
    names = {_MEANINGS[name]: column for name, column in {**default, **given}.items() if column}
    if formatting == "alpaca":
        return Columns(names, joint="\n", kept=False)
    given_tags = dict(entry.get("tags") or {})
    usual = {"role_tag": "from", "content_tag": "value"} if formatting == "sharegpt" else {}
    tags = {**usual, **given_tags}
    speakers = {str(tags.get(tag, name)): role for tag, (name, role) in _TAGS.items() if usual or tag in given_tags}
    return Columns(names, "\n", speakers, str(tags.get("role_tag", "")), str(tags.get("content_tag", "")), kept=False)
