"""An annotation says what an option may be; what it does not allow is refused by name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest
import torch

from tarot import InputError
from tarot.common.options import (
    Count,
    Natural,
    NonNegative,
    Positive,
    Share,
    above,
    at_least,
    check_fields,
    check_option,
    check_options,
    checked,
    within,
)


@dataclass(frozen=True)
class Nested:
    size: Count = 1


INFINITE, NAN = math.inf, math.nan
OF_BOOL, OF_INT, OF_FLOAT, OF_TEXT = "true or false", "an integer", "a number", "a string"

ALLOWED = [
    (bool, [True, False, np.True_]),
    (int, [0, -3, 2**53 - 1, np.int64(3), np.uint8(3)]),
    (float, [0.0, -1.5, 3, np.float32(0.5), np.int64(3)]),
    (str, ["", "a", np.str_("a")]),
    (Path, [Path("a")]),
    (str | Path, ["a", Path("a")]),
    (type(None), [None]),
    (int | None, [None, 3]),
    (Literal["a", "b"], ["a", "b", np.str_("b")]),
    (Literal["a"] | None, ["a", None]),
    (Literal[False, "one"], [False, "one"]),
    (Count | Literal["auto"], [1, "auto"]),
    (Count, [1, 2]),
    (Natural, [0, 1]),
    (Positive, [1e-300, 1]),
    (NonNegative, [0, 0.0, 1e38]),
    (Share, [0, 1, 0.5, np.float64(1)]),
    (Annotated[float, within("(0, 1]")], [0.1, 1]),
    (Annotated[float, within("[-1, 1)")], [-1, 0.99]),
    (Annotated[float, above(-2)], [-1.9]),
    (Annotated[int, "a note that is no range"], [-5]),
    (Sequence[int], [[], (), [1, 2], (1, 2), range(3)]),
    (list[str], [["a"], ("a",)]),
    (tuple[int, ...], [[1, 2, 3], ()]),
    (tuple[float, int], [(0.5, 1), [1, 1]]),
    (Sequence[Share] | None, [None, [0.5]]),
    (Mapping[str, Count | None], [{}, {"a": 1, "b": None}]),
    (Mapping[str, Mapping[str, Any]], [{"a": {"b": object()}}]),
    (str | Sequence[str] | Mapping[str, str], ["a", ["a"], {"a": "b"}]),
    (Nested, [Nested()]),
    (Nested | None, [None, Nested()]),
    (Mapping[str, Nested], [{"a": Nested()}]),
    (Any, ["a", 1, None]),
    (np.ndarray, ["what is no option's type is not checked"]),
    (torch.Tensor, [1]),
    (Callable[[int], int], [1]),
    (Callable[[int], int] | None, [1]),
]


@pytest.mark.parametrize(("annotation", "value"), [(kind, value) for kind, values in ALLOWED for value in values])
def test_what_is_allowed(annotation, value):
    check_option("name", value, annotation)


REFUSED = [
    (bool, {1: OF_BOOL, 0: OF_BOOL, "true": OF_BOOL, None: OF_BOOL}),
    (int, {1.5: OF_INT, 2.0: OF_INT, "3": OF_INT, True: OF_INT, None: OF_INT}),
    (int, {np.True_: OF_INT, 2**53: r"smaller than 2\^53", -(10**400): r"smaller than 2\^53"}),
    (float, {"1": OF_FLOAT, True: OF_FLOAT, None: OF_FLOAT, 1j: OF_FLOAT, INFINITE: "finite", NAN: "finite"}),
    (str, {1: OF_TEXT, None: OF_TEXT, b"a": OF_TEXT, Path("a"): OF_TEXT}),
    (Path, {"a": "a path"}),
    (str | Path, {1: "a string or a path"}),
    (type(None), {0: "null", "null": "null"}),
    (int | None, {"a": "an integer or null", 1.5: "an integer or null"}),
    (Literal["a", "b", "c"], {"d": "a, b or c", None: "a, b or c", 1: "a, b or c"}),
    (Literal["a"] | None, {"b": "a or null"}),
    (Literal[False, "one"], {True: "false or one", 0: "false or one"}),
    (Literal[1], {True: "1"}),
    (Literal[1], {1.0: "1"}),
    (Count, {0: "at least 1", -1: "at least 1", 1.5: "an integer of at least 1", "a": "an integer of at least 1"}),
    (Count | Literal["auto"], {0: "at least 1 or auto", "a": "an integer of at least 1 or auto"}),
    (Count | None, {0: "at least 1 or null"}),
    (Positive, {0: "positive", -1: "positive", NAN: "positive", "a": "a positive number"}),
    (NonNegative, {-1e-9: "at least 0", INFINITE: "finite", "a": "a number of at least 0"}),
    (NonNegative, {1e39: "smaller than 3.4e38", 10**400: "smaller than 3.4e38"}),
    (Share, {-0.1: r"in \[0, 1\]", 1.1: r"in \[0, 1\]", NAN: r"in \[0, 1\]", "a": r"a number in \[0, 1\]"}),
    (Annotated[float, within("(0, 1)")], {0: r"in \(0, 1\)", 1: r"in \(0, 1\)"}),
    (Annotated[float, above(2)], {2: "above 2", "a": "a number above 2"}),
    (Sequence[int], {1: "a list", "ab": "a list", b"ab": "a list", None: "a list"}),
    (tuple[float, float], {(1.0,): "a list of 2 items", (1.0, 2.0, 3.0): "a list of 2 items", 1.0: "a list"}),
    (Mapping[str, int], {"a": "a mapping", ("a", 1): "a mapping"}),
    (Nested, {"a": "of the kind Nested", None: "of the kind Nested", Nested: "of the kind Nested"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("annotation", "value", "allowed"),
    [(kind, value, allowed) for kind, values in REFUSED for value, allowed in values.items()],
)
def test_what_is_refused_says_what_is_allowed(annotation, value, allowed):
    with pytest.raises(InputError, match=f"^name must be {allowed}; it is ") as error:
        check_option("name", value, annotation)
    assert str(error.value).endswith(repr(value))


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (Sequence[int], [1, "a"], "name[1] must be an integer; it is 'a'"),
        (Sequence[Share], (0.5, 2), "name[1] must be in [0, 1]; it is 2"),
        (Sequence[Share] | None, [2], "name[0] must be in [0, 1]; it is 2"),
        (tuple[float, int], (1, 1.5), "name[1] must be an integer; it is 1.5"),
        (Mapping[str, Count], {"a": 1, "b": 0}, "name.b must be at least 1; it is 0"),
        (Mapping[str, Count], {1: 1}, "a key of name must be a string; it is 1"),
        (Mapping[str, Sequence[int]], {"a": [1, None]}, "name.a[1] must be an integer; it is None"),
        (str | Sequence[str] | Mapping[str, str], ["a", 1], "name[1] must be a string; it is 1"),
        (str | Sequence[str], 1, "name must be a string or a list; it is 1"),
        (Sequence[int], np.array([1]), "name must be a list; it is array([1])"),
        (Literal["a"], np.array(["a", "a"]), "name must be a; it is array(['a', 'a'], dtype='<U1')"),
        (int, [1], "name must be an integer; it is [1]"),
        (float, 10**400, f"name must be smaller than 3.4e38; it is {10**400}"),
        (int, 2**53, f"name must be smaller than 2^53; it is {2**53}"),
        (Annotated[int, within("[1, 1048576]")], 0, "name must be in [1, 1048576]; it is 0"),
    ],
)
def test_what_is_inside_is_named(annotation, value, message):
    with pytest.raises(InputError) as error:
        check_option("name", value, annotation)
    assert str(error.value) == message


@dataclass(frozen=True)
class Options:
    kind: ClassVar[int] = "not an option"

    steps: Count
    rate: Positive = 1
    words: Sequence[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_options(self, "train")


@dataclass(frozen=True)
class More(Options):
    rate: Share = 0.5
    warmup: Share = 0.5


def test_the_options_of_a_class_and_of_those_it_inherits_from():
    assert type(Options(1, rate=3).rate) is int  # nothing is converted
    for made, message in (
        (lambda: Options(0), "train.steps must be at least 1; it is 0"),
        (lambda: Options(1, words=[1]), "train.words[0] must be a string; it is 1"),
        (lambda: More(0), "train.steps must be at least 1; it is 0"),
        (lambda: More(1, rate=2), "train.rate must be in [0, 1]; it is 2"),  # its own, not the parent's
        (lambda: More(1, warmup=2), "train.warmup must be in [0, 1]; it is 2"),
        (lambda: check_options(replace_unchecked(More(1), steps=0)), "steps must be at least 1; it is 0"),
    ):
        with pytest.raises(InputError) as error:
            made()
        assert str(error.value) == message


def replace_unchecked(options, **changes):
    for name, value in changes.items():
        object.__setattr__(options, name, value)
    return options


class Task:
    @checked("task")
    def __init__(self, name: str, *, size: Count = 3, unknown=None, **options: int) -> None:
        """What it is."""
        self.given = (name, size, unknown, options)


def test_the_arguments_of_a_function():
    assert Task("a").given == ("a", 3, None, {}) and Task("a", size=1, unknown=2, more="b").given == (
        "a",
        1,
        2,
        {"more": "b"},
    )
    assert Task.__init__.__doc__ == "What it is."
    for arguments, message in (
        ({"name": 1}, "task.name must be a string; it is 1"),
        ({"name": "a", "size": 0}, "task.size must be at least 1; it is 0"),
    ):
        with pytest.raises(InputError) as error:
            Task(**arguments)
        assert str(error.value) == message
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'name'"):
        Task(size=1)


@pytest.mark.parametrize("wrong", ["0, 1", "(0 1)", "(0, 1", ""])
def test_an_interval_that_is_none(wrong):
    with pytest.raises(InputError, match="an interval reads like"):
        within(wrong)


def test_intervals_contain_what_they_say():
    numbers = [-1, 0, 0.5, 1, 2]
    for interval, inside in (
        (within("[0, 1]"), [0, 0.5, 1]),
        (within("(0, 1]"), [0.5, 1]),
        (within("[0, 1)"), [0, 0.5]),
        (within("(0, 1)"), [0.5]),
        (at_least(0.5), [0.5, 1, 2]),
        (above(0.5), [1, 2]),
    ):
        assert [number for number in numbers if number in interval] == inside, interval


def test_the_fields_of_what_was_read():
    wanted = {"dim": Count, "ids": Sequence[str]}
    check_fields("f.json", {"dim": 3, "ids": [], "more": None}, wanted)
    for value, words in (
        ([], "f.json must be a mapping; it is []"),
        ({"dim": 3}, "f.json has no ids"),
        ({"dim": 0, "ids": []}, "f.json.dim must be at least 1; it is 0"),
    ):
        with pytest.raises(InputError, match=f"^{re.escape(words)}$"):
            check_fields("f.json", value, wanted)
