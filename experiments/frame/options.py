"""What every run is asked for is checked before anything is built of it. Tasks, features, selectors and experiments
check their own options as they are built, which is before any work, too."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

import hydra

from tarot import InputError
from tarot.common import check_options, resolve_device, within

_NAME = re.compile(r"\w[\w.-]*")  # one part of a path, and none that leads elsewhere
_CONVERSIONS = ("none", "partial", "object", "all")


@dataclass(frozen=True)
class Settings:
    """The options at the top of the config."""

    seed: Annotated[int, within("[0, 2147483647]")]  # what every library's generators take
    device: str
    deterministic: bool
    data_dir: str
    cache_dir: str
    output_dir: str

    def __post_init__(self) -> None:
        check_options(self)
        for name in ("data_dir", "cache_dir", "output_dir"):
            folder = getattr(self, name)
            if not folder.strip() or "\0" in folder:
                raise InputError(f"{name} must be the path of a folder; it is {folder!r}")
        resolve_device(self.device)


def check_config(config: Mapping[str, Any]) -> None:
    """Raises InputError, with the option's name and value, unless the settings are what they must be, every `_target_`
    names something that can be called, and the task's name can stand in the name of a file.

    config: the whole of it as plain data, resolved.
    """
    settings: dict[str, Any] = {field.name: config.get(field.name) for field in fields(Settings)}
    Settings(**settings)
    for group in ("task", "features", "selector", "experiment", "logger", "engine"):
        if not isinstance(config.get(group), Mapping):
            raise InputError(f"{group} must be a group of options, such as {group}=NAME; it is {config.get(group)!r}")
        if "_target_" not in config[group]:
            raise InputError(f"{group}._target_ must name a class; there is none")
    name = config["task"].get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"task.name must be a word of letters, digits, - and _, which names files in the cache; it is {name!r}"
        )
    for where, key, value in _special(config):
        if key == "_target_" and not _callable(value):
            raise InputError(f"{where} must name a class, such as tasks.classification.Digits; it is {value!r}")
        if key == "_convert_" and value not in _CONVERSIONS:
            raise InputError(f"{where} must be one of {', '.join(_CONVERSIONS)}; it is {value!r}")


def _special(node: Any, where: str = "") -> Iterator[tuple[str, str, Any]]:
    """(name, last part of it, value) of all that Hydra reads."""
    items: Any = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        name = f"{where}.{key}" if where else str(key)
        if key in ("_target_", "_convert_"):
            yield name, key, value
        yield from _special(value, name)


def _callable(path: Any) -> bool:
    return isinstance(path, str) and _is_callable(path)


@functools.cache
def _is_callable(path: str) -> bool:
    """Whether a dotted path leads to something that can be called."""
    if not re.fullmatch(r"\w+(\.\w+)+", path):
        return False
    try:
        return callable(hydra.utils.get_object(path))
    except Exception:  # whatever a module that was named by mistake does when it is imported
        return False
