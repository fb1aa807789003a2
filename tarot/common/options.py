"""What an option may be is said once, by its annotation, and checked when the object that has it is made.

    @dataclass(frozen=True)
    class Training:
        steps: Count = 300  # Annotated[int, at_least(1)]
        dropout: Annotated[float, within("[0, 1)")] = 0.1
        optimizer: Literal["adamw", "sgd"] = "adamw"

        def __post_init__(self) -> None:
            check_options(self, "train")

`Training(steps=0)` is an InputError: train.steps must be at least 1; it is 0. Nothing is converted: a value that is
allowed stays what it was.

What is read: bool, int, float, str, Path, None, Literal, dataclasses, abstract classes, unions of these, tuples,
sequences and mappings of them, and a range in Annotated. Whatever else an annotation says (arrays, callables, Any,
protocols) is not checked.
An integer may stand for a float and a list for a tuple, as configurations bring them; a bool is no number; numbers are
finite, also in float32, which most of them end in, and integers smaller than 2^53, which floats and JSON hold exactly.
NumPy's scalars count as Python's.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import numpy as np

from tarot.common.errors import InputError

_LARGEST = 2**53
_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_NUMBERS: dict[Any, tuple[str, Any]] = {int: ("integer", numbers.Integral), float: ("number", numbers.Real)}
_CLASSES: dict[Any, tuple[Any, str]] = {
    bool: (bool | np.bool_, "true or false"),
    str: (str, "a string"),
    Path: (Path, "a path"),
    type(None): (type(None), "null"),
}
P = ParamSpec("P")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class Interval:
    """The numbers from `least` to `most`; without an end where it is excluded."""

    least: float = -math.inf
    most: float = math.inf
    without_least: bool = False
    without_most: bool = False

    def __contains__(self, number: Any) -> bool:
        low = number > self.least if self.without_least else number >= self.least
        high = number < self.most if self.without_most else number <= self.most
        return bool(low and high)

    def __str__(self) -> str:
        if self == Interval():
            return "finite"
        if self.most < math.inf:
            brackets = "(" if self.without_least else "[", ")" if self.without_most else "]"
            return f"in {brackets[0]}{_written(self.least)}, {_written(self.most)}{brackets[1]}"
        if self.without_least:
            return f"above {_written(self.least)}" if self.least else "positive"
        return f"at least {_written(self.least)}"

    def of(self, noun: str) -> str:
        """The noun that is allowed: an integer of at least 1, a positive number, a number in (0, 1]."""
        article = "an" if noun[0] in "aeiou" else "a"
        if self == Interval():
            return f"{article} {noun}"
        if str(self) == "positive":
            return f"a positive {noun}"
        return f"{article} {noun} {'of ' if str(self).startswith('at least') else ''}{self}"


def _written(number: float) -> str:
    """1048576 and no 1.04858e+06, which is another number."""
    return f"{number:.0f}" if number == int(number) and abs(number) < 1e15 else f"{number:g}"


def at_least(number: float) -> Interval:
    """From `number` on: `Annotated[int, at_least(1)]`."""
    return Interval(number)


def above(number: float) -> Interval:
    """Larger than `number`: `Annotated[float, above(0)]`."""
    return Interval(number, without_least=True)


def within(interval: str) -> Interval:
    """Between two numbers, in the notation of mathematics: `Annotated[float, within("(0, 1]")]`."""
    parts = re.fullmatch(r"([\[(])(\S+), (\S+)([\])])", interval)
    if parts is None:
        raise InputError(f"an interval reads like (0, 1]; this is {interval!r}")
    left, least, most, right = parts.groups()
    return Interval(float(least), float(most), left == "(", right == ")")


Count = Annotated[int, at_least(1)]
Natural = Annotated[int, at_least(0)]
Positive = Annotated[float, above(0)]
NonNegative = Annotated[float, at_least(0)]
Share = Annotated[float, within("[0, 1]")]


def check_options(options: Any, where: str = "") -> None:
    """Raises InputError at the first field of a dataclass whose value is not what its annotation allows.

    where: what the user calls the object, such as "task.train"; its fields are then called task.train.steps and so on.
    """
    kind: Any = type(options)
    for name, annotation in _annotations(kind).items():
        check_option(f"{where}.{name}" if where else name, getattr(options, name), annotation)


def checked(where: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """The same for a function's arguments: `@checked("task")` before `def __init__`. **others are not checked."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            annotations = _annotations(function)
            for name, value in _bound(signature, args, kwargs).items():
                if name in annotations:
                    check_option(f"{where}.{name}" if where else name, value, annotations[name])
            return function(*args, **kwargs)

        return call

    return decorate


def check_option(name: str, value: Any, annotation: Any) -> None:
    """Raises InputError, by this name, unless a value is what an annotation allows."""
    misfit = _misfit(name, value, annotation)
    if misfit is not None:
        raise InputError(f"{misfit.name} must be {_either(misfit.allowed)}; it is {misfit.value!r}")


