"""A selector's configuration is its dataclass fields; what several of them have."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from tarot.common import Count, Natural, check_options, checked, within

Size = Count | None
Ratio = Annotated[float, within("(0, 1]")] | None


@dataclass(frozen=True)
class Sized:
    """size, ratio: how many of the N candidates, as a count in 1..N or a fraction in (0, 1]; give one."""

    size: Size = None
    ratio: Ratio = None

    def __post_init__(self) -> None:
        check_options(self)


def described(selector: Any) -> dict[str, Any]:
    """The selector's class name and options as plain data, kept in its Selection; tuples become lists, as in a file."""
    options = dataclasses.asdict(selector)
    return {
        "class": type(selector).__name__,
        **{name: list(option) if isinstance(option, tuple) else option for name, option in options.items()},
    }


def unknown_option(name: str, kind: Any, given: Iterable[str]) -> str | None:
    """What is to be said of the first of the given options that a selector's class has none of; None where it has all.

    name: what the user calls the selector.
    """
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = next((option for option in given if option not in known), None)
    if unknown is None:
        return None
    advice = "; it finds its own size, and tarot_fixed takes yours" if unknown in ("size", "ratio") else ""
    return f"selector {name!r} has no option {unknown!r}; its options are: {', '.join(known) or 'none'}{advice}"


def does_without(method: str, name: str, instead: str) -> None:
    """Warns that a method was not given what its formula has, and what it does instead."""
    warnings.warn(f"{method} was given no {name} and {instead}", stacklevel=3)


@checked()
def random_generator(seed: Natural) -> np.random.Generator:
    """The generator that all of a selector's chance comes from."""
    return np.random.default_rng(seed)
