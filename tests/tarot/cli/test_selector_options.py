"""Options of selectors, as the command line gives them."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from tarot.cli.selector_options import option_lines, parsed, selector_of
from tarot.selectors import SELECTORS, TarotExact, TarotOTM


def text_of(value) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize("name", SELECTORS)
def test_every_option_of_every_selector_can_be_written(name):
    default = SELECTORS[name]()
    options = [f"{f.name}={text_of(getattr(default, f.name))}" for f in dataclasses.fields(default)]
    assert selector_of(name, options) == default
    assert all(f"{field.name}=" in option_lines() for field in dataclasses.fields(default))


def test_values_are_read_by_the_annotation():
    assert selector_of("tarot_exact", ["size=auto"]) == TarotExact(size="auto")
    assert selector_of("tarot_otm", ["folds=3", "folds=5", "min_cos=null"]) == TarotOTM(folds=5)
    assert parsed("true", bool, "x") is True and parsed("1e-3", float | None, "x") == 1e-3
    assert parsed("a", typing.Literal["a", "b"], "x") == "a"
