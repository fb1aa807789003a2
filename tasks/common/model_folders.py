"""Folders of models that somebody else made: what is in them is data of their own, or they are refused before any of it
is loaded. What else a library would do for them, it is told not to (`trust_remote_code`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tarot import InputError
from tarot.common import files_below, is_name, read_json

MOST_LAYERS = 10_000
"""That a config.json may speak of. Each is made, if without values, before anything of the weights is known."""


def refuse_odd_files(folder: str | Path) -> None:
    """Raises InputError where a model's folder, or that of the model which its adapters name, holds

    - a pipe or a device, which would be waited for;
    - a list of its weights' files that names one elsewhere, of which nothing here would know that it changed;
    - a config.json by which transformers would fetch code from the hub and run it, or make layers without end.
    """
    left, seen = [Path(folder)], set[Path]()
    while left:
        place = left.pop()
        if place.resolve() in seen or not place.is_dir():
            continue
        seen.add(place.resolve())
        for file in files_below(place):
            if file.exists() and not file.is_file():
                raise InputError(f"{file} is no file but a pipe or a device; a model's folder has files alone")
            if file.name.endswith(".index.json"):
                _refuse_weights_elsewhere(file)
            elif file.name == "config.json":
                _refuse_asking(file)
        base = base_of(place)
        left += [] if base is None else [Path(base)]


def base_of(folder: Path) -> str | None:
    """The model that a folder's adapters say they belong to."""
    try:
        found = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    except (InputError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def _refuse_weights_elsewhere(listed: Path) -> None:
    content = read_json(listed)
    names = content.get("weight_map") if isinstance(content, dict) else None
    for name in names.values() if isinstance(names, dict) else [None]:
        if not is_name(name):
            raise InputError(f"{listed} does not say which files of its folder hold the weights: {name!r:.100}")


def _refuse_asking(config: Path) -> None:
    for key, value in _fields(read_json(config)):
        if "_implementation" in key and any("/" in name for name in _texts(value)):
            raise InputError(f"{config} asks for {key} {value!r:.100}, which is code on the hub; it was not fetched")
        if "layers" in key and isinstance(value, int) and value > MOST_LAYERS:
            raise InputError(f"{config} has {value:,} {key}, more than {MOST_LAYERS:,}")


def _fields(content: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value in it, however deep."""
    left = [content]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            yield from node.items()
        left += node.values() if isinstance(node, dict) else node if isinstance(node, list) else []


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [text for _, text in _fields(value) if isinstance(text, str)]