def check_fields(name: str, value: Any, annotations: Mapping[str, Any]) -> None:
    """Raises InputError unless a value, such as one that was read from a file, is a mapping that has these fields, each
    as its annotation allows. name: of the value."""
    check_option(name, value, Mapping[str, Any])
    for field, annotation in annotations.items():
        if field not in value:
            raise InputError(f"{name} has no {field}")
        check_option(f"{name}.{field}", value[field], annotation)


@dataclasses.dataclass(frozen=True)
class _Misfit:
    """A value that is not allowed, or the first within it that is not, and what would be in its place."""

    name: str
    value: Any
    allowed: Sequence[str]


@functools.cache
def _annotations(owner: Any) -> dict[str, Any]:
    """Annotation of every field of a dataclass, or of every parameter of a function that has a name of its own."""
    hints = typing.get_type_hints(owner, include_extras=True)
    if dataclasses.is_dataclass(owner):
        return {field.name: hints[field.name] for field in dataclasses.fields(owner)}
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = [name for name, given in inspect.signature(owner).parameters.items() if given.kind not in several]
    return {name: hints[name] for name in named if name in hints}


def _bound(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        return signature.bind(*args, **kwargs).arguments
    except TypeError:  # an argument that is missing or unknown: the call itself says so
        return {}


def _misfit(name: str, value: Any, annotation: Any) -> _Misfit | None:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _misfit_annotated(name, value, arguments[0], arguments[1:])
    if annotation in _NUMBERS:
        return _misfit_number(name, value, annotation, Interval())
    if origin in (typing.Union, types.UnionType):
        return _misfit_union(name, value, arguments)
    if origin is typing.Literal:
        known = any(_same(value, word) for word in arguments)
        return None if known else _Misfit(name, value, [_word(word) for word in arguments])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _misfit_mapping(name, value, *arguments)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _misfit_items(name, value, origin, arguments)
    return _misfit_class(name, value, annotation)


def _misfit_annotated(name: str, value: Any, annotation: Any, notes: Sequence[Any]) -> _Misfit | None:
    for note in notes:
        if isinstance(note, Interval):
            return _misfit_number(name, value, annotation, note)
    return _misfit(name, value, annotation)


def _misfit_number(name: str, value: Any, kind: Any, interval: Interval) -> _Misfit | None:
    noun, number = _NUMBERS[kind]
    if not isinstance(value, number) or isinstance(value, bool):
        return _Misfit(name, value, [interval.of(noun)])
    if value not in interval:
        return _Misfit(name, value, [str(interval)])
    if kind is int:
        return None if abs(int(value)) < _LARGEST else _Misfit(name, value, ["smaller than 2^53"])
    if abs(value) <= _LARGEST_FLOAT:
        return None
    return _Misfit(
        name, value, ["finite" if value in (math.inf, -math.inf) or value != value else "smaller than 3.4e38"]
    )


def _misfit_union(name: str, value: Any, annotations: Sequence[Any]) -> _Misfit | None:
    misfits = [_misfit(name, value, annotation) for annotation in annotations]
    found = [misfit for misfit in misfits if misfit is not None]
    if len(found) < len(misfits):
        return None
    inside = [misfit for misfit in found if misfit.name != name]  # of a list that is one, say, but for an item
    return inside[0] if inside else _Misfit(name, value, [word for misfit in found for word in misfit.allowed])


def _misfit_mapping(name: str, value: Any, of_keys: Any, of_values: Any) -> _Misfit | None:
    if not isinstance(value, Mapping):
        return _Misfit(name, value, ["a mapping"])
    for key, item in value.items():
        misfit = _misfit(f"a key of {name}", key, of_keys) or _misfit(f"{name}.{key}", item, of_values)
        if misfit is not None:
            return misfit
    return None


def _misfit_items(name: str, value: Any, kind: type, annotations: tuple[Any, ...]) -> _Misfit | None:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return _Misfit(name, value, ["a list"])
    if issubclass(kind, tuple) and annotations[-1] is not Ellipsis:
        if len(value) != len(annotations):
            return _Misfit(name, value, [f"a list of {len(annotations)} items"])
    else:
        annotations = annotations[:1] * len(value)
    for position, (item, annotation) in enumerate(zip(value, annotations, strict=True)):
        misfit = _misfit(f"{name}[{position}]", item, annotation)
        if misfit is not None:
            return misfit
    return None


def _misfit_class(name: str, value: Any, annotation: Any) -> _Misfit | None:
    classes: Any
    if isinstance(annotation, type) and (dataclasses.is_dataclass(annotation) or inspect.isabstract(annotation)):
        classes, described = annotation, f"of the kind {annotation.__name__}"
    elif annotation in _CLASSES:
        classes, described = _CLASSES[annotation]
    else:
        return None  # a kind of value that is not checked here
    return None if isinstance(value, classes) else _Misfit(name, value, [described])


def _same(value: Any, word: Any) -> bool:
    """True is no 1, and an array is no word."""
    return isinstance(value, type(word)) and isinstance(value, bool) == isinstance(word, bool) and value == word


def _word(word: Any) -> str:
    """As it is written in a configuration."""
    return str(word).lower() if isinstance(word, bool) else str(word)


def _either(allowed: Sequence[str]) -> str:
    """a, b or c"""
    *others, last = dict.fromkeys(allowed)
    return f"{', '.join(others)} or {last}" if others else last
