"""What every run is asked for is checked before anything is built of it. Tasks, features, selectors and experiments
check their own options as they are built, which is before any work, too."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any

import hydra

from experiments.stages import FeatureRecipe
from tarot import InputError
from tarot.common import check_options, resolve_device, within
from tasks.task import TaskData

_NAME = re.compile(r"\w[\w.-]{0,99}")  # one part of a path, and none that leads elsewhere
_CONVERSIONS = ("none", "partial", "object", "all")
_FOLDERS = ("data_dir", "cache_dir", "output_dir")
_CALLS = ("_partial_", "_args_", "_recursive_")
"""How Hydra calls what a config names, which is said nowhere here: what is made would be of no use."""


@dataclass(frozen=True)
class _Kind:
    """What the class of a group of options is. such: an example. fits: whether a class is one."""

    such: str
    fits: Callable[[type], bool]


def _has(*names: str) -> Callable[[type], bool]:
    return lambda kind: is_dataclass(kind) and all(hasattr(kind, name) for name in names)


_KINDS = {
    "task": _Kind("tasks.classification.Digits", lambda kind: issubclass(kind, TaskData)),
    "features": _Kind("experiments.stages.FeatureRecipe", lambda kind: issubclass(kind, FeatureRecipe)),
    "selector": _Kind("tarot.selectors.TarotFixed", _has("select", "features", "whitening", "reference")),
    "experiment": _Kind("experiments.selection.SelectionExperiment", _has("run", "task_type", "unused")),
    "logger": _Kind("experiments.frame.loggers.Files", _has("publish")),
    "engine": _Kind("tarot.workers.Local", _has("map", "shares", "close")),
}


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
        for name in _FOLDERS:
            _check_folder(name, getattr(self, name))
        resolve_device(self.device)


def check_config(config: Mapping[str, Any]) -> None:
    """Raises InputError, with the option's name and value, unless the settings are what they must be, every `_target_`
    names something that can be called, those of groups classes of their kind, and the task's name can stand in the name
    of a file.

    config: the whole of it as plain data, resolved.
    """
    settings: dict[str, Any] = {field.name: config.get(field.name) for field in fields(Settings)}
    Settings(**settings)
    for group in _KINDS:
        if not isinstance(config.get(group), Mapping):
            raise InputError(f"{group} must be a group of options, such as {group}=NAME; it is {config.get(group)!r}")
        if "_target_" not in config[group]:
            raise InputError(f"{group}._target_ must name a class; there is none")
    name = config["task"].get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            "task.name must be a word of letters, digits, - and _, of up to 100, which names files in the cache; "
            f"it is {name!r}"
        )
    for where, key, value in _special(config):
        if key == "_target_" and not _callable(value):
            raise InputError(f"{where} must name a class, such as tasks.classification.Digits; it is {value!r}")
        if key == "_convert_" and value not in _CONVERSIONS:
            raise InputError(f"{where} must be one of {', '.join(_CONVERSIONS)}; it is {value!r}")
        if key in _FOLDERS and isinstance(value, str):
            _check_folder(where, value)
        if key in _CALLS:
            raise InputError(f"{where} is no option; a class gets its own options, by name")
    for group, kind in _KINDS.items():
        target = config[group]["_target_"]
        if not _fits(target, kind):
            raise InputError(f"{group}._target_ must name a class of the kind of {kind.such}; it is {target!r}")


def _special(node: Any, where: str = "") -> Iterator[tuple[str, str, Any]]:
    """(name, last part of it, value) of all that Hydra reads, and of folders."""
    items: Any = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        name = f"{where}.{key}" if where else str(key)
        if key in ("_target_", "_convert_", *_CALLS, *_FOLDERS):
            yield name, key, value
        yield from _special(value, name)


def _check_folder(name: str, folder: str) -> None:
    if not folder.strip() or "\0" in folder:
        raise InputError(f"{name} must be the path of a folder; it is {folder!r}")


def _fits(path: str, kind: _Kind) -> bool:
    found = _found(path)
    return isinstance(found, type) and kind.fits(found)


def _callable(path: Any) -> bool:
    return isinstance(path, str) and callable(_found(path))


@functools.cache
def _found(path: str) -> Any:
    """What a dotted path leads to; None where it leads nowhere, or to a program, which would do its work."""
    if not re.fullmatch(r"\w+(\.\w+)+", path) or "__main__" in path:
        return None
    try:
        return hydra.utils.get_object(path)
    except (Exception, SystemExit):  # whatever a module that was named by mistake does when it is imported
        return None
