"""Options of selectors as text: `folds=5` becomes TarotOTM(folds=5), by the annotations of the dataclass."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union

from tarot.common import InputError, no_such
from tarot.selectors import SELECTORS, Selector, unknown_option


def selector_of(name: str, options: Sequence[str]) -> Selector:
    """The selector of that name with options given as `name=value`, the last one of a name counting.

    Raises InputError for a selector or an option that there is not, and for a value of another kind than the option's.
    """
    if name not in SELECTORS:
        raise InputError(no_such("selector", name, sorted(SELECTORS)))
    kind = SELECTORS[name]
    hints = typing.get_type_hints(kind)
    fields = {field.name: hints[field.name] for field in _options(kind)}
    given: dict[str, Any] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals:
            raise InputError(f"an option of a selector is NAME=VALUE; this is {option!r}")
        if key not in fields:
            raise InputError(unknown_option(name, kind, [key]))
        given[key] = parsed(text, fields[key], key)
    return kind(**given)


def parsed(text: str, hint: Any, name: str) -> Any:
    """`text` as a value of the annotation `hint`. Raises InputError saying what the option may be."""
    for kind in _alternatives(hint):
        try:
            return _of_kind(text, kind)
        except ValueError:
            continue
    raise InputError(f"{name} must be {_words(hint)}; it is {text!r}")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _of_kind(text: str, kind: Any) -> Any:
    """Raises ValueError where `text` is none of `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is type(None):
        return _one_of(text.lower(), {"none": None, "null": None})
    if kind is bool:
        return _one_of(text.lower(), {"true": True, "false": False})
    if kind in (int, float, str):
        return kind(text)
    if origin is Literal:
        return _one_of(text, {str(value): value for value in arguments})
    if origin is Mapping:
        pairs = [part.rpartition(":") for part in text.split(",")]
        found = {_of_kind(key, arguments[0]): _of_kind(value, arguments[1]) for key, colon, value in pairs if colon}
        if len(found) < len(pairs):  # a part that is no pair, or a name twice
            raise ValueError(text)
        return found
    if origin is tuple:
        return tuple(_of_kind(part, of) for part, of in zip(text.split(","), arguments, strict=True))
    raise TypeError(f"options of type {kind} are not read from text")


def _one_of(text: str, values: dict[str, Any]) -> Any:
    if text not in values:
        raise ValueError(text)
    return values[text]


def _words(hint: Any) -> str:
    """An annotation as a person says it."""
    words = {int: "an integer", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    parts = []
    for kind in _alternatives(hint):
        if typing.get_origin(kind) is Literal:
            parts += [str(value) for value in typing.get_args(kind)]
        elif typing.get_origin(kind) is tuple:
            parts.append(f"{len(typing.get_args(kind))} numbers with commas between them")
        elif typing.get_origin(kind) is Mapping:
            parts.append("NAME:NUMBER pairs with commas between them, each name once")
        else:
            parts.append(words[kind])
    *others, last = parts
    return f"{', '.join(others)} or {last}" if others else last


def option_lines() -> str:
    """Every selector with its options and their defaults, for --help."""
    lines = []
    for name, kind in sorted(SELECTORS.items()):
        options = " ".join(f"{field.name}={_shown(field)}" for field in _options(kind))
        lines.append(f"  {name:16}{options}".rstrip())
    return "\n".join(lines)


def _options(kind: type[Selector]) -> tuple[dataclasses.Field[Any], ...]:
    if not dataclasses.is_dataclass(kind):
        raise TypeError(f"{kind.__name__} is no dataclass, whose fields would be its options")
    return dataclasses.fields(kind)


def _shown(field: dataclasses.Field[Any]) -> str:
    default = field.default
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    if default is None:
        return "null"
    return str(default).lower() if isinstance(default, bool) else str(default)
