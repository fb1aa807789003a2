"""Every option of everything that a config can name is checked when the object is made, and refused by its name.

The cases are made of the annotations by a slow and obvious reading of them: new classes and new options are covered as
soon as a config names them.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from tarot import InputError
from tarot.common.options import Interval
from tests.experiments.command.test_configs import CONF, choices, composed

GROUPS = ("task", "features", "selector", "experiment", "logger")
OF_USERS = {"task=instruction/files": ("task.language.path=somewhere",)}  # without which it is refused as a whole
BARE = {"tarot.selectors.All", "tarot.selectors.TargetOnly", "experiments.frame.loggers.Files"}  # they have no option


@functools.cache
def choice_of() -> dict[str, str]:
    """The first choice, such as "task=digits", whose file names a class: by the class's path."""
    found: dict[str, str] = {}
    for group in GROUPS:
        for name in choices(group):
            for target in re.findall(r"_target_: ([\w.]+)", (CONF / group / f"{name}.yaml").read_text()):
                found.setdefault(target, f"{group}={name}")
    return found


@functools.cache
def nodes(choice: str) -> dict[str, dict[str, Any]]:
    """The options of every class that this choice's config names, as they stand there first: by the class's path."""
    config = composed(choice, *OF_USERS.get(choice, ()))
    own = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    found: dict[str, dict[str, Any]] = {}

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            if "_target_" in node:
                found.setdefault(node["_target_"], node)
            node = list(node.values())
        for item in node if isinstance(node, list) else []:
            collect(item)

    collect(OmegaConf.to_container(own, resolve=True))
    return found


def made(target: str) -> tuple[type, dict[str, Any]]:
    """The class, and its arguments from the config, what is nested already made."""
    kind = get_class(target)
    options = {key: value for key, value in nodes(choice_of()[target])[target].items() if not key.startswith("_")}
    if dataclasses.is_dataclass(kind):  # a selector's config gives a size to those that choose their own, too
        options = {field.name: options[field.name] for field in dataclasses.fields(kind) if field.name in options}
    return kind, instantiate(options, _convert_="all")


def annotations(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of a dataclass its fields; of another class what it takes, and what of the config its parents take."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}
    known: dict[str, Any] = {}
    for owner in kind.__mro__[:-1]:
        if "__init__" in vars(owner):
            function = inspect.unwrap(vars(owner)["__init__"])
            hints = typing.get_type_hints(function, include_extras=True)
            parameters = inspect.signature(function).parameters.values()
            named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and (owner is kind or p.name in given)]
            known = {name: hints[name] for name in named} | known
    return known


# --- values that an annotation does not allow ------------------------------------------------------------------------


def wrong(hint: Any) -> Iterator[Any]:
    """Nothing where the annotation has a part that is not checked."""
    kinds = [_stripped(kind) for kind in _alternatives(hint)]
    if not all(_is_checked(kind) for kind, _ in kinds):
        return
    origins = [typing.get_origin(kind) or kind for kind, _ in kinds]
    words = [word for kind, _ in kinds if typing.get_origin(kind) is Literal for word in typing.get_args(kind)]
    listed = [kind for kind, _ in kinds if typing.get_origin(kind) in (tuple, list, Sequence)]
    mapped = [kind for kind, _ in kinds if typing.get_origin(kind) in (dict, Mapping)]
    if type(None) not in origins:
        yield None
    if str not in origins:
        yield from ("no such word", "", "7", "1e-3")
    if bool not in origins and True not in words:
        yield True
    if not {int, float} & set(origins):
        yield from (7, 1.5)
    elif float not in origins:
        yield from (1.5, 2.0)
    else:
        yield from (math.nan, math.inf)
    for kind, interval in kinds:
        if kind in (int, float) and interval is not None:
            yield from _outside(interval, kind)
    if not listed:
        yield from ([], [1])
    if not mapped:
        yield from ({}, {"a": 1})
    for kind in listed:
        item, *others = typing.get_args(kind)
        rest = [_right(other) for other in others if other is not Ellipsis]
        yield from ([value, *rest] for value in wrong(item))
        if rest:
            yield [*rest]  # too few
    for kind in mapped:
        yield from ({"a": value} for value in wrong(typing.get_args(kind)[1]))
        yield {7: None}


def _alternatives(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (Union, types.UnionType):
        return tuple(kind for part in typing.get_args(hint) for kind in _alternatives(part))
    return (hint,)


def _stripped(kind: Any) -> tuple[Any, Interval | None]:
    if typing.get_origin(kind) is Annotated:
        return typing.get_args(kind)[0], next(n for n in kind.__metadata__ if isinstance(n, Interval))
    return kind, None


def _is_checked(kind: Any) -> bool:
    if typing.get_origin(kind) in (Literal, tuple, list, Sequence, dict, Mapping):
        return True
    return kind in (bool, int, float, str, Path, type(None)) or _is_a_part(kind)


def _is_a_part(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind) or inspect.isabstract(kind)


def _outside(interval: Interval, kind: type) -> Iterator[Any]:
    if interval.least > -math.inf:
        yield kind(interval.least) - 1
        if interval.without_least:
            yield kind(interval.least)
    if interval.most < math.inf:
        yield kind(interval.most) + 1
        if interval.without_most:
            yield kind(interval.most)


def _right(hint: Any) -> Any:
    kind, interval = _stripped(hint)
    return kind(1 if interval is None else interval.least)


# --- the tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", sorted(choice_of()))
def test_what_an_option_may_not_be_is_refused_by_its_name(target):
    kind, options = made(target)
    if dataclasses.is_dataclass(kind):
        kind(**options)  # as they are they are right
    cases, missed = 0, []
    for name, hint in annotations(kind, options).items():
        for value in wrong(hint):
            cases += 1
            try:
                kind(**{**options, name: value})
            except InputError as error:
                if not re.search(rf"\b{name}\b.* must be .*; it is ", str(error)) or "\n" in str(error):
                    missed.append(f"{name}={value!r}: {error}")
            except Exception as error:
                missed.append(f"{name}={value!r} ends in {type(error).__name__}: {error}")
            else:
                missed.append(f"{name}={value!r} is taken")
    assert not missed, "\n".join(missed)
    assert cases >= 7 or target in BARE


def test_every_option_is_checked():
    unchecked = [
        f"{target}: {name}"
        for target in choice_of()
        for name, hint in annotations(*made(target)).items()
        if not any(True for _ in wrong(hint))
    ]
    assert not unchecked and len(choice_of()) >= 70
