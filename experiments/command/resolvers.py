"""The few functions that the configs may call, as `${name:arguments}`."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf


def register_resolvers() -> None:
    """`claimed`: a folder of one's own. `without`: a default, the last, that gives way where another option is given.
    `if`: the second where the first is given and not 0, else the third. `named`: whether the first language that is
    given has a path, and not sizes alone. `unless_sweep`: a default that the runs of a sweep do not have. `largest` of
    a list. `among`: those of a default list that another list has, too. `run_name`: experiment, task, selector.
    `sweep_name`: the sweep of a run."""
    resolvers: dict[str, Callable[..., Any]] = {
        "without": _without,
        "unless_sweep": _unless_sweep,
        "largest": max,
        "among": _among,
        "if": _if,
        "named": _named,
        "run_name": _run_name,
        "sweep_name": _sweep_name,
    }
    OmegaConf.register_new_resolver("claimed", _claimed, replace=True, use_cache=True)  # one for a command, as `now`
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def _claimed(folder: str) -> str:
    """A new folder: of this name, or with _2, _3, ... where runs that started in the same second have it."""
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        name = folder if number == 1 else f"{folder}_{number}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(name)
            break
    return name


def _without(*given_and_default: Any) -> Any:
    *given, default = given_and_default
    return default if all(option is None for option in given) else None


def _if(given: Any, then: Any, otherwise: Any) -> Any:
    return then if given else otherwise


def _named(*languages: Any) -> bool:
    first = next((language for language in languages if language is not None), None)
    return (first.get("path") if isinstance(first, Mapping) else first) is not None


def _unless_sweep(default: Any, *, _root_: DictConfig) -> Any:
    return [] if _sweeps(_hydra(_root_)) else default


def _among(default: Sequence[Any], given: Sequence[Any]) -> list[Any]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        return list(default)  # whose option it is says what it must be
    return [item for item in default if item in given]


def _run_name(*, _root_: DictConfig) -> str:
    hydra = _hydra(_root_)
    choices = hydra.runtime.choices
    experiment = choices["experiment"]
    return f"{experiment}/sweep" if _sweeps(hydra) else f"{experiment}/{choices['task']}/{choices['selector']}"


def _sweep_name(*, _root_: DictConfig) -> str | None:
    hydra = _hydra(_root_)
    return Path(hydra.sweep.dir).name if _sweeps(hydra) else None


def _sweeps(hydra: HydraConf) -> bool:
    return hydra.mode == RunMode.MULTIRUN


def _hydra(root: DictConfig) -> HydraConf:
    """Hydra's own part of the config: still in the tree before a job starts, and taken out of it then."""
    return root.hydra if "hydra" in root else HydraConfig.get()
